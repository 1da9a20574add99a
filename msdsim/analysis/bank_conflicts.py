"""Cycles that Vector spends on conflicts in the banks of UB, over a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msdsim.ir.expr import evaluate, free_vars
from msdsim.ir.program import Instr, Loop, Node, Program, walk_nodes
from msdsim.ir.timing import Local


def conflict_cycles(program: Program) -> int:
    """Cycles of work beyond what the instructions would take without conflicts, summed over all AIVs."""
    kernel, body = program.kernel, program.aiv.body
    if not _conflicting(body):
        return 0
    return sum(_Count().of(body, {"core": core, "sub": sub})
               for core in range(kernel.cores) for sub in range(kernel.aiv_per_core))


def _conflicting(nodes: Sequence[Node]) -> list[Instr]:
    return [instr for instr in walk_nodes(list(nodes))
            if isinstance(instr.timing, Local) and instr.timing.without_conflicts is not None]


class _Count:
    """Walks loops; one whose variable matters to nothing inside counts its body once, times its iterations."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, tuple[tuple[str, int], ...]], int] = {}

    def of(self, nodes: Sequence[Node], env: Mapping[str, int]) -> int:
        return sum(self._loop(node, env) if isinstance(node, Loop) else _cycles(node, env)
                   for node in nodes if _conflicting([node]))

    def _loop(self, loop: Loop, env: Mapping[str, int]) -> int:
        read = _variables(loop)
        key = id(loop), tuple(sorted((name, value) for name, value in env.items() if name in read))
        if key not in self.known:
            values = range(evaluate(loop.low, env), evaluate(loop.high, env), loop.step)
            if any(loop.var in _reads(node) for node in loop.body):
                self.known[key] = sum(self.of(loop.body, {**env, loop.var: value}) for value in values)
            else:
                self.known[key] = len(values) * self.of(loop.body, {**env, loop.var: 0}) if values else 0
        return self.known[key]


def _cycles(instr: Instr, env: Mapping[str, int]) -> int:
    timing = instr.timing
    assert isinstance(timing, Local)
    assert timing.without_conflicts is not None
    sizes = [evaluate(size, env) for size in timing.dims]
    return timing.cost.work(sizes) - timing.without_conflicts.work(sizes)


def _variables(loop: Loop) -> frozenset[str]:
    """Variables of the blocks around a loop that it reads."""
    inside = frozenset().union(*(_reads(node) for node in loop.body)) if loop.body else frozenset()
    return free_vars(loop.low) | free_vars(loop.high) | (inside - {loop.var})


def _reads(node: Node) -> frozenset[str]:
    """Variables that the count of a node depends on; none where nothing in it conflicts."""
    if not _conflicting([node]):
        return frozenset()
    if isinstance(node, Loop):
        return _variables(node)
    assert isinstance(node.timing, Local)
    return frozenset().union(*(free_vars(size) for size in node.timing.dims))
