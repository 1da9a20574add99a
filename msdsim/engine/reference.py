"""The readable engine: SimPy, one process per pipe, one per scalar unit, and an arbiter in front of the memory system.

The machine, in full:

* The scalar unit walks its part's loops in program order.  Dispatching an instruction takes ``issue_cycles`` for it and
  for each of its flags; then it needs a free place in the queue of the instruction's pipe, which the instruction leaves
  when it starts.
* A pipe takes instructions in order.  One starts when the pipe can take it, when the pipe has drained if it has a hazard,
  and when every semaphore and signal it waits for has a token.
* Work inside the core: the pipe takes the next instruction ``interval + work + flags`` cycles after a start, and the
  instruction completes ``latency + work`` cycles after it.  Transfers ask the memory system piece by piece.
* Instructions of a pipe complete in order.  On completion an instruction posts its semaphores and raises its signal.
* The run ends when every unit's last instruction has completed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from msdsim.engine.accounting import split
from msdsim.engine.base import EngineOptions, check_signals
from msdsim.engine.books import Books
from msdsim.engine.memory import MemorySystem, check_l2, pieces
from msdsim.engine.reference_parts import Arbiter, BlockTokens, Pipe, Queued, Tokens, program_order, sizes_of, unit_cycles
from msdsim.errors import Deadlock
from msdsim.ir.expr import evaluate
from msdsim.ir.program import Instr, Part, Program, UnitFlag
from msdsim.ir.timing import Local, Transfer
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import (
    BUSY,
    DRAINED,
    HBM_READ,
    HBM_WRITE,
    L2_READ,
    L2_WRITE,
    WAIT_BUFFER,
    WAIT_DATA,
    WAIT_ISSUE,
    WAIT_SYNC,
    Bandwidth,
    RunRecord,
    Units,
)
from msdsim.units import ceil_div

Process = Generator[simpy.Event, Any, None]


def create() -> ReferenceEngine:
    """The engine, as the facade asks for it."""
    return ReferenceEngine()


class ReferenceEngine:
    """See the module's text."""

    def run(self, program: Program, options: EngineOptions, l2: L2State | None = None) -> RunRecord:
        check_signals(program)
        check_l2(l2, program.chip)
        return _Machine(program, options, l2).run()


class _Unit:
    """One AIC or AIV: its scalar unit, pipes and semaphores."""

    def __init__(self, machine: _Machine, number: int) -> None:
        self.machine, self.number, self.env = machine, number, machine.env
        units = machine.units
        self.part: Part = machine.program.aic if units.part(number) == "AIC" else machine.program.aiv
        depth = machine.program.chip.dispatch.queue_depth
        self.pipes = {
            name: Pipe(name, index, depth[name])  # type: ignore[index]
            for index, name in enumerate(self.part.pipes) if name != "S"
        }
        self.semaphores = [(BlockTokens if item.unit_flag else Tokens)(self.env, item.initial)
                           for item in self.part.semaphores]
        #: Sums that have begun and are not complete, by the semaphore that lets them begin: when the first and the last block
        #: of the last product so far are there.
        self.begun: dict[int, tuple[int, int]] = {}
        # Signals arrive per sender where several must all have raised it (an AIC waits for each of its AIVs).
        senders = units.aiv_per_core if self.part.name == "aic" else 1
        self.signals = [[Tokens(self.env) for _ in range(senders)] for _ in machine.program.kernel.signals]
        self.undone = 0
        self.dispatching = True
        self.scalar_time = 0

    # The scalar unit

    def scalar(self) -> Process:
        dispatch = self.machine.program.chip.dispatch
        row = self.machine.books.totals[self.number, 0]
        env = {"core": self.machine.units.core(self.number), "sub": self.machine.units.sub(self.number)}
        for instr in program_order(self.part.body, env):
            pipe = self.pipes[instr.pipe]
            queued = Queued(instr, 0, bool(evaluate(instr.barrier, env)), sizes_of(instr, env, self.machine.addresses))
            if instr.unit is not None:
                queued.strip = tuple(evaluate(dim, env) for dim in instr.unit.strip)
            cost = dispatch.issue_cycles * (1 + len(instr.waits) + len(instr.posts))
            asked = self.env.now
            yield self.env.timeout(cost)
            while len(pipe.queue) >= pipe.depth:
                pipe.left = self.env.event()
                yield pipe.left
            row[BUSY] += cost
            row[WAIT_ISSUE] += self.env.now - asked - cost
            queued.dispatched = self.scalar_time = int(self.env.now)
            self.undone += 1
            pipe.queue.append(queued)
            if pipe.arrived is not None:
                pipe.arrived.succeed()
                pipe.arrived = None
        self.dispatching = False
        self._maybe_done()

    # The pipes

    def run_pipe(self, pipe: Pipe) -> Process:
        env = self.env
        while True:
            if not pipe.queue:
                pipe.waiting_for = "dispatch"
                pipe.arrived = env.event()
                yield pipe.arrived
            item = pipe.queue[0]
            unit = item.instr.unit
            if unit is not None and item.instr.op is None and unit.takes in self.begun:
                # That the sum is complete is known as soon as its last product has started.
                self._give_blocks(unit, self.begun[unit.takes])
                unit = None
            ready = max(pipe.free, pipe.completed if item.barrier else 0)
            if ready > env.now:
                yield env.timeout(ready - env.now)
            cause, culprit, latest = WAIT_ISSUE, -1, -1
            for number in item.instr.waits:
                semaphore = self.part.semaphores[number]
                pipe.waiting_for = f"{semaphore.source} on buffer '{semaphore.buffer}'"
                posted = yield from self.semaphores[number].wait()
                if posted > latest:
                    cause, culprit, latest = (WAIT_DATA if semaphore.cause == "data" else WAIT_BUFFER), number, posted
            if item.instr.signal is not None and item.instr.signal[0] == "wait":
                signal = item.instr.signal[1]
                pipe.waiting_for = f"signal '{self.machine.program.kernel.signals[signal].name}'"
                for tokens in self.signals[signal]:
                    posted = yield from tokens.wait()
                    if posted > latest:
                        cause, culprit, latest = WAIT_SYNC, signal, posted
            start = int(env.now)
            if unit is not None and unit.takes not in self.begun:
                start, latest, cause, culprit = yield from self._blocks(pipe, item, max(ready, item.dispatched, latest),
                                                                        latest, cause, culprit)
            if latest != start:
                cause, culprit = WAIT_ISSUE, -1
            pipe.queue.popleft()
            if pipe.left is not None:
                pipe.left.succeed()
                pipe.left = None
            left = yield from self._execute(pipe, item, start, cause, culprit)
            if unit is not None:
                self._pass_blocks(unit, item, start, left)

    def _blocks(self, pipe: Pipe, item: Queued, ready: int, latest: int, cause: int, culprit: int) -> Generator[
            simpy.Event, Any, tuple[int, int, int, int]]:
        """Wait for an accumulator's blocks: the start at which no block is waited for, the latest wait, its cause and culprit.

        Products that follow on a drain are started when it is over, and their start is then what it was to be, which may be
        some cycles ago.
        """
        assert item.instr.unit is not None
        number = item.instr.unit.takes
        semaphore, tokens = self.part.semaphores[number], self.semaphores[number]
        assert isinstance(tokens, BlockTokens)
        pipe.waiting_for = f"{semaphore.source} on buffer '{semaphore.buffer}'"
        first, last = yield from tokens.wait_blocks()
        interval, work, strip = unit_cycles(item)
        there = max(first, last + strip - interval - work)
        if there > latest:
            latest, cause, culprit = there, (WAIT_DATA if semaphore.cause == "data" else WAIT_BUFFER), number
        start = max(ready, latest)
        taken = max(start, last) if semaphore.cause == "buffer" else start
        if taken > self.env.now:
            yield self.env.timeout(taken - self.env.now)
        return start, latest, cause, culprit

    def _pass_blocks(self, unit: UnitFlag, item: Queued, start: int, left: int) -> None:
        """An accumulator's blocks are there for the next one: the first soon after ``start``, the last at ``left``.

        Products can be read when the Cube's latency is over, what has left L0C can be written at once.
        """
        timing, later = item.instr.timing, 0
        if item.instr.pipe == "M" and isinstance(timing, Local):
            later = timing.cost.latency - timing.cost.interval
        interval, _, strip = unit_cycles(item)
        blocks = min(start + interval + strip, left) + later, left + later
        if unit.completes:
            self._give_blocks(unit, blocks)
        else:
            self.begun[unit.takes] = blocks

    def _give_blocks(self, unit: UnitFlag, blocks: tuple[int, int]) -> None:
        self.begun.pop(unit.takes, None)
        tokens = self.semaphores[unit.posts]
        assert isinstance(tokens, BlockTokens)
        tokens.post_blocks(*blocks)

    def _execute(self, pipe: Pipe, item: Queued, start: int, cause: int,
                 culprit: int) -> Generator[simpy.Event, Any, int]:
        """Carry out an instruction until its end is known; the cycle at which the pipe has done its part."""
        instr, timing = item.instr, item.instr.timing
        flags = self.machine.program.chip.dispatch.flag_cycles * (len(instr.waits) + len(instr.posts))
        work = excess = moved = 0
        if isinstance(timing, Local):
            work = timing.cost.work(item.dims)
            left = start + timing.cost.interval + work
            pipe.free = left + flags
            end = start + timing.cost.latency + work
        elif isinstance(timing, Transfer):
            end, work, moved = yield from self._transfer(pipe, timing, item.dims, start)
            left = pipe.free
            pipe.free += flags
            excess = max(0, end - start - timing.cost.interval - timing.cost.latency - work)
        else:
            left = start
            pipe.free = end = start + flags
        end = max(end, pipe.free, pipe.completed)
        parts = split(pipe.cursor, start, end, work, excess, cause)
        self.machine.books.account(self.number, self.part.name, pipe.index, instr, parts, culprit)
        self.machine.books.record(self.number, pipe.index, instr.index, item.dispatched, start, end, work, moved,
                            cause if parts.gap else -1, culprit if parts.gap else -1)
        pipe.cursor = pipe.completed = end
        self.machine.delay(end - int(self.env.now), lambda: self._complete(instr))
        return left

    def _transfer(
        self, pipe: Pipe, timing: Transfer, dims: tuple[int, ...], start: int
    ) -> Generator[simpy.Event, Any, tuple[int, int, int]]:
        """Run a transfer until its last piece has been asked for; (completion, cycles of port work, bytes)."""
        offset, rows, row_bytes = dims
        machine, cost = self.machine, timing.cost
        rate, chunk = cost.bytes_per_cycle, machine.program.chip.memory.chunk_bytes
        scale = rate.numerator
        # Back to back on the same path, the port goes on from its exact position; otherwise from the start of this cycle.
        if pipe.port_scale != scale or ceil_div(pipe.port_free, scale) != start:
            pipe.port_free, pipe.port_scale = start * scale, scale
        pipe.port_free += cost.interval * scale
        traffic = machine.books.tensor_traffic[machine.tensors[timing.tensor]]
        end, port_bytes, moved = start, 0, 0
        address = machine.addresses[timing.tensor] + offset
        for segments in pieces(address, rows, row_bytes, timing.stride_bytes, chunk, merge=not cost.largest_request,
                               held=cost.window_bytes(row_bytes, timing.stride_bytes)):
            on_port = sum(cost.port_bytes(count, at) for at, count in segments)
            count = sum(count for _, count in segments)
            held = sum(cost.window_bytes(count, timing.stride_bytes) for _, count in segments)
            while pipe.in_flight and pipe.in_flight_bytes + held > cost.outstanding_bytes:
                landed, arrived = pipe.in_flight.popleft()
                pipe.in_flight_bytes -= arrived
                pipe.port_free = max(pipe.port_free, landed * scale)
            at = ceil_div(pipe.port_free, scale)
            if at > self.env.now:
                yield self.env.timeout(at - self.env.now)
            done, hbm_read, hbm_write = yield machine.arbiter.request(self.number, pipe.index, segments, timing.write,
                                                                      cost.l2_bytes(on_port), timing.bypass)
            pipe.port_free += on_port * rate.denominator
            done = max(done, ceil_div(pipe.port_free, scale)) + cost.latency
            pipe.in_flight.append((done, held))
            pipe.in_flight_bytes += held
            end = max(end, done)
            port_bytes, moved = port_bytes + on_port, moved + count
            traffic[L2_WRITE if timing.write else L2_READ] += count
            traffic[HBM_READ] += hbm_read
            traffic[HBM_WRITE] += hbm_write
            machine.books.bandwidth(at, L2_WRITE if timing.write else L2_READ, count)
            machine.books.bandwidth(at, HBM_READ, hbm_read)
            machine.books.bandwidth(at, HBM_WRITE, hbm_write)
        if moved:
            pipe.port_free = max(pipe.port_free, (start + cost.minimum) * scale)
        pipe.free = ceil_div(pipe.port_free, scale)
        work = ceil_div(port_bytes * rate.denominator, scale)
        return end, work, moved

    def _complete(self, instr: Instr) -> None:
        for number in instr.posts:
            self.semaphores[number].post()
        if instr.signal is not None and instr.signal[0] == "signal":
            self.machine.raise_signal(self, instr.signal[1])
        self.undone -= 1
        self._maybe_done()

    def _maybe_done(self) -> None:
        if not self.dispatching and self.undone == 0:
            self.machine.unit_done()


class _Machine:
    """All units, the memory system and the books."""

    def __init__(self, program: Program, options: EngineOptions, l2: L2State | None) -> None:
        self.program, self.options, self.hands_on = program, options, l2 is not None
        kernel = program.kernel
        self.env = simpy.Environment()
        self.units = Units(kernel.cores, kernel.aiv_per_core)
        self.addresses = dict(program.addresses)
        self.tensors = {tensor.name: index for index, tensor in enumerate(kernel.tensors)}
        self.memory = MemorySystem(program.chip, options.memory, l2)
        self.arbiter = Arbiter(self.env, self.memory)
        self.books = Books(program, self.units.count, options.record_timeline)
        self.live = [_Unit(self, number) for number in range(self.units.count)]
        self.remaining = len(self.live)
        self.all_done = self.env.event()
        signallers = [
            {p.name for p in program.parts for i in p.instructions() if i.signal == ("signal", index)}
            for index in range(len(kernel.signals))
        ]
        self.participants = [sum(unit.part.name in names for unit in self.live) for names in signallers]
        self.arrivals: list[dict[int, int]] = [{} for _ in kernel.signals]
        self.raised = [[0] * self.units.count for _ in kernel.signals]

    def run(self) -> RunRecord:
        for unit in self.live:
            self.env.process(unit.scalar())
            for pipe in unit.pipes.values():
                self.env.process(unit.run_pipe(pipe))
        try:
            self.env.run(until=self.all_done)
        except RuntimeError as err:
            if "until" not in str(err):
                raise
            raise Deadlock(self._who_waits()) from None
        cycles = max(max(unit.scalar_time, *(pipe.completed for pipe in unit.pipes.values())) for unit in self.live)
        for unit in self.live:
            self.books.totals[unit.number, 0, DRAINED] += cycles - unit.scalar_time
            for pipe in unit.pipes.values():
                self.books.totals[unit.number, pipe.index, DRAINED] += cycles - pipe.cursor
        books = self.books
        record = RunRecord(
            self.program, cycles, books.instructions, books.flags_only, books.totals, books.instr_totals,
            books.semaphore_waits, books.signal_waits, books.tensor_traffic, self.memory.l2.dirty_bytes(),
            Bandwidth(books.interval, books.intervals.T), books.timeline(), engine="reference", notes=self._notes(cycles),
            l2=self.memory.l2.state() if self.hands_on else None,
        )
        record.assert_coverage()
        return record

    def _notes(self, cycles: int) -> dict[str, object]:
        """What the memory's banks did, where they are simulated."""
        banked = self.memory.banked
        return {} if banked is None else {"hbm": banked.counters.to_json(banked.timings, cycles)}

    def delay(self, cycles: int, action) -> None:  # type: ignore[no-untyped-def]
        """Do ``action`` after ``cycles``."""
        self.env.timeout(cycles).callbacks.append(lambda _: action())

    def unit_done(self) -> None:
        self.remaining -= 1
        if self.remaining == 0:
            self.all_done.succeed()

    def raise_signal(self, sender: _Unit, signal: int) -> None:
        kind = self.program.kernel.signals[signal].kind
        cross = self.program.chip.cross_core
        core, sub = self.units.core(sender.number), self.units.sub(sender.number)
        if kind == "aic_to_aiv":
            for aiv in range(self.units.aiv_per_core):
                tokens = self.live[self.units.unit(core, "AIV", aiv)].signals[signal][0]
                self.delay(cross.signal_latency_cycles, tokens.post)
        elif kind == "aiv_to_aic":
            tokens = self.live[self.units.unit(core, "AIC")].signals[signal][sub]
            self.delay(cross.signal_latency_cycles, tokens.post)
        else:
            turn = self.raised[signal][sender.number]
            self.raised[signal][sender.number] += 1
            self.arrivals[signal][turn] = self.arrivals[signal].get(turn, 0) + 1
            if self.arrivals[signal][turn] == self.participants[signal]:
                del self.arrivals[signal][turn]
                for unit in self.live:
                    for tokens in unit.signals[signal]:
                        self.delay(cross.barrier_latency_cycles, tokens.post)

    def _who_waits(self) -> str:
        stuck = [
            f"{self.units.pipe_name(unit.number, pipe.index)} waits for {pipe.waiting_for}"
            for unit in self.live for pipe in unit.pipes.values() if pipe.queue
        ]
        shown = "; ".join(stuck[:4]) + (f"; and {len(stuck) - 4} more" if len(stuck) > 4 else "")
        return f"the kernel '{self.program.kernel.name}' deadlocks at cycle {int(self.env.now)}: {shown or 'nothing can run'}"
