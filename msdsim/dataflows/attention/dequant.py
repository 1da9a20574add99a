"""``dequant-int8`` and ``dequant-int4`` attention: Vector makes the integer KV cache BF16, the Cube multiplies in BF16.

Fused (the default while a head has one row tile, which is decode): every KV tile is dequantized just before it is used,
into a ring of ``kv_slots`` tiles of K and of V, in GM or (``direct``) in L1::

    AIV: for g: dequantize K(g) and V(g - ahead) -> ring ; softmax(g - ahead) ; rescale(g - ahead - preload)
    AIC: for g: S = Q K^T from the ring ;                  O(g - preload) = P V from the ring

Unfused (prefill, where many row tiles read the same K and V): all AIVs first dequantize the whole cache into a workspace,
all cores meet, and the BF16 pipeline runs on the workspace.

The ring needs no signals back: before an AIV writes K(g + kv_slots) it has waited for the logits of step g, before it
writes V(g + kv_slots) for the partial output of step g.  A shared cache has one ring, whose tiles last until then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from msdsim.dataflows.attention.bf16 import CUBE_FORMATS
from msdsim.dataflows.attention.context import Chunk, Context, Operands
from msdsim.dataflows.attention.conversions import Conversions
from msdsim.dataflows.attention.operands import Cache, Caches, Queries, cache_tensors, copy_rows
from msdsim.dataflows.attention.pipeline import Ahead, attention
from msdsim.dataflows.attention.tiling import AttentionTiling
from msdsim.dataflows.attention.work import AttentionShape, Step, refuse_odd
from msdsim.dataflows.base import register, require_switch
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.dataflows.vector.dequantize import to_fp32
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, Handle, Kernel, Slice, at, maximum, minimum
from msdsim.units import ceil_div

#: Formats of the cache.
CACHES = ("int8", "int4")


@dataclass(frozen=True)
class CacheTiling(AttentionTiling):
    """As in ``bf16``; ``dequant_kv`` KV rows of a UB tile that is dequantized; ``kv_slots`` tiles of K and of V in the ring;
    ``fused`` 0 dequantizes the whole cache before the attention starts."""

    dequant_kv: int = 32
    kv_slots: int = 3
    fused: int = 1


@dataclass(frozen=True)
class Stored:
    """The format of the cache, and whether its elements are ``scaled`` when Vector makes them BF16."""

    cache: str
    scaled: bool = True


class _Dequantizer:
    """Vector's part: rows of K and of V, ``dequant_kv`` at a time, from GM to UB, to BF16, and to where the Cube has them from.

    K and V take turns in a loop ``which``, so that the code is there once.
    """

    def __init__(self, ctx: Context, tile: CacheTiling, of: Stored) -> None:
        self.ctx, self.kb, self.tile, self.stored, self.scaled = ctx, ctx.kb, tile, cache_tensors(ctx, of.cache), of.scaled
        self.per_channel = ctx.problem.scales == "channel"
        #: Names and channels of what is stored.
        self.names, self.dims = ("k", "v")[: len(self.stored)], [cache.of.shape[-1] for cache in self.stored]
        # Scales of tokens as a column, so that each lands beside the row it belongs to.
        self.scales = [ctx.kb.tensor(f"{name}_scale", "fp32", (ctx.problem.kv_heads, dim) if self.per_channel
                                     else (ctx.work.kv_head_count, ctx.work.kv, 1), "in")
                       for name, dim in zip(self.names, self.dims, strict=True)] if of.scaled else []

    def workspaces(self, suffix: str, shape: tuple[int, int] | tuple[int, int, int], space: str = "GM") -> Caches:
        """A tensor for each cache, rows of BF16."""
        return tuple(self.kb.tensor(f"{name}_{suffix}", "bf16", (*shape, dim), "workspace", space)
                     for name, dim in zip(self.names, self.dims, strict=True))

    def each(self) -> AbstractContextManager[Expr]:
        """K, and V if it is stored apart."""
        return self.kb.loop("which", 0, len(self.stored))

    def load_scales(self, which: Expr, head: Expr, tokens: At) -> list[Slice]:
        """The scales of K or V: a row per channel, a column per token; as rows of K and as rows of V take them."""
        kb = self.kb
        if not self.scaled:
            return []
        if self.per_channel:
            buffer = kb.buffer("dequant_scale", "UB", "fp32", (1, max(self.dims)), self.tile.ub_ring)
            targets = [buffer[0, :dim] for dim in self.dims]
            sources = [scale[self.ctx.kv_head(head), :] for scale in self.scales]
        else:
            buffer = kb.buffer("dequant_scale", "UB", "fp32", (self.tile.dequant_kv, 1), self.tile.ub_ring)
            targets = [buffer[: tokens.size, :]] * len(self.stored)
            sources = [scale[head, tokens, :] for scale in self.scales]
        for number, (target, source) in enumerate(zip(targets, sources, strict=True)):
            with kb.when(which.equals(number)):
                kb.copy(target, source)
        return targets

    def rows(self, which: Expr, head: Expr, rows: At, scales: list[Slice], targets: list[Slice]) -> None:
        """``bf16(fp32(integer) * scale)``, or ``bf16(integer)``, of rows of a head, to the target of K or of V."""
        kb, tile = self.kb, self.tile
        shape = (tile.dequant_kv, max(self.dims))
        w8 = kb.buffer("w8", "UB", self.stored[0].of.fmt, shape, tile.ub_ring)
        w16, w32 = kb.buffer("w16", "UB", "fp16", shape), kb.buffer("w32", "UB", "fp32", shape)
        wb = kb.buffer("wb", "UB", "bf16", shape, tile.ub_ring)
        tiles = [(at(0, rows.size), at(0, dim)) for dim in self.dims]
        # One pass over either cache where they have equal rows, so that the code is the same for both.
        alike = len(set(self.dims)) == 1
        for number, here in enumerate(tiles):
            with kb.when(which.equals(number)):
                copy_rows(self.ctx, lambda inside, width=here[1]: w8[inside, width],  # type: ignore[misc]
                          self.stored[number], head, rows)
        for number, here in enumerate(tiles[:1] if alike else tiles):
            with nullcontext() if alike else kb.when(which.equals(number)), kb.vf(self.ctx.chip.vector.vf):
                to_fp32(kb, w8[here], w16[here], w32[here])
                if self.scaled:
                    kb.op("mul", w32[here], w32[here], scales[number])
                kb.op("cast", wb[here], w32[here], round="rint")
        for number, here in enumerate(tiles):
            with kb.when(which.equals(number)):
                kb.copy(targets[number], wb[here])


class FusedCache(Cache):
    """Rings of ``kv_slots`` dequantized tiles of K and of V, in GM or (``direct``) in L1."""

    keys_signal: str | None = "keys"
    early_values = False

    def __init__(self, ctx: Context, tile: CacheTiling, of: Stored) -> None:
        self.tile, self.dequantizer = tile, _Dequantizer(ctx, tile, of)
        shape = (ctx.cores, tile.kv_slots, ctx.work.kv_tile)
        rings = self.dequantizer.workspaces("ring", shape, "L1" if tile.direct else "GM")
        super().__init__(ctx, rings, self.dequantizer.stored)
        ctx.kb.signal("keys", "aiv_to_aic")

    def bring(self, name: str, cache: Handle, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> Chunk:
        if self.tile.direct:
            return Chunk(lambda row, col: self._slot(cache, step, at(rows.start + row.start, row.size),
                                                     at(cols.start + col.start, col.size)))
        buffer = self.ctx.kb.buffer(name, "L1", self.ctx.fmt, (most_rows, most_cols), self.ctx.tile.l1_ring)
        self.ctx.kb.copy(buffer[: rows.size, : cols.size], self._slot(cache, step, rows, cols))
        return Chunk(lambda rows, cols: buffer[rows, cols])

    def _slot(self, ring: Handle, step: Step, rows: At, cols: At) -> Slice:
        return ring[self.ctx.kb.core, step.number % self.tile.kv_slots, rows, cols]

    def dequantize(self, step: Step) -> None:
        """K of this step and, where it is stored apart, V of the step whose softmax comes next: this AIV's rows."""
        ctx, kb, tile, work = self.ctx, self.ctx.kb, self.tile, self.ctx.work
        dequantizer, number, ahead = self.dequantizer, step.number, tile.preload
        share = ceil_div(work.kv_tile, ctx.aivs)
        with dequantizer.each() as which:
            one = work.step(kb.core, maximum(0, number - which * ahead))
            here = minimum(number >= which * ahead, number - which * ahead < ctx.steps)
            with kb.when(here if one.live == Const(1) else minimum(here, one.live)):
                mine = ctx.my_part(one.cols, share)
                if dequantizer.per_channel:
                    scales = dequantizer.load_scales(which, one.head, at(0, 1))
                with kb.tiles("v", mine, tile.dequant_kv) as v:
                    rows = at(kb.sub * share + v.start, v.size)
                    in_cache = at(one.start + rows.start, rows.size)
                    if not dequantizer.per_channel:
                        scales = dequantizer.load_scales(which, one.head, in_cache)
                    targets = [self._slot(ring, one, rows, at(0, ring.of.shape[-1])) for ring in self.caches]
                    dequantizer.rows(which, one.head, in_cache, scales, targets)
                with kb.when(which.equals(0)):
                    kb.raise_signal("keys", "MTE3")


class WholeCache:
    """A prologue: all of K and V in BF16 in GM, before the attention starts; ``before`` is what else the AIVs do then."""

    def __init__(self, ctx: Context, tile: CacheTiling, of: Stored, before: Callable[[], None] | None) -> None:
        self.ctx, self.tile, self.dequantizer, self.before = ctx, tile, _Dequantizer(ctx, tile, of), before
        self.caches = self.dequantizer.workspaces("bf16", (ctx.work.kv_head_count, ctx.work.kv))
        ctx.kb.signal("dequantized", "barrier")

    def run(self) -> None:
        """All AIVs share the whole cache, a block of KV rows of one head at a time."""
        if self.before is not None:
            self.before()
        kb, work, most = self.ctx.kb, self.ctx.work, self.tile.dequant_kv
        blocks = ceil_div(work.kv, most)
        with kb.each_aiv("block", work.kv_head_count * blocks) as block:
            head, start = block // blocks, block % blocks * most
            rows = at(start, minimum(most, work.kv - start))
            with self.dequantizer.each() as which:
                scales = self.dequantizer.load_scales(which, head, rows)
                self.dequantizer.rows(which, head, rows, scales, [cache[head, rows, :] for cache in self.caches])
        kb.meet("dequantized")

    def wait(self) -> None:
        """All cores meet when the cache is there."""
        self.ctx.kb.wait_signal("dequantized", "MTE2")


def with_cache(ctx: Context, tile: CacheTiling, of: Stored, queries: Queries, conversions: Conversions,
               prepare: Callable[[Step], None] | None = None, before: Callable[[], None] | None = None) -> Kernel:
    """The attention on the cache in BF16.  What the AIVs do for Q, if anything: ``prepare`` ahead of the softmax where the
    cache is made tile by tile, or ``before`` it all."""
    require_switch(tile, "fused")
    if tile.fused and tile.kv_slots < slots(ctx.problem, tile):
        raise TilingError(f"tiling kv_slots={tile.kv_slots} cannot hold the tiles of preload={tile.preload} steps and the "
                          f"one in use; give at least {slots(ctx.problem, tile)}")
    if not tile.fused:
        whole = WholeCache(ctx, tile, of, before)
        return attention(ctx, queries, Cache(ctx, whole.caches, whole.dequantizer.stored), conversions, prologue=whole)
    fused = FusedCache(ctx, tile, of)

    def body(step: Step) -> None:
        if prepare is not None:
            with ctx.kb.when(step.number < ctx.steps):
                prepare(step)
        fused.dequantize(step)

    return attention(ctx, queries, fused, conversions, Ahead(body, tail=tile.preload))


def kernel(problem: AttentionShape, chip: Chip, tile: CacheTiling, cache: str) -> Kernel:
    ctx = Context(f"attention_dequant_{cache}", problem, chip, tile, Operands("bf16", "fp32"))
    return with_cache(ctx, tile, Stored(cache), Queries(ctx), Conversions(ctx))


def slots(problem: AttentionShape, tile: AttentionTiling) -> int:
    """Tiles that a ring must hold: K of the steps until its product with Q; if it is V as well, until that with P, ``preload``
    steps of softmax and as many of the Cube later."""
    return 2 * tile.preload + 1 if problem.shared_kv else tile.preload + 1


def register_cache(method: str, make: Callable[..., Kernel], description: str) -> None:
    """Dataflows of a method whose Cube takes an integer cache in BF16, one for each format of the cache."""
    for cache in CACHES:
        register("attention", f"{method}-{cache}", f"{cache.upper()} KV cache {description}", CacheTiling,
                 partial(_refuse, bits=FORMATS[cache].bits), partial(make, cache=cache))


def _refuse(problem: AttentionShape, chip: Chip, bits: int) -> str | None:
    return refuse_odd(problem, bits, "4-bit elements") or refuse_rate(chip, CUBE_FORMATS)


register_cache("dequant", kernel, "made BF16 on Vector, BF16 products")
