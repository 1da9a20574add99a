"""``bf16``: 16-bit weights, no dequantization; the baseline every quantized dataflow is held against."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.base import DATAFLOWS, Dataflow, require_positive
from msdsim.dataflows.gemm import GemmShape, accumulate, check_cube_tiling, choose_cube_tiles, ragged, refuse_rate
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, KernelBuilder, at
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Kernel
from msdsim.units import ceil_div

FORMATS = ("bf16", "bf16")


@dataclass(frozen=True)
class Bf16Tiling:
    """Output tile ``base_m x base_n``, K per L1 and L0 tile, ring depths of L1, L0 and the accumulator."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2


def auto(problem: GemmShape, chip: Chip) -> Bf16Tiling:
    """Tiles by :func:`~msdsim.dataflows.gemm.choose_cube_tiles`."""
    c = choose_cube_tiles(chip, FORMATS, problem.m, problem.k, problem.n, out_bytes=2)
    return Bf16Tiling(c.base_m, c.base_n, c.l1_k, c.l0_k, l0c_ring=c.l0c_ring)


def build(problem: GemmShape, chip: Chip, tile: Bf16Tiling) -> Kernel:
    """Output tiles are dealt to the AICs round robin, row index fastest, so that neighbours share weights in L2."""
    require_positive(tile)
    check_cube_tiling(chip, tile, FORMATS)
    m, k, n = problem.m, problem.k, problem.n
    m_tiles, n_tiles = ceil_div(m, tile.base_m), ceil_div(n, tile.base_n)
    kb = KernelBuilder("bf16", chip.cores.aic, chip.cores.aiv_per_aic)
    x = kb.tensor("x", "bf16", (m, k), "in")
    w = kb.tensor("w", "bf16", (n, k) if problem.trans_b else (k, n), "in")
    y = kb.tensor("y", "bf16", (m, n), "out")
    with kb.part("aic"), kb.loop("t", kb.core, m_tiles * n_tiles, chip.cores.aic) as t:
        mt, nt = t % m_tiles, t // m_tiles
        rows, cols = ragged(m, tile.base_m, mt), ragged(n, tile.base_n, nt)
        acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)

        def load_a(a1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(a1[at(0, rows), at(0, size)], x[at(mt * tile.base_m, rows), at(start, size)])

        def load_b(b1: Handle, start: Expr, size: Expr) -> None:
            if problem.trans_b:
                kb.copy(b1[at(0, cols), at(0, size)], w[at(nt * tile.base_n, cols), at(start, size)])
            else:
                kb.copy(b1[at(0, size), at(0, cols)], w[at(start, size), at(nt * tile.base_n, cols)])

        whole = acc[at(0, rows), at(0, cols)]
        accumulate(kb, tile, FORMATS, whole, rows, cols, k, load_a, load_b, transpose_b=problem.trans_b)
        kb.op("fixpipe", y[at(mt * tile.base_m, rows), at(nt * tile.base_n, cols)], whole)
    return kb.build()


DATAFLOWS.add("bf16", Dataflow(
    name="bf16", kind="gemm", contract="bf16", description="BF16 weights, one Cube pass",
    tiling=Bf16Tiling, refuses=lambda problem, chip: refuse_rate(chip, FORMATS) or _refuse(problem),
    auto=auto, build=build,
))


def _refuse(problem: GemmShape) -> str | None:
    if problem.group is not None or problem.offset:
        return "'bf16' weights have no scales or offsets; leave out group and offset"
    return None
