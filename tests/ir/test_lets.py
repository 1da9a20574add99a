"""Names: ``let``, named sizes, comments, and what a kernel is without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msdsim.errors import KernelError
from msdsim.hardware import load_hw
from msdsim.ir import kernel_hash, print_kernel
from msdsim.ir.kernel import walk
from msdsim.ir.lets import MOST_TERMS, plain
from msdsim.ir.lower import lower
from msdsim.ir.parser import parse_kernel
from msdsim.ir.tidy import tidy
from msdsim.ir.verify import verify
from msdsim.numerics.executor import execute

TOY = load_hw("toy").chip
NAMED = """\
# A copy in ragged pieces.
kernel named {
  let step_rows = 6
  let rows = 4 * step_rows - 4  # ragged
  cores 1 x 1
  tensor x: fp32[rows, 64] in
  # what comes back
  tensor y: fp32[rows, 64] out
  aiv {
    for v in 0 .. (rows + step_rows - 1) // step_rows {
      let first = v * step_rows
      let n = min(step_rows, rows - first)
      buffer b: UB fp32[step_rows, 64] ring 2
      # in and out again
      copy b[:n, :] <- x[first +: n, :]
      copy y[first +: n, :] <- b[:n, :]  # ragged at the end
      # the end of the loop
    }
  }
  # the end
}
# behind it
"""
PLAIN = """\
kernel named {
  cores 1 x 1
  tensor x: fp32[20, 64] in
  tensor y: fp32[20, 64] out
  aiv {
    for v in 0 .. 4 {
      buffer b: UB fp32[6, 64] ring 2
      copy b[:min(6, 20 - v * 6), :] <- x[v * 6 +: min(6, 20 - v * 6), :]
      copy y[v * 6 +: min(6, 20 - v * 6), :] <- b[:min(6, 20 - v * 6), :]
    }
  }
}
"""


def test_text_survives():
    assert print_kernel(parse_kernel(NAMED)) == NAMED


def test_lines_are_those_of_the_text():
    kernel = parse_kernel(NAMED)
    lines = NAMED.splitlines()
    for statement in walk(plain(kernel).aiv):
        assert str(getattr(statement, "kind", "")) in lines[statement.line - 1]


def test_names_change_nothing():
    named, bare = parse_kernel(NAMED), parse_kernel(PLAIN)
    assert plain(named) == plain(bare)
    verify(named, TOY)
    assert len(lower(named, TOY).aiv.instructions()) == len(lower(bare, TOY).aiv.instructions())
    x = np.arange(1280, dtype=np.float32).reshape(20, 64)
    assert np.array_equal(execute(named, {"x": x})["y"], x)


def test_the_hash_does_not_see_names_or_comments():
    named = parse_kernel(PLAIN.replace("buffer b", "let n = min(6, 20 - v * 6)  # ragged\n buffer b").replace("[:min(6, 20 - v * 6)", "[:n"))
    assert "[:n, :]" in print_kernel(named)
    assert kernel_hash(named) == kernel_hash(parse_kernel(PLAIN))


def test_what_blocks_use_more_than_once_gets_a_name():
    kernel = tidy(parse_kernel(PLAIN))
    assert "let n_v = min(6, 20 - v * 6)\n" in print_kernel(kernel)
    assert "copy b[:n_v, :] <- x[v * 6 +: n_v, :]" in print_kernel(kernel)
    assert plain(kernel) == plain(parse_kernel(PLAIN))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("let first", "let v", "line 11: 'let v = v * step_rows': 'v' is already in use here; rename it"),
        ("let n =", "let first =", "line 12: 'let first = "),
        ("for v", "for rows", "line 10: 'for rows in"),
        ("let rows = 4", "let rows = core", "line 4: 'rows' reads 'core', but names that a kernel gives outside of its parts are numbers"),
        ("let rows", "let step_rows", "line 4: 'step_rows' is already in use; rename it"),
        ("[rows, 64] in", "[rows - 90, 64] in", "line 6: expected a whole number, found -70"),
    ],
)
def test_mistakes(old, new, message):
    with pytest.raises(KernelError) as caught:
        plain(parse_kernel(NAMED.replace(old, new, 1)))
    assert message in str(caught.value)


def test_names_that_double_every_time_are_refused():
    doubled = "".join(f"let a{i + 1} = a{i} + a{i} * 2\n" for i in range(60))
    text = PLAIN.replace("buffer b", f"let a0 = v + 1\n{doubled}buffer b").replace("copy y[v * 6", "copy y[a60")
    with pytest.raises(KernelError, match=f"has more than {MOST_TERMS} terms once its names are put in"):
        verify(parse_kernel(text), TOY)


def test_a_renamed_kernel_is_read_afresh():
    kernel = parse_kernel(NAMED)
    plain(kernel)
    assert plain(replace(kernel, name="other")).name == "other"
