"""Scales of an integer KV cache that is multiplied as it is: K's go into Q or the logits, V's into P or the output."""

from __future__ import annotations

from typing import NamedTuple

from msdsim.dataflows.attention.context import Context
from msdsim.dataflows.attention.output import ScaleOutput
from msdsim.dataflows.attention.work import RowTile, Step
from msdsim.dataflows.vector.softmax import move
from msdsim.ir import Expr, Handle, Slice, at


class TokenScales(NamedTuple):
    """Scales of K and of V for the columns of a step."""

    k: Slice
    v: Slice


class CacheScales:
    """Per channel: K's scales meet Q once a row tile, V's the output once.  Per token: those of a step are loaded with it."""

    def __init__(self, ctx: Context, into_queries: bool = True) -> None:
        self.ctx, self.kb, self.into_queries = ctx, ctx.kb, into_queries
        self.per_channel = ctx.problem.scales == "channel"
        tokens, heads = (ctx.work.kv_head_count, ctx.work.kv), ctx.problem.kv_heads
        shapes = [(heads, width) if self.per_channel else tokens for width in (ctx.dim, ctx.out_dim)]
        self.k = ctx.kb.tensor("k_scale", "fp32", shapes[0], "in")
        self.v = self.k if ctx.shared else ctx.kb.tensor("v_scale", "fp32", shapes[1], "in")
        #: Scales of V that apply once, at the end.
        self.of_output: ScaleOutput | None = self._into_output if self.per_channel else None

    def open(self) -> None:
        """V's scales of every row tile, kept from where K's are loaded until the output needs them."""
        ctx = self.ctx
        # The output comes preload steps behind the softmax, and that preload steps behind the queries.
        self.tiles = (2 * ctx.tile.preload + 1) * ctx.work.row_tiles_per_item
        self.kept = ctx.kb.buffer("v_channels", "UB", "fp32", (self.tiles, ctx.out_dim)) if self._keeps else None

    @property
    def _keeps(self) -> bool:
        """Whether the pipeline loads scales for Q and ends with an output, and not with the state of a split."""
        return self.per_channel and self.into_queries and self.ctx.work.splits == 1

    def into_query(self, x: Slice, tile: RowTile) -> None:
        """Scales of the channels of K into FP32 rows of Q."""
        ctx, kb = self.ctx, self.kb
        # Both scales in one buffer, so that one flag covers both loads.
        sources = (self.k,) if ctx.shared or self.kept is None else (self.k, self.v)
        loaded = kb.buffer("channel_scales", "UB", "fp32", (len(sources), max(ctx.dim, ctx.out_dim)))
        for number, source in enumerate(sources):
            width = source.of.shape[-1]
            kb.copy(loaded[number, :width], source[ctx.kv_head(tile.head), :width])
        if self.kept is not None:
            move(kb, self._of_tile(self.kept, tile), loaded[len(sources) - 1, : ctx.out_dim])
        kb.op("mul", x, x, loaded[0, : ctx.dim])

    def _of_tile(self, kept: Handle, tile: RowTile) -> Slice:
        return kept[tile.turn % self.tiles, :]

    def of_step(self, step: Step) -> TokenScales | None:
        """The scales of a step's tokens, loaded."""
        ctx, kb = self.ctx, self.kb
        if self.per_channel:
            return None
        # Both scales in one buffer, so that one flag covers both loads.
        sources = (self.k,) if ctx.shared else (self.k, self.v)
        buffer = kb.buffer("token_scales", "UB", "fp32", (len(sources), ctx.work.kv_tile), ctx.tile.ub_ring)
        rows = [buffer[row, : step.cols] for row in range(len(sources))]
        for target, source in zip(rows, sources, strict=True):
            kb.copy(target, source[step.head, at(step.start, step.cols)])
        return TokenScales(rows[0], rows[-1])

    def _into_output(self, acc: Slice, head: Expr, tile: RowTile | None) -> None:
        if tile is not None and self.kept is not None:
            self.kb.op("mul", acc, acc, self._of_tile(self.kept, tile))
            return
        scale = self.kb.buffer("vs", "UB", "fp32", (1, self.ctx.out_dim))[0, :]
        self.kb.copy(scale, self.v[self.ctx.kv_head(head), : self.ctx.out_dim])
        self.kb.op("mul", acc, acc, scale)
