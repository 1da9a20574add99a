"""Q split into components by Vector, ``preload`` steps before its row tile begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msdsim.dataflows.attention.context import Chunk, Components, Context, Rows, blocks_of
from msdsim.dataflows.attention.operands import LoadedQueries, Queries
from msdsim.dataflows.attention.work import RowTile, Step
from msdsim.formats.mx import block_count
from msdsim.ir import Expr, Handle, Slice, at

#: Components of rows of Q of a row tile, given in FP32.
SplitQuery: TypeAlias = Callable[[RowTile, Rows, Slice], Components]


class SplitQueries(Queries):
    """Components of Q through a ring in GM, in which a slot is a row tile that can be between its split and its use; with
    ``mx`` also their block scales."""

    def __init__(self, ctx: Context, q: Handle, mx: bool = False) -> None:
        self.ctx, self.q = ctx, q
        ring = (ctx.cores, ctx.states, ctx.cube_rows)
        self.elements = ctx.kb.tensor("qc", ctx.fmt, (*ring, ctx.dim), "workspace")
        self.scales = ctx.kb.tensor("q_scales", "e8m0", (*ring, block_count(ctx.dim)), "workspace") if mx else None
        ctx.kb.signal("components", "aiv_to_aic")

    def load(self, item: Expr) -> LoadedQueries:
        ctx, kb, depth = self.ctx, self.ctx.kb, self.ctx.tile.q_ring
        height, loads = ctx.work.row_tiles_per_item * ctx.cube_rows, []
        if self.scales is not None:
            sq1 = kb.buffer("sq1", "L1", "e8m0", (height, block_count(ctx.dim)), depth)
            loads.append((sq1, self.scales))
        q1 = kb.buffer("q1", "L1", ctx.fmt, (height, ctx.dim), depth)
        loads.insert(0, (q1, self.elements))
        with kb.when(item < ctx.work.items_of(kb.core)), ctx.row_tiles(item) as (second, tile):
            kb.wait_signal("components", "MTE2")
            rows = tile.rows * ctx.passes
            for buffer, ring in loads:
                whole = at(0, buffer.of.shape[1])
                kb.copy(ctx.of_item(buffer, second, rows, whole), ring[kb.core, tile.turn % ctx.states, :rows, whole])

        def of_step(step: Step) -> Chunk:
            return Chunk(lambda rows, cols: ctx.of_item(q1, step.second, rows.size, cols),
                         None if self.scales is None else
                         lambda rows, cols: ctx.of_item(sq1, step.second, rows.size, blocks_of(cols)))

        return of_step

    def split(self, split_query: SplitQuery, step: Step) -> None:
        """A stage of the AIV: this AIV's rows of the row tiles of a new item, ``out_m`` at a time."""
        ctx, kb = self.ctx, self.ctx.kb
        with kb.when((step.number % ctx.work.steps).equals(0)), ctx.row_tiles(step.number // ctx.work.steps) as (_, tile):
            with ctx.my_rows("i", tile, ctx.tile.out_m) as rows:
                xb = ctx.of_query("xb", "bf16", rows)
                xf = ctx.of_query("xf", "fp32", rows)
                kb.copy(xb, self.q[tile.head, at(tile.row + rows.start, rows.size), :])
                kb.op("cast", xf, xb)
                components = split_query(tile, rows, xf)
                for ring, pieces in ((self.elements, components.elements), (self.scales, components.scales)):
                    for n, piece in enumerate(pieces):
                        assert ring is not None
                        kb.copy(ring[kb.core, tile.turn % ctx.states, at(tile.rows * n + rows.start, rows.size), :], piece)
            kb.raise_signal("components", "MTE3")
