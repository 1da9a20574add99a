"""``bf16``: 16-bit weights, no dequantization; the baseline every quantized dataflow is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.grid import Grid
from msdsim.dataflows.cube.limits import check_cube_tiling, refuse_rate
from msdsim.dataflows.cube.mainloop import Held, Stream, accumulate
from msdsim.dataflows.cube.operands import CubeOperands, GemmShape, Operand, operand
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.vector.add_parts import FloatParts
from msdsim.errors import TilingError
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Expr, Handle, Kernel, KernelBuilder, at, ragged
from msdsim.units import part_size

BF16 = SCHEMES["bf16"]


@dataclass(frozen=True)
class Bf16Tiling:
    """Output tile ``base_m x base_n``, K per L1 and L0 tile, ring depths of L1, L0 and the accumulator; output tiles are taken
    in bands of ``swizzle`` tiles of rows.  ``k_parts`` cores share a tile's K (:mod:`~msdsim.dataflows.vector.add_parts`);
    ``a_resident`` 1 keeps the only tile of rows of A in L1 for all tiles of columns of a core."""

    RENAMED: ClassVar = {"band": "swizzle", "split_k": "k_parts"}

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2
    swizzle: int = 1
    k_parts: int = 1
    a_resident: int = 0


def build(problem: GemmShape, chip: Chip, tile: Bf16Tiling) -> Kernel:
    """Output tiles are dealt to the AICs round robin, in bands so that neighbours share operands in L2."""
    require_positive(tile, "a_resident")
    kinds = CubeOperands(*BF16.cube, transpose_b=problem.trans_b)
    m, k, n, experts = problem.m, problem.k, problem.n, Experts(problem)
    if tile.a_resident and (m > tile.base_m or tile.k_parts > 1 or experts.several):
        raise TilingError(f"tiling a_resident={tile.a_resident} holds one tile of rows in L1: it needs base_m of at least {m}, "
                          f"k_parts=1 and no groups of experts")
    check_cube_tiling(chip, tile, kinds, held_a_bytes=2 * tile.base_m * k if tile.a_resident else None)
    grid = Grid(experts, n, tile.base_m, tile.base_n, tile.swizzle)
    kb = KernelBuilder("bf16", chip.cores.aic, chip.cores.aiv_per_aic)
    x = operand(kb, problem, "x", "bf16", (m, k), "in", rows_axis=0)
    w = operand(kb, problem, "w", "bf16", (n, k) if problem.trans_b else (k, n), "in")
    y = operand(kb, problem, "y", problem.out, (m, n), "out", rows_axis=0)
    split = FloatParts(kb, chip, problem, tile.k_parts) if part_size(k, tile.k_parts) < k else None
    parts = split.parts if split is not None else 1
    held = None
    if tile.a_resident:
        with kb.part("aic"):
            held = _hold(kb, x, m, k, tile)
    with (
        kb.part("aic"), kb.each_core("t", grid.tiles * parts) as unit, grid.place(kb, unit // parts) as place,
    ):
        e, row, nt, rows, cols = place.expert, place.row, place.nt, place.rows, place.cols
        part = unit % parts
        first, depth = (part * split.depth, ragged(k, split.depth, part)) if split is not None else (Const(0), Const(k))
        acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)

        def load_a(a1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(a1[:rows, :size], x.at(e, at(row, rows), at(first + start, size)))

        def load_b(b1: Handle, start: Expr, size: Expr) -> None:
            if problem.trans_b:
                kb.copy(b1[:cols, :size], w.at(e, at(nt * tile.base_n, cols), at(first + start, size)))
            else:
                kb.copy(b1[:size, :cols], w.at(e, at(first + start, size), at(nt * tile.base_n, cols)))

        whole = acc[:rows, :cols]
        accumulate(kb, tile, kinds, whole, depth, held or Stream(load_a), Stream(load_b))
        here = at(row, rows), at(nt * tile.base_n, cols)
        kb.op("fixpipe", y.at(e, *here) if split is None else split.sums.at(e, part, *here), whole)
    if split is not None:
        with kb.part("aic"):
            kb.raise_signal("summed", "FIX")
        with kb.part("aiv"):
            split.add_up(y)
    return kb.build()


def _hold(kb: KernelBuilder, x: Operand, m: int, k: int, tile: Bf16Tiling) -> Held:
    """All K of the only tile of rows, loaded once."""
    whole = kb.buffer("a_all", "L1", "bf16", (tile.base_m, k))
    with kb.tiles("h", k, tile.l1_k) as h:
        kb.copy(whole[:m, h], x.at(Expert(Const(0), Const(m)), at(0, m), h))
    return Held(lambda start, size: whole[:m, at(start, size)])


def _refuse(problem: GemmShape, chip: Chip) -> str | None:
    # Groups and offsets say how quantized weights are stored; 16-bit ones have none.
    return refuse_rate(chip, BF16.cube)


register_gemm(BF16, Bf16Tiling, _refuse, build)
