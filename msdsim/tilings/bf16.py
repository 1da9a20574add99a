"""Tiles of ``bf16``."""

from __future__ import annotations

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.bf16 import BF16, Bf16Tiling
from msdsim.hardware.chip import Chip
from msdsim.tilings.base import choose_for
from msdsim.tilings.cube import CubeWork, choose_band, choose_split_k
from msdsim.units import ceil_div


def choose(problem: GemmShape, chip: Chip) -> Bf16Tiling:
    """Tiles by :func:`~msdsim.tilings.cube.choose_cube_tiles`, the order of tiles by what HBM then reads."""
    work = CubeWork.of(problem, out_bytes=2)
    c, split_k = choose_split_k(chip, BF16.cube, work)
    band = choose_band(ceil_div(problem.m, c.base_m), ceil_div(problem.n, c.base_n), chip.cores.aic,
                       (2 * c.base_m * problem.k, 2 * c.base_n * problem.k), chip.l2.capacity_bytes)
    return Bf16Tiling(c.base_m, c.base_n, c.l1_k, c.l0_k, l0c_ring=c.l0c_ring, band=band, split_k=split_k)


choose_for("bf16", choose)
