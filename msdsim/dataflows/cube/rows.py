"""Rows of the activations in blocks, for what Vector makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.ir import Const, Expr, KernelBuilder, minimum, ragged
from msdsim.units import ceil_div


@dataclass(frozen=True)
class RowBlock:
    """Some rows of an expert, which lie in one tile of rows: ``row_tile`` counted over all experts, ``inside`` of it the first
    row, ``row`` the first row of the expert, and their number."""

    expert: Expert
    row_tile: Expr
    inside: Expr
    row: Expr
    rows: Expr


@dataclass(frozen=True)
class RowBlocks:
    """Rows of all experts in blocks of ``size``, none of which crosses a tile of ``tile_rows``."""

    experts: Experts
    tile_rows: int
    size: int

    @property
    def _per_tile(self) -> int:
        return ceil_div(min(self.tile_rows, self.experts.rows), self.size)

    def _of(self, m: int) -> int:
        """Blocks of an expert of ``m`` rows; with equal rows also empty ones in its last tile."""
        if self.experts.uneven is None:
            return ceil_div(m, self.tile_rows) * self._per_tile
        full, rest = divmod(m, self.tile_rows)
        return full * self._per_tile + ceil_div(rest, self.size)

    @property
    def count(self) -> int:
        """Blocks of all experts."""
        return self.experts.units(self._of)

    @contextmanager
    def place(self, kb: KernelBuilder, b: Expr) -> Iterator[RowBlock]:
        """Where block ``b`` lies; statements inside the ``with`` can use it."""
        experts, tile_rows = self.experts, self.tile_rows
        if experts.uneven is not None:
            with (
                experts.find(kb, b, self._of) as (expert, number),
                experts.before(kb, expert, lambda m: ceil_div(m, tile_rows)) as before,
            ):
                mt, inside = number // self._per_tile, number % self._per_tile * self.size
                row_tile = minimum(before + mt, experts.units(lambda m: ceil_div(m, tile_rows)) - 1)
                rows = minimum(self.size, ragged(expert.rows, tile_rows, mt) - inside)
                yield RowBlock(expert, row_tile, inside, mt * tile_rows + inside, rows)
            return
        m, m_tiles = experts.rows, ceil_div(experts.rows, tile_rows)
        row_tile, inside = b // self._per_tile, b % self._per_tile * self.size
        e, mt = (Const(0), row_tile) if experts.count == 1 else (row_tile // m_tiles, row_tile % m_tiles)
        rows = minimum(self.size, ragged(m, tile_rows, mt) - inside)
        block = RowBlock(Expert(e, Const(m)), row_tile, inside, mt * tile_rows + inside, rows)
        if m % tile_rows:
            # The last tile of rows may have fewer blocks than the others.
            with kb.when(rows > 0):
                yield block
        else:
            yield block
