"""Iterations that are not simulated: how many, why not, and that what they leave is what simulating them leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from msdsim.engine import EngineOptions, load_engine
from msdsim.hardware import load_hw
from msdsim.hardware.chip import Chip
from msdsim.ir import KernelBuilder, at
from msdsim.ir.expr import minimum
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.timeline.record import RunRecord

from .comparison import assert_engines_agree, assert_same

TOY = load_hw("toy")


def skipped(kernel: Kernel, chip: Chip = TOY.chip) -> RunRecord:
    """The fast engine's record, after all engines have been found to agree."""
    program = lower(kernel, chip)
    assert_engines_agree(program)
    return load_engine("fast").run(program, EngineOptions())


def chain_kernel(trips: int) -> Kernel:
    """Dependent Vector operations in a loop."""
    kb = KernelBuilder("chain", 1, 2)
    with kb.part("aiv"):
        a, b = kb.buffer("a", "UB", "fp32", (2, 64)), kb.buffer("b", "UB", "fp32", (2, 64))
        with kb.loop("i", 0, trips):
            kb.op("abs", b[:, :], a[:, :])
            kb.op("add", a[:, :], a[:, :], b[:, :])
    return kb.build()


def test_a_chain_repeats_at_once():
    """Of 500 turns on two AIVs a few are needed to see that they repeat."""
    record = skipped(chain_kernel(500))
    assert record.skipped_iterations > 2 * 450
    assert record.skip_reason == ""


def test_a_billion_instructions_take_as_long_as_a_thousand_and_last_a_million_times_longer():
    thousand, billion = (load_engine("fast").run(lower(chain_kernel(trips), TOY.chip), EngineOptions())
                         for trips in (500, 500_000_000))
    assert billion.instructions == 2_000_000_000
    # 14 cycles for each of the two operations: both wait for what the other has written.
    assert billion.cycles - thousand.cycles == (500_000_000 - 500) * 28
    assert (billion.totals[1, 2] - thousand.totals[1, 2]).sum() == billion.cycles - thousand.cycles


def test_time_beyond_64_bits_is_refused():
    chip = TOY.replace(**{"vector.ops.abs.latency_cycles": 10**9}).chip
    program = lower(chain_kernel(2**40), chip)
    with pytest.raises(Exception, match="runs beyond cycle 1152921504606846976"):
        load_engine("fast").run(program, EngineOptions())


def ragged_kernel(kb: KernelBuilder) -> None:
    """The last turns have smaller tiles."""
    a = kb.buffer("a", "UB", "fp32", (32, 64))
    with kb.loop("i", 0, 400) as i:
        size = minimum(8, 8 * 399 + 3 - i * 8)
        kb.op("abs", a[at(0, size), :], a[at(0, size), :])


def changing_kernel(kb: KernelBuilder) -> None:
    """Every turn has another size: nothing repeats."""
    a = kb.buffer("a", "UB", "fp32", (200, 64))
    with kb.loop("i", 1, 100) as i:
        kb.op("abs", a[at(0, i), :], a[at(0, i), :])


def alternating_kernel(kb: KernelBuilder) -> None:
    """Sizes take turns: the watched size changes, though it comes back."""
    a = kb.buffer("a", "UB", "fp32", (4, 64))
    with kb.loop("i", 0, 100) as i:
        kb.op("abs", a[at(0, i % 3 + 1), :], a[at(0, i % 3 + 1), :])


def switching_kernel(kb: KernelBuilder) -> None:
    """After some turns another operation joins in."""
    a, b = kb.buffer("a", "UB", "fp32", (4, 64)), kb.buffer("b", "UB", "fp32", (4, 64))
    with kb.loop("i", 0, 600) as i:
        kb.op("abs", a[:, :], a[:, :])
        with kb.when(i >= 300):
            kb.op("exp", b[:, :], a[:, :])


def nested_kernel(kb: KernelBuilder) -> None:
    """A long loop in a long loop."""
    a = kb.buffer("a", "UB", "fp32", (4, 64))
    with kb.loop("i", 0, 100):
        with kb.loop("j", 0, 40):
            kb.op("abs", a[:, :], a[:, :])
        kb.op("dup", a[:, :], scalar=0.0)


def stored_kernel(kb: KernelBuilder) -> None:
    """A long loop between a load and a store, again and again."""
    x = kb.tensor("x", "fp32", (40, 64), "in")
    with kb.loop("i", 0, 8) as i:
        a = kb.buffer("a", "UB", "fp32", (1, 64), 2)
        kb.copy(a[:, :], x[at(i, 1), :])
        with kb.loop("j", 0, 300):
            kb.op("abs", a[:, :], a[:, :])
        kb.copy(x[at(i, 1), :], a[:, :])


def late_kernel(kb: KernelBuilder) -> None:
    """Operations complete in order, so all of the loop complete with the slow one before it."""
    a, b = kb.buffer("a", "UB", "fp32", (1, 64)), kb.buffer("b", "UB", "fp32", (1, 64))
    kb.op("exp", a[:, :], a[:, :])
    with kb.loop("i", 0, 2000):
        kb.op("dup", b[:, :], scalar=0.0)
    kb.op("abs", b[:, :], b[:, :])


@pytest.mark.parametrize("body", [ragged_kernel, changing_kernel, alternating_kernel, switching_kernel, nested_kernel, stored_kernel,
                                  late_kernel])
@pytest.mark.parametrize("depth", [1, 3, 32, 100])
def test_loops_that_change(body: Callable[[KernelBuilder], None], depth: int):
    kb = KernelBuilder("body", 1, 1)
    with kb.part("aiv"):
        body(kb)
    hardware = TOY.replace(**{"dispatch.queue_depth.V": depth, "vector.ops.exp.latency_cycles": 3000})
    record = skipped(kb.build(), hardware.chip)
    assert (record.skipped_iterations == 0) == (body in (changing_kernel, alternating_kernel)), record


def test_the_cube_repeats_for_a_small_tile_too():
    """What accumulates is the same from the second turn of the outer loop on, which the sum ``i + k`` alone does not show."""
    kb = KernelBuilder("cube", 1, 1)
    with kb.part("aic"):
        a1, b1 = kb.buffer("a1", "L1", "bf16", (16, 64)), kb.buffer("b1", "L1", "bf16", (64, 16))
        acc = kb.buffer("acc", "L0C", "fp32", (16, 16))
        with kb.loop("i", 0, 100) as i, kb.loop("k", 0, 4) as k:
            a0, b0 = kb.buffer("a0", "L0A", "bf16", (16, 16), 2), kb.buffer("b0", "L0B", "bf16", (16, 16), 2)
            kb.copy(a0[:, :], a1[:, at(k * 16, 16)])
            kb.copy(b0[:, :], b1[at(k * 16, 16), :])
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :], accumulate=i + k)
    assert skipped(kb.build(), TOY.replace(cube__hazard_fractals=10).chip).skipped_iterations > 50


def test_why_nothing_was_skipped():
    engine, program = load_engine("fast"), lower(chain_kernel(500), TOY.chip)
    off = engine.run(program, EngineOptions(skip=False))
    assert (off.skipped_iterations, off.skip_reason) == (0, "skipping is switched off")
    recorded = engine.run(program, EngineOptions(record_timeline=True))
    assert (recorded.skipped_iterations, recorded.skip_reason) == (0, "every instruction is recorded")
    short = engine.run(lower(chain_kernel(10), TOY.chip), EngineOptions())
    assert short.skip_reason.startswith("no long loop stays inside a core")
    kb = KernelBuilder("body", 1, 1)
    with kb.part("aiv"):
        changing_kernel(kb)
    changing = engine.run(lower(kb.build(), TOY.chip), EngineOptions())
    assert changing.skip_reason == "no loop came back to an earlier state for long enough"


def test_skipping_changes_nothing_but_the_figures_about_skipping():
    program = lower(chain_kernel(300), TOY.chip)
    assert_same(*(load_engine("fast").run(program, EngineOptions(skip=skip)) for skip in (True, False)))


def test_what_takes_long_pauses_and_goes_on():
    """More instructions than one call dispatches, on one core: the same cycles as where they are skipped."""
    program = lower(chain_kernel(3_000_000), TOY.chip)
    records = [load_engine("fast").run(program, EngineOptions(skip=skip)) for skip in (True, False)]
    assert records[1].skipped_iterations == 0
    assert records[1].instructions > 2**22
    assert records[0].cycles == records[1].cycles
