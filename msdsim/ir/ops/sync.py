"""Signals between cores.  Both operations run in the order of the pipe that the ``pipe`` attribute names."""

from __future__ import annotations

from collections.abc import Mapping

from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Op
from msdsim.ir.ops.base import Execution, OpDef, define
from msdsim.ir.timing import Sync, Timing


def _check(op: Op, chip: Chip) -> None:
    """Names and directions are checked by the verifier, which knows the kernel's signals."""


def _pipe(op: Op, chip: Chip) -> str:
    return str(op.attr("pipe"))


def _timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    return Sync()


def _execute(op: Op, run: Execution) -> None:
    """Signals carry order, not numbers; the executor honours the order."""


_ATTRS = {"name": "name", "pipe": "name"}
define(OpDef("signal", "raise a cross-core signal when the pipe has finished all it was given", 0, False, _check, _pipe,
             _timing, _execute, attrs=_ATTRS))
define(OpDef("wait", "hold the pipe until a cross-core signal has been raised once more", 0, False, _check, _pipe,
             _timing, _execute, attrs=_ATTRS))
