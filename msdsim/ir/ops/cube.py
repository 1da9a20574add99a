"""The Cube's operation: multiply two tiles and initialise or accumulate a third."""

from __future__ import annotations

from collections.abc import Mapping

from msdsim.hardware.chip import Chip
from msdsim.hardware.units import cube
from msdsim.ir.expr import Expr, tiles_of
from msdsim.ir.kernel import Op
from msdsim.ir.ops.base import Evaluation, OpDef, check_unit_flag, define, require
from msdsim.ir.timing import Local, MicroOp, Timing


def _pipe(op: Op, chip: Chip) -> str:
    return cube.PIPE


def _check(op: Op, chip: Chip) -> None:
    out, (a, b) = op.out, op.ins
    assert out is not None
    check_unit_flag(op)
    for item, space in ((out, "L0C"), (a, "L0A"), (b, "L0B")):
        require(item.space == space, op, f"'{item}' is in {item.space}, the Cube wants it in {space}",
                f"copy it to {space} first")
    rate = chip.cube.rate(a.fmt, b.fmt)
    modes = ", ".join(f"{r.a} x {r.b}" for r in chip.cube.rates.values())
    require(rate is not None, op, f"the Cube of '{chip.name}' cannot multiply {a.fmt} x {b.fmt}", f"it multiplies {modes}")
    assert rate is not None
    require(out.fmt == rate.accumulator, op, f"{a.fmt} x {b.fmt} accumulates in {rate.accumulator}, not {out.fmt}",
            f"declare the accumulator as {rate.accumulator}")
    require((a.rows, a.cols, b.cols) == (out.rows, b.rows, out.cols), op,
            f"[{a.rows}, {a.cols}] x [{b.rows}, {b.cols}] is not [{out.rows}, {out.cols}]", "make the sizes agree")


def _timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    a, b = op.ins
    cost = cube.mmad_cost(chip, a.fmt, b.fmt)
    assert cost is not None
    return Local(cost, (a.rows, a.cols, b.cols), micro_ops=(MicroOp(chip.cube.rate_name(a.fmt, b.fmt)),))


def _hazard(op: Op, chip: Chip) -> Expr:
    """Accumulating onto the same small tile waits for the previous result (fewer than hazard_fractals result fractals)."""
    a, b = op.ins
    fractals = tiles_of(a.rows, chip.cube.fractal_m) * tiles_of(b.cols, chip.cube.fractal_n)
    return fractals < chip.cube.hazard_fractals


def _execute(op: Op, run: Evaluation) -> None:
    a, b = run.ins
    if not run.value(op.attr_expr("accumulate", 0)):
        run.out[...] = 0
    run.out[...] = run.arithmetic.mmad(a, b, run.out, op.ins[0].fmt, op.ins[1].fmt)


define(OpDef("mmad", "multiply tiles in L0A and L0B; 'accumulate' is an expression, zero starts a new sum; with unit_flag=1 "
             "the fixpipe gets a sum, and the next one its place, a row of fractals at a time",
             2, True, _check, _pipe, _timing, _execute, attrs={"accumulate": "expr", "unit_flag": "int"}, accumulates=True,
             hazard=_hazard))
