"""Multi-Scale Dequant: Vector splits the BF16 activations into components in the weights' kind of format (integers with one
scale per row, or MX blocks), Cube multiplies them with the weights as they are.

Three phases on a core group.  *Split*: every AIV takes rows of x, finds the row maximum and writes the components and the row
scale; then all cores meet at a barrier, behind which the first weight tiles have already been fetched.  *Multiply*: AICs
stack the components of a tile of rows on top of each other, so that weights are read once for all passes; their results
go to a small ring in GM, or in UB where the chip has the path.  *Merge*: the AIVs of the group combine the components, scale
and round.
"""

from __future__ import annotations

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.gemm.msd_merge import Merge
from msdsim.dataflows.gemm.msd_multiply import Multiply
from msdsim.dataflows.gemm.msd_split import RowSplit
from msdsim.dataflows.gemm.msd_tiling import MsdTiling, check_tiling
from msdsim.dataflows.gemm.mx_split import split_mx
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Kernel, ragged

#: Steps by which the merge stays behind the split when preloading.
_LAG = 2


def build(problem: GemmShape, chip: Chip, tile: MsdTiling, scheme: Scheme) -> Kernel:
    """The kernel: of the pipelines below the one that fits the scales, or that the tiling asks for."""
    check_tiling(problem, chip, tile, scheme)
    ctx = MsdContext(problem, chip, tile, scheme)
    if tile.stepwise:
        _stepwise(ctx)
    elif ctx.k_parts > 1:
        _split_k(ctx)
    elif ctx.group is not None:
        _per_group(ctx)
    else:
        _whole_k(ctx)
    return ctx.kb.build()


def _whole_k(ctx: MsdContext) -> None:
    """Scales per channel, or MX blocks: one product a tile::

        AIV:  components <- split x;  [all cores meet]
        AIC:  every tile:  acc = components x weights;  ring <- acc
        AIV:  every tile:  y <- merge of the ring
    """
    kb, sums, cube, merge = ctx.kb, ctx.ring, Multiply(ctx), Merge(ctx)
    with kb.part("aic"):
        cube.prologue()
        held = cube.hold() if ctx.tile.a_resident else None
        with ctx.each_tile() as (t, place):
            acc = cube.tile_product(t, place, held)
            with sums.produce_pack():
                sums.drain(ctx.turn(t), place, acc)
        sums.ring.drain()
    with kb.part("aiv"):
        _split(ctx)
        sums.ring.prime()
        with ctx.each_tile() as (t, place):
            share = ctx.share(place)
            per_column = merge.per_column(share)
            with sums.ring.consume(), kb.tiles("r", share.rows, ctx.tile.merge_m) as rows:
                merge.rows(t, share, rows, per_column)


def _per_group(ctx: MsdContext) -> None:
    """Scales per group of K: every group has a product of its own.  A ring in GM hands over all groups of an L1 tile (a pack)
    at a time, one in UB every group::

        AIV:  components <- split x;  [all cores meet]
        AIC:  every tile:  every pack:  ring <- products of its groups
        AIV:  every tile:  every pack:  sums += products x scales;     y <- sums
    """
    kb, sums, cube, merge = ctx.kb, ctx.ring, Multiply(ctx), Merge(ctx)
    with kb.part("aic"):
        cube.prologue()
        with ctx.each_tile() as (t, place), kb.loop("p", 0, ctx.packs) as p, sums.produce_pack():
            cube.pack(t, place, p)
        sums.ring.drain()
    with kb.part("aiv"):
        _split(ctx)
        sums.ring.prime()
        with ctx.each_tile() as (t, place):
            share, totals = ctx.share(place), merge.totals(1)
            with kb.loop("p", 0, ctx.packs) as p, sums.consume_pack():
                merge.pack(t, share, p, totals, Const(0))
            merge.finish(share, totals, Const(0))


def _split_k(ctx: MsdContext) -> None:
    """Split-K: ``k_parts`` cores share a tile; the merge waits for all of them and adds up their sums first::

        AIV:  components <- split x;  [all cores meet]
        AIC:  every part of every tile:  products[tile, part] <- components x weights;  [all cores meet]
        AIV:  every share of every tile:  y <- merge of the sum over the parts
    """
    kb, cube, merge = ctx.kb, Multiply(ctx), Merge(ctx)
    with kb.part("aic"):
        cube.prologue()
        with kb.each_core("t", ctx.grid.tiles * ctx.k_parts) as unit, ctx.grid.place(kb, unit // ctx.k_parts) as place:
            cube.part_product(unit, place)
        kb.raise_signal("summed", "FIX")
    with kb.part("aiv"):
        _split(ctx)
        kb.wait_signal("summed", "MTE2")
        pieces = ctx.shares.aivs
        with kb.each_aiv("u", ctx.grid.tiles * pieces) as unit, ctx.grid.place(kb, unit // pieces) as place:
            t, share = unit // pieces, ctx.shares.of(place, unit % pieces)
            per_column = merge.per_column(share)
            with kb.tiles("r", share.rows, ctx.tile.merge_m) as rows:
                merge.rows(t, share, rows, per_column)


def _stepwise(ctx: MsdContext) -> None:
    """Groups of K are split, multiplied and merged an L1 tile at a time, the row statistics being taken first::

        basic:    for i: split i;  [all cores meet]  multiply i;  merge i
        preload:  for i: split i;  [all cores meet]  multiply i;  merge i - 2

    In ``basic`` Vector and Cube wait for each other at every step; in ``preload`` Vector splits step i while Cube multiplies
    step i - 1, and merges step i - 2 after that.
    """
    kb, ring = ctx.kb, ctx.ring.ring
    cube, split, merge = Multiply(ctx), RowSplit(ctx), Merge(ctx)
    with kb.part("aic"):
        cube.prefetch()
        with kb.loop("p", 0, ctx.packs) as p, ring.produce():
            with kb.when(kb.core >= ctx.grid.tiles):
                kb.wait_signal("split_done", "MTE2")
            with ctx.each_tile() as (t, place):
                cube.pack(t, place, p)
        ring.drain()
    with kb.part("aiv"):
        split.emit()
        kb.meet("stats_done")
        ring.prime()
        totals = merge.totals(ctx.tiles_per_core)
        lag = _LAG if ctx.tile.preload else 0
        with kb.loop("i", 0, ctx.packs + lag) as i:
            with kb.when(i < ctx.packs):
                split.step(i * ctx.pack_k, ragged(ctx.problem.k, ctx.pack_k, i), ctx.pack_k)
                kb.raise_signal("split_done", "MTE3")
            with kb.when(i >= lag):
                step = i - lag
                with ring.consume(), ctx.each_tile() as (t, place):
                    merge.pack(t, ctx.share(place), step, totals, ctx.turn(t) * ctx.shares.rows)
        with ctx.each_tile("tf") as (t, place):
            merge.finish(ctx.share(place), totals, ctx.turn(t) * ctx.shares.rows)


def _split(ctx: MsdContext) -> None:
    """All components, before anyone multiplies or merges; nothing where they are given."""
    if ctx.given:
        return
    if ctx.scheme.mx:
        assert ctx.block_scales is not None
        assert ctx.components is not None
        split_mx(ctx.kb, ctx.problem, ctx.scheme, ctx.x, ctx.components, ctx.block_scales, ctx.tile)
    else:
        RowSplit(ctx).emit()
    ctx.kb.meet("split_done")


def _refuse(problem: GemmShape, scheme: Scheme) -> str | None:
    """Why integer components cannot be multiplied, or None."""
    depth = min(problem.k, problem.group or problem.k)
    if not scheme.mx and depth > scheme.max_k:
        what = f"k={problem.k}" if problem.group is None else f"group={problem.group}"
        return f"{what} can overflow the INT32 accumulator (at most {scheme.max_k}); use smaller groups or 'bf16'"
    if not scheme.mx and FORMATS[scheme.component].bits < 8 and problem.group is not None and problem.group % 2:
        return f"groups of {problem.group} start in the middle of a byte of packed {scheme.component}; use an even group"
    return None


#: The family.
MSD = register_gemm(["msd-int8", "msd-int4", "msd-mxfp4", "w8a8", "a8w4"], MsdTiling, build, _refuse)
