"""Activations to MX components on Vector: blocks of 32 along K, each with its own E8M0 scale, so that K needs no second sweep.

Per tile of rows and K::

    xf <- cast x;  s1 <- scale(block_max(xf))
    per pass:  a_i <- cast xf / s_i;  [xf -= a_i * s_i;  s_(i+1) <- s_i / 8]
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.operands import Operand, ragged
from msdsim.dataflows.cube.rows import RowBlock, RowBlocks
from msdsim.formats.mx import MIN_SCALE_EXPONENT, MX_BLOCK
from msdsim.formats.number import E8M0
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, KernelBuilder, at
from msdsim.ir.expr import Expr, ceil_div
from msdsim.units import ceil_div as ceil_int

#: From one component's scale to the next: three exponents, a factor of 8.
STEP = 3
#: K of a split tile is a multiple of two blocks: one repeat of FP32.
QUANTUM = 64


@dataclass(frozen=True)
class MxSplit:
    """The split of ``x`` [m, k] into ``passes`` components of ``element`` format by an MX scale rule.

    ``components`` [expert row tiles, passes, tile_rows, k] and ``scales`` (the same with blocks for k) receive them; a split
    tile is ``split_m`` rows by ``split_k``.
    """

    kb: KernelBuilder
    chip: Chip
    x: Operand
    components: Handle
    scales: Handle
    k: int
    experts: Experts
    tile_rows: int
    element: str
    passes: int
    rule: str
    split_m: int
    split_k: int
    ub_ring: int

    def emit(self) -> None:
        """Every AIV takes blocks of rows; a block never crosses a tile of rows."""
        kb = self.kb
        blocks = RowBlocks(self.experts, self.tile_rows, self.split_m)
        k_tiles = ceil_int(self.k, self.split_k)
        cores, aivs = self.chip.cores.aic, self.chip.cores.aiv_per_aic
        with (
            kb.loop("b", kb.core * aivs + kb.sub, blocks.count * k_tiles, cores * aivs) as b,
            blocks.place(kb, b // k_tiles) as block,
        ):
            self._tile(block, b % k_tiles)

    def _tile(self, block: RowBlock, at_k: Expr) -> None:
        kb, rows = self.kb, block.rows
        size = ragged(self.k, self.split_k, at_k)
        blocks, first = ceil_div(size, MX_BLOCK), at_k * (self.split_k // MX_BLOCK)
        shape, of_blocks = (self.split_m, self.split_k), (self.split_m, self.split_k // MX_BLOCK)
        here, there = (at(0, rows), at(0, size)), (at(0, rows), at(0, blocks))
        xb = kb.buffer("xb", "UB", "bf16", shape, self.ub_ring)[here]
        xf = kb.buffer("xf", "UB", "fp32", shape)[here]
        q = kb.buffer("q", "UB", "fp32", shape)[here]
        q16 = kb.buffer("q16", "UB", "bf16", shape)[here]
        top = kb.buffer("top", "UB", "fp32", of_blocks)[there]
        kb.copy(xb, self.x.at(block.expert, at(block.row, rows), at(at_k * self.split_k, size)))
        kb.op("cast", xf, xb)
        kb.op("block_max", top, xf)
        scale = kb.buffer("s0", "UB", "e8m0", of_blocks)[there]
        # The first scale leaves room below it for the scales of the later passes.
        lowest = MIN_SCALE_EXPONENT + STEP * (self.passes - 1) + E8M0.bias
        kb.op("mx_scale", scale, top, rule=self.rule, element=self.element, lowest=lowest)
        for number in range(self.passes):
            a = kb.buffer(f"a{number}", "UB", self.element, shape)[here]
            kb.op("mx_div", q, xf, scale)
            if self.element == "fp4_e2m1":
                # What is left of a BF16 number fits BF16, so that only the second conversion rounds.
                kb.op("cast", q16, q, round="rint")
                kb.op("cast", a, q16, round="rint")
            else:
                kb.op("cast", a, q, round="rint")
            rectangle = at(block.inside, rows)
            kb.copy(self.components[block.row_tile, number, rectangle, at(at_k * self.split_k, size)], a)
            kb.copy(self.scales[block.row_tile, number, rectangle, at(first, blocks)], scale)
            if number + 1 < self.passes:
                kb.op("cast", q16, a)
                kb.op("cast", q, q16)
                kb.op("mx_mul", q, q, scale)
                kb.op("sub", xf, xf, q)
                following = kb.buffer(f"s{number + 1}", "UB", "e8m0", of_blocks)[there]
                kb.op("mx_step", following, scale, down=STEP)
                scale = following
