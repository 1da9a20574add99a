"""The converting dataflows: Vector makes the stored weights BF16 or FP16, exactly and without their scales, and scales the
Cube's sums.

Before (``dequant-*``): every weight is converted, shifted, scaled and rounded.  After, for the weights of a slot on an AIV::

    wq <- GM; w16 <- cast wq; w32 <- cast w16; wb <- cast w32; ring <- wb

(E2M1 becomes BF16 in one step where Vector has that conversion; no chip's Vector converts INT8 or INT4 to BF16 otherwise.)
``convert-fp16-*`` stop at FP16, ``wh <- cast wq``; for that rows of x become FP16 once, over a power of two that their sums are
multiplied by (:mod:`msdsim.dataflows.vector.half_rows`).
Scales meet m x n sums, one for each group of K, instead of k x n weights: cheaper while groups are longer than a tile has rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.mainloop import Held, Stream, accumulate, bring, drain, multiply_groups
from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.cube.streams import rows_of
from msdsim.dataflows.gemm.convert_merge import ConvertedSums, ConvertTiling, OfRows, Packs, Scaling, check_sums, scale_parts
from msdsim.dataflows.gemm.dequant import Activations, Weights, fill
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.gemm.weight_context import Columns, TileTurn, WeightContext
from msdsim.dataflows.gemm.weight_scales import LoadedScales
from msdsim.dataflows.vector.add_parts import Reserved
from msdsim.dataflows.vector.dequantize import widen
from msdsim.dataflows.vector.half_rows import HalfRows
from msdsim.dataflows.vector.row_sums import RowSums
from msdsim.formats.schemes import SCHEMES, Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Expr, Handle, Kernel, Slice, at, maximum, minimum, ragged
from msdsim.ir.ops.vector import vector_casts

#: Slots of weights that Vector is ahead of the sums it scales, so that the Cube has multiplied them meanwhile.
_AHEAD = 2


class Converted(Weights):
    """``bf16(q)`` or ``fp16(q)``, exactly."""

    def convert(self, wq: Slice, line: Expr, scales: LoadedScales | None) -> Slice:
        ctx, kb, here = self.ctx, self.ctx.kb, tuple(at(0, size) for size in wq.sizes)
        wide = ctx.scheme.widened or "bf16"
        wb = kb.buffer("wb", "UB", wide, ctx.ub_shape, ctx.tile.ub_ring)[here]
        if (wq.of.fmt, wide) in vector_casts(ctx.chip):
            kb.op("cast", wb, wq)
        else:
            w32 = kb.buffer("w32", "UB", "fp32", ctx.ub_shape)[here]
            with kb.vf(ctx.chip.vector.vf):
                widen(kb, ctx.chip, ctx.ub_shape, wq, w32)
                kb.op("cast", wb, w32, round="rint")
        return wb


class HalfActivations(Activations):
    """A as FP16, which the AIVs make of x before anything else."""

    def __init__(self, ctx: WeightContext, halves: HalfRows) -> None:
        super().__init__(ctx)
        self.halves = halves

    def ready(self) -> None:
        self.ctx.kb.wait_signal("halves", "MTE2")

    def stream(self, place: OutputTile, first: Expr) -> Stream:
        return rows_of(self.ctx.kb, self.halves.half, place, first)


class Converting:
    """The kernel under construction."""

    def __init__(self, problem: GemmShape, chip: Chip, tile: ConvertTiling, scheme: Scheme) -> None:
        self.tile, self.ctx = tile, WeightContext(problem, chip, tile, scheme)
        self.kb, self.packs, self.weights = self.ctx.kb, Packs.of(self.ctx), Converted(self.ctx)
        check_sums(self.ctx, tile)
        group = self.packs.group
        self.by_group = group is not None and tile.slot_k >= group
        self.of_rows = OfRows(RowSums(self.kb, chip, problem, self.ctx.x, group) if problem.offset else None,
                              HalfRows(self.kb, chip, problem, self.ctx.x) if scheme.half else None)
        #: Parts of K are summed up before they are scaled where the scale is that of a channel.
        self.late = group is None and self.ctx.sums is not None
        self.ring = None if self.late else ConvertedSums(self.ctx, tile, self.packs)
        self.ahead = min(_AHEAD, tile.slots, self.ctx.k_slots, self.ring.to.slots if self.ring else _AHEAD)

    def build(self) -> Kernel:
        """The two programs::

            AIC:  every output tile:   every slot of K:  acc += A x slot;   every pack of sums:  ring <- acc
            AIV:  every output tile:   every slot of K:  slot <- converted weights;   sums of two slots before <- ring, scaled
        """
        ctx, kb = self.ctx, self.kb
        with kb.part("aic"):
            self._multiply()
        with kb.part("aiv"):
            self.of_rows.emit()
            if self.ring is None:
                self._convert_only()
            else:
                self._convert_and_merge(self.ring, Scaling(ctx, self.tile, self.packs, self.ring, self.of_rows))
        return kb.build()

    # AIC

    def _multiply(self) -> None:
        ctx, kb, packs = self.ctx, self.kb, self.packs
        a = Activations(ctx) if self.of_rows.halves is None else HalfActivations(ctx, self.of_rows.halves)
        ctx.ring.prime()
        a.ready()
        with ctx.turns() as turn:
            if self.by_group:
                with kb.loop("p", 0, packs.count) as p, ctx.ring.consume(turn.first, turn.last), self._handing_over():
                    self._groups(turn, a, p)
            else:
                with kb.loop("p", 0, packs.count) as p:
                    acc = ctx.accumulator(turn.place)
                    slots = Const(packs.slots) if ctx.k_slots % packs.slots == 0 else ragged(ctx.k_slots, packs.slots, p)
                    with kb.loop("c", 0, slots) as i, ctx.ring.consume(turn.first, turn.last):
                        c = p * packs.slots + i
                        b = ctx.operand(turn.columns, c, turn.place.cols, None)
                        stream = a.stream(turn.place, turn.columns.first + c * self.tile.slot_k)
                        accumulate(kb, self.tile, ctx.kinds, acc, ctx.depth(turn.columns, c), stream, b, before=i,
                                   unit_flag=self._one_drain)
                    with self._handing_over():
                        self._drain(turn, p, Const(0), acc)
        if self.late:
            kb.raise_signal("summed", "FIX")
        elif self.ring is not None:
            self.ring.ring.drain()

    def _handing_over(self) -> AbstractContextManager[None]:
        return nullcontext() if self.ring is None else self.ring.produce_pack()

    @property
    def _one_drain(self) -> bool:
        """Whether a sum leaves by one fixpipe; in a ring in UB every AIV gets its share."""
        return self.ring is None or not self.tile.sums_direct

    def _drain(self, turn: TileTurn, p: Expr, j: Expr, acc: Slice) -> None:
        if self.ring is None:
            drain(self.kb, self.ctx.result(turn), acc)
        else:
            self.ring.drain(self.ring.turn(turn.columns, turn.place), turn.place, acc, p, j)

    def _groups(self, turn: TileTurn, a: Activations, c: Expr) -> None:
        """The groups of a slot, each a sum of its own: of an L1 tile with several groups, or through L1 tiles."""
        ctx, kb, tile, columns, place = self.ctx, self.kb, self.tile, turn.columns, turn.place
        group = self.packs.group or 1
        depth, first = ctx.depth(columns, c), columns.first + c * tile.slot_k
        stream, b = a.stream(place, first), ctx.operand(columns, c, place.cols, None)
        if tile.l1_k < group:
            with kb.tiles("j", depth, group) as j:
                acc = ctx.accumulator(place)
                accumulate(kb, tile, ctx.kinds, acc, j.size, _from(stream, j.start), _from(b, j.start),
                           unit_flag=self._one_drain)
                self._drain(turn, c, j.number, acc)
            return
        with kb.tiles("k1", depth, tile.l1_k) as k1:
            b1 = bring(kb, tile, ctx.kinds, "b", place.cols, b, k1)
            a1 = bring(kb, tile, ctx.kinds, "a", place.rows, stream, k1)
            before = k1.number * (tile.l1_k // group)
            multiply_groups(kb, tile, ctx.kinds, group, k1.size, a1, b1, partial(ctx.accumulator, place),
                            lambda j, acc: self._drain(turn, c, before + j, acc), self._one_drain)

    # AIV

    def _convert_only(self) -> None:
        """Sums of parts of K are added up, then scaled."""
        ctx, kb = self.ctx, self.kb
        with ctx.fills() as columns, kb.loop("c", 0, ctx.k_slots) as c:
            fill(ctx, columns, c, self.weights)
        ctx.ring.drain()
        self.of_rows.wait(kb)
        assert ctx.sums is not None
        ctx.sums.add_up(ctx.y, scale=scale_parts(ctx, self.of_rows),
                        beside=scaled_sums(self.tile.ub_ring, ctx.problem.offset, ctx.scheme.half))

    def _convert_and_merge(self, ring: ConvertedSums, scaling: Scaling) -> None:
        """Weights of a unit of work and sums of the one before, in one loop, whose last round has sums only."""
        ctx, kb = self.ctx, self.kb
        ring.ring.prime()
        scaling.declare()
        with kb.each_core("t", ctx.units + ctx.cores) as t:
            if ring.several:
                self._several_tiles(scaling, t)
            else:
                self._one_tile(scaling, t)
        ctx.ring.drain()
        if ctx.sums is not None:
            kb.raise_signal("summed", "MTE3")
            ctx.sums.add_up(ctx.y, beside=Reserved(fixed=ring.ub_bytes))

    def _one_tile(self, scaling: Scaling, t: Expr) -> None:
        """Every slot is followed by the sums of the slot ``ahead`` before it, of the previous unit where there is none::

            for c:  slot c of unit t;   sums of slot c - ahead of unit t, or of slot c - ahead + slots of unit t - cores
        """
        ctx, kb, packs = self.ctx, self.kb, self.packs
        with kb.loop("c", 0, ctx.k_slots) as c:
            self._fill_where(t, c)
            self._meet(t, c.equals(0))
            early = c < self.ahead
            unit, at_slot = t - early * ctx.cores, (c + (ctx.k_slots - self.ahead)) % ctx.k_slots
            last = ((at_slot + 1) % packs.slots).equals(0) + at_slot.equals(ctx.k_slots - 1) if packs.slots > 1 else Const(1)
            with kb.when((unit >= 0) * (unit < ctx.units) * (last > 0)), self._turn(self._within(unit)) as (columns, place):
                assert place is not None
                scaling.pack(columns, place, at_slot // packs.slots)

    def _several_tiles(self, scaling: Scaling, t: Expr) -> None:
        """Tiles of rows that share the slots of a unit: the last one's sums are left to the next unit, whose first slots can be
        filled before::

            the first slots of unit t;  sums of the last tile of unit t - cores;   the other slots;  sums of the other tiles
        """
        ctx, kb, ahead = self.ctx, self.kb, self.ahead
        with kb.loop("h", 0, 2) as h:
            with kb.loop("c", h * ahead, ahead + h * (ctx.k_slots - ahead)) as c:
                self._fill_where(t, c)
            self._meet(t, h.equals(0))
            unit = t - (1 - h) * ctx.cores
            with kb.when((unit >= 0) * (unit < ctx.units)), self._turn(self._within(unit)) as (columns, _):
                last = ctx.grid.row_tiles_of(columns.expert) - 1
                with (
                    kb.loop("mt", (1 - h) * last, last + (1 - h)) as mt,
                    self._place(columns, minimum(ctx.grid.m_tiles - 1, maximum(0, mt))) as tile,
                    kb.loop("p", 0, self.packs.count) as p,
                ):
                    scaling.pack(columns, tile, p)

    def _fill_where(self, t: Expr, c: Expr) -> None:
        with self.kb.when(t < self.ctx.units), self._turn(self._within(t)) as (columns, _):
            fill(self.ctx, columns, c, self.weights)

    def _meet(self, t: Expr, first: Expr) -> None:
        """Before the first sums are scaled, what comes of the rows of x is there."""
        if self.of_rows.any:
            with self.kb.when(t.equals(self.kb.core) * first):
                self.of_rows.wait(self.kb)

    def _within(self, unit: Expr) -> Expr:
        """A unit that is one; the limits say nothing new, but let the verifier see it."""
        return maximum(0, minimum(unit, self.ctx.units - 1))

    @contextmanager
    def _turn(self, unit: Expr) -> Iterator[tuple[Columns, OutputTile | None]]:
        """The columns of a unit, and its output tile unless it has several."""
        ctx = self.ctx
        if self.tile.direct:
            with ctx.tile_of(unit) as (place, columns):
                yield columns, place
            return
        with ctx.columns_of(unit) as columns:
            if self.ring is not None and self.ring.several:
                yield columns, None
            else:
                with self._place(columns, Const(0)) as place:
                    yield columns, place

    @contextmanager
    def _place(self, columns: Columns, mt: Expr) -> Iterator[OutputTile]:
        ctx = self.ctx
        with (
            ctx.grid.row_tiles_before(self.kb, columns.expert) as before,
            ctx.grid.tile(self.kb, columns.expert, mt, columns.nt, before) as place,
        ):
            yield place


def scaled_sums(ring: int, offset: bool, half: bool = False) -> Reserved:
    """UB that scaling takes where sums of parts of K are added up: scales, offsets, row sums and what they make together, and
    the powers of rows in FP16."""
    return Reserved(column=4 * ring * (1 + offset), row=4 * ring * (offset + half), element=4 * offset)


def _from(source: Stream | Held, first: Expr) -> Stream | Held:
    """An operand whose K begins at ``first``."""
    if isinstance(source, Held):
        held = source
        return Held(lambda start, size: held.at(first + start, size))
    stream = source

    def load(buffer: Handle, start: Expr, size: Expr) -> None:
        stream.load(buffer, first + start, size)

    return Stream(load)


def build(problem: GemmShape, chip: Chip, tile: ConvertTiling, scheme: Scheme) -> Kernel:
    return Converting(problem, chip, tile, scheme).build()


#: The converting dataflows.
CONVERT = register_gemm([scheme.name for scheme in SCHEMES.values() if scheme.scales_sums], ConvertTiling, build)
