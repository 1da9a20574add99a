"""``bf16`` attention: 16-bit KV cache; the baseline of the quantized caches."""

from __future__ import annotations

from msdsim.dataflows.attention.context import Context, Operands
from msdsim.dataflows.attention.conversions import Conversions
from msdsim.dataflows.attention.operands import Cache, Queries, cache_tensors
from msdsim.dataflows.attention.pipeline import attention
from msdsim.dataflows.attention.tiling import AttentionTiling, Needs, UbTiles, arriving_bytes
from msdsim.dataflows.attention.work import AttentionShape
from msdsim.dataflows.base import register
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.hardware.chip import Chip
from msdsim.ir import Kernel
from msdsim.ir.ops.vector import FOLD_LANES

CUBE_FORMATS = ("bf16", "bf16")


def ub_bytes(t: UbTiles) -> int:
    """UB of the pipeline: rings of P (BF16), parts (FP32) and y (BF16); lanes and a scalar; the state; and S and O."""
    scaled = 4 * t.kv_tile if t.slots else 0
    tiles = t.vec_m * (scaled + t.ring * 2 * t.kv_tile + 4 * FOLD_LANES + 32) + t.out_m * t.ring * (4 + 2) * t.v_dim
    return tiles + arriving_bytes(1, t) + t.share * (4 * t.v_dim + 4 * 12) + 512


NEEDS = Needs("bf16", 1, ub_bytes, ("muls", "fold_max", "sub", "exp", "fold_add", "cast"), 16)


def build(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Kernel:
    """Q, K and V as they are."""
    ctx = Context("attention_bf16", problem, chip, tile, Operands("bf16", "fp32"))
    queries, cache = Queries(ctx), Cache(ctx, cache_tensors(ctx, "bf16"))
    return attention(ctx, queries, cache, Conversions(ctx))


register("attention", "bf16", "BF16 KV cache, BF16 products", AttentionTiling,
         lambda problem, chip: refuse_rate(chip, CUBE_FORMATS), build)
