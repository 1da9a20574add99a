"""Places a program's tables, the units' blocks and the books in the arrays that the compiled engine runs on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msdsim.engine.banked import BankedTimings
from msdsim.engine.fast import banked_layout
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.expressions import LARGEST, Segment
from msdsim.engine.fast.repetition import Repetition
from msdsim.engine.fast.tables import PartTable
from msdsim.engine.fast.words import Words
from msdsim.engine.memory import MemorySystem
from msdsim.errors import InputError
from msdsim.ir.expr import Interval
from msdsim.ir.program import Part, Program, UnitFlag
from msdsim.ir.timing import Transfer
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import CATEGORIES, MAX_PIPES, TRAFFIC, WAIT_BUFFER, WAIT_DATA, Units
from msdsim.units import ceil_div, round_up

#: Bandwidth over time is kept in at most this many intervals, the first of 2**6 cycles.
INTERVALS, FIRST_INTERVAL_SHIFT = 512, 6
#: Ticks stay below this whatever the rates are: a tree key holds the tick above LEAF_BITS.
_MOST_TICKS = 2**42
#: What one core may keep in flight, before the engine refuses, and how room grows when it was too small.
_MOST_ROOM, _GROWTH = 2**24, 4
#: Places of a queue that the engine keeps.
_DEEPEST_QUEUE = 2**16


@dataclass
class Capacities:
    """Room for what has no small bound of its own; the engine says when one is too small and is run again with more.

    Tokens in a ring, pieces in flight at a port, instructions in a queue; powers of two.
    """

    ring: int = 32
    window: int = 16
    queue: int = 64

    @classmethod
    def of(cls, tables: list[PartTable], chunk: int) -> Capacities:
        """Enough for the tokens that rings begin with and, as far as sizes are known, for what ports may have in flight."""
        initial = max((item.initial for table in tables for item in table.part.semaphores), default=0)
        pieces = max((_most_in_flight(*transfer, chunk) for table in tables for transfer in table.transfers), default=0)
        return cls(ring=max(cls.ring, _power_above(2 * initial)), window=max(cls.window, _power_above(min(pieces, 64))))

    def grow(self, status: int) -> None:
        """Enlarge what was too small."""
        if status == at.RING_FULL:
            self.ring *= _GROWTH
        elif status == at.WINDOW_FULL:
            self.window *= _GROWTH
        else:
            self.queue *= _GROWTH
        if max(self.ring, self.window, self.queue) > _MOST_ROOM:
            raise InputError(f"the kernel keeps more than {_MOST_ROOM} flags, pieces or instructions in flight on one core; "
                             f"lower the queue depths or outstanding_bytes of the chip, or use the engine 'reference'")


@dataclass
class Machine:
    """The arrays of layout.py, and where in them the units and the books are."""

    C: np.ndarray
    S: np.ndarray
    T: np.ndarray
    #: By unit: begin of its block and of its pipes in S, of its instructions' books in T.
    unit_bases: list[int]
    pipe_bases: list[int]
    unit_books: list[int]
    #: By part: its place in C, begin of its semaphores' and signals' waits in T.
    parts: list[int]
    semaphore_waits: list[int]
    signal_waits: list[int]
    traffic: int
    #: Lines of GM, words of L2.turn for them, and whether they all fit into L2.
    lines: int
    turns: int
    roomy: bool


def _power_above(count: int) -> int:
    """The smallest power of two above ``count``."""
    return 1 << count.bit_length()


def _most_in_flight(transfer: Transfer, rows: Interval, row_bytes: Interval, chunk: int) -> int:
    """Pieces of a transfer that its window holds at once."""
    if row_bytes.low <= 0 or rows.low <= 0:
        return 0
    segments = 1 if row_bytes.low >= chunk else min(rows.low, chunk // row_bytes.low)
    return transfer.cost.outstanding_bytes // (segments * min(chunk, row_bytes.low)) + 1


@dataclass
class _Block:
    """The block of a unit of a part: where its sections are, its first state, and which words are positions in the block."""

    registers: int
    pipes: int
    semaphores: int
    signals: int
    raised: int
    sums: int
    #: Words so far; the pipes' queues and windows come behind.
    size: int
    words: list[int]
    positions: list[int]


class Builder:
    """Builds the arrays of one run."""

    def __init__(self, program: Program, tables: list[PartTable], capacities: Capacities,
                 timings: BankedTimings | None, repetitions: list[dict[int, Repetition]], l2: L2State | None = None) -> None:
        self.l2 = l2
        self.program, self.chip, self.tables, self.capacities = program, program.chip, tables, capacities
        self.kernel = program.kernel
        self.units = Units(self.kernel.cores, self.kernel.aiv_per_core)
        self.C = Words(at.K_SIZE)
        self.S = Words(at.G_SIZE)
        self.ring = at.R_TOKENS + capacities.ring
        self.timings, self.repetitions = timings, repetitions

    def build(self) -> Machine:
        C = self.C.words
        self._memory()
        self._signals()
        books = self._books()
        C[at.K_PARTS] = self.C.room(len(self.tables) * at.PT_SIZE)
        self.parts = [C[at.K_PARTS] + number * at.PT_SIZE for number in range(len(self.tables))]
        blocks = [self._part(number, table) for number, table in enumerate(self.tables)]
        ports = self._ports()
        leaves = 1
        while leaves < len(ports):
            leaves *= 2
        C[at.K_UNITS], C[at.K_LEAVES] = self.units.count, leaves
        C[at.K_TREE] = self.S.room(2 * leaves, at.NEVER)
        C[at.K_STACK] = self.S.room(self.units.count)
        C[at.K_KNOWN] = self.S.room(at.KNOWN_PLACES * at.KNOWN_SIZE)
        C[at.K_MISSED], C[at.K_SECTORS], C[at.K_LEFT] = (self.S.room(self._most_lines()) for _ in range(3))
        C[at.K_RANGES] = self.S.room(2 * max((r.places for part in self.repetitions for r in part.values()), default=0))
        if self.timings is not None:
            banked_layout.place(self.C, self.S, self.timings)
        S, unit_bases, unit_books = self._units(blocks, books)
        pipe_bases = [base + blocks[self._number(unit)].pipes for unit, base in enumerate(unit_bases)]
        C[at.K_UNIT_BASES] = self.C.add(unit_bases)
        C[at.K_LEAF_PORTS] = len(C)
        for leaf, (unit, pipe) in enumerate(ports):
            port = pipe_bases[unit] + pipe * at.P_SIZE
            S[port + at.P_LEAF], S[port + at.P_UNIT] = leaf, unit_bases[unit]
            self.C.add([port])
        return Machine(np.array(C, np.int64), S, first_books(unit_books[-1]), unit_bases, pipe_bases, unit_books[:-1],
                       self.parts, self.semaphore_waits, self.signal_waits, self.traffic, self.lines,
                       C[at.K_TURN_LINES] * C[at.K_TURN_PIECES], bool(C[at.K_ROOMY]))

    def memory_words(self) -> dict[int, int]:
        """The constants that say how fast and large memory is, and how fast signals are, by their place in C."""
        nothing = -LARGEST
        self.C.words = [nothing] * at.K_SIZE
        self._memory()
        return {place: word for place, word in enumerate(self.C.words) if word != nothing}

    def _number(self, unit: int) -> int:
        """Number of the part that a unit runs."""
        return 0 if self.units.part(unit) == "AIC" else 1

    def _books(self) -> int:
        """Place the books that do not belong to one unit; where those of the units begin."""
        self.traffic = at.T_BANDWIDTH + INTERVALS * len(TRAFFIC)
        books = self.traffic + len(self.kernel.tensors) * len(TRAFFIC)
        self.semaphore_waits, self.signal_waits = [], []
        for table in self.tables:
            self.semaphore_waits.append(books)
            self.signal_waits.append(books + len(table.part.semaphores))
            books += len(table.part.semaphores) + len(self.kernel.signals)
        return round_up(books, at.CATEGORY_COUNT)

    # Chip

    def _memory(self) -> None:
        chip, C = self.chip, self.C.words
        memory = MemorySystem(chip)
        line = chip.l2.line_bytes
        C[at.K_CHUNK], C[at.K_LINE] = chip.memory.chunk_bytes, line
        C[at.K_SECTOR] = chip.l2.sector
        C[at.K_LINE_SHIFT] = line.bit_length() - 1 if line & (line - 1) == 0 else -1
        C[at.K_SETS], C[at.K_WAYS] = memory.l2.sets, memory.l2.ways
        addresses = self.program.addresses
        C[at.K_GM_BYTES] = max((addresses[t.name] + t.size_bytes for t in self.kernel.tensors), default=0)
        # Every wrap of the line number over the sets visits each set once, so no set overflows while all lines fit.
        C[at.K_ROOMY] = int(self.l2 is None and ceil_div(C[at.K_GM_BYTES], line) <= memory.l2.sets * memory.l2.ways)
        self.lines = ceil_div(C[at.K_GM_BYTES], line)
        if self.l2 is not None:
            self.lines = max(self.lines, 1 + int(self.l2.lines.max(initial=-1)))
        C[at.K_SAME_LINE] = memory.turns.cycles
        # Pieces begin a piece's length apart, mostly: their words are to lie side by side.
        piece = max(1, chip.memory.chunk_bytes // line)
        C[at.K_TURN_LINES] = piece if piece & (piece - 1) == 0 else 1
        C[at.K_TURN_SHIFT] = C[at.K_TURN_LINES].bit_length() - 1
        C[at.K_TURN_PIECES] = ceil_div(self.lines, C[at.K_TURN_LINES])
        scales = [(at.K_READ_SCALE, memory.l2_read), (at.K_WRITE_SCALE, memory.l2_write), (at.K_HBM_SCALE, memory.hbm)]
        for column, server in scales:
            C[column], C[column + 1] = server.scale, server.per_byte
        C[at.K_MISS_LATENCY], C[at.K_WRITE_BACK] = memory.miss_latency, memory.write_back
        clock = [] if self.timings is None else [4 * self.timings.clock.numerator, 4 * self.timings.clock.denominator]
        C[at.K_TIME_LIMIT] = self._time_limit([server.scale for _, server in scales] + clock)
        C[at.K_SIGNAL_LATENCY] = chip.cross_core.signal_latency_cycles
        C[at.K_BARRIER_LATENCY] = chip.cross_core.barrier_latency_cycles
        C[at.K_INTERVALS] = INTERVALS
        C[at.K_RING_MASK], C[at.K_WINDOW_MASK] = self.capacities.ring - 1, self.capacities.window - 1
        C[at.K_AIVS] = self.kernel.aiv_per_core

    def _transfers(self) -> list[Transfer]:
        return [transfer for table in self.tables for transfer, _, _ in table.transfers]

    def _time_limit(self, scales: list[int]) -> int:
        """The last tick at which no product of a tick or a piece's bytes with a rate's terms leaves 64 bits."""
        costs = [transfer.cost for transfer in self._transfers()]
        limit = min(_MOST_TICKS, LARGEST // max(scales + [cost.bytes_per_cycle.numerator for cost in costs]))
        chunk = self.chip.memory.chunk_bytes
        # A byte that is a row, or a burst, of its own takes a granule or a few requests, twice where it is split.
        most = [(2 * max(c.granule_bytes, 8 * c.request_bytes, c.block_port_bytes) + (c.split_bytes or 0))
                * c.l2_share.denominator for c in costs]
        at_once = chunk * max([1, *most])
        per_byte = [self.C.words[column] for column in (at.K_READ_PER_BYTE, at.K_WRITE_PER_BYTE, at.K_HBM_PER_BYTE)]
        if 2 * at_once * max(per_byte + [cost.bytes_per_cycle.denominator for cost in costs]) >= LARGEST:
            raise InputError(f"memory.chunk_bytes {chunk} is more than the fast engine can count with the rates of chip "
                             f"'{self.chip.name}'; lower it or use the engine 'reference'")
        return limit

    def _most_lines(self) -> int:
        """A bound on the lines that one piece touches: whole lines of its bytes, and two ends of each row."""
        chunk, line = self.chip.memory.chunk_bytes, self.chip.l2.line_bytes
        most = 0
        for table in self.tables:
            for _, rows, row_bytes in table.transfers:
                count = max(0, min(chunk, rows.high))
                most = max(most, min(chunk, count * max(0, row_bytes.high)) // line + 2 * count)
        return most

    def _signals(self) -> None:
        C, kernel = self.C.words, self.kernel
        C[at.K_SIGNAL_TABLE] = self.C.room(len(kernel.signals) * at.SG_SIZE)
        kinds = {"aic_to_aiv": at.TO_AIV, "aiv_to_aic": at.TO_AIC, "barrier": at.BARRIER}
        for number, signal in enumerate(kernel.signals):
            base = C[at.K_SIGNAL_TABLE] + number * at.SG_SIZE
            C[base + at.SG_KIND] = kinds[signal.kind]
            raising = {table.part.name.upper() for table in self.tables
                       if any(instr.signal == ("signal", number) for instr in table.instructions)}
            C[base + at.SG_PARTICIPANTS] = sum(self.units.part(unit) in raising for unit in range(self.units.count))
        C[at.K_BARRIERS] = self.S.room(len(kernel.signals) * self.capacities.ring * at.B_SIZE)

    # Parts

    def _part(self, number: int, table: PartTable) -> _Block:
        """Place a part's tables in C."""
        C, part, registers = self.C.words, table.part, table.registers
        senders = self.kernel.aiv_per_core if part.name == "aic" else 1
        pipes = at.U_SIZE + len(registers.initial)
        semaphores = pipes + MAX_PIPES * at.P_SIZE
        signals = semaphores + len(part.semaphores) * self.ring
        raised = signals + len(self.kernel.signals) * senders * self.ring
        sums = raised + len(self.kernel.signals)
        # Where some semaphores are unit flags, a sum for each: few enough not to be counted.
        size = sums + (len(part.semaphores) * at.SUM_SIZE if any(item.unit_flag for item in part.semaphores) else 0)
        block = _Block(at.U_SIZE, pipes, semaphores, signals, raised, sums, size, [], [])

        costs = self.C.add(self._costs(registers.costs, block))
        prologue = self._segment(table.prologue, block, costs)
        segments = [self._segment(segment, block, costs) for segment in table.segments]
        instructions = table.instructions
        instrs = [self._instr(number, words, instructions[position], part, block)
                  for position, words in enumerate(table.instrs)]
        base = self.parts[number]
        skipped = {loop: self._repetition(number, found, block) for loop, found in self.repetitions[number].items()}
        C[base + at.PT_CODE] = self._code(table, block, segments, instrs, skipped)
        C[base + at.PT_PROLOGUE], C[base + at.PT_PROLOGUE_END] = prologue
        C[base + at.PT_PIPES], C[base + at.PT_SIGNAL_RINGS] = block.pipes, block.signals
        C[base + at.PT_RAISED], C[base + at.PT_SENDERS] = block.raised, senders
        C[base + at.PT_PIPE_COUNT] = len(part.pipes)
        C[base + at.PT_SEMAPHORE_WAITS] = self.semaphore_waits[number]
        C[base + at.PT_SIGNAL_WAITS] = self.signal_waits[number]
        waiting = [0] * len(self.kernel.signals)
        for instr in instructions:
            if instr.signal is not None and instr.signal[0] == "wait":
                waiting[instr.signal[1]] = part.pipes.index(instr.pipe)
        C[base + at.PT_WAITING] = self.C.add(waiting)
        self._first_state(number, table, block)
        return block

    def _costs(self, costs: list[int], block: _Block) -> list[int]:
        """Work costs with the registers' places."""
        words = list(costs)
        position = 0
        while position < len(words):
            sizes = words[position + at.W_COUNT]
            position += at.W_SIZES
            for _ in range(sizes):
                words[position + 1] += block.registers
                words[position + 2] += block.registers
                position += at.W_SIZE_WORDS
        return words

    def _segment(self, segment: Segment, block: _Block, costs: int) -> tuple[int, int]:
        words = list(segment.words)
        for position in range(0, len(words), at.OP_WORDS):
            words[position + 1] += block.registers
            if words[position] == at.OP_WORK:
                words[position + 2] += costs
            else:
                words[position + 2] += block.registers
                words[position + 3] += block.registers
        start = self.C.add(words)
        return start, start + len(words)

    def _instr(self, number: int, words: list[int], instr, part: Part, block: _Block) -> int:  # type: ignore[no-untyped-def]
        words = list(words)
        for column in (at.I_BARRIER, at.I_V0, at.I_V1, at.I_V2):
            words[column] += block.registers
        words[at.I_PIPE_AT] = block.pipes + words[at.I_PIPE] * at.P_SIZE
        waits: list[int] = []
        for semaphore in instr.waits:
            category = WAIT_DATA if part.semaphores[semaphore].cause == "data" else WAIT_BUFFER
            waits += [block.semaphores + semaphore * self.ring,
                      self.semaphore_waits[number] + semaphore << at.CAUSE_BITS | category]
        posts: list[int] = []
        for semaphore in instr.posts:
            posts += [block.semaphores + semaphore * self.ring, 1 << part.pipes.index(part.semaphores[semaphore].target)]
        words[at.I_WAITS] = self.C.add(waits)
        words[at.I_WAITS_END] = words[at.I_WAITS] + len(waits)
        words[at.I_POSTS] = self.C.add(posts)
        words[at.I_POSTS_END] = words[at.I_POSTS] + len(posts)
        words[at.I_TRAFFIC] += self.traffic
        if instr.unit is not None:
            self._unit_flags(number, words, instr.unit, part, block)
        return self.C.add(words)

    def _unit_flags(self, number: int, words: list[int], unit: UnitFlag, part: Part, block: _Block) -> None:
        takes, gives = part.semaphores[unit.takes], part.semaphores[unit.posts]
        category = WAIT_DATA if takes.cause == "data" else WAIT_BUFFER
        words[at.I_TAKES] = block.semaphores + unit.takes * self.ring
        words[at.I_TAKES_CAUSE] = self.semaphore_waits[number] + unit.takes << at.CAUSE_BITS | category
        words[at.I_GIVES] = block.semaphores + unit.posts * self.ring
        words[at.I_GIVES_PIPE] = 1 << part.pipes.index(gives.target)
        words[at.I_SUM] = block.sums + unit.takes * at.SUM_SIZE
        words[at.I_IS_OVER] = -1 if takes.cause == "buffer" else 0

    def _code(self, table: PartTable, block: _Block, segments: list[tuple[int, int]], instrs: list[int],
              skipped: dict[int, int]) -> int:
        """Place the code with positions for the numbers of registers, segments and instructions."""
        words, start = list(table.code), len(self.C.words)
        position = 0
        while words[position] != at.CODE_END:
            if words[position] == at.CODE_INSTR:
                words[position + 1] = instrs[words[position + 1]]
                position += at.INSTR_WORDS
                continue
            enter = words[position] == at.CODE_ENTER
            for column in (1, 2, 3) if enter else (1, 2):
                words[position + column] += block.registers
            words[position + 4], words[position + 5] = segments[words[position + 4]]
            words[position + 6] += start
            words[position + 7] = skipped.get(words[position + 7], 0)
            position += at.ENTER_WORDS if enter else at.NEXT_WORDS
        return self.C.add(words)

    def _repetition(self, number: int, found: Repetition, block: _Block) -> int:
        """Place what is to be known of a loop that may be skipped, and room in the block to remember an iteration."""
        words = [0] * at.L_SIZE
        loop, part = found.loop, self.tables[number].part
        words[at.L_VAR], words[at.L_HIGH] = block.registers + loop.var.number, block.registers + loop.high.number
        words[at.L_STEP] = loop.step
        lists = {
            at.L_PIPES: [block.pipes + pipe * at.P_SIZE for pipe in found.pipes],
            at.L_RINGS: [block.semaphores + semaphore * self.ring for semaphore in found.semaphores],
            at.L_RANGES: [word for operation in found.ranges for word in self._placed_range(operation, block)],
            at.L_WATCHED: found.watched,
        }
        for column, items in lists.items():
            words[column] = self.C.add(items)
            words[column + 1] = words[column] + len(items)
        words[at.L_BOOKS], words[at.L_BOOKS_COUNT] = (
            loop.first * at.CATEGORY_COUNT, (loop.last - loop.first) * at.CATEGORY_COUNT)
        words[at.L_WAITS], words[at.L_WAITS_COUNT] = self.semaphore_waits[number], len(part.semaphores)
        words[at.L_SNAPSHOT] = block.size
        places = sum(2 + self._queue_places(self.tables[number], pipe)[0] for pipe in found.pipes)
        block.size += (at.N_SIZE + places + len(found.semaphores) * (1 + self.capacities.ring) + words[at.L_BOOKS_COUNT]
                       + words[at.L_WAITS_COUNT])
        return self.C.add(words)

    def _placed_range(self, operation: list[int], block: _Block) -> list[int]:
        words = list(operation)
        if words[0] == at.OP_WORK:
            words[2] += block.registers
        else:
            for column in (2, 4):
                words[column + 1] += block.registers * words[column]
        return words

    # Units

    def _queue_places(self, table: PartTable, pipe: int) -> tuple[int, bool]:
        """Instructions that a pipe's queue has room for here, and whether that is what the chip has.

        All places of a queue are kept, since the scalar unit waits for the one that was left first, unless the pipe is never
        given as many instructions.  What then is in the queue at once has no small bound.
        """
        name = table.part.pipes[pipe]
        depth = self.chip.dispatch.queue_depth[name]  # type: ignore[index]
        if table.executions[pipe] <= depth:
            return min(self.capacities.queue, table.executions[pipe]), False
        if depth > _DEEPEST_QUEUE:
            raise InputError(f"dispatch.queue_depth.{name} = {depth} is above the {_DEEPEST_QUEUE} places that the fast engine "
                             f"keeps; lower it or use the engine 'reference'")
        return depth, True

    def _first_state(self, number: int, table: PartTable, block: _Block) -> None:
        """A unit's block at cycle 0, but for what differs from unit to unit."""
        part, words = table.part, [0] * block.size
        words[at.U_PART], words[at.U_PC] = self.parts[number], self.C.words[self.parts[number] + at.PT_CODE]
        words[block.registers : block.registers + len(table.registers.initial)] = table.registers.initial
        for index, semaphore in enumerate(part.semaphores):
            # Initial tokens were posted at cycle 0, which is what the ring holds.
            words[block.semaphores + index * self.ring + at.R_TAIL] = semaphore.initial * (2 if semaphore.unit_flag else 1)
        block.words = words
        for pipe in sorted(table.executions):
            self._pipe(table, pipe, block)

    def _pipe(self, table: PartTable, number: int, block: _Block) -> None:
        """A pipe with its queue, and its window if it has a port, at the end of the block."""
        words, pipe = block.words, block.pipes + number * at.P_SIZE
        places, all_of_them = self._queue_places(table, number)
        queue = len(words)
        words += [0] * (places * at.Q_SIZE)
        words[pipe + at.P_CAPACITY], words[pipe + at.P_BOUNDED] = places, -1 if all_of_them else 0
        words[pipe + at.P_QUEUE_END] = len(words)
        for column in (at.P_QUEUE, at.P_HEAD, at.P_TAIL):
            words[pipe + column] = queue
        block.positions += [pipe + column for column in (at.P_QUEUE, at.P_HEAD, at.P_TAIL, at.P_QUEUE_END)]
        if any(words[at.I_PIPE] == number and words[at.I_KIND] == at.TRANSFER for words in table.instrs):
            words[pipe + at.P_WINDOW] = len(words)
            block.positions.append(pipe + at.P_WINDOW)
            words += [0] * (self.capacities.window * at.F_SIZE)

    def _units(self, blocks: list[_Block], books: int) -> tuple[np.ndarray, list[int], list[int]]:
        """The state at cycle 0, begin of each unit's block in it and of its books; one more is where all books end."""
        numbers = [self._number(unit) for unit in range(1 + self.kernel.aiv_per_core)]
        cores, first = self.kernel.cores, len(self.S.words)
        group = np.concatenate([np.array(blocks[number].words, np.int64) for number in numbers])
        S = np.concatenate([np.array(self.S.words, np.int64), np.tile(group, cores)])
        groups = S[first:].reshape(cores, len(group))
        begin, book = 0, books
        books_of_group = sum(len(self.tables[number].instrs) for number in numbers) * at.CATEGORY_COUNT
        core = np.arange(cores)
        bases, book_bases = [], []
        for sub, number in enumerate(numbers):
            block = blocks[number]
            base, own = first + core * len(group) + begin, book + core * books_of_group
            registers = begin + block.registers
            groups[:, begin + at.U_NUMBER] = core * len(numbers) + sub
            groups[:, begin + at.U_BOOKS] = own
            groups[:, begin + at.U_CORE] = groups[:, registers + self.tables[number].core.number] = core
            groups[:, begin + at.U_SUB] = groups[:, registers + self.tables[number].sub.number] = max(0, sub - 1)
            groups[:, [begin + position for position in block.positions]] += base[:, None]
            bases.append(base)
            book_bases.append(own)
            begin += len(block.words)
            book += len(self.tables[number].instrs) * at.CATEGORY_COUNT
        all_books = np.stack(book_bases, axis=1).ravel().tolist()
        return S, np.stack(bases, axis=1).ravel().tolist(), [*all_books, books + cores * books_of_group]

    def _ports(self) -> list[tuple[int, int]]:
        """Every (unit, pipe) that can ask the memory system, in the order in which requests of a tick are served."""
        pipes = [sorted({words[at.I_PIPE] for words in table.instrs if words[at.I_KIND] == at.TRANSFER})
                 for table in self.tables]
        return [(unit, pipe) for unit in range(self.units.count) for pipe in pipes[self._number(unit)]]


def first_books(count: int) -> np.ndarray:
    """The books at cycle 0."""
    T = np.zeros(count, np.int64)
    T[at.T_INTERVAL_SHIFT] = FIRST_INTERVAL_SHIFT
    return T


def retuned(machine: Machine, program: Program, tables: list[PartTable], capacities: Capacities) -> Machine:
    """The arrays of the same program at cycle 0 on another chip for which it is lowered alike, in the plain memory model."""
    words = Builder(program, tables, capacities, None, [{} for _ in tables]).memory_words()
    C = machine.C.copy()
    C[list(words)] = list(words.values())
    return replace(machine, C=C, roomy=bool(words[at.K_ROOMY]))


assert len(CATEGORIES) == at.CATEGORY_COUNT
