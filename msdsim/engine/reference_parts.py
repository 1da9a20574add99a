"""What the reference engine's units are made of: queues of pipes, flags, the arbiter in front of the memory system."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import simpy

from msdsim.engine.memory import MemorySystem
from msdsim.ir.expr import evaluate
from msdsim.ir.program import Instr, Loop, Node
from msdsim.ir.timing import Local, Sync, Transfer
from msdsim.ir.unit_flags import drain_cycles

#: SimPy priority below its NORMAL (1): the arbiter acts after everything else of its cycle.
_ARBITER = 2


@dataclass
class Queued:
    """An instruction in a pipe's queue, its sizes already evaluated by the scalar unit; of one with unit flags also those of a
    row of fractals, and whether it completes the sum."""

    instr: Instr
    dispatched: int
    barrier: bool
    dims: tuple[int, ...]
    strip: tuple[int, ...] = ()


class Tokens:
    """Counting flag: a queue of the cycles at which it was posted, consumed in order by one pipe."""

    def __init__(self, env: simpy.Environment, initial: int = 0) -> None:
        self.env = env
        self.posted: deque[int] = deque([0] * initial)
        self.waiter: simpy.Event | None = None

    def post(self) -> None:
        self.posted.append(int(self.env.now))
        if self.waiter is not None:
            self.waiter.succeed()
            self.waiter = None

    def wait(self) -> Generator[simpy.Event, Any, int]:
        """Consume a token; the value is the cycle it was posted."""
        if not self.posted:
            self.waiter = self.env.event()
            yield self.waiter
        return self.posted.popleft()


class BlockTokens(Tokens):
    """Unit flags: each token says when the first and the last of an accumulator's blocks are there, which may be later."""

    def __init__(self, env: simpy.Environment, initial: int) -> None:
        super().__init__(env)
        self.times: deque[tuple[int, int]] = deque()
        for _ in range(initial):
            self.post_blocks(0, 0)

    def post_blocks(self, first: int, last: int) -> None:
        self.times.append((first, last))
        self.post()

    def wait_blocks(self) -> Generator[simpy.Event, Any, tuple[int, int]]:
        yield from self.wait()
        return self.times.popleft()


class Arbiter:
    """Serves memory requests in the order (cycle, unit, pipe), one at a time, after all else that happens in the cycle."""

    def __init__(self, env: simpy.Environment, memory: MemorySystem) -> None:
        self.env, self.memory = env, memory
        self.pending: list[tuple[int, int, list[tuple[int, int]], bool, int, bool, simpy.Event]] = []
        self.scheduled = False

    def request(self, unit: int, pipe: int, segments: list[tuple[int, int]], write: bool, l2_bytes: int,
                bypass: bool) -> simpy.Event:
        """Ask for a piece now; the event's value is what :meth:`MemorySystem.access` returns."""
        answer = self.env.event()
        heapq.heappush(self.pending, (unit, pipe, segments, write, l2_bytes, bypass, answer))
        self._schedule()
        return answer

    def _schedule(self) -> None:
        if self.pending and not self.scheduled:
            self.scheduled = True
            turn: simpy.Event = simpy.Event(self.env)
            turn._ok, turn._value = True, None
            turn.callbacks.append(self._serve)
            self.env.schedule(turn, priority=_ARBITER)  # type: ignore[arg-type]

    def _serve(self, _: simpy.Event) -> None:
        self.scheduled = False
        unit, _pipe, segments, write, l2_bytes, bypass, answer = heapq.heappop(self.pending)
        answer.succeed(self.memory.access(int(self.env.now), unit, segments, write, l2_bytes, bypass))
        self._schedule()


@dataclass
class Pipe:
    """State of one pipe of one unit."""

    name: str
    index: int
    depth: int
    queue: deque[Queued] = field(default_factory=deque)
    arrived: simpy.Event | None = None
    left: simpy.Event | None = None
    free: int = 0
    completed: int = 0
    cursor: int = 0
    port_free: int = 0
    port_scale: int = 0
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    in_flight_bytes: int = 0
    waiting_for: str = "its first instruction"


def program_order(body: list[Node], env: dict[str, int]) -> Iterator[Instr]:
    """The instructions of a part as the scalar unit meets them; ``env`` has the loop variables."""
    for node in body:
        if isinstance(node, Loop):
            low, high = evaluate(node.low, env), evaluate(node.high, env)
            for value in range(low, high, node.step):
                env[node.var] = value
                yield from program_order(node.body, env)
            env.pop(node.var, None)
        else:
            yield node


def sizes_of(instr: Instr, env: dict[str, int], addresses: dict[str, int]) -> tuple[int, ...]:
    """The sizes of an instruction where ``env`` gives the loop variables."""
    timing = instr.timing
    if isinstance(timing, Local):
        return tuple(evaluate(dim, env) for dim in timing.dims)
    if isinstance(timing, Transfer):
        return tuple(evaluate(dim, env) for dim in (timing.offset, timing.rows, timing.row_bytes))
    return ()


def unit_cycles(item: Queued) -> tuple[int, int, int]:
    """Interval and work of an instruction with unit flags, and the work of its first row of fractals."""
    timing = item.instr.timing
    if isinstance(timing, Sync):
        return 0, 0, 0
    if isinstance(timing, Local):
        return timing.cost.interval, timing.cost.work(item.dims), timing.cost.work(item.strip)
    _, rows, row_bytes = item.dims
    strip, = item.strip
    return timing.cost.interval, drain_cycles(timing.cost, rows, row_bytes), drain_cycles(timing.cost, strip, row_bytes)
