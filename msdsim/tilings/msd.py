"""Tilings of Multi-Scale Dequant: the Cube's tiles over stacked components, Vector's tiles of the split and of the merge, and
the ring of products between them."""

from __future__ import annotations

from functools import partial
from math import lcm

import numpy as np

from msdsim.dataflows.cube.operands import GemmShape, k_groups
from msdsim.dataflows.gemm.msd import MSD
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.vector_work import Work, combining
from msdsim.tilings.costs import Costs, Ops
from msdsim.tilings.cube import (
    MainLoop,
    Product,
    Traffic,
    add_bands,
    add_columns,
    add_l0,
    add_l1,
    add_l1_of_groups,
    add_rows,
    depth_of,
    load_b,
    main_loop,
    parts_of,
    state_main_loop,
    traffic,
    units_of,
)
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space, Values, ceil, up
from msdsim.tilings.splits import BlockSplitWork, RowSplitWork

#: Slots of the ring, weight tiles fetched while Vector splits, and parts of the rows of a merge; the first are where the search
#: begins.
SLOTS, FETCHED, PIECES = (2, 1, 3, 4, 8), (0, 1, 2, 3), (1, 2, 4)


def merge_bytes_per_element(products: Values, ub_ring: Values) -> Values:
    """UB bytes per element of a merge tile: products that are loaded, two FP32 tiles, the result (BF16)."""
    return 4 * products * ub_ring + 2 * 4 + 2 * ub_ring


def merge_bytes_per_row(ub_ring: Values) -> Values:
    """UB bytes per row of a merge tile besides its elements: row scale and sum."""
    return ub_ring * 4 * 2


class Msd:
    """Components of the kind's decomposition."""

    def __init__(self, problem: GemmShape, chip: Chip, kind: Scheme) -> None:
        self.problem, self.chip, self.kind, self.costs = problem, chip, kind, Costs(chip)
        self.group, self.aivs = problem.group, chip.cores.aiv_per_aic
        #: Numbers per column and group that the merge needs: scales, offsets, the constant of nibbles.
        self.per_column = 0 if kind.mx else 1 + int(problem.offset) + int(kind.nibbles)
        #: Values tried where nothing fits with the usual ones.
        self.tightest: list[dict[str, int]] = [{"decompose_m": 1}, {"ub_ring": 1}, {"ub_ring": 1, "decompose_m": 1}]
        if self.group is not None:
            self.tightest.append({"ub_ring": 1, "decompose_m": 1, "l1_k": self.group})
        self._stack(kind.passes)

    def _stack(self, passes: int) -> None:
        """What depends on the number of components."""
        self.passes, self.product = passes, Product.of(self.problem, self.kind.cube, 4, passes)
        counts = tuple(rows // passes for rows in self.product.counts)
        self.split: BlockSplitWork | RowSplitWork = BlockSplitWork(self.costs, counts, self.product.k, passes, self.kind)
        if not self.kind.mx:
            self.split = RowSplitWork(self.costs, counts, self.product.k, passes, self.kind,
                                  k_groups(self.problem) if self.problem.offset else 0, self.group)

    # Space

    def fill(self, s: Space) -> None:
        """The Cube's tiles first; then the depths, the ring and Vector's tiles, bands and what is fetched ahead."""
        self._stack(max(1, s.given.get("passes", self.kind.passes)))
        chip, product = self.chip, self.product
        s.shape, s.parts = ("direct", "k_parts", "base_m", "base_n"), "k_parts"
        s.set(passes=self.passes, stepwise=0, preload=1, a_resident=0, ub_ring=2, prefetch=1)
        s.cross("direct", (1, 0) if chip.path("L0C", "UB") is not None else (0,))
        s.cross("k_parts", parts_of(self.problem.k) if self.group is None else (1,))
        s.keep((s.k_parts == 1) | (s.direct == 0))
        add_rows(s, product, lcm(chip.cube.fractal_m, self.passes))
        add_columns(s, chip, product, product.units(s.base_m) * s.k_parts)
        add_bands(s, product, several=False)
        self._depths(s, several=False)
        self._vector(s, several=False)
        s.narrow(2)
        self._depths(s, several=True)
        self._merge(s, several=False)
        s.narrow()
        self._vector(s, several=True)
        s.narrow()
        add_bands(s, product, several=True)
        s.cross("prefetch", FETCHED)

    def _depth(self, s: Space) -> Values:
        return depth_of(self.problem.k, s.k_parts)

    def _depths(self, s: Space, several: bool) -> None:
        """Where every group of K has a product of its own, a tile in L1 holds whole groups or is a part of one."""
        chip, product, group = self.chip, self.product, self.group
        k = self._depth(s)
        add_l0(s, chip, product, np.minimum(k, group or k), several)
        if group is None:
            add_l1(s, chip, product, lambda: self._depth(s), several)
            return
        add_l1_of_groups(s, chip, product, group, several)

    def _vector(self, s: Space, several: bool) -> None:
        # Parts of K pass no ring.
        s.options("slots", *(np.where(s.k_parts == 1, slots, SLOTS[0]) for slots in (SLOTS if several else SLOTS[:1])))
        s.keep(s.slots <= self.chip.cross_core.max_outstanding)
        s.keep(self._ring_bytes(s) <= self.chip.buffers.ub_bytes * 3 // 4)
        self._merge(s, several)
        self.split.add(s, lambda s: s.base_m // self.passes, lambda s: self.chip.buffers.ub_bytes - self._ring_bytes(s),
                       several)

    def _merge(self, s: Space, several: bool) -> None:
        """``merge_m``: rows that fit beside the sums over groups, in tiles of about one size."""
        (rows, cols), ring, grouped = self._share(s), s.ub_ring, self.group is not None
        kept = self._ring_bytes(s) + self.per_column * self._pack(s) * 4 * ring * cols + 1024
        kept = kept + grouped * (1 + int(self.problem.offset)) * 4 * rows * cols
        kept = kept + (grouped and self.problem.offset) * ring * 4 * self._pack(s) * rows
        # A ring in UB is merged where it lies.
        products = np.where(s.direct == 1, 0, s.k_parts * self.passes)
        row = merge_bytes_per_element(products, ring) * cols + merge_bytes_per_row(ring)
        most = (self.chip.buffers.ub_bytes - kept) // row
        pieces = ceil(rows, np.maximum(1, most))
        s.options("merge_m", *[np.where(most < 1, 0, ceil(rows, pieces * times))
                               for times in (PIECES if several else PIECES[:1])])
        s.keep(s.merge_m >= 1)

    def _pack(self, s: Space) -> Values:
        """Groups of K in a slot of a ring in GM."""
        return 1 if self.group is None else np.maximum(1, s.l1_k // self.group)

    def _share(self, s: Space) -> tuple[Values, Values]:
        """Rows and columns of a tile that one AIV merges (:class:`~msdsim.dataflows.gemm.sum_ring.Shares`)."""
        rows = np.minimum(s.base_m // self.passes, self.problem.m)
        by_rows = (rows >= 4 * self.aivs) | (s.base_n < 16 * self.aivs)
        return (np.where(by_rows, ceil(rows, self.aivs), rows),
                np.where(by_rows, s.base_n, up(ceil(s.base_n, self.aivs), 16)))

    def _ring_bytes(self, s: Space) -> Values:
        """Bytes of UB for the ring."""
        rows, cols = self._share(s)
        return np.where(s.direct == 1, s.slots * self.passes * rows * cols * 4, 0)

    # What it costs

    def phases(self, s: Space) -> list[Phase]:
        """The split; the products and their merge; the merge by itself where K is split."""
        costs, product, bits_b = self.costs, self.product, self.product.bits[1]
        first = self.split.state(s, s.base_m // self.passes)
        flow = traffic(self.chip, product, s, product.bits[0] / 8, bits_b / 8, s.k_parts)
        units, cores = units_of(s, product), self.chip.cores.aic
        # What is fetched into L2, and then the first weights, come while Vector splits; what takes longer is waited for.
        depth = np.minimum(s.l1_k, self._depth(s))
        ahead = np.minimum(s.prefetch, ceil(self._depth(s), depth) - 1)
        load, from_l2 = (load_b(costs, product, s, depth, fresh)[0] for fresh in (1.0, 0.0))
        head, split = (ahead + 1) * load, first.cycles()
        fetched = np.minimum(head, split) / load * depth * np.minimum(s.base_n, product.n) * bits_b / 8
        second, third = Phase(costs, s.count), Phase(costs, s.count)
        left = np.maximum(0.0, flow.b_bytes - fetched * np.minimum(units, cores))
        second.hbm_bytes = left
        drains = 1 if self.group is None else ceil(product.k, self.group)
        loop = self._loop(s, Traffic(np.zeros(s.count), left, np.zeros(s.count), flow.fresh_b))
        self._multiply(second, s, loop, ceil(units, cores), units, drains)
        saved = load + ahead * (load - from_l2)
        second.pipes["MTE2"] = np.maximum(0.0, second.pipes["MTE2"] - saved) + np.maximum(0.0, head - split)
        second.once(np.maximum(0.0, head - split) - load)
        second.l2_write_bytes = self._sums_bytes(s, drains)
        self._merging(second, s, np.where(s.k_parts == 1, ceil(units, cores), 0), drains)
        third.only(s.k_parts > 1)
        # Any AIV merges any rows of any tile.
        self._merging(third, s, np.maximum(product.tiles(s) / cores, 1 / ceil(self._share(s)[0], s.merge_m)), drains)
        third.once(self.chip.cross_core.barrier_latency_cycles + costs.latency("L0C", "GM"))
        return [first, second, third]

    def _loop(self, s: Space, flow: Traffic) -> MainLoop:
        costs, k, group = self.costs, self._depth(s), self.group
        loop = main_loop(costs, self.product, s, k, flow, passes=self.passes)
        if group is not None:
            # A tile in L0 stays inside of a group.
            loop.inner = np.where(s.l1_k >= group, ceil(k, group) * ceil(group, s.l0_k), loop.inner)
        if (s.direct == 1).any():
            rows, cols = self._share(s)
            to_ub = self.passes * self.aivs * costs.local("L0C", "UB", rows, cols, 32)
            loop.drain = np.where(s.direct == 1, to_ub, loop.drain)
            loop.unit_flags = s.direct == 0
        return loop

    def _multiply(self, phase: Phase, s: Space, loop: MainLoop, tiles: Values, units: Values, drains: Values) -> None:
        one = loop.drain
        loop.drain = one * drains
        state_main_loop(phase, s, loop, tiles, units)
        if self.group is not None:
            path = self.costs.latency("L1", "L0A") + self.chip.cube.head_isolated_cycles + self._drain_latency(s)
            phase.ring(loop.turn(drains, path), s.l0c_ring, tiles * drains)
            phase.once(one - loop.drain)

    def _drain_latency(self, s: Space) -> Values:
        to_gm = self.costs.latency("L0C", "GM")
        return np.where(s.direct == 1, self.costs.latency("L0C", "UB"), to_gm) if (s.direct == 1).any() else to_gm

    def _merge_ops(self) -> tuple[Ops, Ops, Ops, Ops]:
        """Vector instructions on a product, over all elements and with numbers per row or column; then on a finished sum."""
        combine, offset = combining(self.kind, self.passes), int(self.problem.offset)
        cast: Work = (("cast", 32),)
        if self.kind.mx:
            return combine, (), cast, ()
        if self.group is None:
            return combine, (), (*cast, *offset * (("add", 32),)), (2 + offset) * (("mul", 32),)
        return combine, (("mul", 32), ("add", 32), *offset * (("mul", 32), ("mul", 32), ("add", 32))), (
            *cast, *offset * (("add", 32),)), (("mul", 32),)

    def _sums_bytes(self, s: Space, drains: Values) -> Values:
        """Bytes of all sums on their way through L2."""
        return np.where(s.direct == 1, 0.0, self.product.total_rows * self.product.n * 4.0 * drains * s.k_parts)

    def _merging(self, phase: Phase, s: Space, tiles: Values, drains: Values) -> None:
        """``tiles`` output tiles of the busiest core with ``drains`` products each."""
        costs, product, n, direct, inside = self.costs, self.product, self.passes, s.direct == 1, s.k_parts == 1
        rows, cols = self._share(s)
        cols, m = np.minimum(cols, up(product.n, 16)), np.minimum(s.merge_m, rows)
        times, pieces = ceil(rows, m), n * s.k_parts
        load = np.where(direct, 0.0, pieces * costs.gm("GM", "UB", m, cols * 4)[0])
        combine, broadcast, last, last_broadcast = self._merge_ops()
        each = costs.vector(combine, m, cols, flat=True) + costs.vector(broadcast, m, cols)
        each = each + (s.k_parts - 1) * n * costs.vector([("add", 32)], m, cols, flat=True)
        end = costs.vector(last, m, cols, flat=True) + costs.vector(last_broadcast, m, cols)
        store, _ = costs.gm("UB", "GM", m, cols * 2)
        per_row = 0.0 if self.kind.mx else costs.gm("GM", "UB", m, 4)[0]
        pack = self._pack(s)
        packs = ceil(drains, pack)
        phase.pipe("AIV.MTE2", load, tiles * times * drains)
        phase.pipe("AIV.MTE2", per_row, tiles * times)
        if self.per_column:
            phase.pipe("AIV.MTE2", self.per_column * costs.gm("GM", "UB", pack, cols * 4)[0], tiles * packs)
        phase.pipe("AIV.V", each - costs.overlap("add"), tiles * times * drains)
        phase.pipe("AIV.V", end, tiles * times)
        phase.pipe("AIV.MTE3", store, tiles * times)
        reading, signal = np.where(direct, 0.0, costs.latency("GM", "UB")), self.chip.cross_core.signal_latency_cycles
        ends = end if self.group is None else 0.0
        phase.ring(load + reading + each + ends, s.ub_ring, tiles * times * drains)
        here = np.where(tiles > 0, 1, 0)
        phase.l2_read_bytes = phase.l2_read_bytes + here * self._sums_bytes(s, drains)
        phase.l2_write_bytes = phase.l2_write_bytes + here * product.total_rows / n * product.n * 2
        # A slot is drained into, announced, merged and given back.
        held = np.where(direct, 1, pack)
        out = costs.drain(np.minimum(s.base_m, product.rows), cols, 32)
        life = held * out + self._drain_latency(s) + 2 * signal + reading + held * times * np.maximum(load, each) + ends * times
        phase.ring(np.where(inside, life, 0.0), s.slots, tiles * np.where(direct, drains, packs))
        way = np.where(inside, signal, 0.0) + load + reading + np.where(inside, times, 1) * each + end + store
        phase.once(np.where(tiles > 0, way + costs.latency("UB", "GM"), 0.0))


for _scheme in MSD:
    declare(_scheme.name, partial(Msd, kind=_scheme))
