"""The end of a row tile on Vector: ``y = acc / l``, at once or, where the KV length is split, when all splits are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msdsim.dataflows.attention.context import Context, Rows
from msdsim.dataflows.attention.work import RowTile, Step
from msdsim.dataflows.vector.softmax import MergeScratch, RowState, merge_states, move
from msdsim.ir import At, Expr, Slice, at, ragged
from msdsim.units import ceil_div

#: Most rows that are merged at a time: of more, the latency of instructions is no longer felt.
MERGE_ROWS = 16
#: Applies the scales of V that apply once, at the end, to rows of a KV head; of a row tile while it is in the pipeline.
ScaleOutput: TypeAlias = Callable[[Slice, Expr, RowTile | None], None]


class Output:
    """``y``, and the states of the splits in GM if there are any."""

    def __init__(self, ctx: Context, scale: ScaleOutput | None) -> None:
        self.ctx, self.kb, self.scale = ctx, ctx.kb, scale
        kb, work = ctx.kb, ctx.work
        if work.splits > 1:
            # The splits of a row side by side: one transfer brings them all.
            self.split_acc = kb.tensor("part_acc", "fp32", (work.total_rows, work.splits * ctx.out_dim), "workspace")
            self.split_stats = kb.tensor("part_stats", "fp32", (work.total_rows, work.splits * 2), "workspace")
            kb.signal("parts_done", "barrier")
        self.y = kb.tensor("y", "bf16", (work.kv_head_count, work.rows_per_head, ctx.out_dim), "out")

    def finish(self, step: Step, rows: Rows, acc: Slice, state: RowState) -> None:
        """What becomes of ``acc`` after the last KV tile of a row tile or of its split."""
        if self.ctx.work.splits > 1:
            self._store_split(step, rows, acc, state)
            return
        self.kb.op("div", acc, acc, state.sum)
        self._store("yb", acc, step.head, at(step.row + rows.start, rows.size), self.ctx.tile.out_m, step.tile)

    def _store(self, name: str, acc: Slice, head: Expr, rows: At, most: int, tile: RowTile | None = None) -> None:
        """``y = bf16(acc)``, at most ``most`` rows."""
        kb, ctx = self.kb, self.ctx
        if self.scale is not None:
            self.scale(acc, head, tile)
        yb = kb.buffer(name, "UB", "bf16", (most, ctx.out_dim), ctx.tile.ub_ring)[: rows.size, :]
        kb.op("cast", yb, acc, round="rint")
        kb.copy(self.y[head, rows, :], yb)

    def _store_split(self, step: Step, rows: Rows, acc: Slice, state: RowState) -> None:
        """The state of one split to GM: acc, m and l."""
        kb, ctx, dim = self.kb, self.ctx, self.ctx.out_dim
        here = at(step.head * ctx.work.rows_per_head + step.row + rows.start, rows.size)
        # One buffer for both stores, so that one flag covers them.
        out = kb.buffer("part_out", "UB", "fp32", (ctx.tile.out_m, dim + 2), ctx.tile.ub_ring)
        move(kb, out[: rows.size, dim], state.top)
        move(kb, out[: rows.size, dim + 1], state.sum)
        move(kb, out[: rows.size, :dim], acc)
        kb.copy(self.split_stats[here, at(step.split * 2, 2)], out[: rows.size, at(dim, 2)])
        kb.copy(self.split_acc[here, at(step.split * dim, dim)], out[: rows.size, :dim])

    def merge_splits(self, taken: int) -> None:
        """Splits in ascending order, for some rows of a KV head at a time; ``taken`` bytes of UB belong to rings."""
        kb, ctx, work, splits, dim = self.kb, self.ctx, self.ctx.work, self.ctx.work.splits, self.ctx.out_dim
        kb.meet("parts_done")
        most = self._merge_rows(ctx.unit[1], taken)
        tiles = ceil_div(work.rows_per_head, most)
        with kb.each_aiv("m", work.kv_head_count * tiles) as m:
            head, row = m // tiles, m % tiles * most
            rows = at(row, ragged(work.rows_per_head, most, m % tiles))
            here, size = at(head * work.rows_per_head + row, rows.size), at(0, rows.size)
            # One buffer for both loads, so that one flag covers them.
            loaded = kb.buffer("loaded", "UB", "fp32", (most, splits * (dim + 2)), ctx.tile.ub_ring)
            kb.copy(loaded[size, at(splits * dim, splits * 2)], self.split_stats[here, :])
            kb.copy(loaded[size, :splits * dim], self.split_acc[here, :])
            states = [RowState(*(loaded[size, splits * dim + 2 * split + i] for i in range(2))) for split in range(splits)]
            accs = [loaded[size, at(split * dim, dim)] for split in range(splits)]
            scalars = [kb.buffer(name, "UB", "fp32", (most, 1))[size, 0] for name in ("mtop", "mw", "ml", "mone")]
            wide = [kb.buffer(name, "UB", "fp32", (most, dim))[size, :] for name in ("macc", "mpart")]
            scratch = MergeScratch(*scalars, *wide)
            merge_states(kb, states, accs, scratch)
            self._store("merged_y", scratch.acc, head, rows, most)

    def _merge_rows(self, units: int, taken: int) -> int:
        """Rows that an AIV merges at a time: as many as leave no AIV idle and UB room for them."""
        ctx, work, dim, ring = self.ctx, self.ctx.work, self.ctx.out_dim, self.ctx.tile.ub_ring
        row = 4 * ring * work.splits * (dim + 2) + (4 + 4 + 2 * ring) * dim + 4 * 32
        room = (ctx.ub_bytes - taken - 8 * dim - 1024) // row
        return max(1, min(MERGE_ROWS, work.rows_per_head, work.total_rows // units, room))
