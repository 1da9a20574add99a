"""The dequantizing dataflows: Vector turns quantized weights into BF16, Cube multiplies them; they meet in a ring of slots.

Before: ``y = x W`` with W in BF16.  After, for the weights of a slot on an AIV::

    wq <- GM; w16 <- cast wq; w32 <- cast w16; [w32 += offset]; w32 *= scale; wb <- cast w32; ring <- wb
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.mainloop import Loader, Stream, accumulate, drain
from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.cube.streams import rows_of
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.gemm.weight_context import Columns, WeightContext
from msdsim.dataflows.gemm.weight_scales import LoadedScales, Scales
from msdsim.dataflows.vector.dequantize import widen
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Expr, Kernel, Slice, at, share_of


def build(problem: GemmShape, chip: Chip, tile: DequantTiling, scheme: Scheme) -> Kernel:
    ctx = WeightContext(problem, chip, tile, scheme)
    return pipeline(ctx, Activations(ctx), Dequantized(ctx))


def pipeline(ctx: WeightContext, a: Activations, w: Weights) -> Kernel:
    """The two programs; between them the ring, which both go through in the same order of tiles and slots::

        AIC:  every output tile:      every slot of K:  acc += A x slot              y <- acc
        AIV:  every tile of columns:  every slot of K:  slot <- converted weights
    """
    kb, tile = ctx.kb, ctx.tile
    with kb.part("aic"):
        ctx.ring.prime()
        a.ready()
        with ctx.turns() as turn:
            place, columns = turn.place, turn.columns
            acc = ctx.accumulator(place)
            with kb.loop("c", 0, ctx.k_slots) as c, ctx.ring.consume(turn.first, turn.last):
                first = columns.first + c * tile.slot_k
                b = ctx.operand(columns, c, place.cols, w.cube_scales(place, first))
                accumulate(kb, tile, ctx.kinds, acc, ctx.depth(columns, c), a.stream(place, first), b, c, unit_flag=True)
            drain(kb, ctx.result(turn), acc)
        if ctx.sums is not None:
            kb.raise_signal("summed", "FIX")
    with kb.part("aiv"):
        a.prologue()
        with ctx.fills() as columns:
            scales = w.scales(columns)
            with kb.loop("c", 0, ctx.k_slots) as c:
                fill(ctx, columns, c, w, scales)
        ctx.ring.drain()
        if ctx.sums is not None:
            ctx.sums.add_up(ctx.y)
    return kb.build()


def fill(ctx: WeightContext, columns: Columns, c: Expr, w: Weights, scales: Scales | None = None) -> None:
    """Slot ``c`` of a tile of columns: this AIV's share of it."""
    kb, depth, first = ctx.kb, ctx.depth(columns, c), columns.first + c * ctx.tile.slot_k
    of_slot = scales.for_slot(first, depth) if scales else None
    run = depth if ctx.problem.trans_b else columns.cols
    with ctx.ring.produce(), ub_tiles(ctx, columns, depth) as (line, size):
        wq = stored(ctx, columns, first, line, (at(0, size), at(0, run)))
        of_tile = of_slot or (scales.for_tile(first, depth, line, size) if scales else None)
        kb.copy(ctx.slot(columns, c, at(kb.sub * ctx.layout.share + line, size), at(0, run)), w.convert(wq, line, of_tile))


@contextmanager
def ub_tiles(ctx: WeightContext, columns: Columns, depth: Expr) -> Iterator[tuple[Expr, Expr]]:
    """Loop over the UB tiles of this AIV's lines of a slot: first line and number of lines."""
    kb, group, vector_k = ctx.kb, ctx.layout.group, ctx.tile.vector_k
    mine = share_of(columns.cols if ctx.problem.trans_b else depth, ctx.layout.share, kb.sub)
    if not ctx.layout.whole_groups or group is None:
        with kb.tiles("v", mine, vector_k) as v:
            yield v.start, v.size
        return
    with kb.tiles("g", mine, group) as of_group, kb.tiles("v", of_group.size, vector_k) as v:
        yield of_group.start + v.start, v.size


def stored(ctx: WeightContext, columns: Columns, start: Expr, line: Expr, here: tuple[At, At]) -> Slice:
    """Stored weights of the slot whose K begins at ``start``, from ``line`` of this AIV's share, in UB."""
    kb, tile = ctx.kb, ctx.tile
    wq = kb.buffer("wq", "UB", ctx.scheme.weights, ctx.ub_shape, tile.ub_ring)[here]
    (size, run), first, across = wq.sizes, kb.sub * ctx.layout.share + line, columns.nt * tile.base_n
    lines, along = (across + first, start) if ctx.problem.trans_b else (start + first, across)
    kb.copy(wq, ctx.w.at(columns.expert, at(lines, size), at(along, run)))
    return wq


class Activations:
    """A on its way to the Cube: here as it is, rows of x."""

    def __init__(self, ctx: WeightContext) -> None:
        self.ctx = ctx

    def prologue(self) -> None:
        """What the AIVs do before the first weights."""

    def ready(self) -> None:
        """What the AIC waits for before its first tile."""

    def stream(self, place: OutputTile, first: Expr) -> Stream:
        """Rows of an output tile, for K ranges counted from ``first``."""
        return rows_of(self.ctx.kb, self.ctx.x, place, first)


class Weights:
    """What Vector makes of the stored weights."""

    def __init__(self, ctx: WeightContext) -> None:
        self.ctx = ctx

    def scales(self, columns: Columns) -> Scales | None:
        """Scales that Vector applies."""
        return None

    def convert(self, wq: Slice, line: Expr, scales: LoadedScales | None) -> Slice:
        """The weights ``wq`` of a UB tile, which begins at ``line`` of this AIV's share, as the Cube takes them."""
        raise NotImplementedError

    def cube_scales(self, place: OutputTile, first: Expr) -> Loader | None:
        """Loader of the scales that the Cube applies itself, for K ranges counted from ``first``."""
        return None


class Dequantized(Weights):
    """``bf16((q + offset) * scale)``: Vector applies all scales."""

    def scales(self, columns: Columns) -> Scales:
        return Scales(self.ctx, columns)

    def convert(self, wq: Slice, line: Expr, scales: LoadedScales | None) -> Slice:
        assert scales is not None
        ctx, kb, lay = self.ctx, self.ctx.kb, self.ctx.layout
        shape, (size, run) = ctx.ub_shape, wq.sizes
        here = at(0, size), at(0, run)
        w32 = kb.buffer("w32", "UB", "fp32", shape)
        if lay.spans == 1:
            with kb.vf(ctx.chip.vector.vf):
                widen(kb, ctx.chip, shape, wq, w32[here])
                scales.apply(w32[here], w32[here], line, run, scales.group_of(line))
                wb = kb.buffer("wb", "UB", "bf16", shape, ctx.tile.ub_ring)[here]
                kb.op("cast", wb, w32[here], round="rint")
            return wb
        with kb.vf(ctx.chip.vector.vf):
            widen(kb, ctx.chip, shape, wq, w32[here])
        # Group after group into another buffer, so that no group waits for the one before.
        wf = kb.buffer("wf", "UB", "fp32", shape)
        each, lines = lay.group or 1, run if lay.transposed else size
        with kb.tiles("j", lines, each) as j:
            piece = (at(0, size), j) if lay.transposed else (j, at(0, run))
            scales.apply(wf[piece], w32[piece], line, run, scales.group_of(line) + j.number)
        wb = kb.buffer("wb", "UB", "bf16", shape, ctx.tile.ub_ring)[here]
        kb.op("cast", wb, wf[here], round="rint")
        return wb


#: The dequantizing dataflows.
DEQUANT = register_gemm(["dequant-int8", "dequant-int4", "dequant-mxfp4"], DequantTiling, build)
