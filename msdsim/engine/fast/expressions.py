"""Index expressions as register operations, each placed under the deepest loop whose variable it depends on.

When that loop steps, its segment of operations is run once; the instructions inside then only read registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msdsim.engine.fast import layout as at
from msdsim.errors import InputError
from msdsim.hardware.cost import UnitCost
from msdsim.ir.expr import Binary, Const, Expr, Interval, Var, apply, binary, maximum

_OPERATORS = {"+": at.OP_ADD, "-": at.OP_SUB, "*": at.OP_MUL, "//": at.OP_DIV, "%": at.OP_MOD, "min": at.OP_MIN,
              "max": at.OP_MAX, "==": at.OP_EQ, "!=": at.OP_NE, "<": at.OP_LT, "<=": at.OP_LE, ">": at.OP_GT, ">=": at.OP_GE}
#: Values stay below this, so that a sum or a step of one more operation still fits into 64 bits.
LARGEST = 2**61

#: Register and level (position of the loop in the nest, 0 outside of all loops) of each variable in scope.
Scope: TypeAlias = Mapping[str, "Register"]


@dataclass(frozen=True)
class Register:
    """A place for a value: its number, the nesting level at which the value changes, and the range of the value."""

    number: int
    level: int
    range: Interval


@dataclass
class Segment:
    """Register operations that run when a loop steps (or once, before everything)."""

    words: list[int] = field(default_factory=list)


class Registers:
    """The register file of one part: constants, loop variables and computed values, equal values computed once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.initial: list[int] = []
        self.costs: list[int] = []
        #: What each computed register is computed from.
        self.inputs: dict[int, tuple[int, ...]] = {}
        self._known: dict[tuple[object, ...], Register] = {}
        self._constant: dict[int, int] = {}
        self._compiled: dict[tuple[int, int], tuple[Register, Expr, Scope]] = {}

    def variable(self, level: int, values: Interval) -> Register:
        """A fresh register that the engine itself sets."""
        self.initial.append(0)
        return Register(len(self.initial) - 1, level, values)

    def constant(self, value: int) -> Register:
        key = ("const", value)
        if key not in self._known:
            self._check(Interval(value, value))
            self.initial.append(value)
            self._known[key] = Register(len(self.initial) - 1, 0, Interval(value, value))
            self._constant[len(self.initial) - 1] = value
        return self._known[key]

    def value(self, register: Register) -> int | None:
        """The value of a constant, None for what is computed."""
        return self._constant.get(register.number)

    def compile(self, expr: Expr, scope: Scope, segments: Sequence[Segment]) -> Register:
        """The register that holds ``expr``; what computes it is added to the segment of the loop it depends on."""
        # Kernels use one expression object many times; the entries keep the objects alive, so that an id means one of them.
        key = (id(expr), id(scope))
        if key not in self._compiled:
            self._compiled[key] = self._compile(expr, scope, segments), expr, scope
        return self._compiled[key][0]

    def _compile(self, expr: Expr, scope: Scope, segments: Sequence[Segment]) -> Register:
        if isinstance(expr, Const):
            return self.constant(expr.value)
        if isinstance(expr, Var):
            return scope[expr.name]
        assert isinstance(expr, Binary)
        if expr.op == "!=" and expr.right == Const(0) and isinstance(expr.left, Binary) and expr.left.op == "+":
            terms = (expr.left.left, expr.left.right)
            if min(self.compile(term, scope, segments).range.low for term in terms) >= 0:
                # A sum is not zero if a term is not zero.  Said this way, what an outer loop contributes stops changing soon.
                return self.compile(maximum(*(binary("!=", term, 0) for term in terms)), scope, segments)
        left, right = self.compile(expr.left, scope, segments), self.compile(expr.right, scope, segments)
        a, b = self.value(left), self.value(right)
        if a is not None and b is not None and not (expr.op in ("//", "%") and b == 0):
            return self.constant(apply(expr.op, a, b))
        return self._operation((expr.op, left.number, right.number), max(left.level, right.level),
                               self._range(expr, left.range, right.range), segments,
                               (_OPERATORS[expr.op], left.number, right.number), (left.number, right.number))

    def work(self, cost: UnitCost, sizes: Sequence[Register], segments: Sequence[Segment]) -> Register:
        """The register that holds the cycles of work of ``cost`` on ``sizes``."""
        values = [self.value(size) for size in sizes]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            return self.constant(cost.work(known))
        most = 1
        for size, grain in zip(sizes, cost.grains, strict=True):
            most *= max(abs(size.range.low), abs(size.range.high)) // (1 if cost.flat else grain) + 1
        most = max(cost.minimum, most * max(cost.cycles_per_unit.numerator, 1) + cost.cycles_per_unit.denominator)
        key = ("work", cost, *(size.number for size in sizes))
        if key not in self._known:
            start = len(self.costs)
            self.costs += [len(sizes), int(cost.flat), cost.cycles_per_unit.numerator, cost.cycles_per_unit.denominator,
                           cost.minimum]
            for size, grain in zip(sizes, cost.grains, strict=True):
                remembered = self.variable(0, size.range)
                self.initial[remembered.number] = -LARGEST
                self.costs += [grain, size.number, remembered.number]
            self._operation(key, max(size.level for size in sizes), Interval(0, most), segments, (at.OP_WORK, start, 0),
                            tuple(size.number for size in sizes))
        return self._known[key]

    def _operation(self, key: tuple[object, ...], level: int, values: Interval, segments: Sequence[Segment],
                   words: tuple[int, int, int], inputs: tuple[int, ...]) -> Register:
        if key not in self._known:
            self._check(values)
            target = self.variable(level, values)
            self.inputs[target.number] = inputs
            segments[level].words += [words[0], target.number, words[1], words[2]]
            self._known[key] = target
        return self._known[key]

    def _check(self, values: Interval) -> None:
        if max(abs(values.low), abs(values.high)) >= LARGEST:
            raise InputError(f"{self.where} has a size or address beyond 2**61, which the fast engine cannot count; "
                             f"make the kernel smaller or use the engine 'reference'")

    def _range(self, expr: Binary, a: Interval, b: Interval) -> Interval:
        """A range that contains the result for operands in the ranges ``a`` and ``b``."""
        match expr.op:
            case "+":
                return Interval(a.low + b.low, a.high + b.high)
            case "-":
                return Interval(a.low - b.high, a.high - b.low)
            case "min" | "max":
                return Interval(apply(expr.op, a.low, b.low), apply(expr.op, a.high, b.high))
            case "//" | "%" if b.low <= 0 <= b.high:
                raise InputError(f"{self.where} divides by '{expr.right}', which can be zero; divide by a positive constant")
            case "%":
                return Interval(0, b.high - 1) if b.low > 0 else Interval(b.low + 1, 0)
            case "*" | "//":
                corners = [apply(expr.op, x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
                return Interval(min(corners), max(corners))
        return Interval(0, 1)
