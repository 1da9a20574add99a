"""Lowering: which flags a kernel gets, and that dropping one is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msdsim.analysis.hazards import HazardCheck
from msdsim.engine import EngineOptions, load_engine
from msdsim.errors import CheckFailed, Deadlock, KernelError
from msdsim.formats.number import FORMATS
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder, at
from msdsim.ir.dependences import Edge
from msdsim.ir.expr import Const
from msdsim.ir.lower import lower, lowered_alike
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify
from msdsim.numerics.executor import execute
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel, scale_kernel

TOY = load_hw("toy").chip


def inputs(kernel):
    rng = np.random.default_rng(0)
    return {t.name: rng.standard_normal(t.shape).astype(FORMATS[t.fmt].dtype) for t in kernel.tensors if t.role == "in"}


def check(program, engine="reference"):
    """Time the program and hold the timeline against the kernel's dependences."""
    record = load_engine(engine).run(program, EngineOptions(record_timeline=True))
    execute(program.kernel, inputs(program.kernel), observer=HazardCheck(record).observe)
    return record


def flags(part):
    return sorted((s.source, s.target, s.cause, s.initial) for s in part.semaphores)


def test_a_ring_is_tied_by_two_flags():
    part = lower(copy_kernel(ring=2), TOY).aiv
    assert flags(part) == [("MTE2", "MTE3", "data", 0), ("MTE3", "MTE2", "buffer", 2)]


def test_operands_loaded_together_share_a_flag():
    part = lower(matmul_kernel(), TOY).aic
    assert flags(part) == [
        ("M", "FIX", "data", 0),     # the sum is complete
        ("M", "MTE1", "buffer", 2),  # a0 and b0 are free again
        ("MTE1", "M", "data", 0),    # a0 and b0 are there
        ("MTE2", "MTE1", "data", 0),  # a1 and b1 are there
    ]


def test_dependent_vector_operations_drain_their_pipe():
    part = lower(scale_kernel(), TOY).aiv
    barriers = {str(i.op).split()[0]: i.barrier for i in part.instructions() if i.op is not None and i.pipe == "V"}
    assert barriers == {"muls": Const(0), "add": Const(1)}


def test_a_block_that_may_not_run_does_not_settle_a_hazard():
    kb = KernelBuilder("maybe", 1, 1)
    x, y = kb.tensor("x", "fp32", (4, 64), "in"), kb.tensor("y", "fp32", (4, 64), "out")
    with kb.part("aiv"), kb.loop("i", 0, 4) as i:
        a, b = kb.buffer("a", "UB", "fp32", (1, 64)), kb.buffer("b", "UB", "fp32", (1, 64))
        kb.copy(a[:, :], x[at(i, 1), :])
        kb.op("muls", b[:, :], a[:, :], scalar=2.0)
        with kb.when(i.equals(3)):
            kb.op("abs", b[:, :], b[:, :])
        kb.op("adds", b[:, :], b[:, :], scalar=1.0)
        kb.copy(y[at(i, 1), :], b[:, :])
    program = lower(kb.build(), TOY)
    assert [i.barrier for i in program.aiv.instructions() if i.op is not None and i.op.kind == "adds"] == [Const(1)]
    check(program)


def test_a_buffer_that_outlives_a_loop_is_ordered_across_iterations():
    """V writes and MTE3 stores the same slot in every iteration: primed before the loop, drained after it."""
    kb = KernelBuilder("outer", 1, 1)
    y = kb.tensor("y", "fp32", (4, 64), "out")
    with kb.part("aiv"):
        a = kb.buffer("a", "UB", "fp32", (1, 64))
        with kb.loop("i", 0, 4) as i:
            kb.op("dup", a[:, :], scalar=1.0)
            kb.copy(y[at(i, 1), :], a[:, :])
    program = lower(kb.build(), TOY)
    assert flags(program.aiv) == [("MTE3", "V", "buffer", 0), ("V", "MTE3", "data", 0)]
    first, last = program.aiv.instructions()[0], program.aiv.instructions()[-1]
    assert (first.pipe, len(first.posts), first.op) == ("MTE3", 1, None)
    assert (last.pipe, len(last.waits), last.op) == ("V", 1, None)
    check(program)


@pytest.mark.parametrize("kernel", [copy_kernel(), copy_kernel(ring=1), copy_kernel(cores=2), scale_kernel(), matmul_kernel(),
                                    exchange_kernel()], ids=lambda k: k.name)
def test_timelines_respect_every_dependence(kernel):
    verify(kernel, TOY)
    check(lower(kernel, TOY))


def without_wait(program, part, number):
    for instr in program.parts[part].instructions():
        instr.waits = [wait for wait in instr.waits if wait != number]
    return program


@pytest.mark.parametrize(("kernel", "part"), [(copy_kernel(), 1), (scale_kernel(), 1), (matmul_kernel(), 0)],
                         ids=["copy", "scale", "matmul"])
def test_a_dropped_data_flag_is_noticed(kernel, part):
    semaphores = lower(kernel, TOY).parts[part].semaphores
    data = [number for number, semaphore in enumerate(semaphores) if semaphore.cause == "data"]
    assert data
    for number in data:
        with pytest.raises(CheckFailed, match="a flag is missing"):
            check(without_wait(lower(kernel, TOY), part, number))


def test_a_slot_released_too_early_is_noticed():
    program = lower(copy_kernel(rows=16, ring=1), TOY)
    release = next(number for number, semaphore in enumerate(program.aiv.semaphores) if semaphore.cause == "buffer")
    # The load posts the release itself instead of the store.
    for instr in program.aiv.instructions():
        instr.posts = [post for post in instr.posts if post != release] + ([release] if instr.pipe == "MTE2" else [])
    with pytest.raises(CheckFailed, match=r"overwrites what .* still reads"):
        check(program)


def test_a_signal_nobody_raises_deadlocks():
    program = lower(exchange_kernel(), TOY)
    for instr in program.aiv.instructions():
        instr.signal = None
    with pytest.raises(Deadlock, match=r"Chip\.Core\[0\]\.AIC\.MTE2 waits for signal 'ready'") as caught:
        load_engine("reference").run(program, EngineOptions())
    assert caught.value.exit_code == 3


def test_a_skipped_signal_wait_is_noticed():
    program = lower(exchange_kernel(), TOY)
    for instr in program.aic.instructions():
        if instr.signal is not None:
            instr.signal = None
    with pytest.raises(CheckFailed, match="reads what"):
        check(program)


def test_too_many_event_ids():
    kb = KernelBuilder("ids", 1, 1)
    x = kb.tensor("x", "fp32", (32, 8), "in")
    y = kb.tensor("y", "fp32", (32, 8), "out")
    with kb.part("aiv"), kb.loop("i", 0, 32) as i:
        tile = kb.buffer("tile", "UB", "fp32", (1, 8), ring=9)
        kb.copy(tile[:, :], x[at(i, 1), :])
        kb.copy(y[at(i, 1), :], tile[:, :])
    with pytest.raises(KernelError, match=r"aiv needs 9 event ids from MTE\d to MTE\d, chip 'toy' has 8 per pipe pair"):
        lower(kb.build(), TOY)


def test_phases_are_fenced():
    """Nothing of the second phase starts before the first has left its memory."""
    kb = KernelBuilder("phases", 1, 2)
    x, y = kb.tensor("x", "fp32", (4, 64), "in"), kb.tensor("y", "fp32", (4, 64), "out")
    kb.signal("all", "barrier")
    with kb.part("aiv"):
        with kb.loop("i", kb.sub, 4, 2) as i:
            a = kb.buffer("a", "UB", "fp32", (1, 64))
            kb.copy(a[:, :], x[at(i, 1), :])
            kb.copy(y[at(i, 1), :], a[:, :])
        kb.raise_signal("all", "MTE3")
        kb.wait_signal("all", "MTE2")
        with kb.loop("j", kb.sub, 4, 2) as j:
            b = kb.buffer("b", "UB", "fp32", (1, 64))
            kb.op("dup", b[:, :], scalar=0.0)
            kb.copy(y[at(3 - j, 1), :], b[:, :])
    kernel = kb.build()
    verify(kernel, TOY)
    record = check(lower(kernel, TOY))
    part = record.program.aiv
    line = record.timeline
    second = [i.index for i in part.instructions() if i.op is not None and i.op.kind == "dup"]
    first = [i.index for i in part.instructions() if i.op is not None and i.op.kind == "copy" and i.index < second[0]]
    for unit in (1, 2):
        starts = line["start"][np.isin(line["instr"], second) & (line["unit"] == unit)]
        ends = line["end"][np.isin(line["instr"], first) & (line["unit"] == unit)]
        assert starts.min() >= ends.max()


@pytest.mark.parametrize("chip", ["toy", "ascend910b1", "ascend950pr"])
def test_chips_that_differ_behind_the_ports_have_the_same_program(chip):
    """Whatever number of HBM, L2 and signals is changed; what lowering asks for makes a chip another one."""
    from msdsim.api import simulate
    from msdsim.explore.whatif import CHANGES

    hardware = load_hw(chip)
    kernel = simulate("gemm:m=16,k=256,n=192", hardware, "msd-int8").kernel
    program, alike = lower(kernel, hardware.chip), set()
    for label, changes in CHANGES.items():
        changed = hardware.replace(**changes(hardware)).chip
        if lowered_alike(hardware.chip, changed):
            alike.add(label)
            again = lower(kernel, changed)
            assert (again.aic, again.aiv, again.addresses) == (program.aic, program.aiv, program.addresses), label
    assert alike == {"HBM twice as fast", "L2 twice as fast", "L2 twice as large", "signals and barriers free"}
    for name, value in (("l2.line_bytes", 2 * hardware.chip.l2.line_bytes), ("clock_mhz", 1), ("vector.repeat_bytes", 128)):
        assert not lowered_alike(hardware.chip, hardware.replace(**{name: value}).chip)


@pytest.mark.parametrize(("third", "barriers"), [
    ("", [0, 0, 0, 1]),  # acc1 is still pending when it is added to
    (" {accumulate=core}", [0, 0, "core != 0", 1]),  # a drain that may not come settles nothing
    (" {accumulate=1}", [0, 0, 1, 0]),  # the pipe has drained for acc0, and acc1 with it
])
def test_small_sums_on_the_cube_drain_their_pipe(third, barriers):
    """On the 910B1 a sum of fewer than 10 fractals waits for the one before; here it has one."""
    text = f"""kernel k {{
  cores 2 x 1
  tensor x: bf16[16, 16] in
  tensor y: fp32[2, 2, 16, 16] out
  aic {{
    buffer a1: L1 bf16[16, 16] ring 1
    buffer a0: L0A bf16[16, 16] ring 1
    buffer b0: L0B bf16[16, 16] ring 1
    buffer acc0: L0C fp32[16, 16] ring 1
    buffer acc1: L0C fp32[16, 16] ring 1
    copy a1 <- x
    copy a0 <- a1
    copy b0 <- a1
    mmad acc1 <- a0, b0
    mmad acc0 <- a0, b0
    mmad acc0 <- a0, b0{third}
    mmad acc1 <- a0, b0 {{accumulate=1}}
    fixpipe y[core, 0, :, :] <- acc0
    fixpipe y[core, 1, :, :] <- acc1
  }}
}}
"""
    kernel, chip = parse_kernel(text), load_hw("ascend910b1").chip
    verify(kernel, chip)
    found = [instr.barrier for instr in lower(kernel, chip).aic.instructions() if instr.pipe == "M" and instr.op is not None]
    assert [str(barrier) for barrier in found] == [str(barrier) for barrier in barriers]
    # Ten fractals are enough.
    larger = text.replace("16, 16]", "64, 64]").replace("[16, 16]", "[64, 64]")
    assert {str(instr.barrier) for instr in lower(parse_kernel(larger), chip).aic.instructions() if instr.pipe == "M"} == {"0"}


@pytest.mark.parametrize(("changes", "first", "second"), [
    ({}, True, True), ({"initial": 2}, True, False),  # one iteration back is sooner than two
    ({"initial": 0}, False, False),  # of the same iteration: neither says anything of the other
    ({"at": 4}, False, True), ({"at": 2}, True, False),  # who waits for a later post waits for the earlier ones too
    ({"to": 6}, True, False), ({"to": 4}, False, True),  # who has waited earlier need not wait later
    ({"source": "M"}, False, False), ({"target": "M"}, False, False), ({"buffer": "other", "cause": "data", "capacity": 9}, True, True),
    ({"at": 2, "to": 4}, False, False), ({"at": 2, "to": 6, "initial": 3}, True, False)])
def test_a_flag_that_another_one_implies(changes, first, second):
    edge = Edge(3, "V", 5, "MTE2", "buffer", 1, "x", 1)
    other = replace(edge, **changes)
    assert (edge.implies(other), other.implies(edge)) == (first, second)
