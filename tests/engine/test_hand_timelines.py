"""Whole timelines on the toy chip, worked out by hand, on both engines.

The chip: a dispatched instruction takes 1 cycle and 1 more for each flag it waits for or posts; flags cost the pipes nothing.
A port to or from GM sets up for 10 cycles (interval), moves 64 bytes a cycle, and the data arrives 90 cycles later (latency).
L2 passes 256 bytes a cycle, HBM 128 and 100 cycles more; lines have 512 bytes, pieces 1024.  A copy inside the core sets up
for 2 cycles, moves 128 bytes a cycle and arrives 10 later; a Cube instruction takes 1 cycle a fractal, the next may follow
2 cycles after that, and the result is there 10 cycles after.
"""

from __future__ import annotations

import pytest

from msdsim.engine import ENGINES
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder, at
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.naming import PIPES
from msdsim.timeline.record import CATEGORIES

from .comparison import Refused, run

TOY = load_hw("toy").chip

#: Part and pipe, operation (flags for none), dispatched, start, end, what it waited for before the start (or "").
Row = tuple[str, str, int, int, int, str]


def timeline(kernel: Kernel, engine: str) -> list[Row]:
    record = run(lower(kernel, TOY), engine)
    assert not isinstance(record, Refused)
    assert record.timeline is not None
    rows = []
    for unit, pipe, instr, dispatched, start, end, cause in zip(
        *(record.timeline[name].tolist() for name in ("unit", "pipe", "instr", "dispatched", "start", "end", "cause")), strict=True
    ):
        part = record.units.part(unit)
        op = getattr(record.program, part.lower()).instructions()[instr].op
        rows.append((f"{part}.{PIPES[part][pipe]}", op.kind if op else "flags", dispatched, start, end,
                     CATEGORIES[cause] if cause >= 0 else ""))
    return rows


def copy_kernel() -> Kernel:
    """Four rows of one line each through UB, two slots."""
    kb = KernelBuilder("copy", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "fp32", (4, 128), "in")
    y = kb.tensor("y", "fp32", (4, 128), "out")
    with kb.part("aiv"), kb.loop("i", 0, 4) as i:
        tile = kb.buffer("tile", "UB", "fp32", (1, 128), ring=2)
        kb.copy(tile[:, :], x[at(i, 1), :])
        kb.copy(y[at(i, 1), :], tile[:, :])
    return kb.build()


#: Each copy waits for one flag and posts one, so the scalar unit takes 3 cycles for it.
COPY: list[Row] = [
    # Its slot is free from the beginning.  The port sets up 3..13 and moves 13..21.  The line is not in L2: HBM passes its 512
    # bytes 13..17, 100 later L2 has it at 117, 90 later UB at 207.
    ("AIV.MTE2", "copy", 3, 3, 207, "wait_issue"),
    # Back to back on the port: 21..31 set up, 31..39 moved; HBM 31..35, 135, 225.  No gap before it on the pipe, which is still
    # busy with the first until 207.
    ("AIV.MTE2", "copy", 9, 21, 225, ""),
    # The first row is there at 207: set up until 217, moved until 225 (L2 is faster), in GM 90 later.  Writes do not fetch.
    ("AIV.MTE3", "copy", 6, 207, 315, "wait_data"),
    # The second row is there at 225, exactly when the port is free: no waiting that counts.
    ("AIV.MTE3", "copy", 12, 225, 333, ""),
    # Both slots were full until the first row left UB at 315: 325 asked for, 329 + 100 + 90.
    ("AIV.MTE2", "copy", 15, 315, 519, "wait_buffer"),
    ("AIV.MTE2", "copy", 21, 333, 537, ""),
    ("AIV.MTE3", "copy", 18, 519, 627, "wait_data"),
    ("AIV.MTE3", "copy", 24, 537, 645, ""),
]


def cube_kernel() -> Kernel:
    """One 16 x 32 x 16 product in two steps of K, from GM through L1 and L0 and back."""
    kb = KernelBuilder("cube", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "bf16", (1, 512), "in")
    y = kb.tensor("y", "fp32", (16, 16), "out")
    with kb.part("aic"):
        a1 = kb.buffer("a1", "L1", "bf16", (16, 32))
        acc = kb.buffer("acc", "L0C", "fp32", (16, 16))
        kb.copy(a1[0, at(0, 512)], x[:, :])
        with kb.loop("k", 0, 2) as k:
            a0 = kb.buffer("a0", "L0A", "bf16", (16, 16), 2)
            b0 = kb.buffer("b0", "L0B", "bf16", (16, 16), 2)
            kb.copy(a0[:, :], a1[:, at(k * 16, 16)])
            kb.copy(b0[:, :], a1[:, at(k * 16, 16)])
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :], accumulate=k)
        kb.op("fixpipe", y[:, :], acc[:, :])
    return kb.build()


#: The lowering leaves out flags that others imply: a0's data flag (b0's comes later on the same pipes) and b0's slots (a0's).
CUBE: list[Row] = [
    # Posts one flag: dispatched at 2.  1024 bytes, one piece of two lines: asked for at 12; L2 12..16, HBM 12..20, 120, 210.
    ("AIC.MTE2", "copy", 2, 2, 210, "wait_issue"),
    # MTE1 waits for a1 before the loop, once.
    ("AIC.MTE1", "flags", 4, 210, 210, "wait_data"),
    # One fractal of 512 bytes: 4 cycles; the next copy may start after 2 + 4, this one's data arrives 12 + 4 after its start.
    ("AIC.MTE1", "copy", 6, 210, 226, ""),
    ("AIC.MTE1", "copy", 8, 216, 232, ""),
    ("AIC.MTE1", "copy", 13, 222, 238, ""),
    ("AIC.MTE1", "copy", 15, 228, 244, ""),
    # Waits for b0 at 232, then 1 fractal: 1 + 10.
    ("AIC.M", "mmad", 11, 232, 243, "wait_data"),
    ("AIC.M", "mmad", 18, 244, 255, "wait_data"),
    # The flag for the drain: the pipe is free at 244 + 2 + 1, but completes in order.
    ("AIC.M", "flags", 20, 247, 255, ""),
    # 1024 bytes: set up until 265, moved until 281, 90 more.
    ("AIC.FIX", "fixpipe", 22, 255, 371, "wait_data"),
]


def exchange_kernel() -> Kernel:
    """The AIV writes two rows to a workspace, one after the other; the AIC waits for each and passes it on through L1."""
    kb = KernelBuilder("exchange", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "fp32", (2, 128), "in")
    ws = kb.tensor("ws", "fp32", (2, 128), "workspace")
    y = kb.tensor("y", "fp32", (2, 128), "out")
    kb.signal("ready", "aiv_to_aic")
    with kb.part("aiv"), kb.loop("i", 0, 2) as i:
        tile = kb.buffer("tile", "UB", "fp32", (1, 128))
        kb.copy(tile[:, :], x[at(i, 1), :])
        kb.copy(ws[at(i, 1), :], tile[:, :])
        kb.raise_signal("ready", "MTE3")
    with kb.part("aic"), kb.loop("i", 0, 2) as i:
        row = kb.buffer("row", "L1", "fp32", (1, 128), 2)
        kb.wait_signal("ready", "MTE2")
        kb.copy(row[:, :], ws[at(i, 1), :])
        kb.copy(y[at(i, 1), :], row[:, :])
    return kb.build()


EXCHANGE: list[Row] = [
    # As in the copy: 204 from GM on a miss, 108 to GM.
    ("AIV.MTE2", "copy", 3, 3, 207, "wait_issue"),
    ("AIV.MTE3", "copy", 6, 207, 315, "wait_data"),
    # The signal takes its turn when the port is free at 225, and is raised when the copy before it has completed.
    ("AIV.MTE3", "signal", 7, 225, 315, ""),
    # The only slot is free at 315.
    ("AIV.MTE2", "copy", 10, 315, 519, "wait_buffer"),
    # The signal travels 20 cycles.
    ("AIC.MTE2", "wait", 1, 335, 335, "wait_sync"),
    # The row is in L2, where the AIV has written it: asked for at 345, moved until 353, arrives 90 later.
    ("AIC.MTE2", "copy", 4, 335, 443, ""),
    ("AIC.MTE1", "copy", 7, 443, 551, "wait_data"),
    ("AIV.MTE3", "copy", 13, 519, 627, "wait_data"),
    ("AIV.MTE3", "signal", 14, 537, 627, ""),
    ("AIC.MTE2", "wait", 8, 647, 647, "wait_sync"),
    ("AIC.MTE2", "copy", 11, 647, 755, ""),
    ("AIC.MTE1", "copy", 14, 755, 863, "wait_data"),
]


def sums_kernel() -> Kernel:
    """Two sums of two products each, one accumulator with unit flags."""
    kb = KernelBuilder("sums", cores=1, aiv_per_core=1)
    y = kb.tensor("y", "fp32", (64, 16), "out")
    with kb.part("aic"):
        a0 = kb.buffer("a0", "L0A", "bf16", (32, 16))
        b0 = kb.buffer("b0", "L0B", "bf16", (16, 16))
        with kb.loop("t", 0, 2) as t:
            acc = kb.buffer("acc", "L0C", "fp32", (32, 16))
            with kb.loop("k", 0, 2) as k:
                kb.op("mmad", acc, a0, b0, accumulate=k, unit_flag=1)
            kb.op("fixpipe", y[at(t * 32, 32), :], acc, unit_flag=1)
    return kb.build()


#: Two rows of fractals, the one of the results' first 16 rows, a cycle each.
SUMS: list[Row] = [
    ("AIC.M", "mmad", 1, 1, 13, "wait_issue"),
    ("AIC.M", "mmad", 2, 5, 17, ""),
    # The sum is complete; flags alone cost the scalar unit their cycle.
    ("AIC.M", "flags", 3, 9, 17, ""),
    # The second product's first row of fractals is made at 5 + 2 + 1 and there 8 later: 16.  Set up until 26; 32 rows of 64 bytes
    # until 58, and 90 more.
    ("AIC.FIX", "fixpipe", 4, 16, 148, "wait_data"),
    # The first 16 rows have left at 42, but the last only at 58: the second row of fractals is made 58..59, after 2 + 1.
    ("AIC.M", "mmad", 5, 55, 67, "wait_buffer"),
    ("AIC.M", "mmad", 6, 59, 71, ""),
    ("AIC.M", "flags", 7, 63, 71, ""),
    # There at 59 + 2 + 1 + 8.
    ("AIC.FIX", "fixpipe", 8, 70, 202, ""),
]


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(("kernel", "expected"), [(copy_kernel, COPY), (cube_kernel, CUBE), (exchange_kernel, EXCHANGE),
                                                  (sums_kernel, SUMS)])
def test_timeline_by_hand(kernel, expected, engine):
    assert sorted(timeline(kernel(), engine), key=lambda row: (row[0], row[3])) == sorted(
        expected, key=lambda row: (row[0], row[3]))


@pytest.mark.parametrize("engine", list(ENGINES))
def test_books_by_hand(engine):
    """The copy's MTE2 by category: 645 cycles in all.

    Its gaps: 3 cycles until the first dispatch (wait_issue), 225..315 for a slot (wait_buffer).  Of the first load's 204 cycles 8
    are work, 96 more than it takes alone (10 + 8 + 90), 100 head.  The second ends 18 after the first: 8 work, 10 of its excess
    of 96.  The third and fourth are as the first two; then the pipe has drained at 537.
    """
    record = run(lower(copy_kernel(), TOY), engine)
    assert not isinstance(record, Refused)
    found = dict(zip(CATEGORIES, record.totals[1, 1].tolist(), strict=True))
    assert found == {"busy": 32, "head": 200, "wait_data": 0, "wait_buffer": 90, "wait_sync": 0, "wait_memory": 212,
                     "wait_issue": 3, "drained": 108}
    assert record.cycles == 645
    assert record.traffic == {"hbm_read_bytes": 2048, "hbm_write_bytes": 0, "l2_read_bytes": 2048, "l2_write_bytes": 2048}
    assert record.l2_dirty_bytes == 2048


def ports_kernel(*copies: tuple[str, int]) -> Kernel:
    """Copies from GM one after the other on MTE2, each to a space with a number of bytes."""
    kb = KernelBuilder("ports", cores=1, aiv_per_core=1)
    x = kb.tensor("x", "int8", (1, 128), "in")
    with kb.part("aic"):
        for index, (space, count) in enumerate(copies):
            kb.copy(kb.buffer(f"b{index}", space, "int8", (1, 128))[0, at(0, count)], x[0, at(0, count)])
    return kb.build()


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(("copies", "starts"), [
    # 96 bytes at 64 a cycle are one and a half: the port moves 1..2.5, goes on from there (start 3, the first whole cycle) to
    # 4, and the third starts at 4.  Had the second moved 3..4.5, the third would have started at 5.
    ((("L1", 96), ("L1", 96), ("L1", 96)), [1, 3, 4]),
    # On another path the port begins with the cycle: 66 bytes at 65 a cycle move 2..3.02, the third starts at 4.
    ((("L1", 64), ("L0A", 66), ("L0A", 1)), [1, 2, 4]),
])
def test_a_port_keeps_its_exact_position_on_one_path(copies, starts, engine):
    chip = load_hw("toy").replace(**{
        "paths.gm_l1.interval_cycles": 0, "paths.gm_l0a.interval_cycles": 0, "paths.gm_l0a.bytes_per_cycle": 65}).chip
    record = run(lower(ports_kernel(*copies), chip), engine)
    assert not isinstance(record, Refused)
    assert record.timeline is not None
    assert record.timeline["start"].tolist() == starts
