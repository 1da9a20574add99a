"""Tiles of the converting dataflows: those of the dequantizing ones, slots in step with groups, tiles of the scaling."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.operands import GemmShape, element_bits
from msdsim.dataflows.gemm.convert import CONVERT
from msdsim.dataflows.gemm.convert_tiling import ConvertTiling
from msdsim.dataflows.gemm.merge_shares import MergeShares
from msdsim.dataflows.vector import row_sums
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.ops.vector import vector_casts
from msdsim.tilings import dequant
from msdsim.tilings.base import choose_for
from msdsim.units import ceil_div, part_size


def choose(problem: GemmShape, chip: Chip, scheme: Scheme) -> ConvertTiling:
    """Slots and L1 tiles hold whole groups or are even parts of one; sums go through UB where a quarter of it holds them."""
    plain = dequant.choose(problem, chip, scheme)
    tile = ConvertTiling(**asdict(plain), sums_direct=int(chip.path("L0C", "UB") is not None))
    group = scheme.group(problem.group)
    if group is not None and group < problem.k:
        slot = max(1, tile.slot_k // group) * group
        if group > tile.slot_k:
            slot = max(d for d in range(1, tile.slot_k + 1) if group % d == 0)
        l1_k = tile.l1_k // group * group if tile.l1_k >= group else tile.l1_k
        parts = tile.k_parts
        depth = part_size(problem.k, parts)
        if parts > 1 and (depth * parts != problem.k or depth % max(group, slot)):
            parts = 1
        slots = tile.slots
        if not tile.direct and problem.m > tile.base_m:
            slots = max(slots, ceil_div(depth if parts > 1 else problem.k, slot))
        tile = replace(tile, slot_k=slot, l1_k=l1_k, k_parts=parts, slots=min(slots, chip.cross_core.max_outstanding))
    shares = MergeShares(Experts(problem), tile.base_m, tile.base_n, chip.cores.aiv_per_aic)
    if tile.sums_direct and tile.sums * shares.rows * shares.cols * 4 > chip.buffers.ub_bytes // 4:
        tile = replace(tile, sums_direct=0)
    return with_vector_tiles(problem, chip, scheme, tile, shares)


def with_vector_tiles(problem: GemmShape, chip: Chip, scheme: Scheme, tile: ConvertTiling,
                      shares: MergeShares) -> ConvertTiling:
    """Rows that are scaled at a time take at most a third of UB, weights the rest."""
    group, offset, ring = scheme.group(problem.group), int(problem.offset), tile.ub_ring
    packed = 1 if group is None else max(1, tile.slot_k // group)
    kept = row_sums.room_bytes(chip) * offset + 2048 + (tile.sums_direct * tile.sums * shares.rows * shares.cols * 4)
    kept += ring * packed * shares.cols * 4 * (1 + offset) + (packed * shares.cols * 5 if scheme.mx_weights else 0)
    kept += (1 + offset) * shares.rows * shares.cols * 4 * (group is not None) + offset * ring * shares.rows * packed * 4
    per_row = shares.cols * (ring * (2 + 4 * (not tile.sums_direct)) + 4 * offset) + 8 * offset
    room = chip.buffers.ub_bytes - kept
    merge_m = max(1, min(shares.rows, room // 3 // per_row))
    room -= merge_m * per_row
    lines, run = (tile.base_n, tile.slot_k) if problem.trans_b else (tile.slot_k, tile.base_n)
    share = ceil_div(lines, chip.cores.aiv_per_aic)
    at_once = (scheme.weights, "bf16") in vector_casts(chip)
    each = ring * (element_bits(scheme.weights) / 8 + 2) + (0 if at_once else 2 + 4)
    most = max(1, min(share, int(room / (each * run))))
    return replace(tile, merge_m=ceil_div(shares.rows, ceil_div(shares.rows, merge_m)),
                   vector_k=ceil_div(share, ceil_div(share, most)))


for _scheme in CONVERT:
    choose_for(_scheme.name, partial(choose, scheme=_scheme))
