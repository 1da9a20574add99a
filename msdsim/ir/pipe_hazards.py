"""Order inside one pipe: which instructions must let their own pipe drain before they begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from msdsim.hardware.chip import Chip
from msdsim.ir.dependences import Item, Scope
from msdsim.ir.expr import Const, Expr, Var, binary, product
from msdsim.ir.kernel import Op
from msdsim.ir.ops import OPS
from msdsim.ir.program import Instr


@dataclass(eq=False)
class Function:
    """A vector function: its instructions, and what they read that it has not written itself."""

    instrs: list[Instr] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)


class _Use(NamedTuple):
    """An instruction of a pipe: what it reads and writes there, and whether it goes on inside a vector function."""

    instr: Instr
    reads: set[str]
    writes: set[str]
    inside: bool


class PipeHazards:
    """The marking of a part's instructions; ``functions`` are those of Vector, by ``id`` of their instructions."""

    def __init__(self, chip: Chip, functions: Mapping[int, Function]) -> None:
        self.chip, self.functions = chip, functions
        self.settled: dict[tuple[int, str, frozenset[str]], frozenset[str]] = {}
        self.uses: dict[tuple[int, str], list[_Use | Scope]] = {}

    def settle(self, scope: Scope, pipe: str, dirty: set[str]) -> set[str]:
        """:meth:`_marked`, once for the same scope and the same pending writes: doing it again changes nothing."""
        key = id(scope), pipe, frozenset(dirty)
        if key not in self.settled:
            self.settled[key] = frozenset(self._marked(scope, pipe, dirty))
        return set(self.settled[key])

    def _marked(self, scope: Scope, pipe: str, dirty: set[str]) -> set[str]:
        """Mark instructions that must let their own pipe drain: they read what it wrote since it last drained.

        The first iteration of a loop starts with what is pending before it, every other with what its predecessors leave: an
        instruction that has to wait for the former only drains the pipe in the first iteration only.
        """
        if scope.loop is None or not scope.repeats:
            return self._once_through(scope, pipe, dirty, None)
        var, low, _, _ = scope.loop
        pending = self._once_through(scope, pipe, dirty, binary("==", Var(var), low))
        while True:
            after = self._once_through(scope, pipe, pending, None)
            if after <= pending:
                return pending
            pending |= after

    def _once_through(self, scope: Scope, pipe: str, dirty: set[str], when: Expr | None) -> set[str]:
        for use in self._uses(scope, pipe):
            if isinstance(use, Scope):
                # The nested block may not run at all, so what was pending before it may still be.
                dirty = dirty | self.settle(use, pipe, dirty)
            else:
                dirty = self._hazard_of(use, dirty, when)
        return dirty

    def _uses(self, scope: Scope, pipe: str) -> list[_Use | Scope]:
        """The instructions of a pipe in a block, and the nested blocks that have some."""
        found = self.uses.get((id(scope), pipe))
        if found is None:
            found = self.uses[id(scope), pipe] = []
            for item in scope.items:
                if isinstance(item.node, Scope):
                    found += [item.node] if self._uses(item.node, pipe) else []
                elif item.node.pipe == pipe and item.node.op is not None:
                    found.append(self._use(item, item.node, item.node.op))
        return found

    def _use(self, item: Item, instr: Instr, op: Op) -> _Use:
        reads = {name for name, access in item.access.items() if access[instr.pipe][0]}
        writes = {name for name, access in item.access.items() if access[instr.pipe][1]}
        # A workspace on chip has no flags of the lowering, yet the order inside a pipe is the pipe's own affair.
        reads |= {operand.of.name for operand in op.ins if operand.space != "GM"}
        writes |= {op.out.of.name} if op.out is not None and op.out.space != "GM" else set()
        function = self.functions.get(id(instr))
        if function is None:
            return _Use(instr, reads, writes, inside=False)
        # Inside, registers hand on; a function as a whole begins behind what it reads.
        return _Use(instr, function.reads, writes, inside=instr is not function.instrs[0])

    def _hazard_of(self, use: _Use, dirty: set[str], when: Expr | None) -> set[str]:
        instr, op = use.instr, use.instr.op
        assert op is not None
        definition = OPS[op.kind]
        if definition.hazard is not None and not use.inside and not use.reads.isdisjoint(dirty):
            barrier = definition.hazard(op, self.chip)
            if definition.accumulates and not any(s.of.name in dirty for s in op.ins):
                barrier = product(barrier, binary("!=", op.attr_expr("accumulate", 0), 0))
            if barrier == Const(1):
                dirty = set()
            if when is None:
                instr.barrier = barrier
            elif instr.barrier == Const(0):
                instr.barrier = product(barrier, when)
        return dirty if use.writes <= dirty else dirty | use.writes
