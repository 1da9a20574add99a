"""What an operation must have to exist: type rule, pipe, timing rule and numeric meaning, side by side in one definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import eq
from typing import Protocol

import numpy as np

from msdsim.errors import KernelError
from msdsim.hardware.chip import Chip
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Op, Slice
from msdsim.ir.timing import Timing
from msdsim.registry import Registry


class Arithmetic(Protocol):
    """The Cube's number semantics, supplied by the executor."""

    def mmad(self, a: np.ndarray, b: np.ndarray, acc: np.ndarray, fmt_a: str, fmt_b: str) -> np.ndarray:
        """``acc + a @ b`` under the contract of the chip's ``cube.accumulate``; shapes [m,k], [k,n], [m,n]."""
        ...

    def mmad_mx(self, a: np.ndarray, a_scale: np.ndarray, b: np.ndarray, b_scale: np.ndarray,
                acc: np.ndarray) -> np.ndarray:
        """The same of MX tiles; scales [m, ceil(k/32)] and [ceil(k/32), n]."""
        ...


@dataclass
class Evaluation:
    """What an operation sees when it runs on numbers: input arrays, the output view to write, and index values."""

    ins: Sequence[np.ndarray]
    out: np.ndarray
    value: Callable[[Expr], int]
    arithmetic: Arithmetic


@dataclass(frozen=True)
class OpDef:
    """Definition of an operation.

    ``check`` raises KernelError when operands do not fit; ``pipe`` names the pipe that runs it; ``timing`` gives its cost;
    ``execute`` computes it.  ``attrs`` maps each allowed attribute to its kind (``expr``, ``int``, ``float``, ``name``).
    ``hazard`` says when an operation that reads what the same pipe wrote must wait for that pipe to drain (1) or not (0).
    """

    kind: str
    description: str
    inputs: int
    has_output: bool
    check: Callable[[Op, Chip], None]
    pipe: Callable[[Op, Chip], str]
    timing: Callable[[Op, Chip, Mapping[str, int]], Timing]
    execute: Callable[[Op, Evaluation], None]
    attrs: Mapping[str, str] = field(default_factory=dict)
    accumulates: bool = False
    hazard: Callable[[Op, Chip], Expr] | None = None


OPS: Registry[OpDef] = Registry("operation")


#: Attributes that may be left out; what they stand for then is with the operations that have them.
OPTIONAL = ("accumulate", "transpose", "l2", "round", "row", "column", "unit_flag")


def define(definition: OpDef) -> OpDef:
    """Register an operation."""
    return OPS.add(definition.kind, definition)


def require(condition: bool, op: Op, problem: str, remedy: str) -> None:
    """Raise a KernelError naming the operation and its line unless ``condition`` holds."""
    if not condition:
        where = f"line {op.line}: " if op.line else ""
        raise KernelError(f"{where}'{op}': {problem}; {remedy}")


#: Whether two sizes are equal.  Where one is worked out from another, equal sizes may be written differently: the verifier,
#: which knows the loops around an operation, judges by their ranges.
EQUAL: ContextVar[Callable[[Expr, Expr], bool]] = ContextVar("EQUAL", default=eq)


def same_sizes(found: tuple[Expr, ...], wanted: tuple[Expr, ...]) -> bool:
    """Whether sizes are those that are wanted."""
    return all(a == b or EQUAL.get()(a, b) for a, b in zip(found, wanted, strict=True))


def check_unit_flag(op: Op) -> None:
    """``unit_flag`` is 0 or 1; what it asks of the operations around it, :mod:`msdsim.ir.unit_flags` checks."""
    flag = op.attr("unit_flag", 0)
    require(flag in (0, 1), op, f"unit_flag={flag} is neither 0 nor 1",
            "give 1 to all products of a sum; which is the last follows from the loops")


def same_shape(op: Op, a: Slice, b: Slice) -> None:
    """Both slices have the same rows and columns (as expressions)."""
    require(
        (a.rows, a.cols) == (b.rows, b.cols), op,
        f"shape [{a.rows}, {a.cols}] differs from [{b.rows}, {b.cols}]", "give both sides the same sizes",
    )
