"""The tilings of attention that are tried: rows and KV columns of a step, splits of the KV length, tiles of both products and
of Vector, rings."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from msdsim.dataflows.attention.operands import FETCH_BYTES
from msdsim.dataflows.attention.tiling import has_direct_paths
from msdsim.dataflows.attention.work import AttentionShape
from msdsim.formats.mx import MX_BLOCK, element_bits
from msdsim.hardware.chip import Chip
from msdsim.tilings.attention_dealt import Dealt
from msdsim.tilings.attention_needs import Needs, UbTiles
from msdsim.tilings.costs import Costs
from msdsim.tilings.space import Column, Space, Values, ceil, up
from msdsim.units import ceil_div, round_up

#: Rows of stacked operands of a step: 128 is what the vendor's kernels use.
MOST_ROWS = 128
#: KV columns of a step; numbers of parts of the KV length that others cut evenly, and columns that these aim at.
KV_TILES, EVEN_PARTS, EVEN_COLUMNS = (2048, 1024, 512, 256, 128, 64), (1, 2, 3, 4, 6, 8), (1024, 512, 256, 128)
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


class AttentionSpace:
    """Row tiles and KV tiles, the tiles of both products and of Vector."""

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
        self.work = Dealt(problem, chip, self.passes)

    # Space

    def fill(self, s: Space) -> None:
        """Rows, KV tiles and splits first, with the largest tiles that fit; then the tiles and the rings."""
        problem, chip = self.problem, self.chip
        s.shape, s.parts = ("direct", "rows", "kv_tile", "kv_splits", "pv_n"), "kv_splits"
        s.cross("direct", (1, 0) if has_direct_paths(chip) else (0,))
        self.more(s)
        s.set(l2_ahead=0, p_ring=1)
        rows = [min(MOST_ROWS // self.passes, self.work.group * problem.q)]
        while rows[-1] > 1 and rows[-1] * self.passes > chip.cube.fractal_m:
            rows.append(ceil_div(rows[-1], 2))
        s.cross("rows", rows)
        s.cross("kv_tile", self._kv_tiles())
        s.set(ub_ring=2, preload=np.where(s.direct == 1, 1, 2))
        tiles = ceil(problem.kv, s.kv_tile)
        split = [np.clip(self.chip.cores.aic * rounds // self.work.whole_items(s), 1, tiles) for rounds in ROUNDS]
        s.options("kv_splits", 1, *[np.where(self.work.q_tiles(s) == 1, parts, 1) for parts in split])
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
        once = self.work.whole_items(s) == self.work.heads
        port, uses = float(self.chip.need_path("GM", "L1").bytes_per_cycle), 2 if self.problem.shared_kv else 1
        rate, fractal_bytes = self.chip.cube.need_rate(*self.fmt), self.deep * self.step * self.bits / 8
        cube = uses * self.work.cube_rows(s) // self.chip.cube.fractal_m * float(rate.cycles_per_fractal)
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
            return self.work.cube_rows(s)

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
        depth = self.chip.buffers.l0a_bytes * 4 // (s.l0_ring * self.work.cube_rows(s) * self.bits)
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
        rows, split = self.work.cube_rows(s), s.pv_n < self.out
        slots = np.where(s.direct == 1, s.preload + 1, 0)
        q = s.q_ring * np.where(self.work.paired(s), 2, 1) * rows * self.dim
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
        share = self.work.share(s)
        fixed, of_s, of_o = self._ub(s)
        room = self.chip.buffers.ub_bytes - fixed
        out_m = [np.minimum(share, rows) for rows in (64, *((8, 4, 2, 1) if several else (8, 2, 1)))]
        s.options("out_m", *[np.where(rows * of_o < room, rows, 0) for rows in out_m])
        share = self.work.share(s)
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
        s.set(out_m=ceil(self.work.share(s), ceil(self.work.share(s), s.out_m)))

    def _ub(self, s: Space) -> tuple[Column, Column, Column]:
        """Bytes of UB that rows do not change, those of a row of S, and of a row of O."""
        slots = np.where(s.direct == 1, s.preload + 1, 0)
        under_way = (2 * s.preload + 1) * np.where(self.work.paired(s), 2, 1)
        table = np.stack([self.work.share(s), s.kv_tile, slots, s.ub_ring, under_way, *self._ub_keys(s)], axis=1)
        kinds, which = np.unique(table, axis=0, return_inverse=True)

        def of(kind: Any, vec_m: int, out_m: int) -> int:
            share, kv_tile, slots, ring, turns, *more = (int(value) for value in kind)
            tiles = UbTiles(share, vec_m, out_m, kv_tile, self.dim, self.out, slots, ring, turns)
            return self._ub_bytes(*more).ub_bytes(tiles)

        found = np.array([(of(kind, 0, 0), of(kind, 64, 0), of(kind, 0, 64)) for kind in kinds], float)[which.reshape(-1)]
        fixed = found[:, 0] + FETCH_BYTES * (s.l2_ahead > 0)
        return fixed, (found[:, 1] - found[:, 0]) / 64, np.maximum((found[:, 2] - found[:, 0]) / 64, 1.0)

    def _ub_keys(self, s: Space) -> tuple[Column, ...]:
        return ()

    def _ub_bytes(self, *keys: int) -> Needs:
        return self.needs
