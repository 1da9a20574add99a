"""Signals between cores, and time lost.  All run in the order of the pipe that the ``pipe`` attribute names."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import UnitCost
from msdsim.ir.expr import Const
from msdsim.ir.kernel import Op
from msdsim.ir.ops.base import Evaluation, OpDef, define, require
from msdsim.ir.timing import Local, Sync, Timing


def _check(op: Op, chip: Chip) -> None:
    """Names and directions are checked by the verifier, which knows the kernel's signals."""


def _pipe(op: Op, chip: Chip) -> str:
    return str(op.attr("pipe"))


def _timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    return Sync()


def _execute(op: Op, run: Evaluation) -> None:
    """Signals carry order, not numbers; the executor honours the order."""


_ATTRS = {"name": "name", "pipe": "name"}
define(OpDef("signal", "raise a cross-core signal when the pipe has finished all it was given", 0, False, _check, _pipe,
             _timing, _execute, attrs=_ATTRS))
define(OpDef("wait", "hold the pipe until a cross-core signal has been raised once more", 0, False, _check, _pipe,
             _timing, _execute, attrs=_ATTRS))


def _check_hold(op: Op, chip: Chip) -> None:
    cycles, pipe = op.attr("cycles", 0), op.attr("pipe", "")
    require(isinstance(cycles, int) and cycles > 0, op, f"cycles={cycles} is no time", "give a whole number of at least 1")
    require(pipe not in ("", "S"), op, "it needs the pipe that is held", "name one with pipe=")


def _hold_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    return Local(UnitCost(0, 0, (1, 1), Fraction(int(str(op.attr("cycles"))))), (Const(1), Const(1)))


def _execute_hold(op: Op, run: Evaluation) -> None:
    """What the scalar unit computes meanwhile, addresses and parameters, a kernel's text already has."""


define(OpDef("hold", "hold the pipe for some cycles, while the scalar unit works out what it shall do next", 0, False,
             _check_hold, _pipe, _hold_timing, _execute_hold, attrs={"cycles": "int", "pipe": "name"}))
