"""Tilings of attention whose cache Vector makes BF16, with or without its scales."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from msdsim.dataflows.attention.convert import QUERY_BYTES, query_rows
from msdsim.dataflows.attention.dequant import CACHES
from msdsim.dataflows.attention.work import AttentionShape
from msdsim.hardware.chip import Chip
from msdsim.tilings.attention import Attention
from msdsim.tilings.attention_needs import (
    ELEMENT_BYTES,
    Needs,
    UbTiles,
    arriving_bytes,
    convert_needs,
    dequant_needs,
    room_beside,
)
from msdsim.tilings.attention_space import PIECES
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Column, Space, Values, ceil


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
        table = np.stack([self.work.share(s), s.vec_m, s.out_m, s.kv_tile, slots, s.ub_ring, s.fused], axis=1)
        kinds, which = np.unique(table, axis=0, return_inverse=True)
        taken = np.array([self._taken(*kind) for kind in kinds.tolist()], np.int64)[which.reshape(-1)]
        room = self.chip.buffers.ub_bytes - taken
        # Beside every row: its scale, twice, in 32 bytes each.
        most = np.maximum(1, (room - 8 * self.widest - 256) // (ELEMENT_BYTES * self.widest + 2 * 32))
        # Tiles of about one size: of two that take turns the larger one sets the pace.
        share = np.where(s.fused == 1, ceil(s.kv_tile, self.aivs), self.problem.kv)
        tiles = ceil(share, np.minimum(most, share))
        s.options("dequant_kv", *[ceil(share, np.minimum(share, tiles * parts)) for parts in (PIECES[:2] if several else (1,))])

    def _taken(self, share: int, vec_m: int, out_m: int, kv_tile: int, slots: int, ring: int, fused: int) -> int:
        """Bytes of UB that the pipeline takes, or S and O, which have their place there in every phase."""
        tiles = UbTiles(share, vec_m, out_m, kv_tile, self.dim, self.out, slots, ring)
        if fused:
            return self.needs.ub_bytes(tiles) - room_beside(self.chip)
        # Queries that are scaled before have a place beside the cache.
        queries = 0 if "mul" in self.needs.cache_ops else \
            (QUERY_BYTES * query_rows(self.chip.buffers.ub_bytes, self.dim) + 8) * self.dim
        return queries + (arriving_bytes(1, tiles) if slots else 0)

    def _tile(self, s: Space) -> tuple[Values, Values, Values]:
        """Cycles of ``dequant_kv`` rows of the cache on MTE2, V and MTE3."""
        costs, rows, bits = self.costs, s.dequant_kv, self.needs.cache_bits
        width = self.widest * bits // 8
        load, _ = costs.gm("GM", "UB", rows, width, 1.0, width, self.apart * width, sharing=super()._sharing(s, self.widest))
        at_once = self.chip.vector.vf is not None and "mul" in self.needs.cache_ops
        v = costs.function([("cast", 16), ("cast", 32), *at_once * [("mul", 32)], ("cast", 32)], rows, self.widest, flat=True)
        if "mul" in self.needs.cache_ops and not at_once:
            v = v + costs.vector([("mul", 32)], rows, self.widest)
        store, _ = costs.gm("UB", "GM", rows, self.widest * 2)
        if (s.direct == 1).any():
            store = np.where((s.direct == 1) & (s.fused == 1), costs.local("UB", "L1", rows, self.widest, 16), store)
        scales = costs.gm("GM", "UB", rows, 4, 1.0, 4, 4)[0] if self.problem.scales == "token" else \
            costs.gm("GM", "UB", 1, self.widest * 4)[0]
        return load + scales, v, store

    def _fresh(self, s: Space) -> Values:
        """Nothing: Vector has just made it."""
        return 0.0

    def _sharing(self, s: Space, width: int) -> Values:
        """Row tiles of a head, whose cache lies by itself; each core has its own where it is made tile by tile."""
        tiles = self.work.row_tiles(s)
        return np.where(s.fused == 1, 1, np.minimum(self.chip.cores.aic, tiles))

    def _queries(self, phase: Phase, s: Space, rounds: Values, ahead: Values) -> Values:
        """Beside Q, K of the first step."""
        load, v, store = self._tile(s)
        times = ceil(ceil(np.minimum(s.kv_tile, self.problem.kv), self.aivs), s.dequant_kv)
        made = load + self.costs.latency("GM", "UB", 1.0) + v + (times - 1) * np.maximum(load, v) + store
        made = made + self.costs.latency("UB", "GM") + self.chip.cross_core.signal_latency_cycles
        for name, own in (("AIV.MTE2", times * load), ("AIV.V", times * v)):
            phase.pipe(name, 0.0, 0, np.where(s.fused == 1, own, 0.0))
        return np.maximum(super()._queries(phase, s, rounds, ahead), np.where(s.fused == 1, made, 0.0))

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
        tiles = caches * ceil(self.work.heads * ceil(problem.kv, s.dequant_kv), self.chip.aiv)
        for name, cycles in (("AIV.MTE2", load), ("AIV.V", v), ("AIV.MTE3", store)):
            phase.pipe(name, cycles, tiles)
        phase.hbm_bytes = self.work.heads * problem.kv * caches * self.widest * self.needs.cache_bits / 8
        phase.l2_write_bytes = self.work.heads * problem.kv * caches * self.widest * 2.0
        phase.once(load + v + store + self.costs.latency("GM", "UB", 1.0) + self.costs.latency("UB", "GM")
                   + self.chip.cross_core.barrier_latency_cycles)
        phase.only(s.fused == 0)
        return [phase]


for _cache in CACHES:
    for _method, _needs in (("dequant", dequant_needs), ("convert", convert_needs)):
        declare(f"{_method}-{_cache}", partial(DequantAttention, cache=_cache, needs_of=_needs), kind="attention")
