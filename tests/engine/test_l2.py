"""L2 between kernels, the way past it, and what lines cost: both engines, worked out by hand where one can."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msdsim
from msdsim.engine import ENGINES, EngineOptions, empty_l2, load_engine
from msdsim.errors import InputError, KernelError
from msdsim.hardware import load_hw
from msdsim.hardware.cost import PortCost
from msdsim.hardware.units.mte import port_cost
from msdsim.ir import KernelBuilder, at, print_kernel
from msdsim.ir.gm_plan import GmPlan
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify
from msdsim.timeline.record import RunRecord

from .comparison import Refused, assert_engines_agree, assert_engines_hand_on, assert_equal, run
from .random_kernels import Case, cases

TOY = load_hw("toy").chip
LINE = TOY.l2.line_bytes


def read_kernel(*rows: int, total: int = 64) -> Kernel:
    """Reads lines of ``x`` one after the other, each into its own buffer."""
    kb = KernelBuilder("read", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (total, LINE), "in")
    with kb.part("aiv"):
        for index, row in enumerate(rows):
            kb.copy(kb.buffer(f"b{index}", "UB", "int8", (1, LINE))[:, :], x[row, :])
    return kb.build()


def write_kernel(rows: int, bypass: bool = False) -> Kernel:
    """Writes the first lines of ``y``."""
    kb = KernelBuilder("write", cores=1, aiv_per_core=1)
    y = kb.tensor("y", "int8", (64, LINE), "out")
    with kb.part("aiv"):
        tile = kb.buffer("tile", "UB", "int8", (1, LINE))
        with kb.loop("i", 0, rows) as i:
            kb.copy(y[i, :], tile[:, :], **({"l2": "bypass"} if bypass else {}))
    return kb.build()


def record_of(kernel: Kernel, engine: str, chip=TOY, l2=None, addresses=None, memory="bandwidth") -> RunRecord:
    record = run(lower(kernel, chip, addresses), engine, l2=l2, memory=memory)
    assert not isinstance(record, Refused)
    return record


# Between kernels


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_what_was_read_is_still_there(engine, memory):
    """A hit takes 10 to set up, 8 to move and 90: 108 cycles from cycle 1."""
    cold = record_of(read_kernel(0), engine, l2=empty_l2(TOY), memory=memory)
    assert cold.traffic["hbm_read_bytes"] == LINE
    warm = record_of(read_kernel(0), engine, l2=cold.l2, memory=memory)
    assert warm.cycles == 109
    assert warm.traffic["hbm_read_bytes"] == 0
    assert warm.traffic["l2_read_bytes"] == LINE


@pytest.mark.parametrize("engine", list(ENGINES))
def test_lru_order_is_handed_on(engine):
    """Two ways, one set: 0 and 1 are there, 0 was used last; 2 takes the place of 1."""
    chip = load_hw("toy").replace(**{"l2.ways": 2, "l2.capacity_bytes": 2 * LINE}).chip
    state = record_of(read_kernel(0, 1, 0), engine, chip, empty_l2(chip)).l2
    assert state is not None
    assert state.lines.tolist() == [1, 0]
    state = record_of(read_kernel(2), engine, chip, state).l2
    assert state is not None
    assert state.lines.tolist() == [0, 2]
    record = record_of(read_kernel(0, 2), engine, chip, state)
    assert record.traffic["hbm_read_bytes"] == 0


@pytest.mark.parametrize("engine", list(ENGINES))
def test_dirty_lines_are_written_back_where_they_are_evicted(engine):
    chip = load_hw("toy").replace(**{"l2.ways": 2, "l2.capacity_bytes": 2 * LINE}).chip
    first = record_of(write_kernel(2), engine, chip, empty_l2(chip))
    assert first.traffic["hbm_write_bytes"] == 0
    assert first.l2_dirty_bytes == 2 * LINE
    # Elsewhere in GM: both lines have to leave for the three that are read, the last for one of those.
    second = record_of(read_kernel(0, 1, 2), engine, chip, first.l2, {"x": 64 * LINE})
    assert second.traffic["hbm_write_bytes"] == 2 * LINE
    assert second.l2_dirty_bytes == 0


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_line_comes_after_the_written_one_in_its_place_has_gone(engine, memory):
    chip = load_hw("ascend910b1").replace(**{"l2.ways": 1, "l2.capacity_bytes": 2 * LINE, "l2.sector_bytes": LINE}).chip
    left = record_of(write_kernel(2), engine, chip, empty_l2(chip)).l2
    cycles = [record_of(read_kernel(0), engine, chip, state, {"x": 64 * LINE}, memory).cycles
              for state in (left, replace(left, dirty=np.zeros_like(left.dirty)))]
    on_the_bus = 1 if memory == "bandwidth" else 0
    assert cycles[0] - cycles[1] == chip.hbm.write_back_cycles + on_the_bus


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_output_is_found_by_the_next_kernel(engine):
    first = record_of(write_kernel(4), engine, l2=empty_l2(TOY), addresses={"y": 8192})
    record = record_of(read_kernel(0, 3, 4), engine, l2=first.l2, addresses={"x": 8192})
    assert record.traffic["hbm_read_bytes"] == LINE
    assert record.l2_dirty_bytes == 4 * LINE


def test_the_state_of_another_cache_is_refused():
    other = empty_l2(load_hw("ascend910b1").chip)
    for engine in ENGINES:
        with pytest.raises(InputError, match="L2 state is of a cache of 16 ways of 24576 lines of 512 bytes, and chip 'toy' has 16 "):
            load_engine(engine).run(lower(read_kernel(0), TOY), EngineOptions(), other)


@given(cases(), st.booleans())
@settings(max_examples=20)
def test_random_kernels_hand_on_their_l2(case: Case, elsewhere: bool):
    """Twice the same kernel, the second time with every other tensor in another place, and a third time as at first."""
    addresses = case.kernel.addresses()
    far = 64 * -(-sum(t.size_bytes + 512 for t in case.kernel.tensors) // 64)
    moved = {name: at + (far if elsewhere and index % 2 else 0) for index, (name, at) in enumerate(addresses.items())}
    records = assert_engines_hand_on([case.program(), case.program(moved), case.program()])
    alone = run(case.program(), "reference")
    assert not isinstance(alone, Refused)
    assert_equal(replace(alone, l2=None, program=records[0].program), replace(records[0], l2=None))


@given(cases())
@settings(max_examples=15)
def test_random_kernels_hand_on_their_l2_with_banks(case: Case):
    assert_engines_hand_on([case.program(), case.program()], "banked")


@pytest.mark.slow
@given(cases(), st.sampled_from(["bandwidth", "banked"]))
@settings(max_examples=500)
def test_many_random_kernels_hand_on_their_l2(case: Case, memory: str):
    assert_engines_hand_on([case.program(), case.program()], memory)


def test_a_warm_run_reads_less():
    problem = "gemm:m=16,k=1024,n=1536"
    cold, warm = (msdsim.simulate(problem, "ascend910b1", warm=warm) for warm in (False, True))
    assert (cold.to_json()["l2_start"], warm.to_json()["l2_start"]) == ("empty", "warm")
    assert warm.traffic["hbm_read_bytes"] == 0
    assert warm.traffic["l2_read_bytes"] == cold.traffic["l2_read_bytes"]
    assert warm.cycles < cold.cycles


# Places in GM


def operator(x: int, y: int, w: int = 4096, workspace: int = 0) -> Kernel:
    kb = KernelBuilder("operator", 1, 1)
    kb.tensor("x", "int8", (1, x), "in")
    kb.tensor("w", "int8", (1, w), "in")
    if workspace:
        kb.tensor("ring", "int8", (1, workspace), "workspace")
    kb.tensor("y", "int8", (1, y), "out")
    return kb.build()


def test_activations_lie_where_they_were_written():
    kernels = [operator(512, 1000, workspace=700), operator(900, 400, workspace=1500), operator(900, 2048), operator(4096, 512)]
    plan = GmPlan(kernels)
    first, second, third, fourth = (plan.place(kernel) for kernel in kernels)
    assert first == {"x": 1536, "w": 2048, "ring": 0, "y": 6144}
    # 900 of the 1000 bytes before; the workspace begins at 0 again; weights and output are new.
    assert second == {"x": 6144, "w": 7168, "ring": 0, "y": 11264}
    # Larger than the output before, as large as the activation before: the same one.
    assert third == {"x": 6144, "w": 11776, "y": 15872}
    # Neither: fresh.
    assert fourth["x"] == 17920
    assert fourth["w"] == 22016


# Bypass


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_bypassed_miss_stays_outside(engine):
    """The same line twice: with the hint both are fetched, the second one 29..33 + 100 + 90 (10 + 8 + 10 after the first's
    start at 1, HBM is free); without it the second joins the first."""
    kb = KernelBuilder("bypass", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (1, LINE), "in")
    with kb.part("aiv"):
        for index in range(2):
            kb.copy(kb.buffer(f"b{index}", "UB", "int8", (1, LINE))[:, :], x[:, :], l2="bypass")
    record = record_of(kb.build(), engine, l2=empty_l2(TOY))
    assert record.traffic["hbm_read_bytes"] == 2 * LINE
    assert record.cycles == 33 + 100 + 90
    assert record.l2 is not None
    assert len(record.l2.lines) == 0
    joined = record_of(read_kernel(0, 0), engine)
    assert joined.traffic["hbm_read_bytes"] == LINE
    assert joined.cycles == 15 + 100 + 90


@pytest.mark.parametrize("memory", ["bandwidth", "banked"])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_bypassed_hit_is_served_from_l2(engine, memory):
    kernel = read_kernel(0)
    warm = record_of(kernel, engine, l2=empty_l2(TOY), memory=memory)
    hinted = parse_kernel(re.sub(r"(<- x.*)\n", r"\1 {l2=bypass}\n", print_kernel(kernel)))
    assert "l2=bypass" in print_kernel(hinted)
    record = record_of(hinted, engine, l2=warm.l2, memory=memory)
    assert record.traffic["hbm_read_bytes"] == 0
    # A write: the lines that are there become dirty, the others go straight to HBM.
    writes = record_of(write_kernel(3, bypass=True), engine, l2=warm.l2, memory=memory)
    assert writes.traffic["hbm_write_bytes"] == 2 * LINE
    assert writes.l2_dirty_bytes == LINE


def test_the_hint_is_written_and_read_exactly():
    kernel = write_kernel(3, bypass=True)
    assert "<- tile {l2=bypass}" in print_kernel(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel


def test_a_wrong_hint_is_refused():
    text = print_kernel(write_kernel(1, bypass=True))
    with pytest.raises(KernelError, match="l2=never is no way through L2; use l2=bypass, or leave it out"):
        verify(parse_kernel(text.replace("bypass", "never")), TOY)


def test_streams_past_l2_keep_what_is_in_it():
    """A workspace that fits stays in L2 beside weights of twice its size, if those pass it by."""
    chip = load_hw("toy").replace(**{"l2.ways": 4, "l2.capacity_bytes": 64 * LINE}).chip
    found = {}
    for hint in ({}, {"l2": "bypass"}):
        kb = KernelBuilder("stream", cores=1, aiv_per_core=1)
        ws, w = kb.tensor("ws", "int8", (32, LINE), "in"), kb.tensor("w", "int8", (256, LINE), "in")
        with kb.part("aiv"), kb.loop("i", 0, 4) as i:
            with kb.loop("j", 0, 32) as j:
                kb.copy(kb.buffer("a", "UB", "int8", (1, LINE))[:, :], ws[j, :])
            with kb.loop("k", 0, 64) as k:
                kb.copy(kb.buffer("b", "UB", "int8", (1, LINE))[:, :], w[i * 64 + k, :], **hint)
        found[len(hint)] = record_of(kb.build(), "fast", chip).traffic["hbm_read_bytes"] // LINE
    assert found == {0: 4 * (32 + 64), 1: 32 + 4 * 64}


# Turns at a line


@pytest.mark.parametrize("engine", list(ENGINES))
def test_cores_are_served_one_after_the_other(engine):
    """Both AIVs ask for one line at 11: it arrives at 115, the second has its turn 8 later; 90 to UB.

    They ask again at 29 (start at 19): the first one's turn comes at 131, the second one's at 139.
    """
    kb = KernelBuilder("both", cores=1, aiv_per_core=2)
    x = kb.tensor("x", "int8", (1, LINE), "in")
    with kb.part("aiv"):
        for index in range(2):
            kb.copy(kb.buffer(f"b{index}", "UB", "int8", (1, LINE))[:, :], x[:, :])
    record = record_of(kb.build(), engine)
    assert record.timeline is not None
    ends = {unit: record.timeline["end"][record.timeline["unit"] == unit].tolist() for unit in (1, 2)}
    assert ends == {1: [205, 221], 2: [213, 229]}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_core_does_not_wait_for_itself(engine):
    chip = load_hw("toy").replace(l2__same_line_cycles=10**6).chip
    assert record_of(read_kernel(0, 0, 0), engine, chip).cycles == record_of(read_kernel(0, 0, 0), engine).cycles


@pytest.mark.parametrize(("chip", "least", "most"), [("ascend910b1", 1.10, 1.20), ("ascend950pr", 1.01, 1.25)])
def test_lockstep_costs_what_is_published_and_streams_do_not(chip, least, most):
    """All AIVs read one matrix in the same order: 10 to 20% slower, says the vendor of the A2.  Nothing is published of the 950,
    whose turn at a line is taken from there; its ports hold what is in flight by lines, which makes turns longer."""
    problem = "micro:read_matrix,m=6144,n=512,base_m=128,base_n=64,shared=1"
    hardware = load_hw(chip)
    apart = hardware.replace(l2__same_line_cycles=0)

    def ratio(problem: str) -> float:
        return msdsim.simulate(problem, hardware, "micro").cycles / msdsim.simulate(problem, apart, "micro").cycles

    assert least < ratio(problem) < most
    assert ratio(problem + ",stagger=1") == pytest.approx(1, abs=0.005)


# Rows that do not begin with a line


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(("start", "count", "port"), [
    # 64 bytes a cycle; a burst that crosses takes 2 cycles more for its second part.
    (0, 512, 8), (32, 512, 10), (256, 512, 10),
    # 16 and 496 bytes are 1 and 16 granules of 32, one more than 512.
    (496, 512, 10.5),
    # Not across a line; across it.
    (32, 480, 7.5), (33, 480, 10),
    # Two bursts, both across; a third that is not.
    (128, 1024, 20), (128, 1100, 1100 / 64 + 4),
])
def test_bursts_across_lines_by_hand(engine, start, count, port):
    """Two copies: the second starts when the port has set up (10 cycles from 1) and moved the first."""
    kb = KernelBuilder("row", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (1, 4096), "in")
    with kb.part("aiv"):
        for index in range(2):
            kb.copy(kb.buffer(f"b{index}", "UB", "int8", (1, 2048))[0, at(0, count)], x[0, at(start, count)])
    record = record_of(kb.build(), engine)
    assert record.timeline is not None
    assert record.timeline["start"][1] == 11 + -(-port // 1)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_alignment_is_that_of_each_instance(engine):
    """Rows of 512 bytes in a matrix of 640 columns: one in four begins with a line; eight starts on the port."""
    kb = KernelBuilder("rows", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (9, 640), "in")
    with kb.part("aiv"), kb.loop("i", 0, 9) as i:
        kb.copy(kb.buffer("tile", "UB", "int8", (1, 512), 9)[:, :], x[i, at(0, 512)])
    record = record_of(kb.build(), engine)
    assert record.timeline is not None
    moves = record.timeline["bytes"] > 0
    assert np.diff(record.timeline["start"][moves]).tolist() == [18, 20, 20, 20, 18, 20, 20, 20]


def test_long_rows_reach_the_published_share_of_the_port():
    """32 bytes into a line, one A2 core reaches 70% of the bandwidth of GM->UB."""
    chip = load_hw("ascend910b1").chip
    cost = port_cost(chip.path("GM", "UB"), several_rows=False, line_bytes=LINE)
    for count in (4096, 65536):
        assert cost.port_bytes(count, 0) == count
        assert cost.port_bytes(count, 1024) == count
        assert count / cost.port_bytes(count, 32) == pytest.approx(0.70, abs=0.002)


def test_chips_without_the_number_do_not_care():
    chip = load_hw("ascend950pr").chip
    cost = port_cost(chip.path("GM", "UB"), several_rows=False, line_bytes=LINE)
    assert cost.port_bytes(4096, 32) == 4096


def test_rows_into_fractals_take_requests_on_both_sides():
    """480 + 32 bytes are five requests, 256 + 256 are two halves of one."""
    chip = load_hw("ascend910b1").chip
    cost: PortCost = port_cost(chip.path("GM", "L1"), several_rows=True, line_bytes=LINE)
    assert cost.port_bytes(512, 0) == 512
    assert cost.port_bytes(512, 256) == 512
    assert cost.port_bytes(512, 32) == 256 + 4 * cost.request_bytes


@pytest.mark.parametrize("ways", [1, 3, 4, 15, 16, 17, 40])
def test_the_order_of_use_in_a_set_of_any_number_of_ways(ways: int):
    """Lines come and go, are used again in the middle of their set's order, and are written."""
    chip = load_hw("toy").replace(**{"l2.ways": ways, "l2.capacity_bytes": 3 * ways * LINE}).chip
    kb = KernelBuilder("order", cores=1, aiv_per_core=1)
    x, y = (kb.tensor(name, "int8", (200, LINE), role) for name, role in (("x", "in"), ("y", "out")))
    with kb.part("aiv"), kb.loop("i", 0, 700) as i:
        tile = kb.buffer("tile", "UB", "int8", (1, LINE))
        kb.copy(tile[:, :], x[at(i * i * 7 % (4 * ways), 1), :])
        kb.copy(y[at(i * 11 % (3 * ways), 1), :], tile[:, :])
        kb.copy(tile[:, :], x[at(i % (2 * ways), 1), :])
    program = lower(kb.build(), chip)
    assert_engines_agree(program)
    assert_engines_hand_on([program, program])
