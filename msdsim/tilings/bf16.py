"""Tilings of the dataflows whose operands the Cube takes as they lie in GM; those of ``bf16``."""

from __future__ import annotations

import numpy as np

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.dataflows.gemm.bf16 import BF16
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.tilings.costs import Costs
from msdsim.tilings.cube import (
    Product,
    add_bands,
    add_columns,
    add_l0,
    add_l1,
    add_parts,
    add_rows,
    depth_of,
    main_loop,
    parts_of,
    state_main_loop,
    traffic,
    units_of,
)
from msdsim.tilings.estimate import Phase
from msdsim.tilings.search import declare
from msdsim.tilings.space import Space, Values, ceil


class Direct:
    """Tiles dealt to the AICs; ``scheme`` says what the operands are."""

    def __init__(self, problem: GemmShape, chip: Chip, scheme: Scheme) -> None:
        self.problem, self.chip, self.costs = problem, chip, Costs(chip)
        self.product = Product.of(problem, scheme.cube, out_bytes=4 if problem.out == "fp32" else 2)

    def more(self, s: Space) -> None:
        """Further keys, once the tiles are known."""

    def deepen(self, s: Space, several: bool) -> None:
        """Further keys, once depths are known."""

    def fill(self, s: Space) -> None:
        """Tiles first, with the deepest L0 and a middling L1; then depths and rings, then bands."""
        chip, product = self.chip, self.product

        def depth() -> Values:
            return depth_of(self.problem.k, s.k_parts)

        s.shape, s.parts = ("k_parts", "base_m", "base_n"), "k_parts"
        s.cross("k_parts", parts_of(self.problem.k))
        add_rows(s, product, chip.cube.fractal_m)
        add_columns(s, chip, product, product.units(s.base_m) * s.k_parts)
        add_bands(s, product, several=False)
        self.more(s)
        for several in (False, True):
            add_l0(s, chip, product, depth(), several)
            add_l1(s, chip, product, depth, several)
            self.deepen(s, several)
            s.narrow(1 if several else 2)
        add_bands(s, product, several=True)

    def phases(self, s: Space) -> list[Phase]:
        """The products, and where K is split the addition of its parts."""
        costs, product = self.costs, self.product
        units = units_of(s, product)
        bytes_a, bytes_b = (bits / 8 + product.scale_bytes for bits in product.bits)
        flow = traffic(self.chip, product, s, bytes_a, bytes_b, s.k_parts)
        loop = main_loop(costs, product, s, depth_of(self.problem.k, s.k_parts), flow, scale_k=s.columns.get("scale_k"))
        cols = np.minimum(s.base_n, product.n)
        sums = costs.drain(np.minimum(s.base_m, product.rows), cols, 32)
        loop.drain = np.where(s.k_parts > 1, sums, loop.drain)
        phase = Phase(costs, s.count)
        state_main_loop(phase, s, loop, ceil(units, self.chip.cores.aic), units)
        phase.hbm_bytes = flow.a_bytes + flow.b_bytes
        return [phase, add_parts(costs, product, s.k_parts, s.count)]


class Bf16(Direct):
    """16-bit operands."""

    def __init__(self, problem: GemmShape, chip: Chip) -> None:
        super().__init__(problem, chip, BF16)

    def more(self, s: Space) -> None:
        s.set(a_resident=0)


declare("bf16", Bf16)
