"""Tilings of the dataflows whose weights and activations are in one MX format."""

from __future__ import annotations

from functools import partial

import numpy as np

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.mx import MX
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.tilings.bf16 import Direct
from msdsim.tilings.cube import depth_of
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space, ceil
from msdsim.tilings.splits import BlockSplitWork


class Mx(Direct):
    """Elements and scales of MX blocks; activations that are not given so are quantized first."""

    def __init__(self, problem: GemmShape, chip: Chip, scheme: Scheme) -> None:
        super().__init__(problem, chip, scheme)
        self.split = BlockSplitWork(self.costs, self.product.counts, problem.k, 1, scheme, scheme.takes(problem.x))

    def more(self, s: Space) -> None:
        s.set(ub_ring=2)
        self.split.add(s, lambda s: s.base_m, lambda s: self.chip.buffers.ub_bytes, several=False)

    def deepen(self, s: Space, several: bool) -> None:
        """Scales of all of K at once, or of as many L1 tiles as fit."""
        product = self.product
        tiles = ceil(depth_of(self.problem.k, s.k_parts), s.l1_k)
        elements = product.l1_bytes(s) - product.scale_bytes * (s.base_m + s.base_n)
        room = self.chip.buffers.l1_bytes - s.l1_ring * s.l1_k * elements
        most = np.maximum(1, room // (s.l1_ring * s.l1_k * product.scale_bytes * (s.base_m + s.base_n))).astype(np.int64)
        fits = np.minimum(tiles, most)
        s.options("scale_k", *[np.minimum(fits, some) * s.l1_k for some in ((fits, 4, 1) if several else (fits,))])

    def phases(self, s: Space) -> list[Phase]:
        return [*self.split.phases(s, s.base_m), *super().phases(s)]


for _scheme in MX:
    declare(_scheme.name, partial(Mx, scheme=_scheme))
