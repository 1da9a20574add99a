"""``w8a8-mxfp8`` and ``w4a4-mxfp4``: weights and activations in one MX format, which the Cube multiplies as they are.

The elements go through L1 tile by tile; their scales, a byte for 32 of them, come for ``scale_k`` of K at a time, so that a
row of them is long enough for a burst.  Activations that are not given in the format are quantized on Vector first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from msdsim.dataflows.base import require_multiple
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.limits import check_cube_tiling
from msdsim.dataflows.cube.mainloop import Held, Stream, accumulate
from msdsim.dataflows.cube.operands import scales
from msdsim.dataflows.gemm.direct import Operands, build
from msdsim.dataflows.gemm.mx_split import QUANTUM, MxRows
from msdsim.dataflows.gemm.register import GemmTiling, register_gemm
from msdsim.formats.mx import MX_BLOCK
from msdsim.ir import Expr, Handle, Slice, at, tiles_of


@dataclass(frozen=True, kw_only=True)
class MxTiling(GemmTiling):
    """Tiles of a GEMM, K whose scales lie in L1 at a time, and the ``decompose_m x decompose_k`` tile in which activations are
    quantized, ``ub_ring`` of them on their way."""

    scale_k: int
    decompose_m: int = 1
    decompose_k: int = QUANTUM
    ub_ring: int = 2


class MxOperands(Operands):
    """Elements and scales of both."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scale, _ = scales(self.kb, self.problem, self.scheme)

    def check(self) -> None:
        require_multiple(self.tile, "scale_k", self.tile.l1_k, "scales in L1 serve whole L1 tiles")
        require_multiple(self.tile, "l1_k", MX_BLOCK, "an L1 tile holds whole blocks")
        check_cube_tiling(self.chip, self.tile, self.kinds, scale_k=self.tile.scale_k)

    def prepare(self) -> None:
        tile = self.tile
        self.rows = MxRows(self.kb, self.problem, self.scheme, self.x, self.grid.row_tiles, tile.base_m, tile)
        with self.kb.part("aiv"):
            self.rows.prologue()
        with self.kb.part("aic"):
            self.rows.ready()

    def multiply(self, acc: Slice, place: OutputTile, first: Expr, depth: Expr) -> None:
        kb, tile, rows, of_rows, of_cols = self.kb, self.tile, self.rows, at(0, place.rows), at(0, place.cols)
        shapes = (tile.base_m, tile.scale_k // MX_BLOCK), (tile.scale_k // MX_BLOCK, tile.base_n)
        with kb.tiles("ks", depth, tile.scale_k) as ks:
            here, count = first + ks.start, tiles_of(ks.size, MX_BLOCK)
            blocks = at(here // MX_BLOCK, count)
            # As everywhere, what comes from HBM first.
            sb = kb.buffer("sb1", "L1", "e8m0", shapes[1], tile.l1_ring)
            kb.copy(sb[:count, of_cols], self.scale.at(place.expert, blocks, at(place.nt * tile.base_n, place.cols)))
            sa = kb.buffer("sa1", "L1", "e8m0", shapes[0], tile.l1_ring)
            kb.copy(sa[of_rows, :count], rows.scales(place, blocks))

            def load_a(a1: Handle, start: Expr, size: Expr, here: Expr = here) -> None:
                kb.copy(a1[of_rows, :size], rows.elements(place, at(here + start, size)))

            def scales_a(start: Expr, size: Expr, sa: Handle = sa) -> Slice:
                return sa[of_rows, at(start, size)]

            def scales_b(start: Expr, size: Expr, sb: Handle = sb) -> Slice:
                return sb[at(start, size), of_cols]

            a = Stream(load_a, scales=Held(scales_a))
            b = replace(self.weights.stream(place, here), scales=Held(scales_b))
            accumulate(kb, tile, self.kinds, acc, ks.size, a, b, before=ks.number, unit_flag=True)


MX = register_gemm(["w8a8-mxfp8", "w4a4-mxfp4"], MxTiling, partial(build, operands=MxOperands))
