"""Where slices reach and how long sums are: by ranges where they can tell, iteration by iteration where they cannot.

What is looked at iteration by iteration is bounded for the whole kernel, by :data:`MOST_POINTS` values of loop variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from msdsim.ir.expr import Binary, Const, Expr, Var, evaluate_all, free_vars
from msdsim.ir.kernel import For, Kernel, Op, When
from msdsim.ir.ranges import Ranges, lower_bound, upper_bound

#: Values of loop variables that are tried for one kernel, at most.
MOST_POINTS = 500_000
#: Loops up to this long are summed iteration by iteration.
_EXACT_TRIPS = 4096


class TooMany(Exception):
    """More values than :data:`MOST_POINTS`."""


class Points:
    """Lays out the iterations that run; ``left`` are the values that may still be tried."""

    def __init__(self, kernel: Kernel, part: str) -> None:
        self.kernel, self.part, self.left = kernel, part, MOST_POINTS

    def reach(self, path: Sequence[For | When], start: Expr, size: Expr) -> tuple[int, int]:
        """Lowest start and highest end over the iterations that run; TooMany where they are too many."""
        env, count = self._iterations(path, free_vars(start) | free_vars(size))
        at, extent = (np.broadcast_to(np.asarray(evaluate_all(expr, env), np.int64), count) for expr in (start, size))
        at, end = at[extent > 0], (at + extent)[extent > 0]
        return int(at.min(initial=0)), int(end.max(initial=0))

    def always_even(self, path: Sequence[For | When], expr: Expr) -> bool:
        """Whether an expression is even in every iteration that runs; TooMany where they are too many."""
        env, count = self._iterations(path, free_vars(expr))
        return not count or not np.any(np.asarray(evaluate_all(expr, env)) % 2)

    def _iterations(self, path: Sequence[For | When], wanted: frozenset[str]) -> tuple[dict[str, np.ndarray], int]:
        """Values of the wanted variables, and of those that decide whether an iteration runs, over the loops of ``path``, side
        by side; and how many iterations these are."""
        for item in reversed(path):
            if isinstance(item, When):
                wanted |= free_vars(item.condition)
            elif item.var in wanted:
                wanted |= free_vars(item.low) | free_vars(item.high)
        cores = self.kernel.cores if "core" in wanted else 1
        subs = self.kernel.aiv_per_core if self.part == "aiv" and "sub" in wanted else 1
        core, sub = np.divmod(np.arange(cores * subs, dtype=np.int64), max(1, subs))
        env, count = {"core": core, "sub": sub}, cores * subs
        for item in path:
            self._spend(count)
            if isinstance(item, When):
                kept = np.flatnonzero(np.broadcast_to(evaluate_all(item.condition, env), count))
                env, count = {name: values[kept] for name, values in env.items()}, len(kept)
            elif item.var in wanted:
                env, count = self._laid_out(item, env, count)
        self._spend(count)
        return env, count

    def _laid_out(self, loop: For, env: dict[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], int]:
        """Every iteration of a loop beside those of its blocks."""
        low, high = (np.broadcast_to(np.asarray(evaluate_all(expr, env), np.int64), count) for expr in (loop.low, loop.high))
        trips = np.maximum(0, -((low - high) // loop.step))
        if trips.sum(dtype=float) > self.left:
            self._spend(self.left + 1)
        parent = np.repeat(np.arange(count), trips)
        turn = np.arange(len(parent)) - np.repeat(np.cumsum(trips) - trips, trips)
        return {**{name: values[parent] for name, values in env.items()}, loop.var: low[parent] + turn * loop.step}, len(parent)

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMany

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
