"""Tiles of Multi-Scale Dequant: over stacked rows on the Cube, as large as UB holds on Vector."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import lcm

from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.operands import GemmShape, element_bits, k_groups
from msdsim.dataflows.gemm import msd_merge, msd_split, mx_split
from msdsim.dataflows.gemm.msd import MSD
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.gemm.msd_tiling import MsdTiling
from msdsim.errors import TilingError
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.tilings.base import choose_for
from msdsim.tilings.cube import CubeWork, choose_band, choose_cube_tiles, choose_split_k
from msdsim.units import bytes_per_tick, ceil_div, round_up

#: Ring depth of the numbers per column, that of UB's rings.
_PER_COLUMN_RING = MsdTiling.ub_ring


def choose(problem: GemmShape, chip: Chip, kind: Scheme) -> MsdTiling:
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
        c, k_parts = choose_cube_tiles(chip, kind.cube, work), 1
    else:
        c, k_parts = choose_split_k(chip, kind.cube, work)
    if k_parts > 1:
        direct = 0
    bits_a, bits_b = (element_bits(fmt) for fmt in kind.cube)
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
        split = mx_split_tile(chip, room, problem.m, problem.k, tile_rows, kind.component, passes, tile.ub_ring)
        tile = replace(tile, split_m=split[0], split_k=split[1])
    else:
        tile = _split_tile(problem, chip, kind, tile, room)
    return replace(tile, merge_m=_merge_rows(problem, chip, kind, tile), prefetch=_prefetch(problem, chip, kind, tile))


def _prefetch(problem: GemmShape, chip: Chip, kind: Scheme, tile: MsdTiling) -> int:
    """Weight tiles that HBM can deliver to all cores while Vector splits, beside the first, which is loaded in any case."""
    form = 26 if tile.passes > 1 else 14
    split = ceil_div(Experts(problem).total_rows, chip.aiv) * problem.k * form / FOLD_LANES
    rate = float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz)) / chip.cores.aic
    tiles = split * rate / (tile.l1_k * tile.base_n * FORMATS[kind.weights].bits / 8)
    return max(0, min(3, int(tiles)))


def _per_column(problem: GemmShape, kind: Scheme) -> int:
    """Rows of numbers per column that the merge needs for each group: scales, offsets, the constant of nibbles."""
    return 0 if kind.mx else 1 + int(problem.offset) + int(kind.nibbles)


def _split_tile(problem: GemmShape, chip: Chip, kind: Scheme, tile: MsdTiling, room: int) -> MsdTiling:
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


def _split_depth(problem: GemmShape, chip: Chip, kind: Scheme, tile: MsdTiling, split_m: int, room: int) -> int:
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


def _merge_rows(problem: GemmShape, chip: Chip, kind: Scheme, tile: MsdTiling) -> int:
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


def mx_split_tile(chip: Chip, room: int, m: int, k: int, tile_rows: int, element: str, passes: int,
                  ub_ring: int) -> tuple[int, int]:
    """Rows and K of a split tile: tiles for all AIVs, of at least a few KiB, that fit ``room`` bytes of UB."""
    each = 2 * ub_ring + 4 + 4 + 2 + passes * FORMATS[element].bits / 8 + (4 + passes) / MX_BLOCK
    most = int((room - 2048) / each)
    wanted = max(1024, ceil_div(m * k, chip.aiv))
    deepest = max(mx_split.QUANTUM, min(most, wanted) // mx_split.QUANTUM * mx_split.QUANTUM)
    split_k = min(round_up(k, mx_split.QUANTUM), deepest)
    split_m = max(1, min(tile_rows, m, min(most, wanted) // split_k))
    return split_m, split_k


for _kind in MSD:
    choose_for(_kind.name, partial(choose, kind=_kind))
