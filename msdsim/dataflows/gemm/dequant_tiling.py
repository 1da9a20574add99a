"""The parameters of a dataflow whose weights Vector makes, and what they must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msdsim.dataflows.cube.limits import check_cube_tiling
from msdsim.dataflows.cube.operands import CubeOperands
from msdsim.errors import TilingError
from msdsim.formats.mx import element_bits
from msdsim.hardware.chip import Chip
from msdsim.units import ceil_div


@dataclass(frozen=True)
class DequantTiling:
    """Cube tiles as in ``bf16``; ``slot_k`` of K and ``slots`` of the ring; ``vector_k`` rows of the stored weights in a UB
    tile.

    ``direct`` 1 puts the ring into L1: AIVs write there straight from UB, every tile of rows dequantizes its weights anew, and
    output tiles are taken in bands of ``swizzle`` tiles of rows.  0 puts it into GM, where tiles of rows share the weights.

    ``k_parts`` core groups share the K of a tile (:mod:`~msdsim.dataflows.vector.add_parts`).
    """

    RENAMED: ClassVar = {"band": "swizzle"}

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    slot_k: int
    slots: int
    vector_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2
    ub_ring: int = 2
    direct: int = 0
    swizzle: int = 1
    k_parts: int = 1


def check_tiling(chip: Chip, tile: DequantTiling, kinds: CubeOperands, m_tiles: int, k_slots: int,
                 group: int | None = None) -> None:
    """TilingError for what does not fit the chip, or ``m_tiles`` tiles of rows that share ``k_slots`` slots of K.

    ``group`` is the K of a sum of its own where a slot holds whole ones."""
    most = chip.cross_core.max_outstanding
    slot_bytes = tile.slot_k * tile.base_n * element_bits(kinds.b) // 8
    if tile.direct and chip.path("UB", "L1") is None:
        raise TilingError(f"tiling direct={tile.direct}: chip '{chip.name}' has no path UB->L1; give direct=0")
    check_cube_tiling(chip, tile, kinds, held_b_bytes=tile.slots * slot_bytes if tile.direct else None, group=group)
    if tile.slots > most:
        raise TilingError(f"tiling slots={tile.slots} needs more than the {most} outstanding signals of "
                          f"'{chip.name}'; give at most {most}")
    if m_tiles > 1 and tile.slots < k_slots and not tile.direct:
        raise TilingError(
            f"tiling slots={tile.slots} cannot hold the {k_slots} slots of K that {m_tiles} tiles of rows share; "
            f"raise slots to {k_slots} or slot_k to at least {tile.slot_k * ceil_div(k_slots, tile.slots)}"
        )
