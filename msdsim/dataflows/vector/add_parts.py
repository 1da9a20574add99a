"""Split-K: several cores multiply parts of K of the same output tile; Vector adds the partial sums in the order of K.

Before: ``acc = sum over K`` on one core.  After::

    every part p, on its core:   partial[p] <- sum over the K of p
    [all cores meet]
    every AIV, for its rows:     t = partial[0];  t += partial[1] ...;  y <- t

The order of the additions is stated, so that the result is defined; atomic additions in GM would need no workspace but keep no
order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.operands import GemmShape, Operand, operand
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, KernelBuilder, Slice, at, ragged
from msdsim.units import ceil_div, part_size, round_up

#: Columns of a tile in which partial sums are added up: rows of 2 KiB of FP32, shorter where there are few of them.
_COLUMNS = (512, 256, 128)
#: UB that is left to the padding between buffers.
_SPARE_BYTES = 1024


@dataclass(frozen=True)
class Reserved:
    """UB that is taken beside the sums: ``fixed`` bytes, and bytes for each column, row and element of a tile."""

    fixed: int = 0
    column: int = 0
    row: int = 0
    element: int = 0


NOTHING_RESERVED = Reserved()


def adding_tile(chip: Chip, counts: Sequence[int], n: int, parts: int, ring: int = 2,
                beside: Reserved = NOTHING_RESERVED) -> tuple[int, int]:
    """Rows and columns of the tiles in which Vector adds ``parts`` sums of ``counts`` rows for each expert by ``n`` columns:
    no more rows than fit UB, and so many tiles that all AIVs are busy to the end."""
    most, room = max(counts), chip.buffers.ub_bytes - _SPARE_BYTES - beside.fixed
    rows = cols = 0
    for width in _COLUMNS:
        if cols and width >= cols:
            continue
        cols = min(width, round_up(n, 16))
        n_blocks = ceil_div(n, cols)
        each = cols * (ring * (4 * parts + 2) + beside.element) + beside.row
        fit = max(1, min(most, (room - cols * beside.column) // each))
        tiles = n_blocks * sum(ceil_div(m, fit) for m in counts)
        rows = min(fit, max(1, ceil_div(n_blocks * sum(counts), ceil_div(tiles, chip.aiv) * chip.aiv)))
        if n_blocks * sum(ceil_div(m, rows) for m in counts) >= chip.aiv:
            break
    return rows, cols


class FloatParts:
    """FP32 partial sums in GM, [parts, m, n], and their addition."""

    def __init__(self, kb: KernelBuilder, chip: Chip, problem: GemmShape, k_parts: int) -> None:
        self.kb, self.chip, self.problem = kb, chip, problem
        self.depth = part_size(problem.k, k_parts)
        self.parts = ceil_div(problem.k, self.depth)
        shape = (self.parts, problem.m, problem.n)
        self.sums: Operand = operand(kb, problem, "partial", "fp32", shape, "workspace", rows_axis=1)
        kb.signal("summed", "barrier")

    def add_up(self, y: Operand, ring: int = 2, scale: Callable[[Slice, Expert, At, At], None] | None = None,
               beside: Reserved = NOTHING_RESERVED) -> None:
        """Emit the AIV part: rounding half to even comes last; before it ``scale`` of a sum, its expert, rows and columns,
        whose buffers have their place ``beside`` the sums."""
        kb, m, n, experts = self.kb, self.problem.m, self.problem.n, Experts(self.problem)
        rows, cols = adding_tile(self.chip, experts.counts, n, self.parts, ring, beside)
        n_blocks = ceil_div(n, cols)

        def blocks(m: int) -> int:
            return ceil_div(m, rows) * n_blocks

        kb.wait_signal("summed", "MTE2")
        with kb.each_aiv("u", experts.units(blocks)) as u, experts.find(kb, u, blocks) as (e, inside):
            mb, nb = inside // n_blocks % ceil_div(m, rows), inside % n_blocks
            here_m, here_n = ragged(e.rows, rows, mb), ragged(n, cols, nb)
            there = at(mb * rows, here_m), at(nb * cols, here_n)
            # The sum and what is added to it apart, so that both can lie in other banks.
            total, added = (kb.buffer(name, "UB", "fp32", (parts * rows, cols), ring)
                            for name, parts in (("total", 1), ("added", self.parts - 1)))
            pieces = [total[:here_m, :here_n], *(added[at(p * rows, here_m), :here_n] for p in range(self.parts - 1))]
            for p, piece in enumerate(pieces):
                kb.copy(piece, self.sums.at(e, Const(p), *there))
            for piece in pieces[1:]:
                kb.op("add", pieces[0], pieces[0], piece)
            if scale is not None:
                scale(pieces[0], e, *there)
            store(kb, self.problem, y.at(e, *there), pieces[0], (rows, cols), ring)


def store(kb: KernelBuilder, problem: GemmShape, y: Slice, total: Slice, shape: tuple[int, int], ring: int) -> None:
    """FP32 sums to y: rounded half to even through a buffer of ``shape`` in a ring, or as they are where y is FP32."""
    if problem.out != "fp32":
        rounded = kb.buffer("yb", "UB", problem.out, shape, ring)[tuple(at(0, size) for size in total.sizes[-2:])]
        kb.op("cast", rounded, total, round="rint")
        total = rounded
    kb.copy(y, total)
