"""Tilings of ``mxfp8``: those of a dequantizing dataflow, and the tile in which Vector quantizes the activations."""

from __future__ import annotations

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.mxfp8 import MXFP8
from msdsim.hardware.chip import Chip
from msdsim.tilings.dequant import Dequant
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space
from msdsim.tilings.splits import BlockSplitWork


class Mxfp8(Dequant):
    """Weights are widened, and the Cube applies their scales."""

    def __init__(self, problem: GemmShape, chip: Chip) -> None:
        super().__init__(problem, chip, MXFP8)
        self.split = BlockSplitWork(self.costs, self.product.counts, self.product.k, 1, MXFP8,
                                    MXFP8.takes(problem.x))

    def more(self, s: Space) -> None:
        self.split.add(s, lambda s: s.base_m, lambda s: self.chip.buffers.ub_bytes, several=False)

    def phases(self, s: Space) -> list[Phase]:
        return [*self.split.phases(s, s.base_m), *super().phases(s)]


declare("mxfp8", Mxfp8)
