"""The order of output tiles: which core makes which tile when, so that L2 serves neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Expert, Experts, named
from msdsim.ir import Const, Expr, KernelBuilder, maximum, minimum, ragged, tiles_of
from msdsim.units import ceil_div


@dataclass(frozen=True)
class OutputTile:
    """An output tile: its expert, tile of rows and of columns in it, its first row in the expert's rows, and its size;
    ``row_tile`` counts the tiles of rows of all experts."""

    expert: Expert
    mt: Expr
    nt: Expr
    row: Expr
    rows: Expr
    cols: Expr
    row_tile: Expr


@dataclass(frozen=True)
class Grid:
    """Output tiles of ``base_m`` rows and ``base_n`` columns, dealt to the cores round robin in an order that lets L2 serve
    neighbours.

    Expert after expert; inside one, bands of ``swizzle`` tiles of rows, and in a band column after column of tiles::

        band 2:   0 2 4 6 ...      all rows in one band:   0 3 6 ...
                  1 3 5 7 ...                              1 4 7 ...
                  8 ...                                    2 5 8 ...

    so that a band's rows of A stay in L2 while B passes by.  The last band may be lower.
    """

    experts: Experts
    n: int
    base_m: int
    base_n: int
    swizzle: int

    @property
    def m_tiles(self) -> int:
        """Tiles of rows of the largest expert."""
        return ceil_div(self.experts.rows, self.base_m)

    @property
    def n_tiles(self) -> int:
        return ceil_div(self.n, self.base_n)

    @property
    def row_tiles(self) -> int:
        """Tiles of rows of all experts."""
        return self.experts.units(lambda m: ceil_div(m, self.base_m))

    @property
    def tiles(self) -> int:
        return self.row_tiles * self.n_tiles

    @contextmanager
    def place(self, kb: KernelBuilder, t: Expr) -> Iterator[OutputTile]:
        """Where output tile ``t`` lies; statements inside the ``with`` can use it."""
        with (
            self.experts.find(kb, t, lambda m: ceil_div(m, self.base_m) * self.n_tiles) as (expert, inside),
            self.row_tiles_before(kb, expert) as before,
        ):
            mt, nt = self._even(inside) if self.experts.uneven is None else self._uneven(inside, expert)
            with self.tile(kb, expert, mt, nt, before) as place:
                yield place

    def row_tiles_before(self, kb: KernelBuilder, expert: Expert) -> AbstractContextManager[Expr]:
        """Tiles of rows of the experts before this one."""
        return self.experts.before(kb, expert, lambda m: ceil_div(m, self.base_m))

    def row_tiles_of(self, expert: Expert) -> Expr:
        """Tiles of rows of an expert."""
        return tiles_of(expert.rows, self.base_m)

    @contextmanager
    def tile(self, kb: KernelBuilder, expert: Expert, mt: Expr, nt: Expr, before: Expr) -> Iterator[OutputTile]:
        """An output tile of an expert that has ``before`` tiles of rows before its own."""
        cols = ragged(self.n, self.base_n, nt)
        if expert.first is None:
            rows = ragged(expert.rows, self.base_m, mt)
            yield OutputTile(expert, mt, nt, mt * self.base_m, rows, cols, before + mt)
            return
        # Limits that say nothing new, for the verifier.
        most = min(self.base_m, self.experts.rows)
        with named(kb, "tile_rows", minimum(most, maximum(1, expert.rows - mt * self.base_m))) as rows:
            first = minimum(expert.first + mt * self.base_m, self.experts.total_rows - rows)
            row_tile = minimum(before + mt, self.row_tiles - 1)
            yield OutputTile(Expert(expert.index, rows, first), mt, nt, Const(0), rows, cols, row_tile)

    def _even(self, inside: Expr) -> tuple[Expr, Expr]:
        """Tile of rows and tile of columns where every expert has as many."""
        if self.swizzle >= self.m_tiles:
            return inside % self.m_tiles, inside // self.m_tiles
        of_band = self.swizzle * self.n_tiles
        row, column = inside // of_band * self.swizzle + inside % self.swizzle, inside % of_band // self.swizzle
        full = self.m_tiles // self.swizzle
        rest = self.m_tiles - full * self.swizzle
        if rest:
            # In the lower last band tiles count with its own height: choose by a condition that is 0 or 1.
            beyond = inside - full * of_band
            last = inside >= full * of_band
            row = minimum(self.m_tiles - 1, row + last * (full * self.swizzle + beyond % rest - row))
            column = minimum(self.n_tiles - 1, column + last * (beyond // rest - column))
        return row, column

    def _uneven(self, inside: Expr, expert: Expert) -> tuple[Expr, Expr]:
        """The same where the number of tiles of rows depends on the expert: every band has a height of its own."""
        if self.m_tiles == 1:
            return Const(0), minimum(self.n_tiles - 1, inside)
        m_tiles = self.row_tiles_of(expert)
        if self.swizzle >= self.m_tiles:
            return inside % m_tiles, minimum(self.n_tiles - 1, inside // m_tiles)
        of_band = self.swizzle * self.n_tiles
        band = inside // of_band
        height = maximum(1, minimum(self.swizzle, m_tiles - band * self.swizzle))
        row = minimum(m_tiles - 1, band * self.swizzle + inside % of_band % height)
        return row, minimum(self.n_tiles - 1, inside % of_band // height)
