"""Tilings of the dequantizing dataflows: what weights that Vector makes cost, and the products of the Cube beside them."""

from __future__ import annotations

from functools import partial

import numpy as np

from msdsim.dataflows.gemm.dequant import DEQUANT
from msdsim.tilings.costs import Ops
from msdsim.tilings.cube import MainLoop, Traffic, add_parts, main_loop, state_main_loop, traffic, units_of
from msdsim.tilings.dequant_space import DequantSpace
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space, Values, ceil

#: E8M0 scales to FP32 (:mod:`msdsim.ir.ops.mx`).
DECODE_E8M0: Ops = (("cast", 16), ("cast", 32), ("muls", 32), ("maxs", 32))


class Dequant(DequantSpace):
    """The products and what Vector makes for them."""

    def phases(self, s: Space) -> list[Phase]:
        """The products and what Vector makes for them; where K is split the addition of its parts."""
        product, phase = self.product, Phase(self.costs, s.count)
        direct, experts, n_tiles = s.direct == 1, len(product.counts), ceil(product.n, s.base_n)
        columns = ceil(n_tiles * experts * s.k_parts, self.chip.cores.aic)
        units = units_of(s, product)
        tiles = np.where(direct, ceil(units, self.chip.cores.aic), columns * ceil(product.rows, s.base_m))
        flow = self._traffic(s, columns)
        loop = self._loop(s, flow)
        state_main_loop(phase, s, loop, tiles, units)
        made = np.where(direct, tiles, columns) * ceil(self._depth(s), s.slot_k)
        on_chip = np.where(direct, units, n_tiles * experts * s.k_parts) * ceil(self._depth(s), s.slot_k)
        self._make(phase, s, loop, made, on_chip)
        phase.hbm_bytes = flow.a_bytes + flow.b_bytes
        return [phase, self._adding(s)]

    def _adding(self, s: Space) -> Phase:
        """The addition of the parts of K."""
        return add_parts(self.costs, self.product, s.k_parts, s.count)

    def _traffic(self, s: Space, columns: Values) -> Traffic:
        """Through GM weights are read once, and a core goes over all rows for each of its columns."""
        product, direct = self.product, s.direct == 1
        flow = traffic(self.chip, product, s, product.bits[0] / 8, self.stored / 8, s.k_parts)
        return Traffic(np.where(direct, flow.a_bytes, product.total_rows * product.k * product.bits[0] / 8),
                       np.where(direct, flow.b_bytes, len(product.counts) * product.n * product.k * self.stored / 8),
                       np.where(direct, flow.fresh_a, 1 / columns), np.zeros(s.count))

    def _loop(self, s: Space, flow: Traffic) -> MainLoop:
        costs, product, k, direct = self.costs, self.product, self._depth(s), s.direct == 1
        loop = main_loop(costs, product, s, k, flow, chunk=s.slot_k, b_pitch=(s.base_n, s.slot_k))
        if direct.any():
            loop = main_loop(costs, product, s, k, flow, chunk=s.slot_k, b_streams=False).where(direct, loop)
        sums = costs.drain(np.minimum(s.base_m, product.rows), np.minimum(s.base_n, product.n), 32)
        loop.drain = np.where(s.k_parts > 1, sums, loop.drain)
        return loop

    def _make(self, phase: Phase, s: Space, loop: MainLoop, made: Values, on_chip: Values) -> None:
        """``made`` slots of the busiest core's AIVs, of ``on_chip``."""
        costs, direct, k_slots = self.costs, s.direct == 1, ceil(self._depth(s), s.slot_k)
        share, _ = self._lines(s)
        load, v, store, l2 = self._tile(s)
        pieces = ceil(share, s.vector_k)
        # Of the last slot of K only a part is there.
        filled = 1.0 if self.transposed else np.minimum(1.0, self._depth(s) / (k_slots * s.slot_k))
        count = pieces * made * filled
        for name, cycles in (("AIV.MTE2", load), ("AIV.V", v - costs.overlap()), ("AIV.MTE3", store)):
            phase.pipe(name, cycles, count)
        scale_load, decode = self._scales(s)
        phase.pipe("AIV.MTE2", scale_load, made)
        phase.pipe("AIV.V", decode, made)
        into, to_gm = costs.latency("GM", "UB", 1.0), costs.latency("UB", "GM")
        if self.scaling and self.group is None:
            # Scales of channels have one buffer, which is filled anew for every tile of columns when Vector is done with it.
            columns = made / k_slots
            refill = costs.gm("GM", "UB", 1, np.minimum(s.base_n, self.product.n) * 4, 1.0)[0] + into
            phase.ring(phase.pipes["AIV.V"] / columns + refill, 1, columns)
        out = np.where(direct, costs.latency("UB", "L1"), to_gm) if direct.any() else to_gm
        # Stored weights are free after the first instruction, wide ones are there after the last.
        first, last = (costs.vector(ops, np.minimum(s.vector_k, share), self._lines(s)[1]) for ops in
                       (self.convert[:1], self.convert[-1:]))
        if self.chip.vector.vf is not None:
            # A vector function takes and gives all at once.
            first, last = v, v
        phase.ring(load + into + first, s.ub_ring, count)
        phase.ring(last + store + out, s.ub_ring, count)
        # A slot is filled, announced, multiplied by one tile of rows after the other, and given back.
        signal = self.chip.cross_core.signal_latency_cycles
        produce = (pieces - 1) * np.maximum(np.maximum(load, v), store) + v + store + out
        consume = np.maximum(loop.mte2, loop.inside)
        again = np.where(self._held(s), (ceil(self.product.rows, s.base_m) - 1) * consume, 0.0)
        reader = np.where(direct, 0.0, loop.latency)
        phase.ring(produce + 2 * signal + consume / k_slots + reader + again, s.slots, made)
        phase.once(load + into + produce + signal)
        phase.l2_read_bytes = phase.l2_read_bytes + on_chip * filled * pieces * self.aivs * l2
        phase.l2_write_bytes = np.where(direct, 0.0, len(self.product.counts) * self.product.n * self.product.k * self.wide / 8)

    def _tile(self, s: Space) -> tuple[Values, Values, Values, Values]:
        """Cycles of a UB tile on MTE2, V and MTE3, and the bytes of L2's bandwidth that it takes."""
        costs, (share, run) = self.costs, self._lines(s)
        extent = self.product.k if self.transposed else self.product.n
        # In the mean: the last tile of a share has what is left.
        lines, run = share / ceil(share, s.vector_k), np.minimum(run, extent)
        width = run * self.stored // 8
        pitch = extent * self.stored // 8
        fresh = costs.of_line(width) if self.transposed else 1.0
        load, l2 = costs.gm("GM", "UB", lines, width, fresh, np.gcd(width, pitch), pitch)
        at_once = self.chip.vector.vf is not None and self.group is None
        v = costs.function((*self.convert, *self.scaling) if at_once else self.convert, lines, run, flat=extent % run == 0)
        if self.scaling and self.group is None and not at_once:
            v = v + costs.vector(self.scaling, lines, run)
        elif self.scaling and not at_once:
            along = run if self.transposed else lines
            part = np.minimum(along, self.group or 1)
            rows, cols = (lines, part) if self.transposed else (part, run)
            v = v + ceil(along, self.group) * costs.vector(self.scaling, rows, cols)
        wide = run * self.wide // 8
        store, _ = costs.gm("UB", "GM", lines, wide, 0.0, np.gcd(wide, self.chip.l2.line_bytes))
        if (s.direct == 1).any():
            store = np.where(s.direct == 1, costs.local("UB", "L1", lines, run, self.wide), store)
        return load, v, store, l2

    def _scales(self, s: Space) -> tuple[Values, Values]:
        """Cycles of a slot's scales on MTE2 and V; of one scale per channel they are not worth counting."""
        if self.group is None:
            return 0.0, 0.0
        share, run = self._lines(s)
        groups, tensors, size = self._scale_groups(s), 1 + int(self.problem.offset), 1 if self.scheme.mx_weights else 4
        if self.transposed:
            load, _ = self.costs.gm("GM", "UB", share, size)
            load = load * groups
        else:
            load, _ = self.costs.gm("GM", "UB", groups, run * size)
        return load * tensors, self.costs.vector(DECODE_E8M0, groups, run) if self.scheme.mx_weights else 0.0


for _scheme in DEQUANT:
    declare(_scheme.name, partial(Dequant, scheme=_scheme))
