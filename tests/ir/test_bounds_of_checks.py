"""The verifier's time is bounded by the text, and what it cannot tell it refuses with a line."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir.declarations import notes
from msdsim.ir.lets import plain
from msdsim.ir.lower import lower
from msdsim.ir.order import check_order
from msdsim.ir.parser import parse_kernel
from msdsim.ir.verify import verify
from msdsim.numerics.executor import execute

TOY = load_hw("toy").chip


def kernel_of(body: str, head: str = "cores 1 x 1", tensors: str = "") -> str:
    return f"""\
kernel k {{
  {head}
  tensor x: fp32[16, 64] in
  tensor y: fp32[16, 64] out
{tensors}  aiv {{
    buffer b: UB fp32[16, 64] ring 1
    copy b <- x
    copy y <- b
{body}
  }}
}}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (kernel_of("copy y[16 // core, :] <- b[0, :]"), "line 9: .* the divisor '0'|divides by zero|divisor 'core' .* above 0"),
        (kernel_of("copy y[16 % (core - 5) +: 1, :] <- b[0, :]", "cores 2 x 1"), "the divisor 'core - 5' of '16 % \\(core - 5\\)' is not"),
        (kernel_of("for i in 0 .. 2 {\ncopy y[:16 // i, :] <- b[:16 // i, :]\n}"), "line 10: .* divisor 'i' of '16 // i' is not certain"),
        (kernel_of("", "cores 0 x 0"), "line 2: kernel 'k' runs on 0 x 0 cores; give at least 1 x 1"),
        (kernel_of("", "cores 3 x 1"), "line 2: kernel 'k' runs on 3 x 1 cores, 'toy' has 2 x 2"),
        (kernel_of("wait {pipe=MTE2}", tensors="  signal s: barrier\n"), "line 10: .* 'wait' needs name=; its attributes: name, pipe"),
        (kernel_of("copy x <- b"), "line 9: 'copy x <- b' writes 'x', an input"),
        (kernel_of("").replace("    copy y <- b\n", ""), "line 4: output 'y' is never written"),
        (kernel_of("copy b <- w", tensors="  tensor w: fp32[16, 64] workspace\n"), "line 10: 'copy b <- w' reads 'w', which nothing writes"),
        (kernel_of("for i in 0 .. 1 {\nbuffer c: UB fp32[16, 64] ring 1\ncopy c <- x\n}\ncopy y <- c"),
         "line 13: .* 'c' belongs to the block of line 9, 'for i in 0 .. 1', which declares it in line 10 and has ended"),
        (kernel_of("for i in 0 .. 9 {\nfor j in 0 .. 100000000000000000 * 99 {\ncopy y <- b\n}\n}"), "is too large; stay below 2\\*\\*60"),
        (kernel_of("muls b <- b"), "line 9: .* 'muls' needs scalar="),
        (kernel_of("signal s on MTE3", tensors="  signal s: barrier\n"), "line 10: signal 's' is raised 1 times and waited for never"),
        (kernel_of("", tensors="  signal s: barrier\n  signal s: barrier\n"), "line 5: signal 's' is declared twice"),
        (kernel_of("copy y[99, :] <- b[0, :]\ncopy y[0, :] <- b[77, :]"), r"line 9: .* \(refused too: line 10\)"),
        (kernel_of("for i in 0 .. 8 {\ncopy q[0, i +: 8] <- p[0, i * 2 +: 8]\n}", tensors="  tensor p: int4[2, 64] in\n  tensor q: int4[2, 64] out\n"),
         "'q\\[0, i \\+: 8\\]' starts in the middle of a byte|no path"),
    ],
)
def test_refused_with_a_line(text, message):
    with pytest.raises(KernelError, match=message):
        verify(parse_kernel(text), TOY)


def test_ranges_that_would_take_too_long_are_refused():
    text = kernel_of("for i in 0 .. 100000000000 {\nwhen i % 10 < 9 {\ncopy y[i % 7 * 3 +: 1, :] <- b[0, :]\n}\n}")
    with pytest.raises(KernelError, match=r"line 11: .* may reach 0 \.\. 19 .* more than 500000 iterations would tell"):
        verify(parse_kernel(text), TOY)


def test_signals_in_loops_that_differ_are_counted_up_to_a_bound():
    body = "for i in 0 .. 100000000000 {\nwhen i % 3 == 0 {\nsignal s on MTE3\nwait s on MTE2\n}\n}"
    with pytest.raises(KernelError, match="line 10: the loop over 'i': signals in it depend on more than 1000000 combinations"):
        verify(parse_kernel(kernel_of(body, tensors="  signal s: barrier\n")), TOY)


@pytest.mark.parametrize(
    "body",
    [
        "".join(f"for l{i} in 0 .. 2 {{\n" for i in range(40)) + "copy y[0, :] <- b[0, :]\n" + "}" * 40,
        "".join(f"for l{i} in 0 .. 3 {{\nbuffer c{i}: UB fp32[1, 8] ring 2\ncopy c{i} <- x[0, :8]\nadd b[0, :8] <- c{i}, b[0, :8]\n"
                for i in range(20)) + "copy y[0, :] <- b[0, :]\n" + "}" * 20,
        "".join(f"when core < {i + 1} {{\n" for i in range(60)) + "copy y[0, :] <- b[0, :]\n" + "}" * 60,
        "add b <- b, b\n" * 2000 + "copy y <- b\n" * 500,
        "".join(f"buffer d{i}: UB fp32[1, 8] ring 1\ncopy d{i} <- x[0, :8]\ncopy y[0, :8] <- d{i}\n" for i in range(150)),
    ],
    ids=["loops", "loops with buffers", "whens", "operations", "buffers"],
)
def test_deep_and_long_kernels(body):
    """Time of the checks and of the lowering grows with the text: doubling loops would take hours."""
    begun = time.process_time()
    kernel = parse_kernel(kernel_of(body))
    verify(kernel, TOY)
    try:
        check_order(lower(kernel, TOY))
    except KernelError as err:
        assert re.match("line .*(nothing orders|event ids)", str(err))  # noqa: PT017
    assert time.process_time() - begun < 60


def test_any_name_runs():
    body = "for lambda in 0 .. 4 {\nfor in in lambda .. lambda + 1 {\ncopy y[in, :] <- b[lambda, :]\n}\n}"
    kernel = parse_kernel(kernel_of(body))
    verify(kernel, TOY)
    x = np.arange(1024, dtype=np.float32).reshape(16, 64)
    assert np.array_equal(execute(kernel, {"x": x})["y"], x)


def test_a_product_that_overwrites_the_sum_is_noted():
    text = """\
kernel k {
  cores 1 x 1
  tensor x: bf16[16, 64] in
  tensor w: bf16[64, 64] in
  tensor y: fp32[16, 64] out
  aic {
    buffer acc: L0C fp32[16, 64] ring 1
    for k in 0 .. 4 {
      buffer a1: L1 bf16[16, 16] ring 1
      buffer b1: L1 bf16[16, 64] ring 1
      buffer a0: L0A bf16[16, 16] ring 1
      buffer b0: L0B bf16[16, 64] ring 1
      copy a1 <- x[:, k * 16 +: 16]
      copy b1 <- w[k * 16 +: 16, :]
      copy a0 <- a1
      copy b0 <- b1
      mmad acc <- a0, b0
    }
    fixpipe y <- acc
  }
}
"""
    kernel = parse_kernel(text)
    verify(kernel, TOY)
    assert [note[:8] for note in notes(plain(kernel))] == ["line 17:"]
    assert "give accumulate=k" in notes(plain(kernel))[0]
    product = "mmad acc <- a0, b0"
    for right in (f"{product} {{accumulate=k}}",
                  # A part of the sum of its own in every iteration, or one that something reads.
                  "mmad acc[:, k * 16 +: 16] <- a0, b0[:, k * 16 +: 16]",
                  f"{product}\n fixpipe y <- acc",
                  # The first iteration begins the sum, the others add to it.
                  f"when k == 0 {{ {product} }} when k > 0 {{ {product} {{accumulate=1}} }}"):
        assert notes(plain(parse_kernel(text.replace(product, right)))) == [], right
    assert notes(plain(parse_kernel(text.replace("0 .. 4", "0 .. 1")))) == []
    inner = parse_kernel(text.replace(product, "for j in 0 .. 2 { for i in 0 .. 4 { mmad acc[:, i * 16 +: 16] <- a0, b0[:, i * 16 +: 16] } }"))
    assert "give accumulate=j" in notes(plain(inner))[0]


@pytest.mark.parametrize(("loops", "message"), [
    ("for i in 0 .. 10 { when i < 0 { copy y <- b } }", "can never run, and nothing else writes the output 'y'"),
    ("copy y <- b\n for i in 0 .. 100000000000 { when i < 0 { copy y <- b } }", "entered up to 100,000,000,000 times and nothing in it can ever run"),
    ("copy y <- b\n for i in 0 .. 100000 { for j in 0 .. 100000 { when i % 2 == 2 { copy y <- b } } }", "entered up to 10,000,000,000 times"),
    ("copy y <- b\n for i in 0 .. 100000000000 { }", "entered up to 100,000,000,000 times"),
])
def test_loops_that_do_nothing_do_not_take_for_ever(loops, message):
    text = f"""\
kernel k {{
  cores 1 x 1
  tensor x: fp32[16, 64] in
  tensor y: fp32[16, 64] out
  aiv {{
    buffer b: UB fp32[16, 64] ring 1
    copy b <- x
    {loops}
  }}
}}
"""
    with pytest.raises(KernelError, match=message):
        verify(parse_kernel(text), TOY)
    verify(parse_kernel(text.replace(loops, "copy y <- b\n for i in 0 .. 1000 { when i < 0 { copy y <- b } }")), TOY)
