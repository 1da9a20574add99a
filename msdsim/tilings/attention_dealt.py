"""How attention is dealt to the cores (:class:`~msdsim.dataflows.attention.work.Division`), for a table of tilings."""

from __future__ import annotations

import numpy as np

from msdsim.dataflows.attention.work import AttentionShape
from msdsim.hardware.chip import Chip
from msdsim.tilings.space import Space, Values, ceil, up
from msdsim.units import ceil_div


class Dealt:
    """Query rows of a KV head in row tiles, KV tiles, and items of both; operands of the Cube are ``passes`` components."""

    def __init__(self, problem: AttentionShape, chip: Chip, passes: int) -> None:
        self.problem, self.chip, self.passes = problem, chip, passes
        self.group, self.heads = problem.heads // problem.kv_heads, problem.batch * problem.kv_heads
        #: Steps and KV columns of the busiest core, by KV tile, splits and items.
        self._most: dict[tuple[int, ...], tuple[int, int]] = {}

    def per_tile(self, s: Space) -> tuple[Values, Values]:
        """Query heads and positions of a row tile."""
        return np.clip(s.rows // self.problem.q, 1, self.group), np.minimum(self.problem.q, s.rows)

    def base_rows(self, s: Space) -> Values:
        heads, positions = self.per_tile(s)
        return heads * positions

    def cube_rows(self, s: Space) -> Values:
        return up(self.passes * self.base_rows(s), self.chip.cube.fractal_m)

    def share(self, s: Space) -> Values:
        """Rows of an AIV."""
        return ceil(self.base_rows(s), self.chip.cores.aiv_per_aic)

    def q_tiles(self, s: Space) -> Values:
        return ceil(self.problem.q, self.per_tile(s)[1])

    def row_tiles(self, s: Space) -> Values:
        """Row tiles of a KV head."""
        return ceil(self.group, self.per_tile(s)[0]) * self.q_tiles(s)

    def paired(self, s: Space) -> Values:
        return (self.q_tiles(s) > 1) & bool(self.problem.causal)

    def whole_items(self, s: Space) -> Values:
        """Row tiles, or pairs of them, whose KV length is not split."""
        of_head = np.where(self.paired(s), ceil(self.q_tiles(s), 2), self.q_tiles(s))
        return self.heads * ceil(self.group, self.per_tile(s)[0]) * of_head

    def steps(self, s: Space) -> Values:
        """KV tiles of an item."""
        tiles = ceil(self.problem.kv, s.kv_tile)
        # Of the last KV tile of a row tile only a part is seen, in the mean half of it.
        more = np.maximum(0.0, 1 - self.per_tile(s)[1] / s.kv_tile)
        pair = np.maximum(2, np.rint(self.seen(s) / s.kv_tile + more)).astype(np.int64)
        return np.where(self.paired(s), pair, ceil(tiles, s.kv_splits))

    def busiest(self, s: Space) -> Values:
        """Steps and KV columns of the core that has most, where the KV length is split: parts differ by one KV tile, and a
        core may always have the longer ones."""
        table = np.stack([s.kv_tile, s.kv_splits, self.whole_items(s)], axis=1)
        kinds, which = np.unique(table, axis=0, return_inverse=True)
        for kind in map(tuple, kinds.tolist()):
            if kind not in self._most:
                self._most[kind] = self._steps_of(*kind)
        return np.array([self._most[tuple(kind)] for kind in kinds.tolist()]).T[:, which.reshape(-1)]

    def _steps_of(self, kv_tile: int, splits: int, whole: int) -> tuple[int, int]:
        """Steps and KV columns of the busiest core with ``whole`` items of ``splits`` parts each."""
        kv, items = self.problem.kv, np.arange(whole * splits)
        low, high = (items % splits + np.array([[0], [1]])) * ceil_div(kv, kv_tile) // splits
        columns = np.minimum(kv, high * kv_tile) - low * kv_tile
        cores = [np.bincount(items % self.chip.cores.aic, weights) for weights in (high - low, columns)]
        busiest = np.argmax(cores[0])
        return int(cores[0][busiest]), int(cores[1][busiest])

    def seen(self, s: Space) -> Values:
        """KV columns that both row tiles of a pair see."""
        return 2 * (self.problem.kv - self.problem.q) + (self.q_tiles(s) + 1) * self.per_tile(s)[1]
