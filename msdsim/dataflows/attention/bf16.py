"""``bf16`` attention: 16-bit KV cache; the baseline of the quantized caches."""

from __future__ import annotations

from msdsim.dataflows.attention.context import Context, Operands
from msdsim.dataflows.attention.conversions import Conversions
from msdsim.dataflows.attention.operands import Cache, Queries, cache_tensors
from msdsim.dataflows.attention.pipeline import attention
from msdsim.dataflows.attention.tiling import AttentionTiling
from msdsim.dataflows.attention.work import AttentionShape
from msdsim.dataflows.base import register
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.hardware.chip import Chip
from msdsim.ir import Kernel

CUBE_FORMATS = ("bf16", "bf16")


def build(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Kernel:
    """Q, K and V as they are."""
    ctx = Context("attention_bf16", problem, chip, tile, Operands("bf16", "fp32"))
    queries, cache = Queries(ctx), Cache(ctx, cache_tensors(ctx, "bf16"))
    return attention(ctx, queries, cache, Conversions(ctx))


register("attention", "bf16", "BF16 KV cache, BF16 products", AttentionTiling,
         lambda problem, chip: refuse_rate(chip, CUBE_FORMATS), build)
