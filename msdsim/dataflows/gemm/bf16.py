"""``bf16``: 16-bit weights, no dequantization; the baseline every quantized dataflow is held against."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.limits import check_cube_tiling
from msdsim.dataflows.cube.mainloop import Held, accumulate
from msdsim.dataflows.cube.streams import hold_rows, rows_of
from msdsim.dataflows.gemm.direct import Operands, build
from msdsim.dataflows.gemm.register import GemmTiling, register_gemm
from msdsim.errors import TilingError
from msdsim.ir import Const, Expr, Slice, at


@dataclass(frozen=True)
class Bf16Tiling(GemmTiling):
    """Tiles of a GEMM; ``a_resident`` 1 keeps the only tile of rows of A in L1 for all tiles of columns of a core."""

    RENAMED: ClassVar = {**GemmTiling.RENAMED, "split_k": "k_parts"}

    a_resident: int = 0


class Bf16Operands(Operands):
    """Matrices of 16 bits."""

    SWITCHES: ClassVar = ("a_resident",)
    held: Held | None = None

    def check(self) -> None:
        tile, m, k = self.tile, self.problem.m, self.problem.k
        if tile.a_resident and (m > tile.base_m or tile.k_parts > 1 or self.grid.experts.several):
            raise TilingError(f"tiling a_resident={tile.a_resident} holds one tile of rows in L1: it needs base_m of at least "
                              f"{m}, k_parts=1 and no groups of experts")
        check_cube_tiling(self.chip, tile, self.kinds, held_a_bytes=2 * tile.base_m * k if tile.a_resident else None)

    def prepare(self) -> None:
        m, k = self.problem.m, self.problem.k
        if self.tile.a_resident:
            with self.kb.part("aic"):
                self.held = hold_rows(self.kb, self.tile, "bf16", (m, k), k,
                                      lambda _, depth: self.x.at(Expert(Const(0), Const(m)), at(0, m), depth))

    def multiply(self, acc: Slice, place: OutputTile, first: Expr, depth: Expr) -> None:
        a = self.held or rows_of(self.kb, self.x, place, first)
        accumulate(self.kb, self.tile, self.kinds, acc, depth, a, self.weights.stream(place, first), unit_flag=True)


[BF16] = register_gemm(["bf16"], Bf16Tiling, partial(build, operands=Bf16Operands))
