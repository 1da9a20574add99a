"""Figures and sentences of results whose cycles and bytes are set by hand, so that the right value is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msdsim.numerics.check import Numerics
from msdsim.report.frames import comparison_rows, workload_rows
from msdsim.report.result import BoundBy, Comparison, WorkloadComparison, WorkloadResult, WorkloadRun
from msdsim.report.verdict import verdict, why, workload_verdict


@pytest.fixture(scope="module")
def made(dequant):
    """A run on toy (1 GHz: a cycle is a nanosecond) with these cycles, and bytes of HBM read and written, L2 read and written."""
    def make(dataflow="bf16", cycles=1000, traffic=(0, 0, 0, 0), **changes):
        moved = np.zeros_like(dequant.record.tensor_traffic)
        moved[0], moved[-1, 1] = traffic, moved[-1, 1] + 0
        record = replace(dequant.record, cycles=cycles, tensor_traffic=moved, l2_dirty_bytes=changes.pop("dirty", 0))
        return replace(dequant, **{"dataflow": dataflow, "record": record, "numerics": None, "causes": None} | changes)

    return make


def numbers(error, overflowed=0):
    return Numerics(True, 100, 0, error, error, 0.5, overflowed)


def test_bandwidth_is_that_of_the_kernel_without_its_launch(made):
    run = made(cycles=1000, traffic=(600_000, 400_000, 7, 9), dirty=512)
    assert run.launch_us > 0 or run.hardware.chip.launch is not None
    assert (run.time_us, run.hbm_bytes) == (1.0, 1_000_000)
    assert run.hbm_gbps == pytest.approx(1000)
    assert run.hbm_utilization == pytest.approx(1000 / run.hardware.chip.hbm.bandwidth_gbps)
    assert run.traffic == {"hbm_read_bytes": 600_000, "hbm_write_bytes": 400_000, "l2_read_bytes": 7, "l2_write_bytes": 9, "l2_dirty_bytes": 512}
    slow = replace(run, hardware=run.hardware.replace(clock_mhz=500))
    assert (slow.time_us, slow.hbm_gbps) == (2.0, pytest.approx(500))


def layers(made, dataflow, *parts):
    return WorkloadResult("net", [WorkloadRun(name, count, made(dataflow, cycles, (cycles, 1, 2 * cycles, 0), dirty=dirty))
                                  for name, count, cycles, dirty in parts])


def test_totals_of_a_workload_weigh_by_count(made):
    found = layers(made, "bf16", ("up", 3, 1000, 64), ("down", 2, 10_000, 128))
    assert (found.cycles, found.time_us) == (23_000, 23.0)
    assert found.traffic == {"hbm_read_bytes": 23_000, "hbm_write_bytes": 5, "l2_read_bytes": 46_000, "l2_write_bytes": 0, "l2_dirty_bytes": 128}
    assert found.hbm_bytes == 23_005
    rows = workload_rows(found)
    assert [(row["name"], row["count"], row["total_us"], row["share"]) for row in rows] == [
        ("up", 3, 3.0, pytest.approx(3 / 23)), ("down", 2, 20.0, pytest.approx(20 / 23))]


def test_rows_of_a_comparison(made):
    runs = [made("bf16", 1000), made("dequant-int8", 500), made("msd-int8", 2000)]
    assert [(row["dataflow"], row["speedup"], row["winner"]) for row in comparison_rows(Comparison(runs, []))] == [
        ("bf16", 1.0, False), ("dequant-int8", 2.0, True), ("msd-int8", 0.5, False)]


@pytest.mark.parametrize(("cycles", "said"), [
    (1000, "bf16 and msd-int8 tie;"), (1019, "bf16 and msd-int8 tie (2% apart);"), (1021, "bf16 wins, 1.02x as fast as msd-int8, which "),
    (2500, "bf16 wins, 2.50x as fast as msd-int8, which ")])
def test_two_percent_are_a_tie(made, cycles, said):
    assert verdict(Comparison([made("bf16", 1000), made("msd-int8", cycles)], [])).startswith(said)


@pytest.mark.parametrize(("ours", "theirs", "said"), [
    (1.49e-3, 1e-3, ""), (1.5e-3, 1e-3, "; but dequant-int8's error is 1.5x as large."), (4e-3, 1e-3, "; but dequant-int8's error is 4.0x as large."),
    (1e-3, 4e-3, "")])
def test_the_price_of_speed_is_said_from_one_and_a_half_on(made, ours, theirs, said):
    fast, slow = made("dequant-int8", 1000, numerics=numbers(ours)), made("msd-int8", 2000, numerics=numbers(theirs))
    text = verdict(Comparison([fast, slow], []))
    assert text.endswith(said or ".")
    assert ("error is" in text) == bool(said)


def test_outputs_that_overflow_are_said(made):
    fast, slow = made("dequant-int8", 1000, numerics=numbers(1e-3, 7)), made("msd-int8", 2000, numerics=numbers(1e-3))
    assert verdict(Comparison([fast, slow], [])).endswith("; but 7 of dequant-int8's outputs overflow.")
    found = Comparison([made("bf16", 2000, numerics=numbers(1e-3, 5)), fast], [])
    assert found.less_accurate(fast) == "7 of its outputs overflow"
    assert (found.fastest.dataflow, found.winner.dataflow) == ("dequant-int8", "bf16")
    assert not Comparison([made("bf16", 2000, numerics=numbers(1e-3, 7)), fast], []).less_accurate(fast)


@pytest.mark.parametrize(("error", "lost"), [(1.02e-3, ""), (1.03e-3, "its error is 1.03x that of bf16"), (2e-3, "its error is 2x that of bf16"), (5e-4, "")])
def test_errors_within_two_percent_are_as_large(made, error, lost):
    base, other = made("bf16", 2000, numerics=numbers(1e-3)), made("dequant-int8", 1000, numerics=numbers(error))
    assert Comparison([base, other], []).less_accurate(other) == lost


def test_bytes_are_compared_where_memory_binds(made):
    hbm = (BoundBy("HBM", "HBM twice as fast", 1.5),)
    winner = made("msd-int8", 1000, (100_000, 0, 0, 0))
    for moved, said in (((240_000, 10_000), " and moves 2.5x the bytes"), ((104_000, 0), ""), ((60_000, 50_000), " and moves 1.1x the bytes")):
        rival = made("bf16", 2000, (*moved, 0, 0), causes=hbm)
        assert why(winner, rival) == f"is bound by HBM (twice as fast: 1.50x){said}"
    vector = made("bf16", 2000, (250_000, 0, 0, 0), causes=(BoundBy("Vector", "Vector twice as fast", 1.5), *hbm))
    assert "bytes" not in why(winner, vector)


def test_the_layer_where_most_time_is_lost_counts_its_repeats(made):
    """40 x (1100 - 1000) is more than 1 x (4000 - 2000)."""
    ours = layers(made, "msd-int8", ("attention", 40, 1000, 0), ("head", 1, 2000, 0))
    theirs = layers(made, "bf16", ("attention", 40, 1100, 0), ("head", 1, 4000, 0))
    text = workload_verdict(WorkloadComparison([theirs, ours], []))
    assert text.startswith("msd-int8 wins, 1.14x as fast as bf16 in total; most of the difference is in attention, where bf16 ")
    near = layers(made, "bf16", ("attention", 40, 1000, 0), ("head", 1, 2500, 0))
    assert workload_verdict(WorkloadComparison([near, ours], [])) == "msd-int8 and bf16 tie in total (1% apart)."
