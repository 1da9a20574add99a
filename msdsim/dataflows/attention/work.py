"""How attention is dealt to the core groups: row tiles, KV tiles, items, and the flat sequence of steps of a core.

The query rows of one KV head (all query heads of its group, all positions) are cut into *row tiles* that lie contiguously
in GM: several whole heads where they fit, so that K and V are read once for them, else a range of positions of one head.
An *item* is a row tile with its KV tiles, or with one of ``splits`` parts of them.  With a causal mask row tile ``p`` and
its mirror image together see equally many KV tiles whatever ``p``, so an item is such a pair.

Items are dealt round robin and every item takes the same number of *steps*, one KV tile each.  A core's steps are numbered
through from item to item::

    before: for item: for tile: QK, softmax, PV, rescale
    after:  for g in 0 .. items * steps + skew: QK(g), softmax(g); PV(g - skew), rescale(g - skew)

so that the pipeline does not drain between items.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.ir import Const, Expr, maximum, minimum, ragged, tiles_of
from msdsim.problems.shapes import AttentionShape as AttentionShape
from msdsim.units import ceil_div


def refuse_odd(problem: AttentionShape, bits: int, elements: str) -> str | None:
    """Why rows of the cache do not end on a byte, or None."""
    for name, size in (("head_dim", problem.head_dim), ("v_dim", problem.value_dim)):
        if bits < 8 and size % 2:
            return f"{name}={size} is odd, and {elements} are packed by two; give an even {name}"
    return None


@dataclass(frozen=True)
class RowTile:
    """Query rows that are worked on together, as index expressions.

    ``row +: rows`` are those of KV head ``head`` (counted over all batches); ``turn`` counts the row tiles of the core;
    ``live`` is 0 where an item has no such row tile.
    """

    turn: Expr
    live: Expr
    head: Expr
    row: Expr
    rows: Expr


@dataclass(frozen=True)
class Step:
    """One KV tile (columns ``start +: cols``) of one row tile, as index expressions.

    ``live`` is 0 for a step that pads an item; ``second`` is 1 for the second row tile of a pair; ``diagonal`` is not 0
    where the causal mask cuts through the tile.
    """

    number: Expr
    live: Expr
    second: Expr
    tile: RowTile
    start: Expr
    cols: Expr
    first: Expr
    last: Expr
    diagonal: Expr
    split: Expr

    @property
    def turn(self) -> Expr:
        return self.tile.turn

    @property
    def head(self) -> Expr:
        return self.tile.head

    @property
    def row(self) -> Expr:
        return self.tile.row

    @property
    def rows(self) -> Expr:
        return self.tile.rows


class Division:
    """The division of one problem: see the module's text."""

    def __init__(self, problem: AttentionShape, cores: int, most_rows: int, kv_tile: int, splits: int = 1) -> None:
        self.cores, self.kv_tile, self.splits = cores, kv_tile, splits
        self.q, self.kv, self.causal = problem.q, problem.kv, problem.causal
        self.group = problem.heads // problem.kv_heads
        self.kv_head_count = problem.batch * problem.kv_heads
        self.heads_per_tile = max(1, min(self.group, most_rows // problem.q))
        self.positions = min(problem.q, most_rows)
        self.base_rows = self.heads_per_tile * self.positions
        self.head_tiles = ceil_div(self.group, self.heads_per_tile)
        self.q_tiles = ceil_div(problem.q, self.positions)
        self.tiles = ceil_div(problem.kv, kv_tile)
        self.paired = bool(problem.causal) and self.q_tiles > 1
        self.q_items = ceil_div(self.q_tiles, 2) if self.paired else self.q_tiles
        self.items = self.kv_head_count * self.head_tiles * self.q_items * splits
        self.steps = self._steps()

    @property
    def rows_per_head(self) -> int:
        """Query rows of one KV head."""
        return self.group * self.q

    @property
    def total_rows(self) -> int:
        return self.kv_head_count * self.rows_per_head

    def _visible_tiles(self, q_tile: int) -> int:
        if not self.causal:
            return self.tiles
        return ceil_div(self.kv - self.q + min((q_tile + 1) * self.positions, self.q), self.kv_tile)

    def _steps(self) -> int:
        if not self.paired:
            return ceil_div(self.tiles, self.splits)
        pairs = ((p, self.q_tiles - 1 - p) for p in range(self.q_items))
        return max(sum(self._visible_tiles(tile) for tile in {a, b}) for a, b in pairs)

    def leaves_out(self, share: int, aivs: int) -> bool:
        """Whether one of ``aivs`` with ``share`` rows each has rows of some row tiles and none of others."""
        positions, heads = self.q % self.positions or self.positions, self.group % self.heads_per_tile or self.heads_per_tile
        fewest = positions if self.q_tiles > 1 else heads * self.q
        return any(fewest <= aiv * share < self.base_rows for aiv in range(1, aivs))

    def items_of(self, core: Expr) -> Expr:
        """Number of items of a core."""
        return tiles_of(self.items - core, self.cores)

    def _item(self, core: Expr, at: Expr) -> tuple[Expr, Expr, Expr, Expr]:
        """Head, tile of heads, position item and split of the core's item ``at``; in range also beyond its last one."""
        item = minimum(core + at * self.cores, self.items - 1)
        split, rest = item % self.splits, item // self.splits
        q_item, rest = rest % self.q_items, rest // self.q_items
        return rest // self.head_tiles, rest % self.head_tiles, q_item, split

    @property
    def row_tiles_per_item(self) -> int:
        """1, or the 2 of a pair."""
        return 2 if self.paired else 1

    def row_tile(self, core: Expr, at: Expr, second: Expr) -> RowTile:
        """The row tile of the core's item ``at``, or the ``second`` one of a pair."""
        head, head_tile, q_item, _ = self._item(core, at)
        if self.q_tiles == 1:
            row = head_tile * (self.heads_per_tile * self.q)
            return RowTile(at, Const(1), head, row, ragged(self.group, self.heads_per_tile, head_tile) * self.q)
        live: Expr = Const(1)
        turn, q_tile = at, q_item
        if self.paired:
            last = self.q_tiles - 1
            turn, q_tile = at * 2 + second, maximum(q_item, minimum(second * self.q_tiles, last - q_item))
            # The middle row tile of an odd number is its own mirror image: it is done once.
            live = maximum(1 - second, q_item < last - q_item) if self.q_tiles % 2 else live
        return RowTile(turn, live, head, head_tile * self.q + q_tile * self.positions,
                       ragged(self.q, self.positions, q_tile))

    def step(self, core: Expr, number: Expr) -> Step:
        """Step ``number`` of a core; every index stays in range even where the number is beyond the core's steps."""
        at, inside = number // self.steps, number % self.steps
        if self.paired:
            return self._pair(core, number, at, inside)
        split = self._item(core, at)[3]
        low, high = (split * self.tiles) // self.splits, ((split + 1) * self.tiles) // self.splits
        tile = minimum(low + inside, self.tiles - 1)
        live = Const(1) if self.tiles % self.splits == 0 else inside < high - low
        diagonal = _reaches(self.kv - self.q, tile, self.kv_tile) if self.causal else Const(0)
        return Step(number, live, Const(0), self.row_tile(core, at, Const(0)), tile * self.kv_tile,
                    ragged(self.kv, self.kv_tile, tile), inside.equals(0), inside.equals(high - low - 1), diagonal, split)

    def _pair(self, core: Expr, number: Expr, at: Expr, inside: Expr) -> Step:
        """Row tile ``low`` with its visible tiles, then row tile ``q_tiles - 1 - low`` with its own."""
        low = self._item(core, at)[2]
        before = self.kv - self.q
        low_tiles = tiles_of(minimum((low + 1) * self.positions, self.q) + before, self.kv_tile)
        second = inside >= low_tiles
        rows = self.row_tile(core, at, second)
        q_tile = maximum(low, minimum(second * self.q_tiles, (self.q_tiles - 1) - low))
        ahead = inside - minimum(second * self.tiles, low_tiles)
        tile = maximum(0, minimum(ahead, self.tiles - 1))
        position = q_tile * self.positions
        visible = minimum(position + self.positions, self.q) + before
        tiles = tiles_of(visible, self.kv_tile)
        # The columns that no row of the tile sees are not computed: their weights are zero.
        cols = maximum(0, minimum(self.kv_tile, visible - tile * self.kv_tile))
        live = ahead < tiles if rows.live == Const(1) else minimum(rows.live, ahead < tiles)
        return Step(number, live, second, rows, tile * self.kv_tile, cols, tile.equals(0), tile.equals(tiles - 1),
                    tile * self.kv_tile + cols > position + before + 1, Const(0))


def _reaches(before: int, tile: Expr, kv_tile: int) -> Expr:
    """Whether a tile has columns that the first query position does not see."""
    return (tile + 1) * kv_tile > before + 1
