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

from contextlib import ExitStack
from dataclasses import dataclass

from msdsim.dataflows.attention.bf16 import FORMATS as CUBE_FORMATS
from msdsim.dataflows.attention.bf16 import NEEDS as BF16_NEEDS
from msdsim.dataflows.attention.bf16 import ub_bytes
from msdsim.dataflows.attention.kernel import AttentionKernel, InL1, Stage
from msdsim.dataflows.attention.tiling import AttentionTiling, Needs, UbTiles, check
from msdsim.dataflows.attention.work import AttentionShape, Step, refuse_odd
from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.dataflows.cube.operands import ragged_of
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, at
from msdsim.ir.expr import Const, Expr, ceil_div, maximum, minimum
from msdsim.ir.kernel import Kernel, Slice
from msdsim.units import ceil_div as ceil_int

#: Bytes of UB per element of a dequantization tile: integers (ring 2), FP16, FP32, BF16 (ring 2).
ELEMENT_BYTES = 2 + 2 + 4 + 2 * 2


@dataclass(frozen=True)
class DequantTiling(AttentionTiling):
    """As in ``bf16``; ``dequant_kv`` KV rows of a UB tile that is dequantized; ``kv_slots`` tiles of K and of V in the ring;
    ``fused`` 0 dequantizes the whole cache before the attention starts."""

    dequant_kv: int = 32
    kv_slots: int = 3
    fused: int = 1


class DequantAttention(AttentionKernel):
    """The shared pipeline on a cache that Vector dequantizes."""

    def __init__(self, problem: AttentionShape, chip: Chip, tile: DequantTiling, cache: str) -> None:
        self.name, self.cache_fmt = f"attention_dequant_{cache}", cache
        self.dequant, self.early_values = tile, not tile.fused
        self.per_channel = problem.scales == "channel"
        super().__init__(problem, chip, tile)

    def vector_stages(self) -> tuple[Stage, ...]:
        if not self.dequant.fused:
            return super().vector_stages()
        ahead = self.tile.preload
        return (Stage(0, self.dequantize, tail=ahead), Stage(ahead, self.softmax),
                Stage(ahead + self.tile.preload, self.rescale))

    def scale_tensors(self) -> None:
        kb, work, tile = self.kb, self.work, self.dequant
        #: Names and channels of what is stored: K, and V unless it is a part of K.
        self.caches = (("k", self.dim),) if self.shared else (("k", self.dim), ("v", self.out_dim))
        # Scales of tokens as a column, so that each lands beside the row it belongs to.
        self.scales = tuple(kb.tensor(f"{name}_scale", "fp32", (self.problem.kv_heads, dim) if self.per_channel
                                      else (work.kv_head_count, work.kv, 1), "in") for name, dim in self.caches)
        if tile.fused:
            ring, space = (self.cores, tile.kv_slots, work.kv_tile), "L1" if self._in_l1 else "GM"
            self.rings = tuple(kb.tensor(f"{name}_ring", "bf16", (*ring, dim), "workspace", space) for name, dim in self.caches)
            kb.signal("keys", "aiv_to_aic")
        else:
            cache = (work.kv_head_count, work.kv)
            self.rings = tuple(kb.tensor(f"{name}_bf16", "bf16", (*cache, dim), "workspace") for name, dim in self.caches)
            kb.signal("dequantized", "barrier")

    # AIC

    def before_aic(self) -> None:
        if not self.dequant.fused:
            self.kb.wait_signal("dequantized", "MTE2")

    def before_keys(self) -> None:
        if self.dequant.fused:
            self.kb.wait_signal("keys", self.cube_waits)

    def bring_k(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> InL1:
        return self._in_ring(0, step, rows, cols) if self._in_l1 else super().bring_k(step, rows, most_rows, cols, most_cols)

    def bring_v(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> InL1:
        return self._in_ring(-1, step, rows, cols) if self._in_l1 else super().bring_v(step, rows, most_rows, cols, most_cols)

    @property
    def _in_l1(self) -> bool:
        """Whether the ring of dequantized tiles lies in L1."""
        return bool(self.dequant.fused and self.tile.direct)

    def _in_ring(self, which: int, step: Step, rows: At, cols: At) -> InL1:
        ring, slot = self.rings[which], step.number % self.dequant.kv_slots
        return lambda row, col: ring[self.kb.core, slot, at(rows.start + row.start, row.size),
                                     at(cols.start + col.start, col.size)]

    def load_k(self, k1: Slice, step: Step, rows: At, cols: At) -> None:
        self.kb.copy(k1, self._dequantized(0, step, rows, cols))

    def load_v(self, v1: Slice, step: Step, rows: At, cols: At) -> None:
        self.kb.copy(v1, self._dequantized(-1, step, rows, cols))

    def _dequantized(self, which: int, step: Step, rows: At, cols: At) -> Slice:
        if self.dequant.fused:
            return self.rings[which][self.kb.core, step.number % self.dequant.kv_slots, rows, cols]
        return self.rings[which][step.head, at(step.start + rows.start, rows.size), cols]

    # AIV

    def before_aiv(self) -> None:
        """Unfused: all AIVs share the whole cache, a block of KV rows of one head at a time."""
        kb, work, tile = self.kb, self.work, self.dequant
        if tile.fused:
            return
        blocks = ceil_int(work.kv, tile.dequant_kv)
        unit, units = kb.core * self.aivs + kb.sub, self.cores * self.aivs
        with kb.loop("block", unit, work.kv_head_count * blocks, units) as block:
            head, start = block // blocks, block % blocks * tile.dequant_kv
            size = minimum(tile.dequant_kv, work.kv - start)
            with kb.loop("which", 0, len(self.caches)) as which:
                self._load_scale(which, head, start, size, tile.dequant_kv)
                self._dequantize_rows(which, head, start, size, None)
        kb.raise_signal("dequantized", "MTE3")
        kb.wait_signal("dequantized", "MTE2")

    def dequantize(self, step: Step) -> None:
        """K of this step and, where it is stored apart, V of the step whose softmax comes next: this AIV's rows."""
        kb, work, tile = self.kb, self.work, self.dequant
        share, ahead = ceil_int(work.kv_tile, self.aivs), self.tile.preload
        last = self.work.items_of(kb.core) * work.steps
        number = step.number
        with kb.loop("which", 0, len(self.caches)) as which:
            one = self.work.step(kb.core, maximum(0, number - which * ahead))
            here = minimum(number >= which * ahead, number - which * ahead < last)
            with kb.when(here if one.live == Const(1) else minimum(here, one.live)):
                mine = one.cols if self.aivs == 1 else minimum(share, maximum(0, one.cols - kb.sub * share))
                if self.per_channel:
                    self._load_scale(which, one.head, Const(0), Const(1), 1)
                with kb.loop("v", 0, ceil_div(mine, tile.dequant_kv)) as v:
                    size = ragged_of(mine, tile.dequant_kv, v)
                    start = kb.sub * share + v * tile.dequant_kv
                    if not self.per_channel:
                        self._load_scale(which, one.head, one.start + start, size, tile.dequant_kv)
                    self._dequantize_rows(which, one.head, one.start + start, size, (one, start))
                with kb.when(which.equals(0)):
                    kb.raise_signal("keys", "MTE3")

    def _load_scale(self, which: Expr, head: Expr, start: Expr, size: Expr, rows: int) -> None:
        """The scales of K or V: a row per channel, a column per token."""
        kb = self.kb
        if self.per_channel:
            buffer = kb.buffer("dequant_scale", "UB", "fp32", (1, self.widest))
            targets = [buffer[0, at(0, dim)] for _, dim in self.caches]
            sources = [scale[head % self.problem.kv_heads, :] for scale in self.scales]
        else:
            buffer = kb.buffer("dequant_scale", "UB", "fp32", (rows, 1), self.tile.ub_ring)
            targets = [buffer[at(0, size), :]] * len(self.caches)
            sources = [scale[head, at(start, size), :] for scale in self.scales]
        self.scale_now = targets
        for number, (target, source) in enumerate(zip(targets, sources, strict=True)):
            with kb.when(which.equals(number)):
                kb.copy(target, source)

    @property
    def widest(self) -> int:
        """Channels of the widest cache."""
        return max(dim for _, dim in self.caches)

    def _dequantize_rows(self, which: Expr, head: Expr, start: Expr, size: Expr, slot: tuple[Step, Expr] | None) -> None:
        """``bf16(fp32(integer) * scale)``, to the ring slot of a step or to the workspace."""
        kb, tile = self.kb, self.dequant
        shape = (tile.dequant_kv, self.widest)
        w8 = kb.buffer("w8", "UB", self.cache_fmt, shape, tile.ub_ring)
        w16, w32 = kb.buffer("w16", "UB", "fp16", shape), kb.buffer("w32", "UB", "fp32", shape)
        wb = kb.buffer("wb", "UB", "bf16", shape, tile.ub_ring)
        each = list(enumerate(zip(self.caches, (self.k, self.v), strict=False)))
        # One pass over either cache where they have equal rows, so that the code is the same for both.
        alike = len({dim for _, dim in self.caches}) == 1
        for number, ((_, dim), cache) in each:
            with kb.when(which.equals(number)):
                kb.copy(w8[at(0, size), at(0, dim)], cache[head, at(start, size), :])
        for number, ((_, dim), _) in each[:1] if alike else each:
            here = (at(0, size), at(0, dim))
            with ExitStack() as stack:
                if not alike:
                    stack.enter_context(kb.when(which.equals(number)))
                kb.op("cast", w16[here], w8[here])
                kb.op("cast", w32[here], w16[here])
                kb.op("mul", w32[here], w32[here], self.scale_now[number])
                kb.op("cast", wb[here], w32[here], round="rint")
        for number, ((_, dim), _) in each:
            ring = self.rings[number]
            target = ring[head, at(start, size), :] if slot is None else (
                ring[kb.core, slot[0].number % tile.kv_slots, at(slot[1], size), :])
            with kb.when(which.equals(number)):
                kb.copy(target, wb[at(0, size), at(0, dim)])


def slots(problem: AttentionShape, tile: AttentionTiling) -> int:
    """Tiles that a ring must hold: K of the steps until its product with Q; if it is V as well, until that with P, ``preload``
    steps of softmax and as many of the Cube later."""
    return 2 * tile.preload + 1 if problem.shared_kv else tile.preload + 1


def _room(chip: Chip) -> int:
    """UB bytes that are kept for dequantizing beside the softmax: a quarter, and then whatever else is left."""
    return chip.buffers.ub_bytes // 4


def needs_of(chip: Chip, cache: str, fused: bool) -> Needs:
    def fused_bytes(t: UbTiles) -> int:
        return ub_bytes(t) + _room(chip)

    # int8 and int4 become FP16 at twice the elements per repeat of the others, which the estimate leaves out.
    return Needs("bf16", 1, fused_bytes if fused else ub_bytes, BF16_NEEDS.vector_ops, FORMATS[cache].bits,
                 ("cast", "cast", "mul", "cast") if fused else (), cache_in_l1=fused)


def _register(cache: str) -> None:
    def build(problem: AttentionShape, chip: Chip, tile: DequantTiling) -> Kernel:
        if tile.fused > 1:
            raise TilingError(f"tiling fused={tile.fused} is a switch; give 1 or 0")
        check(problem, chip, tile, needs_of(chip, cache, bool(tile.fused)))
        if tile.fused and tile.kv_slots < slots(problem, tile):
            raise TilingError(f"tiling kv_slots={tile.kv_slots} cannot hold the tiles of preload={tile.preload} steps and the "
                              f"one in use; give at least {slots(problem, tile)}")
        return DequantAttention(problem, chip, tile, cache).kernel()

    name = f"dequant-{cache}"
    DATAFLOWS.add(f"attention:{name}", Dataflow(
        name=name, kind="attention", contract=name,
        description=f"{cache.upper()} KV cache made BF16 on Vector, BF16 products",
        tiling=DequantTiling, refuses=lambda problem, chip: _refuse(problem, chip, FORMATS[cache].bits), build=build,
    ))


def _refuse(problem: AttentionShape, chip: Chip, bits: int) -> str | None:
    return refuse_odd(problem, bits, "4-bit elements") or refuse_rate(chip, CUBE_FORMATS)


#: Formats of the cache.
CACHES = ("int8", "int4")
for _cache in CACHES:
    _register(_cache)
