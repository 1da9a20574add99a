"""``mxfp8``: activations quantized to MXFP8 on Vector, MXFP4 weights widened to MXFP8, one MX Cube pass.

The Cube takes no pair of MXFP8 and MXFP4, so Vector turns the weights' elements from E2M1 to E4M3 (exactly); their block
scales stay as they are and go to the Cube, which applies them.  The ring of widened weights is that of the dequantizing
dataflows.  All AIVs first quantize the activations, then meet at a barrier, unless they are given in MXFP8 (``x=mxfp8``).
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
from msdsim.dataflows.gemm.mx_split import QUANTUM, MxRows
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.gemm.weight_context import WeightContext
from msdsim.dataflows.gemm.weight_scales import LoadedScales
from msdsim.dataflows.vector.dequantize import widen
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Expr, Handle, Kernel, Slice, at


@dataclass(frozen=True, kw_only=True)
class Mxfp8Tiling(DequantTiling):
    """The tiling of a dequantizing dataflow, and the ``decompose_m x decompose_k`` tile in which activations are quantized."""

    RENAMED: ClassVar = {**DequantTiling.RENAMED, "split_m": "decompose_m", "split_k": "decompose_k"}

    decompose_m: int = 1
    decompose_k: int = QUANTUM


class BlockRows(Activations):
    """A as MX blocks."""

    def __init__(self, ctx: WeightContext, tile: Mxfp8Tiling) -> None:
        super().__init__(ctx)
        self.rows = MxRows(ctx.kb, ctx.problem, ctx.scheme, ctx.x, ctx.grid.row_tiles, tile.base_m, tile)

    def prologue(self) -> None:
        self.rows.prologue()

    def ready(self) -> None:
        self.rows.ready()

    def stream(self, place: OutputTile, first: Expr) -> Stream:
        kb, rows = self.ctx.kb, at(0, place.rows)

        def load(a1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(a1[rows, :size], self.rows.elements(place, at(first + start, size)))

        def load_scales(sa1: Handle, start: Expr, count: Expr) -> None:
            kb.copy(sa1[rows, :count], self.rows.scales(place, at(first // MX_BLOCK + start, count)))

        return Stream(load, load_scales)


class Widened(Weights):
    """E2M1 to BF16 to FP32 to E4M3: three conversions, none of which rounds.  The Cube applies the scales."""

    def cube_scales(self, place: OutputTile, first: Expr) -> Loader:
        ctx, cols = self.ctx, place.cols

        def load(sb1: Handle, start: Expr, count: Expr) -> None:
            rows, columns = at(first // MX_BLOCK + start, count), at(place.nt * ctx.tile.base_n, cols)
            ctx.kb.copy(sb1[:count, :cols], ctx.scale.at(place.expert, rows, columns))

        return load

    def convert(self, wq: Slice, line: Expr, scales: LoadedScales | None) -> Slice:
        ctx, kb, here = self.ctx, self.ctx.kb, tuple(at(0, size) for size in wq.sizes)
        w32 = kb.buffer("w32", "UB", "fp32", ctx.ub_shape)[here]
        widen(kb, ctx.chip, ctx.ub_shape, wq, w32)
        wide = kb.buffer("w8", "UB", ctx.scheme.component, ctx.ub_shape, ctx.tile.ub_ring)[here]
        kb.op("cast", wide, w32, round="rint")
        return wide


def build(problem: GemmShape, chip: Chip, tile: Mxfp8Tiling, scheme: Scheme) -> Kernel:
    ctx = WeightContext(problem, chip, tile, scheme)
    require_multiple(tile, "slot_k", MX_BLOCK, "a ring slot holds whole blocks")
    return pipeline(ctx, BlockRows(ctx, tile), Widened(ctx))


[MXFP8] = register_gemm(["mxfp8"], Mxfp8Tiling, build)
