"""The tilings of the dequantizing dataflows that are tried: the Cube's tiles, the ring in which Vector hands over weights, and
Vector's tiles.

A slot of the ring is ``slot_k`` of K by ``base_n`` columns.  Each AIV of the group fills its share of its lines (rows of K, or
columns where the weights are transposed), ``vector_k`` lines at a time, and never splits a group of scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from msdsim.formats.mx import MX_BLOCK, element_bits
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.vector_work import conversions, scaling
from msdsim.tilings.costs import Costs
from msdsim.tilings.cube import Product, add_bands, add_columns, add_l0, add_rows, depth_of, parts_of
from msdsim.tilings.space import Space, Values, ceil, divisor_below
from msdsim.units import ceil_div, round_up

#: K of a slot, slots, K of a tile in L1 and UB tiles to a share that are tried; the first are where the search begins.
SLOT_DEPTHS, SLOTS, L1_DEPTHS, PIECES = (256, 64, 128, 512, 1024), (4, 2, 3, 6, 8), (256, 64, 128, 512), (1, 2, 4)
#: Deeper rings that are tried at last.
RINGS = (4,)
#: Slots beyond those that hold all of K.
SPARE = (2, 0, 1, 4, 6)


class DequantSpace:
    """Weights that Vector turns into the Cube's format."""

    #: Values tried where nothing fits with the usual ones.
    tightest: ClassVar[tuple[dict[str, int], ...]] = ({"ub_ring": 1}, {"l0_ring": 1}, {"ub_ring": 1, "l0_ring": 1})

    def __init__(self, problem: Any, chip: Chip, scheme: Scheme) -> None:
        self.problem, self.chip, self.scheme, self.costs = problem, chip, scheme, Costs(chip)
        self.product, self.transposed = Product.of(problem, scheme.cube, out_bytes=2), problem.trans_b
        self.stored, self.wide = element_bits(scheme.weights), element_bits(scheme.cube[1])
        #: K that a slot's share and a UB tile keep whole, and AIVs that share a slot.
        self.whole, self.aivs = scheme.group(problem.group), chip.cores.aiv_per_aic
        #: Vector instructions on every weight, and those with its scale.
        self.convert, self.scaling = conversions(scheme, chip), scaling(scheme, problem.offset)
        #: K for each row of scales that Vector applies.
        self.group = self.whole if self.scaling else None

    @property
    def loads(self) -> int:
        """Buffers of UB that Vector waits for: the weights, and their scales and offsets by group."""
        return 1 if self.group is None else 2 + int(self.problem.offset)

    # Space

    def fill(self, s: Space) -> None:
        """The Cube's tiles first; then the slots' depth, the depths of L0 and L1, the slots and Vector's tiles, bands."""
        chip, product = self.chip, self.product
        s.shape, s.parts = ("direct", "k_parts", "base_m", "base_n", "slot_k"), "k_parts"
        s.cross("direct", (1, 0) if chip.path("UB", "L1") is not None else (0,))
        s.cross("k_parts", self.parts())
        s.set(ub_ring=2)
        add_rows(s, product, chip.cube.fractal_m)
        # A core owns columns where the ring lies in GM.
        add_columns(s, chip, product, np.where(s.direct == 1, product.units(s.base_m), len(product.counts)) * s.k_parts)
        add_bands(s, product, several=False)
        self.more(s)
        s.set(slot_k=0)
        self._ring(s, SLOT_DEPTHS[:1], several=False)
        s.narrow(2)
        self._ring(s, SLOT_DEPTHS, several=False)
        s.narrow(2)
        self._depths(s, several=True)
        self._vector(s, several=False)
        s.narrow()
        self._slots(s, several=True)
        self._vector(s, several=True)
        s.narrow()
        self._rings(s)
        add_bands(s, product, several=True)

    def _rings(self, s: Space) -> None:
        """Deeper rings, where they have room, let loads run further ahead of what uses them."""
        kept, per_k = self._ring_bytes(s, s.slots), self.product.l1_bytes(s, s.direct != 1)
        room = self.chip.buffers.l1_bytes - kept
        s.options("l1_ring", s.l1_ring, *(np.where(ring * s.l1_k * per_k <= room, ring, s.l1_ring) for ring in RINGS))
        most = self.chip.dispatch.event_ids_per_pipe_pair // self.loads
        s.options("ub_ring", s.ub_ring, *(np.where(s.ub_ring > 1, ring, s.ub_ring) for ring in RINGS if ring <= most))
        self.more(s)
        self._vector(s, several=False)

    def parts(self) -> list[int]:
        """Parts of K that are tried."""
        return parts_of(self.problem.k, self.whole or 1)

    def more(self, s: Space) -> None:
        """Further keys of a dataflow."""

    def _depth(self, s: Space) -> Values:
        return depth_of(self.problem.k, s.k_parts)

    def _ring(self, s: Space, depths: Sequence[int], several: bool) -> None:
        s.options("slot_k", *self._slot_depths(depths))
        s.keep(self._ring_bytes(s, 2) < self.chip.buffers.l1_bytes)
        self._depths(s, several)
        self._slots(s, several)
        self._vector(s, several)

    def _slot_depths(self, depths: Sequence[int]) -> list[int]:
        """About ``depths``, such that groups of scales do not straddle what an AIV takes."""
        parts, group = (1 if self.transposed else self.aivs), self.whole
        most = [min(depth, round_up(self.problem.k, 16)) for depth in depths]
        if group is None:
            # Whole fractals, also where AIVs are not a power of two: the last takes less.
            return most
        shares = [max(1, ceil_div(depth, parts)) for depth in most]
        # Two 4-bit weights share a byte, which no slot cuts.
        step = 8 // self.stored if self.transposed else 1
        shares = [share // group * group if share >= group else int(divisor_below(group, share, step)) for share in shares]
        shares += [group] * (len(depths) > 1)
        quantum = MX_BLOCK if self.scheme.mx_weights else 1
        return [round_up(parts * share, quantum) for share in shares]

    def _ring_bytes(self, s: Space, slots: Values) -> Values:
        """Of a ring in L1."""
        return np.where(s.direct == 1, slots * s.slot_k * s.base_n * self.wide // 8, 0)

    def _depths(self, s: Space, several: bool) -> None:
        add_l0(s, self.chip, self.product, np.minimum(self._depth(s), s.slot_k), several)
        k = np.minimum(self._depth(s), s.slot_k)
        b_in_l1 = s.direct != 1
        room = self.chip.buffers.l1_bytes - self._ring_bytes(s, 2)
        most = np.maximum(1, (room // (2 * self.product.l1_bytes(s, b_in_l1))).astype(np.int64) // s.l0_k)
        s.options("l1_k", *[np.minimum(most, ceil(np.minimum(depth, k), s.l0_k)) * s.l0_k
                            for depth in (L1_DEPTHS if several else L1_DEPTHS[:1])])
        self._l1_ring(s)

    def _l1_ring(self, s: Space) -> None:
        """Two tiles in L1, one where that is all there is room for."""
        kept, per_k = self._ring_bytes(s, 2), self.product.l1_bytes(s, s.direct != 1)
        s.set(l1_ring=np.where(2 * s.l1_k * per_k + kept <= self.chip.buffers.l1_bytes, 2, 1))
        s.keep(s.l1_ring * s.l1_k * per_k + kept <= self.chip.buffers.l1_bytes)

    def _slots(self, s: Space, several: bool) -> None:
        """As many as L1 and the signals allow; all of K where several tiles of rows use a slot."""
        outstanding = self.chip.cross_core.max_outstanding
        tiles = s.l1_ring * s.l1_k * self.product.l1_bytes(s, s.direct != 1)
        fits = ((self.chip.buffers.l1_bytes - tiles) // (s.slot_k * s.base_n * self.wide / 8)).astype(np.int64)
        most = np.where(s.direct == 1, np.minimum(fits, outstanding), outstanding)
        held, k_slots = self._held(s), ceil(self._depth(s), s.slot_k)
        pairs = list(zip(SLOTS, SPARE, strict=True)) if several else [(SLOTS[0], SPARE[0])]
        s.options("slots", *[np.where(held, np.minimum(k_slots + spare, most), np.minimum(slots, most))
                             for slots, spare in pairs])
        s.keep((s.slots >= 1) & (~self._held(s) | (s.slots >= ceil(self._depth(s), s.slot_k))))

    def _held(self, s: Space) -> Values:
        """Whether a slot in GM stays until several tiles of rows have used it."""
        return (s.direct == 0) & (ceil(self.product.rows, s.base_m) > 1)

    def _lines(self, s: Space) -> tuple[Values, Values]:
        """Lines of a slot that one AIV takes, and the weights of a line."""
        lines, run = (s.base_n, s.slot_k) if self.transposed else (s.slot_k, s.base_n)
        return ceil(lines, self.aivs), run

    def _scale_groups(self, s: Space) -> Values:
        """Rows of scales of an AIV's share of a slot."""
        return 1 if self.group is None else ceil(s.slot_k if self.transposed else self._lines(s)[0], self.group)

    def _vector(self, s: Space, several: bool) -> None:
        """``vector_k``: UB tiles of about one size, the largest that fit or a part of them."""
        (share, run), group, ub = self._lines(s), self.group, self.chip.buffers.ub_bytes
        each = s.ub_ring * (self.stored + self.wide) / 8 + 2 + 4
        rings = 1 if group is None else s.ub_ring
        scale = 4 * (1 + int(self.problem.offset)) * rings + (rings + 4 if self.scheme.mx_weights else 0) if self.scaling else 0
        scales = scale * self._scale_groups(s) * (share if self.transposed else run) + 64
        # Scales that leave no room come with each UB tile.
        room = np.where(scales <= ub // 2, ub - scales, ub // 2)
        most = room // (each * run)
        if group is not None:
            # FP32 twice in a tile of several groups, and once in one that stays inside of a group.
            twice = room // ((each + 4) * run)
            most = np.where(run > group, twice, most) if self.transposed else np.maximum(twice, np.minimum(most, group))
        most = np.clip(most, 1, share).astype(np.int64)
        pieces = ceil(share, most)
        sizes = [ceil(share, np.minimum(share, pieces * times)) for times in (PIECES if several else PIECES[:1])]
        if self.whole is not None and not self.transposed:
            whole = self.whole
            parts = [np.where(size >= whole, size // whole * whole, divisor_below(whole, size)) for size in sizes]
            sizes = [np.where(whole % share == 0, size, part) for size, part in zip(sizes, parts, strict=True)]
        s.options("vector_k", *sizes)
