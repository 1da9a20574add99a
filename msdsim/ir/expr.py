"""Index expressions: quasi-affine in the loop variables (+, -, * constant, // constant, % constant, min, max, compare).

An expression is an immutable tree; equal expressions compare equal and print to the text that parses back to them.
Comparisons yield 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Union, cast

import numpy as np

#: Binary operators by symbol: precedence (higher binds tighter).
PRECEDENCE = {"==": 1, "!=": 1, "<": 1, "<=": 1, ">": 1, ">=": 1, "+": 2, "-": 2, "*": 3, "//": 3, "%": 3}
FUNCTIONS = ("min", "max")

ExprLike = Union["Expr", int]


@dataclass(frozen=True)
class Expr:
    """Base of all expressions; Python operators build trees and fold constants."""

    def __add__(self, other: ExprLike) -> Expr:
        return binary("+", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return binary("+", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return binary("-", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return binary("-", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return binary("*", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return binary("*", other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return binary("//", self, other)

    def __mod__(self, other: ExprLike) -> Expr:
        return binary("%", self, other)

    def equals(self, other: ExprLike) -> Expr:
        """The expression that is 1 where both sides are equal (``==`` itself compares trees)."""
        return binary("==", self, other)

    def __lt__(self, other: ExprLike) -> Expr:
        return binary("<", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return binary("<=", self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return binary(">", self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return binary(">=", self, other)


@dataclass(frozen=True, init=False)
class Const(Expr):
    """An integer."""

    value: int

    def __init__(self, value: int) -> None:
        # Millions are made: a frozen class's own way to set its fields takes twice as long.
        self.__dict__["value"] = value

    def __eq__(self, other: object) -> bool:
        return other.__class__ is Const and self.value == other.value

    def __hash__(self) -> int:
        return hash((self.value,))

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Var(Expr):
    """A loop variable, ``core`` (core group index) or ``sub`` (AIV index inside the group)."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, init=False)
class Binary(Expr):
    """``left op right`` with an operator of :data:`PRECEDENCE`, or ``min(left, right)`` / ``max(left, right)``."""

    op: str
    left: Expr
    right: Expr

    def __init__(self, op: str, left: Expr, right: Expr) -> None:
        self.__dict__.update(op=op, left=left, right=right)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if other.__class__ is not Binary or hash(self) != hash(other):
            return False
        assert isinstance(other, Binary)
        return self.op == other.op and self.left == other.left and self.right == other.right

    def __hash__(self) -> int:
        # Trees share parts and are looked up often: each part is hashed once.
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash((self.op, self.left, self.right))
            object.__setattr__(self, "_hash", known)
        return int(known)

    def __reduce__(self) -> tuple[object, ...]:
        return Binary, (self.op, self.left, self.right)

    def __str__(self) -> str:
        if self.op in FUNCTIONS:
            return f"{self.op}({self.left}, {self.right})"
        level = PRECEDENCE[self.op]
        left = f"({self.left})" if _level(self.left) < level else str(self.left)
        right = f"({self.right})" if _level(self.right) <= level else str(self.right)
        return f"{left} {self.op} {right}"


def _level(expr: Expr) -> int:
    if isinstance(expr, Binary) and expr.op not in FUNCTIONS:
        return PRECEDENCE[expr.op]
    if isinstance(expr, Const) and expr.value < 0:
        return 2
    return 9


def apply(op: str, a: int, b: int) -> int:
    """The value of ``a op b`` on integers."""
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b
        case "%":
            return a % b
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case "==":
            return int(a == b)
        case "!=":
            return int(a != b)
        case "<":
            return int(a < b)
        case "<=":
            return int(a <= b)
        case ">":
            return int(a > b)
        case ">=":
            return int(a >= b)
    raise ValueError(f"unknown operator '{op}'")


def lift(value: ExprLike) -> Expr:
    """An int as a constant; an expression as it is."""
    return value if isinstance(value, Expr) else _CONSTANTS.get(value) or Const(int(value))


#: Constants that every kernel has.
_CONSTANTS = {value: Const(value) for value in range(-1, 1025)}


def binary(op: str, left: ExprLike, right: ExprLike) -> Expr:
    """``left op right`` with constants folded and the neutral elements of +, -, *, //, % removed."""
    a, b = lift(left), lift(right)
    if isinstance(b, Const):
        if isinstance(a, Const):
            return Const(apply(op, a.value, b.value))
        if b.value == 0 and op in ("+", "-", "*"):
            return b if op == "*" else a
        if b.value == 1 and op in ("*", "//", "%"):
            return Const(0) if op == "%" else a
    elif isinstance(a, Const):
        if a.value == 0 and op in ("+", "*"):
            return b if op == "+" else a
        if a.value == 1 and op == "*":
            return b
    return Binary(op, a, b)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """Smaller of two expressions."""
    return binary("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """Larger of two expressions."""
    return binary("max", a, b)


def tiles_of(extent: ExprLike, size: int) -> Expr:
    """How many tiles of ``size`` cover ``extent``: the quotient rounded up, as an expression."""
    return (lift(extent) + (size - 1)) // size


def ragged(total: ExprLike, tile: int, index: ExprLike) -> Expr:
    """Size of tile ``index`` when ``total`` is cut into tiles of ``tile``: the last may be smaller."""
    whole = lift(total)
    if isinstance(whole, Const) and whole.value % tile == 0:
        return Const(tile)
    if isinstance(whole, Const) and whole.value < tile:
        return whole
    return minimum(tile, whole - lift(index) * tile)


def share_of(total: ExprLike, share: int, index: ExprLike) -> Expr:
    """What unit ``index`` has of ``total`` when each takes ``share`` in turn: the last ones may have less, or nothing."""
    return minimum(share, maximum(0, lift(total) - lift(index) * share))


def product(*factors: ExprLike) -> Expr:
    """Product of several factors; non-constant times non-constant is allowed here since only sizes use it."""
    result = lift(factors[0]) if factors else Const(1)
    for factor in factors[1:]:
        result = binary("*", result, factor)
    return result


def free_vars(expr: Expr) -> frozenset[str]:
    """Names of the variables the expression reads."""
    if isinstance(expr, Var):
        return frozenset((expr.name,))
    if not isinstance(expr, Binary):
        return frozenset()
    found = expr.__dict__.get("_free")
    if found is None:
        found = free_vars(expr.left) | free_vars(expr.right)
        object.__setattr__(expr, "_free", found)
    return found


def evaluate(expr: Expr, env: Mapping[str, int]) -> int:
    """Value of the expression where ``env`` gives every variable; KeyError names one it lacks."""
    return int(_function(expr)(env))


@lru_cache(maxsize=65536)
def _function(expr: Expr) -> Callable[[Mapping[str, int]], int]:
    return compiled(source(expr))


def evaluate_all(expr: Expr, env: Mapping[str, np.ndarray]) -> np.ndarray | int:
    """Values of the expression, element by element, where ``env`` gives every variable an array of one length; one number where
    it reads none."""
    found: np.ndarray | int = _array_function(expr)(env)
    return found


@lru_cache(maxsize=16384)
def _array_function(expr: Expr) -> Callable[[Mapping[str, np.ndarray]], Any]:
    return cast(Callable[[Mapping[str, np.ndarray]], Any], eval(f"lambda env: {source(expr)}", dict(_ON_ARRAYS)))


#: What ``min`` and ``max`` are for arrays.
_ON_ARRAYS = {"min": np.minimum, "max": np.maximum, "__builtins__": {}}


def compiled(text: str) -> Callable[[Mapping[str, int]], Any]:
    """The function of a mapping from variables to values that :func:`source` texts, or a tuple of them, describe."""
    return eval(f"lambda env: {text}", {"min": min, "max": max, "__builtins__": {}})


def source(expr: Expr) -> str:
    """Python source text of the expression over ``env`` (any name is a variable; comparisons give 0 / 1)."""
    if isinstance(expr, Var):
        return f"env[{expr.name!r}]"
    if isinstance(expr, Binary):
        left, right = source(expr.left), source(expr.right)
        if expr.op in FUNCTIONS:
            return f"{expr.op}({left}, {right})"
        text = f"({left} {expr.op} {right})"
        return f"({text} + 0)" if PRECEDENCE[expr.op] == 1 else text
    return str(expr)


def substitute(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """The expression with some variables replaced; the same object where nothing changes."""
    if isinstance(expr, Var):
        return values.get(expr.name, expr)
    if not isinstance(expr, Binary) or free_vars(expr).isdisjoint(values):
        return expr
    return binary(expr.op, substitute(expr.left, values), substitute(expr.right, values))


def contains(expr: Expr, part: Expr) -> bool:
    """Whether ``part`` is ``expr`` or a subexpression of it."""
    if size_of(expr) <= size_of(part):
        return expr == part
    assert isinstance(expr, Binary)
    if not free_vars(part) <= free_vars(expr):
        return False
    return contains(expr.left, part) or contains(expr.right, part)


def size_of(expr: Expr) -> int:
    """Number of operators and operands."""
    if not isinstance(expr, Binary):
        return 1
    found = expr.__dict__.get("_size")
    if found is None:
        found = 1 + size_of(expr.left) + size_of(expr.right)
        object.__setattr__(expr, "_size", found)
    return int(found)


@dataclass(frozen=True)
class Interval:
    """Inclusive integer range."""

    low: int
    high: int
