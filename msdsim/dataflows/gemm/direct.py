"""GEMMs whose operands the Cube takes as they lie in GM: an output tile a turn, parts of K added up on Vector."""

from __future__ import annotations

from typing import Any, ClassVar

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.grid import Grid, OutputTile
from msdsim.dataflows.cube.mainloop import drain
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, inputs, output
from msdsim.dataflows.cube.streams import StoredWeights
from msdsim.dataflows.vector.add_parts import FloatParts
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Expr, Kernel, KernelBuilder, Slice, at, ragged
from msdsim.units import part_size


class Operands:
    """A and B of a method, and how they come to the Cube; ``SWITCHES`` are the keys of its tiling that may be 0."""

    SWITCHES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, kb: KernelBuilder, problem: GemmShape, chip: Chip, tile: Any, scheme: Scheme, grid: Grid) -> None:
        self.kb, self.problem, self.chip, self.tile, self.scheme, self.grid = kb, problem, chip, tile, scheme, grid
        self.kinds = CubeOperands(*scheme.cube, transpose_b=problem.trans_b)
        self.check()
        self.x, self.w = inputs(kb, problem, scheme)
        self.weights = StoredWeights(kb, self.w, tile.base_n, problem.trans_b)

    def check(self) -> None:
        """Refuse tilings that do not fit."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What is done before the first output tile."""

    def multiply(self, acc: Slice, place: OutputTile, first: Expr, depth: Expr) -> None:
        """``acc = A B`` over ``depth`` elements of K from ``first``."""
        raise NotImplementedError


def build(problem: GemmShape, chip: Chip, tile: Any, scheme: Scheme, operands: type[Operands]) -> Kernel:
    """Output tiles are dealt to the AICs round robin, in bands so that neighbours share operands in L2."""
    require_positive(tile, *operands.SWITCHES)
    k = problem.k
    grid = Grid(Experts(problem), problem.n, tile.base_m, tile.base_n, tile.swizzle)
    kb = KernelBuilder(scheme.name.replace("-", "_"), chip.cores.aic, chip.cores.aiv_per_aic)
    of, y = operands(kb, problem, chip, tile, scheme, grid), output(kb, problem)
    split = FloatParts(kb, chip, problem, tile.k_parts) if part_size(k, tile.k_parts) < k else None
    parts = split.parts if split is not None else 1
    of.prepare()
    with (
        kb.part("aic"), kb.each_core("t", grid.tiles * parts) as unit, grid.place(kb, unit // parts) as place,
    ):
        part = unit % parts
        first, depth = (part * split.depth, ragged(k, split.depth, part)) if split is not None else (Const(0), Const(k))
        acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)[: place.rows, : place.cols]
        of.multiply(acc, place, first, depth)
        here = at(place.row, place.rows), at(place.nt * tile.base_n, place.cols)
        drain(kb, y.at(place.expert, *here) if split is None else split.sums.at(place.expert, part, *here), acc)
    if split is not None:
        with kb.part("aic"):
            kb.raise_signal("summed", "FIX")
        with kb.part("aiv"):
            split.add_up(y)
    return kb.build()
