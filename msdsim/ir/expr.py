"""Index expressions: quasi-affine in the loop variables (+, -, * constant, // constant, % constant, min, max, compare).

An expression is an immutable tree; equal expressions compare equal and print to the text that parses back to them.
Comparisons yield 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

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


@dataclass(frozen=True)
class Const(Expr):
    """An integer."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Var(Expr):
    """A loop variable, ``core`` (core group index) or ``sub`` (AIV index inside the group)."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Binary(Expr):
    """``left op right`` with an operator of :data:`PRECEDENCE`, or ``min(left, right)`` / ``max(left, right)``."""

    op: str
    left: Expr
    right: Expr

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
    return value if isinstance(value, Expr) else Const(int(value))


def binary(op: str, left: ExprLike, right: ExprLike) -> Expr:
    """``left op right`` with constants folded and the neutral elements of +, -, *, //, % removed."""
    a, b = lift(left), lift(right)
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(apply(op, a.value, b.value))
    if op == "+" and a == Const(0):
        return b
    if op in "+-" and b == Const(0):
        return a
    if op == "*" and Const(0) in (a, b):
        return Const(0)
    if op == "*" and a == Const(1):
        return b
    if op in ("*", "//") and b == Const(1):
        return a
    if op == "%" and b == Const(1):
        return Const(0)
    return Binary(op, a, b)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """Smaller of two expressions."""
    return binary("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """Larger of two expressions."""
    return binary("max", a, b)


def ceil_div(a: ExprLike, b: int) -> Expr:
    """``ceil(a / b)`` for a positive constant ``b``."""
    return (lift(a) + (b - 1)) // b


def product(*factors: ExprLike) -> Expr:
    """Product of several factors; non-constant times non-constant is allowed here since only sizes use it."""
    result: Expr = Const(1)
    for factor in factors:
        result = binary("*", result, factor)
    return result


def free_vars(expr: Expr) -> frozenset[str]:
    """Names of the variables the expression reads."""
    if isinstance(expr, Var):
        return frozenset((expr.name,))
    if isinstance(expr, Binary):
        return free_vars(expr.left) | free_vars(expr.right)
    return frozenset()


def evaluate(expr: Expr, env: Mapping[str, int]) -> int:
    """Value of the expression where ``env`` gives every variable; KeyError names one it lacks."""
    return int(eval(_code(expr), {"min": min, "max": max, "__builtins__": {}}, dict(env)))


@lru_cache(maxsize=65536)
def _code(expr: Expr):  # type: ignore[no-untyped-def]
    return compile(source(expr), "<index expression>", "eval")


def source(expr: Expr) -> str:
    """Python source text of the expression (comparisons as 0 / 1)."""
    if isinstance(expr, Binary):
        left, right = source(expr.left), source(expr.right)
        if expr.op in FUNCTIONS:
            return f"{expr.op}({left}, {right})"
        text = f"({left} {expr.op} {right})"
        return f"({text} + 0)" if PRECEDENCE[expr.op] == 1 else text
    return str(expr)


@dataclass(frozen=True)
class Interval:
    """Inclusive integer range."""

    low: int
    high: int


def bounds(expr: Expr, ranges: Mapping[str, Interval]) -> Interval:
    """A range that contains every value of ``expr`` while each variable stays in its range (interval arithmetic)."""
    if isinstance(expr, Const):
        return Interval(expr.value, expr.value)
    if isinstance(expr, Var):
        return ranges[expr.name]
    assert isinstance(expr, Binary)
    a, b = bounds(expr.left, ranges), bounds(expr.right, ranges)
    match expr.op:
        case "+":
            return Interval(a.low + b.low, a.high + b.high)
        case "-":
            return Interval(a.low - b.high, a.high - b.low)
        case "min" | "max":
            return Interval(apply(expr.op, a.low, b.low), apply(expr.op, a.high, b.high))
        case "%":
            if b.low == b.high and b.low > 0 and a.low // b.low == a.high // b.low:
                return Interval(a.low % b.low, a.high % b.low)
            return Interval(0, b.high - 1)
        case "*" | "//":
            corners = [apply(expr.op, x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
            return Interval(min(corners), max(corners))
    return Interval(0, 1)


def upper_bound(expr: Expr, ranges: Mapping[str, Interval]) -> int:
    """A value no smaller than ``expr`` ever is; sharper than :func:`bounds` where terms cancel.

    ``start + min(tile, total - start)`` is bounded by ``total``: sums are put into linear form and each min or max is
    resolved to either of its arguments.
    """
    terms, constant = _linear(expr)
    for atom, factor in terms.items():
        # An atom that stands inside another is resolved after it, so that the two can cancel.
        inside = any(other != atom and contains(other, atom) for other in terms)
        if isinstance(atom, Binary) and atom.op in FUNCTIONS and not inside:
            rest = _sum({**terms, atom: 0}, constant)
            options = [upper_bound(binary("+", rest, binary("*", side, factor)), ranges) for side in (atom.left, atom.right)]
            return min(options) if (atom.op == "min") == (factor > 0) else max(options)
    total = constant
    for atom, factor in terms.items():
        interval = bounds(atom, ranges)
        total += factor * (interval.high if factor > 0 else interval.low)
    return total


def contains(expr: Expr, part: Expr) -> bool:
    """Whether ``part`` is ``expr`` or a subexpression of it."""
    if expr == part:
        return True
    return isinstance(expr, Binary) and (contains(expr.left, part) or contains(expr.right, part))


def _linear(expr: Expr) -> tuple[dict[Expr, int], int]:
    """Sum of integer multiples of atoms (variables and non-linear subexpressions) plus a constant."""
    if isinstance(expr, Const):
        return {}, expr.value
    if isinstance(expr, Binary) and expr.op in ("+", "-"):
        sign = 1 if expr.op == "+" else -1
        terms, constant = _linear(expr.left)
        other, shift = _linear(expr.right)
        for atom, factor in other.items():
            terms[atom] = terms.get(atom, 0) + sign * factor
        return {atom: factor for atom, factor in terms.items() if factor}, constant + sign * shift
    if isinstance(expr, Binary) and expr.op == "*":
        for side, scale in ((expr.left, expr.right), (expr.right, expr.left)):
            if isinstance(scale, Const):
                terms, constant = _linear(side)
                return {atom: factor * scale.value for atom, factor in terms.items()}, constant * scale.value
    return {expr: 1}, 0


def _sum(terms: Mapping[Expr, int], constant: int) -> Expr:
    total: Expr = Const(constant)
    for atom, factor in terms.items():
        total = binary("+", total, binary("*", atom, factor))
    return total
