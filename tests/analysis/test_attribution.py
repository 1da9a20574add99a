"""All of a run's time by phase, cause and line: each way adds up to every pipe's every cycle."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msdsim
from msdsim.analysis.phases import PHASES, lead_pipe, phases
from msdsim.naming import PIPES, pipe_kind
from msdsim.report.attribution import attribution
from msdsim.timeline.record import CATEGORIES
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel, scale_kernel

KERNELS = [copy_kernel(), scale_kernel(), matmul_kernel(), exchange_kernel()]


def _assert_sums(record):
    found, pipes = attribution(record), record.pipe_totals()
    assert found.pipe_cycles == sum(row["instances"] * record.cycles for row in pipes.values())
    assert sum(item.cycles for item in found.causes) == found.pipe_cycles
    assert sum(item.cycles for item in found.lines) == found.pipe_cycles
    for pipe, row in pipes.items():
        by_phase = found.phases.cycles[pipe]
        for category in CATEGORIES:
            # Found again from the timeline alone, what the engine has counted.
            assert sum(by_phase[phase].get(category, 0) for phase in PHASES) == row[category], (pipe, category)
            assert sum(item.cycles for item in found.causes if (item.pipe, item.category) == (pipe, category)) == row[category]
        assert sum(item.cycles for item in found.lines if item.pipe == pipe) == row["instances"] * record.cycles
    assert sum(found.phases.mean.values()) == pytest.approx(record.cycles)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_sums_of_small_kernels(kernel):
    _assert_sums(msdsim.simulate(kernel, "toy", timeline=True).record)


@settings(max_examples=8, deadline=None)
@given(m=st.integers(1, 70), k=st.integers(1, 20), n=st.integers(1, 20), chip=st.sampled_from(["toy", "ascend910b4", "ascend950pr"]),
       dataflow=st.sampled_from(["bf16", "dequant-int8", "convert-int4", "msd-int8", "w8a8"]), warm=st.booleans())
def test_sums_of_gemms(m, k, n, chip, dataflow, warm):
    _assert_sums(msdsim.simulate(f"gemm:m={m},k={32 * k},n={16 * n}", chip, dataflow, timeline=True, warm=warm).record)


@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "msd-int8"])
def test_sums_of_attention(dataflow):
    _assert_sums(msdsim.simulate("attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=300", "ascend910b4", dataflow,
                                 timeline=True).record)


def test_the_phases_of_a_single_copy():
    """One load, one store: the load leads, and the store is the drain."""
    record = msdsim.simulate(copy_kernel(), "toy", timeline=True).record
    found = phases(record)
    assert found.lead == lead_pipe(record)
    part, pipe = found.lead.split(".")
    line = record.timeline
    own = [row for row in range(len(line["unit"])) if record.units.pipe_name(int(line["unit"][row]), int(line["pipe"][row])).pipe
           == pipe.upper() and line["work"][row]]
    assert part in ("aic", "aiv")
    assert found.mean["fill"] == pytest.approx(sum(min(line["start"][row] for row in own if record.units.core(line["unit"][row]) == core)
                                                   for core in range(record.units.cores)) / record.units.cores)
    assert found.mean["drain"] == pytest.approx(record.cycles - sum(
        max(line["end"][row] for row in own if record.units.core(line["unit"][row]) == core)
        for core in range(record.units.cores)) / record.units.cores)


def test_bytes_of_the_timeline_are_those_of_the_result():
    for dataflow in ("bf16", "dequant-int8", "msd-int8"):
        result = msdsim.simulate("gemm:m=20,k=300,n=200", "toy", dataflow, timeline=True)
        moved = int(result.timeline["bytes"].sum())
        assert moved == result.traffic["l2_read_bytes"] + result.traffic["l2_write_bytes"]


def _walked(record, unit, index, beyond):
    """The time of one pipe, instruction by instruction: category, from, to."""
    line, side, at = record.timeline, record.units.part(unit).lower(), 0
    rows = sorted((row for row in range(len(line["unit"])) if (line["unit"][row], line["pipe"][row]) == (unit, index)),
                  key=lambda row: (line["start"][row], line["dispatched"][row]))
    for row in rows:
        start, end, work, cause, number = (int(line[name][row]) for name in ("start", "end", "work", "cause", "instr"))
        if start > at:
            yield CATEGORIES[cause] if cause >= 0 else "wait_issue", at, start
        at = max(at, start)
        busy = min(max(0, end - at), work)
        rest = max(0, end - at) - busy
        waited, head = (int(record.instr_totals[side][number][CATEGORIES.index(name)]) for name in ("wait_memory", "head"))
        before, beyond[side, number] = beyond[side, number], beyond[side, number] + rest
        memory = waited * beyond[side, number] // (waited + head) - waited * before // (waited + head) if rest else 0
        yield "busy", at, at + busy
        yield "wait_memory", at + busy, at + busy + memory
        yield "head", at + busy + memory, at + busy + rest
        at += busy + rest
    yield "drained", at, record.cycles


@pytest.mark.parametrize(("problem", "dataflow"), [("gemm:m=20,k=300,n=200", "bf16"), ("gemm:m=20,k=320,n=96", "msd-int8")])
def test_phases_are_those_of_a_walk_over_every_pipe(problem, dataflow):
    """The same rules said instruction by instruction instead of over whole columns."""
    record = msdsim.simulate(problem, "toy", dataflow, timeline=True).record
    found, line, units = phases(record), record.timeline, record.units
    walked, beyond = Counter(), Counter()
    pipe_of = [pipe_kind(units.part(unit), PIPES[units.part(unit)][pipe])
               for unit, pipe in zip(line["unit"].tolist(), line["pipe"].tolist(), strict=True)]
    for unit in range(units.count):
        own = [row for row, pipe in enumerate(pipe_of)
               if pipe == found.lead and line["work"][row] and units.core(line["unit"][row]) == units.core(unit)]
        edges = 0, min(int(line["start"][row]) for row in own), max(int(line["end"][row]) for row in own), record.cycles
        part = units.part(unit)
        for index, pipe in enumerate(PIPES[part]):
            if pipe == "S" or pipe_kind(part, pipe) not in found.cycles:
                continue
            for category, begin, end in _walked(record, unit, index, beyond):
                for number, phase in enumerate(PHASES):
                    walked[pipe_kind(part, pipe), phase, category] += max(0, min(end, edges[number + 1]) - max(begin, edges[number]))
    counted = {(pipe, phase, category): count for pipe, by_phase in found.cycles.items() if not pipe.endswith(".s")
               for phase, row in by_phase.items() for category, count in row.items()}
    assert counted == +walked


def test_phases_need_a_timeline():
    with pytest.raises(ValueError, match="kept its timeline"):
        phases(msdsim.simulate(copy_kernel(), "toy").record)
