"""Amounts summed over every execution of every instruction, from the loops' own bounds: no engine is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msdsim.ir.expr import evaluate, free_vars
from msdsim.ir.program import Instr, Loop, Node, Part, Program


@dataclass(frozen=True)
class Amounts:
    """What one execution of an instruction amounts to, where the variables that it ``reads`` have these values."""

    values: Callable[[Mapping[str, int]], Sequence[int]]
    reads: frozenset[str] = frozenset()


def sums(program: Program, part: Part, amounts: Callable[[Instr], Amounts | None], columns: int) -> np.ndarray:
    """int64 [instructions of the part, columns]: amounts over all executions on all cores; None counts as nothing."""
    kernel = program.kernel
    counter = _Counter(part, amounts, columns)
    subs = range(kernel.aiv_per_core) if part.name == "aiv" else range(1)
    total = np.zeros((len(counter.amounts), columns), np.int64)
    for core in range(kernel.cores):
        for sub in subs:
            total += counter.of(part.body, {"core": core, "sub": sub})
    return total


class _Counter:
    """Walks loops; one whose variable matters to nothing inside counts its body once, times its iterations."""

    def __init__(self, part: Part, amounts: Callable[[Instr], Amounts | None], columns: int) -> None:
        self.amounts = [amounts(instr) for instr in part.instructions()]
        self.columns = columns
        self.known: dict[tuple[int, tuple[tuple[str, int], ...]], np.ndarray] = {}
        self.found: dict[int, frozenset[str] | None] = {}

    def of(self, nodes: Sequence[Node], env: Mapping[str, int]) -> np.ndarray:
        total = self._nothing()
        for node in nodes:
            if isinstance(node, Loop):
                if self._reads(node) is not None:
                    total += self._loop(node, env)
                continue
            amounts = self.amounts[node.index]
            if amounts is not None:
                total[node.index] += amounts.values(env)
        return total

    def _loop(self, loop: Loop, env: Mapping[str, int]) -> np.ndarray:
        read = self._reads(loop) or frozenset()
        key = id(loop), tuple(sorted((name, value) for name, value in env.items() if name in read))
        if key not in self.known:
            values = range(evaluate(loop.low, env), evaluate(loop.high, env), loop.step)
            if not values:
                self.known[key] = self._nothing()
            elif any(loop.var in (self._reads(node) or ()) for node in loop.body):
                total = self._nothing()
                for value in values:
                    total += self.of(loop.body, {**env, loop.var: value})
                self.known[key] = total
            else:
                self.known[key] = len(values) * self.of(loop.body, {**env, loop.var: 0})
        return self.known[key]

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

    def _nothing(self) -> np.ndarray:
        return np.zeros((len(self.amounts), self.columns), np.int64)
