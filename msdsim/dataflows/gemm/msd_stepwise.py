"""MSD step by step: groups of K are split, multiplied and merged an L1 tile at a time.

Before: split all of K; multiply; merge.  After, with the row statistics taken first::

    basic:    for i: split i;  [all cores meet]  multiply i;  merge i
    preload:  for i: split i;  [all cores meet]  multiply i;  merge i - 2

In ``basic`` Vector and Cube wait for each other at every step; in ``preload`` Vector splits step i while Cube multiplies step
i - 1, and merges step i - 2 after that.
"""

from __future__ import annotations

from msdsim.dataflows.cube.operands import ragged
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.vector.merge import Merge, Share
from msdsim.dataflows.vector.split_rows import Split

#: Steps by which the merge stays behind the split when preloading.
_LAG = 2


def emit_steps(ctx: MsdContext) -> None:
    """Emit the AIV part."""
    kb, tile = ctx.kb, ctx.tile
    split, merge = Split(ctx), Merge(ctx)
    split.emit()
    kb.raise_signal("stats_done", "MTE3")
    kb.wait_signal("stats_done", "MTE2")
    with kb.loop("s", 0, tile.slots):
        kb.raise_signal("merged", "MTE2")
    sums = merge.sums(ctx.tiles_per_core)
    lag = _LAG if tile.preload else 0
    with kb.loop("i", 0, ctx.packs + lag) as i:
        with kb.when(i < ctx.packs):
            split.step(i * ctx.pack_k, ragged(ctx.problem.k, ctx.pack_k, i), ctx.pack_k)
            kb.raise_signal("split_done", "MTE3")
        with kb.when(i >= lag):
            step = i - lag
            kb.wait_signal("product", "MTE2")
            with kb.loop("t", kb.core, ctx.grid.tiles, ctx.cores) as t, ctx.grid.place(kb, t) as place:
                merge.pack(Share(ctx, t, place), step, sums, t // ctx.cores * ctx.share_rows)
            kb.raise_signal("merged", "MTE2")
    with kb.loop("tf", kb.core, ctx.grid.tiles, ctx.cores) as t, ctx.grid.place(kb, t) as place:
        merge.finish(Share(ctx, t, place), sums, t // ctx.cores * ctx.share_rows)
