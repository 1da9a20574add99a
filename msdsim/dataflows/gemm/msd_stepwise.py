"""MSD step by step: groups of K are split, multiplied and merged an L1 tile at a time.

Before: split all of K; multiply; merge.  After, with the row statistics taken first::

    basic:    for i: split i;  [all cores meet]  multiply i;  merge i
    preload:  for i: split i;  [all cores meet]  multiply i;  merge i - 2

In ``basic`` Vector and Cube wait for each other at every step; in ``preload`` Vector splits step i while Cube multiplies step
i - 1, and merges step i - 2 after that.
"""

from __future__ import annotations

from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.gemm.msd_merge import Merge
from msdsim.dataflows.gemm.msd_multiply import Multiply
from msdsim.dataflows.gemm.msd_split import RowSplit
from msdsim.ir import ragged

#: Steps by which the merge stays behind the split when preloading.
_LAG = 2


def stepwise(ctx: MsdContext) -> None:
    """Both programs."""
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
