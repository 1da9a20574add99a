"""The merge of an MSD kernel: Vector combines the passes, applies the scales and rounds.

MX components carry their scales with them: ``y = C1 + C2 ...``.  Integer components, per channel::

    y = ((C1 + C2 / g ...) * row_scale [+ row_sum * offset]) * scale

Per group of K, with the row scale outside of the sum over groups::

    y = (sum over groups of (C1 + C2 / g ...) * scale) * row_scale [+ sum over groups of group_sum * offset * scale]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.vector.add_parts import store
from msdsim.dataflows.vector.components import combine
from msdsim.ir import At, Const, Expr, Handle, Slice, at, ragged


def bytes_per_element(products: Any, ub_ring: Any) -> Any:
    """UB bytes per element of a merge tile: products that are loaded, two FP32 tiles, the result (BF16)."""
    return 4 * products * ub_ring + 2 * 4 + 2 * ub_ring


def bytes_per_row(ub_ring: Any) -> Any:
    """UB bytes per row of a merge tile besides its elements: row scale and sum."""
    return ub_ring * 4 * 2


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
    def load(cls, ctx: MsdContext, share: Share, first: Expr, count: Expr) -> PerColumn:
        """Those of ``count`` groups from ``first``, for the columns of a share."""
        tensors = [item for item in (ctx.scale, ctx.offset, ctx.bias8) if item is not None]
        # One buffer for all of them, so that one flag covers their loads.
        buffer = ctx.kb.buffer("per_column", "UB", "fp32", (len(tensors) * ctx.pack, ctx.share_cols), ctx.tile.ub_ring)
        rows: dict[Operand | None, _Rows] = {}
        for number, tensor in enumerate(tensors):
            start = number * ctx.pack
            ctx.kb.copy(buffer[at(start, count), :share.cols],
                        tensor.at(share.e, at(first, count), share.tensor_cols()))
            rows[tensor] = _Rows(buffer, start)
        return cls(rows[ctx.scale], rows.get(ctx.offset), rows.get(ctx.bias8))


class Merge:
    """The stages of the merge, on the AIVs."""

    def __init__(self, ctx: MsdContext) -> None:
        self.ctx, self.kb, self.tile = ctx, ctx.kb, ctx.tile
        self.weights = ctx.scheme.pass_weights(ctx.passes)

    @contextmanager
    def row_tiles(self, share: Share, var: str = "r") -> Iterator[tuple[Expr, Expr]]:
        """Loop over the rows of a share, ``merge_m`` at a time: first row and rows."""
        with self.kb.tiles(var, share.rows, self.tile.merge_m) as r:
            yield r.start, r.size

    def per_column(self, share: Share) -> PerColumn | None:
        """Numbers per column of a tile whose scales are per channel; MX products have theirs in them."""
        return None if self.ctx.scheme.mx else PerColumn.load(self.ctx, share, Const(0), Const(1))

    def rows(self, share: Share, start: Expr, size: Expr, per_column: PerColumn | None) -> None:
        """Rows of a product to rows of y."""
        if per_column is not None:
            self._store(share, start, size, self._channel_rows(share, start, size, per_column))
            return
        # The Cube has applied all scales.
        first, *others = self._pieces(share, start, size, Const(0), Const(0))
        for piece in others:
            self.kb.op("add", first, first, piece)
        self._store(share, start, size, first)

    def _pieces(self, share: Share, start: Expr, size: Expr, p: Expr, j: Expr) -> list[Slice]:
        """The products of the passes for some rows, in UB."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        slot = ctx.slot(share.t, p, j)
        if tile.direct:
            return [ctx.products[kb.core, kb.sub, slot, at(number * ctx.share_rows + start, size), :share.cols]
                    for number in range(ctx.passes)]
        rows = ctx.k_parts * ctx.passes * tile.merge_m
        ci = kb.buffer("ci", "UB", ctx.sums, (rows, ctx.share_cols), tile.ub_ring)
        pieces = [ci[at(number * tile.merge_m, size), :share.cols] for number in range(ctx.k_parts * ctx.passes)]
        for number, piece in enumerate(pieces):
            k_part, component = divmod(number, ctx.passes)
            source = at(share.tile_rows * component + share.row + start, size), at(share.col, share.cols)
            if ctx.k_parts > 1:
                kb.copy(piece, ctx.products[(share.t, k_part, *source)])
                continue
            kb.copy(piece, ctx.products[(kb.core, slot, ctx.in_slot(share.t, j), *source)])
        for number, piece in enumerate(pieces[ctx.passes :]):
            # Sums of integers are exact in any order, those of MX products ascend over the parts.
            kb.op("add", pieces[number % ctx.passes], pieces[number % ctx.passes], piece)
        return pieces[: ctx.passes]

    def _store(self, share: Share, start: Expr, size: Expr, total: Slice) -> None:
        """Round and store finished rows."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        there = ctx.y.at(share.e, share.tensor_rows(start, size), share.tensor_cols())
        store(kb, ctx.problem, there, total, (tile.merge_m, ctx.share_cols), tile.ub_ring)

    # Per channel

    def _channel_rows(self, share: Share, start: Expr, size: Expr, per_column: PerColumn) -> Slice:
        ctx, kb, tile = self.ctx, self.kb, self.tile
        assert ctx.row_scale is not None
        # One buffer per kind of load, so that one flag covers all of its pieces.
        per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 2), tile.ub_ring)
        rows = share.tensor_rows(start, size)
        kb.copy(per_row[:size, 0], ctx.row_scale.at(share.e, rows, 0))
        if ctx.row_sum is not None:
            kb.copy(per_row[:size, 1], ctx.row_sum.at(share.e, rows, 0))
        total, scratch = self._combine(share, start, size, Const(0), Const(0), per_column, Const(0))
        kb.op("mul", total, total, per_row[:size, 0])
        if per_column.offset is not None:
            kb.op("mul", scratch, per_column.offset.at(0, share.cols), per_row[:size, 1])
            kb.op("add", total, total, scratch)
        kb.op("mul", total, total, per_column.scale.at(0, share.cols))
        return total

    def _combine(self, share: Share, start: Expr, size: Expr, p: Expr, j: Expr, per_column: PerColumn,
                 group: Expr) -> tuple[Slice, Slice]:
        """The passes of some rows put together, ``C1 w1 + C2 w2 ... [+ bias8]``, and a scratch tile."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        here = (at(0, size), at(0, share.cols))
        pieces = self._pieces(share, start, size, p, j)
        total = kb.buffer("total", "UB", "fp32", (tile.merge_m, ctx.share_cols))[here]
        scratch = kb.buffer("part", "UB", "fp32", (tile.merge_m, ctx.share_cols))[here]
        combine(kb, self.weights, pieces, total, scratch)
        if per_column.bias8 is not None:
            kb.op("add", total, total, per_column.bias8.at(group, share.cols))
        return total, scratch

    # Per group

    def sums(self, tiles: int) -> tuple[Handle, Handle | None]:
        """Buffers for what the groups add up to, and their offsets, of some tiles."""
        ctx, kb = self.ctx, self.kb
        shape = (tiles * ctx.share_rows, ctx.share_cols)
        shifts = kb.buffer("shifts", "UB", "fp32", shape) if ctx.offset is not None else None
        return kb.buffer("sums", "UB", "fp32", shape), shifts

    def pack(self, share: Share, p: Expr, into: tuple[Handle, Handle | None], base: Expr) -> None:
        """Add the groups of pack ``p`` to the sums of a tile, which begin at row ``base``."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        sums, shifts = into
        first = p * ctx.pack
        count = Const(ctx.pack) if ctx.groups % ctx.pack == 0 else ragged(ctx.groups, ctx.pack, p)
        per_column = PerColumn.load(ctx, share, first, count)
        per_group = None
        if ctx.row_sum is not None:
            per_group = kb.buffer("per_group", "UB", "fp32", (ctx.share_rows, ctx.pack), tile.ub_ring)
            kb.copy(per_group[:share.rows, :count],
                    ctx.row_sum.at(share.e, share.tensor_rows(Const(0), share.rows), at(first, count)))
        with (
            kb.loop("j", 0, count) as j, ctx.ring.consume() if tile.direct else nullcontext(),
            self.row_tiles(share) as (start, size),
        ):
            there = (at(base + start, size), at(0, share.cols))
            total, scratch = self._combine(share, start, size, p, j, per_column, j)
            scale = per_column.scale.at(j, share.cols)
            self._add_up(p + j, sums[there], total, scale)
            if per_group is not None and per_column.offset is not None and shifts is not None:
                kb.op("mul", scratch, per_column.offset.at(j, share.cols), per_group[at(start, size), j])
                self._add_up(p + j, shifts[there], scratch, scale)

    def finish(self, share: Share, into: tuple[Handle, Handle | None], base: Expr) -> None:
        """Apply the row scale to finished sums and store them."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        sums, shifts = into
        with self.row_tiles(share, "rf") as (start, size):
            there = (at(base + start, size), at(0, share.cols))
            per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 1), tile.ub_ring)[:size, 0]
            assert ctx.row_scale is not None
            kb.copy(per_row, ctx.row_scale.at(share.e, share.tensor_rows(start, size), 0))
            kb.op("mul", sums[there], sums[there], per_row)
            if shifts is not None:
                kb.op("add", sums[there], sums[there], shifts[there])
            self._store(share, start, size, sums[there])

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

    def __init__(self, ctx: MsdContext, t: Expr, place: OutputTile) -> None:
        self.ctx, self.t, self.e, self.first, self.nt, self.tile_rows = ctx, t, place.expert, place.row, place.nt, place.rows
        self.row, self.rows, self.col, self.cols = ctx.merge_share(place.rows, place.cols, ctx.kb.sub)

    def tensor_rows(self, start: Expr, size: Expr) -> At:
        """Rows of y from ``start`` of the share."""
        return at(self.first + self.row + start, size)

    def tensor_cols(self) -> At:
        """Columns of y."""
        return at(self.nt * self.ctx.tile.base_n + self.col, self.cols)
