"""The parameters of a dataflow whose weights Vector only converts, and what they must satisfy."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling
from msdsim.dataflows.gemm.weight_ring import WeightRing
from msdsim.errors import TilingError
from msdsim.units import ceil_div


@dataclass(frozen=True)
class ConvertTiling(DequantTiling):
    """That of a dequantizing dataflow; ``sums`` slots of the ring in which sums go from the Cube to Vector, which scales
    ``merge_m`` rows of them at a time.  ``sums_direct`` 1 puts that ring into UB, where the chip has the path, 0 into GM."""

    merge_m: int = 1
    sums: int = 2
    sums_direct: int = 0


@dataclass(frozen=True)
class Packs:
    """How K is cut into what the Cube sums up, and into what it hands over at a time (a pack).

    ``group`` is K of one sum (None: all K of a part).  A pack is a slot of weights with whole groups in it, or a group of
    several slots: ``slots`` of weights, ``groups`` of sums, ``count`` packs in a part.
    """

    group: int | None
    slots: int
    groups: int
    count: int

    @classmethod
    def of(cls, g: WeightRing) -> Packs:
        """Those of a kernel; TilingError where slots, parts of K and groups do not fit each other."""
        group, slot_k = g.scheme.group(g.problem.group), g.tile.slot_k
        if group is None or group >= g.part_k == g.problem.k:
            # One group of all K has one sum, scaled like any other.
            return cls(group, g.k_slots, 1, 1)
        if slot_k % group and group % slot_k:
            raise TilingError(f"tiling slot_k={slot_k} cuts groups of {group} along k unevenly; give a multiple or a divisor "
                              f"of {group}")
        if g.k_parts > 1 and (g.part_k * g.k_parts != g.problem.k or g.part_k % max(group, slot_k)):
            raise TilingError(f"tiling k_parts={g.tile.k_parts} cuts K={g.problem.k} into parts of {g.part_k}, not whole "
                              f"groups of {group} and slots of {slot_k}; give another number of parts, or 1")
        slots = max(1, group // slot_k)
        return cls(group, slots, max(1, slot_k // group), ceil_div(g.k_slots, slots))


def check_sums(g: WeightRing, tile: ConvertTiling) -> None:
    """TilingError for what the ring of sums does not allow."""
    require_positive(tile, "direct", "sums_direct")
    most = g.chip.cross_core.max_outstanding
    if tile.sums > most:
        raise TilingError(f"tiling sums={tile.sums} needs more than the {most} outstanding signals of '{g.chip.name}'; give at "
                          f"most {most}")
    if tile.sums_direct and g.chip.path("L0C", "UB") is None:
        raise TilingError(f"tiling sums_direct={tile.sums_direct}: chip '{g.chip.name}' has no path L0C->UB; give "
                          f"sums_direct=0")
