"""Multi-Scale Dequant: Vector splits the BF16 activations into components in the weights' kind of format (integers with one
scale per row, or MX blocks), Cube multiplies them with the weights as they are.

Three phases on a core group.  *Split*: every AIV takes rows of x, finds the row maximum and writes the components and the row
scale; then all cores meet at a barrier, behind which the first weight tiles have already been fetched.  *Multiply*: AICs
stack the components of a tile of rows on top of each other, so that weights are read once for all passes; their results
go to a small ring in GM.  *Merge*: the AIVs of the group combine the components, scale and round.  With scales per group of K
every group gives a result of its own, and the merge adds them up.
"""

from __future__ import annotations

from functools import partial

from msdsim.dataflows.base import require_multiple, require_positive
from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.limits import check_cube_tiling, refuse_packed, refuse_rate, refuse_scales
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape
from msdsim.dataflows.gemm.msd_context import MsdContext, MsdTiling
from msdsim.dataflows.gemm.msd_multiply import Multiply
from msdsim.dataflows.gemm.msd_stepwise import emit_steps
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.vector import merge, split_mx, split_rows
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import SCHEMES, Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Kernel


def build(problem: GemmShape, chip: Chip, tile: MsdTiling, kind: Scheme) -> Kernel:
    """See the module's text for the dataflow."""
    require_positive(tile, "prefetch", "direct", "stepwise", "preload", "a_resident")
    if tile.k_parts > 1 and (problem.group is not None or tile.direct):
        raise TilingError(f"tiling k_parts={tile.k_parts} adds up sums through GM: it needs direct=0, and one scale per "
                          f"channel or MX blocks")
    held = None
    if tile.a_resident:
        whole = problem.m <= tile.base_m // tile.passes and not Experts(problem).several
        if problem.group is not None or kind.mx or tile.k_parts > 1 or not whole:
            raise TilingError(f"tiling a_resident={tile.a_resident} holds one tile of integer components in L1: it needs "
                              f"{problem.m} rows in a tile (base_m), one scale per channel, k_parts=1 and no experts")
        held = tile.base_m * problem.k * FORMATS[kind.component].bits // 8
    if tile.stepwise and (problem.group is None or problem.group > tile.l1_k or tile.direct):
        raise TilingError(f"tiling stepwise={tile.stepwise} takes groups of scales an L1 tile at a time through GM: it needs a "
                          f"group= of at most l1_k={tile.l1_k} and direct=0")
    if tile.direct and chip.path("L0C", "UB") is None:
        raise TilingError(f"tiling direct={tile.direct}: chip '{chip.name}' has no path L0C->UB; give direct=0")
    check_cube_tiling(chip, tile, CubeOperands(*kind.cube), held_a_bytes=held, group=problem.group)
    if not kind.free_passes and tile.passes != kind.passes:
        raise TilingError(f"tiling passes={tile.passes}: '{kind.name}' has {kind.passes}; leave it out")
    if tile.base_m % tile.passes:
        raise TilingError(f"tiling base_m={tile.base_m} does not hold {tile.passes} stacked components; "
                          f"give a multiple of {tile.passes}")
    if tile.slots > chip.cross_core.max_outstanding:
        raise TilingError(f"tiling slots={tile.slots} needs more than the {chip.cross_core.max_outstanding} outstanding "
                          f"signals of '{chip.name}'; give at most {chip.cross_core.max_outstanding}")
    ctx = MsdContext(problem, chip, tile, kind)
    kb = ctx.kb
    with kb.part("aic"):
        Multiply(ctx).emit()
    with kb.part("aiv"):
        if tile.stepwise:
            emit_steps(ctx)
        else:
            if kind.mx:
                _split_blocks(ctx)
            else:
                split_rows.Split(ctx).emit()
            kb.raise_signal("split_done", "MTE3")
            merge.Merge(ctx).emit()
    return kb.build()


def _split_blocks(ctx: MsdContext) -> None:
    tile, spec, problem = ctx.tile, ctx.kind.spec, ctx.problem
    assert ctx.block_scales is not None
    if tile.split_k % split_mx.QUANTUM:
        require_multiple(tile, "split_k", split_mx.QUANTUM, "two blocks fill a repeat of Vector")
    split_mx.MxSplit(
        ctx.kb, ctx.chip, ctx.x, ctx.components, ctx.block_scales, problem.k, ctx.experts, ctx.tile_rows,
        ctx.kind.component, tile.passes, spec.scale_rule, tile.split_m, tile.split_k, tile.ub_ring,
    ).emit()


def _refuse(problem: GemmShape, chip: Chip, kind: Scheme) -> str | None:
    if kind.mx:
        return (refuse_rate(chip, kind.cube) or refuse_scales(problem, kind.name)
                or refuse_packed(problem, kind.weights))
    depth = min(problem.k, problem.group or problem.k)
    if depth > kind.max_k:
        what = f"k={problem.k}" if problem.group is None else f"group={problem.group}"
        return f"{what} can overflow the INT32 accumulator (at most {kind.max_k}); use smaller groups or 'bf16'"
    if FORMATS[kind.component].bits < 8 and problem.group is not None and problem.group % 2:
        return f"groups of {problem.group} start in the middle of a byte of packed {kind.component}; use an even group"
    return refuse_rate(chip, kind.cube) or refuse_packed(problem, kind.weights)


#: The family.
MSD = [SCHEMES[name] for name in ("msd-int8", "msd-int4", "msd-mxfp4", "w8a8", "a8w4")]
for _scheme in MSD:
    register_gemm(_scheme, MsdTiling, partial(_refuse, kind=_scheme), partial(build, kind=_scheme))
