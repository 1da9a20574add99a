"""What the phases of an MSD kernel share: the decomposition, the tiling, shapes, tensors and signals.

Components are integers with one scale per row, or MX blocks whose scales the Cube applies itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.grid import Grid, OutputTile
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, k_groups, operand
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
        m, k, n = problem.m, problem.k, problem.n
        self.experts = Experts(problem)
        self.tile_rows = tile.base_m // tile.passes
        self.grid = Grid(self.experts, n, self.tile_rows, tile.base_n, tile.swizzle)
        #: Rows as the split deals them.
        self.row_blocks = RowBlocks(self.experts, self.tile_rows, tile.decompose_m)
        self.kb = kb = KernelBuilder(scheme.name.replace("-", "_"), self.cores, chip.cores.aiv_per_aic)
        #: Whether x comes as the component that the Cube multiplies: nothing is split then.
        self.given = problem.x == scheme.component
        self.x = operand(kb, problem, "x", problem.x, (m, k), "in", rows_axis=0)
        self.w = operand(kb, problem, "w", scheme.weights, (n, k) if problem.trans_b else (k, n), "in")
        blocks = block_count(k)
        scale = ("e8m0", (blocks, n)) if scheme.mx else ("fp32", (self.groups, n))
        self.scale = operand(kb, problem, "scale", *scale, "in")
        self.offset = operand(kb, problem, "offset", "fp32", (self.groups, n), "in") if problem.offset else None
        self.bias8 = operand(kb, problem, "bias8", "fp32", (self.groups, n), "in") if scheme.nibbles else None
        # Rows of packed components end on a byte.
        stacked = (self.grid.row_tiles, tile.passes, self.tile_rows)
        self.components = None if self.given else kb.tensor("a", scheme.component, (*stacked, round_up(k, 2)), "workspace")
        self.block_scales = kb.tensor("a_scale", "e8m0", (*stacked, blocks), "workspace") if scheme.mx else None
        self.row_scale = None
        if not scheme.mx:
            name, role = _ROW_SCALE[self.given]
            self.row_scale = operand(kb, problem, name, "fp32", (m, 1), role, rows_axis=0)
        self.row_top = operand(kb, problem, "row_top", "fp32", (m, 1), "workspace", rows_axis=0) if tile.stepwise else None
        self.row_sum = None
        if problem.offset:
            self.row_sum = operand(kb, problem, "row_sum", "fp32", (m, self.groups), "workspace", rows_axis=0)
        #: K that one core multiplies of a tile, and how many share the tile.
        self.part_k = part_size(k, tile.k_parts)
        self.k_parts = ceil_div(k, self.part_k)
        # When all parts are there, any AIV may merge any share.
        self.shares = Shares(self.experts, self.tile_rows, tile.base_n, chip.cores.aiv_per_aic) if self.k_parts == 1 else \
            even_shares(self.experts, self.grid.tiles, self.tile_rows, tile.base_n, tile.merge_m, chip)
        if not self.given:
            kb.signal("split_done", "barrier")
        if tile.stepwise:
            kb.signal("stats_done", "barrier")
        base = tile.base_m, tile.base_n
        if self.k_parts > 1:
            #: Sums of the parts of K of every tile, instead of a ring.
            self.parts = kb.tensor("c", scheme.sums, (self.grid.tiles, self.k_parts, *base), "workspace")
            kb.signal("summed", "barrier")
        else:
            direct, together = bool(tile.direct), self.tiles_per_core if tile.stepwise else 0
            to = Handover(tile.slots, self.pack, self.groups if direct else self.packs, direct, together)
            self.ring = SumRing(kb, self.shares, scheme.sums, self.passes, base, to)
        self.y = operand(kb, problem, "y", problem.out, (m, n), "out", rows_axis=0)

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
