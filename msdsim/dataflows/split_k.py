"""Split-K: several cores multiply parts of K of the same output tile; Vector adds the partial sums in the order of K.

Before: ``acc = sum over K`` on one core.  After::

    every part p, on its core:   partial[p] <- sum over the K of p
    [all cores meet]
    every AIV, for its rows:     t = partial[0];  t += partial[1] ...;  y <- t

The order of the additions is stated, so that the result is defined; atomic additions in GM would need no workspace but keep no
order.
"""

from __future__ import annotations

from msdsim.dataflows.gemm import GemmShape, Operand, experts_of, operand, ragged
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import KernelBuilder, at
from msdsim.ir.expr import Const, Expr
from msdsim.units import ceil_div, part_size, round_up

#: Columns of a tile in which partial sums are added up: rows of 2 KiB of FP32.
_COLUMNS = 512


class FloatParts:
    """FP32 partial sums in GM, [parts, m, n], and their addition."""

    def __init__(self, kb: KernelBuilder, chip: Chip, problem: GemmShape, split_k: int) -> None:
        self.kb, self.chip, self.problem = kb, chip, problem
        self.depth = part_size(problem.k, split_k)
        self.parts = ceil_div(problem.k, self.depth)
        self.sums: Operand = operand(kb, problem, "partial", "fp32", (self.parts, problem.m, problem.n), "workspace")
        kb.signal("summed", "barrier")

    def add_up(self, y: Operand, ring: int = 2) -> None:
        """Emit the AIV part: rounding half to even comes last."""
        kb, m, n = self.kb, self.problem.m, self.problem.n
        cols = min(_COLUMNS, round_up(n, 16))
        room = (self.chip.buffers.ub_bytes - 1024) // (cols * (ring * (4 * self.parts + 2)))
        rows = max(1, min(m, room))
        m_blocks, n_blocks, experts = ceil_div(m, rows), ceil_div(n, cols), experts_of(self.problem)
        units = self.chip.cores.aic * self.chip.cores.aiv_per_aic
        kb.wait_signal("summed", "MTE2")
        with kb.loop("u", kb.core * self.chip.cores.aiv_per_aic + kb.sub, experts * m_blocks * n_blocks, units) as u:
            e: Expr = u // (m_blocks * n_blocks) if experts > 1 else Const(0)
            mb, nb = u // n_blocks % m_blocks, u % n_blocks
            here_m, here_n = ragged(m, rows, mb), ragged(n, cols, nb)
            there = at(mb * rows, here_m), at(nb * cols, here_n)
            loaded = kb.buffer("loaded", "UB", "fp32", (self.parts * rows, cols), ring)
            pieces = [loaded[at(p * rows, here_m), at(0, here_n)] for p in range(self.parts)]
            for p, piece in enumerate(pieces):
                kb.copy(piece, self.sums.at(e, Const(p), *there))
            for piece in pieces[1:]:
                kb.op("add", pieces[0], pieces[0], piece)
            yb = kb.buffer("yb", "UB", "bf16", (rows, cols), ring)[at(0, here_m), at(0, here_n)]
            kb.op("cast", yb, pieces[0], round="rint")
            kb.copy(y.at(e, *there), yb)
