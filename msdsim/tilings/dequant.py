"""Tiles of the dequantizing dataflows: where the ring of dequantized weights lies, and how deep its slots are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from msdsim.dataflows.cube.operands import GemmShape, element_bits
from msdsim.dataflows.gemm.dequant import DEQUANT
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling
from msdsim.dataflows.gemm.weight_layout import SMALLEST_PART, Layout
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.vector import lanes
from msdsim.ir.ops.mx import DECODE_FP4
from msdsim.ir.ops.vector import vector_casts
from msdsim.tilings.base import choose_for
from msdsim.tilings.cube import CubeChoice, CubeWork, choose_band, choose_cube_tiles, choose_parts, estimate_cycles
from msdsim.units import ceil_div, round_up

#: K of one ring slot in GM when one tile of rows uses it.  The vendor's kernels step K by 512; half of that shortens the tail
#: after the last slot, but of transposed weights it would read half a line of L2 at a time.
_SLOT_K, _SHORT_SLOT_K = 512, 256
#: Bytes of a ring slot in L1: the vendor's kernels have slots of 12 to 16 KiB for each AIV, of a smaller tile.
_SLOT_BYTES = 65536
_SLOTS = 4


def choose(problem: GemmShape, chip: Chip, scheme: Scheme) -> DequantTiling:
    """Cube tiles of ``bf16``.

    Through GM: a ring of four slots, or of the whole K and two more slots where several tiles of rows share the dequantized
    columns; slots and L1 tiles end where lines of L2 do, if they can.  Through L1: a ring of 64 KiB slots, and every tile of
    rows dequantizes anew, where the chip has the path and Vector then still is no slower than the Cube.  UB tiles are the
    largest that fit, all of about one size.
    """
    def choose(parts: int) -> tuple[DequantTiling, float]:
        found = _direct(problem, chip, scheme, parts)
        return found if found is not None else _through_gm(problem, chip, scheme, parts)

    # Groups of scales never straddle parts of K.
    tile, parts = choose_parts(chip, CubeWork.of(problem, out_bytes=2), choose, scheme.group(problem.group) or 1)
    tile = replace(tile, k_parts=parts)
    return replace(tile, vector_k=Layout(problem, chip, tile, scheme).largest_tile())


def _direct(problem: GemmShape, chip: Chip, scheme: Scheme,
            parts: int) -> tuple[DequantTiling, float] | None:
    """Tiles for a ring in L1 with K in ``parts``, and the cycles they may take; None where the chip has no path or Vector would
    become the slowest unit by it."""
    if chip.path("UB", "L1") is None:
        return None
    wide = element_bits(scheme.cube[1]) // 8
    work = CubeWork.of(problem, out_bytes=2, vector_per_weight=_vector_cycles(chip, scheme), ring_in_l1=True,
                       stored_bits=element_bits(scheme.weights))
    work = work.split(parts) if parts > 1 else work
    c = choose_cube_tiles(chip, scheme.cube, work)
    m_tiles, n_tiles = ceil_div(problem.m, c.base_m), ceil_div(problem.n, c.base_n)
    vector = c.base_n * work.vector_per_weight / chip.cores.aiv_per_aic
    rate = chip.cube.rate(*scheme.cube)
    assert rate is not None
    cube = ceil_div(c.base_m, 16) * ceil_div(c.base_n, 16) / rate.fractal_k
    if m_tiles > 1 and vector > cube:
        return None
    target = max(16, _SLOT_BYTES // (c.base_n * wide) // 16 * 16)
    while True:
        slot_k = _slot_k(problem, chip, scheme, min(target, round_up(work.k, 16)), at_least=False)
        # An L1 tile of A is as deep as a slot, in whole L0 tiles.
        l0_k = max(rate.fractal_k, min(c.l0_k, 1 << (slot_k.bit_length() - 1)))
        l1_k = round_up(slot_k, l0_k)
        # Beside the ring, two tiles of A and, for MX, of the scales of both.
        room = chip.buffers.l1_bytes - 2 * l1_k * (c.base_m * wide + (c.base_m + c.base_n) // MX_BLOCK)
        slots = min(_SLOTS, room // (slot_k * c.base_n * wide))
        if slots >= 2:
            break
        # Shallower slots, as long as they become shallower.
        target //= 2
        if target < 16:
            return None
    stored = element_bits(scheme.weights) / 8
    band = choose_band(m_tiles, n_tiles, chip.cores.aic, (wide * c.base_m * problem.k, stored * c.base_n * problem.k),
                       chip.l2.capacity_bytes)
    tile = DequantTiling(c.base_m, c.base_n, l1_k, l0_k, slot_k, slots, 1, l0c_ring=c.l0c_ring, direct=1, band=band)
    return tile, estimate_cycles(chip, scheme.cube, c, work)


def _through_gm(problem: GemmShape, chip: Chip, scheme: Scheme,
                parts: int) -> tuple[DequantTiling, float]:
    """Tiles for a ring in GM with K in ``parts``, and the cycles they may take."""
    work = CubeWork.of(problem, out_bytes=2, own_columns=True, vector_per_weight=_vector_cycles(chip, scheme),
                       stored_bits=element_bits(scheme.weights))
    work = work.split(parts) if parts > 1 else work
    c = choose_cube_tiles(chip, scheme.cube, work)
    several = problem.m > c.base_m
    # As shallow as a ring of the whole K allows where slots end with lines of L2, so that the first products begin early.
    # Slots that end inside a line, as some groups of scales have it, cost requests: few of them then.
    most = chip.cross_core.max_outstanding - 2
    line_k = chip.l2.line_bytes * 8 // element_bits(scheme.cube[0])
    slot_k = _gm_slot(problem, chip, scheme, work.k, _SLOT_K if problem.trans_b else _SHORT_SLOT_K, most, line_k, several)
    if slot_k % line_k:
        slot_k = _gm_slot(problem, chip, scheme, work.k, _SLOT_K, most // 2, 1, several)
    slots = ceil_div(work.k, slot_k) + 2 if several else _SLOTS
    tile = DequantTiling(c.base_m, c.base_n, _l1_depth(chip, c, slot_k, scheme.cube, line_k), c.l0_k, slot_k, slots, 1,
                         l0c_ring=c.l0c_ring)
    return tile, estimate_cycles(chip, scheme.cube, c, work)


def _gm_slot(problem: GemmShape, chip: Chip, scheme: Scheme, k: int, least: int, most: int, multiple: int,
             several: bool) -> int:
    """K of a slot of a ring in GM: ``least``, or more where ``several`` tiles of rows need all of ``k`` in at most ``most``
    slots; rounded up to a ``multiple``, then to what groups of scales allow."""
    target = round_up(max(least, ceil_div(k, most)) if several else least, multiple)
    return _slot_k(problem, chip, scheme, min(target, round_up(k, 16)), at_least=several)


def _l1_depth(chip: Chip, c: CubeChoice, slot_k: int, formats: tuple[str, str], line_k: int) -> int:
    """K of an L1 tile, about that of ``c``: an even part of a slot whose rows of A cross no line (of ``line_k`` elements)
    needlessly, since a slot that ends in a shorter tile, or rows off the lines, cost requests.  That of ``c`` where slots
    themselves end inside a line."""
    if slot_k % line_k:
        return c.l1_k
    per_k = DequantTiling.l1_ring * (c.base_m * element_bits(formats[0]) + c.base_n * element_bits(formats[1])) // 8
    parts = [d for d in range(c.l0_k, chip.buffers.l1_bytes // per_k + 1, c.l0_k)
             if slot_k % d == 0 and (d % line_k == 0 or line_k % d == 0)]
    deep = [d for d in parts if d >= c.l1_k]
    return min(deep) if deep else max(parts, default=c.l1_k)


def _vector_cycles(chip: Chip, scheme: Scheme) -> float:
    """Vector cycles for each weight, roughly: to 16 bits and to FP32, the product with the scale, the last conversion."""
    ops = [("cast", 16), ("cast", 32), ("cast", 32)]
    if scheme.cube[1] == "bf16":
        ops.append(("mul", 32))
    if scheme.mx_weights and ("fp4_e2m1", "bf16") not in vector_casts(chip):
        ops += [(op, bits) for op, bits, _ in DECODE_FP4][1:]
    return sum(chip.vector.ops[op].slope_cycles_per_repeat / lanes(chip, bits) for op, bits in ops)


def _slot_k(problem: GemmShape, chip: Chip, scheme: Scheme, target: int, at_least: bool) -> int:
    """K of a slot, about ``target``.  Where weights are transposed, an AIV takes columns and all K of a slot."""
    parts = 1 if problem.trans_b else chip.cores.aiv_per_aic
    if scheme.mx_weights:
        target = round_up(target, parts * MX_BLOCK)
    return parts * _share(ceil_div(target, parts), scheme.group(problem.group), at_least)


def _share(target: int, group: int | None, at_least: bool) -> int:
    """K of a slot that one AIV takes: about ``target``, such that groups of scales do not straddle it."""
    if group is None:
        return target
    if group <= target:
        return (ceil_div(target, group) if at_least else target // group) * group
    if at_least:
        return next(d for d in range(target, group + 1) if group % d == 0)
    part = next(d for d in range(target, 0, -1) if group % d == 0)
    return part if part >= target * SMALLEST_PART else group


for _scheme in DEQUANT:
    choose_for(_scheme.name, partial(choose, scheme=_scheme))
