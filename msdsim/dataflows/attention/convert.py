"""``convert-int8`` and ``convert-int4`` attention: Vector makes the integer KV cache BF16, exactly and without its scales.

The kernel is that of ``dequant-*`` but for where the scales go, which is never the cache::

    per channel:  Q' = bf16(Q k_scale) once a row tile ;  y = (acc / l) v_scale
    per token:    S = (Q K^T) k_scale over the columns ;  P' = bf16(P v_scale) over the columns

so that a product and its rounding for every element of the cache become one for every element of Q and of y, or two for every
logit.  What is rounded is Q' (as K is in ``dequant-*``, unless scales are powers of two); V is not.
"""

from __future__ import annotations

from functools import partial

from msdsim.dataflows.attention import dequant
from msdsim.dataflows.attention.context import Components, Context, Operands, Rows
from msdsim.dataflows.attention.conversions import Conversions, Logits
from msdsim.dataflows.attention.dequant import CacheTiling, Stored
from msdsim.dataflows.attention.operands import Queries, SplitQueries, query_tensor
from msdsim.dataflows.attention.rings import ToVector
from msdsim.dataflows.attention.scales import CacheScales, TokenScales
from msdsim.dataflows.attention.work import AttentionShape, RowTile, Step
from msdsim.hardware.chip import Chip
from msdsim.ir import Handle, Kernel, Slice, at, minimum
from msdsim.units import ceil_div

#: UB bytes of an element of Q that is scaled before it all: as it comes and scaled (rings of 2), and in FP32.
QUERY_BYTES = 2 * 2 + 2 * 2 + 4


class ConvertedConversions(Conversions):
    """BF16 operands and FP32 sums, with the scales of the cache in Q, logits, P and output."""

    def __init__(self, ctx: Context, fused: bool = True) -> None:
        super().__init__(ctx)
        self.cache_scales = CacheScales(ctx, into_queries=fused)
        self.scale_output = self.cache_scales.of_output

    def open(self) -> None:
        self.cache_scales.open()

    def split_query(self, tile: RowTile, rows: Rows, x: Slice) -> Components:
        """One component: Q with the scales of K's channels."""
        self.cache_scales.into_query(x, tile)
        scaled = self.ctx.of_query("xh", "bf16", rows)
        self.ctx.kb.op("cast", scaled, x, round="rint")
        return Components([scaled])

    def scales(self, step: Step) -> TokenScales | None:
        return self.cache_scales.of_step(step)

    def logits(self, s: ToVector, step: Step, rows: Rows, scales: TokenScales | None) -> Logits:
        found = super().logits(s, step, rows, None)
        if scales is not None:
            self.ctx.kb.op("mul", found.values, found.values, scales.k)
        return found

    def weights(self, step: Step, rows: Rows, p: Logits, scales: TokenScales | None) -> Components:
        if scales is not None:
            self.ctx.kb.op("mul", p.values, p.values, scales.v)
        return super().weights(step, rows, p, None)


def kernel(problem: AttentionShape, chip: Chip, tile: CacheTiling, cache: str) -> Kernel:
    ctx = Context(f"attention_convert_{cache}", problem, chip, tile, Operands("bf16", "fp32"))
    stored = Stored(cache, scaled=False)
    if problem.scales == "token":
        return dequant.with_cache(ctx, tile, stored, Queries(ctx), ConvertedConversions(ctx))
    if not tile.fused:
        q, conversions = query_tensor(ctx), ConvertedConversions(ctx, fused=False)
        scaled = ctx.kb.tensor("q_scaled", "bf16", q.of.shape, "workspace")
        return dequant.with_cache(ctx, tile, stored, Queries(ctx, scaled), conversions,
                                  before=partial(_scale_queries, ctx, q, scaled, conversions.cache_scales))
    queries, conversions = SplitQueries(ctx, query_tensor(ctx)), ConvertedConversions(ctx)
    return dequant.with_cache(ctx, tile, stored, queries, conversions, partial(queries.split, conversions.split_query))


def query_rows(ub_bytes: int, dim: int) -> int:
    """Rows of Q that are scaled at a time before it all: a quarter of UB."""
    return max(1, ub_bytes // 4 // (QUERY_BYTES * dim))


def _scale_queries(ctx: Context, q: Handle, scaled: Handle, cache_scales: CacheScales) -> None:
    """All of Q with K's scales to GM: all AIVs, some rows of a KV head at a time."""
    kb, rows_of_head, ring = ctx.kb, ctx.work.rows_per_head, 2
    most = min(rows_of_head, query_rows(ctx.ub_bytes, ctx.dim))
    blocks = ceil_div(rows_of_head, most)
    with kb.each_aiv("qb", ctx.work.kv_head_count * blocks) as block:
        head, start = block // blocks, block % blocks * most
        rows = at(start, minimum(most, rows_of_head - start))
        xb, xh = (kb.buffer(name, "UB", "bf16", (most, ctx.dim), ring)[: rows.size, :] for name in ("xb", "xh"))
        xf = kb.buffer("xf", "UB", "fp32", (most, ctx.dim))[: rows.size, :]
        scale = kb.buffer("xs", "UB", "fp32", (1, ctx.dim), ring)[0, :]
        kb.copy(xb, q[head, rows, :])
        kb.copy(scale, cache_scales.k[ctx.kv_head(head), :])
        kb.op("cast", xf, xb)
        kb.op("mul", xf, xf, scale)
        kb.op("cast", xh, xf, round="rint")
        kb.copy(scaled[head, rows, :], xh)


dequant.register_cache("convert", kernel, "only converted to BF16 on Vector (exact), BF16 products, scales elsewhere")
