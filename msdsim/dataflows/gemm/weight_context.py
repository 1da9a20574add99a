"""GEMMs whose weights Vector makes: the tensors, and the ring of slots in which the weights go to the Cube.

A slot holds ``slot_k`` of K by ``base_n`` columns; the AIVs of the group fill it (each takes half of the rows of the stored
weight matrix: of K, or of the columns where the weights are transposed), the AIC multiplies it and hands it back.

On chips without a path from UB to L1 the ring lies in GM, that is in L2 as long as it fits there.  A core group then owns whole
columns of output tiles and keeps a slot until every tile of rows has used it, so that every weight is made once on the chip.
Where AIVs can write to L1 the ring lies there, and every output tile has its own weights made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.grid import Grid, OutputTile
from msdsim.dataflows.cube.mainloop import Held, Loader, Stream
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, inputs, output, scales
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling, SlotLayout, check_tiling
from msdsim.dataflows.ring import ALWAYS, Ring
from msdsim.dataflows.vector.add_parts import FloatParts
from msdsim.errors import TilingError
from msdsim.formats.mx import element_format
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Expr, Handle, KernelBuilder, Slice, at, minimum, ragged, share_of
from msdsim.units import ceil_div, part_size


@dataclass(frozen=True)
class Columns:
    """A tile of columns of B in a core's turn: the expert, the tile, its columns; the how manyth turn of the core it is; the
    part of K, where that begins and how deep it is."""

    expert: Expert
    nt: Expr
    cols: Expr
    turn: Expr
    part: Expr
    first: Expr
    depth: Expr


@dataclass(frozen=True)
class TileTurn:
    """A core's turn at an output tile, and the columns that it needs.  Of tiles of rows that share slots the ``first`` waits
    for them and the ``last`` hands them back."""

    place: OutputTile
    columns: Columns
    first: Expr = ALWAYS
    last: Expr = ALWAYS


class WeightContext:
    """The kernel under construction: what both sides of the ring share."""

    def __init__(self, problem: GemmShape, chip: Chip, tile: DequantTiling, scheme: Scheme) -> None:
        require_positive(tile, "direct", "sums_direct")
        self.problem, self.chip, self.tile, self.scheme = problem, chip, tile, scheme
        self.kinds = CubeOperands(*scheme.cube, transpose_b=problem.trans_b)
        self.layout = SlotLayout(problem, chip, tile, scheme)
        self.layout.check()
        self.cores, self.experts = chip.cores.aic, Experts(problem)
        k = problem.k
        self.grid = Grid(self.experts, problem.n, tile.base_m, tile.base_n, tile.swizzle)
        #: K of a part, and ring slots of it; a shorter last part leaves some of them empty.
        self.part_k = part_size(k, tile.k_parts)
        self.k_parts = ceil_div(k, self.part_k)
        self.k_slots = ceil_div(self.part_k, tile.slot_k)
        self._hollow = ceil_div(k - (self.k_parts - 1) * self.part_k, tile.slot_k) < self.k_slots
        group = scheme.group(problem.group) if scheme.scales_sums else None
        check_tiling(chip, tile, self.kinds, self.grid.m_tiles, self.k_slots, group if tile.slot_k >= (group or 0) else None)
        if self.k_parts > 1 and self.layout.group is not None and self.part_k % self.layout.group:
            raise TilingError(f"tiling k_parts={tile.k_parts} cuts K={k} into parts of {self.part_k}, not whole groups of "
                              f"{self.layout.group}; give another number of parts, or 1")
        self.kb = kb = KernelBuilder(scheme.name.replace("-", "_"), self.cores, chip.cores.aiv_per_aic)
        self.x, self.w = inputs(kb, problem, scheme)
        self.scale, self.offset = scales(kb, problem, scheme)
        slot = (tile.base_n, tile.slot_k) if problem.trans_b else (tile.slot_k, tile.base_n)
        slots = kb.tensor("ring", element_format(self.kinds.b), (self.cores, tile.slots, *slot), "workspace",
                          "L1" if tile.direct else "GM")
        self.y = output(kb, problem)
        self.sums = FloatParts(kb, chip, problem, tile.k_parts) if self.k_parts > 1 else None
        reader = "MTE1" if tile.direct else "MTE2"
        self.ring = Ring.between(kb, slots, tile.slots, "to_cube", ("full", "empty"), ("MTE3", reader))

    # Who does what when

    @contextmanager
    def turns(self) -> Iterator[TileTurn]:
        """Loop over this core's output tiles, on the AIC."""
        kb, grid = self.kb, self.grid
        if self.tile.direct:
            with self._tiles() as (place, columns):
                yield TileTurn(place, columns)
            return
        with (
            self._columns() as columns,
            grid.row_tiles_before(kb, columns.expert) as before,
            kb.loop("mt", 0, grid.row_tiles_of(columns.expert)) as mt,
            grid.tile(kb, columns.expert, mt, columns.nt, before) as place,
        ):
            if grid.m_tiles == 1:
                yield TileTurn(place, columns)
            else:
                yield TileTurn(place, columns, mt.equals(0), mt.equals(grid.row_tiles_of(columns.expert) - 1))

    @contextmanager
    def fills(self) -> Iterator[Columns]:
        """Loop over the tiles of columns whose slots this core group fills, on the AIVs."""
        if self.tile.direct:
            with self._tiles() as (_, columns):
                yield columns
        else:
            with self._columns() as columns:
                yield columns

    @contextmanager
    def _tiles(self) -> Iterator[tuple[OutputTile, Columns]]:
        with self.kb.each_core("t", self.units) as t, self.tile_of(t) as found:
            yield found

    @contextmanager
    def _columns(self) -> Iterator[Columns]:
        with self.kb.each_core("nt", self.units) as unit, self.columns_of(unit) as columns:
            yield columns

    @property
    def units(self) -> int:
        """What the cores take turns at: parts of K of output tiles, or of tiles of columns."""
        return self.k_parts * (self.grid.tiles if self.tile.direct else self.experts.units(self._tiles_of_columns))

    def _tiles_of_columns(self, m: int) -> int:
        return self.grid.n_tiles if m else 0

    @contextmanager
    def tile_of(self, unit: Expr) -> Iterator[tuple[OutputTile, Columns]]:
        """The output tile of a unit where every one has its own weights made."""
        with self.grid.place(self.kb, unit // self.k_parts) as place:
            yield place, self._turn(place.expert, place.nt, unit)

    @contextmanager
    def columns_of(self, unit: Expr) -> Iterator[Columns]:
        """The tile of columns of a unit where tiles of rows share weights."""
        with self.experts.find(self.kb, unit // self.k_parts, self._tiles_of_columns) as (expert, inside):
            nt = inside if self.experts.uneven is None else minimum(self.grid.n_tiles - 1, inside)
            yield self._turn(expert, nt, unit)

    def _turn(self, expert: Expert, nt: Expr, unit: Expr) -> Columns:
        part, k = unit % self.k_parts, self.problem.k
        cols = ragged(self.problem.n, self.tile.base_n, nt)
        return Columns(expert, nt, cols, unit // self.cores, part, part * self.part_k, ragged(k, self.part_k, part))

    # Tiles

    @property
    def ub_shape(self) -> tuple[int, int]:
        """Lines and weights of a UB tile."""
        return self.tile.vector_k, self.layout.run

    def accumulator(self, place: OutputTile) -> Slice:
        """The sums of an output tile in L0C."""
        tile = self.tile
        acc = self.kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)
        return acc[: place.rows, : place.cols]

    def depth(self, columns: Columns, c: Expr) -> Expr:
        """K of slot ``c`` of a part."""
        return (share_of if self._hollow else ragged)(columns.depth, self.tile.slot_k, c)

    def slot(self, columns: Columns, c: Expr, lines: At, run: At) -> Slice:
        """Lines of the stored matrix, and weights along them, in slot ``c`` of a part."""
        number = (columns.turn * self.k_slots + c) % self.tile.slots
        return self.ring.tensor[self.kb.core, number, lines, run]

    def operand(self, columns: Columns, c: Expr, cols: Expr, scales: Loader | None) -> Stream | Held:
        """B: a slot of the ring, read where it lies if that is L1."""
        kb, transposed = self.kb, self.problem.trans_b

        def of_slot(start: Expr, size: Expr) -> Slice:
            depth, across = at(start, size), at(0, cols)
            return self.slot(columns, c, *((across, depth) if transposed else (depth, across)))

        def load(b1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(b1[:cols, :size] if transposed else b1[:size, :cols], of_slot(start, size))

        return Held(of_slot, scales) if self.tile.direct else Stream(load, scales)

    def result(self, turn: TileTurn) -> Slice:
        """Where an output tile goes: y, or the sums of its part of K."""
        place = turn.place
        here = at(place.row, place.rows), at(place.nt * self.tile.base_n, place.cols)
        if self.sums is None:
            return self.y.at(place.expert, *here)
        return self.sums.sums.at(place.expert, turn.columns.part, *here)
