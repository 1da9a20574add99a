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
from msdsim.dataflows.cube.limits import refuse_packed, refuse_rate, refuse_scales
from msdsim.dataflows.cube.mainloop import Loader, Stream
from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm import mx_split
from msdsim.dataflows.gemm.dequant import pipeline
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.gemm.weight_ring import Columns, WeightRing
from msdsim.dataflows.gemm.weight_scales import LoadedScales
from msdsim.dataflows.vector.dequantize import widen
from msdsim.formats.mx import MX_BLOCK, block_count
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware.chip import Chip
from msdsim.ir import Expr, Handle, Kernel, Slice, at
from msdsim.units import round_up

MXFP8 = SCHEMES["mxfp8"]


@dataclass(frozen=True)
class Mxfp8Tiling(DequantTiling):
    """The tiling of a dequantizing dataflow, and the ``decompose_m x decompose_k`` tile in which activations are quantized."""

    RENAMED: ClassVar = {"band": "swizzle", "split_m": "decompose_m", "split_k": "decompose_k"}

    decompose_m: int = 1
    decompose_k: int = mx_split.QUANTUM


class QuantizedRows:
    """A as MX blocks, which the AIVs make of x before anything else."""

    def __init__(self, g: WeightRing, tile: Mxfp8Tiling) -> None:
        self.g, k, element, spec = g, g.problem.k, MXFP8.component, MXFP8.spec
        stacked = (g.grid.row_tiles, 1, tile.base_m)
        self.a = g.kb.tensor("a", element, (*stacked, round_up(k, 2)), "workspace")
        self.a_scale = g.kb.tensor("a_scale", "e8m0", (*stacked, block_count(k)), "workspace")
        g.kb.signal("split_done", "barrier")
        self.split = mx_split.MxSplit(g.kb, g.chip, g.x, self.a, self.a_scale, k, g.experts, tile.base_m, element, 1,
                                      spec.scale_rule, tile.decompose_m, tile.decompose_k, tile.ub_ring)

    def prologue(self) -> None:
        self.split.emit()
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


class Widened:
    """E2M1 to BF16 to FP32 to E4M3: three conversions, none of which rounds.  The Cube applies the scales."""

    def __init__(self, g: WeightRing) -> None:
        self.g = g

    def scales(self, columns: Columns) -> None:
        return None

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
        wide = kb.buffer("w8", "UB", MXFP8.component, g.ub_shape, g.tile.ub_ring)[here]
        kb.op("cast", wide, w32, round="rint")
        return wide


def _build(problem: GemmShape, chip: Chip, tile: Mxfp8Tiling) -> Kernel:
    # Scales go to the Cube, which wants rows of columns whatever the layout of the weights.
    g = WeightRing(problem, chip, tile, MXFP8, (block_count(problem.k), problem.n))
    require_multiple(tile, "decompose_k", mx_split.QUANTUM, "two blocks fill a repeat of Vector")
    require_multiple(tile, "slot_k", MX_BLOCK, "a ring slot holds whole blocks")
    return pipeline(g, QuantizedRows(g, tile), Widened(g))


def _refuse(problem: GemmShape, chip: Chip) -> str | None:
    return refuse_rate(chip, MXFP8.cube) or refuse_scales(problem, MXFP8.name) or refuse_packed(problem, MXFP8.weights)


register_gemm(MXFP8, Mxfp8Tiling, _refuse, _build)
