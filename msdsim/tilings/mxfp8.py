"""Tiles of ``mxfp8``."""

from __future__ import annotations

from dataclasses import asdict

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.mxfp8 import MXFP8, Mxfp8Tiling
from msdsim.hardware.chip import Chip
from msdsim.tilings import dequant
from msdsim.tilings.base import choose_for
from msdsim.tilings.msd import mx_split_tile


def choose(problem: GemmShape, chip: Chip) -> Mxfp8Tiling:
    """Tiles of a dequantizing dataflow for the formats of this one."""
    tile = dequant.choose(problem, chip, MXFP8)
    split_m, split_k = mx_split_tile(chip, chip.buffers.ub_bytes, problem.m, problem.k, tile.base_m, MXFP8.component, 1,
                                           tile.ub_ring)
    return Mxfp8Tiling(**asdict(tile), split_m=split_m, split_k=split_k)


choose_for("mxfp8", choose)
