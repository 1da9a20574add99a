"""What a part of a kernel takes: its tables in C, and the block of each unit that runs it, as it is at cycle 0."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.capacities import Capacities
from msdsim.engine.fast.expressions import Segment
from msdsim.engine.fast.repetition import Repetition
from msdsim.engine.fast.tables import PartTable
from msdsim.engine.fast.words import Words
from msdsim.errors import InputError
from msdsim.ir.program import Instr, Program, UnitFlag
from msdsim.timeline.record import MAX_PIPES, WAIT_BUFFER, WAIT_DATA

#: Places of a queue that the engine keeps.
_DEEPEST_QUEUE = 2**16


@dataclass(frozen=True)
class PartBooks:
    """Where in T the waits of a part by semaphore and by signal begin, and the traffic of all tensors."""

    semaphore_waits: int
    signal_waits: int
    traffic: int


class PartBlock:
    """A part, and the block of its units: where its sections are, its first state (``words``), and which of these are positions
    in the block.  ``base`` is the part's place in C."""

    def __init__(self, C: Words, base: int, program: Program, table: PartTable, capacities: Capacities,
                 books: PartBooks) -> None:
        self.C, self.base, self.table, self.capacities, self.books = C, base, table, capacities, books
        self.kernel, self.chip = program.kernel, program.chip
        self.ring = at.R_TOKENS + capacities.ring
        part = table.part
        self.senders = self.kernel.aiv_per_core if part.name == "aic" else 1
        self.registers = at.U_SIZE
        self.pipes = at.U_SIZE + len(table.registers.initial)
        self.semaphores = self.pipes + MAX_PIPES * at.P_SIZE
        self.signals = self.semaphores + len(part.semaphores) * self.ring
        self.raised = self.signals + len(self.kernel.signals) * self.senders * self.ring
        self.sums = self.raised + len(self.kernel.signals)
        # Where some semaphores are unit flags, a sum for each: few enough not to be counted.
        sums = len(part.semaphores) * at.SUM_SIZE if any(item.unit_flag for item in part.semaphores) else 0
        #: Words so far; the pipes' queues and windows come behind.
        self.size = self.sums + sums
        self.words: list[int] = []
        self.positions: list[int] = []

    def place(self, repetitions: dict[int, Repetition]) -> None:
        """Place the part's tables in C."""
        C, base, part, table = self.C.words, self.base, self.table.part, self.table
        costs = self.C.add(self._costs())
        C[base + at.PT_PROLOGUE], C[base + at.PT_PROLOGUE_END] = self._segment(table.prologue, costs)
        segments = [self._segment(segment, costs) for segment in table.segments]
        instructions = table.instructions
        instrs = [self._instr(words, instructions[position]) for position, words in enumerate(table.instrs)]
        skipped = {loop: self._repetition(found) for loop, found in repetitions.items()}
        C[base + at.PT_CODE] = self._code(segments, instrs, skipped)
        C[base + at.PT_PIPES], C[base + at.PT_SIGNAL_RINGS] = self.pipes, self.signals
        C[base + at.PT_RAISED], C[base + at.PT_SENDERS] = self.raised, self.senders
        C[base + at.PT_PIPE_COUNT] = len(part.pipes)
        C[base + at.PT_SEMAPHORE_WAITS], C[base + at.PT_SIGNAL_WAITS] = self.books.semaphore_waits, self.books.signal_waits
        waiting = [0] * len(self.kernel.signals)
        for instr in instructions:
            if instr.signal is not None and instr.signal[0] == "wait":
                waiting[instr.signal[1]] = part.pipes.index(instr.pipe)
        C[base + at.PT_WAITING] = self.C.add(waiting)
        self._first_state()

    def _costs(self) -> list[int]:
        """Work costs with the registers' places."""
        words = list(self.table.registers.costs)
        position = 0
        while position < len(words):
            sizes = words[position + at.W_COUNT]
            position += at.W_SIZES
            for _ in range(sizes):
                words[position + 1] += self.registers
                words[position + 2] += self.registers
                position += at.W_SIZE_WORDS
        return words

    def _segment(self, segment: Segment, costs: int) -> tuple[int, int]:
        words = list(segment.words)
        for position in range(0, len(words), at.OP_WORDS):
            words[position + 1] += self.registers
            if words[position] == at.OP_WORK:
                words[position + 2] += costs
            else:
                words[position + 2] += self.registers
                words[position + 3] += self.registers
        start = self.C.add(words)
        return start, start + len(words)

    def _instr(self, words: list[int], instr: Instr) -> int:
        part, words = self.table.part, list(words)
        for column in (at.I_BARRIER, at.I_V0, at.I_V1, at.I_V2):
            words[column] += self.registers
        words[at.I_PIPE_AT] = self.pipes + words[at.I_PIPE] * at.P_SIZE
        waits: list[int] = []
        for semaphore in instr.waits:
            category = WAIT_DATA if part.semaphores[semaphore].cause == "data" else WAIT_BUFFER
            waits += [self.semaphores + semaphore * self.ring,
                      self.books.semaphore_waits + semaphore << at.CAUSE_BITS | category]
        posts: list[int] = []
        for semaphore in instr.posts:
            posts += [self.semaphores + semaphore * self.ring, 1 << part.pipes.index(part.semaphores[semaphore].target)]
        words[at.I_WAITS] = self.C.add(waits)
        words[at.I_WAITS_END] = words[at.I_WAITS] + len(waits)
        words[at.I_POSTS] = self.C.add(posts)
        words[at.I_POSTS_END] = words[at.I_POSTS] + len(posts)
        words[at.I_TRAFFIC] += self.books.traffic
        if instr.unit is not None:
            self._unit_flags(words, instr.unit)
        return self.C.add(words)

    def _unit_flags(self, words: list[int], unit: UnitFlag) -> None:
        part = self.table.part
        takes, gives = part.semaphores[unit.takes], part.semaphores[unit.posts]
        category = WAIT_DATA if takes.cause == "data" else WAIT_BUFFER
        words[at.I_TAKES] = self.semaphores + unit.takes * self.ring
        words[at.I_TAKES_CAUSE] = self.books.semaphore_waits + unit.takes << at.CAUSE_BITS | category
        words[at.I_GIVES] = self.semaphores + unit.posts * self.ring
        words[at.I_GIVES_PIPE] = 1 << part.pipes.index(gives.target)
        words[at.I_SUM] = self.sums + unit.takes * at.SUM_SIZE
        words[at.I_IS_OVER] = -1 if takes.cause == "buffer" else 0

    def _code(self, segments: list[tuple[int, int]], instrs: list[int], skipped: dict[int, int]) -> int:
        """Place the code with positions for the numbers of registers, segments and instructions."""
        words, start = list(self.table.code), len(self.C.words)
        position = 0
        while words[position] != at.CODE_END:
            if words[position] == at.CODE_INSTR:
                words[position + 1] = instrs[words[position + 1]]
                position += at.INSTR_WORDS
                continue
            enter = words[position] == at.CODE_ENTER
            for column in (1, 2, 3) if enter else (1, 2):
                words[position + column] += self.registers
            words[position + 4], words[position + 5] = segments[words[position + 4]]
            words[position + 6] += start
            words[position + 7] = skipped.get(words[position + 7], 0)
            position += at.ENTER_WORDS if enter else at.NEXT_WORDS
        return self.C.add(words)

    def _repetition(self, found: Repetition) -> int:
        """Place what is to be known of a loop that may be skipped, and room in the block to remember an iteration."""
        words = [0] * at.L_SIZE
        loop, part = found.loop, self.table.part
        words[at.L_VAR], words[at.L_HIGH] = self.registers + loop.var.number, self.registers + loop.high.number
        words[at.L_STEP] = loop.step
        lists = {
            at.L_PIPES: [self.pipes + pipe * at.P_SIZE for pipe in found.pipes],
            at.L_RINGS: [self.semaphores + semaphore * self.ring for semaphore in found.semaphores],
            at.L_RANGES: [word for operation in found.ranges for word in self._placed_range(operation)],
            at.L_WATCHED: found.watched,
        }
        for column, items in lists.items():
            words[column] = self.C.add(items)
            words[column + 1] = words[column] + len(items)
        words[at.L_BOOKS], words[at.L_BOOKS_COUNT] = (
            loop.first * at.CATEGORY_COUNT, (loop.last - loop.first) * at.CATEGORY_COUNT)
        words[at.L_WAITS], words[at.L_WAITS_COUNT] = self.books.semaphore_waits, len(part.semaphores)
        words[at.L_SNAPSHOT] = self.size
        places = sum(2 + self._queue_places(pipe)[0] for pipe in found.pipes)
        self.size += (at.N_SIZE + places + len(found.semaphores) * (1 + self.capacities.ring) + words[at.L_BOOKS_COUNT]
                       + words[at.L_WAITS_COUNT])
        return self.C.add(words)

    def _placed_range(self, operation: list[int]) -> list[int]:
        words = list(operation)
        if words[0] == at.OP_WORK:
            words[2] += self.registers
        else:
            for column in (2, 4):
                words[column + 1] += self.registers * words[column]
        return words

    def _queue_places(self, pipe: int) -> tuple[int, bool]:
        """Instructions that a pipe's queue has room for here, and whether that is what the chip has.

        All places of a queue are kept, since the scalar unit waits for the one that was left first, unless the pipe is never
        given as many instructions.  What then is in the queue at once has no small bound.
        """
        table = self.table
        name = table.part.pipes[pipe]
        depth = self.chip.dispatch.queue_depth[name]  # type: ignore[index]
        if table.executions[pipe] <= depth:
            return min(self.capacities.queue, table.executions[pipe]), False
        if depth > _DEEPEST_QUEUE:
            raise InputError(f"dispatch.queue_depth.{name} = {depth} is above the {_DEEPEST_QUEUE} places that the fast engine "
                             f"keeps; lower it or use the engine 'reference'")
        return depth, True

    def _first_state(self) -> None:
        """A unit's block at cycle 0, but for what differs from unit to unit."""
        table, part, words = self.table, self.table.part, [0] * self.size
        words[at.U_PART], words[at.U_PC] = self.base, self.C.words[self.base + at.PT_CODE]
        words[self.registers : self.registers + len(table.registers.initial)] = table.registers.initial
        for index, semaphore in enumerate(part.semaphores):
            # Initial tokens were posted at cycle 0, which is what the ring holds.
            words[self.semaphores + index * self.ring + at.R_TAIL] = semaphore.initial * (2 if semaphore.unit_flag else 1)
        self.words = words
        for pipe in sorted(table.executions):
            self._pipe(pipe)

    def _pipe(self, number: int) -> None:
        """A pipe with its queue, and its window if it has a port, at the end of the self."""
        table, words, pipe = self.table, self.words, self.pipes + number * at.P_SIZE
        places, all_of_them = self._queue_places(number)
        queue = len(words)
        words += [0] * (places * at.Q_SIZE)
        words[pipe + at.P_CAPACITY], words[pipe + at.P_BOUNDED] = places, -1 if all_of_them else 0
        words[pipe + at.P_QUEUE_END] = len(words)
        for column in (at.P_QUEUE, at.P_HEAD, at.P_TAIL):
            words[pipe + column] = queue
        self.positions += [pipe + column for column in (at.P_QUEUE, at.P_HEAD, at.P_TAIL, at.P_QUEUE_END)]
        if any(words[at.I_PIPE] == number and words[at.I_KIND] == at.TRANSFER for words in table.instrs):
            words[pipe + at.P_WINDOW] = len(words)
            self.positions.append(pipe + at.P_WINDOW)
            words += [0] * (self.capacities.window * at.F_SIZE)
