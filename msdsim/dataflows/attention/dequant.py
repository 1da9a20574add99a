"""``dequant-int8`` and ``dequant-int4`` attention: Vector makes the integer KV cache BF16, the Cube multiplies in BF16.

Fused (the default while a head has one row tile, which is decode): every KV tile is dequantized just before it is used,
into a ring of ``kv_slots`` tiles of K and of V, in GM or (``direct``) in L1::

    AIV: for g: dequantize K(g) and V(g - ahead) -> ring ; softmax(g - ahead) ; rescale(g - ahead - preload)
    AIC: for g: S = Q K^T from the ring ;                  O(g - preload) = P V from the ring

Unfused (prefill, where many row tiles read the same K and V): all AIVs first dequantize the whole cache into a workspace,
all cores meet, and the BF16 pipeline runs on the workspace.

The ring needs no signals back: before an AIV writes K(g + kv_slots) it has waited for the logits of step g, before it
writes V(g + kv_slots) for the partial output of step g.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from msdsim.dataflows.attention.bf16 import FORMATS as CUBE_FORMATS
from msdsim.dataflows.attention.bf16 import NEEDS as BF16_NEEDS
from msdsim.dataflows.attention.bf16 import ub_bytes
from msdsim.dataflows.attention.kernel import AttentionKernel, InL1, Stage
from msdsim.dataflows.attention.tiling import AttentionTiling, Needs, arriving_bytes, check, choose
from msdsim.dataflows.attention.work import AttentionShape, Step, Work
from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.gemm import ragged_of, refuse_rate
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, at
from msdsim.ir.expr import Const, Expr, ceil_div, maximum, minimum
from msdsim.ir.kernel import Kernel, Slice
from msdsim.units import ceil_div as ceil_int

#: Bytes of UB per element of a dequantization tile: integers (ring 2), FP16, FP32, BF16 (ring 2).
_ELEMENT_BYTES = 2 + 2 + 4 + 2 * 2


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
        kb, work, tile, dim = self.kb, self.work, self.dequant, self.dim
        # Scales of tokens as a column, so that each lands beside the row it belongs to.
        shape = (self.problem.kv_heads, dim) if self.per_channel else (work.kv_head_count, work.kv, 1)
        self.scales = tuple(kb.tensor(f"{name}_scale", "fp32", shape, "in") for name in "kv")
        if tile.fused:
            ring = (self.cores, tile.kv_slots, work.kv_tile, dim)
            space = "L1" if self._in_l1 else "GM"
            self.rings = tuple(kb.tensor(f"{name}_ring", "bf16", ring, "workspace", space) for name in "kv")
            kb.signal("keys", "aiv_to_aic")
        else:
            cache = (work.kv_head_count, work.kv, dim)
            self.rings = tuple(kb.tensor(f"{name}_bf16", "bf16", cache, "workspace") for name in "kv")
            kb.signal("dequantized", "barrier")

    # AIC

    def before_aic(self) -> None:
        if not self.dequant.fused:
            self.kb.wait_signal("dequantized", "MTE2")

    def before_keys(self) -> None:
        if self.dequant.fused:
            self.kb.wait_signal("keys", self.cube_waits)

    def bring_k(self, step: Step, start: Expr, size: Expr) -> InL1:
        return self._in_ring(0, step, start) if self._in_l1 else super().bring_k(step, start, size)

    def bring_v(self, step: Step, start: Expr, size: Expr) -> InL1:
        return self._in_ring(1, step, start) if self._in_l1 else super().bring_v(step, start, size)

    @property
    def _in_l1(self) -> bool:
        """Whether the ring of dequantized tiles lies in L1."""
        return bool(self.dequant.fused and self.tile.direct)

    def _in_ring(self, which: int, step: Step, start: Expr) -> InL1:
        ring, slot = self.rings[which], step.number % self.dequant.kv_slots
        return lambda rows, cols: ring[self.kb.core, slot, at(start + rows.start, rows.size), cols]

    def load_k(self, k1: Handle, step: Step, start: Expr, size: Expr) -> None:
        self.kb.copy(k1[at(0, size), :], self._dequantized(0, step, start, size))

    def load_v(self, v1: Handle, step: Step, start: Expr, size: Expr) -> None:
        self.kb.copy(v1[at(0, size), :], self._dequantized(1, step, start, size))

    def _dequantized(self, which: int, step: Step, start: Expr, size: Expr) -> Slice:
        if self.dequant.fused:
            return self._slot(which, step, at_row=start, size=size)
        return self.rings[which][step.head, at(step.start + start, size), :]

    def _slot(self, which: int, step: Step, at_row: Expr, size: Expr) -> Slice:
        return self.rings[which][self.kb.core, step.number % self.dequant.kv_slots, at(at_row, size), :]

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
            with kb.loop("which", 0, 2) as which:
                self._load_scale(which, head, start, size, tile.dequant_kv)
                self._dequantize_rows(which, head, start, size, None)
        kb.raise_signal("dequantized", "MTE3")
        kb.wait_signal("dequantized", "MTE2")

    def dequantize(self, step: Step) -> None:
        """K of this step and V of the step whose softmax comes next, this AIV's share of the rows of each."""
        kb, work, tile = self.kb, self.work, self.dequant
        share, ahead = ceil_int(work.kv_tile, self.aivs), self.tile.preload
        last = self.work.items_of(kb.core) * work.steps
        number = step.number
        with kb.loop("which", 0, 2) as which:
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
            buffer = kb.buffer("dequant_scale", "UB", "fp32", (1, self.dim))
            self.scale_now = buffer[0, :]
            sources = [scale[head % self.problem.kv_heads, :] for scale in self.scales]
        else:
            buffer = kb.buffer("dequant_scale", "UB", "fp32", (rows, 1), self.tile.ub_ring)
            self.scale_now = buffer[at(0, size), :]
            sources = [scale[head, at(start, size), :] for scale in self.scales]
        self._copy_one_of(which, self.scale_now, sources)

    def _copy_one_of(self, which: Expr, target: Slice, sources: list[Slice]) -> None:
        for number, source in enumerate(sources):
            with self.kb.when(which.equals(number)):
                self.kb.copy(target, source)

    def _dequantize_rows(self, which: Expr, head: Expr, start: Expr, size: Expr, slot: tuple[Step, Expr] | None) -> None:
        """``bf16(fp32(integer) * scale)``, to the ring slot of a step or to the workspace."""
        kb, tile, dim = self.kb, self.dequant, self.dim
        shape, here = (tile.dequant_kv, dim), (at(0, size), at(0, dim))
        w8 = kb.buffer("w8", "UB", self.cache_fmt, shape, tile.ub_ring)[here]
        w16, w32 = kb.buffer("w16", "UB", "fp16", shape)[here], kb.buffer("w32", "UB", "fp32", shape)[here]
        wb = kb.buffer("wb", "UB", "bf16", shape, tile.ub_ring)[here]
        self._copy_one_of(which, w8, [cache[head, at(start, size), :] for cache in (self.k, self.v)])
        kb.op("cast", w16, w8)
        kb.op("cast", w32, w16)
        kb.op("mul", w32, w32, self.scale_now)
        kb.op("cast", wb, w32, round="rint")
        for number, ring in enumerate(self.rings):
            target = ring[head, at(start, size), :] if slot is None else self._slot(number, slot[0], slot[1], size)
            with kb.when(which.equals(number)):
                kb.copy(target, wb)


def _room(chip: Chip) -> int:
    """UB bytes that are kept for dequantizing beside the softmax: a quarter, and then whatever else is left."""
    return chip.buffers.ub_bytes // 4


def _needs(chip: Chip, cache: str, fused: bool) -> Needs:
    def fused_bytes(share: int, vec_m: int, kv_tile: int, dim: int, slots: int) -> int:
        return ub_bytes(share, vec_m, kv_tile, dim, slots) + _room(chip)

    # int8 and int4 become FP16 at twice the elements per repeat of the others, which the estimate leaves out.
    return Needs("bf16", 1, fused_bytes if fused else ub_bytes, BF16_NEEDS.vector_ops, FORMATS[cache].bits,
                 ("cast", "cast", "mul", "cast") if fused else (), cache_in_l1=fused)


def _register(cache: str) -> None:
    def auto(problem: AttentionShape, chip: Chip) -> DequantTiling:
        dim = problem.head_dim
        tile = choose(problem, chip, _needs(chip, cache, fused=True))
        work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile)
        fused = work.head_tiles * work.q_tiles == 1
        if not fused:
            tile = choose(problem, chip, _needs(chip, cache, fused=False))
        share = ceil_int(work.base_rows, chip.cores.aiv_per_aic)
        taken = ub_bytes(share, tile.vec_m, tile.kv_tile, dim, tile.direct * (tile.preload + 1))
        # S and O in UB have their place there in every phase.
        always = arriving_bytes(1, share, 0, tile.kv_tile + dim, tile.direct * (tile.preload + 1))
        room = chip.buffers.ub_bytes - (taken if fused else always)
        # Beside every row: its scale, twice, in 32 bytes each.
        rows = max(1, (room - 4 * dim - 256) // (_ELEMENT_BYTES * dim + 2 * 32))
        most = ceil_int(tile.kv_tile, chip.cores.aiv_per_aic) if fused else problem.kv
        return DequantTiling(**asdict(tile), dequant_kv=min(rows, most), fused=int(fused),
                             kv_slots=tile.preload + 1)

    def build(problem: AttentionShape, chip: Chip, tile: DequantTiling) -> Kernel:
        if tile.fused > 1:
            raise TilingError(f"tiling fused={tile.fused} is a switch; give 1 or 0")
        check(problem, chip, tile, _needs(chip, cache, bool(tile.fused)))
        if tile.fused and tile.kv_slots <= tile.preload:
            raise TilingError(f"tiling kv_slots={tile.kv_slots} cannot hold the tiles of preload={tile.preload} steps and the "
                              f"one in use; give at least {tile.preload + 1}")
        return DequantAttention(problem, chip, tile, cache).kernel()

    name = f"dequant-{cache}"
    DATAFLOWS.add(f"attention:{name}", Dataflow(
        name=name, kind="attention", contract=name,
        description=f"{cache.upper()} KV cache made BF16 on Vector, BF16 products",
        tiling=DequantTiling, refuses=lambda problem, chip: _refuse(problem, chip, FORMATS[cache].bits), auto=auto, build=build,
    ))


def _refuse(problem: AttentionShape, chip: Chip, bits: int) -> str | None:
    if bits < 8 and problem.head_dim % 2:
        return f"head_dim={problem.head_dim} is odd, and 4-bit elements are packed by two; give an even head_dim"
    return refuse_rate(chip, CUBE_FORMATS)


_register("int8")
_register("int4")
