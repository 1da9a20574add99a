"""``bf16``: 16-bit weights, no dequantization; the baseline every quantized dataflow is held against."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube_tiles import CubeWork, choose_band, choose_cube_tiles
from msdsim.dataflows.gemm import (
    CubeOperands,
    GemmShape,
    Grid,
    Stream,
    accumulate,
    check_cube_tiling,
    experts_of,
    operand,
    ragged,
    refuse_rate,
    register_gemm,
)
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, KernelBuilder, at
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Kernel
from msdsim.units import ceil_div

FORMATS = ("bf16", "bf16")


@dataclass(frozen=True)
class Bf16Tiling:
    """Output tile ``base_m x base_n``, K per L1 and L0 tile, ring depths of L1, L0 and the accumulator; output tiles are taken
    in bands of ``band`` tiles of rows."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2
    band: int = 1


def auto(problem: GemmShape, chip: Chip) -> Bf16Tiling:
    """Tiles by :func:`~msdsim.dataflows.cube_tiles.choose_cube_tiles`, the order of tiles by what HBM then reads."""
    work = CubeWork(problem.m, problem.k, problem.n, out_bytes=2, experts=experts_of(problem))
    c = choose_cube_tiles(chip, FORMATS, work)
    band = choose_band(ceil_div(problem.m, c.base_m), ceil_div(problem.n, c.base_n), chip.cores.aic,
                       (2 * c.base_m * problem.k, 2 * c.base_n * problem.k), chip.l2.capacity_bytes)
    return Bf16Tiling(c.base_m, c.base_n, c.l1_k, c.l0_k, l0c_ring=c.l0c_ring, band=band)


def build(problem: GemmShape, chip: Chip, tile: Bf16Tiling) -> Kernel:
    """Output tiles are dealt to the AICs round robin, in bands so that neighbours share operands in L2."""
    require_positive(tile)
    kinds = CubeOperands(*FORMATS, transpose_b=problem.trans_b)
    check_cube_tiling(chip, tile, kinds)
    m, k, n = problem.m, problem.k, problem.n
    grid = Grid(experts_of(problem), ceil_div(m, tile.base_m), ceil_div(n, tile.base_n), tile.band)
    kb = KernelBuilder("bf16", chip.cores.aic, chip.cores.aiv_per_aic)
    x = operand(kb, problem, "x", "bf16", (m, k), "in")
    w = operand(kb, problem, "w", "bf16", (n, k) if problem.trans_b else (k, n), "in")
    y = operand(kb, problem, "y", "bf16", (m, n), "out")
    with kb.part("aic"), kb.loop("t", kb.core, grid.tiles, chip.cores.aic) as t:
        e, mt, nt = grid.place(t)
        rows, cols = ragged(m, tile.base_m, mt), ragged(n, tile.base_n, nt)
        acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)

        def load_a(a1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(a1[at(0, rows), at(0, size)], x.at(e, at(mt * tile.base_m, rows), at(start, size)))

        def load_b(b1: Handle, start: Expr, size: Expr) -> None:
            if problem.trans_b:
                kb.copy(b1[at(0, cols), at(0, size)], w.at(e, at(nt * tile.base_n, cols), at(start, size)))
            else:
                kb.copy(b1[at(0, size), at(0, cols)], w.at(e, at(start, size), at(nt * tile.base_n, cols)))

        whole = acc[at(0, rows), at(0, cols)]
        accumulate(kb, tile, kinds, whole, rows, cols, k, Stream(load_a), Stream(load_b))
        kb.op("fixpipe", y.at(e, at(mt * tile.base_m, rows), at(nt * tile.base_n, cols)), whole)
    return kb.build()


def _refuse(problem: GemmShape, chip: Chip) -> str | None:
    if problem.group is not None or problem.offset:
        return "'bf16' weights have no scales or offsets; leave out group and offset"
    return refuse_rate(chip, FORMATS)


register_gemm("bf16", "BF16 weights, one Cube pass", Bf16Tiling, _refuse, auto, build)
