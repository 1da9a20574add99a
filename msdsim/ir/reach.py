"""Where slices reach and how long sums are: by ranges where they can tell, iteration by iteration where they cannot.

What is looked at iteration by iteration is bounded for the whole kernel, by :data:`MOST_POINTS` values of loop variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msdsim.ir.expr import Binary, Const, Expr, Var, evaluate, free_vars
from msdsim.ir.kernel import For, Kernel, Op, When
from msdsim.ir.ranges import Ranges, lower_bound, upper_bound

#: Values of loop variables that are tried for one kernel, at most.
MOST_POINTS = 500_000
#: Loops up to this long are summed iteration by iteration.
_EXACT_TRIPS = 4096


class TooMany(Exception):
    """More values than :data:`MOST_POINTS`."""


class Points:
    """Goes through the iterations that run; ``left`` are the values that may still be tried."""

    def __init__(self, kernel: Kernel, part: str) -> None:
        self.kernel, self.part, self.left = kernel, part, MOST_POINTS

    def reach(self, path: Sequence[For | When], start: Expr, size: Expr) -> tuple[int, int]:
        """Lowest start and highest end over the iterations that run; TooMany where they are too many."""
        low, end = 0, 0
        for env in self.iterations(path, free_vars(start) | free_vars(size)):
            at, extent = evaluate(start, env), evaluate(size, env)
            if extent > 0:
                low, end = min(low, at), max(end, at + extent)
        return low, end

    def iterations(self, path: Sequence[For | When], wanted: frozenset[str]) -> Iterator[dict[str, int]]:
        """Values of the wanted variables, and of those that decide whether an iteration runs, over the loops of ``path``."""
        for item in reversed(path):
            if isinstance(item, When):
                wanted |= free_vars(item.condition)
            elif item.var in wanted:
                wanted |= free_vars(item.low) | free_vars(item.high)
        cores = range(self.kernel.cores) if "core" in wanted else range(1)
        subs = range(self.kernel.aiv_per_core) if self.part == "aiv" and "sub" in wanted else range(1)
        for core in cores:
            for sub in subs:
                yield from self._inner(path, wanted, {"core": core, "sub": sub})

    def _inner(self, path: Sequence[For | When], wanted: frozenset[str], env: dict[str, int]) -> Iterator[dict[str, int]]:
        self.left -= 1
        if self.left < 0:
            raise TooMany
        if not path:
            yield env
            return
        item, rest = path[0], path[1:]
        if isinstance(item, When):
            if evaluate(item.condition, env):
                yield from self._inner(rest, wanted, env)
        elif item.var in wanted:
            for value in range(evaluate(item.low, env), evaluate(item.high, env), item.step):
                yield from self._inner(rest, wanted, {**env, item.var: value})
        else:
            yield from self._inner(rest, wanted, env)

    def always_even(self, path: Sequence[For | When], expr: Expr) -> bool:
        """Whether an expression is even in every iteration that runs; TooMany where they are too many."""
        return all(evaluate(expr, env) % 2 == 0 for env in self.iterations(path, free_vars(expr)))

    # Sums

    def summed_k(self, path: Sequence[For | When], op: Op, ranges: Ranges) -> int:
        """K that ``op`` runs over inside the loops of ``path``: exact for loops over constants, else an upper bound."""
        if not path:
            return max(0, upper_bound(op.ins[0].cols, ranges))
        loop, rest = path[0], path[1:]
        if isinstance(loop, When):
            return self.summed_k(rest, op, ranges)
        low, high = lower_bound(loop.low, ranges), upper_bound(loop.high, ranges)
        values = range(low, high, loop.step)
        read = free_vars(op.ins[0].cols).union(*(free_vars(i.low) | free_vars(i.high) for i in rest if isinstance(i, For)))
        if loop.var not in read or len(values) > min(_EXACT_TRIPS, self.left):
            inside = ranges.inside(loop.var, loop.low, loop.high, loop.step)
            return len(values) * self.summed_k(rest, op, inside)
        self.left -= len(values)
        return sum(self.summed_k(rest, op, ranges.inside(loop.var, Const(v), Const(v + 1), 1)) for v in values)


def even(expr: Expr, evens: Mapping[str, bool]) -> bool:
    """Whether an expression is certainly even; ``evens`` are the variables that are."""
    if isinstance(expr, Const):
        return expr.value % 2 == 0
    if isinstance(expr, Var):
        return evens.get(expr.name, False)
    assert isinstance(expr, Binary)
    left, right = even(expr.left, evens), even(expr.right, evens)
    if expr.op == "*":
        return left or right
    return left and right and expr.op in ("+", "-", "min", "max", "%")
