"""The lowered kernel: loops of instructions with the flags of the real programming model, ready to be timed.

A part's instructions run in program order through the scalar unit into in-order pipes.  Semaphores tie the pipes of one
core: each stands for a ring of hardware event ids between two pipes, posted in order by one and consumed in order by the
other.  Signals tie cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from msdsim.hardware.chip import Chip
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Kernel, Op
from msdsim.ir.timing import Timing

WaitCause = Literal["data", "buffer"]


@dataclass(frozen=True)
class Semaphore:
    """Counting flag between two pipes of a core; ``initial`` tokens exist at cycle 0.

    With ``unit_flag`` it stands for the flags of an accumulator's blocks, and a token says when the first and when the last of
    them is there.
    """

    source: str
    target: str
    buffer: str
    cause: WaitCause
    initial: int
    capacity: int
    unit_flag: bool = False


@dataclass(frozen=True)
class UnitFlag:
    """An instruction on an accumulator whose blocks have flags (:mod:`msdsim.ir.unit_flags`).

    It takes a token of the semaphore ``takes``, a product only if it is the first of a sum, and posts one to ``posts`` if it
    ``completes`` the sum.  It starts so late that it never has to wait for a block: not before the first is there, and its
    last block, which takes the time of the sizes ``strip``, not before that is.

    The products of a sum do not know which of them is the last.  Flags alone that follow say so; they pass on the blocks of the
    product before them as soon as that has started.
    """

    takes: int
    posts: int
    strip: tuple[Expr, ...]
    completes: bool


@dataclass
class Instr:
    """One static instruction.

    It starts when dispatched, when its pipe is free, when every semaphore in ``waits`` has a token, and, if ``barrier``
    evaluates to non-zero, when the pipe has drained.  On completion it posts ``posts``.  ``signal`` is
    ``("signal" | "wait", index)`` for cross-core synchronisation.
    """

    index: int
    pipe: str
    op: Op | None
    timing: Timing
    barrier: Expr
    waits: list[int] = field(default_factory=list)
    posts: list[int] = field(default_factory=list)
    signal: tuple[str, int] | None = None
    unit: UnitFlag | None = None

    @property
    def asks(self) -> list[int]:
        """All semaphores that it waits for, unit flags too."""
        return self.waits if self.unit is None else [*self.waits, self.unit.takes]

    @property
    def gives(self) -> list[int]:
        """All semaphores that it posts, unit flags too."""
        return self.posts if self.unit is None else [*self.posts, self.unit.posts]


@dataclass
class Loop:
    """Counted loop over ``low, low + step, ... < high``."""

    var: str
    low: Expr
    high: Expr
    step: int
    body: list[Node]


Node: TypeAlias = Instr | Loop


@dataclass(frozen=True)
class Part:
    """Program of one kind of core."""

    name: str
    body: list[Node]
    semaphores: tuple[Semaphore, ...]
    pipes: tuple[str, ...]

    def instructions(self) -> list[Instr]:
        """Every static instruction in program order; ``instr.index`` is its position here."""
        return list(walk_nodes(self.body))


def walk_nodes(body: list[Node]) -> Iterator[Instr]:
    """Every static instruction of some nodes, in program order."""
    for node in body:
        if isinstance(node, Loop):
            yield from walk_nodes(node.body)
        else:
            yield node


@dataclass(frozen=True)
class Program:
    """A kernel lowered for a chip; ``addresses`` are the bytes in GM at which its tensors begin."""

    kernel: Kernel
    chip: Chip
    aic: Part
    aiv: Part
    addresses: Mapping[str, int]

    @property
    def parts(self) -> tuple[Part, Part]:
        return (self.aic, self.aiv)
