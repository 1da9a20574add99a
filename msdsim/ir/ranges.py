"""What values an index expression can take, and what it is worth where the loops around it decide part of it.

Interval arithmetic is sound for every operator and sign.  Two refinements sharpen it: sums are put into linear form, so that
``start + min(tile, total - start)`` never exceeds ``total``; and a loop variable stays between the loop's own bounds, which may
be expressions, so that ``v * 19`` stays below ``n`` in ``for v in 0 .. (n + 18) // 19``.  All of it is bounded: an expression
is looked at a fixed number of times, whatever the loops' trip counts are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msdsim.ir.expr import (
    FUNCTIONS,
    PRECEDENCE,
    Binary,
    Const,
    Expr,
    Interval,
    Var,
    apply,
    binary,
    contains,
    free_vars,
    size_of,
)

#: How often a bound looks at parts of one expression before it is content with plain intervals.
_EFFORT = 48


def _hull(values: Iterable[int]) -> Interval:
    found = list(values)
    return Interval(min(found), max(found))


def combine(op: str, a: Interval, b: Interval) -> Interval:
    """A range that contains ``x op y`` for every x in ``a`` and y in ``b``; a divisor of 0, which has no result, aside.

    ZeroDivisionError where the divisor can only be 0.
    """
    match op:
        case "+":
            return Interval(a.low + b.low, a.high + b.high)
        case "-":
            return Interval(a.low - b.high, a.high - b.low)
        case "*":
            return _hull(x * y for x in (a.low, a.high) for y in (b.low, b.high))
        case "min" | "max":
            return Interval(apply(op, a.low, b.low), apply(op, a.high, b.high))
        case "//" | "%":
            signs = (Interval(b.low, min(b.high, -1)), Interval(max(b.low, 1), b.high))
            parts = [_quotient(a, sign) if op == "//" else _remainder(a, sign) for sign in signs if sign.low <= sign.high]
            if not parts:
                raise ZeroDivisionError
            return Interval(min(part.low for part in parts), max(part.high for part in parts))
    return _compare(op, a, b)


def _quotient(a: Interval, b: Interval) -> Interval:
    """Floor division by a divisor of one sign is monotone in both arguments on each side of 0."""
    return _hull(x // y for x in (a.low, a.high) for y in (b.low, b.high))


def _remainder(a: Interval, b: Interval) -> Interval:
    """The remainder has the divisor's sign and is smaller than it; one of the same quotient throughout is a difference."""
    if b.low == b.high and a.low // b.low == a.high // b.low:
        return _hull((a.low % b.low, a.high % b.low))
    if b.low > 0:
        return Interval(0, min(b.high - 1, a.high) if a.low >= 0 else b.high - 1)
    return Interval(max(b.low + 1, a.low) if a.high <= 0 else b.low + 1, 0)


def _compare(op: str, a: Interval, b: Interval) -> Interval:
    never, always = {
        "<": (a.low >= b.high, a.high < b.low),
        "<=": (a.low > b.high, a.high <= b.low),
        ">": (a.high <= b.low, a.low > b.high),
        ">=": (a.high < b.low, a.low >= b.high),
        "==": (a.high < b.low or a.low > b.high, a.low == a.high == b.low == b.high),
        "!=": (a.low == a.high == b.low == b.high, a.high < b.low or a.low > b.high),
    }[op]
    return Interval(int(always), int(not never))


@dataclass
class Ranges:
    """Variables in scope, outer ones first: the range of each and, for loop variables, the loop's bounds as expressions.

    ``limits`` gives the first value and a value that no later one exceeds.  ``dead`` says that nothing here ever runs.
    ``known``, ``most`` and ``simple`` remember what expressions come to, in the outermost scope that has their variables.
    """

    intervals: dict[str, Interval]
    limits: dict[str, tuple[Expr, Expr]] = field(default_factory=dict)
    dead: bool = False
    #: The scope around this one, which differs by the variable ``own`` alone.
    outer: Ranges | None = None
    own: str = ""
    known: dict[Expr, Interval] = field(default_factory=dict)
    most: dict[Expr, int] = field(default_factory=dict)
    simple: dict[Expr, Expr] = field(default_factory=dict)
    #: Expressions that the verifier has found sound here.
    sound: set[Expr] = field(default_factory=set)

    def home(self, expr: Expr) -> Ranges:
        """The outermost scope that has the variables of an expression."""
        read, scope = free_vars(expr), self
        while scope.outer is not None and scope.own not in read:
            scope = scope.outer
        return scope

    def inside(self, var: str, low: Expr, high: Expr, step: int) -> Ranges:
        """The scope of the body of ``for var in low .. high step step``."""
        if self.dead:
            return Ranges({**self.intervals, var: Interval(0, 0)}, self.limits, dead=True)
        first, end = bounds(low, self), bounds(high, self)
        last = min(end.high, upper_bound(high, self)) - 1
        if first.low == first.high and step > 0:
            last = first.low + (last - first.low) // step * step
        values = Interval(first.low, max(first.low, last))
        dead = last < first.low
        outer = None if dead or var in self.intervals else self
        return Ranges({**self.intervals, var: values}, {**self.limits, var: (low, high - 1)}, dead, outer, var)

    def where(self, condition: Expr) -> Ranges:
        """The scope of a block that runs where ``condition`` is not 0."""
        if self.dead:
            return self
        narrowed = dict(self.intervals)
        if bounds(condition, self) == Interval(0, 0) or not _narrow(condition, self, narrowed):
            return Ranges(self.intervals, self.limits, dead=True)
        return self if narrowed == self.intervals else Ranges(narrowed, self.limits, self.dead)


def _narrow(condition: Expr, ranges: Ranges, found: dict[str, Interval]) -> bool:
    """Narrow the variables' ranges to where a comparison of ``+1 * variable`` with the rest holds; False where none is left."""
    if not isinstance(condition, Binary) or PRECEDENCE.get(condition.op) != 1:
        return True
    terms, constant = linear(condition.left - condition.right)
    for atom, factor in terms.items():
        if not isinstance(atom, Var) or abs(factor) != 1 or atom.name not in found:
            continue
        others = {other: -factor * value for other, value in terms.items() if other != atom}
        rest = bounds(_sum(others, -factor * constant), ranges)
        op = condition.op if factor > 0 else {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(condition.op, condition.op)
        now = found[atom.name]
        if op == "==":
            now = Interval(max(now.low, rest.low), min(now.high, rest.high))
        elif op in ("<", "<="):
            now = Interval(now.low, min(now.high, rest.high - (op == "<")))
        elif op in (">", ">="):
            now = Interval(max(now.low, rest.low + (op == ">")), now.high)
        if now.low > now.high:
            return False
        found[atom.name] = now
    return True


def bounds(expr: Expr, ranges: Ranges | Mapping[str, Interval]) -> Interval:
    """A range that contains every value of ``expr`` while each variable stays in its range (interval arithmetic)."""
    return _bounds(expr, ranges if isinstance(ranges, Ranges) else Ranges(dict(ranges)))


def _bounds(expr: Expr, ranges: Ranges) -> Interval:
    if isinstance(expr, Const):
        return Interval(expr.value, expr.value)
    if isinstance(expr, Var):
        return ranges.intervals[expr.name]
    assert isinstance(expr, Binary)
    ranges = ranges.home(expr)
    found = ranges.known.get(expr)
    if found is None:
        found = ranges.known[expr] = combine(expr.op, _bounds(expr.left, ranges), _bounds(expr.right, ranges))
    return found


def upper_bound(expr: Expr, ranges: Ranges | Mapping[str, Interval]) -> int:
    """A value no smaller than ``expr`` ever is; sharper than :func:`bounds` where terms cancel or loops bound each other."""
    scope = (ranges if isinstance(ranges, Ranges) else Ranges(dict(ranges))).home(expr)
    found = scope.most.get(expr)
    if found is None:
        found = scope.most[expr] = _Upper(scope).of(*linear(expr))
    return found


def lower_bound(expr: Expr, ranges: Ranges | Mapping[str, Interval]) -> int:
    """A value no larger than ``expr`` ever is."""
    return -upper_bound(0 - expr, ranges)


class _Upper:
    """One search for an upper bound of a sum, within :data:`_EFFORT` steps."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges, self.left = ranges, _EFFORT

    def of(self, terms: Mapping[Expr, int], constant: int) -> int:
        plain = constant
        for atom, factor in terms.items():
            interval = _bounds(atom, self.ranges)
            plain += factor * (interval.high if factor > 0 else interval.low)
        self.left -= 1
        if self.left < 0 or not terms or all(isinstance(atom, Var) and atom.name not in self.ranges.limits for atom in terms):
            return plain
        return min(plain, self._resolved(terms, constant, plain))

    def _resolved(self, terms: Mapping[Expr, int], constant: int, plain: int) -> int:
        for atom, factor in terms.items():
            if not isinstance(atom, Binary):
                continue
            choice = atom.op in FUNCTIONS
            quotient = atom.op == "//" and isinstance(atom.right, Const) and atom.right.value > 0
            # An atom that stands inside another is resolved after it, so that the two can cancel.
            if not (choice or quotient) or any(other is not atom and contains(other, atom) for other in terms):
                continue
            if choice:
                options = [self._with(terms, constant, atom, side, factor) for side in (atom.left, atom.right)]
                return min(options) if (atom.op == "min") == (factor > 0) else max(options)
            assert isinstance(atom.right, Const)
            divisor = atom.right.value
            if factor % divisor == 0:
                # d * (x // d) is x less its remainder.
                most = atom.left if factor > 0 else atom.left - (divisor - 1)
                return self._with(terms, constant, atom, most, factor // divisor)
        for name in reversed(self.ranges.limits):
            factor = terms.get(Var(name), 0)
            if factor and not any(isinstance(atom, Binary) and name in free_vars(atom) for atom in terms):
                low, last = self.ranges.limits[name]
                return self._with(terms, constant, Var(name), last if factor > 0 else low, factor)
        return plain

    def _with(self, terms: Mapping[Expr, int], constant: int, atom: Expr, value: Expr, factor: int) -> int:
        more, shift = linear(value)
        total = {other: count for other, count in terms.items() if other != atom}
        for other, count in more.items():
            total[other] = total.get(other, 0) + factor * count
        return self.of({other: count for other, count in total.items() if count}, constant + factor * shift)


def linear(expr: Expr) -> tuple[Mapping[Expr, int], int]:
    """Sum of integer multiples of atoms (variables and non-linear subexpressions) plus a constant."""
    if isinstance(expr, Const):
        return {}, expr.value
    if not isinstance(expr, Binary):
        return {expr: 1}, 0
    found: tuple[Mapping[Expr, int], int] | None = expr.__dict__.get("_linear")
    if found is None:
        found = expr.__dict__["_linear"] = _linear(expr)
    return found


def _linear(expr: Binary) -> tuple[Mapping[Expr, int], int]:
    if expr.op in ("+", "-"):
        sign = 1 if expr.op == "+" else -1
        first, constant = linear(expr.left)
        second, shift = linear(expr.right)
        terms = dict(first)
        for atom, factor in second.items():
            terms[atom] = terms.get(atom, 0) + sign * factor
        return {atom: factor for atom, factor in terms.items() if factor}, constant + sign * shift
    if expr.op == "*":
        for side, scale in ((expr.left, expr.right), (expr.right, expr.left)):
            if isinstance(scale, Const):
                inner, constant = linear(side)
                return {atom: factor * scale.value for atom, factor in inner.items() if scale.value}, constant * scale.value
    return {expr: 1}, 0


def _sum(terms: Mapping[Expr, int], constant: int) -> Expr:
    """The expression of a linear form: positive terms first."""
    total: Expr = Const(0)
    for atom, factor in sorted(terms.items(), key=lambda item: item[1] < 0):
        total = total + atom * factor if factor > 0 else total - atom * -factor
    return total - -constant if constant < 0 else total + constant


# Simplification


def simplify(expr: Expr, ranges: Ranges | Mapping[str, Interval]) -> Expr:
    """An expression with the same values while each variable stays in its range, with what the ranges decide left out:
    ``min``, ``max`` and comparisons with a certain winner, ``%`` and ``//`` with a certain quotient, terms that cancel.  What
    divides by nothing but 0 stays as it is."""
    try:
        return _simplify(expr, ranges if isinstance(ranges, Ranges) else Ranges(dict(ranges)))
    except ZeroDivisionError:
        return expr


def _simplify(expr: Expr, ranges: Ranges) -> Expr:
    if isinstance(expr, Var):
        interval = ranges.intervals.get(expr.name)
        return Const(interval.low) if interval is not None and interval.low == interval.high else expr
    if not isinstance(expr, Binary):
        return expr
    ranges = ranges.home(expr)
    found = ranges.simple.get(expr)
    if found is None:
        left, right = _simplify(expr.left, ranges), _simplify(expr.right, ranges)
        if (expr.op in ("//", "%") and right == Const(0)) or not free_vars(expr) <= ranges.intervals.keys():
            return expr
        found = ranges.simple[expr] = _decided(binary(expr.op, left, right), ranges)
    return found


def _decided(expr: Expr, ranges: Ranges) -> Expr:
    if not isinstance(expr, Binary):
        return expr
    op, left, right = expr.op, expr.left, expr.right
    if op in FUNCTIONS:
        return _choice(expr, ranges)
    if PRECEDENCE[op] == 1:
        found = combine(op, Interval(lower_bound(left - right, ranges), upper_bound(left - right, ranges)), Interval(0, 0))
        return Const(found.low) if found.low == found.high else expr
    if op in ("//", "%"):
        return _divided(expr, ranges) if isinstance(right, Const) and right.value > 0 else expr
    shorter = _sum(*_joined(*linear(expr)))
    return shorter if size_of(shorter) < size_of(expr) else expr


def _choice(expr: Binary, ranges: Ranges) -> Expr:
    """``min`` or ``max`` where one side always wins; constants of nested ones joined."""
    left, right = expr.left, expr.right
    difference = left - right
    smaller, larger = (left, right) if expr.op == "min" else (right, left)
    if upper_bound(difference, ranges) <= 0:
        return smaller
    if lower_bound(difference, ranges) >= 0:
        return larger
    for inner, other in ((left, right), (right, left)):
        if isinstance(other, Const) and isinstance(inner, Binary) and inner.op == expr.op:
            for one, rest in ((inner.left, inner.right), (inner.right, inner.left)):
                if isinstance(one, Const):
                    return binary(expr.op, Const(apply(expr.op, one.value, other.value)), rest)
    return expr


def _divided(expr: Binary, ranges: Ranges) -> Expr:
    """``//`` and ``%`` by a positive constant, without what the divisor divides, where the rest has a certain quotient."""
    assert isinstance(expr.right, Const)
    divisor = expr.right.value
    terms, constant = linear(expr.left)
    whole = {atom: factor // divisor for atom, factor in terms.items() if factor % divisor == 0}
    rest = {atom: factor for atom, factor in terms.items() if factor % divisor}
    low, high = lower_bound(_sum(rest, constant), ranges), upper_bound(_sum(rest, constant), ranges)
    if low // divisor == high // divisor:
        if expr.op == "//":
            return _sum(whole, low // divisor)
        return _sum(rest, constant - low // divisor * divisor)
    if expr.op == "%" and whole:
        return binary("%", _sum(rest, constant % divisor), divisor)
    return expr


def _joined(terms: Mapping[Expr, int], constant: int) -> tuple[dict[Expr, int], int]:
    """``d * (x // d) + x % d`` is ``x``."""
    found = dict(terms)
    for atom, factor in terms.items():
        if isinstance(atom, Binary) and atom.op == "%" and isinstance(atom.right, Const) and atom.right.value > 0:
            quotient = Binary("//", atom.left, atom.right)
            if found.get(quotient) == factor * atom.right.value:
                del found[quotient], found[atom]
                more, shift = linear(atom.left)
                constant += factor * shift
                for other, count in more.items():
                    found[other] = found.get(other, 0) + factor * count
    return {atom: factor for atom, factor in found.items() if factor}, constant
