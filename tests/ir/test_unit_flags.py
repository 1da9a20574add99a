"""Unit flags: who may have them, what they order, and what they save."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.analysis.critical_path import critical_path
from msdsim.engine import EngineOptions, load_engine
from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir import KernelBuilder, at
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.order import check_order
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.ir.verify import verify

CHIP = load_hw("ascend910b1").chip


def tiles(unit_flag: int, steps: int = 1, count: int = 4) -> Kernel:
    """Output tiles of 128 x 256, whose accumulator fills L0C, each a sum of some products."""
    kb = KernelBuilder("tiles", cores=1, aiv_per_core=1)
    x, w = kb.tensor("x", "bf16", (128, 64), "in"), kb.tensor("w", "bf16", (64, 256), "in")
    y = kb.tensor("y", "fp32", (count * 128, 256), "out")
    with kb.part("aic"):
        a1, b1 = kb.buffer("a1", "L1", "bf16", (128, 64)), kb.buffer("b1", "L1", "bf16", (64, 256))
        a0, b0 = kb.buffer("a0", "L0A", "bf16", (128, 64)), kb.buffer("b0", "L0B", "bf16", (64, 256))
        kb.copy(a1, x)
        kb.copy(b1, w)
        kb.copy(a0, a1)
        kb.copy(b0, b1)
        with kb.loop("t", 0, count) as t:
            acc = kb.buffer("acc", "L0C", "fp32", (128, 256))
            with kb.loop("k", 0, steps) as k:
                kb.op("mmad", acc, a0, b0, accumulate=k, unit_flag=unit_flag)
            kb.op("fixpipe", y[at(t * 128, 128), :], acc, unit_flag=unit_flag)
    return kb.build()


def cycles(kernel: Kernel) -> int:
    verify(kernel, CHIP)
    program = lower(kernel, CHIP)
    check_order(program)
    return load_engine("fast").run(program, EngineOptions()).cycles


def test_a_drain_overlaps_the_products_around_it():
    """A product of 512 cycles and a drain of 1,111 follow each other without the flag, with the latencies of both (23 and 164) and
    a cycle for a flag; with it the drains are back to back."""
    assert cycles(tiles(0, count=8)) - cycles(tiles(0, count=4)) == 4 * (512 + 23 + 164 + 1111 + 1)
    assert cycles(tiles(1, count=8)) - cycles(tiles(1, count=4)) == int(4 * (131072 / 118 + 2))


def test_of_longer_sums_two_products_a_tile_are_overlapped():
    saved = [(cycles(tiles(0, steps, 8)) - cycles(tiles(1, steps, 8))) for steps in (2, 4)]
    assert saved[0] == saved[1] > 7 * 2 * 500


def test_the_text_form_and_the_critical_path():
    kernel = tiles(1)
    text = print_kernel(kernel)
    assert "{accumulate=0, unit_flag=1}" in text or "{accumulate=k, unit_flag=1}" in text
    assert print_kernel(parse_kernel(text)) == text
    record = load_engine("fast").run(lower(kernel, CHIP), EngineOptions(record_timeline=True))
    path = critical_path(record)
    assert sum(segment.cycles for segment in path) == record.cycles
    assert {segment.pipe for segment in path} >= {"M", "FIX"}


PROBLEMS = {
    "fixpipe y[t * 16 +: 16, :] <- acc": "has no unit_flag, another operation on 'acc' has",
    "fixpipe y[t * 16 +: 16, :] <- acc {unit_flag=1}\n fixpipe y[t * 16 +: 16, :] <- acc {unit_flag=1}":
        "is the second fixpipe of 'acc'",
    "for i in 0 .. 2 {\n fixpipe y[t * 16 +: 16, :] <- acc {unit_flag=1}\n}": "does not stand in the block that declares 'acc'",
    "fixpipe y[t * 16 +: 16, :] <- acc {unit_flag=1}\n mmad acc <- a0, b0 {unit_flag=1}":
        "needs products and then one fixpipe that drains them",
    "fixpipe y[t * 16 +: 16, :] <- acc {unit_flag=3}": "unit_flag=3 is neither 0 nor 1",
}


@pytest.mark.parametrize("drain", PROBLEMS)
def test_what_flags_cannot_say_is_refused(drain):
    text = """kernel k {
      cores 1 x 1
      tensor x: bf16[16, 16] in
      tensor y: fp32[64, 16] out
      aic {
        buffer l1: L1 bf16[16, 16] ring 1
        buffer a0: L0A bf16[16, 16] ring 1
        buffer b0: L0B bf16[16, 16] ring 1
        copy l1 <- x
        copy a0 <- l1
        copy b0 <- l1
        for t in 0 .. 4 {
          buffer acc: L0C fp32[16, 16] ring 1
          mmad acc <- a0, b0 {unit_flag=1}
          %s
        }
      }
    }"""
    with pytest.raises(KernelError) as error:
        verify(parse_kernel(text % drain), CHIP)
    assert PROBLEMS[drain] in str(error.value)


@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "msd-int8", "convert-int8"])
def test_gemm_main_loops_have_them(dataflow):
    kernel = msdsim.simulate("gemm:m=32,k=256,n=512", "ascend910b1", dataflow).record.program.kernel
    assert "unit_flag=1" in print_kernel(kernel)
