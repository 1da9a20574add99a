"""``mxfp8``: activations quantized to MXFP8 on Vector, MXFP4 weights widened to MXFP8, one MX Cube pass.

The Cube takes no pair of MXFP8 and MXFP4, so Vector turns the weights' elements from E2M1 to E4M3 (exactly); their block
scales stay as they are and go to the Cube, which applies them.  The ring of widened weights is that of the dequantizing
dataflows.  All AIVs first quantize the activations, then meet at a barrier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from msdsim.dataflows.base import require_multiple
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.mainloop import Loader, Stream
from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.dequant import Activations, Weights, pipeline
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling
from msdsim.dataflows.gemm.mx_split import QUANTUM, split_mx
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.gemm.weight_ring import WeightRing
from msdsim.dataflows.gemm.weight_scales import LoadedScales
from msdsim.dataflows.vector.dequantize import widen
from msdsim.formats.mx import MX_BLOCK, block_count
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Expr, Handle, Kernel, Slice, at
from msdsim.units import round_up


@dataclass(frozen=True, kw_only=True)
class Mxfp8Tiling(DequantTiling):
    """The tiling of a dequantizing dataflow, and the ``decompose_m x decompose_k`` tile in which activations are quantized."""

    RENAMED: ClassVar = {**DequantTiling.RENAMED, "split_m": "decompose_m", "split_k": "decompose_k"}

    decompose_m: int = 1
    decompose_k: int = QUANTUM


class QuantizedRows(Activations):
    """A as MX blocks, which the AIVs make of x before anything else."""

    def __init__(self, g: WeightRing, tile: Mxfp8Tiling) -> None:
        super().__init__(g)
        self.tile, k, element = tile, g.problem.k, g.scheme.component
        stacked = (g.grid.row_tiles, 1, tile.base_m)
        self.a = g.kb.tensor("a", element, (*stacked, round_up(k, 2)), "workspace")
        self.a_scale = g.kb.tensor("a_scale", "e8m0", (*stacked, block_count(k)), "workspace")
        g.kb.signal("split_done", "barrier")

    def prologue(self) -> None:
        split_mx(self.g.kb, self.g.problem, self.g.scheme, self.g.x, self.a, self.a_scale, self.tile)
        self.g.kb.meet("split_done")

    def ready(self) -> None:
        self.g.kb.wait_signal("split_done", "MTE2")

    def stream(self, place: OutputTile, first: Expr) -> Stream:
        kb, rows, tile = self.g.kb, at(0, place.rows), place.row_tile

        def load(a1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(a1[rows, :size], self.a[tile, 0, rows, at(first + start, size)])

        def load_scales(sa1: Handle, start: Expr, count: Expr) -> None:
            kb.copy(sa1[rows, :count], self.a_scale[tile, 0, rows, at(first // MX_BLOCK + start, count)])

        return Stream(load, load_scales)


class Widened(Weights):
    """E2M1 to BF16 to FP32 to E4M3: three conversions, none of which rounds.  The Cube applies the scales."""

    def cube_scales(self, place: OutputTile, first: Expr) -> Loader:
        g, cols = self.g, place.cols

        def load(sb1: Handle, start: Expr, count: Expr) -> None:
            rows, columns = at(first // MX_BLOCK + start, count), at(place.nt * g.tile.base_n, cols)
            g.kb.copy(sb1[:count, :cols], g.scale.at(place.expert, rows, columns))

        return load

    def convert(self, wq: Slice, line: Expr, scales: LoadedScales | None) -> Slice:
        g, kb, here = self.g, self.g.kb, tuple(at(0, size) for size in wq.sizes)
        w32 = kb.buffer("w32", "UB", "fp32", g.ub_shape)[here]
        widen(kb, g.chip, g.ub_shape, wq, w32)
        wide = kb.buffer("w8", "UB", g.scheme.component, g.ub_shape, g.tile.ub_ring)[here]
        kb.op("cast", wide, w32, round="rint")
        return wide


def build(problem: GemmShape, chip: Chip, tile: Mxfp8Tiling, scheme: Scheme) -> Kernel:
    g = WeightRing(problem, chip, tile, scheme)
    require_multiple(tile, "slot_k", MX_BLOCK, "a ring slot holds whole blocks")
    return pipeline(g, QuantizedRows(g, tile), Widened(g))


[MXFP8] = register_gemm(["mxfp8"], Mxfp8Tiling, build)
