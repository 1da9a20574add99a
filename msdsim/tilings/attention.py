"""Tilings of attention: rows and KV columns of a step, splits of the KV length, tiles of both products and of Vector, rings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np

from msdsim.dataflows.attention import bf16, convert, dequant, msd, mx
from msdsim.dataflows.attention.operands import FETCH_BYTES
from msdsim.dataflows.attention.output import MERGE_ROWS
from msdsim.dataflows.attention.tiling import Needs, UbTiles, arriving_bytes, has_direct_paths
from msdsim.dataflows.attention.work import AttentionShape
from msdsim.formats.mx import MX_BLOCK, element_bits
from msdsim.hardware.chip import Chip
from msdsim.tilings.costs import Costs, Ops
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Column, Space, Values, ceil, up
from msdsim.units import ceil_div, round_up

#: Rows of stacked operands of a step: 128 is what the vendor's kernels use.
MOST_ROWS = 128
#: KV columns of a step; numbers of parts of the KV length that others cut evenly, and columns that these aim at.
KV_TILES, EVEN_PARTS, EVEN_COLUMNS = (2048, 1024, 512, 256, 128, 64), (1, 2, 3, 4, 6, 8), (1024, 512, 256, 128)
#: Share of L2 that the rings and the cache that streams by may take before lines of the rings leave it: sets fill unevenly.
KEPT = 0.55
#: Rounds of items over the cores that splits aim at.
ROUNDS = (1, 2, 3, 4)
#: Channels of O up to which it may be one accumulator, columns of the accumulators of a wider O.
ONE_ACCUMULATOR, WIDE_COLUMNS = 256, (256, 192, 128, 64, 32)
#: Bytes of a load that already runs at full bandwidth.
LOAD_BYTES = 32768
#: KV rows of a chunk in L1 as parts of a step; parts of the rows in UB; the first are where the search begins.
CHUNKS, PIECES = (2, 1, 4, 8, 16), (1, 2, 4)
#: Steps that the AIVs fetch the cache into L2 before it is needed.
AHEAD = (2, 6)
#: Vector instructions of a step on a few numbers per row: of the softmax, and of the merge of splits for each of them.
ROW_OPS: Ops = tuple((name, 32) for name in ("reduce_max", "max", "sub", "exp", "max", "reduce_add", "mul", "add"))
STATE_OPS: Ops = tuple((name, 32) for name in ("max", "sub", "exp", "mul", "add"))


class Attention:
    """Query rows of a KV head in row tiles, KV tiles, and the pipeline of both products with the softmax between them."""

    #: Values tried where nothing fits with the usual ones.
    tightest: ClassVar[tuple[dict[str, int], ...]] = ({"ub_ring": 1}, {"l0_ring": 1}, {"ub_ring": 1, "l0_ring": 1},
                                                     {"ub_ring": 1, "rows": 2}, {"ub_ring": 1, "rows": 1})

    #: What is tried for ``l2_ahead`` besides 0.
    ahead: ClassVar[tuple[int, ...]] = AHEAD

    def __init__(self, problem: AttentionShape, chip: Chip, needs: Needs) -> None:
        self.problem, self.chip, self.needs, self.costs = problem, chip, needs, Costs(chip)
        self.fmt, self.passes, self.bits = (needs.fmt, needs.fmt), needs.passes, element_bits(needs.fmt)
        self.deep, self.step = chip.cube.need_rate(*self.fmt).fractal_k, chip.cube.fractal_n
        self.dim, self.out, self.aivs = problem.head_dim, problem.value_dim, chip.cores.aiv_per_aic
        #: Rows of the cache from one token of a head to its next.
        self.apart = problem.kv_heads if problem.kv_layout == "bsnd" else 1
        self.group, self.heads = problem.heads // problem.kv_heads, problem.batch * problem.kv_heads

    # How the work is divided (:class:`~msdsim.dataflows.attention.work.Division`)

    def _per_tile(self, s: Space) -> tuple[Values, Values]:
        """Query heads and positions of a row tile."""
        return np.clip(s.rows // self.problem.q, 1, self.group), np.minimum(self.problem.q, s.rows)

    def _base_rows(self, s: Space) -> Values:
        heads, positions = self._per_tile(s)
        return heads * positions

    def _cube_rows(self, s: Space) -> Values:
        return up(self.passes * self._base_rows(s), self.chip.cube.fractal_m)

    def _share(self, s: Space) -> Values:
        """Rows of an AIV."""
        return ceil(self._base_rows(s), self.aivs)

    def _q_tiles(self, s: Space) -> Values:
        return ceil(self.problem.q, self._per_tile(s)[1])

    def _paired(self, s: Space) -> Values:
        return (self._q_tiles(s) > 1) & bool(self.problem.causal)

    def _whole_items(self, s: Space) -> Values:
        """Row tiles, or pairs of them, whose KV length is not split."""
        of_head = np.where(self._paired(s), ceil(self._q_tiles(s), 2), self._q_tiles(s))
        return self.heads * ceil(self.group, self._per_tile(s)[0]) * of_head

    def _steps(self, s: Space) -> Values:
        """KV tiles of an item."""
        tiles = ceil(self.problem.kv, s.kv_tile)
        # Of the last KV tile of a row tile only a part is seen, in the mean half of it.
        more = np.maximum(0.0, 1 - self._per_tile(s)[1] / s.kv_tile)
        pair = np.maximum(2, np.rint(self._seen(s) / s.kv_tile + more)).astype(np.int64)
        return np.where(self._paired(s), pair, ceil(tiles, s.kv_splits))

    def _seen(self, s: Space) -> Values:
        """KV columns that both row tiles of a pair see."""
        return 2 * (self.problem.kv - self.problem.q) + (self._q_tiles(s) + 1) * self._per_tile(s)[1]

    # Space

    def fill(self, s: Space) -> None:
        """Rows, KV tiles and splits first, with the largest tiles that fit; then the tiles and the rings."""
        problem, chip = self.problem, self.chip
        s.shape, s.parts = ("direct", "rows", "kv_tile", "kv_splits", "pv_n"), "kv_splits"
        s.cross("direct", (1, 0) if has_direct_paths(chip) else (0,))
        self.more(s)
        s.set(l2_ahead=0, p_ring=1)
        rows = [min(MOST_ROWS // self.passes, self.group * problem.q)]
        while rows[-1] > 1 and rows[-1] * self.passes > chip.cube.fractal_m:
            rows.append(ceil_div(rows[-1], 2))
        s.cross("rows", rows)
        s.cross("kv_tile", self._kv_tiles())
        s.set(ub_ring=2, preload=np.where(s.direct == 1, 1, 2))
        tiles = ceil(problem.kv, s.kv_tile)
        split = [np.clip(self.chip.cores.aic * rounds // self._whole_items(s), 1, tiles) for rounds in ROUNDS]
        s.options("kv_splits", 1, *[np.where(self._q_tiles(s) == 1, parts, 1) for parts in split])
        self._products(s, several=False)
        self._chunks(s, several=False)
        self._vector(s, several=False)
        s.narrow(2)
        self._products(s, several=True)
        self._chunks(s, several=False)
        s.narrow()
        self._chunks(s, several=True)
        s.narrow()
        s.options("ub_ring", 2, 1)
        ahead = self._loads_bind(s)
        s.options("l2_ahead", 0, *[np.where(ahead, tiles, 0) for tiles in self.ahead])
        s.options("preload", s.preload, np.where(s.direct == 1, 1, 3))
        self._chunks(s, several=False)
        self._vector(s, several=True)

    def _loads_bind(self, s: Space) -> Column:
        """Where it can pay that the AIVs bring the cache into L2: only one row tile reads it (others find it there anyway), and
        a fractal of it takes the port longer than the Cube, which multiplies it once, or twice where K and V are one."""
        once = self._whole_items(s) == self.heads
        port, uses = float(self.chip.need_path("GM", "L1").bytes_per_cycle), 2 if self.problem.shared_kv else 1
        rate, fractal_bytes = self.chip.cube.need_rate(*self.fmt), self.deep * self.step * self.bits / 8
        cube = uses * self._cube_rows(s) // self.chip.cube.fractal_m * float(rate.cycles_per_fractal)
        return once & (cube < fractal_bytes / port)

    def more(self, s: Space) -> None:
        """Further keys of a dataflow, before the others."""

    def _kv_tiles(self) -> list[int]:
        """Plain ones, and those that cut each of several parts of the KV length into equally many."""
        kv, step = self.problem.kv, max(16, 512 // self.bits // 2)
        even = [round_up(ceil_div(kv, parts * ceil_div(kv, parts * most)), step)
                for parts in EVEN_PARTS for most in EVEN_COLUMNS]
        return [tile for tile in dict.fromkeys((*KV_TILES, *even)) if tile <= max(64, round_up(kv, 64))]

    def _products(self, s: Space, several: bool) -> None:
        """``pv_n`` columns of O (all of them if L0C has room), ``qk_n`` of S, the depths in L0 and the rings of L0C."""
        buffers, step, deep = self.chip.buffers, self.step, self.deep

        def rows() -> Values:
            return self._cube_rows(s)

        def split() -> Values:
            return s.pv_n < self.out

        def wide() -> Values:
            return up(s.pv_n, step)

        whole = (self.out <= ONE_ACCUMULATOR) & (rows() * (up(self.out, step) + 2 * step) * 4 <= buffers.l0c_bytes)
        parts = dict.fromkeys(ceil_div(self.out, columns) for columns in WIDE_COLUMNS)
        s.options("pv_n", *[np.where(whole, self.out, round_up(ceil_div(self.out, part), step)) for part in parts])
        # Tiles that are several may take turns with those of S.
        s.options("interleave", *[np.where(split() & (s.direct == 0), turns, 0) for turns in (0, 1)])
        s.set(l0_ring=2, s_ring=np.where(s.interleave == 1, 1, 2), o_ring=np.where(split() & (s.interleave == 0), 2, 1))
        # L0A and L0B: half for either product.
        half_b = buffers.l0b_bytes * 4 // (s.l0_ring * wide() * self.bits) // deep * deep
        pv = np.minimum(np.minimum(self._half_of_l0a(s), np.maximum(half_b, deep)), up(s.kv_tile, deep))
        s.options("pv_k", *[np.maximum(deep, pv // part // deep * deep) for part in ((1, 2) if several else (1,))])
        qk = np.minimum(self._half_of_l0a(s), round_up(self.dim, deep))
        s.options("qk_k", *[np.maximum(deep, up(ceil(qk, part), deep)) for part in ((1, 2, 4) if several else (1, 2))])
        left = buffers.l0b_bytes // s.l0_ring - s.pv_k * wide() * self.bits // 8
        spare = buffers.l0c_bytes - s.o_ring * rows() * wide() * 4
        qk_n = np.minimum(np.minimum(spare // (s.s_ring * rows() * 4), left * 8 // (s.qk_k * self.bits)), 256)
        qk_n = np.minimum(qk_n, up(s.kv_tile, step)) // step * step
        s.options("qk_n", *[np.maximum(0, up(qk_n // part, step)) for part in ((1, 2) if several else (1,))])
        second = buffers.l0c_bytes >= rows() * (2 * wide() + s.s_ring * s.qk_n) * 4
        s.set(o_ring=np.where(~split() & second, 2, s.o_ring))
        pair = s.l0_ring * self.bits
        s.keep((s.qk_n >= step) & (pair * rows() * s.qk_k // 8 + pair * rows() * s.pv_k // 8 <= buffers.l0a_bytes)
               & (pair * (s.qk_k * s.qk_n + s.pv_k * wide()) // 8 <= buffers.l0b_bytes)
               & ((s.s_ring * s.qk_n + s.o_ring * wide()) * rows() * 4 <= buffers.l0c_bytes))

    def _half_of_l0a(self, s: Space) -> Values:
        """The deepest tile of one product's rows."""
        depth = self.chip.buffers.l0a_bytes * 4 // (s.l0_ring * self._cube_rows(s) * self.bits)
        return depth // self.deep * self.deep

    def _chunks(self, s: Space, several: bool) -> None:
        """Chunks of K, V and P in L1 and their rings."""
        split, bits = s.pv_n < self.out, self.bits
        # Of a wide O loads of 32 KiB at most: they already run at full bandwidth.
        deep_v = ceil(np.minimum(s.kv_tile, LOAD_BYTES * 8 // (s.pv_n * bits)), s.pv_k)

        def choice(part: int, ring: int, q_ring: int) -> dict[str, Values]:
            rows = np.where(split, s.qk_n, up(ceil(s.kv_tile, part), self._quantum))
            return {"l1_kv": rows, "l1_v": np.where(split, np.maximum(1, ceil(deep_v, part)) * s.pv_k, rows),
                    "l1_k": np.where(split, np.minimum(up(ceil(self.dim, part), s.qk_k), up(self.dim, s.qk_k)), self.dim),
                    "l1_ring": ring, "q_ring": q_ring}

        def fits() -> Column:
            # Event ids: one for every slot of K, V and Q, and for P.
            ids = ~(s.pv_n < self.out) | (2 * s.l1_ring + s.q_ring + s.p_ring <= self.chip.dispatch.event_ids_per_pipe_pair)
            whole = (s.l1_kv % MX_BLOCK == 0) | (s.l1_kv >= s.kv_tile) | (s.pv_n < self.out)
            return (self._l1_bytes(s) <= self.chip.buffers.l1_bytes) & ids & (whole | (self._quantum < MX_BLOCK))

        if several:
            s.options("chunk", *range(2 * len(CHUNKS)))
            split, deep_v = s.pv_n < self.out, ceil(np.minimum(s.kv_tile, LOAD_BYTES * 8 // (s.pv_n * bits)), s.pv_k)
            table = [choice(part, ring, 2) for part in CHUNKS for ring in (2, 3)]
            which = s.columns.pop("chunk")
            s.set(**{key: np.choose(which, [np.broadcast_to(row[key], (s.count,)) for row in table]) for key in table[0]})
            s.first(fits, {"q_ring": 2}, {"q_ring": 1})
            return
        s.first(fits, *[choice(part, 2, q_ring) for part in CHUNKS for q_ring in (2, 1)],
                *[choice(part, 1, 1) for part in CHUNKS])

    @property
    def _quantum(self) -> int:
        return MX_BLOCK if self.needs.fmt.startswith("mx") else 2 if self.bits < 8 else 1

    def _l1_bytes(self, s: Space) -> Values:
        """Q of an item, chunks of K, V and P, or what Vector brings of them."""
        rows, split = self._cube_rows(s), s.pv_n < self.out
        slots = np.where(s.direct == 1, s.preload + 1, 0)
        q = s.q_ring * np.where(self._paired(s), 2, 1) * rows * self.dim
        p = rows * np.where(slots > 0, slots * s.kv_tile, np.where(split, s.p_ring * s.kv_tile, s.l1_ring * s.l1_kv))
        chunks = np.where(split, s.l1_ring * (s.qk_n * np.minimum(s.l1_k, self.dim) + s.l1_v * s.pv_n),
                          s.l1_ring * s.l1_kv * (self.dim + self.out))
        chunks = np.where(self._cache_slots(s) > 0, self._cache_slots(s) * s.kv_tile
                          * (self.dim if self.problem.shared_kv else self.dim + self.out), chunks)
        # A sixteenth more, which is what the block scales of MX operands take.
        return (q + p + chunks) * self.bits * (17 if self.needs.fmt.startswith("mx") else 16) // 128 + 256

    def _cache_slots(self, s: Space) -> Values:
        """Tiles of the cache that Vector puts into L1."""
        return np.zeros(s.count, np.int64)

    def _vector(self, s: Space, several: bool) -> None:
        """``vec_m`` rows of S and ``out_m`` of O in UB: tiles of about one size, the largest that fit."""
        share = self._share(s)
        fixed, of_s, of_o = self._ub(s)
        room = self.chip.buffers.ub_bytes - fixed
        out_m = [np.minimum(share, rows) for rows in (64, *((8, 4, 2, 1) if several else (8, 2, 1)))]
        s.options("out_m", *[np.where(rows * of_o < room, rows, 0) for rows in out_m])
        share = self._share(s)
        fixed, of_s, of_o = self._ub(s)
        room = self.chip.buffers.ub_bytes - fixed
        # As many rows of both, or the most beside few of O.
        both = np.minimum(np.minimum(share, 64), (room // (of_s + of_o)).astype(np.int64))
        s.set(out_m=np.where(s.out_m >= np.minimum(share, 64), both, s.out_m))
        most = np.minimum(np.minimum(share, 64), ((room - s.out_m * of_o) // of_s).astype(np.int64))
        pieces = ceil(share, np.maximum(1, most))
        s.options("vec_m", *[np.where(most < 1, 0, ceil(share, np.minimum(share, pieces * times)))
                             for times in (PIECES if several else PIECES[:1])])
        s.keep((s.vec_m >= 1) & (s.out_m >= 1))
        s.set(out_m=ceil(self._share(s), ceil(self._share(s), s.out_m)))

    def _ub(self, s: Space) -> tuple[Column, Column, Column]:
        """Bytes of UB that rows do not change, those of a row of S, and of a row of O."""
        slots = np.where(s.direct == 1, s.preload + 1, 0)
        table = np.stack([self._share(s), s.kv_tile, slots, s.ub_ring, *self._ub_keys(s)], axis=1)
        kinds, which = np.unique(table, axis=0, return_inverse=True)

        def of(kind: Any, vec_m: int, out_m: int) -> int:
            share, kv_tile, slots, ring, *more = (int(value) for value in kind)
            return self._ub_bytes(*more).ub_bytes(UbTiles(share, vec_m, out_m, kv_tile, self.dim, self.out, slots, ring))

        found = np.array([(of(kind, 0, 0), of(kind, 64, 0), of(kind, 0, 64)) for kind in kinds], float)[which.reshape(-1)]
        fixed = found[:, 0] + FETCH_BYTES * (s.l2_ahead > 0)
        return fixed, (found[:, 1] - found[:, 0]) / 64, np.maximum((found[:, 2] - found[:, 0]) / 64, 1.0)

    def _ub_keys(self, s: Space) -> tuple[Column, ...]:
        return ()

    def _ub_bytes(self, *keys: int) -> Needs:
        return self.needs

    # What it costs

    def phases(self, s: Space) -> list[Phase]:
        """The pipeline of steps, and the merge of the splits."""
        costs, problem, chip, direct = self.costs, self.problem, self.chip, s.direct == 1
        phase = Phase(costs, s.count)
        items = self._whole_items(s) * s.kv_splits
        rounds, steps, cores = ceil(items, chip.cores.aic), self._steps(s), np.minimum(chip.cores.aic, items)
        count = rounds * steps
        # Of the last KV tile, and of the diagonal, only a part is there.
        tiles = ceil(problem.kv, s.kv_tile)
        columns = np.where(s.kv_splits > 1, np.minimum(problem.kv, s.kv_tile * tiles / s.kv_splits), problem.kv)
        columns = np.where(self._paired(s), self._seen(s), columns)
        kv = np.minimum(s.kv_tile, ceil(columns, steps)).astype(np.int64)
        cube = self._cube(phase, s, kv, count, items)
        vector, store = self._softmax(phase, s, kv, count)
        self._bring(phase, s, kv, count)
        signal, passes = chip.cross_core.signal_latency_cycles, self.passes
        # S goes to Vector and P back while preload steps are between them.
        out = costs.latency("L0C", "GM") + costs.latency("GM", "UB")
        back = costs.latency("UB", "GM") + costs.latency("GM", "L1")
        if direct.any():
            out, back = np.where(direct, costs.latency("L0C", "UB"), out), np.where(direct, costs.latency("UB", "L1"), back)
        life = cube + out + 2 * signal + vector + store + back
        phase.ring(life, s.preload + 1, count)
        phase.once(life)
        stored = self.dim if problem.shared_kv else self.dim + self.out
        phase.hbm_bytes = self.heads * problem.kv * stored * self.needs.cache_bits / 8
        rings = np.where(direct, 0.0, passes * self._base_rows(s) * (kv * (4 + self.bits / 8) + self.out * 4.0))
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
        slots, whole = cores * (s.preload + 1), self.heads * problem.kv * stored * self.needs.cache_bits / 8
        together = np.clip(ceil(self.group, self._per_tile(s)[0]) * self._q_tiles(s), 1, cores)
        passing = slots * rings + np.minimum(whole, slots / together * s.kv_tile * stored * self.needs.cache_bits / 8)
        left = np.where(slots * rings + whole > room, np.clip((passing / room - KEPT) / (1 - KEPT), 0, 1), 0.0)
        phase.hbm_bytes = phase.hbm_bytes + 2 * left * cores * count * rings

    def _fresh(self, s: Space) -> Values:
        """Share of the loads of K and V that find nothing in L2: row tiles of a head that ask for them together all wait; none
        where the AIVs have fetched them."""
        rounds_of_head = np.maximum(1.0, ceil(self.group, self._per_tile(s)[0]) * self._q_tiles(s) / self.chip.cores.aic)
        return np.where(s.l2_ahead > 0, 0.0, 1 / rounds_of_head)

    def _cube(self, phase: Phase, s: Space, kv: Values, count: Values, items: Values) -> Values:
        """The AIC's part of a step; cycles of Q K^T from its load to S."""
        costs, bits, direct, split = self.costs, self.bits, s.direct == 1, s.pv_n < self.out
        rows, fresh, here = self.passes * self._base_rows(s), self._fresh(s), np.where(self._cache_slots(s) > 0, 0, 1)
        cores = np.minimum(self.chip.cores.aic, items)

        def load(lines: Values, cols: Values, width: int, new: Values) -> tuple[Values, Values]:
            """Cycles and times of the chunks of K or V in a step."""
            lines = np.minimum(lines, kv)
            pitch = self.apart * width * bits // 8
            cycles, l2 = costs.gm("GM", "L1", lines, cols * bits // 8, new, np.gcd(pitch, cols * bits // 8), pitch)
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
        return here * (load_k + latency) + tiles_s * inside_s + path + drain_s

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
        to_ub = self.aivs * self.passes * self.costs.local("L0C", "UB", self._share(s), cols, 32)
        return np.where(s.direct == 1, to_ub, to_gm)

    def _softmax(self, phase: Phase, s: Space, kv: Values, count: Values) -> tuple[Values, Values]:
        """The AIVs' part of a step; cycles of the softmax, and of the store of the last tile of P."""
        costs, n, share, direct = self.costs, self.passes, self._share(s), s.direct == 1
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
        return load_s + tiles_s * v_s, store

    def _bring(self, phase: Phase, s: Space, kv: Values, count: Values) -> None:
        """What the AIVs do for the cache in a step: they fetch it into L2."""
        rows, caches = ceil(kv, self.aivs), 1 if self.problem.shared_kv else 2
        width = max(self.dim, self.out) * self.needs.cache_bits // 8
        load = caches * self.costs.gm("GM", "UB", rows, width, 1.0, width, self.apart * width)[0]
        if (s.l2_ahead > 0).any():
            phase.pipe("AIV.MTE2", np.where(s.l2_ahead > 0, load, 0.0), count)

    def _merge(self, s: Space) -> Phase:
        """The states of the splits, after all cores have met."""
        costs, chip, splits = self.costs, self.chip, s.kv_splits
        phase = Phase(costs, s.count)
        rows_of_head = self.group * self.problem.q
        total = self.heads * rows_of_head
        rows = np.clip(total // chip.aiv, 1, min(MERGE_ROWS, rows_of_head))
        row_bytes = 8 * splits * (self.out + 2) + 12 * self.out + 128
        rows = np.clip((chip.buffers.ub_bytes * 3 // 4) // row_bytes, 1, rows)
        each = ceil(self.heads * ceil(rows_of_head, rows), chip.aiv)
        load = costs.gm("GM", "UB", rows, splits * self.out * 4)[0] + costs.gm("GM", "UB", rows, splits * 8)[0]
        v = splits * (costs.vector(STATE_OPS, rows, 1) + costs.vector([("mul", 32), ("add", 32)], rows, self.out))
        store, _ = costs.gm("UB", "GM", rows, self.out * 2)
        for name, cycles in (("AIV.MTE2", load), ("AIV.V", v), ("AIV.MTE3", store)):
            phase.pipe(name, cycles, each)
        # Each split's state on its way to GM.
        parts, _ = costs.gm("UB", "GM", np.minimum(s.out_m, self._share(s)), self.out * 4)
        phase.once(parts + costs.latency("UB", "GM") + chip.cross_core.barrier_latency_cycles)
        phase.once(load + v + store + costs.latency("GM", "UB") + costs.latency("UB", "GM"))
        phase.only(splits > 1)
        return phase


class DequantAttention(Attention):
    """A cache that Vector turns into BF16: every KV tile when it is needed, or all of it before."""

    #: Vector reads it anyway.
    ahead = ()

    def __init__(self, problem: AttentionShape, chip: Chip, cache: str, needs_of: Callable[[Chip, str, bool], Needs]) -> None:
        super().__init__(problem, chip, needs_of(chip, cache, True))
        self.unfused = needs_of(chip, cache, False)
        self.widest = self.dim if problem.shared_kv else max(self.dim, self.out)

    def more(self, s: Space) -> None:
        s.options("fused", 1, 0)

    def _cache_slots(self, s: Space) -> Values:
        return np.where((s.direct == 1) & (s.fused == 1), self._kv_slots(s), 0)

    def _kv_slots(self, s: Space) -> Values:
        """Tiles of the cache that are in use (:func:`msdsim.dataflows.attention.dequant.slots`)."""
        return 2 * s.preload + 1 if self.problem.shared_kv else s.preload + 1

    def _ub_keys(self, s: Space) -> tuple[Column, ...]:
        return (s.fused,)

    def _ub_bytes(self, *keys: int) -> Needs:
        return self.needs if keys[0] else self.unfused

    def _vector(self, s: Space, several: bool) -> None:
        """``dequant_kv``: rows of the cache in what UB has left, or in all of it before."""
        super()._vector(s, several)
        s.set(kv_slots=self._kv_slots(s))
        slots = np.where(s.direct == 1, s.preload + 1, 0)
        rows = (self._share(s), s.vec_m, s.out_m, s.kv_tile, slots, s.ub_ring, s.fused)
        taken = np.array([self._taken(*(int(value) for value in row)) for row in zip(*rows, strict=True)], np.int64)
        room = self.chip.buffers.ub_bytes - taken
        # Beside every row: its scale, twice, in 32 bytes each.
        most = np.maximum(1, (room - 8 * self.widest - 256) // (dequant.ELEMENT_BYTES * self.widest + 2 * 32))
        s.set(dequant_kv=np.minimum(most, np.where(s.fused == 1, ceil(s.kv_tile, self.aivs), self.problem.kv)))

    def _taken(self, share: int, vec_m: int, out_m: int, kv_tile: int, slots: int, ring: int, fused: int) -> int:
        """Bytes of UB that the pipeline takes, or S and O, which have their place there in every phase."""
        tiles = UbTiles(share, vec_m, out_m, kv_tile, self.dim, self.out, slots, ring)
        return self.unfused.ub_bytes(tiles) if fused else arriving_bytes(1, tiles) if slots else 0

    def _tile(self, s: Space) -> tuple[Values, Values, Values]:
        """Cycles of ``dequant_kv`` rows of the cache on MTE2, V and MTE3."""
        costs, rows, bits = self.costs, s.dequant_kv, self.needs.cache_bits
        width = self.widest * bits // 8
        load, _ = costs.gm("GM", "UB", rows, width, 1.0, width, self.apart * width)
        v = costs.vector([("cast", 16), ("cast", 32), ("cast", 32)], rows, self.widest, flat=True)
        if "mul" in self.needs.cache_ops:
            v = v + costs.vector([("mul", 32)], rows, self.widest)
        store, _ = costs.gm("UB", "GM", rows, self.widest * 2)
        if (s.direct == 1).any():
            store = np.where((s.direct == 1) & (s.fused == 1), costs.local("UB", "L1", rows, self.widest, 16), store)
        return load + costs.gm("GM", "UB", 1, self.widest * 4)[0], v, store

    def _bring(self, phase: Phase, s: Space, kv: Values, count: Values) -> None:
        load, v, store = self._tile(s)
        caches = 1 if self.problem.shared_kv else 2
        tiles = np.where(s.fused == 1, caches * ceil(ceil(kv, self.aivs), s.dequant_kv), 0)
        share = np.minimum(1.0, ceil(kv, self.aivs) / (ceil(ceil(kv, self.aivs), s.dequant_kv) * s.dequant_kv))
        for name, cycles in (("AIV.MTE2", load), ("AIV.V", v), ("AIV.MTE3", store)):
            phase.pipe(name, cycles * share, tiles * count)
        phase.ring((load + v) * share + self.costs.latency("GM", "UB", 1.0), s.ub_ring, tiles * count)

    def _before(self, s: Space) -> list[Phase]:
        """The whole cache, where it is not made tile by tile."""
        load, v, store = self._tile(s)
        phase, problem = Phase(self.costs, s.count), self.problem
        caches = 1 if problem.shared_kv else 2
        tiles = caches * ceil(self.heads * ceil(problem.kv, s.dequant_kv), self.chip.aiv)
        for name, cycles in (("AIV.MTE2", load), ("AIV.V", v), ("AIV.MTE3", store)):
            phase.pipe(name, cycles, tiles)
        phase.hbm_bytes = self.heads * problem.kv * caches * self.widest * self.needs.cache_bits / 8
        phase.l2_write_bytes = self.heads * problem.kv * caches * self.widest * 2.0
        phase.once(load + v + store + self.costs.latency("GM", "UB", 1.0) + self.costs.latency("UB", "GM")
                   + self.chip.cross_core.barrier_latency_cycles)
        phase.only(s.fused == 0)
        return [phase]


declare("bf16", partial(Attention, needs=bf16.NEEDS), kind="attention")
for _cache in dequant.CACHES:
    for _method in (dequant, convert):
        _name = f"{_method.__name__.rpartition('.')[2]}-{_cache}"
        declare(_name, partial(DequantAttention, cache=_cache, needs_of=_method.needs_of), kind="attention")
for _spec in msd.SPECS:
    declare(f"msd-{_spec.name}", partial(Attention, needs=msd.needs_of(_spec)), kind="attention")
declare("msd-mxfp4", partial(Attention, needs=mx.NEEDS), kind="attention")
