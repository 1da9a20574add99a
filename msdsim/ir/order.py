"""The order check: any two accesses of one place, at least one of them a write, must have an order of the program's own.

What orders them: the program order of one pipe, the flags between the pipes of a core (rings and data), signals and barriers
between cores.  Time does not: a kernel that happens to be in time on one chip is refused all the same.  Control flow depends on
the core and on loop variables only, so the order is that of every run.  Each access carries a vector clock, one entry a pipe of
a core; an access is ordered behind another if its clock has seen it.

What is looked at is bounded.  Of many core groups the first, the second and the last are taken.  A loop that runs the same way
each time has its first iterations (more than any ring of the kernel is deep) and its last ones looked at; what the others would
raise and await is added to the counts.  A kernel beyond :data:`MOST_EVENTS` accesses and signals is looked at that far.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from msdsim.errors import KernelError
from msdsim.ir.accesses import Access, Env, History, accesses_of, grains_of, moduli_of, place_of
from msdsim.ir.expr import evaluate, free_vars
from msdsim.ir.kernel import Tensor
from msdsim.ir.program import Instr, Loop, Node, Part, Program, UnitFlag

#: Accesses and signals that are looked at, at most.
MOST_EVENTS = 30_000
#: Iterations of loops around them, at most.
_MOST_STEPS = 200_000
#: So many accesses are compared in the time of an iteration.
_COMPARED = 4
#: Iterations at the end of a long loop that are looked at, and those at its beginning beyond the deepest ring.
_LAST, _FIRST = 2, 2

Clock = list[int]


@dataclass(frozen=True)
class OrderCheck:
    """What the check has looked at; ``complete`` says whether the kernel's end was reached."""

    events: int
    complete: bool


def check_order(program: Program) -> OrderCheck:
    """Raise KernelError where two accesses of one place have no order; what was looked at otherwise.

    Flags between the pipes of a core are followed only where the kernel's order does not hold without them.
    """
    facts = _Facts(program)
    if not facts.regions:
        return OrderCheck(0, True)
    try:
        return _Check(facts, flags=False).run()
    except _Unordered:
        return _Check(facts, flags=True).run()


class CannotFinish(KernelError):
    """A wait stands before what raises it, on whatever pipes: where a wait holds the scalar unit, nothing behind it begins."""


class _Unordered(KernelError):
    """Two accesses without an order."""


class _Facts:
    """What is worked out once for a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.instructions = {part.name: part.instructions() for part in program.parts}
        everything = [instr for instrs in self.instructions.values() for instr in instrs]
        accesses = {id(instr): found for instr in everything if (found := accesses_of(instr))}
        #: By ``id`` of an instruction: the tensors it touches, whether it writes, and the function of the place.
        self.regions = {key: [(of, write, place_of(item)) for of, write, item in found] for key, found in accesses.items()}
        items = [item for found in accesses.values() for _, _, item in found]
        self.grains = {tensor.name: grains_of(tensor, [item for item in items if item.of.name == tensor.name])
                       for tensor in program.kernel.tensors}
        self.first = _FIRST + max([1, *(depth for item in items for start in item.starts for depth in moduli_of(start))])
        self.raising = {(name, instr.signal[1]) for name, instrs in self.instructions.items() for instr in instrs
                        if instr.signal is not None and instr.signal[0] == "signal"}
        self.steady: dict[int, bool] = {}


class _Check:
    """Runs the units in turn, each until it waits for what has not been raised."""

    def __init__(self, facts: _Facts, flags: bool) -> None:
        self.facts, self.program, self.flags = facts, facts.program, flags
        kernel = self.program.kernel
        cores = sorted({0, min(1, kernel.cores - 1), kernel.cores - 1})
        self.units: list[_Unit] = []
        for core in cores:
            for part in self.program.parts:
                for sub in range(kernel.aiv_per_core if part.name == "aiv" else 1):
                    self.units.append(_Unit(self, len(self.units), core, part, sub))
        self.pipes = [(unit, pipe) for unit in self.units for pipe in unit.part.pipes]
        for number, (unit, pipe) in enumerate(self.pipes):
            unit.entries[pipe] = number
            unit.clocks[pipe] = [0] * len(self.pipes)
        self.history = {tensor.name: History(tensor, facts.grains[tensor.name]) for tensor in kernel.tensors}
        #: Accesses and signals so far, and iterations of loops.
        self.events, self.steps = 0, 0
        #: Per signal and unit: how often it was raised, and the clock of each raising that was looked at.
        self.raised = [[_Raised() for _ in self.units] for _ in kernel.signals]
        self.senders = [[self._senders(number, unit) for unit in self.units] for number in range(len(kernel.signals))]

    def _senders(self, number: int, unit: _Unit) -> list[int]:
        """The units whose raisings of a signal a wait on ``unit`` needs."""
        signal = self.program.kernel.signals[number]
        raises = [other.number for other in self.units if (other.part.name, number) in self.facts.raising]
        if signal.kind == "barrier":
            return raises
        return [index for index in raises if self.units[index].core == unit.core and self.units[index].part is not unit.part]

    def run(self) -> OrderCheck:
        live = {unit.number: unit.run() for unit in sorted(self.units, key=lambda unit: unit.part.name != "aiv")}
        while live:
            before = self.events, len(live)
            for index in list(live):
                if next(live[index], "done") == "done":
                    del live[index]
            if self.full():
                return OrderCheck(self.events, False)
            if live and (self.events, len(live)) == before:
                first = self.units[min(live)]
                others = ", ".join(f"{self.units[index].name} in {self.units[index].stuck}" for index in sorted(live)[1:4])
                raise CannotFinish(f"{first.stuck}: the kernel cannot finish in the order of its text: {first.name} waits here"
                                   f"{', ' + others if others else ''}; what they wait for is raised only behind these waits")
        return OrderCheck(self.events, True)

    def full(self) -> bool:
        """Whether as much has been looked at as may be."""
        return self.events >= MOST_EVENTS or self.steps >= _MOST_STEPS

    def access(self, unit: _Unit, instr: Instr, clock: Clock, env: Env) -> None:
        """Compare what an instruction touches with everything before it that it has not been ordered behind."""
        entry = unit.entries[instr.pipe]
        clock[entry] += 1
        for of, write, region in self.facts.regions[id(instr)]:
            numbers = region(env)
            dims = len(numbers) // 2
            begin, sizes = numbers[:dims], numbers[dims:]
            if min(sizes) < 1:
                continue
            found = Access(begin, tuple(map(int.__add__, begin, sizes)), write, entry, clock[entry], instr)
            history = self.history[of.name]
            places = history.places(found)
            for place in places:
                self.steps += len(place) // _COMPARED
                for other in place:
                    if (write or other.write) and clock[other.pipe] < other.count and other.overlaps(found):
                        raise self._race(of, other, found, env)
            # What is ordered behind the newer one is ordered behind all that it replaces.
            for place in places:
                place[:] = [other for other in place if not (write or (not other.write and other.pipe == entry))
                            or not found.covers(other)]
            history.add(found, places)

    def _race(self, tensor: Tensor, first: Access, second: Access, env: Env) -> _Unordered:
        verb, other = ("writes" if second.write else "reads"), ("writes" if first.write else "reads")
        loops = ", ".join(f"{name}={value}" for name, value in env.items() if name not in ("core", "sub") and "$" not in name)
        a, b = first.instr.op, second.instr.op
        assert a is not None
        assert b is not None
        where = f" (at {loops})" if loops else ""
        return _Unordered(f"line {b.line}: '{b}' on {self._name(second.pipe)} {verb} a part of '{tensor.name}' that "
                          f"line {a.line}, '{a}' on {self._name(first.pipe)}, {other}{where}, and nothing orders the two; "
                          f"raise a signal behind the one, on its pipe, and wait for it before the other, on its pipe")

    def _name(self, entry: int) -> str:
        unit, pipe = self.pipes[entry]
        return f"{unit.name} {pipe}"


class _Raised:
    """The raisings of a signal by one unit: how many, and the clocks of those that were looked at, by number."""

    def __init__(self) -> None:
        self.count = 0
        self.numbers: list[int] = []
        self.clocks: list[Clock] = []

    def add(self, clock: Clock) -> None:
        self.numbers.append(self.count)
        self.clocks.append(clock)
        self.count += 1

    def clock(self, number: int) -> Clock | None:
        """The clock of the last raising up to ``number`` that was looked at."""
        at = bisect_right(self.numbers, number)
        return self.clocks[at - 1] if at else None


class _Unit:
    """An AIC or AIV going through its part."""

    def __init__(self, check: _Check, number: int, core: int, part: Part, sub: int) -> None:
        self.check, self.number, self.core, self.part, self.sub = check, number, core, part, sub
        self.entries: dict[str, int] = {}
        self.clocks: dict[str, Clock] = {}
        #: Waits so far, by signal.
        self.awaited = [0] * len(check.program.kernel.signals)
        self.tokens: list[deque[Clock]] = [deque([[]] * item.initial) for item in part.semaphores] if check.flags else []
        self.stuck = ""
        self.kept: dict[int, bool] = {}

    @property
    def name(self) -> str:
        return f"core {self.core} AIC" if self.part.name == "aic" else f"core {self.core} AIV[{self.sub}]"

    def run(self) -> Generator[None, None, None]:
        """Yields whenever it waits for a signal that has not been raised."""
        yield from self._nodes(self.part.body, {"core": self.core, "sub": self.sub})

    def _nodes(self, nodes: Sequence[Node], env: Env) -> Generator[None, None, None]:
        for node in nodes:
            if not self._matters(node):
                continue
            if isinstance(node, Loop):
                yield from self._loop(node, env)
                continue
            while not self._ready(node):
                yield
            self._instr(node, env)
            if self.check.full():
                return

    def _matters(self, node: Node) -> bool:
        """Whether a node has anything to do with the order between accesses of tensors."""
        if id(node) not in self.kept:
            if isinstance(node, Loop):
                found = any(self._matters(item) for item in node.body)
            else:
                flags = self.check.flags and bool(node.asks or node.gives)
                found = flags or node.signal is not None or id(node) in self.check.facts.regions
            self.kept[id(node)] = found
        return self.kept[id(node)]

    def _loop(self, loop: Loop, env: Env) -> Generator[None, None, None]:
        values = range(evaluate(loop.low, env), evaluate(loop.high, env), loop.step)
        first = self.check.facts.first
        if len(values) > first + _LAST and self._steady(loop):
            yield from self._iterations(loop, values[: first - 1], env)
            before = self._counts()
            yield from self._iterations(loop, values[first - 1 : first], env)
            self._skip(before, len(values) - first - _LAST)
            values = values[-_LAST:]
        yield from self._iterations(loop, values, env)
        env.pop(loop.var, None)

    def _iterations(self, loop: Loop, values: range, env: Env) -> Generator[None, None, None]:
        for value in values:
            if self.check.full():
                return
            self.check.steps += 1
            env[loop.var] = value
            yield from self._nodes(loop.body, env)

    def _counts(self) -> tuple[list[int], list[int]]:
        """Raisings and waits so far, by signal."""
        return [raised[self.number].count for raised in self.check.raised], list(self.awaited)

    def _skip(self, before: tuple[list[int], list[int]], times: int) -> None:
        """Count what so many iterations like the last one raise and await."""
        raised, awaited = self._counts()
        for number, signal in enumerate(self.check.raised):
            signal[self.number].count += (raised[number] - before[0][number]) * times
            self.awaited[number] += (awaited[number] - before[1][number]) * times

    def _steady(self, loop: Loop) -> bool:
        """Whether every iteration of a loop runs the same way: nothing in it that decides what runs reads the variable."""
        known = self.check.facts.steady
        if id(loop) not in known:
            known[id(loop)] = not any(loop.var in free_vars(inner.low) | free_vars(inner.high)
                                      for inner in _loops(loop.body) if self._matters(inner))
        return known[id(loop)]

    def _ready(self, instr: Instr) -> bool:
        """Whether what an instruction waits for has been raised."""
        if instr.signal is None or instr.signal[0] != "wait":
            return True
        number = instr.signal[1]
        raised, turn = self.check.raised[number], self.awaited[number]
        senders = self.check.senders[number][self.number]
        if senders and all(raised[sender].count > turn for sender in senders):
            return True
        self.stuck = f"line {instr.op.line if instr.op is not None else 0}"
        return False

    def _instr(self, instr: Instr, env: Env) -> None:
        clock, entry = self.clocks[instr.pipe], self.entries[instr.pipe]
        if self.check.flags:
            for number in instr.waits:
                # Further down a loop whose beginning alone was looked at, a flag may be missing; then nothing is known of it.
                token = self.tokens[number].popleft() if self.tokens[number] else []
                self._join(clock, token, self.entries[self.part.semaphores[number].source])
            if instr.unit is not None:
                self._blocks(instr.unit, instr.pipe, clock)
        signal = instr.signal
        if signal is not None and signal[0] == "wait":
            self.check.events += 1
            turn = self.awaited[signal[1]]
            self.awaited[signal[1]] = turn + 1
            for sender in self.check.senders[signal[1]][self.number]:
                found = self.check.raised[signal[1]][sender].clock(turn)
                if found is not None:
                    clock[:] = map(max, clock, found)
        elif id(instr) in self.check.facts.regions:
            self.check.events += 1
            self.check.access(self, instr, clock, env)
        if signal is not None and signal[0] == "signal":
            self.check.events += 1
            self.check.raised[signal[1]][self.number].add(list(clock))
        if self.check.flags and instr.posts:
            clock[entry] += 1
            token = list(clock)
            for number in instr.posts:
                self.tokens[number].append(token)

    def _blocks(self, unit: UnitFlag, pipe: str, clock: Clock) -> None:
        """Flags of an accumulator's blocks: a fixpipe is behind all that the products waited for.  They go on when it has read
        a block, not when that is in GM, so that they are behind nothing of it."""
        if pipe == "M":
            if unit.completes:
                self.tokens[unit.posts].append(list(clock))
        elif self.tokens[unit.takes]:
            self._join(clock, self.tokens[unit.takes].popleft(), self.entries["M"])

    def _join(self, clock: Clock, token: Clock, source: int) -> None:
        """What ``source`` had seen when it posted; a clock that has seen as much of ``source`` knows all of that."""
        if token and token[source] > clock[source]:
            clock[:] = map(max, clock, token)


def _loops(nodes: Sequence[Node]) -> Iterator[Loop]:
    for node in nodes:
        if isinstance(node, Loop):
            yield node
            yield from _loops(node.body)
