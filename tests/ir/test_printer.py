"""The text form: what users read and diff."""

from __future__ import annotations

from msdsim.ir import kernel_hash, print_kernel
from msdsim.ir.kernel import operations
from tests.ir.kernels import copy_kernel, exchange_kernel

COPY = """\
kernel copy {
  cores 1 x 1
  tensor x: fp32[8, 64] in
  tensor y: fp32[8, 64] out
  aiv {
    for i in 0 .. 8 {
      buffer tile: UB fp32[1, 64] ring 2
      copy tile <- x[i, :]
      copy y[i, :] <- tile
    }
  }
}
"""


def test_text_of_a_kernel():
    assert print_kernel(copy_kernel()) == COPY


def test_every_statement_knows_its_line():
    for kernel in (copy_kernel(), exchange_kernel()):
        lines = print_kernel(kernel).splitlines()
        ops = [*operations(kernel.aic), *operations(kernel.aiv)]
        assert ops
        for op in ops:
            assert lines[op.line - 1].strip() == str(op)


def test_hash_follows_the_text():
    assert kernel_hash(copy_kernel()) == kernel_hash(copy_kernel())
    assert kernel_hash(copy_kernel()) != kernel_hash(copy_kernel(ring=3))


def test_loops_stay_loops():
    """A kernel of 10**9 instructions is a page of text and is built at once."""
    assert len(print_kernel(copy_kernel(rows=500_000_000))) == len(print_kernel(copy_kernel())) + 3 * len("49999999")
