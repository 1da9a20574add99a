"""The order between pipes that follows from the use of a buffer: who waits for whom, and which of that is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Buffer
from msdsim.ir.program import Instr, WaitCause

#: Per pipe: does it read the buffer, does it write it.
Access = dict[str, tuple[bool, bool]]


@dataclass
class Item:
    """A statement of a block with what it touches; ``before`` and ``after`` collect flags set around a nested loop."""

    node: Instr | Scope
    access: dict[str, Access]
    before: dict[str, Flags] = field(default_factory=dict)
    after: dict[str, Flags] = field(default_factory=dict)


@dataclass
class Flags:
    """Semaphores that are waited for, and those that are posted."""

    waits: list[int] = field(default_factory=list)
    posts: list[int] = field(default_factory=list)


@dataclass
class Scope:
    """A block under lowering: the loop around it (None for the part's own block), its buffers and statements."""

    loop: tuple[str, Expr, Expr, int] | None
    buffers: list[Buffer]
    items: list[Item]
    repeats: bool = True
    edges: list[Edge] = field(default_factory=list)


def pipes_of(node: Instr | Scope) -> set[str]:
    """The pipes that work on an instruction or on a block."""
    if isinstance(node, Instr):
        return {node.pipe}
    return {pipe for item in node.items for pipe in pipes_of(item.node)}


@dataclass(frozen=True)
class Edge:
    """``target`` at statement ``to`` waits for ``source`` at statement ``at``, ``initial`` iterations earlier (0: the same)."""

    at: int
    source: str
    to: int
    target: str
    cause: WaitCause
    initial: int
    buffer: str
    capacity: int

    def implies(self, other: Edge) -> bool:
        """Whether waiting for this one makes the other superfluous: pipes are in order, so a later post covers an earlier
        one, and an earlier wait a later one."""
        return ((self.source, self.target) == (other.source, other.target) and (self.initial == 0) == (other.initial == 0)
                and self.initial <= other.initial and self.at >= other.at and self.to <= other.to)


def without_implied(edges: list[Edge]) -> list[Edge]:
    """Edges that no other edge implies; of edges that imply each other the first stays."""
    kept: list[Edge] = []
    for edge in edges:
        if not any(other.implies(edge) for other in kept):
            kept = [other for other in kept if not edge.implies(other)] + [edge]
    return kept


class BufferOrder:
    """Order between the pipes that touch one buffer inside one block."""

    def __init__(self, scope: Scope, buffer: str, capacity: int) -> None:
        self.scope, self.buffer, self.capacity = scope, buffer, capacity
        self.writers: dict[str, int] = {}
        self.readers: dict[str, int] = {}
        self.first: int | None = None

    def inside(self) -> list[Edge]:
        """Between statements of the same iteration: readers wait for the last writers, writers for readers and writers."""
        edges: list[Edge] = []
        for index, item in enumerate(self.scope.items):
            access = item.access.get(self.buffer)
            if access is None:
                continue
            if self.first is None:
                self.first = index
            for pipe, (_, writes) in access.items():
                edges += self._waits(self.writers, index, pipe, "data")
                if writes:
                    edges += self._waits(self.readers, index, pipe, "buffer")
            if any(writes for _, writes in access.values()):
                self.writers = {pipe: index for pipe, (_, writes) in access.items() if writes}
                self.readers = {pipe: index for pipe, (reads, _) in access.items() if reads}
            else:
                self.readers |= dict.fromkeys(access, index)
        return edges

    def _waits(self, sources: Mapping[str, int], to: int, target: str, cause: WaitCause) -> list[Edge]:
        return [Edge(at, source, to, target, cause, 0, self.buffer, self.capacity)
                for source, at in sources.items() if source != target]

    def reuse(self, initial: int) -> list[Edge]:
        """From the last accessors of an iteration to the first ones of a later iteration; call after :meth:`inside`."""
        if self.first is None:
            return []
        last = dict(self.readers)
        for pipe, at in self.writers.items():
            # A writer that a reader on another pipe has already waited for needs no flag of its own.
            if not any(reader != pipe for reader in self.readers):
                last[pipe] = max(at, last.get(pipe, -1))
        targets = self.scope.items[self.first].access[self.buffer]
        return [Edge(at, source, self.first, target, "buffer", initial, self.buffer, self.capacity)
                for target in targets for source, at in last.items() if source != target]


def uses_of(scope: Scope, buffer: str) -> Iterator[Instr]:
    """The instructions on a buffer in program order."""
    for item in scope.items:
        if buffer in item.access:
            yield from [item.node] if isinstance(item.node, Instr) else uses_of(item.node, buffer)


def flags_of(where: dict[str, Flags], pipe: str) -> Flags:
    """The flags of a pipe."""
    return where.setdefault(pipe, Flags())


def outer_access(scope: Scope) -> dict[str, Access]:
    """What a nested block touches of the buffers of blocks around it."""
    own = {buffer.name for buffer in scope.buffers}
    merged: dict[str, Access] = defaultdict(dict)
    for item in scope.items:
        for name, access in item.access.items():
            if name in own:
                continue
            for pipe, (reads, writes) in access.items():
                r, w = merged[name].get(pipe, (False, False))
                merged[name][pipe] = (r or reads, w or writes)
    return dict(merged)
