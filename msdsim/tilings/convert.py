"""Tilings of the converting dataflows: those of the dequantizing ones with cheaper weights, slots in step with groups, and the
tiles in which Vector scales the sums."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from msdsim.dataflows.gemm.convert import CONVERT, scaled_sums
from msdsim.dataflows.vector import half_rows, row_sums
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.vector_work import of_activations
from msdsim.tilings.costs import Ops
from msdsim.tilings.cube import MainLoop, Traffic, add_l0, add_parts, depth_of, parts_of
from msdsim.tilings.dequant import DECODE_E8M0, Dequant
from msdsim.tilings.dequant_space import L1_DEPTHS, PIECES
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space, Values, ceil, up
from msdsim.units import ceil_div, round_up

#: Slots of the ring of sums that are tried; of equal ones the first.
SUMS = (4, 2, 1)
#: Share of UB for the ring of sums, and for the rows that are scaled at a time.
RING_SHARE, MERGE_SHARE = 2, 3


class Convert(Dequant):
    """Weights that are only converted."""

    def __init__(self, problem: Any, chip: Chip, scheme: Scheme) -> None:
        super().__init__(problem, chip, scheme)
        #: K of a sum; one group of all K is a sum like any other.
        self.of_sum = self.whole
        self.whole = None
        self.offset = int(problem.offset)

    @property
    def loads(self) -> int:
        """Weights, sums, their scales, offsets and the sums of rows."""
        return 3 + 2 * self.offset

    # Space

    def parts(self) -> list[int]:
        """Parts of K are whole groups."""
        k, group = self.problem.k, self.of_sum
        found = parts_of(k, group or 1)
        return found if group is None else [n for n in found if n == 1 or int(depth_of(k, n)) * n == k]

    def _slot_depths(self, depths: Sequence[int]) -> list[int]:
        """Multiples or divisors of a group."""
        group, k = self.of_sum, self.problem.k
        sizes = [min(depth, round_up(k, 16)) for depth in depths]
        if group is None or group >= k:
            return sizes
        step = 8 // self.stored if self.transposed else 1
        divisors = [d for d in range(step, group + 1, step) if group % d == 0]
        found = [size // group * group if size >= group else max(d for d in divisors if d <= size) for size in sizes]
        # Slots of one group divide every part of K.
        return [*found, group]

    def _depths(self, s: Space, several: bool) -> None:
        """A tile in L1 of slots with whole groups holds whole ones too, or is a part of one."""
        group = self.of_sum
        if group is None:
            super()._depths(s, several)
            return
        add_l0(s, self.chip, self.product, np.minimum(np.minimum(self._depth(s), s.slot_k), group), several)
        k, by_group = np.minimum(self._depth(s), s.slot_k), s.slot_k >= group
        kept, per_k = self._ring_bytes(s, 2), self.product.l1_bytes(s, s.direct != 1)
        most = ((self.chip.buffers.l1_bytes - kept) // (2 * per_k)).astype(np.int64)
        part = np.minimum(most, group - 1) // s.l0_k * s.l0_k
        sizes = []
        for depth in L1_DEPTHS if several else L1_DEPTHS[:1]:
            whole = np.minimum(most // group, np.maximum(1, np.minimum(depth, k) // group)) * group
            plain = np.minimum(np.maximum(1, most // s.l0_k), ceil(np.minimum(depth, k), s.l0_k)) * s.l0_k
            sizes.append(np.where(by_group, np.where(most >= group, whole, part), plain))
        s.options("l1_k", *sizes)
        self._l1_ring(s)
        s.keep((s.l1_k >= 1) & ((s.k_parts == 1) | (self._depth(s) % np.maximum(group, s.slot_k) == 0)))

    def _share(self, s: Space) -> tuple[Values, Values]:
        """Rows and columns of a tile that one AIV scales (:class:`~msdsim.dataflows.gemm.sum_ring.Shares`)."""
        rows = np.minimum(s.base_m, self.problem.m)
        by_rows = (rows >= 4 * self.aivs) | (s.base_n < 16 * self.aivs)
        return (np.where(by_rows, ceil(rows, self.aivs), rows),
                np.where(by_rows, s.base_n, up(ceil(s.base_n, self.aivs), 16)))

    def _packed(self, s: Space) -> Values:
        """Groups in a slot."""
        return 1 if self.of_sum is None else np.maximum(1, s.slot_k // self.of_sum)

    def _late(self, s: Space) -> Values:
        """Whether sums of parts of K are scaled when they are added up."""
        return (s.k_parts > 1) & (self.of_sum is None)

    def _vector(self, s: Space, several: bool) -> None:
        """The ring of sums in UB where it fits, the rows that are scaled at a time, and weights in what is left."""
        (rows, cols), ring, ub, grouped = self._share(s), s.ub_ring, self.chip.buffers.ub_bytes, self.of_sum is not None
        to_ub, most = self.chip.path("L0C", "UB") is not None, self.chip.cross_core.max_outstanding
        # A ring in UB takes sums one by one, and Vector scales those of a slot when it has filled two more.
        of_slot = self._packed(s) if to_ub else 1
        s.options("sums", *[np.minimum(most, sums * of_slot) for sums in (SUMS if several else SUMS[1:2])
                            if sums > 1 or not grouped])
        (rows, cols), ring = self._share(s), s.ub_ring
        fits = to_ub & (s.sums * rows * cols * 4 <= ub // RING_SHARE)
        s.options("sums_direct", np.where(fits, 1, 0))
        kept, per_row = self._kept(s, rows, cols), self._row_bytes(s, cols)
        room = ub - kept
        pieces = ceil(rows, np.clip(room // MERGE_SHARE // per_row, 1, rows))
        s.set(merge_m=ceil(rows, pieces))
        room = room - s.merge_m * per_row
        share, run = self._lines(s)
        at_once = len(self.convert) == 1
        each = ring * (self.stored + self.wide) / 8 + (0 if at_once else 2 + 4)
        most = np.clip(room // (each * run), 0, share).astype(np.int64)
        tiles = ceil(share, np.maximum(1, most))
        s.options("vector_k", *[ceil(share, np.minimum(share, tiles * n)) for n in (PIECES if several else PIECES[:1])])
        (rows, cols), (share, run) = self._share(s), self._lines(s)
        s.keep(self._ub_bytes(s, rows, cols, run) <= ub)

    def _ub_bytes(self, s: Space, rows: Values, cols: Values, run: Values) -> Values:
        """All of UB that a candidate takes, but for the padding between its buffers."""
        each = s.ub_ring * (self.stored + self.wide) / 8 + (0 if len(self.convert) == 1 else 2 + 4)
        return self._kept(s, rows, cols) - 2048 + s.merge_m * self._row_bytes(s, cols) + each * s.vector_k * run

    def _kept(self, s: Space, rows: Values, cols: Values) -> Values:
        """Bytes of UB for sums, what groups add up to, scales and offsets, with some to spare."""
        ring, packed, grouped = s.ub_ring, self._packed(s), self.of_sum is not None
        of_rows = row_sums.room_bytes(self.chip) * self.offset
        of_rows += half_rows.room_bytes(self.problem, self.chip) * self.scheme.half
        kept = of_rows + 2048 + s.sums_direct * s.sums * rows * cols * 4
        kept = kept + ring * packed * cols * 4 * (1 + self.offset) + (packed * cols * 5 if self.scheme.mx_weights else 0)
        return kept + grouped * (1 + self.offset) * rows * cols * 4 + self.offset * ring * rows * packed * 4

    def _row_bytes(self, s: Space, cols: Values) -> Values:
        """Bytes of UB for each row that is scaled at a time."""
        each = s.ub_ring * (2 + 2 * (self.of_sum is not None) + 4 * (1 - s.sums_direct)) + 4 * self.offset
        return cols * each + 8 * self.offset + 4 * s.ub_ring * self.scheme.half

    # What it costs

    def _sums(self, s: Space) -> Values:
        """Sums of an output tile, or of a part of K of it."""
        return 1 if self.of_sum is None else ceil(self._depth(s), self.of_sum)

    def _adding(self, s: Space) -> Phase:
        if self.of_sum is not None:
            return super()._adding(s)
        scaling: Ops = [("mul", 32)] * (1 + self.offset + self.scheme.half) + [("add", 32)] * self.offset
        return add_parts(self.costs, self.product, s.k_parts, s.count, scaled_sums(2, bool(self.offset), self.scheme.half),
                         scaling)

    def _loop(self, s: Space, flow: Traffic) -> MainLoop:
        costs, product = self.costs, self.product
        loop, sums = super()._loop(s, flow), self._sums(s)
        rows, cols = np.minimum(s.base_m, product.rows), np.minimum(s.base_n, product.n)
        drain = costs.drain(rows, cols, 32)
        if (s.sums_direct == 1).any():
            own = self._share(s)
            direct = (s.sums_direct == 1) & ~self._late(s)
            drain = np.where(direct, self.aivs * costs.local("L0C", "UB", *own, 32), drain)
            loop.unit_flags = ~direct
        loop.drain = drain * sums
        if self.of_sum is not None:
            # A tile in L0 stays inside of a group.
            inner = sums * ceil(self.of_sum, s.l0_k)
            loop.inner = np.maximum(loop.inner, inner)
        return loop

    def _make(self, phase: Phase, s: Space, loop: MainLoop, made: Values, on_chip: Values) -> None:
        super()._make(phase, s, loop, made, on_chip)
        costs, product, sums, late = self.costs, self.product, self._sums(s), self._late(s)
        (rows, cols), direct, offset = self._share(s), s.sums_direct == 1, self.offset
        cols, m = np.minimum(cols, up(product.n, 16)), np.minimum(s.merge_m, rows)
        k_slots = ceil(self._depth(s), s.slot_k)
        tiles = np.where(late, 0, made / k_slots * np.where(s.direct == 1, 1, ceil(product.rows, s.base_m)))
        times, packed, grouped = ceil(rows, m), self._packed(s), self.of_sum is not None
        packs = ceil(sums, packed)
        load = np.where(direct, 0.0, costs.gm("GM", "UB", m, cols * 4)[0])
        powers: Ops = [("mul", 32)] * self.scheme.half
        scaled: Ops = [("mul", 32)] * (1 + offset * (2 if grouped else 1)) + [("add", 32)] * (offset + int(grouped))
        scaled = scaled if grouped else [*scaled, *powers]
        each = costs.vector(scaled, m, cols)
        end = costs.vector([("cast", 32)] + [*[("add", 32)] * offset, *powers] * grouped, m, cols)
        decode = costs.vector(DECODE_E8M0, packed, cols) if self.scheme.mx_weights else 0.0
        phase.pipe("AIV.MTE2", load, tiles * times * sums)
        phase.pipe("AIV.MTE2", (1 + offset) * costs.gm("GM", "UB", packed, cols * 4)[0], tiles * packs)
        phase.pipe("AIV.V", each - costs.overlap("add"), tiles * times * sums)
        phase.pipe("AIV.V", end, tiles * times)
        phase.pipe("AIV.V", decode, tiles * packs)
        phase.pipe("AIV.MTE3", costs.gm("UB", "GM", m, cols * 2)[0], tiles * times)
        reading = np.where(direct, 0.0, costs.latency("GM", "UB"))
        of_sums = np.where(direct & ~late, 0.0, product.total_rows * product.n * 4.0 * sums * s.k_parts)
        phase.l2_read_bytes = phase.l2_read_bytes + np.where(late, 0.0, of_sums)
        phase.l2_write_bytes = phase.l2_write_bytes + of_sums + product.total_rows * product.n * 2
        phase.once(np.where(late, 0.0, self.chip.cross_core.signal_latency_cycles + load + reading + times * (each + end)))
        # A slot is drained into, announced, scaled and given back.
        signals = 2 * self.chip.cross_core.signal_latency_cycles
        life = loop.drain / sums * np.where(direct, 1, packed) + signals + np.where(direct, 1, packed) * times * each
        phase.ring(np.where(late, 0.0, life), s.sums, tiles * np.where(direct, sums, packs) * np.where(sums > 1, 1, 0))
        # Vector fills no slot of the next tile before it has scaled the last sums of this one.
        through_gm = costs.latency("UB", "GM") + loop.latency
        path = through_gm if not (s.direct == 1).any() else np.where(s.direct == 1, costs.latency("UB", "L1"), through_gm)
        tail = path + signals + (np.maximum(loop.mte2, loop.inside) + loop.drain) / k_slots + costs.latency("L0C", "GM")
        busy = np.maximum(phase.pipes["AIV.V"], phase.pipes["AIV.MTE2"]) / np.maximum(1, tiles)
        phase.ring(np.where(late, 0.0, busy + tail + load + reading), 1, tiles)
        if offset:
            self._row_sums(phase)
        if self.scheme.half:
            self._halves(phase)

    def _halves(self, phase: Phase) -> None:
        """Rows of x on the busiest AIV; then all cores meet."""
        costs, (rows, depth) = self.costs, half_rows.tile_shape(self.problem, self.chip)
        tiles = ceil_div(self.product.k, depth)
        units = ceil_div(sum(ceil_div(m, rows) for m in self.product.counts), self.chip.aiv) * tiles
        load, store = costs.gm("GM", "UB", rows, depth * 2)[0], costs.gm("UB", "GM", rows, depth * 2)[0]
        v = costs.vector(of_activations(self.scheme, 1), rows, depth)
        for pipe, cycles, times in (("MTE2", load, units * min(2, tiles)), ("V", v, units), ("MTE3", store, units)):
            phase.pipe(f"AIV.{pipe}", cycles, times)
        phase.once(units * v + load + store + costs.latency("GM", "UB", 1.0) + costs.latency("UB", "GM")
                   + self.chip.cross_core.barrier_latency_cycles)

    def _row_sums(self, phase: Phase) -> None:
        """Of x, over all AIVs."""
        share = ceil_div(self.product.total_rows * self.product.k, self.chip.aiv)
        phase.pipe("AIV.V", self.costs.vector([("cast", 32), ("fold_add", 32)], 1, share))


for _scheme in CONVERT:
    declare(_scheme.name, partial(Convert, scheme=_scheme))
