"""Tilings of attention: what a pipeline of both products with the softmax between them costs."""

from __future__ import annotations

from functools import partial

import numpy as np

from msdsim.dataflows.attention import msd
from msdsim.dataflows.attention.output import MERGE_ROWS
from msdsim.formats.mx import MX_BLOCK
from msdsim.tilings.attention_needs import BF16, MXFP4, msd_needs
from msdsim.tilings.attention_space import AttentionSpace
from msdsim.tilings.costs import Ops
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space, Values, ceil, up

#: Share of L2 that the rings and the cache that streams by may take before lines of the rings leave it: sets fill unevenly.
KEPT = 0.55
#: Vector instructions of a step on a few numbers per row: of the softmax, and of the merge of splits for each of them.
ROW_OPS: Ops = tuple((name, 32) for name in ("reduce_max", "max", "sub", "exp", "max", "reduce_add", "mul", "add"))
STATE_OPS: Ops = tuple((name, 32) for name in ("max", "sub", "exp", "mul", "add"))
#: Latencies of these, and of the two over the output, that are spent with the work of another split.
MERGE_OVERLAPS = 3
#: Vector instructions on Q before it is split, and for each of its components.
QUERY_OPS = ("cast", "abs", "fold_max", "reduce_max", "div", "dup", "muls", "maxs")
SPLIT_OPS = ("div", "mul", "cast", "cast", "cast", "sub")


class Attention(AttentionSpace):
    """The pipeline of steps and the merge of the splits."""

    def phases(self, s: Space) -> list[Phase]:
        """The pipeline of steps, and the merge of the splits."""
        costs, problem, chip, direct = self.costs, self.problem, self.chip, s.direct == 1
        phase = Phase(costs, s.count)
        items = self.work.whole_items(s) * s.kv_splits
        rounds, steps, cores = ceil(items, chip.cores.aic), self.work.steps(s), np.minimum(chip.cores.aic, items)
        # Of the last KV tile, and of the diagonal, only a part is there.
        columns = np.where(self.work.paired(s), self.work.seen(s), problem.kv)
        count, columns = np.where(s.kv_splits > 1, self.work.busiest(s), (rounds * steps, rounds * columns))
        kv = np.minimum(s.kv_tile, ceil(columns, np.maximum(1, count))).astype(np.int64)
        cube, output = self._cube(phase, s, kv, count, items)
        vector, store, rescale = self._softmax(phase, s, kv, count)
        self._bring(phase, s, kv, count)
        signal, passes = chip.cross_core.signal_latency_cycles, self.passes
        # S goes to Vector and P back while preload steps are between them.
        out = costs.latency("L0C", "GM") + costs.latency("GM", "UB")
        back = costs.latency("UB", "GM") + costs.latency("GM", "L1")
        if direct.any():
            out, back = np.where(direct, costs.latency("L0C", "UB"), out), np.where(direct, costs.latency("UB", "L1"), back)
        life = cube + out + 2 * signal + vector + store + back
        phase.ring(life, s.preload + 1, count)
        # P goes to the Cube and O back before the slot of P is filled again.
        phase.ring(vector + store + back + 2 * signal + output + out + rescale, s.preload + 1, count)
        phase.once(self._queries(phase, s, rounds, np.minimum(steps, s.l2_ahead + 1)) + life + output + out + signal + rescale)
        stored = self.dim if problem.shared_kv else self.dim + self.out
        phase.hbm_bytes = self.work.heads * problem.kv * stored * self.needs.cache_bits / 8
        rings = np.where(direct, 0.0, passes * self.work.base_rows(s) * (kv * (4 + self.bits / 8) + self.out * 4.0))
        self._leaves_l2(phase, s, rings, cores, count)
        phase.l2_write_bytes = phase.l2_write_bytes + rings * cores * count
        phase.l2_read_bytes = phase.l2_read_bytes + rings * cores * count
        return [*self._before(s), phase, self._merge(s)]

    def _before(self, s: Space) -> list[Phase]:
        """Phases before the pipeline."""
        return []

    def _leaves_l2(self, phase: Phase, s: Space, rings: Values, cores: Values, count: Values) -> None:
        """Where L2 has no room for all, what passes between two uses of a slot lets lines of the rings leave it: they are
        written and read again."""
        problem, room = self.problem, self.chip.l2.capacity_bytes
        stored = self.dim if problem.shared_kv else self.dim + self.out
        slots, whole = cores * (s.preload + 1), self.work.heads * problem.kv * stored * self.needs.cache_bits / 8
        together = np.clip(self.work.row_tiles(s), 1, cores)
        passing = slots * rings + np.minimum(whole, slots / together * s.kv_tile * stored * self.needs.cache_bits / 8)
        left = np.where(slots * rings + whole > room, np.clip((passing / room - KEPT) / (1 - KEPT), 0, 1), 0.0)
        phase.hbm_bytes = phase.hbm_bytes + 2 * left * cores * count * rings

    def _fresh(self, s: Space) -> Values:
        """Share of the loads of K and V that find nothing in L2: row tiles of a head that ask for them together all wait; none
        where the AIVs have fetched them."""
        rounds_of_head = np.maximum(1.0, self.work.row_tiles(s) / self.chip.cores.aic)
        return np.where(s.l2_ahead > 0, 0.0, 1 / rounds_of_head)

    def _cube(self, phase: Phase, s: Space, kv: Values, count: Values, items: Values) -> tuple[Values, Values]:
        """The AIC's part of a step; cycles of Q K^T from its load to S, and of P V to O."""
        costs, bits, direct, split = self.costs, self.bits, s.direct == 1, s.pv_n < self.out
        rows, fresh, here = self.passes * self.work.base_rows(s), self._fresh(s), np.where(self._cache_slots(s) > 0, 0, 1)
        cores = np.minimum(self.chip.cores.aic, items)

        def load(lines: Values, cols: Values, width: int, new: Values) -> tuple[Values, Values]:
            """Cycles and times of the chunks of K or V in a step."""
            lines = np.minimum(lines, kv)
            pitch = self.apart * width * bits // 8
            cycles, l2 = costs.gm("GM", "L1", lines, cols * bits // 8, new, np.gcd(pitch, cols * bits // 8), pitch,
                                  sharing=self._sharing(s, width))
            times = ceil(kv, lines) * ceil(width, cols)
            # Of the last chunk only a part is there.
            there = here * kv / (ceil(kv, lines) * lines)
            phase.pipe("MTE2", cycles * there, times * count)
            phase.l2_read_bytes = phase.l2_read_bytes + cores * count * l2 * there * times
            return cycles, times

        load_k, loads_k = load(np.where(split, s.qk_n, s.l1_kv), np.minimum(s.l1_k, self.dim), self.dim, fresh)
        of_v, cols_v = np.minimum(np.where(split, s.l1_v, s.l1_kv), kv), np.minimum(s.pv_n, self.out)
        shared = self.problem.shared_kv
        load_v, loads_v = load(of_v, cols_v, self.dim if shared else self.out, 0.0 if shared else fresh)
        wide_p = np.where(split, kv, np.minimum(s.l1_kv, kv))
        load_p, more_p = costs.gm("GM", "L1", rows, wide_p * bits // 8)
        loads_p = np.where(direct, 0, ceil(kv, wide_p))
        phase.pipe("MTE2", load_p, loads_p * count)
        phase.l2_read_bytes = phase.l2_read_bytes + cores * count * more_p * loads_p
        qk_n, qk_k = np.minimum(s.qk_n, up(kv, self.step)), np.minimum(s.qk_k, self.dim)
        pv_k = np.minimum(s.pv_k, up(kv, self.deep))
        tiles_s, deep_s = ceil(kv, qk_n), ceil(self.dim, qk_k)
        tiles_o, deep_o = ceil(self.out, cols_v), ceil(kv, of_v) * ceil(of_v, pv_k)
        inside_s, path = self._product(phase, s, rows, qk_k, qk_n, deep_s, tiles_s * count)
        inside_o, _ = self._product(phase, s, rows, np.minimum(pv_k, ceil(kv, deep_o)), cols_v, deep_o, tiles_o * count)
        drain_s, drain_o = self._drain(s, rows, qk_n), self._drain(s, rows, cols_v)
        phase.pipe("FIX", drain_s, tiles_s * count)
        phase.pipe("FIX", drain_o, tiles_o * count)
        leave, latency = costs.latency("L0C", "UB" if direct.all() else "GM"), costs.latency("GM", "L1", fresh)
        phase.ring(inside_s + path + drain_s + leave, s.s_ring, tiles_s * count)
        phase.ring(inside_o + path + drain_o + leave, s.o_ring, tiles_o * count)
        phase.ring(here * (load_k + latency + inside_s), s.l1_ring, loads_k * count)
        phase.ring(here * (load_v + latency + inside_o * tiles_o / loads_v), s.l1_ring, loads_v * count)
        # One accumulator of each by turns: each waits for the other's drain.
        by_turns = inside_s + inside_o + 2 * path + np.minimum(drain_s, drain_o) + leave
        phase.ring(np.where(s.interleave == 1, by_turns, 0.0), 1, np.minimum(tiles_s, tiles_o) * count)
        reading = np.where(direct, 0.0, load_p)
        return (here * (load_k + latency) + tiles_s * inside_s + path + drain_s,
                reading + np.where(split, tiles_o, 1) * inside_o + path + drain_o)

    def _queries(self, phase: Phase, s: Space, rounds: Values, ahead: Values) -> Values:
        """Q of ``rounds`` items of the busiest core; cycles until the first is in L1, behind ``ahead`` steps of the cache."""
        costs, rows, tiles = self.costs, self.work.base_rows(s), np.where(self.work.paired(s), 2, 1)
        load, _ = costs.gm("GM", "L1", self.passes * rows, self.dim * self.bits // 8, 1.0)
        phase.pipe("MTE2", load, rounds * tiles)
        if self.needs.fmt == "bf16":
            return load + costs.latency("GM", "L1", 1.0)
        n, part = self.passes, np.minimum(s.out_m, self.work.share(s))
        times = ceil(self.work.share(s), part)
        bring, _ = costs.gm("GM", "UB", part, self.dim * 2, 1.0)
        ops: Ops = tuple((op, 32) for op in (*QUERY_OPS, *n * SPLIT_OPS))
        v = costs.vector(ops, part, self.dim)
        store = n * costs.gm("UB", "GM", part, self.dim * self.bits // 8)[0]
        step = self._fetch(np.minimum(s.kv_tile, self.problem.kv), self._sharing(s, self.dim))
        fetched = np.where(s.l2_ahead > 0, ahead, 0) * step
        for name, cycles, own in (("AIV.MTE2", bring, fetched), ("AIV.V", v, 0.0), ("AIV.MTE3", store, 0.0)):
            phase.pipe(name, cycles, times * rounds * tiles, own)
        way = bring + costs.latency("GM", "UB", 1.0) + times * v + store + costs.latency("UB", "GM")
        return fetched + way + self.chip.cross_core.signal_latency_cycles + load + costs.latency("GM", "L1")

    def _product(self, phase: Phase, s: Space, rows: Values, k: Values, n: Values, deep: Values,
                 tiles: Values) -> tuple[Values, Values]:
        """``tiles`` accumulators of ``deep`` products each; cycles of one, and the latency through L0."""
        costs = self.costs
        to_l0 = costs.local("L1", "L0A", rows, k, self.bits) + costs.local("L1", "L0B", n, k, self.bits)
        if self.needs.fmt.startswith("mx"):
            blocks = ceil(k, MX_BLOCK)
            to_l0 = to_l0 + costs.local("L1", "L0A_MX", rows, blocks, 8) + costs.local("L1", "L0B_MX", n, blocks, 8)
        mmad = costs.mmad(self.fmt, rows, k, n)
        phase.pipe("MTE1", to_l0, deep * tiles)
        phase.pipe("M", mmad, deep * tiles)
        path = costs.latency("L1", "L0A") + costs.latency("L1", "L0B") + self.chip.cube.head_isolated_cycles
        phase.ring(to_l0 + mmad + path, s.l0_ring, deep * tiles)
        return deep * np.maximum(to_l0, mmad), path

    def _drain(self, s: Space, rows: Values, cols: Values) -> Values:
        to_gm = self.costs.drain(rows, cols, 32)
        if not (s.direct == 1).any():
            return to_gm
        to_ub = self.aivs * self.passes * self.costs.local("L0C", "UB", self.work.share(s), cols, 32)
        return np.where(s.direct == 1, to_ub, to_gm)

    def _softmax(self, phase: Phase, s: Space, kv: Values, count: Values) -> tuple[Values, Values, Values]:
        """The AIVs' part of a step; cycles of the softmax, of the store of the last tile of P, and of the rescaling by O."""
        costs, n, share, direct = self.costs, self.passes, self.work.share(s), s.direct == 1
        vec_m, out_m = np.minimum(s.vec_m, share), np.minimum(s.out_m, share)
        tiles_s, tiles_o = ceil(share, vec_m), ceil(share, out_m)
        load_s = np.where(direct, 0.0, n * costs.gm("GM", "UB", vec_m, kv * 4)[0])
        load_o = np.where(direct, 0.0, n * costs.gm("GM", "UB", out_m, self.out * 4)[0])
        v_s = costs.vector([(op, 32) for op in self.needs.vector_ops], vec_m, kv) + costs.vector(ROW_OPS, vec_m, 1)
        merge: Ops = (("cast", 32), *(n - 1) * (("cast", 32), ("muls", 32), ("add", 32)), ("muls", 32))
        v_o = costs.vector((("mul", 32), ("add", 32), *(merge if n > 1 else ())), out_m, self.out)
        store = n * costs.gm("UB", "GM", vec_m, kv * self.bits // 8)[0]
        if direct.any():
            store = np.where(direct, n * costs.local("UB", "L1", vec_m, kv, self.bits), store)
        for name, cycles, each in (("AIV.MTE2", load_s, tiles_s), ("AIV.MTE2", load_o, tiles_o),
                                   ("AIV.V", v_s, tiles_s), ("AIV.V", v_o, tiles_o),
                                   ("AIV.MTE3", store, tiles_s)):
            phase.pipe(name, cycles, each * count)
        into = costs.latency("GM", "UB")
        phase.ring(np.where(direct, 0.0, load_s + into + v_s), s.ub_ring, tiles_s * count)
        phase.ring(np.where(direct, 0.0, load_o + into + v_o), s.ub_ring, tiles_o * count)
        return load_s + tiles_s * v_s, store, load_o + tiles_o * v_o

    def _bring(self, phase: Phase, s: Space, kv: Values, count: Values) -> None:
        """What the AIVs do for the cache in a step: they fetch it into L2."""
        if (s.l2_ahead > 0).any():
            phase.pipe("AIV.MTE2", np.where(s.l2_ahead > 0, self._fetch(kv, self._sharing(s, self.dim)), 0.0), count)

    def _fetch(self, kv: Values, sharing: Values) -> Values:
        """Cycles in which an AIV reads its share of a step of the cache into L2."""
        rows, caches = ceil(kv, self.aivs), 1 if self.problem.shared_kv else 2
        width = max(self.dim, self.out) * self.needs.cache_bits // 8
        return caches * self.costs.gm("GM", "UB", rows, width, 1.0, width, self.apart * width, sharing=sharing)[0]

    def _sharing(self, s: Space, width: int) -> Values:
        """Cores that ask for the same lines of the cache together: of row tiles of a head, and of heads side by side."""
        side_by_side = min(self.apart, max(1, self.chip.l2.line_bytes * 8 // (width * self.needs.cache_bits)))
        tiles = self.work.row_tiles(s) * side_by_side
        return np.clip(self.chip.cores.aic // s.kv_splits, 1, tiles)

    def _merge(self, s: Space) -> Phase:
        """The states of the splits, after all cores have met."""
        costs, chip, splits = self.costs, self.chip, s.kv_splits
        phase = Phase(costs, s.count)
        rows_of_head = self.work.group * self.problem.q
        total = self.work.heads * rows_of_head
        rows = np.clip(total // chip.aiv, 1, min(MERGE_ROWS, rows_of_head))
        row_bytes = 8 * splits * (self.out + 2) + 12 * self.out + 128
        rows = np.clip((chip.buffers.ub_bytes * 3 // 4) // row_bytes, 1, rows)
        each = ceil(self.work.heads * ceil(rows_of_head, rows), chip.aiv)
        load = costs.gm("GM", "UB", rows, splits * self.out * 4)[0] + costs.gm("GM", "UB", rows, splits * 8)[0]
        # What a split adds to the maximum, the sum and the output waits for little of the others.
        v = costs.vector(STATE_OPS, rows, 1) + costs.vector([("mul", 32), ("add", 32)], rows, self.out)
        v = splits * (v - MERGE_OVERLAPS * costs.overlap("add"))
        store, _ = costs.gm("UB", "GM", rows, self.out * 2)
        for name, cycles in (("AIV.MTE2", load), ("AIV.V", v), ("AIV.MTE3", store)):
            phase.pipe(name, cycles, each)
        # Each split's state on its way to GM.
        parts, _ = costs.gm("UB", "GM", np.minimum(s.out_m, self.work.share(s)), self.out * 4)
        phase.once(parts + costs.latency("UB", "GM") + chip.cross_core.barrier_latency_cycles)
        phase.once(load + v + store + costs.latency("GM", "UB") + costs.latency("UB", "GM"))
        phase.only(splits > 1)
        return phase


declare("bf16", partial(Attention, needs=BF16), kind="attention")
for _spec in msd.SPECS:
    declare(f"msd-{_spec.name}", partial(Attention, needs=msd_needs(_spec)), kind="attention")
declare("msd-mxfp4", partial(Attention, needs=MXFP4), kind="attention")
