"""Amounts summed over every execution of every instruction, from the loops' own bounds: no engine is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msdsim.ir.expr import Expr, evaluate_all, free_vars
from msdsim.ir.program import Instr, Loop, Node, Part, Program

#: Values of the variables of a block, one of each for every row; rows that are alike are one row that weighs more.
Rows = Mapping[str, np.ndarray]
#: Iterations that are looked at together.
_MOST_ROWS = 2**18


@dataclass(frozen=True)
class Amounts:
    """What one execution of an instruction amounts to, a number or an array for each column, where the variables that it
    ``reads`` have these values."""

    values: Callable[[Rows], Sequence[np.ndarray | int]]
    reads: frozenset[str] = frozenset()


def sums(program: Program, part: Part, amounts: Callable[[Instr], Amounts | None], columns: int) -> np.ndarray:
    """int64 [instructions of the part, columns]: amounts over all executions on all cores; None counts as nothing."""
    kernel = program.kernel
    subs = kernel.aiv_per_core if part.name == "aiv" else 1
    core, sub = np.divmod(np.arange(kernel.cores * subs, dtype=np.int64), max(1, subs))
    counter = _Counter(part, amounts, columns)
    counter.block(part.body, {"core": core, "sub": sub}, np.ones(len(core), np.int64))
    return counter.total


def executions(program: Program, part: Part) -> np.ndarray:
    """int64 [instructions of the part]: how often the cores together execute each."""
    return sums(program, part, lambda instr: Amounts(lambda env: (1,)), 1)[:, 0]


class _Counter:
    """Goes through the loops once, with all iterations of a loop side by side."""

    def __init__(self, part: Part, amounts: Callable[[Instr], Amounts | None], columns: int) -> None:
        self.amounts = [amounts(instr) for instr in part.instructions()]
        self.total = np.zeros((len(self.amounts), columns), np.int64)
        self.found: dict[int, frozenset[str] | None] = {}

    def block(self, nodes: Sequence[Node], env: Rows, weight: np.ndarray) -> None:
        """Count the nodes of a block that runs as often as the rows weigh."""
        for node in nodes:
            if isinstance(node, Loop):
                if self._reads(node) is not None:
                    self._loop(node, *_alike(env, weight, self._reads(node) or frozenset()))
                continue
            amounts = self.amounts[node.index]
            if amounts is not None:
                rows, times = _alike(env, weight, amounts.reads)
                for column, value in enumerate(amounts.values(rows)):
                    self.total[node.index, column] += int((times * value).sum())

    def _loop(self, loop: Loop, env: Rows, weight: np.ndarray) -> None:
        low, high = (_column(expr, env, len(weight)) for expr in (loop.low, loop.high))
        trips = np.maximum(0, -((low - high) // loop.step))
        if not trips.any():
            return
        inside = frozenset[str]().union(*(self._reads(node) or () for node in loop.body))
        if loop.var not in inside:
            self.block(loop.body, *_alike(env, weight * trips, inside))
            return
        ends = np.cumsum(trips)
        for begin in range(0, int(ends[-1]), _MOST_ROWS):
            turn = np.arange(begin, min(begin + _MOST_ROWS, int(ends[-1])))
            row = np.searchsorted(ends, turn, side="right")
            now = {name: values[row] for name, values in env.items()}
            now[loop.var] = low[row] + (turn - ends[row] + trips[row]) * loop.step
            self.block(loop.body, *_alike(now, weight[row], inside))

    def _reads(self, node: Node) -> frozenset[str] | None:
        """Variables of the blocks around a node that its amounts depend on; None where nothing in it counts."""
        if id(node) not in self.found:
            if isinstance(node, Loop):
                inside = [reads for item in node.body if (reads := self._reads(item)) is not None]
                self.found[id(node)] = free_vars(node.low) | free_vars(node.high) | (
                    frozenset[str]().union(*inside) - {node.var}) if inside else None
            else:
                amounts = self.amounts[node.index]
                self.found[id(node)] = None if amounts is None else amounts.reads
        return self.found[id(node)]


def _column(expr: Expr, env: Rows, rows: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(evaluate_all(expr, env), np.int64), rows)


def _alike(env: Rows, weight: np.ndarray, names: frozenset[str]) -> tuple[Rows, np.ndarray]:
    """The rows as far as these variables go: one of each, with the weight of all that are alike."""
    kept = [name for name in env if name in names]
    if not kept:
        return {}, weight.sum(keepdims=True)
    if len(weight) < 2:
        return {name: env[name] for name in kept}, weight
    code = np.zeros(len(weight), np.int64)
    room = 1
    for name in kept:
        values = env[name]
        least = int(values.min())
        span = int(values.max()) - least + 1
        room *= span
        if room >= 2**62:
            return {name: env[name] for name in kept}, weight
        code = code * span + (values - least)
    _, first, group = np.unique(code, return_index=True, return_inverse=True)
    if len(first) == len(weight):
        return {name: env[name] for name in kept}, weight
    total = np.zeros(len(first), np.int64)
    np.add.at(total, group.ravel(), weight)
    return {name: env[name][first] for name in kept}, total
