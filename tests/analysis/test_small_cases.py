"""Analysis on cases small enough to know the answer: what counts as a resource, when turns agree, when an order is broken."""

from __future__ import annotations

import types
from dataclasses import replace

import numpy as np
import pytest

import msdsim
from msdsim.analysis.bottleneck import find_bottleneck, utilizations
from msdsim.analysis.closed_form import floor_us, gemm_terms, gemm_time_us
from msdsim.analysis.critical_path import PathSegment, circuit
from msdsim.analysis.energy import Range, kernel_work, run_energy, total_energy
from msdsim.analysis.hazards import HazardCheck, _Access
from msdsim.errors import CheckFailed
from msdsim.explore.whatif import path_widths
from msdsim.hardware.energy import CORNERS
from msdsim.ir import KernelBuilder
from msdsim.ir.lower import lower
from msdsim.naming import PIPES
from msdsim.problems import parse_problem
from msdsim.report.waits import waits
from msdsim.timeline.record import CATEGORIES
from tests.ir.kernels import copy_kernel, scale_kernel


def test_scalar_pipes_are_no_resource():
    """With an issue of 200 cycles the scalar unit works most of the time and binds nothing that could be bought."""
    hardware = msdsim.load_hw("toy").replace(**{"dispatch.issue_cycles": 200})
    result = msdsim.simulate(scale_kernel(rows=16), hardware)
    scalar = result.stalls["aiv.s"]["busy"] / result.cycles
    shares = utilizations(result.record)
    assert scalar > max(shares.values())
    assert not [name for name in shares if name.endswith(".s")]
    assert find_bottleneck(result.record).name != "aiv.s"


def test_hbm_counts_what_is_written():
    result = msdsim.simulate(copy_kernel(rows=64, cols=256), "toy")
    moved = result.traffic["hbm_read_bytes"] + result.traffic["hbm_write_bytes"]
    assert result.hbm_gbps == pytest.approx(moved / result.time_us / 1000)
    if result.traffic["hbm_write_bytes"]:
        assert result.hbm_gbps > result.traffic["hbm_read_bytes"] / result.time_us / 1000


def test_transfers_that_wait_for_memory_are_named_by_their_tensor():
    """Both ways, where memory is far slower than the port."""
    hardware = msdsim.load_hw("toy").replace(hbm__bandwidth_gbps=2, l2__write_gbps=2)
    found = waits(msdsim.simulate(copy_kernel(rows=64, cols=256), hardware).record)
    memory = {wait.pipe: wait.text for pipe in found.values() for wait in pipe if wait.category == "wait_memory"}
    assert memory == {"aiv.mte2": "memory, reading x", "aiv.mte3": "memory, writing y"}


def _path(places):
    return [PathSegment(0, "aiv", pipe, number, 10 * at, 10 * at + 10) for at, (pipe, number) in enumerate(places)]


def test_a_circuit_repeats_for_three_turns_at_a_time():
    turn = [("MTE2", 0), ("V", 1)]
    assert [(step.pipe, step.instr, step.cycles) for step in circuit(_path(turn * 40))] == [("MTE2", 0, 10), ("V", 1, 10)]
    # Every fourth turn goes another way: three of four turns alike are no steady state.
    strays = [place if turn % 4 else ("MTE3", 2 + turn) for turn in range(80) for place in turn_of(turn)]
    assert circuit(_path(strays)) == []


def turn_of(turn):
    return [("MTE2", 0), ("V", 1)] if turn % 4 else [("MTE2", 0)]


def _access(begin, end, pipe="V", unit=0, start=0):
    return _Access((0, start), (1, 64), begin, end, unit, pipe, f"access at {begin}")


def _check():
    found = object.__new__(HazardCheck)
    found.functions = {}
    found.tensors = {}
    return found


def test_the_order_check_is_exact_to_the_cycle():
    check = _check()
    check._demand(_access(0, 10), _access(10, 20), "reads what", "writes")
    with pytest.raises(CheckFailed, match="starts at cycle 9 and reads what access at 0 writes until cycle 10"):
        check._demand(_access(0, 10), _access(9, 20), "reads what", "writes")
    check._demand(_access(0, 10), _access(9, 20, start=64), "reads what", "writes")


def test_two_writers_on_two_pipes_are_held_against_each_other():
    """Nothing reads in between; the later write of the program must still come after the earlier one."""
    from collections import defaultdict

    ops = [types.SimpleNamespace(kind="copy", line=line, attr=lambda name, default: default) for line in (1, 2)]
    region = types.SimpleNamespace(name="tile", slot=0, starts=(0, 0), sizes=(1, 64))
    check = _check()
    check.pipe_of = {"aiv": {id(ops[0]): ("MTE2", 0), id(ops[1]): ("V", 1)}}
    check.next, check.writes, check.reads = defaultdict(lambda: [0]), defaultdict(list), defaultdict(list)
    check.times = {(0, 0): [(0, 10)], (0, 1): [(5, 8)]}
    check.record = types.SimpleNamespace(units=types.SimpleNamespace(unit=lambda *_: 0, pipe_name=lambda *_: "AIV pipe"))
    check.observe((0, "aiv", 0), ops[0], [], region)
    with pytest.raises(CheckFailed, match=r"overwrites what .* still writes until cycle 10"):
        check.observe((0, "aiv", 0), ops[1], [], region)


def _observed(check, times, ops):
    """The check's writes and reads after operations (kind, pipe, region read, region written), one after the other."""
    from collections import defaultdict

    pipes = [pipe for _, pipe, _, _ in ops]
    items = [types.SimpleNamespace(kind=kind, line=line, attr=lambda name, default: default) for line, (kind, *_) in enumerate(ops, 1)]
    check.pipe_of = {"aiv": {id(item): (pipe, number) for number, (item, pipe) in enumerate(zip(items, pipes, strict=True))}}
    check.next, check.writes, check.reads = defaultdict(lambda: [0]), defaultdict(list), defaultdict(list)
    check.times = {(0, number): [time] for number, time in enumerate(times)}
    check.record = types.SimpleNamespace(units=types.SimpleNamespace(unit=lambda *_: 0, pipe_name=lambda *_: "AIV pipe"))
    for item, (_, _, read, write) in zip(items, ops, strict=True):
        check.observe((0, "aiv", 0), item, [] if read is None else [read], write)


def _region(name, start, size):
    return types.SimpleNamespace(name=name, slot=0, starts=(0, start), sizes=(1, size))


@pytest.mark.parametrize(("times", "wrong"), [([(0, 10), (0, 10), (10, 20)], False), ([(0, 12), (0, 10), (10, 20)], True), ([(0, 10), (0, 12), (10, 20)], True)])
def test_a_write_of_one_part_does_not_hide_the_write_of_another(times, wrong):
    """MTE2 fills the left half, V the right; MTE3 reads both: either writer may be the one that is late."""
    ops = [("copy", "MTE2", None, _region("tile", 0, 32)), ("dup", "V", None, _region("tile", 32, 32)), ("copy", "MTE3", _region("tile", 0, 64), _region("y", 0, 64))]
    if wrong:
        with pytest.raises(CheckFailed, match="reads what"):
            _observed(_check(), times, ops)
    else:
        _observed(_check(), times, ops)


def test_a_reader_of_one_part_is_waited_for_by_who_writes_that_part_only():
    ops = [("copy", "MTE3", _region("tile", 0, 32), _region("y", 0, 32)), ("dup", "V", None, _region("tile", 32, 32)), ("copy", "MTE2", None, _region("tile", 0, 32))]
    _observed(_check(), [(0, 10), (1, 2), (10, 12)], ops)
    with pytest.raises(CheckFailed, match="starts at cycle 9 and overwrites what"):
        _observed(_check(), [(0, 10), (1, 2), (9, 12)], ops)
    # What has been overwritten as a whole is forgotten: a later write waits for the last reader only.
    again = [*ops, ("copy", "MTE2", None, _region("tile", 0, 32))]
    _observed(_check(), [(0, 10), (1, 2), (10, 12), (12, 14)], again)


def test_shares_of_memories_by_hand():
    """At 1 GHz, HBM of 100 GB/s of which streams reach 90%: 100 bytes a cycle and 90."""
    run = msdsim.simulate(copy_kernel(), msdsim.load_hw("toy").replace(**{"hbm.bandwidth_gbps": 100, "hbm.efficiency": 0.9, "l2.read_gbps": 200, "l2.write_gbps": 50}))
    moved = np.zeros_like(run.record.tensor_traffic)
    moved[0] = 18_000, 27_000, 40_000, 20_000
    shares = utilizations(replace(run.record, cycles=1000, tensor_traffic=moved))
    assert shares["hbm"] == pytest.approx(45 / 90)
    assert (shares["l2.read"], shares["l2.write"]) == (pytest.approx(0.2), pytest.approx(0.4))


def test_energy_of_traffic_and_time_by_hand():
    """Figures of toy: 10 pJ a byte in L2, 50 in HBM (low and high where given), static power over the whole time."""
    run = msdsim.simulate(copy_kernel(), "toy")
    moved = np.zeros_like(run.record.tensor_traffic)
    moved[0] = 1000, 200, 30, 4
    energy = run_energy(replace(run.record, cycles=5000, tensor_traffic=moved))
    figures = run.hardware.chip.energy
    for index, corner in enumerate(CORNERS):
        assert energy.by_unit["HBM"][index] == pytest.approx(1200 * figures.byte_pj.hbm.at(corner) / 1e6)
        assert energy.by_unit["L2"][index] == pytest.approx(34 * figures.byte_pj.l2.at(corner) / 1e6)
        assert energy.by_unit["static"][index] == pytest.approx(5 * figures.static_w.at(corner))
    assert figures.static_w.low < figures.static_w.middle < figures.static_w.high
    assert energy.power_w.middle == pytest.approx(energy.total.middle / 5)
    both = total_energy([(3, energy), (2, replace(energy, time_us=1.0))])
    assert both.time_us == 17
    assert both.by_unit["HBM"] == pytest.approx(tuple(5 * value for value in energy.by_unit["HBM"]))
    assert total_energy([(3, energy), (1, None)]) is None


def test_the_quotient_of_ranges_is_the_smallest_and_largest_of_its_ends():
    assert Range(1, 4, 5).over(Range(2, 2, 5)) == Range(0.5, 2, 2)
    assert Range(4, 4, 4).over(Range(1, 2, 8)) == Range(0.5, 2, 4)


def test_a_fold_takes_up_its_accumulator():
    """fold_add over [4, 128] fp32 into [4, 64]: beside 2048 bytes read and 1024 written, a sum is read and written for each element."""
    kb = KernelBuilder("fold", cores=1, aiv_per_core=1)
    x, y = kb.tensor("x", "fp32", (4, 128), "in"), kb.tensor("y", "fp32", (4, 64), "out")
    with kb.part("aiv"):
        tile, sums = kb.buffer("tile", "UB", "fp32", (4, 128)), kb.buffer("sums", "UB", "fp32", (4, 64))
        kb.copy(tile[:, :], x[:, :])
        kb.op("dup", sums[:, :], scalar=0.0)
        kb.op("fold_add", sums[:, :], tile[:, :])
        kb.copy(y[:, :], sums[:, :])
    kernel = kb.build()
    # The copy writes 2048, dup 1024; the fold; the last copy reads 1024.
    fold = 2048 + 2 * 4 * (4 * 128) + 1024
    assert kernel_work(lower(kernel, msdsim.load_hw("toy").chip)).bytes["UB"] == 2048 + 1024 + fold + 1024


def test_closed_forms_of_uneven_experts_and_of_decompositions():
    """An expert without rows reads no weights; an MSD product splits before and merges after what overlaps."""
    chip = msdsim.load_hw("ascend910b1").chip
    uneven, packed = (parse_problem(f"grouped_gemm:rows={rows},k=256,n=512") for rows in ("3+0+5", "3+5"))
    assert gemm_terms("bf16", uneven, chip) == pytest.approx(gemm_terms("bf16", packed, chip))
    memory = gemm_terms("bf16", uneven, chip)["memory"]
    assert memory == pytest.approx((2 * 8 * 256 + 2 * 2 * 256 * 512) / (chip.hbm.bandwidth_gbps * 1e3))
    msd = gemm_terms("msd-int8", parse_problem("gemm:m=16,k=8192,n=12288"), chip)
    whole = gemm_time_us("msd-int8", parse_problem("gemm:m=16,k=8192,n=12288"), chip)
    assert whole == pytest.approx(msd["split"] + max(msd["cube"], msd["memory"]) + msd["merge"])
    assert min(msd["split"], msd["merge"]) > 0
    assert floor_us("msd-int8", parse_problem("gemm:m=16,k=8192,n=12288"), chip) == max(msd.values())


def test_the_leading_pipe_is_that_of_the_busiest_instance():
    """Four AIVs that work 30 each are less than one AIC that works 40; waiting for memory and heads are work, waiting for data is none."""
    from msdsim.analysis.phases import lead_pipe

    def row(instances, **cycles):
        return {"instances": instances} | dict.fromkeys(CATEGORIES, 0) | cycles

    totals = {"aic.m": row(1, busy=20, head=10, wait_memory=10, wait_data=60), "aiv.v": row(4, busy=120, wait_data=280), "aiv.s": row(4, busy=400)}
    assert lead_pipe(types.SimpleNamespace(pipe_totals=lambda: totals)) == "aic.m"
    totals["aiv.v"] = row(4, busy=164)
    assert lead_pipe(types.SimpleNamespace(pipe_totals=lambda: totals)) == "aiv.v"


def test_paths_twice_as_wide():
    """Rates and windows double, the time of a row or a request halves; a further factor goes the same way."""
    chip = msdsim.load_hw("ascend910b1")
    path = chip.chip.paths["gm_l1"]
    for factor in (1, 2):
        found = path_widths(chip, gm=True, factor=factor)
        assert found["paths.gm_l1.bytes_per_cycle"] == path.bytes_per_cycle * 2 * factor
        assert found["paths.gm_l1.outstanding_bytes"] == path.outstanding_bytes * 2 * factor
        assert found["paths.gm_l1.nd2nz.row_cycles"] == pytest.approx(path.nd2nz.row_cycles / (2 * factor))
        assert found["paths.gm_l1.nd2nz.request_cycles"] == pytest.approx(path.nd2nz.request_cycles / (2 * factor))
        assert not [key for key in found if key.startswith("paths.l1_l0a")]
    local = path_widths(chip, gm=False)
    assert "paths.l1_l0a.bytes_per_cycle" in local
    assert not [key for key in local if key.startswith("paths.gm_")]


def test_a_core_whose_leading_pipe_does_nothing_only_fills():
    """Of two cores one works from 30 to 70 of 100 cycles; the other has nothing to do: all of its time is before the work that never comes."""
    from msdsim.analysis.phases import _edges
    from msdsim.timeline.record import Units

    record = types.SimpleNamespace(units=Units(2, 1), cycles=100)
    line = {name: np.array(values) for name, values in {"unit": [0, 0, 1], "pipe": [PIPES["AIC"].index("M")] * 2 + [PIPES["AIV"].index("V")], "work": [5, 9, 9],
                                                        "start": [30, 50, 0], "end": [40, 70, 100]}.items()}
    assert _edges(record, line, "aic.m").tolist() == [[0, 30, 70, 100], [0, 100, 100, 100]]
