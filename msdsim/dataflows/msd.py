"""Multi-Scale Dequant: Vector splits the BF16 activations into components in the weights' kind of format (integers with one
scale per row, or MX blocks), Cube multiplies them with the weights as they are.

Three phases on a core group.  *Split*: every AIV takes rows of x, finds the row maximum and writes the components and the row
scale; then all cores meet at a barrier, behind which the first weight tiles have already been fetched.  *Multiply*: AICs
stack the components of a tile of rows on top of each other, so that weights are read once for all passes; their results
go to a small ring in GM.  *Merge*: the AIVs of the group combine the components, scale and round.  With scales per group of K
every group gives a result of its own, and the merge adds them up.
"""

from __future__ import annotations

from dataclasses import replace
from math import lcm

from msdsim.dataflows import msd_merge, msd_split, mx_split
from msdsim.dataflows.base import require_multiple, require_positive
from msdsim.dataflows.cube_tiles import CubeWork, choose_band, choose_cube_tiles, choose_split_k
from msdsim.dataflows.experts import Experts
from msdsim.dataflows.gemm import (
    CubeOperands,
    GemmShape,
    check_cube_tiling,
    element_bits,
    k_groups,
    refuse_packed,
    refuse_rate,
    refuse_scales,
    register_gemm,
)
from msdsim.dataflows.msd_context import MsdContext, MsdKind, MsdTiling
from msdsim.dataflows.msd_multiply import Multiply
from msdsim.dataflows.msd_steps import emit_steps
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Kernel
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.units import bytes_per_tick, ceil_div, round_up

#: Ring depth of the numbers per column, that of UB's rings.
_PER_COLUMN_RING = MsdTiling.ub_ring


def choose_tiling(problem: GemmShape, chip: Chip, kind: MsdKind) -> MsdTiling:
    """Cube tiles over the stacked rows, UB tiles as large as fit."""
    passes = kind.passes
    step = lcm(chip.cube.fractal_m, passes)
    direct = int(chip.path("L0C", "UB") is not None)
    # Bytes of an AIV's UB for each element of an output tile: what stays there while it is merged.
    kept = (1 + int(problem.offset)) * 4 / passes if problem.group is not None else 0
    kept += 4 if direct else 0
    max_tile = int(0.75 * chip.buffers.ub_bytes * chip.cores.aiv_per_aic / kept) if kept else None
    work = CubeWork.of(problem, out_bytes=4, passes=passes, step_m=step,
                       k_quantum=problem.group, max_tile=max_tile)
    if problem.group is not None:
        c, k_parts = choose_cube_tiles(chip, kind.formats, work), 1
    else:
        c, k_parts = choose_split_k(chip, kind.formats, work)
    if k_parts > 1:
        direct = 0
    bits_a, bits_b = (element_bits(fmt) for fmt in kind.formats)
    band = choose_band(ceil_div(problem.m, c.base_m // passes), ceil_div(problem.n, c.base_n), chip.cores.aic,
                       (c.base_m * problem.k * bits_a / 8, c.base_n * problem.k * bits_b / 8), chip.l2.capacity_bytes)
    l1_k = c.l1_k
    if problem.group is not None and problem.group <= l1_k:
        # The scales of an L1 tile's groups take at most a quarter of UB.
        most = chip.buffers.ub_bytes // 4 // (_PER_COLUMN_RING * 4 * _per_column(problem, kind) * c.base_n)
        l1_k = max(1, min(l1_k // problem.group, most)) * problem.group
    tile = MsdTiling(c.base_m, c.base_n, l1_k, c.l0_k, 1, FOLD_LANES, 1, passes=passes, l0c_ring=c.l0c_ring, band=band,
                     direct=direct, k_parts=k_parts)
    if MsdContext(problem, chip, tile, kind).ring_bytes > chip.buffers.ub_bytes // 2:
        tile = replace(tile, slots=1)
    room = chip.buffers.ub_bytes - MsdContext(problem, chip, tile, kind).ring_bytes
    if kind.mx:
        tile_rows = c.base_m // passes
        split = mx_split.split_tile(chip, room, problem.m, problem.k, tile_rows, kind.component, passes, tile.ub_ring)
        tile = replace(tile, split_m=split[0], split_k=split[1])
    else:
        tile = _split_tile(problem, chip, kind, tile, room)
    return replace(tile, merge_m=_merge_rows(problem, chip, kind, tile), prefetch=_prefetch(problem, chip, kind, tile))


def _prefetch(problem: GemmShape, chip: Chip, kind: MsdKind, tile: MsdTiling) -> int:
    """Weight tiles that HBM can deliver to all cores while Vector splits, beside the first, which is loaded in any case."""
    form = 26 if tile.passes > 1 else 14
    split = ceil_div(Experts(problem).total_rows, chip.aiv) * problem.k * form / FOLD_LANES
    rate = float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz)) / chip.cores.aic
    tiles = split * rate / (tile.l1_k * tile.base_n * FORMATS[kind.weights].bits / 8)
    return max(0, min(3, int(tiles)))


def _per_column(problem: GemmShape, kind: MsdKind) -> int:
    """Rows of numbers per column that the merge needs for each group: scales, offsets, the constant of nibbles."""
    return 0 if kind.mx else 1 + int(problem.offset) + int(kind.nibbles)


def _split_tile(problem: GemmShape, chip: Chip, kind: MsdKind, tile: MsdTiling, room: int) -> MsdTiling:
    """Few rows, so that all AIVs have some, and as much of K as fits: whole groups of it where offsets need their sums."""
    most = max(1, min(ceil_div(problem.m, chip.aiv), 8, tile.base_m // tile.passes))
    found = [(split_m, _split_depth(problem, chip, kind, tile, split_m, room)) for split_m in range(most, 0, -1)]
    group = problem.group
    if group is None or not problem.offset:
        return replace(tile, split_m=most, split_k=found[0][1])
    for split_m, split_k in found:
        if split_k >= problem.k:
            return replace(tile, split_m=split_m, split_k=split_k)
        if split_k >= group:
            return replace(tile, split_m=split_m, split_k=split_k // group * group)
    whole = [d for d in range(FOLD_LANES, found[0][1] + 1, FOLD_LANES) if group % d == 0]
    if not whole:
        raise TilingError(f"UB of '{chip.name}' has no room for a group of {group}, whose sums the offsets need; use a "
                          f"multiple of {FOLD_LANES}")
    return replace(tile, split_m=most, split_k=whole[-1])


def _split_depth(problem: GemmShape, chip: Chip, kind: MsdKind, tile: MsdTiling, split_m: int, room: int) -> int:
    """K of a split tile of ``split_m`` rows that fits into ``room`` bytes, in whole repeats: as few tiles as possible, all of
    about one size."""
    row = room / split_m - msd_split.bytes_per_row(k_groups(problem) if problem.offset else 1) - 64

    def most(ring: int) -> int:
        each = msd_split.bytes_per_element(tile.passes, FORMATS[kind.component].bits, ring, kind.nibbles)
        return max(1, int(row / each)) // FOLD_LANES * FOLD_LANES

    whole = replace(tile, split_m=split_m, split_k=round_up(problem.k, FOLD_LANES))
    if whole.split_k <= most(msd_split.ring_depth(MsdContext(problem, chip, whole, kind))):
        return whole.split_k
    tiles = ceil_div(problem.k, max(FOLD_LANES, most(tile.ub_ring)))
    return round_up(ceil_div(problem.k, tiles), FOLD_LANES)


def _merge_rows(problem: GemmShape, chip: Chip, kind: MsdKind, tile: MsdTiling) -> int:
    """Rows of a merge tile: as many as fit beside the sums over groups, at most an AIV's share."""
    ctx = MsdContext(problem, chip, tile, kind)
    columns = _per_column(problem, kind) * ctx.pack * 4 * tile.ub_ring * ctx.share_cols
    kept = (1 + int(problem.offset)) * 4 * ctx.share_rows * ctx.share_cols if problem.group is not None else 0
    kept += ctx.ring_bytes
    if problem.group is not None and problem.offset:
        kept += tile.ub_ring * 4 * ctx.pack * ctx.share_rows
    # A ring in UB is merged where it lies.
    products = 0 if tile.direct else ctx.k_parts * tile.passes
    row = msd_merge.bytes_per_element(products, tile.ub_ring) * ctx.share_cols
    row += msd_merge.bytes_per_row(tile.ub_ring)
    return max(1, min((chip.buffers.ub_bytes - columns - kept - 1024) // row, ctx.share_rows))


def build(problem: GemmShape, chip: Chip, tile: MsdTiling, kind: MsdKind) -> Kernel:
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
    check_cube_tiling(chip, tile, CubeOperands(*kind.formats), held_a_bytes=held, group=problem.group)
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
                msd_split.Split(ctx).emit()
            kb.raise_signal("split_done", "MTE3")
            msd_merge.Merge(ctx).emit()
    return kb.build()


def _split_blocks(ctx: MsdContext) -> None:
    tile, spec, problem = ctx.tile, ctx.kind.spec, ctx.problem
    assert ctx.block_scales is not None
    if tile.split_k % mx_split.QUANTUM:
        require_multiple(tile, "split_k", mx_split.QUANTUM, "two blocks fill a repeat of Vector")
    mx_split.MxSplit(
        ctx.kb, ctx.chip, ctx.x, ctx.components, ctx.block_scales, problem.k, ctx.experts, ctx.tile_rows,
        ctx.kind.component, tile.passes, spec.scale_rule, tile.split_m, tile.split_k, tile.ub_ring,
    ).emit()


def _max_k(kind: MsdKind) -> int:
    """Longest sum of products that INT32 holds whatever the operands are."""
    bits_a, bits_b = (FORMATS[fmt].bits for fmt in kind.formats)
    return (2**31 - 1) // 2 ** (bits_a + bits_b - 2)


def _refuse(problem: GemmShape, chip: Chip, kind: MsdKind) -> str | None:
    if kind.mx:
        return (refuse_rate(chip, kind.formats) or refuse_scales(problem, kind.name)
                or refuse_packed(problem, kind.weights))
    depth = min(problem.k, problem.group or problem.k)
    if depth > _max_k(kind):
        what = f"k={problem.k}" if problem.group is None else f"group={problem.group}"
        return f"{what} can overflow the INT32 accumulator (at most {_max_k(kind)}); use smaller groups or 'bf16'"
    if FORMATS[kind.component].bits < 8 and problem.group is not None and problem.group % 2:
        return f"groups of {problem.group} start in the middle of a byte of packed {kind.component}; use an even group"
    return refuse_rate(chip, kind.formats) or refuse_packed(problem, kind.weights)


def register_msd(kind: MsdKind, description: str) -> None:
    """Register a dataflow of this family."""
    register_gemm(kind.name, description, MsdTiling,
                  refuses=lambda problem, chip: _refuse(problem, chip, kind),
                  auto=lambda problem, chip: choose_tiling(problem, chip, kind),
                  build=lambda problem, chip, tile: build(problem, chip, tile, kind))
