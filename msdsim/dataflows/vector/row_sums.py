"""Sums of the rows of x over each group of K, which offsets of weights are multiplied with: ``row_sum`` [m, groups] in GM.

Every AIV takes some rows, and some groups of them; then all AIVs meet (signal ``row_sums``)::

    xf <- x;  per group: lanes = fold xf;  sum = reduce lanes;   row_sum <- sums
"""

from __future__ import annotations

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.operands import GemmShape, Operand, operand
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, KernelBuilder, Slice, at, ragged
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.units import ceil_div

#: Most rows of a UB tile.
_ROWS = 16


def _elements(chip: Chip) -> int:
    """Of x in a UB tile, at most: a ring of two in BF16 and one tile in FP32 then are an eighth of UB."""
    return chip.buffers.ub_bytes // 64


def room_bytes(chip: Chip) -> int:
    """UB bytes that the sums take."""
    return _elements(chip) * (2 * 2 + 4 + 8) + _ROWS * FOLD_LANES * 4


class RowSums:
    """The sums and how they are made; ``group`` None has one for all of K."""

    def __init__(self, kb: KernelBuilder, chip: Chip, problem: GemmShape, x: Operand, group: int | None) -> None:
        self.kb, self.chip, self.problem, self.x = kb, chip, problem, x
        self.group = min(group or problem.k, problem.k)
        self.groups = ceil_div(problem.k, self.group)
        self.rows = min(_ROWS, max(1, ceil_div(problem.m, chip.aiv)), max(1, _elements(chip) // FOLD_LANES))
        room = _elements(chip) // self.rows
        #: K of a UB tile, and groups that a unit of work takes.
        self.depth = min(self.group, max(1, room // FOLD_LANES) * FOLD_LANES)
        self.taken = max(1, min(room // self.group, self.groups))
        if self.taken > 1:
            self.depth = self.taken * self.group
        self.sums = operand(kb, problem, "row_sum", "fp32", (problem.m, self.groups), "workspace", rows_axis=0)
        kb.signal("row_sums", "barrier")

    def emit(self) -> None:
        """Make them, in the AIV part; who reads them waits for the signal first."""
        kb, experts = self.kb, Experts(self.problem)
        shares = ceil_div(self.groups, self.taken)

        def units(m: int) -> int:
            return ceil_div(m, self.rows) * shares

        with (
            kb.each_aiv("rs", experts.units(units)) as unit, experts.find(kb, unit, units) as (e, inside),
        ):
            block, share = inside // shares % ceil_div(self.problem.m, self.rows), inside % shares
            rows = at(block * self.rows, ragged(e.rows, self.rows, block))
            first, count = share * self.taken, ragged(self.groups, self.taken, share)
            stored = kb.buffer("row_sums_out", "UB", "fp32", (self.rows, self.taken), 2)
            lanes = kb.buffer("row_lanes", "UB", "fp32", (self.rows, FOLD_LANES))[: rows.size, :FOLD_LANES]
            if self.taken > 1:
                start = first * self.group
                xf = self._load(e, rows, start, ragged(self.problem.k, self.depth, share))
                with kb.loop("rg", 0, count) as g:
                    depth = ragged(xf.sizes[1], self.group, g)
                    kb.op("fold_add", lanes, Slice(xf.of, (Const(0), g * self.group), (rows.size, depth)))
                    kb.op("reduce_add", stored[: rows.size, at(g, 1)], lanes)
            else:
                extent = ragged(self.problem.k, self.group, share)
                with kb.tiles("rk", extent, self.depth) as i:
                    xf = self._load(e, rows, share * self.group + i.start, i.size)
                    kb.op("fold_add", lanes, xf, accumulate=i.number)
                kb.op("reduce_add", stored[: rows.size, :1], lanes)
            kb.copy(self.sums.at(e, rows, at(first, count)), stored[: rows.size, :count])
        kb.raise_signal("row_sums", "MTE3")

    def _load(self, e: Expert, rows: At, start: Expr, size: Expr) -> Slice:
        kb, shape = self.kb, (self.rows, self.depth)
        here = at(0, rows.size), at(0, size)
        xb = kb.buffer("row_x", "UB", "bf16", shape, 2)[here]
        xf = kb.buffer("row_xf", "UB", "fp32", shape)[here]
        kb.copy(xb, self.x.at(e, rows, at(start, size)))
        kb.op("cast", xf, xb)
        return xf
