"""What the phases of an MSD kernel share: the decomposition, the tiling, shapes, tensors and signals.

Components are integers with one scale per row, or MX blocks whose scales the Cube applies itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.grid import Grid, OutputTile
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, Operand, inputs, k_groups, operand, output, scales
from msdsim.dataflows.cube.rows import RowBlocks
from msdsim.dataflows.gemm.msd_tiling import MsdTiling
from msdsim.dataflows.gemm.sum_ring import Handover, Share, Shares, SumRing, even_shares
from msdsim.formats.mx import block_count
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, KernelBuilder, Slice, at
from msdsim.ir.kernel import Role
from msdsim.units import ceil_div, part_size, round_up

#: The scale of each row: what the split finds, or what comes with activations that are given.
_ROW_SCALE: dict[bool, tuple[str, Role]] = {False: ("row_scale", "workspace"), True: ("x_scale", "in")}


class MsdContext:
    """The kernel under construction."""

    def __init__(self, problem: GemmShape, chip: Chip, tile: MsdTiling, scheme: Scheme) -> None:
        self.problem, self.chip, self.tile, self.scheme = problem, chip, tile, scheme
        self.cores, self.passes = chip.cores.aic, tile.passes
        self.kinds = CubeOperands(*scheme.cube, transpose_b=problem.trans_b)
        self.group, self.groups = problem.group, k_groups(problem)
        self.experts = Experts(problem)
        self.tile_rows = tile.base_m // tile.passes
        self.grid = Grid(self.experts, problem.n, self.tile_rows, tile.base_n, tile.swizzle)
        #: Rows as the split deals them.
        self.row_blocks = RowBlocks(self.experts, self.tile_rows, tile.decompose_m)
        self.kb = kb = KernelBuilder(scheme.name.replace("-", "_"), self.cores, chip.cores.aiv_per_aic)
        #: Whether x comes as the component that the Cube multiplies: nothing is split then.
        self.given = problem.x == scheme.component
        self.x, self.w = inputs(kb, problem, scheme)
        self.scale, self.offset = scales(kb, problem, scheme)
        self.bias8 = operand(kb, problem, "bias8", "fp32", (self.groups, problem.n), "in") if scheme.nibbles else None
        self._declare_components()
        #: K that one core multiplies of a tile, and how many share the tile.
        self.part_k = part_size(problem.k, tile.k_parts)
        self.k_parts = ceil_div(problem.k, self.part_k)
        self._declare_sums()
        self.y = output(kb, problem)

    def _declare_components(self) -> None:
        """What the split leaves in GM, or what comes with activations that are given."""
        kb, problem, tile, mx = self.kb, self.problem, self.tile, self.scheme.mx

        def per_row(name: str, cols: int, role: Role = "workspace") -> Operand:
            return operand(kb, problem, name, "fp32", (problem.m, cols), role, rows_axis=0)

        # Rows of packed components end on a byte.
        stacked, depth = (self.grid.row_tiles, tile.passes, self.tile_rows), round_up(problem.k, 2)
        self.components = None if self.given else kb.tensor("a", self.scheme.component, (*stacked, depth), "workspace")
        self.block_scales = kb.tensor("a_scale", "e8m0", (*stacked, block_count(problem.k)), "workspace") if mx else None
        name, role = _ROW_SCALE[self.given]
        self.row_scale = None if mx else per_row(name, 1, role)
        self.row_top = per_row("row_top", 1) if tile.stepwise else None
        self.row_sum = per_row("row_sum", self.groups) if problem.offset else None
        if not self.given:
            kb.signal("split_done", "barrier")
        if tile.stepwise:
            kb.signal("stats_done", "barrier")

    def _declare_sums(self) -> None:
        """What the Cube leaves for the merge: a ring, or sums of the parts of K."""
        kb, tile, grid, chip = self.kb, self.tile, self.grid, self.chip
        base = tile.base_m, tile.base_n
        if self.k_parts > 1:
            # When all parts are there, any AIV may merge any share.
            self.shares = even_shares(self.experts, grid.tiles, self.tile_rows, tile.base_n, tile.merge_m, chip)
            self.parts = kb.tensor("c", self.scheme.sums, (grid.tiles, self.k_parts, *base), "workspace")
            kb.signal("summed", "barrier")
            return
        self.shares = Shares(self.experts, self.tile_rows, tile.base_n, chip.cores.aiv_per_aic)
        direct, together = bool(tile.direct), self.tiles_per_core if tile.stepwise else 0
        to = Handover(tile.slots, self.pack, self.groups if direct else self.packs, direct, together)
        self.ring = SumRing(kb, self.shares, self.scheme.sums, self.passes, base, to)

    def rows_of_a(self, place: OutputTile | None, number: int, rows: At, depth: At) -> Slice:
        """Rows ``rows`` and K ``depth`` of component ``number`` of a tile of rows, the first one without ``place``."""
        if self.components is not None:
            return self.components[Const(0) if place is None else place.row_tile, number, rows, depth]
        expert, first = (Expert(Const(0), Const(self.problem.m)), Const(0)) if place is None else (place.expert, place.row)
        return self.x.at(expert, at(first + rows.start, rows.size), depth)

    def wait_for_split(self) -> None:
        """Nobody reads components before all of them are there."""
        if not self.given:
            self.kb.wait_signal("split_done", "MTE2")

    # Groups of scales

    @property
    def pack(self) -> int:
        """Groups of K whose products one ring slot holds: those of an L1 tile, one where a group is longer than that."""
        return 1 if self.group is None else max(1, self.tile.l1_k // self.group)

    @property
    def pack_k(self) -> int:
        """K of one ring slot."""
        return self.problem.k if self.group is None else self.pack * self.group

    @property
    def packs(self) -> int:
        """Ring slots that the products of one output tile fill."""
        return ceil_div(self.problem.k, self.pack_k)

    # Tiles

    @property
    def tiles_per_core(self) -> int:
        """Most output tiles that a core deals with."""
        return ceil_div(self.grid.tiles, self.cores)

    @contextmanager
    def each_tile(self, var: str = "t") -> Iterator[tuple[Expr, OutputTile]]:
        """Loop over this core's output tiles: the number of the tile, and where it lies."""
        with self.kb.each_core(var, self.grid.tiles) as t, self.grid.place(self.kb, t) as place:
            yield t, place

    def turn(self, t: Expr) -> Expr:
        """The how manyth output tile of its core ``t`` is: a core deals with every ``cores``-th tile."""
        return t // self.cores

    def share(self, place: OutputTile) -> Share:
        """What this AIV merges of a tile."""
        return self.shares.of(place, self.kb.sub)
