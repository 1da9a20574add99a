"""The parameters of a dataflow whose weights Vector makes: what they must satisfy, and how an AIV walks over a ring slot."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.base import require_path, require_slots
from msdsim.dataflows.cube.limits import check_cube_tiling
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape
from msdsim.dataflows.gemm.register import GemmTiling
from msdsim.errors import TilingError
from msdsim.formats.mx import element_bits
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.units import ceil_div


@dataclass(frozen=True, kw_only=True)
class DequantTiling(GemmTiling):
    """Tiles of a GEMM; ``slot_k`` of K and ``slots`` of the ring; ``vector_k`` rows of the stored weights in a UB tile.

    ``direct`` 1 puts the ring into L1: AIVs write there straight from UB, and every tile of rows dequantizes its weights anew.
    0 puts it into GM, where tiles of rows share the weights and a core takes whole columns of tiles, whatever ``swizzle`` is.
    """

    slot_k: int
    slots: int
    vector_k: int
    ub_ring: int = 2
    direct: int = 0


def check_tiling(chip: Chip, tile: DequantTiling, kinds: CubeOperands, m_tiles: int, k_slots: int,
                 group: int | None = None) -> None:
    """TilingError for what does not fit the chip, or ``m_tiles`` tiles of rows that share ``k_slots`` slots of K.

    ``group`` is the K of a sum of its own where a slot holds whole ones."""
    slot_bytes = tile.slot_k * tile.base_n * element_bits(kinds.b) // 8
    require_path(tile, "direct", chip, "UB", "L1")
    check_cube_tiling(chip, tile, kinds, held_b_bytes=tile.slots * slot_bytes if tile.direct else None, group=group)
    require_slots(tile, "slots", chip)
    if m_tiles > 1 and tile.slots < k_slots and not tile.direct:
        raise TilingError(
            f"tiling slots={tile.slots} cannot hold the {k_slots} slots of K that {m_tiles} tiles of rows share; "
            f"raise slots to {k_slots} or slot_k to at least {tile.slot_k * ceil_div(k_slots, tile.slots)}"
        )


class SlotLayout:
    """How the weights of a slot lie in GM and how an AIV walks over them: ``lines`` rows of ``run`` consecutive weights.

    Weights [k, n]: a line is one k, a run the columns of the tile.  Transposed weights [n, k]: a line is one column, a run
    the K of the slot.
    """

    def __init__(self, problem: GemmShape, chip: Chip, tile: DequantTiling, scheme: Scheme) -> None:
        self.problem, self.chip, self.tile, self.scheme = problem, chip, tile, scheme
        self.transposed = problem.trans_b
        #: K per scale that Vector applies to weights.
        self.group = None if scheme.scales_sums else scheme.group(problem.group)
        lines, self.run = (tile.base_n, tile.slot_k) if self.transposed else (tile.slot_k, tile.base_n)
        #: Lines of a slot that one AIV takes.
        self.share = ceil_div(lines, chip.cores.aiv_per_aic)

    @property
    def k_extent(self) -> int:
        """K of what one AIV takes of a slot."""
        return self.tile.slot_k if self.transposed else self.share

    @property
    def scale_groups(self) -> int:
        """Rows of scales that one AIV needs for its part of a slot."""
        return 1 if self.group is None else ceil_div(self.k_extent, self.group)

    @property
    def all_groups(self) -> int:
        """Groups of all of K."""
        return 1 if self.group is None else ceil_div(self.problem.k, self.group)

    @property
    def whole_groups(self) -> bool:
        """Whether UB tiles go through one group after the other, since they do not divide it."""
        if self.group is None or self.transposed:
            return False
        return self.share % self.group == 0 and self.tile.vector_k < self.group and self.group % self.tile.vector_k != 0

    @property
    def scales_by_tile(self) -> bool:
        """Whether scales come with every UB tile, since those of a slot do not fit beside it."""
        lines = min(self.tile.vector_k, self.share)
        fits = self.bytes_per_weight(self.spans > 1) * lines * self.run + self.scale_bytes() <= self.chip.buffers.ub_bytes
        return self.group is not None and not fits

    @property
    def spans(self) -> int:
        """Groups of scales inside one UB tile."""
        if self.group is None:
            return 1
        return ceil_div(self.tile.slot_k if self.transposed else self.tile.vector_k, self.group)

    def bytes_per_weight(self, several: bool) -> float:
        """UB bytes: the stored weight and the result in rings, FP16 and FP32 between them, FP32 twice where a tile has
        ``several`` groups, which are scaled one by one."""
        stored = element_bits(self.scheme.weights)
        return self.tile.ub_ring * (stored + element_bits(self.scheme.cube[1])) / 8 + 2 + 4 + (4 if several else 0)

    def scale_bytes(self) -> int:
        """UB bytes of the scales of a slot (FP32, offsets, and E8M0 before its conversion)."""
        rings = 1 if self.group is None else self.tile.ub_ring
        each = 4 * (2 if self.problem.offset else 1) * rings + (rings + 4 if self.scheme.mx_weights else 0)
        count = self.scale_groups * (self.share if self.transposed else self.run)
        return each * count + 64

    def check(self) -> None:
        """TilingError where groups of scales would straddle a slot's share or a UB tile."""
        if self.group is None:
            return
        parts = 1 if self.transposed else self.chip.cores.aiv_per_aic
        self._check("slot_k", self.k_extent, parts, self.group)
        if not self.transposed and not self.whole_groups and self.group % self.share:
            self._check("vector_k", self.tile.vector_k, 1, self.group)

    def _check(self, name: str, size: int, parts: int, group: int) -> None:
        if size % group and group % size:
            below = next(d for d in range(min(size, group), 0, -1) if group % d == 0)
            raise TilingError(f"tiling {name}={getattr(self.tile, name)} cuts groups of {group} along k unevenly; give a "
                              f"multiple of {parts * group}, or {parts * below}")
