"""Rows of x as FP16 over a power of two (:mod:`msdsim.formats.half`): ``half`` [m, k] and ``row_power`` [m, 1] in GM.

Every AIV takes some rows, in two sweeps over K or in one where they fit; then all cores meet (signal ``halves``)::

    xf <- x;  lanes = fold_max |xf|;   power = max(2^floor(log2 max), 2^-111) / 2^15;   factor = 1 / power
    xf <- x;  xh = fp16(xf * factor);   half <- xh
"""

from __future__ import annotations

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.operands import GemmShape, Operand, operand
from msdsim.formats.half import SMALLEST_TOP, TOP_EXPONENT
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Expr, KernelBuilder, Slice, at, ragged
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.units import ceil_div

#: Most rows of a UB tile.
_ROWS = 8


def _elements(chip: Chip) -> int:
    """Of x in a UB tile, at most: rings of two in BF16 and FP16 and one tile in FP32 then are an eighth of UB."""
    return chip.buffers.ub_bytes // 96


def tile_shape(problem: GemmShape, chip: Chip) -> tuple[int, int]:
    """Rows and K of a UB tile."""
    rows = min(_ROWS, ceil_div(Experts(problem).total_rows, chip.aiv), problem.m, max(1, _elements(chip) // (2 * FOLD_LANES)))
    room = max(1, _elements(chip) // rows // FOLD_LANES) * FOLD_LANES
    return rows, min(problem.k, room)


def room_bytes(problem: GemmShape, chip: Chip) -> int:
    """UB bytes that the conversion takes."""
    rows, depth = tile_shape(problem, chip)
    return rows * (12 * (depth + FOLD_LANES) + 4 * FOLD_LANES + 3 * 64)


class HalfRows:
    """The rows, their powers, and how they are made."""

    def __init__(self, kb: KernelBuilder, chip: Chip, problem: GemmShape, x: Operand) -> None:
        self.kb, self.problem, self.x = kb, problem, x
        self.shape = tile_shape(problem, chip)
        m, k = problem.m, problem.k
        self.half = operand(kb, problem, "half", "fp16", (m, k), "workspace", rows_axis=0)
        self.powers = operand(kb, problem, "row_power", "fp32", (m, 1), "workspace", rows_axis=0)
        kb.signal("halves", "barrier")

    def emit(self) -> None:
        """Make them, in the AIV part; who reads them waits for the signal first."""
        kb, experts, (most, depth) = self.kb, Experts(self.problem), self.shape
        tiles = ceil_div(self.problem.k, depth)

        def units(m: int) -> int:
            return ceil_div(m, most)

        with kb.each_aiv("hr", experts.units(units)) as unit, experts.find(kb, unit, units) as (e, inside):
            rows = at(inside * most, ragged(e.rows, most, inside))
            factor = kb.buffer("half_factor", "UB", "fp32", (most, 1))[: rows.size, :1]
            lanes = kb.buffer("half_lanes", "UB", "fp32", (most, FOLD_LANES))[: rows.size, :FOLD_LANES]
            with kb.loop("sweep", 0, 1 if tiles == 1 else 2 * tiles) as sweep:
                tile = sweep % tiles
                k = at(tile * depth, ragged(self.problem.k, depth, tile))
                xb, xf = self._tiles(rows.size, k.size)
                kb.copy(xb, self.x.at(e, rows, k))
                kb.op("cast", xf, xb)
                with kb.when(sweep < tiles):
                    kb.op("abs", xf, xf)
                    kb.op("fold_max", lanes, xf, accumulate=sweep)
                with kb.when(sweep.equals(tiles - 1)):
                    kb.copy(self.powers.at(e, rows, at(0, 1)), self._power(lanes, factor, rows.size))
                with kb.when(sweep >= (tiles if tiles > 1 else 0)):
                    if tiles == 1:
                        kb.op("cast", xf, xb)
                    xh = kb.buffer("half_xh", "UB", "fp16", self.shape, 2)[tuple(at(0, size) for size in xf.sizes)]
                    kb.op("mul", xf, xf, factor)
                    kb.op("cast", xh, xf, round="rint")
                    kb.copy(self.half.at(e, rows, k), xh)
        kb.raise_signal("halves", "MTE3")

    def _tiles(self, rows: Expr, size: Expr) -> tuple[Slice, Slice]:
        xb, xf = (self.kb.buffer(f"half_{name}", "UB", fmt, self.shape, ring)
                  for name, fmt, ring in (("xb", "bf16", 2), ("xf", "fp32", 1)))
        return xb[:rows, :size], xf[:rows, :size]

    def _power(self, lanes: Slice, factor: Slice, rows: Expr) -> Slice:
        """The powers, from the lanes of the maxima; ``factor`` is one over them."""
        kb = self.kb
        power = kb.buffer("half_power", "UB", "fp32", (self.shape[0], 1))[:rows, :1]
        kb.op("reduce_max", power, lanes)
        kb.op("power_of_two", power, power)
        kb.op("maxs", power, power, scalar=SMALLEST_TOP)
        kb.op("muls", power, power, scalar=2.0**-TOP_EXPONENT)
        kb.op("dup", factor, scalar=1.0)
        kb.op("div", factor, factor, power)
        return power

    def load(self, e: Expert, rows: At, most: int, ring: int) -> Slice:
        """Powers of some rows, at most ``most``, in UB."""
        there = self.kb.buffer("powers", "UB", "fp32", (most, 1), ring)[: rows.size, :1]
        self.kb.copy(there, self.powers.at(e, rows, at(0, 1)))
        return there
