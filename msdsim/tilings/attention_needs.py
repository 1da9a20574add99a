"""What attention keeps in UB, and what Vector does over its logits and its cache, as the choice of tilings reckons with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msdsim.formats.msd import MSD_MXFP4, MsdSpec
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.ir.vector_work import AttentionMethod, Work
from msdsim.units import ceil_div

#: Bytes of UB per element of a dequantization tile: integers (ring 2), FP16, FP32, BF16 (ring 2).
ELEMENT_BYTES = 2 + 2 + 4 + 2 * 2
#: Row tiles in the pipeline at a time, of pairs with two steps between their products.
MOST_TILES = 10


@dataclass(frozen=True)
class UbTiles:
    """Sizes of what an AIV keeps in UB: its ``share`` of the rows of a row tile, ``vec_m`` rows of S and ``out_m`` of O and Q
    at a time, ``slots`` whole shares of S and O where they lie in UB, else 0, the ``ring`` of what is copied, and the row tiles
    that the pipeline has ``under_way`` from their queries to their output."""

    share: int
    vec_m: int
    out_m: int
    kv_tile: int
    head_dim: int
    v_dim: int
    slots: int
    ring: int = 2
    under_way: int = MOST_TILES


@dataclass(frozen=True)
class Needs:
    """What a dataflow keeps on chip: formats and passes of the Cube, and UB bytes of a tiling."""

    fmt: str
    passes: int
    ub_bytes: Callable[[UbTiles], int]
    #: Vector instructions that go over all logits of a step.
    vector_ops: tuple[str, ...]
    #: Bits of an element of the cache, and Vector instructions over every such element (all 32 bits wide).
    cache_bits: int
    cache_ops: tuple[str, ...] = ()


def arriving_bytes(passes: int, t: UbTiles) -> int:
    """UB bytes of S and O (4 bytes an element): ``slots`` of them whole, or rings of tiles."""
    if t.slots:
        return 4 * passes * t.slots * t.share * (t.kv_tile + t.v_dim)
    return 4 * passes * t.ring * (t.vec_m * t.kv_tile + t.out_m * t.v_dim)


def bf16_bytes(t: UbTiles) -> int:
    """UB of the pipeline: rings of P (BF16), parts (FP32) and y (BF16); lanes and a scalar; the state; and S and O."""
    scaled = 4 * t.kv_tile if t.slots else 0
    tiles = t.vec_m * (scaled + t.ring * 2 * t.kv_tile + 4 * FOLD_LANES + 32) + t.out_m * t.ring * (4 + 2) * t.v_dim
    return tiles + arriving_bytes(1, t) + t.share * (4 * t.v_dim + 4 * 12) + 512


def _names(work: Work) -> tuple[str, ...]:
    return tuple(op for op, _ in work)


BF16 = Needs("bf16", 1, bf16_bytes, _names(AttentionMethod("bf16", None, 1).of_logits(token=False)[0]), 16)


def scale_bytes(t: UbTiles) -> int:
    """Scales of tokens in a ring; or of channels as loaded, and V's of the row tiles between their queries and their output."""
    return max(t.ring * 2 * 4 * t.kv_tile, 4 * (2 * max(t.head_dim, t.v_dim) + t.under_way * t.v_dim))


def room_beside(chip: Chip) -> int:
    """UB bytes that are kept for dequantizing beside the softmax: a quarter, and then whatever else is left."""
    return chip.buffers.ub_bytes // 4


def dequant_needs(chip: Chip, cache: str, fused: bool, pipeline: Callable[[UbTiles], int] = bf16_bytes,
                  converted: bool = False) -> Needs:
    """``pipeline`` is what the attention itself needs of UB; the cache is made BF16, or only ``converted``."""
    def fused_bytes(t: UbTiles) -> int:
        return pipeline(t) + room_beside(chip)

    # int8 and int4 become FP16 at twice the elements per repeat of the others, which the estimate leaves out.
    return Needs("bf16", 1, fused_bytes if fused else pipeline, BF16.vector_ops, FORMATS[cache].bits,
                 _names(AttentionMethod(cache, None, 1, converted).of_cache()) if fused else ())


def convert_bytes(t: UbTiles) -> int:
    """As of BF16, with Q as it comes, in FP32 and scaled, and the scales."""
    return bf16_bytes(t) + t.out_m * (2 + 4 + 2) * t.head_dim + scale_bytes(t)


def unfused_convert_bytes(t: UbTiles) -> int:
    """As of BF16, with the scales of tokens or of V's channels: Q was scaled before."""
    return bf16_bytes(t) + max(t.ring * 2 * 4 * t.kv_tile, 4 * t.v_dim)


def convert_needs(chip: Chip, cache: str, fused: bool) -> Needs:
    return dequant_needs(chip, cache, fused, convert_bytes if fused else unfused_convert_bytes, converted=True)


#: Vector instructions over all logits besides those of the softmax: merge, split of two passes and of each further one.
_SOFTMAX = ("fold_max", "sub", "exp", "fold_add")
_MERGE = ("cast", "muls", "add")
_SPLIT = ("cast", "cast", "cast", "sub", "muls")


def msd_needs(spec: MsdSpec) -> Needs:
    """Of integer components."""
    component = spec.format.bits / 8

    def ub_bytes(t: UbTiles) -> int:
        """A ring of P's components, two FP32 tiles and one FP16; Q's split and O's merge; state; and S and O of all passes."""
        logits = t.kv_tile * (t.ring * component * spec.passes + 4 + 4 + 2)
        q = t.head_dim * (2 + 4 + 4 + 2 + component * spec.passes)
        o = t.v_dim * (4 + 4 + 4 + t.ring * 2 + t.ring * 4)
        rows = t.vec_m * (logits + 2 * 4 * FOLD_LANES + 4 * 32) + t.out_m * (q + o + 4 * FOLD_LANES + 4 * 32)
        state = t.share * (4 * t.v_dim + 4 * 24)
        return int(rows) + arriving_bytes(spec.passes, t) + state + scale_bytes(t) + 1024

    ops = ("cast", "mul", *_MERGE * (spec.passes - 1), *_SOFTMAX, "muls", *_SPLIT * spec.passes)
    return Needs(spec.target, spec.passes, ub_bytes, ops, spec.format.bits)


def mxfp4_bytes(t: UbTiles) -> int:
    """A ring of P's components, two FP32 tiles and one BF16, block maxima; Q's split, O's sum; state; S and O of all passes."""
    passes = MSD_MXFP4.passes
    per_block = (4 + 2 * 2 * passes) / MX_BLOCK
    logits = t.kv_tile * (t.ring * passes / 2 + 4 + 4 + 2 + per_block)
    q = t.head_dim * (2 + 4 + 4 + 2 + passes / 2 + per_block)
    o = t.v_dim * (4 + t.ring * 2 + t.ring * 4)
    rows = t.vec_m * (logits + 256 + 4 * 32) + t.out_m * (q + o + 4 * 32)
    return int(rows) + arriving_bytes(passes, t) + t.share * (4 * t.v_dim + 4 * 24) + 1024 + ceil_div(t.head_dim, MX_BLOCK)


#: Over all logits: the sum of both passes, the softmax, and the split as chains of instructions (see the operations).
_MX_OPS = ("add", "muls", "fold_max", "sub", "exp", "fold_add", "cast", "cast", "abs", "reduce_max",
           *("copy", "mul", "cast", "cast") * 2, "cast", "cast", "copy", "mul", "sub")
MXFP4 = Needs("mxfp4", MSD_MXFP4.passes, mxfp4_bytes, _MX_OPS, 4)
