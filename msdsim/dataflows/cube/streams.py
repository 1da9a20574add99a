"""Operands of the main loop that are in GM as the Cube takes them: rows of A, weights as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.mainloop import CubeTiling, Held, Stream
from msdsim.dataflows.cube.operands import Operand
from msdsim.ir import At, Const, Expr, Handle, KernelBuilder, Slice, at

START: Expr = Const(0)


def rows_of(kb: KernelBuilder, x: Operand, place: OutputTile, first: Expr = START) -> Stream:
    """Rows of A of an output tile, for K ranges counted from ``first``."""

    def load(a1: Handle, start: Expr, size: Expr) -> None:
        kb.copy(a1[: place.rows, :size], x.at(place.expert, at(place.row, place.rows), at(first + start, size)))

    return Stream(load)


def hold_rows(kb: KernelBuilder, tile: CubeTiling, fmt: str, shape: tuple[int, int], width: int,
              source: Callable[[int, At], Slice], passes: int = 1) -> Held:
    """All K of the only tile of rows, loaded once: ``source(i, k)`` is component ``i`` of A [rows, k] = ``shape``, a row takes
    ``width`` elements."""
    rows, k = shape
    whole = kb.buffer("a_all", "L1", fmt, (tile.base_m, width))
    with kb.tiles("h", k, tile.l1_k) as h:
        for number in range(passes):
            kb.copy(whole[at(rows * number, rows), h], source(number, h))
    return Held(lambda start, size: whole[: rows * passes, at(start, size)])


@dataclass(frozen=True)
class StoredWeights:
    """Weights in GM, [k, n] or with ``transposed`` [n, k], that are read in tiles of ``base_n`` columns."""

    kb: KernelBuilder
    w: Operand
    base_n: int
    transposed: bool

    def copy(self, b1: Handle, place: OutputTile, k: At) -> None:
        """A K range of the columns of an output tile to an L1 buffer."""
        cols = at(place.nt * self.base_n, place.cols)
        if self.transposed:
            self.kb.copy(b1[: place.cols, : k.size], self.w.at(place.expert, cols, k))
        else:
            self.kb.copy(b1[: k.size, : place.cols], self.w.at(place.expert, k, cols))

    def stream(self, place: OutputTile, first: Expr = START) -> Stream:
        """The columns of an output tile, for K ranges counted from ``first``."""
        return Stream(lambda b1, start, size: self.copy(b1, place, at(first + start, size)))
