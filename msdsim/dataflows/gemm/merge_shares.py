"""What each AIV of a group merges of an output tile: some of its rows, or of its columns where there are few rows."""

from __future__ import annotations

from msdsim.dataflows.cube.experts import Experts
from msdsim.ir import Const, Expr, minimum, share_of
from msdsim.units import ceil_div, round_up


class MergeShares:
    """Shares of tiles of ``tile_rows`` by ``base_n``, for ``aivs`` AIVs: ``rows`` by ``cols`` at most."""

    def __init__(self, experts: Experts, tile_rows: int, base_n: int, aivs: int) -> None:
        self.uneven = experts.uneven is not None
        most = min(tile_rows, experts.rows)
        self.by_rows = most >= 4 * aivs or base_n < 16 * aivs
        self.rows = ceil_div(most, aivs) if self.by_rows else most
        self.cols = base_n if self.by_rows else round_up(ceil_div(base_n, aivs), 16)

    def of(self, rows: Expr, cols: Expr, sub: Expr) -> tuple[Expr, Expr, Expr, Expr]:
        """First row, rows, first column and columns that AIV ``sub`` merges of a tile."""
        if self.by_rows:
            if not self.uneven:
                return sub * self.rows, share_of(rows, self.rows, sub), Const(0), cols
            # Many a tile leaves nothing to the last AIV, which then begins at the end of the tile.
            first = minimum(sub * self.rows, rows)
            return first, minimum(self.rows, rows - first), Const(0), cols
        return Const(0), rows, sub * self.cols, share_of(cols, self.cols, sub)
