"""The Cube's sums on their way to Vector: what each AIV of a group merges of an output tile, and the ring that brings it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.mainloop import drain
from msdsim.dataflows.ring import Ring
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, KernelBuilder, Slice, at, minimum, share_of
from msdsim.units import ceil_div, round_up

_FIRST: Expr = Const(0)
#: Columns of the narrowest share (256 B of FP32); sums that move in the time that a load takes to start.
MIN_COLUMNS, LOAD_ELEMENTS = 64, 512


@dataclass(frozen=True)
class Share:
    """What an AIV merges of an output tile: ``rows`` from ``row`` and ``cols`` from ``col`` of it."""

    place: OutputTile
    base_n: int
    row: Expr
    rows: Expr
    col: Expr
    cols: Expr

    def tensor_rows(self, rows: At) -> At:
        """Rows of y for ``rows`` of the share."""
        return at(self.place.row + self.row + rows.start, rows.size)

    @property
    def tensor_cols(self) -> At:
        """Columns of y."""
        return at(self.place.nt * self.base_n + self.col, self.cols)


class Shares:
    """Shares of tiles of ``tile_rows`` by ``base_n``, for ``aivs`` AIVs: some rows each, or some columns where there are few
    rows, unless it is said which; ``rows`` by ``cols`` at most."""

    def __init__(self, experts: Experts, tile_rows: int, base_n: int, aivs: int, by_rows: bool | None = None) -> None:
        self.uneven, self.base_n, self.aivs = experts.uneven is not None, base_n, aivs
        most = min(tile_rows, experts.rows)
        self.by_rows = (most >= 4 * aivs or base_n < 16 * aivs) if by_rows is None else by_rows
        self.rows = ceil_div(most, aivs) if self.by_rows else most
        self.cols = base_n if self.by_rows else round_up(ceil_div(base_n, aivs), 16)

    def of(self, place: OutputTile, sub: Expr) -> Share:
        """What AIV ``sub`` merges of a tile."""
        rows, cols = place.rows, place.cols
        if not self.by_rows:
            return Share(place, self.base_n, Const(0), rows, sub * self.cols, share_of(cols, self.cols, sub))
        if not self.uneven:
            return Share(place, self.base_n, sub * self.rows, share_of(rows, self.rows, sub), Const(0), cols)
        # Many a tile leaves nothing to the last AIV, which then begins at the end of the tile.
        first = minimum(sub * self.rows, rows)
        return Share(place, self.base_n, first, minimum(self.rows, rows - first), Const(0), cols)


def even_shares(experts: Experts, tiles: int, tile_rows: int, base_n: int, merge_m: int, chip: Chip) -> Shares:
    """Shares of ``tiles`` tiles that any AIV may merge, ``merge_m`` rows at a time: so many, by rows or by columns, that the
    busiest AIV has least to do."""
    rows = min(tile_rows, experts.rows)
    found = [Shares(experts, tile_rows, base_n, pieces, True) for pieces in range(1, rows + 1)]
    found += [Shares(experts, tile_rows, base_n, pieces, False) for pieces in range(2, max(3, base_n // MIN_COLUMNS))]

    def work(shares: Shares) -> int:
        chunks = ceil_div(shares.rows, merge_m)
        return ceil_div(tiles * shares.aivs, chip.aiv) * chunks * (LOAD_ELEMENTS + min(shares.rows, merge_m) * shares.cols)

    return min(found, key=work)


@dataclass(frozen=True)
class Handover:
    """``slots`` of the ring of sums.  In GM one holds a pack of ``pack`` sums, in UB (``direct``) each AIV's share of one sum;
    an output tile fills ``per_tile`` slots, and a core's tiles take turns.  Where ``together`` of them are worked on, a slot
    holds a pack of each."""

    slots: int
    pack: int
    per_tile: int
    direct: bool
    together: int = 0


class SumRing:
    """The ring of sums ``c``, of ``passes`` that are stacked along the rows."""

    def __init__(self, kb: KernelBuilder, shares: Shares, fmt: str, passes: int, base: tuple[int, int], to: Handover) -> None:
        self.kb, self.shares, self.fmt, self.passes, self.to = kb, shares, fmt, passes, to
        shape = (shares.aivs, to.slots, passes * shares.rows, shares.cols) if to.direct else \
            (to.slots, to.pack * max(1, to.together), *base)
        self.tensor = kb.tensor("c", fmt, (kb.cores, *shape), "workspace", "UB" if to.direct else "GM")
        # Where the ring lies in UB, sums are merged where they lie.
        pipes = ("FIX", "V" if to.direct else "MTE2")
        self.ring = Ring.between(kb, self.tensor, to.slots, "to_vector", ("product", "merged"), pipes)

    @property
    def ub_bytes(self) -> int:
        """Bytes of the ring in each UB."""
        return self.to.slots * self.passes * self.shares.rows * self.shares.cols * 4 if self.to.direct else 0

    def produce_pack(self) -> AbstractContextManager[None]:
        """AIC: hand over a pack; in UB its sums go by themselves."""
        return nullcontext() if self.to.direct else self.ring.produce()

    def consume_pack(self) -> AbstractContextManager[None]:
        """AIV: take a pack; in UB its sums come by themselves."""
        return nullcontext() if self.to.direct else self.ring.consume()

    def consume_sum(self) -> AbstractContextManager[None]:
        """AIV: take a sum of a pack."""
        return self.ring.consume() if self.to.direct else nullcontext()

    def _slot(self, turn: Expr, p: Expr, j: Expr) -> tuple[Expr, Expr]:
        """Slot of sum ``j`` of pack ``p`` of the tile that a core has in its ``turn``, and the place in it."""
        to = self.to
        if to.together:
            return p % to.slots, turn * to.pack + j
        return (turn * to.per_tile + (p * to.pack + j if to.direct else p)) % to.slots, j

    def drain(self, turn: Expr, place: OutputTile, acc: Slice, p: Expr = _FIRST, j: Expr = _FIRST) -> None:
        """AIC: a sum into its place."""
        kb, (slot, inside), (stacked, cols) = self.kb, self._slot(turn, p, j), acc.sizes
        if not self.to.direct:
            drain(kb, self.tensor[kb.core, slot, inside, :stacked, :cols], acc)
            return
        # Every AIV gets its share of every pass.
        with self.ring.produce():
            for sub in range(self.shares.aivs):
                share = self.shares.of(place, Const(sub))
                for number in range(self.passes):
                    source = Slice(acc.of, (place.rows * number + share.row, share.col), (share.rows, share.cols))
                    here = at(number * self.shares.rows, share.rows)
                    kb.op("fixpipe", self.tensor[kb.core, sub, slot, here, : share.cols], source)

    def in_ub(self, turn: Expr, share: Share, rows: At, tile: tuple[int, int], p: Expr = _FIRST,
              j: Expr = _FIRST) -> list[Slice]:
        """AIV: some rows of a share in UB, of every pass; loaded into a ``tile`` of rows and ring if they are not there."""
        kb, (slot, inside), (most, depth), numbers = self.kb, self._slot(turn, p, j), tile, range(self.passes)
        if self.to.direct:
            starts = [number * self.shares.rows + rows.start for number in numbers]
            return [self.tensor[kb.core, kb.sub, slot, at(start, rows.size), : share.cols] for start in starts]
        ci = kb.buffer("ci", "UB", self.fmt, (self.passes * most, self.shares.cols), depth)
        pieces = [ci[at(number * most, rows.size), : share.cols] for number in numbers]
        for number, piece in enumerate(pieces):
            there = at(share.place.rows * number + share.row + rows.start, rows.size), at(share.col, share.cols)
            kb.copy(piece, self.tensor[kb.core, slot, inside, *there])
        return pieces


def add_up(kb: KernelBuilder, number: Expr, into: Slice, value: Slice, scale: Slice) -> None:
    """``into += value * scale``; sum ``number`` 0 of an output tile starts it."""
    with kb.when(number.equals(0)):
        kb.op("mul", into, value, scale)
    with kb.when(number > 0):
        kb.op("mul", value, value, scale)
        kb.op("add", into, into, value)
