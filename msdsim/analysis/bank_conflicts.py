"""Cycles that Vector spends on conflicts in the banks of UB, over a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msdsim.ir.expr import evaluate, free_vars
from msdsim.ir.program import Instr, Loop, Node, Program
from msdsim.ir.timing import Local


def conflict_cycles(program: Program) -> int:
    """Cycles of work beyond what the instructions would take without conflicts, summed over all AIVs."""
    kernel, count = program.kernel, _Count()
    return sum(count.of(program.aiv.body, {"core": core, "sub": sub})
               for core in range(kernel.cores) for sub in range(kernel.aiv_per_core))


class _Count:
    """Walks loops; one whose variable matters to nothing inside counts its body once, times its iterations."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, tuple[tuple[str, int], ...]], int] = {}
        self.reads: dict[int, frozenset[str] | None] = {}

    def of(self, nodes: Sequence[Node], env: Mapping[str, int]) -> int:
        return sum(self._loop(node, env) if isinstance(node, Loop) else _cycles(node, env)
                   for node in nodes if self._reads(node) is not None)

    def _loop(self, loop: Loop, env: Mapping[str, int]) -> int:
        read = self._reads(loop) or frozenset()
        key = id(loop), tuple(sorted((name, value) for name, value in env.items() if name in read))
        if key not in self.known:
            values = range(evaluate(loop.low, env), evaluate(loop.high, env), loop.step)
            if any(loop.var in (self._reads(node) or ()) for node in loop.body):
                self.known[key] = sum(self.of(loop.body, {**env, loop.var: value}) for value in values)
            else:
                self.known[key] = len(values) * self.of(loop.body, {**env, loop.var: 0}) if values else 0
        return self.known[key]

    def _reads(self, node: Node) -> frozenset[str] | None:
        """Variables of the blocks around a node that its count depends on; None where nothing in it conflicts."""
        if id(node) not in self.reads:
            self.reads[id(node)] = self._loop_reads(node) if isinstance(node, Loop) else _instr_reads(node)
        return self.reads[id(node)]

    def _loop_reads(self, loop: Loop) -> frozenset[str] | None:
        inside = [reads for node in loop.body if (reads := self._reads(node)) is not None]
        if not inside:
            return None
        return free_vars(loop.low) | free_vars(loop.high) | (frozenset().union(*inside) - {loop.var})


def _instr_reads(instr: Instr) -> frozenset[str] | None:
    timing = instr.timing
    if not isinstance(timing, Local) or timing.without_conflicts is None:
        return None
    return frozenset().union(*(free_vars(size) for size in timing.dims))


def _cycles(instr: Instr, env: Mapping[str, int]) -> int:
    timing = instr.timing
    assert isinstance(timing, Local)
    assert timing.without_conflicts is not None
    sizes = [evaluate(size, env) for size in timing.dims]
    return timing.cost.work(sizes) - timing.without_conflicts.work(sizes)
