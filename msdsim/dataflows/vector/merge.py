"""The merge of an MSD kernel: Vector combines the passes, applies the scales and rounds.

MX components carry their scales with them: ``y = C1 + C2 ...``.  Integer components, per channel::

    y = ((C1 + C2 / g ...) * row_scale [+ row_sum * offset]) * scale

Per group of K, with the row scale outside of the sum over groups::

    y = (sum over groups of (C1 + C2 / g ...) * scale) * row_scale [+ sum over groups of group_sum * offset * scale]
"""

from __future__ import annotations

from collections.abc import Callable

from msdsim.dataflows.cube.grid import Place
from msdsim.dataflows.cube.operands import ragged_of
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.ir.builder import At, Handle, at
from msdsim.ir.expr import Const, Expr
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Slice


def bytes_per_element(products: int, ub_ring: int) -> int:
    """UB bytes per element of a merge tile: products that are loaded, two FP32 tiles, the result (BF16)."""
    return 4 * products * ub_ring + 2 * 4 + 2 * ub_ring


def bytes_per_row(ub_ring: int) -> int:
    """UB bytes per row of a merge tile besides its elements: row scale and sum."""
    return ub_ring * 4 * 2


class Merge:
    """Emits the merge into the AIV part."""

    def __init__(self, ctx: MsdContext) -> None:
        self.ctx, self.kb, self.tile = ctx, ctx.kb, ctx.tile
        self.weights = ctx.kind.pass_weights(ctx.passes)

    def emit(self) -> None:
        """Merge what the group's AIC has multiplied, each AIV its share of a tile."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        kb.wait_signal("split_done", "MTE2")
        if ctx.k_parts > 1:
            kb.wait_signal("summed", "MTE2")
        else:
            with kb.loop("s", 0, tile.slots):
                kb.raise_signal("merged", ctx.reader)
        with kb.loop("t", kb.core, ctx.grid.tiles, ctx.cores) as t, ctx.grid.place(kb, t) as place:
            part = Share(ctx, t, place)
            if ctx.kind.mx:
                self._every_row(part, lambda r: self._mx_rows(part, r))
            elif ctx.group is None:
                per_column = _PerColumn(ctx, part, Const(0), Const(1))
                self._every_row(part, lambda r: self._channel_rows(part, r, per_column))
            else:
                self._grouped(part)

    def _every_row(self, part: Share, emit: Callable[[Expr], None]) -> None:
        """Merge tiles of rows of a finished product, then hand its ring slot back."""
        kb, in_parts = self.kb, self.ctx.k_parts > 1
        if not in_parts:
            kb.wait_signal("product", self.ctx.reader)
        with kb.loop("r", 0, ceil_expr(part.rows, self.tile.merge_m)) as r:
            emit(r)
        if not in_parts:
            kb.raise_signal("merged", self.ctx.reader)

    # MX: the Cube has applied all scales

    def _mx_rows(self, part: Share, r: Expr) -> None:
        start, size = r * self.tile.merge_m, ragged_of(part.rows, self.tile.merge_m, r)
        first, *others = self._pieces(part, start, size, Const(0), Const(0))
        for piece in others:
            self.kb.op("add", first, first, piece)
        self._store(part, start, size, first)

    def _pieces(self, part: Share, start: Expr, size: Expr, p: Expr, j: Expr) -> list[Slice]:
        """The products of the passes for some rows, in UB."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        slot = ctx.slot(part.t, p, j)
        if tile.direct:
            return [ctx.ring[kb.core, kb.sub, slot, at(number * ctx.share_rows + start, size), at(0, part.cols)]
                    for number in range(ctx.passes)]
        rows = ctx.k_parts * ctx.passes * tile.merge_m
        ci = kb.buffer("ci", "UB", ctx.sums, (rows, ctx.share_cols), tile.ub_ring)
        pieces = [ci[at(number * tile.merge_m, size), at(0, part.cols)] for number in range(ctx.k_parts * ctx.passes)]
        for number, piece in enumerate(pieces):
            k_part, component = divmod(number, ctx.passes)
            source = at(part.tile_rows * component + part.row + start, size), at(part.col, part.cols)
            if ctx.k_parts > 1:
                kb.copy(piece, ctx.ring[(part.t, k_part, *source)])
                continue
            kb.copy(piece, ctx.ring[(kb.core, slot, ctx.in_slot(part.t, j), *source)])
        for number, piece in enumerate(pieces[ctx.passes :]):
            # Sums of integers are exact in any order, those of MX products ascend over the parts.
            kb.op("add", pieces[number % ctx.passes], pieces[number % ctx.passes], piece)
        return pieces[: ctx.passes]

    def _store(self, part: Share, start: Expr, size: Expr, total: Slice) -> None:
        """Round and store finished rows."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        yb = kb.buffer("yb", "UB", "bf16", (tile.merge_m, ctx.share_cols), tile.ub_ring)[at(0, size), at(0, part.cols)]
        kb.op("cast", yb, total, round="rint")
        kb.copy(ctx.y.at(part.e, part.tensor_rows(start, size), part.tensor_cols()), yb)

    # Per channel

    def _channel_rows(self, part: Share, r: Expr, per_column: _PerColumn) -> None:
        ctx, kb, tile = self.ctx, self.kb, self.tile
        start, size = r * tile.merge_m, ragged_of(part.rows, tile.merge_m, r)
        assert ctx.row_scale is not None
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
        self._store(part, start, size, total)

    def _combine(self, part: Share, start: Expr, size: Expr, p: Expr, j: Expr, per_column: _PerColumn,
                 group: Expr) -> tuple[Slice, Slice]:
        """The passes of some rows put together, ``C1 w1 + C2 w2 ... [+ bias8]``, and a scratch tile."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        here = (at(0, size), at(0, part.cols))
        pieces = self._pieces(part, start, size, p, j)
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

    def _grouped(self, part: Share) -> None:
        """Sums over groups stay in UB while the packs of groups pass by."""
        kb, direct = self.kb, self.tile.direct
        sums = self.sums(1)
        with kb.loop("p", 0, self.ctx.packs) as p:
            if not direct:
                kb.wait_signal("product", "MTE2")
            self.pack(part, p, sums, Const(0))
            if not direct:
                kb.raise_signal("merged", "MTE2")
        self.finish(part, sums, Const(0))

    def sums(self, tiles: int) -> tuple[Handle, Handle | None]:
        """Buffers for what the groups add up to, and their offsets, of some tiles."""
        ctx, kb = self.ctx, self.kb
        shape = (tiles * ctx.share_rows, ctx.share_cols)
        shifts = kb.buffer("shifts", "UB", "fp32", shape) if ctx.offset is not None else None
        return kb.buffer("sums", "UB", "fp32", shape), shifts

    def pack(self, part: Share, p: Expr, into: tuple[Handle, Handle | None], base: Expr) -> None:
        """Add the groups of pack ``p`` to the sums of a tile, which begin at row ``base``."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        sums, shifts = into
        first = p * ctx.pack
        count = Const(ctx.pack) if ctx.groups % ctx.pack == 0 else ragged_of(ctx.groups, ctx.pack, p)
        per_column = _PerColumn(ctx, part, first, count)
        per_group = None
        if ctx.row_sum is not None:
            per_group = kb.buffer("per_group", "UB", "fp32", (ctx.share_rows, ctx.pack), tile.ub_ring)
            kb.copy(per_group[at(0, part.rows), at(0, count)],
                    ctx.row_sum.at(part.e, part.tensor_rows(Const(0), part.rows), at(first, count)))
        with kb.loop("j", 0, count) as j:
            if tile.direct:
                kb.wait_signal("product", "V")
            with kb.loop("r", 0, ceil_expr(part.rows, tile.merge_m)) as r:
                start, size = r * tile.merge_m, ragged_of(part.rows, tile.merge_m, r)
                there = (at(base + start, size), at(0, part.cols))
                total, scratch = self._combine(part, start, size, p, j, per_column, j)
                scale = per_column.scale[j, at(0, part.cols)]
                self._add_up(p + j, sums[there], total, scale)
                if per_group is not None and per_column.offset is not None and shifts is not None:
                    kb.op("mul", scratch, per_column.offset[j, at(0, part.cols)], per_group[at(start, size), j])
                    self._add_up(p + j, shifts[there], scratch, scale)
            if tile.direct:
                kb.raise_signal("merged", "V")

    def finish(self, part: Share, into: tuple[Handle, Handle | None], base: Expr) -> None:
        """Apply the row scale to finished sums and store them."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        sums, shifts = into
        with kb.loop("rf", 0, ceil_expr(part.rows, tile.merge_m)) as r:
            start, size = r * tile.merge_m, ragged_of(part.rows, tile.merge_m, r)
            there = (at(base + start, size), at(0, part.cols))
            per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 1), tile.ub_ring)[at(0, size), 0]
            assert ctx.row_scale is not None
            kb.copy(per_row, ctx.row_scale.at(part.e, part.tensor_rows(start, size), 0))
            kb.op("mul", sums[there], sums[there], per_row)
            if shifts is not None:
                kb.op("add", sums[there], sums[there], shifts[there])
            self._store(part, start, size, sums[there])

    def _add_up(self, number: Expr, into: Slice, value: Slice, scale: Slice) -> None:
        """``into += value * scale``; the first product starts the sum."""
        kb = self.kb
        with kb.when(number.equals(0)):
            kb.op("mul", into, value, scale)
        with kb.when(number > 0):
            kb.op("mul", value, value, scale)
            kb.op("add", into, into, value)


class Share:
    """What this AIV merges of output tile ``t``."""

    def __init__(self, ctx: MsdContext, t: Expr, place: Place) -> None:
        self.ctx, self.t, self.e, self.first, self.nt, self.tile_rows = ctx, t, place.expert, place.row, place.nt, place.rows
        self.row, self.rows, self.col, self.cols = ctx.merge_share(place.rows, place.cols, ctx.kb.sub)

    def tensor_rows(self, start: Expr, size: Expr) -> At:
        """Rows of y from ``start`` of the share."""
        return at(self.first + self.row + start, size)

    def tensor_cols(self) -> At:
        """Columns of y."""
        return at(self.nt * self.ctx.tile.base_n + self.col, self.cols)


class _PerColumn:
    """Scales, offsets and the constant of nibbles in UB, one row per group."""

    def __init__(self, ctx: MsdContext, part: Share, first: Expr, count: Expr) -> None:
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

    def __getitem__(self, index: tuple[Expr | int, At]) -> Slice:
        row, cols = index
        return self.buffer[row + self.start, cols]
