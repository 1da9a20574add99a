"""``mxfp8``: activations quantized to MXFP8 on Vector, MXFP4 weights widened to MXFP8, one MX Cube pass.

The Cube takes no pair of MXFP8 and MXFP4, so Vector turns the weights' elements from E2M1 to E4M3 (exactly); their block
scales stay as they are and go to the Cube, which applies them.  The ring of widened weights is that of the dequantizing
dataflows.  All AIVs first quantize the activations, then meet at a barrier.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.base import require_multiple
from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.grid import Place
from msdsim.dataflows.cube.limits import refuse_packed, refuse_rate, refuse_scales
from msdsim.dataflows.cube.mainloop import Loader, Stream
from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.dequant import DequantKernel
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling, Weights
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.vector import split_mx
from msdsim.dataflows.vector.scales import Scales
from msdsim.formats.mx import MX_BLOCK, block_count
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, Handle, at
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Kernel, Slice
from msdsim.units import round_up

FORMATS = ("mxfp8", "mxfp8")
ELEMENT = "fp8_e4m3fn"
WEIGHTS = Weights("fp4_e2m1")
#: Block scales that never saturate: the rule of the number contract.
RULE = "rceil"


@dataclass(frozen=True)
class Mxfp8Tiling(DequantTiling):
    """The tiling of a dequantizing dataflow, and the ``split_m x split_k`` tile in which activations are quantized."""

    split_m: int = 1
    split_k: int = split_mx.QUANTUM


class _Mxfp8(DequantKernel):
    def __init__(self, problem: GemmShape, chip: Chip, tile: Mxfp8Tiling) -> None:
        super().__init__(problem, chip, tile, WEIGHTS, FORMATS, "mxfp8")
        require_multiple(tile, "split_k", split_mx.QUANTUM, "two blocks fill a repeat of Vector")
        require_multiple(tile, "slot_k", MX_BLOCK, "a ring slot holds whole blocks")
        stacked = (self.grid.row_tiles, 1, tile.base_m)
        self.a = self.kb.tensor("a", ELEMENT, (*stacked, round_up(problem.k, 2)), "workspace")
        self.a_scale = self.kb.tensor("a_scale", "e8m0", (*stacked, block_count(problem.k)), "workspace")
        self.kb.signal("split_done", "barrier")
        self.split = split_mx.MxSplit(
            self.kb, chip, self.x, self.a, self.a_scale, problem.k, self.experts, tile.base_m, ELEMENT, 1,
            RULE, tile.split_m, tile.split_k, tile.ub_ring,
        )

    def scale_shape(self) -> tuple[int, ...]:
        """Scales go to the Cube, which wants rows of columns whatever the layout of the weights."""
        return block_count(self.problem.k), self.problem.n

    def before_multiply(self) -> None:
        self.kb.wait_signal("split_done", "MTE2")

    def before_produce(self) -> None:
        self.split.emit()
        self.kb.raise_signal("split_done", "MTE3")
        self.kb.wait_signal("split_done", "MTE2")

    def activations(self, place: Place, first: Expr) -> Stream:
        rows, tile = at(0, place.rows), place.row_tile

        def load(a1: Handle, start: Expr, size: Expr) -> None:
            self.kb.copy(a1[rows, at(0, size)], self.a[tile, 0, rows, at(first + start, size)])

        def load_scales(sa1: Handle, start: Expr, count: Expr) -> None:
            self.kb.copy(sa1[rows, at(0, count)], self.a_scale[tile, 0, rows, at(first // MX_BLOCK + start, count)])

        return Stream(load, load_scales)

    def weight_scales(self, e: Expert, nt: Expr, cols: Expr, first: Expr) -> Loader:
        def load(sb1: Handle, start: Expr, count: Expr) -> None:
            rows, columns = at(first // MX_BLOCK + start, count), at(nt * self.tile.base_n, cols)
            self.kb.copy(sb1[at(0, count), at(0, cols)], self.scale.at(e, rows, columns))

        return load

    def scales(self, e: Expert, nt: Expr, cols: Expr) -> None:
        return None

    def convert(self, wq: Slice, here: tuple[At, At], scales: Scales | None, line: Expr, size: Expr, run: Expr) -> Slice:
        """E2M1 to BF16 to FP32 to E4M3: three conversions, none of which rounds."""
        kb = self.kb
        w32 = kb.buffer("w32", "UB", "fp32", self.shape)[here]
        self.widen(wq, here, w32)
        wide = kb.buffer("w8", "UB", ELEMENT, self.shape, self.tile.ub_ring)[here]
        kb.op("cast", wide, w32, round="rint")
        return wide


def build(problem: GemmShape, chip: Chip, tile: Mxfp8Tiling) -> Kernel:
    """See the module's text for the dataflow."""
    return _Mxfp8(problem, chip, tile).kernel()


def _refuse(problem: GemmShape, chip: Chip) -> str | None:
    return refuse_rate(chip, FORMATS) or refuse_scales(problem, "mxfp8") or refuse_packed(problem, WEIGHTS.fmt)


register_gemm("mxfp8", "MXFP8 activations, MXFP4 weights widened to MXFP8 on Vector, one MX Cube pass",
              Mxfp8Tiling, _refuse, build)
