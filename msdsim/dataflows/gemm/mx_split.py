"""Activations to MX components on Vector: blocks of 32 along K, each with its own E8M0 scale, so that K needs no second sweep.

Per tile of rows and K::

    xf <- cast x;  components and scales <- decompose_mx(xf)
"""

from __future__ import annotations

from typing import Protocol

from msdsim.dataflows.base import require_multiple
from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.operands import GemmShape, Operand, operand
from msdsim.dataflows.cube.rows import RowBlocks
from msdsim.dataflows.vector.components import decompose_mx
from msdsim.formats.mx import MX_BLOCK, block_count
from msdsim.formats.schemes import Scheme
from msdsim.ir import At, Handle, KernelBuilder, Slice, at, ragged, tiles_of
from msdsim.units import ceil_div, round_up

#: K of a split tile is a multiple of two blocks: one repeat of FP32.
QUANTUM = 64


class SplitTiling(Protocol):
    """A split tile is ``decompose_m`` rows by ``decompose_k``; x comes in a ring of ``ub_ring``."""

    @property
    def decompose_m(self) -> int: ...
    @property
    def decompose_k(self) -> int: ...
    @property
    def ub_ring(self) -> int: ...


class MxRows:
    """A in MX blocks in GM: as it is given, or what the AIVs make of ``x`` before anything else, which all cores wait for."""

    def __init__(self, kb: KernelBuilder, problem: GemmShape, scheme: Scheme, x: Operand, row_tiles: int, base_m: int,
                 tile: SplitTiling) -> None:
        self.kb, self.problem, self.scheme, self.x, self.tile = kb, problem, scheme, x, tile
        self.given, blocks = scheme.takes(problem.x), block_count(problem.k)
        if self.given:
            self.x_scale = operand(kb, problem, "x_scale", "e8m0", (problem.m, blocks), "in", rows_axis=0)
            return
        stacked = (row_tiles, 1, base_m)
        self.a = kb.tensor("a", scheme.component, (*stacked, round_up(problem.k, 2)), "workspace")
        self.a_scale = kb.tensor("a_scale", "e8m0", (*stacked, blocks), "workspace")
        kb.signal("split_done", "barrier")

    def prologue(self) -> None:
        """What the AIVs do first."""
        if not self.given:
            split_mx(self.kb, self.problem, self.scheme, self.x, self.a, self.a_scale, self.tile)
            self.kb.meet("split_done")

    def ready(self) -> None:
        """What the AIC waits for before its first tile."""
        if not self.given:
            self.kb.wait_signal("split_done", "MTE2")

    def elements(self, place: OutputTile, k: At) -> Slice:
        """Rows of an output tile over a range of K."""
        if self.given:
            return self.x.at(place.expert, at(place.row, place.rows), k)
        return self.a[place.row_tile, 0, at(0, place.rows), k]

    def scales(self, place: OutputTile, blocks: At) -> Slice:
        """The scales of its blocks."""
        if self.given:
            return self.x_scale.at(place.expert, at(place.row, place.rows), blocks)
        return self.a_scale[place.row_tile, 0, at(0, place.rows), blocks]


def split_mx(kb: KernelBuilder, problem: GemmShape, scheme: Scheme, x: Operand, components: Handle, scales: Handle,
             tile: SplitTiling) -> None:
    """The split of ``x`` [m, k], to ``components`` [row tiles of all experts, passes, rows of a tile, k] and ``scales`` (the
    same with blocks for k).  Every AIV takes blocks of rows; a block never crosses a tile of rows."""
    require_multiple(tile, "decompose_k", QUANTUM, "two blocks fill a repeat of Vector")
    passes, tile_rows = components.of.shape[1:3]
    row_blocks, k_tiles = RowBlocks(Experts(problem), tile_rows, tile.decompose_m), ceil_div(problem.k, tile.decompose_k)
    shape, of_blocks = (tile.decompose_m, tile.decompose_k), (tile.decompose_m, tile.decompose_k // MX_BLOCK)
    with kb.each_aiv("b", row_blocks.count * k_tiles) as b, row_blocks.place(kb, b // k_tiles) as block:
        rows, at_k = block.rows, b % k_tiles
        size = ragged(problem.k, tile.decompose_k, at_k)
        k, blocks = at(at_k * tile.decompose_k, size), at(at_k * of_blocks[1], tiles_of(size, MX_BLOCK))
        here, there = (at(0, rows), at(0, size)), (at(0, rows), at(0, blocks.size))
        xb = kb.buffer("xb", "UB", "bf16", shape, tile.ub_ring)[here]
        xf = kb.buffer("xf", "UB", "fp32", shape)[here]
        q = kb.buffer("q", "UB", "fp32", shape)[here]
        q16 = kb.buffer("q16", "UB", "bf16", shape)[here]
        top = kb.buffer("top", "UB", "fp32", of_blocks)[there]
        kb.copy(xb, x.at(block.expert, at(block.row, rows), k))
        kb.op("cast", xf, xb)

        def store(number: int, component: Slice, scale: Slice) -> None:
            place = block.row_tile, number, at(block.inside, rows)
            kb.copy(components[*place, k], component)
            kb.copy(scales[*place, blocks], scale)

        decompose_mx(kb, scheme.component, scheme.spec.scale_rule, passes, xf, q, q16, top,
                     component=lambda number: kb.buffer(f"a{number}", "UB", scheme.component, shape)[here],
                     scale=lambda number: kb.buffer(f"s{number}", "UB", "e8m0", of_blocks)[there], store=store)
