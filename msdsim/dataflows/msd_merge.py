"""The merge of an MSD kernel: Vector combines the passes, applies the scales and rounds.

Per channel::

    y = ((C1 + C2 / g ...) * row_scale [+ row_sum * offset]) * scale

Per group of K, with the row scale outside of the sum over groups::

    y = (sum over groups of (C1 + C2 / g ...) * scale) * row_scale [+ sum over groups of group_sum * offset * scale]
"""

from __future__ import annotations

from msdsim.dataflows.gemm import ragged_of
from msdsim.dataflows.msd_context import MsdContext
from msdsim.ir.builder import Handle, at
from msdsim.ir.expr import Const, Expr
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Slice


def bytes_per_element(passes: int, ub_ring: int) -> int:
    """UB bytes per element of a merge tile: components (INT32), two FP32 tiles, the result (BF16)."""
    return 4 * passes * ub_ring + 2 * 4 + 2 * ub_ring


def bytes_per_row(ub_ring: int, pack: int) -> int:
    """UB bytes per row of a merge tile besides its elements: row scale and sums."""
    return ub_ring * 4 * (1 + pack) + 64


class Merge:
    """Emits the merge into the AIV part."""

    def __init__(self, ctx: MsdContext) -> None:
        self.ctx, self.kb, self.tile = ctx, ctx.kb, ctx.tile
        self.weights = ctx.kind.pass_weights(ctx.passes)

    def emit(self) -> None:
        """Merge what the group's AIC has multiplied, each AIV its share of a tile."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        kb.wait_signal("split_done", "MTE2")
        with kb.loop("s", 0, tile.slots):
            kb.raise_signal("merged", "MTE2")
        with kb.loop("t", kb.core, ctx.grid.tiles, ctx.cores) as t:
            part = _Share(ctx, t)
            if ctx.group is None:
                per_column = _PerColumn(ctx, part, Const(0), Const(1))
                kb.wait_signal("product", "MTE2")
                with kb.loop("r", 0, ceil_expr(part.rows, tile.merge_m)) as r:
                    self._channel_rows(part, r, per_column)
                kb.raise_signal("merged", "MTE2")
            else:
                self._grouped(part)

    # Per channel

    def _channel_rows(self, part: _Share, r: Expr, per_column: _PerColumn) -> None:
        ctx, kb, tile = self.ctx, self.kb, self.tile
        start, size = r * tile.merge_m, ragged_of(part.rows, tile.merge_m, r)
        here = (at(0, size), at(0, part.cols))
        # One buffer per kind of load, so that one flag covers all of its pieces.
        per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 2), tile.ub_ring)
        rows = part.tensor_rows(start, size)
        kb.copy(per_row[at(0, size), 0], ctx.row_scale.at(part.e, rows, 0))
        if ctx.row_sum is not None:
            kb.copy(per_row[at(0, size), 1], ctx.row_sum.at(part.e, rows, 0))
        total, scratch = self._combine(part, start, size, Const(0), Const(0), per_column, Const(0))
        kb.op("mul", total, total, per_row[at(0, size), 0])
        if per_column.offset is not None:
            kb.op("mul", scratch, per_column.offset[0, at(0, part.cols)], per_row[at(0, size), 1])
            kb.op("add", total, total, scratch)
        kb.op("mul", total, total, per_column.scale[0, at(0, part.cols)])
        yb = kb.buffer("yb", "UB", "bf16", (tile.merge_m, ctx.share_cols), tile.ub_ring)[here]
        kb.op("cast", yb, total, round="rint")
        kb.copy(ctx.y.at(part.e, rows, part.tensor_cols()), yb)

    def _combine(self, part: _Share, start: Expr, size: Expr, p: Expr, j: Expr, per_column: _PerColumn,
                 group: Expr) -> tuple[Slice, Slice]:
        """The passes of some rows put together, ``C1 w1 + C2 w2 ... [+ bias8]``, and a scratch tile."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        here = (at(0, size), at(0, part.cols))
        ci = kb.buffer("ci", "UB", "int32", (ctx.passes * tile.merge_m, ctx.share_cols), tile.ub_ring)
        pieces = [ci[at(number * tile.merge_m, size), at(0, part.cols)] for number in range(ctx.passes)]
        for number, piece in enumerate(pieces):
            source = at(part.tile_rows * number + part.row + start, size), at(part.col, part.cols)
            kb.copy(piece, ctx.ring[(kb.core, ctx.slot(part.t, p), j, *source)])
        total = kb.buffer("total", "UB", "fp32", (tile.merge_m, ctx.share_cols))[here]
        scratch = kb.buffer("part", "UB", "fp32", (tile.merge_m, ctx.share_cols))[here]
        for number, (piece, weight) in enumerate(zip(pieces, self.weights, strict=True)):
            into = scratch if number else total
            kb.op("cast", into, piece)
            if weight != 1.0:
                kb.op("muls", into, into, scalar=weight)
            if number:
                kb.op("add", total, total, scratch)
        if per_column.bias8 is not None:
            kb.op("add", total, total, per_column.bias8[group, at(0, part.cols)])
        return total, scratch

    # Per group

    def _grouped(self, part: _Share) -> None:
        """Sums over groups stay in UB while the packs of groups pass by."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        shape = (ctx.share_rows, ctx.share_cols)
        sums = kb.buffer("sums", "UB", "fp32", shape)
        shifts = kb.buffer("shifts", "UB", "fp32", shape) if ctx.offset is not None else None
        with kb.loop("p", 0, ctx.packs) as p:
            first = p * ctx.pack
            count = Const(ctx.pack) if ctx.groups % ctx.pack == 0 else ragged_of(ctx.groups, ctx.pack, p)
            per_column = _PerColumn(ctx, part, first, count)
            kb.wait_signal("product", "MTE2")
            with kb.loop("r", 0, ceil_expr(part.rows, tile.merge_m)) as r:
                start, size = r * tile.merge_m, ragged_of(part.rows, tile.merge_m, r)
                there = (at(start, size), at(0, part.cols))
                per_group = None
                if ctx.row_sum is not None:
                    per_group = kb.buffer("per_group", "UB", "fp32", (tile.merge_m, ctx.pack), tile.ub_ring)
                    kb.copy(per_group[at(0, size), at(0, count)],
                            ctx.row_sum.at(part.e, part.tensor_rows(start, size), at(first, count)))
                with kb.loop("j", 0, count) as j:
                    total, scratch = self._combine(part, start, size, p, j, per_column, j)
                    scale = per_column.scale[j, at(0, part.cols)]
                    self._add_up(p + j, sums[there], total, scale)
                    if per_group is not None and per_column.offset is not None and shifts is not None:
                        kb.op("mul", scratch, per_column.offset[j, at(0, part.cols)], per_group[at(0, size), j])
                        self._add_up(p + j, shifts[there], scratch, scale)
            kb.raise_signal("merged", "MTE2")
        with kb.loop("rf", 0, ceil_expr(part.rows, tile.merge_m)) as r:
            start, size = r * tile.merge_m, ragged_of(part.rows, tile.merge_m, r)
            there = (at(start, size), at(0, part.cols))
            per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 1), tile.ub_ring)[at(0, size), 0]
            rows = part.tensor_rows(start, size)
            kb.copy(per_row, ctx.row_scale.at(part.e, rows, 0))
            kb.op("mul", sums[there], sums[there], per_row)
            if shifts is not None:
                kb.op("add", sums[there], sums[there], shifts[there])
            yb = kb.buffer("yb", "UB", "bf16", (tile.merge_m, ctx.share_cols), tile.ub_ring)[at(0, size), at(0, part.cols)]
            kb.op("cast", yb, sums[there], round="rint")
            kb.copy(ctx.y.at(part.e, rows, part.tensor_cols()), yb)

    def _add_up(self, number: Expr, into: Slice, value: Slice, scale: Slice) -> None:
        """``into += value * scale``; the first product starts the sum."""
        kb = self.kb
        with kb.when(number.equals(0)):
            kb.op("mul", into, value, scale)
        with kb.when(number > 0):
            kb.op("mul", value, value, scale)
            kb.op("add", into, into, value)


class _Share:
    """What this AIV merges of output tile ``t``."""

    def __init__(self, ctx: MsdContext, t: Expr) -> None:
        self.ctx, self.t = ctx, t
        self.e, self.mt, self.nt, self.tile_rows, tile_cols = ctx.place(t)
        self.row, self.rows, self.col, self.cols = ctx.merge_share(self.tile_rows, tile_cols)

    def tensor_rows(self, start: Expr, size: Expr):  # type: ignore[no-untyped-def]
        """Rows of y from ``start`` of the share."""
        return at(self.mt * self.ctx.tile_rows + self.row + start, size)

    def tensor_cols(self):  # type: ignore[no-untyped-def]
        """Columns of y."""
        return at(self.nt * self.ctx.tile.base_n + self.col, self.cols)


class _PerColumn:
    """Scales, offsets and the constant of nibbles in UB, one row per group."""

    def __init__(self, ctx: MsdContext, part: _Share, first: Expr, count: Expr) -> None:
        self.ctx, self.part, self.first, self.count = ctx, part, first, count
        kb = ctx.kb
        tensors = [item for item in (ctx.scale, ctx.offset, ctx.bias8) if item is not None]
        # One buffer for all of them, so that one flag covers their loads.
        buffer = kb.buffer("per_column", "UB", "fp32", (len(tensors) * ctx.pack, ctx.share_cols), ctx.tile.ub_ring)
        rows = []
        for number, tensor in enumerate(tensors):
            start = number * ctx.pack
            kb.copy(buffer[at(start, count), at(0, part.cols)], tensor.at(part.e, at(first, count), part.tensor_cols()))
            rows.append(_Rows(buffer, start))
        found = iter(rows)
        self.scale = next(found)
        self.offset = next(found) if ctx.offset is not None else None
        self.bias8 = next(found) if ctx.bias8 is not None else None


class _Rows:
    """Some rows of a buffer, counted from the first of them."""

    def __init__(self, buffer: Handle, start: int) -> None:
        self.buffer, self.start = buffer, start

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        row, cols = index
        return self.buffer[row + self.start, cols]
