"""Vector functions: what they may hold, what they cost, and that numbers do not know them."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.engine import ENGINES, EngineOptions, load_engine
from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.printer import print_kernel
from msdsim.ir.verify import verify

CHIP = load_hw("ascend950pr").chip
TEXT = """kernel k {
  cores 1 x 1
  tensor x: int8[64, 128] in
  tensor s: fp32[1, 128] in
  tensor y: bf16[64, 128] out
  aiv {
    buffer sb: UB fp32[1, 128] ring 1
    buffer a: UB int8[64, 128] ring 1
    buffer h: UB fp16[64, 128] ring 1
    buffer f: UB fp32[64, 128] ring 1
    buffer b: UB bf16[64, 128] ring 1
    copy sb <- s
    copy a <- x
    vf {
      cast h <- a
      cast f <- h
      mul f <- f, sb
      cast b <- f {round=rint}
    }
    copy y <- b
  }
}
"""


def vector_rows(kernel: Kernel, engine: str) -> list[tuple[int, int]]:
    """Start (from the first one) and end of the operations on V."""
    verify(kernel, CHIP)
    program = lower(kernel, CHIP)
    timeline = load_engine(engine).run(program, EngineOptions(record_timeline=True)).timeline
    assert timeline is not None
    instrs = program.aiv.instructions()
    rows = [(int(start), int(end)) for start, end, unit, instr in
            zip(timeline["start"], timeline["end"], timeline["unit"], timeline["instr"], strict=True)
            if unit == 1 and instrs[instr].pipe == "V" and instrs[instr].op is not None]
    return [(start - rows[0][0], end - rows[0][0]) for start, end in rows]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_by_hand(engine):
    """8,192 elements: 64 registers of fp16, 128 of fp32.  Ports bind: half a cycle a register of each operation, 32 + 64 + 64 +
    64 cycles; loads take 32, the one store 128.  23 to start; 9 for a load, 7, 7, 8 and 7 for what the operations take (beyond
    48 in the chip file), 9 for a store, and 12 to drain.  The pipe has one flag to wait for first, a cycle."""
    assert vector_rows(parse_kernel(TEXT), engine) == [
        (0, 23 + 32 + 9 + 7 + 9), (24 + 32, 24 + 32 + 64 + 9 + 14 + 9), (24 + 96, 24 + 96 + 64 + 9 + 22 + 9),
        (24 + 160, 24 + 160 + 64 + 9 + 29 + 9 + 12)]


def test_a_loop_waits_for_what_another_one_has_stored():
    text = TEXT.replace("cast b <- f {round=rint}", "fold_add lanes <- f\n reduce_add one <- lanes\n mul f <- f, one\n cast b <- f")
    text = text.replace("buffer b:", "buffer lanes: UB fp32[64, 64] ring 1\n buffer one: UB fp32[64, 1] ring 1\n buffer b:")
    rows = vector_rows(parse_kernel(text), "fast")
    cast_h, cast_f, mul, fold, reduce, scale, cast_b = rows
    assert cast_h[0] < cast_f[0] < mul[0] < fold[0] < fold[1] <= reduce[0]
    assert reduce[1] <= scale[0] < cast_b[0] < scale[1]


@pytest.mark.parametrize(("line", "message"), [
    ("copy a <- x", "is no operation of Vector"), ("buffer z: UB fp32[1, 64] ring 1", "no operation of Vector"),
    ("when 1 {\n dup f {scalar=0.0}\n }", "is no operation of Vector"), ("hold {cycles=5, pipe=V}", "is no operation of Vector"),
])
def test_what_it_may_not_hold(line, message):
    with pytest.raises(KernelError, match=message):
        verify(parse_kernel(TEXT.replace("cast h <- a", f"{line}\n cast h <- a")), CHIP)


def test_a_chip_without_registers_has_none():
    with pytest.raises(KernelError, match="line 14: 'vf': chip 'ascend910b1' has no vector functions; leave out"):
        verify(parse_kernel(TEXT), load_hw("ascend910b1").chip)


def test_the_text_form():
    kernel = parse_kernel(TEXT)
    assert "    vf {\n      cast h <- a\n" in print_kernel(kernel)
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


@pytest.mark.parametrize(("problem", "dataflow"), [
    ("gemm:m=16,k=256,n=256", "dequant-int8"), ("attention:batch=1,heads=2,kv_heads=1,head_dim=64,q=16,kv=128", "dequant-int8")])
def test_numbers_are_those_of_the_reference(problem, dataflow):
    result = msdsim.simulate(problem, "ascend950pr", dataflow, check=True)
    assert "vf {" in print_kernel(result.record.program.kernel)
    assert result.numerics is not None
    assert result.numerics.bit_exact
