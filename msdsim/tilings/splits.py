"""Activations that Vector quantizes or decomposes before the Cube begins: into integers with one scale per row
(:mod:`msdsim.dataflows.gemm.msd_split`), or into MX blocks (:mod:`msdsim.dataflows.gemm.mx_split`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from msdsim.dataflows.gemm.mx_split import QUANTUM
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import Scheme
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.ir.vector_work import decomposing
from msdsim.tilings.costs import Costs, Ops
from msdsim.tilings.estimate import Phase
from msdsim.tilings.space import Space, Values, ceil, divisor_below, up
from msdsim.units import ceil_div

#: Values that follow from the candidates as they are when it is called.
Of = Callable[[Space], Values]
#: Most rows of a tile.
MOST_ROWS = 8
#: Scale of blocks from their maximum; and into the next pass (:mod:`msdsim.ir.ops.mx`).
MX_SCALE: Ops = (("adds", 32), ("muls", 32), ("adds", 32), ("maxs", 32), ("mins", 32), ("cast", 32))
SCALED: Ops = (("copy", 32), ("mul", 32))
#: Instructions of a decomposition that take a number of every row.
BY_ROW = ("div", "mul")


def split_bytes_per_element(passes: int, component_bits: int, ring: Values, nibbles: bool) -> Values:
    """UB bytes per element of a split tile: xb (BF16) in a ring, xf, q (FP32), q16 (FP16), components; t (FP32) for what one
    component leaves to the next; hi of a nibble split."""
    rest = 4 if passes > 1 else 0
    return 2 * ring + 2 * 4 + 2 + rest + passes * component_bits / 8 + (4 if nibbles else 0)


def split_bytes_per_row(groups: int) -> int:
    """UB bytes per row besides its elements: two rows of lanes, the scalars, the row scale and the sums."""
    return 2 * 4 * FOLD_LANES + 4 * 4 + 4 * groups


@dataclass(frozen=True)
class SplitWork:
    """``counts`` rows of every expert by ``k`` into ``passes`` components of a method."""

    costs: Costs
    counts: Sequence[int]
    k: int
    passes: int
    scheme: Scheme

    @property
    def bits(self) -> int:
        """Of an element of a component."""
        return FORMATS[self.scheme.component].bits

    def blocks(self, s: Space, tile_rows: Values) -> Values:
        """Blocks of ``decompose_m`` rows, none of which crosses a tile of ``tile_rows``."""
        per_tile = ceil(np.minimum(tile_rows, max(self.counts)), s.decompose_m)
        return per_tile * sum(self.counts.count(of) * ceil(of, tile_rows) for of in dict.fromkeys(self.counts))

    def phase(self, s: Space, tiles: Values, load: Values, sweeps: Values, v: Values, store: Values) -> Phase:
        """``tiles`` of the busiest AIV, each loaded in ``sweeps``; then all cores meet."""
        costs, total = self.costs, sum(self.counts) * self.k
        phase = Phase(costs, s.count)
        phase.pipe("AIV.MTE2", load, tiles * sweeps)
        phase.pipe("AIV.V", v - costs.overlap(), tiles)
        phase.pipe("AIV.MTE3", store, tiles)
        into, out = costs.latency("GM", "UB", 1.0), costs.latency("UB", "GM")
        phase.ring(load + into + v / sweeps, np.where(tiles * sweeps > 1, s.ub_ring, 1), tiles * sweeps)
        phase.hbm_bytes = 2.0 * total
        phase.l2_write_bytes = total * self.passes * self.bits / 8
        phase.once(load + into + store + out + costs.chip.cross_core.barrier_latency_cycles)
        return phase


@dataclass(frozen=True)
class RowSplitWork(SplitWork):
    """Integers; ``groups`` of K (0: no sums of x are wanted) of ``group``."""

    groups: int
    group: int | None

    def add(self, s: Space, tile_rows: Of, room: Of, several: bool) -> None:
        """Few rows, so that all AIVs have some, and as much of K as fits ``room`` bytes of UB: as few tiles as possible, all of
        about one size; whole groups or even parts of them where their sums are wanted."""
        aiv = self.costs.chip.aiv
        most = np.clip(ceil(sum(self.counts), aiv), 1, np.minimum(tile_rows(s), MOST_ROWS))
        s.options("decompose_m", *((most, np.maximum(1, most // 2), 1) if several else (most,)))
        row = room(s) / s.decompose_m - split_bytes_per_row(max(1, self.groups)) - 64

        def deepest(ring: Values) -> Values:
            each = split_bytes_per_element(self.passes, self.bits, ring, self.scheme.nibbles)
            return np.maximum(0, row / each).astype(np.int64) // FOLD_LANES * FOLD_LANES

        whole: Values = up(self.k, FOLD_LANES)
        alone = self.blocks(s, tile_rows(s)) <= aiv
        tiles = ceil(self.k, np.maximum(FOLD_LANES, deepest(s.ub_ring)))
        depth: Values = np.where(whole <= deepest(np.where(alone, 1, s.ub_ring)), whole, up(ceil(self.k, tiles), FOLD_LANES))
        if self.groups and self.group is not None:
            parts = np.where(depth >= self.group, depth // self.group * self.group,
                             divisor_below(self.group, depth, FOLD_LANES))
            depth = np.where(depth >= self.k, depth, parts)
        s.set(decompose_k=depth)
        s.keep((s.decompose_k >= FOLD_LANES) & (deepest(1) >= FOLD_LANES))

    def state(self, s: Space, tile_rows: Values) -> Phase:
        """One sweep over K, or two where a row has no room: its maximum first."""
        costs, k, n = self.costs, self.k, self.passes
        depth, rows = np.minimum(s.decompose_k, k), np.minimum(s.decompose_m, max(self.counts))
        tiles = ceil(k, depth)
        sweeps = np.where(tiles == 1, 1, 2)
        flat = k % depth == 0

        def over(ops: Ops, by_element: Ops = ()) -> Values:
            return costs.vector(ops, rows, depth, flat=flat) + costs.vector(by_element, rows, depth)

        v = sweeps * over([("cast", 32)]) + over([("abs", 32)], [("fold_max", 32)])
        if self.groups:
            sums = np.maximum(1, depth // self.group) if self.group else 1
            v = v + sums * costs.vector([("fold_add", 32)], rows, ceil(depth, sums))
            v = v + sums * costs.vector([("reduce_add", 32)], rows, FOLD_LANES)
        v = v + costs.vector([("reduce_max", 32), ("dup", 32), ("div", 32), ("maxs", 32)], rows, FOLD_LANES) / tiles
        # Division by the row's maximum, and the product with it, take a number of every row.
        work = decomposing(self.scheme, n)
        v = v + over([op for op in work if op[0] not in BY_ROW], [op for op in work if op[0] in BY_ROW])
        load, _ = costs.gm("GM", "UB", rows, depth * 2, 1 / sweeps, np.gcd(depth * 2, k * 2), k * 2)
        store = n * costs.gm("UB", "GM", rows, depth * self.bits // 8)[0]
        return self.phase(s, ceil(self.blocks(s, tile_rows), costs.chip.aiv) * tiles, load, sweeps, v, store)


@dataclass(frozen=True)
class BlockSplitWork(SplitWork):
    """MX blocks, each with its own scale; nothing to do where they are ``given``."""

    given: bool = False

    def add(self, s: Space, tile_rows: Of, room: Of, several: bool) -> None:
        """Tiles for all AIVs, of at least a few KiB, that fit ``room`` bytes of UB."""
        if self.given:
            s.set(decompose_m=1, decompose_k=QUANTUM)
            return
        quantum, rows = QUANTUM, max(self.counts)
        wanted = max(1024, ceil_div(sum(self.counts) * self.k, self.costs.chip.aiv))

        def most() -> Values:
            each = 2 * s.ub_ring + 4 + 4 + 2 + self.passes * self.bits / 8 + (4 + self.passes) / MX_BLOCK
            return np.maximum(0, (room(s) - 2048) / each).astype(np.int64)

        s.keep(most() >= quantum)
        depth = np.minimum(up(self.k, quantum), np.maximum(quantum, np.minimum(most(), wanted) // quantum * quantum))
        s.options("decompose_k", depth, *((up(ceil(depth, 2), quantum), up(ceil(depth, 4), quantum)) if several else ()))
        s.set(decompose_m=np.clip(np.minimum(most(), wanted) // s.decompose_k, 1, np.minimum(tile_rows(s), rows)))

    def state(self, s: Space, tile_rows: Values) -> Phase:
        """Every tile by itself."""
        costs, k, n = self.costs, self.k, self.passes
        depth, rows = np.minimum(s.decompose_k, k), np.minimum(s.decompose_m, max(self.counts))
        blocks = ceil(depth, MX_BLOCK)
        v = costs.vector([("cast", 32), ("abs", 32), ("reduce_max", 32)], rows, depth)
        v = v + costs.vector([("max", 32)], rows, ceil(depth, 4)) + costs.vector(MX_SCALE, rows, blocks)
        narrow = [("cast", 32), ("cast", 16)] if self.scheme.component == "fp4_e2m1" else [("cast", 32)]
        v = v + n * costs.vector([*SCALED, *narrow], rows, depth)
        v = v + (n - 1) * costs.vector([("cast", 16), ("cast", 32), *SCALED, ("sub", 32)], rows, depth)
        v = v + (n - 1) * costs.vector([("adds", 16)], rows, blocks)
        load, _ = costs.gm("GM", "UB", rows, depth * 2, 1.0, np.gcd(depth * 2, k * 2), k * 2)
        store = n * (costs.gm("UB", "GM", rows, depth * self.bits // 8)[0] + costs.gm("UB", "GM", rows, blocks)[0])
        tiles = ceil(self.blocks(s, tile_rows) * ceil(k, depth), costs.chip.aiv)
        return self.phase(s, tiles, load, 1, v, store)

    def phases(self, s: Space, tile_rows: Values) -> list[Phase]:
        """:meth:`state`, where there is anything to do."""
        return [] if self.given else [self.state(s, tile_rows)]
