"""The merge of an MSD kernel: Vector combines the passes, applies the scales and rounds.

MX components carry their scales with them: ``y = C1 + C2 ...``.  Integer components, per channel::

    y = ((C1 + C2 / g ...) * row_scale [+ row_sum * offset]) * scale

Per group of K, with the row scale outside of the sum over groups::

    y = (sum over groups of (C1 + C2 / g ...) * scale) * row_scale [+ sum over groups of group_sum * offset * scale]
"""

from __future__ import annotations

from typing import NamedTuple

from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.gemm.sum_ring import Share, add_up
from msdsim.dataflows.vector.add_parts import store
from msdsim.dataflows.vector.components import combine
from msdsim.ir import At, Const, Expr, Handle, Slice, at, ragged

_FIRST: Expr = Const(0)


class _Rows(NamedTuple):
    """Some rows of a buffer, counted from the first of them."""

    buffer: Handle
    start: int

    def at(self, row: Expr | int, cols: Expr) -> Slice:
        """``cols`` numbers of a row."""
        return self.buffer[row + self.start, :cols]


class PerColumn(NamedTuple):
    """Numbers per column in UB, a row for each group of K: scales, offsets, and the constant that nibbles leave out."""

    scale: _Rows
    offset: _Rows | None
    bias8: _Rows | None

    @classmethod
    def load(cls, ctx: MsdContext, share: Share, groups: At) -> PerColumn:
        """Those of some groups, for the columns of a share."""
        tensors = [item for item in (ctx.scale, ctx.offset, ctx.bias8) if item is not None]
        # One buffer for all of them, so that one flag covers their loads.
        buffer = ctx.kb.buffer("per_column", "UB", "fp32", (len(tensors) * ctx.pack, ctx.shares.cols), ctx.tile.ub_ring)
        rows: dict[Operand | None, _Rows] = {}
        for number, tensor in enumerate(tensors):
            start = number * ctx.pack
            ctx.kb.copy(buffer[at(start, groups.size), : share.cols],
                        tensor.at(share.place.expert, groups, share.tensor_cols))
            rows[tensor] = _Rows(buffer, start)
        return cls(rows[ctx.scale], rows.get(ctx.offset), rows.get(ctx.bias8))


class Merge:
    """The stages of the merge, on the AIVs."""

    def __init__(self, ctx: MsdContext) -> None:
        self.ctx, self.kb, self.tile = ctx, ctx.kb, ctx.tile
        self.weights = ctx.scheme.pass_weights(ctx.passes)
        self.shape = (ctx.tile.merge_m, ctx.shares.cols)

    def per_column(self, share: Share) -> PerColumn | None:
        """Numbers per column of a tile whose scales are per channel; MX products have theirs in them."""
        return None if self.ctx.scheme.mx else PerColumn.load(self.ctx, share, at(0, 1))

    def rows(self, t: Expr, share: Share, rows: At, per_column: PerColumn | None) -> None:
        """Rows of the product of tile ``t`` to rows of y."""
        if per_column is not None:
            self._store(share, rows, self._channel_rows(t, share, rows, per_column))
            return
        # The Cube has applied all scales.
        first, *others = self._pieces(t, share, rows)
        for piece in others:
            self.kb.op("add", first, first, piece)
        self._store(share, rows, first)

    def _pieces(self, t: Expr, share: Share, rows: At, p: Expr = _FIRST, j: Expr = _FIRST) -> list[Slice]:
        """The products of the passes for some rows, in UB."""
        ctx = self.ctx
        if ctx.k_parts > 1:
            return self._parts(t, share, rows)
        return ctx.ring.in_ub(ctx.turn(t), share, rows, (self.tile.merge_m, self.tile.ub_ring), p, j)

    def _parts(self, t: Expr, share: Share, rows: At) -> list[Slice]:
        """Products of the passes, added up over the parts of K."""
        ctx, kb, most, passes = self.ctx, self.kb, self.tile.merge_m, self.ctx.passes
        # Sums and what is added to them apart, so that both can lie in other banks.
        pieces = []
        for name, parts in (("ci", 1), ("cj", ctx.k_parts - 1)):
            numbers = range(parts * passes)
            loaded = kb.buffer(name, "UB", ctx.scheme.sums, (len(numbers) * most, ctx.shares.cols), self.tile.ub_ring)
            pieces += [loaded[at(number * most, rows.size), : share.cols] for number in numbers]
        for number, piece in enumerate(pieces):
            part, component = divmod(number, passes)
            there = at(share.place.rows * component + share.row + rows.start, rows.size), at(share.col, share.cols)
            kb.copy(piece, ctx.parts[t, part, *there])
        for number, piece in enumerate(pieces[passes:]):
            # Sums of integers are exact in any order, those of MX products ascend over the parts.
            kb.op("add", pieces[number % passes], pieces[number % passes], piece)
        return pieces[:passes]

    def _store(self, share: Share, rows: At, total: Slice) -> None:
        """Round and store finished rows."""
        there = self.ctx.y.at(share.place.expert, share.tensor_rows(rows), share.tensor_cols)
        store(self.kb, self.ctx.problem, there, total, self.shape, self.tile.ub_ring)

    # Per channel

    def _channel_rows(self, t: Expr, share: Share, rows: At, per_column: PerColumn) -> Slice:
        ctx, kb, tile, e = self.ctx, self.kb, self.tile, share.place.expert
        assert ctx.row_scale is not None
        # One buffer per kind of load, so that one flag covers all of its pieces.
        per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 2), tile.ub_ring)
        kb.copy(per_row[: rows.size, 0], ctx.row_scale.at(e, share.tensor_rows(rows), 0))
        if ctx.row_sum is not None:
            kb.copy(per_row[: rows.size, 1], ctx.row_sum.at(e, share.tensor_rows(rows), 0))
        total, scratch = self._combine(self._pieces(t, share, rows), per_column, Const(0))
        kb.op("mul", total, total, per_row[: rows.size, 0])
        if per_column.offset is not None:
            kb.op("mul", scratch, per_column.offset.at(0, share.cols), per_row[: rows.size, 1])
            kb.op("add", total, total, scratch)
        kb.op("mul", total, total, per_column.scale.at(0, share.cols))
        return total

    def _combine(self, pieces: list[Slice], per_column: PerColumn, group: Expr) -> tuple[Slice, Slice]:
        """The passes of some rows put together, ``C1 w1 + C2 w2 ... [+ bias8]``, and a scratch tile."""
        kb, (rows, cols) = self.kb, pieces[0].sizes[-2:]
        total, scratch = (kb.buffer(name, "UB", "fp32", self.shape)[:rows, :cols] for name in ("total", "part"))
        combine(kb, self.weights, pieces, total, scratch)
        if per_column.bias8 is not None:
            kb.op("add", total, total, per_column.bias8.at(group, cols))
        return total, scratch

    # Per group

    def totals(self, tiles: int) -> tuple[Handle, Handle | None]:
        """Buffers for what the groups add up to, and their offsets, of some tiles."""
        ctx, kb = self.ctx, self.kb
        shape = (tiles * ctx.shares.rows, ctx.shares.cols)
        shifts = kb.buffer("shifts", "UB", "fp32", shape) if ctx.offset is not None else None
        return kb.buffer("sums", "UB", "fp32", shape), shifts

    def pack(self, t: Expr, share: Share, p: Expr, into: tuple[Handle, Handle | None], base: Expr) -> None:
        """Add the groups of pack ``p`` of tile ``t`` to its totals, which begin at row ``base``."""
        ctx, kb, tile, (totals, shifts) = self.ctx, self.kb, self.tile, into
        groups = at(p * ctx.pack, Const(ctx.pack) if ctx.groups % ctx.pack == 0 else ragged(ctx.groups, ctx.pack, p))
        per_column = PerColumn.load(ctx, share, groups)
        per_group = None
        if ctx.row_sum is not None:
            per_group = kb.buffer("per_group", "UB", "fp32", (ctx.shares.rows, ctx.pack), tile.ub_ring)
            kb.copy(per_group[: share.rows, : groups.size],
                    ctx.row_sum.at(share.place.expert, share.tensor_rows(at(0, share.rows)), groups))
        with (
            kb.loop("j", 0, groups.size) as j, ctx.ring.consume_sum(),
            kb.tiles("r", share.rows, tile.merge_m) as rows,
        ):
            there = at(base + rows.start, rows.size), at(0, share.cols)
            total, scratch = self._combine(self._pieces(t, share, rows, p, j), per_column, j)
            scale = per_column.scale.at(j, share.cols)
            add_up(kb, p + j, totals[there], total, scale)
            if per_group is not None and per_column.offset is not None and shifts is not None:
                kb.op("mul", scratch, per_column.offset.at(j, share.cols), per_group[rows, j])
                add_up(kb, p + j, shifts[there], scratch, scale)

    def finish(self, share: Share, into: tuple[Handle, Handle | None], base: Expr) -> None:
        """Apply the row scale to finished totals and store them."""
        ctx, kb, tile, (totals, shifts) = self.ctx, self.kb, self.tile, into
        with kb.tiles("rf", share.rows, tile.merge_m) as rows:
            there = at(base + rows.start, rows.size), at(0, share.cols)
            per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 1), tile.ub_ring)[: rows.size, 0]
            assert ctx.row_scale is not None
            kb.copy(per_row, ctx.row_scale.at(share.place.expert, share.tensor_rows(rows), 0))
            kb.op("mul", totals[there], totals[there], per_row)
            if shifts is not None:
                kb.op("add", totals[there], totals[there], shifts[there])
            self._store(share, rows, totals[there])
