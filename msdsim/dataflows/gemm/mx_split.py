"""Activations to MX components on Vector: blocks of 32 along K, each with its own E8M0 scale, so that K needs no second sweep.

Per tile of rows and K::

    xf <- cast x;  components and scales <- decompose_mx(xf)
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.cube.rows import RowBlock, RowBlocks
from msdsim.dataflows.vector.components import decompose_mx
from msdsim.formats.mx import MX_BLOCK
from msdsim.hardware.chip import Chip
from msdsim.ir import Expr, Handle, KernelBuilder, Slice, at, ragged, tiles_of
from msdsim.units import ceil_div

#: K of a split tile is a multiple of two blocks: one repeat of FP32.
QUANTUM = 64


@dataclass(frozen=True)
class MxSplit:
    """The split of ``x`` [m, k] into ``passes`` components of ``element`` format by an MX scale rule.

    ``components`` [expert row tiles, passes, tile_rows, k] and ``scales`` (the same with blocks for k) receive them; a split
    tile is ``decompose_m`` rows by ``decompose_k``.
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
    decompose_m: int
    decompose_k: int
    ub_ring: int

    def emit(self) -> None:
        """Every AIV takes blocks of rows; a block never crosses a tile of rows."""
        kb = self.kb
        blocks = RowBlocks(self.experts, self.tile_rows, self.decompose_m)
        k_tiles = ceil_div(self.k, self.decompose_k)
        with kb.each_aiv("b", blocks.count * k_tiles) as b, blocks.place(kb, b // k_tiles) as block:
            self._tile(block, b % k_tiles)

    def _tile(self, block: RowBlock, at_k: Expr) -> None:
        kb, rows = self.kb, block.rows
        size = ragged(self.k, self.decompose_k, at_k)
        blocks, first = tiles_of(size, MX_BLOCK), at_k * (self.decompose_k // MX_BLOCK)
        shape, of_blocks = (self.decompose_m, self.decompose_k), (self.decompose_m, self.decompose_k // MX_BLOCK)
        here, there = (at(0, rows), at(0, size)), (at(0, rows), at(0, blocks))
        xb = kb.buffer("xb", "UB", "bf16", shape, self.ub_ring)[here]
        xf = kb.buffer("xf", "UB", "fp32", shape)[here]
        q = kb.buffer("q", "UB", "fp32", shape)[here]
        q16 = kb.buffer("q16", "UB", "bf16", shape)[here]
        top = kb.buffer("top", "UB", "fp32", of_blocks)[there]
        kb.copy(xb, self.x.at(block.expert, at(block.row, rows), at(at_k * self.decompose_k, size)))
        kb.op("cast", xf, xb)
        def store(number: int, component: Slice, scale: Slice) -> None:
            place = block.row_tile, number, at(block.inside, rows)
            kb.copy(self.components[(*place, at(at_k * self.decompose_k, size))], component)
            kb.copy(self.scales[(*place, at(first, blocks))], scale)

        decompose_mx(kb, self.element, self.rule, self.passes, xf, q, q16, top,
                     component=lambda number: kb.buffer(f"a{number}", "UB", self.element, shape)[here],
                     scale=lambda number: kb.buffer(f"s{number}", "UB", "e8m0", of_blocks)[there], store=store)
