"""``bf16``: 16-bit weights, no dequantization; the baseline every quantized dataflow is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.grid import Grid
from msdsim.dataflows.cube.limits import check_cube_tiling
from msdsim.dataflows.cube.mainloop import accumulate, drain
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, inputs, output
from msdsim.dataflows.cube.streams import StoredWeights, hold_rows, rows_of
from msdsim.dataflows.gemm.register import GemmTiling, register_gemm
from msdsim.dataflows.vector.add_parts import FloatParts
from msdsim.errors import TilingError
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Kernel, KernelBuilder, at, ragged
from msdsim.units import part_size


@dataclass(frozen=True)
class Bf16Tiling(GemmTiling):
    """Tiles of a GEMM; ``a_resident`` 1 keeps the only tile of rows of A in L1 for all tiles of columns of a core."""

    RENAMED: ClassVar = {**GemmTiling.RENAMED, "split_k": "k_parts"}

    a_resident: int = 0


def build(problem: GemmShape, chip: Chip, tile: Bf16Tiling, scheme: Scheme) -> Kernel:
    """Output tiles are dealt to the AICs round robin, in bands so that neighbours share operands in L2."""
    require_positive(tile, "a_resident")
    kinds = CubeOperands(*scheme.cube, transpose_b=problem.trans_b)
    m, k, n, experts = problem.m, problem.k, problem.n, Experts(problem)
    if tile.a_resident and (m > tile.base_m or tile.k_parts > 1 or experts.several):
        raise TilingError(f"tiling a_resident={tile.a_resident} holds one tile of rows in L1: it needs base_m of at least {m}, "
                          f"k_parts=1 and no groups of experts")
    check_cube_tiling(chip, tile, kinds, held_a_bytes=2 * tile.base_m * k if tile.a_resident else None)
    grid = Grid(experts, n, tile.base_m, tile.base_n, tile.swizzle)
    kb = KernelBuilder("bf16", chip.cores.aic, chip.cores.aiv_per_aic)
    (x, w), y = inputs(kb, problem, scheme), output(kb, problem)
    split = FloatParts(kb, chip, problem, tile.k_parts) if part_size(k, tile.k_parts) < k else None
    parts = split.parts if split is not None else 1
    weights, held = StoredWeights(kb, w, tile.base_n, problem.trans_b), None
    if tile.a_resident:
        with kb.part("aic"):
            held = hold_rows(kb, tile, "bf16", (m, k), k, lambda _, depth: x.at(Expert(Const(0), Const(m)), at(0, m), depth))
    with (
        kb.part("aic"), kb.each_core("t", grid.tiles * parts) as unit, grid.place(kb, unit // parts) as place,
    ):
        part = unit % parts
        first, depth = (part * split.depth, ragged(k, split.depth, part)) if split is not None else (Const(0), Const(k))
        acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)[: place.rows, : place.cols]
        a, b = held or rows_of(kb, x, place, first), weights.stream(place, first)
        accumulate(kb, tile, kinds, acc, depth, a, b, unit_flag=True)
        here = at(place.row, place.rows), at(place.nt * tile.base_n, place.cols)
        drain(kb, y.at(place.expert, *here) if split is None else split.sums.at(place.expert, part, *here), acc)
    if split is not None:
        with kb.part("aic"):
            kb.raise_signal("summed", "FIX")
        with kb.part("aiv"):
            split.add_up(y)
    return kb.build()


[BF16] = register_gemm(["bf16"], Bf16Tiling, build)
