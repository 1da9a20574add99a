"""From a lowered program and a chip to the arrays that the compiled engine runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.expressions import LARGEST, Register, Registers, Scope, Segment
from msdsim.engine.memory import MemorySystem
from msdsim.errors import InputError, KernelError
from msdsim.ir.expr import Interval
from msdsim.ir.program import Instr, Loop, Node, Part, Program
from msdsim.ir.timing import Local, Transfer
from msdsim.timeline.record import CATEGORIES, MAX_PIPES, TRAFFIC, Units

#: Bandwidth over time is kept in at most this many intervals, the first of this many cycles.
INTERVALS, FIRST_INTERVAL = 512, 64
#: Ticks stay below this whatever the rates are: a tree key holds the tick above LEAF_BITS.
_MOST_TICKS = 2**42


@dataclass
class Capacities:
    """Room for what has no small bound of its own; the engine says when one is too small and is run again with more.

    Tokens in a ring, pieces in flight at a port, instructions in a queue.
    """

    ring: int = 64
    window: int = 256
    queue: int = 64

    def grow(self, status: int) -> None:
        """Double what was too small."""
        if status == at.RING_FULL:
            self.ring *= 2
        elif status == at.WINDOW_FULL:
            self.window *= 2
        else:
            self.queue *= 2
        if max(self.ring, self.window, self.queue) > 2**24:
            raise InputError("the kernel keeps more than 2**24 flags, pieces or instructions in flight on one core; lower the "
                             "queue depths or outstanding_bytes of the chip, or use the engine 'reference'")


@dataclass
class PartTable:
    """A part in compact form; positions inside ``words`` are relative until it is placed in ``C``."""

    part: Part
    registers: Registers
    core: Register
    sub: Register
    prologue: Segment = field(default_factory=Segment)
    code: list[int] = field(default_factory=list)
    #: Segments that the code names by number.
    segments: list[Segment] = field(default_factory=list)
    instrs: list[list[int]] = field(default_factory=list)
    #: Rows and bytes of a row of each transfer, at most.
    rectangles: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Machine:
    """The arrays, and where the totals of each unit and culprit are in the books."""

    C: np.ndarray
    S: np.ndarray
    T: np.ndarray
    unit_books: list[int]
    part_tables: list[PartTable]
    semaphore_waits: list[int]
    signal_waits: list[int]
    traffic: int
    unit_bases: list[int]
    pipe_bases: list[int]
    lines: int
    roomy: bool
    slots: int


def part_table(program: Program, part: Part) -> PartTable:
    """Compile the loops and expressions of a part."""
    kernel = program.kernel
    registers = Registers(f"kernel '{kernel.name}', part '{part.name}',")
    core = registers.variable(0, Interval(0, kernel.cores - 1))
    sub = registers.variable(0, Interval(0, max(0, kernel.aiv_per_core - 1)))
    table = PartTable(part, registers, core, sub)
    _Compiler(program, table).body(part.body, {"core": core, "sub": sub}, [table.prologue])
    table.code += [at.CODE_END]
    return table


class _Compiler:
    """Writes the code of one part."""

    def __init__(self, program: Program, table: PartTable) -> None:
        self.program, self.table, self.registers = program, table, table.registers
        self.addresses = program.kernel.addresses()
        self.tensors = [tensor.name for tensor in program.kernel.tensors]

    def body(self, nodes: Sequence[Node], scope: Scope, segments: list[Segment]) -> None:
        for node in nodes:
            if isinstance(node, Loop):
                self._loop(node, scope, segments)
            else:
                self.table.code += [at.CODE_INSTR, len(self.table.instrs)]
                self._instr(node, scope, segments)

    def _loop(self, loop: Loop, scope: Scope, segments: list[Segment]) -> None:
        if loop.step <= 0:
            raise KernelError(f"loop over '{loop.var}' has step {loop.step}; give a positive step")
        table, registers = self.table, self.registers
        low = registers.compile(loop.low, scope, segments)
        high = registers.compile(loop.high, scope, segments)
        values = Interval(low.range.low, max(low.range.low, high.range.high - 1))
        var = registers.variable(len(segments), values)
        segment = Segment()
        number = len(table.segments)
        table.segments.append(segment)
        enter = len(table.code)
        table.code += [at.CODE_ENTER, var.number, low.number, high.number, number, number, -1]
        body = len(table.code)
        self.body(loop.body, {**scope, loop.var: var}, [*segments, segment])
        table.code += [at.CODE_NEXT, var.number, high.number, loop.step, number, number, body]
        table.code[enter + at.ENTER_WORDS - 1] = len(table.code)

    def _instr(self, instr: Instr, scope: Scope, segments: list[Segment]) -> None:
        dispatch = self.program.chip.dispatch
        flags = len(instr.waits) + len(instr.posts)
        words = [0] * at.I_SIZE
        words[at.I_KIND] = at.SYNC
        words[at.I_PIPE] = self.table.part.pipes.index(instr.pipe)
        words[at.I_COST] = dispatch.issue_cycles * (1 + flags)
        words[at.I_FLAGS] = dispatch.flag_cycles * flags
        words[at.I_BARRIER] = self.registers.compile(instr.barrier, scope, segments).number
        for column in (at.I_V0, at.I_V1, at.I_V2):
            words[column] = self.registers.constant(0).number
        words[at.I_INDEX], words[at.I_BOOKS] = instr.index, instr.index * at.CATEGORY_COUNT
        if instr.signal is not None:
            words[at.I_SIGNAL_KIND] = at.RAISE if instr.signal[0] == "signal" else at.WAIT
            words[at.I_SIGNAL] = instr.signal[1]
        if isinstance(instr.timing, Local):
            self._local(words, instr.timing, scope, segments)
        elif isinstance(instr.timing, Transfer):
            self._transfer(words, instr.timing, scope, segments)
        self.table.instrs.append(words)

    def _local(self, words: list[int], timing: Local, scope: Scope, segments: list[Segment]) -> None:
        sizes = [self.registers.compile(size, scope, segments) for size in timing.dims]
        words[at.I_KIND] = at.LOCAL
        words[at.I_LATENCY], words[at.I_INTERVAL] = timing.cost.latency, timing.cost.interval
        words[at.I_V0] = self.registers.work(timing.cost, sizes, segments).number

    def _transfer(self, words: list[int], timing: Transfer, scope: Scope, segments: list[Segment]) -> None:
        cost = timing.cost
        words[at.I_KIND] = at.TRANSFER
        words[at.I_LATENCY], words[at.I_INTERVAL] = cost.latency, cost.interval
        address = self.addresses[timing.tensor] + timing.offset
        words[at.I_V0] = self.registers.compile(address, scope, segments).number
        rows = self.registers.compile(timing.rows, scope, segments)
        row_bytes = self.registers.compile(timing.row_bytes, scope, segments)
        words[at.I_V1], words[at.I_V2] = rows.number, row_bytes.number
        self.table.rectangles.append((max(0, rows.range.high), max(0, row_bytes.range.high)))
        words[at.I_SCALE], words[at.I_PER_BYTE] = cost.bytes_per_cycle.numerator, cost.bytes_per_cycle.denominator
        words[at.I_GRANULE], words[at.I_OUTSTANDING] = cost.granule_bytes, cost.outstanding_bytes
        words[at.I_MINIMUM], words[at.I_REQUEST] = cost.minimum, cost.request_bytes
        words[at.I_SMALLEST], words[at.I_LARGEST] = cost.smallest_request, cost.largest_request
        words[at.I_L2_NUMERATOR], words[at.I_L2_DENOMINATOR] = cost.l2_share.numerator, cost.l2_share.denominator
        words[at.I_STRIDE], words[at.I_WRITE] = timing.stride_bytes, int(timing.write)
        words[at.I_TRAFFIC] = self.tensors.index(timing.tensor) * len(TRAFFIC)


class _Words:
    """A growing array that says where things were put."""

    def __init__(self, words: list[int] | None = None) -> None:
        self.words = words or []

    def add(self, words: Sequence[int]) -> int:
        start = len(self.words)
        self.words += words
        return start

    def room(self, count: int, value: int = 0) -> int:
        return self.add([value] * count)


class Builder:
    """Places the parts' tables, the units' blocks and the books in the arrays."""

    def __init__(self, program: Program, tables: list[PartTable], capacities: Capacities) -> None:
        self.program, self.chip, self.tables, self.capacities = program, program.chip, tables, capacities
        self.kernel = program.kernel
        self.units = Units(self.kernel.cores, self.kernel.aiv_per_core)
        self.C = _Words([0] * at.K_SIZE)
        self.S = _Words([0] * at.G_SIZE)
        self.pipe_bases: list[int] = []

    def build(self) -> Machine:
        self._memory()
        self._signals()
        C = self.C.words
        books = at.T_BANDWIDTH + INTERVALS * len(TRAFFIC)
        traffic = books
        books += len(self.kernel.tensors) * len(TRAFFIC)
        semaphore_waits, signal_waits = [], []
        for table in self.tables:
            semaphore_waits.append(books)
            books += len(table.part.semaphores)
            signal_waits.append(books)
            books += len(self.kernel.signals)
        books = -(-books // at.CATEGORY_COUNT) * at.CATEGORY_COUNT
        C[at.K_PARTS] = self.C.room(len(self.tables) * at.PT_SIZE)
        layouts = [self._part(number, table, traffic) for number, table in enumerate(self.tables)]
        for number in range(len(self.tables)):
            part = C[at.K_PARTS] + number * at.PT_SIZE
            C[part + at.PT_SEMAPHORE_WAITS], C[part + at.PT_SIGNAL_WAITS] = semaphore_waits[number], signal_waits[number]
        ports = self._ports()
        leaves = 1
        while leaves < len(ports):
            leaves *= 2
        C[at.K_UNITS], C[at.K_LEAVES] = self.units.count, leaves
        C[at.K_LEAF_PORTS] = self.C.room(2 * len(ports))
        C[at.K_UNIT_BASES] = self.C.room(self.units.count)
        C[at.K_TREE] = self.S.room(2 * leaves, at.NEVER)
        C[at.K_STACK] = self.S.room(self.units.count)
        C[at.K_MISSED] = self.S.room(self._most_lines())
        unit_bases, unit_books = [], []
        for unit in range(self.units.count):
            number = 0 if self.units.part(unit) == "AIC" else 1
            unit_books.append(books)
            base = self._unit(unit, number, layouts[number], books)
            unit_bases.append(base)
            C[C[at.K_UNIT_BASES] + unit] = base
            books += len(self.tables[number].instrs) * at.CATEGORY_COUNT
        for leaf, (unit, pipe) in enumerate(ports):
            port = self.pipe_bases[unit] + pipe * at.P_SIZE
            self.S.words[port + at.P_LEAF] = leaf
            C[C[at.K_LEAF_PORTS] + 2 * leaf], C[C[at.K_LEAF_PORTS] + 2 * leaf + 1] = unit_bases[unit], pipe
        T = np.zeros(books, np.int64)
        T[at.T_INTERVAL] = FIRST_INTERVAL
        lines = -(-C[at.K_GM_BYTES] // C[at.K_LINE])
        return Machine(np.array(C, np.int64), np.array(self.S.words, np.int64), T, unit_books, self.tables, semaphore_waits,
                       signal_waits, traffic, unit_bases, self.pipe_bases, lines, bool(C[at.K_ROOMY]),
                       C[at.K_SETS] * C[at.K_WAYS])

    # Chip

    def _memory(self) -> None:
        chip, C = self.chip, self.C.words
        memory = MemorySystem(chip)
        line = chip.l2.line_bytes
        C[at.K_CHUNK], C[at.K_LINE] = chip.memory.chunk_bytes, line
        C[at.K_LINE_SHIFT] = line.bit_length() - 1 if line & (line - 1) == 0 else -1
        C[at.K_SETS], C[at.K_WAYS] = memory.l2.sets, memory.l2.ways
        addresses = self.kernel.addresses()
        C[at.K_GM_BYTES] = max((addresses[t.name] + t.size_bytes for t in self.kernel.tensors), default=0)
        # Every wrap of the line number over the sets visits each set once, so no set overflows while all lines fit.
        C[at.K_ROOMY] = int(-(-C[at.K_GM_BYTES] // line) <= memory.l2.sets * memory.l2.ways)
        scales = [(at.K_READ_SCALE, memory.l2_read), (at.K_WRITE_SCALE, memory.l2_write), (at.K_HBM_SCALE, memory.hbm)]
        for column, server in scales:
            C[column], C[column + 1] = server.scale, server.per_byte
        C[at.K_MISS_LATENCY] = memory.miss_latency
        C[at.K_TIME_LIMIT] = self._time_limit([server.scale for _, server in scales])
        C[at.K_SIGNAL_LATENCY] = chip.cross_core.signal_latency_cycles
        C[at.K_BARRIER_LATENCY] = chip.cross_core.barrier_latency_cycles
        C[at.K_INTERVALS] = INTERVALS
        C[at.K_RING_MASK], C[at.K_WINDOW_MASK] = self.capacities.ring - 1, self.capacities.window - 1
        C[at.K_AIVS], C[at.K_CORES] = self.kernel.aiv_per_core, self.kernel.cores

    def _transfers(self) -> list[Transfer]:
        return [instr.timing for part in self.program.parts for instr in part.instructions()
                if isinstance(instr.timing, Transfer)]

    def _time_limit(self, scales: list[int]) -> int:
        """The last tick at which no product of a tick or a piece's bytes with a rate's terms leaves 64 bits."""
        rates = [transfer.cost.bytes_per_cycle for transfer in self._transfers()]
        limit = min(_MOST_TICKS, LARGEST // max(scales + [rate.numerator for rate in rates]))
        chunk = self.chip.memory.chunk_bytes
        costs = [transfer.cost for transfer in self._transfers()]
        at_once = chunk * max([1] + [max(c.granule_bytes, 8 * c.request_bytes) * c.l2_share.denominator for c in costs])
        per_byte = [self.C.words[column] for column in (at.K_READ_PER_BYTE, at.K_WRITE_PER_BYTE, at.K_HBM_PER_BYTE)]
        if 2 * at_once * max(per_byte + [rate.denominator for rate in rates]) >= LARGEST:
            raise InputError(f"memory.chunk_bytes {chunk} is more than the fast engine can count with the rates of chip "
                             f"'{self.chip.name}'; lower it or use the engine 'reference'")
        return limit

    def _most_lines(self) -> int:
        """A bound on the lines that one piece touches: whole lines of its bytes, and two ends of each row."""
        chunk = self.chip.memory.chunk_bytes
        return max((min(chunk, rows * row_bytes) // self.chip.l2.line_bytes + 2 * min(chunk, rows)
                    for table in self.tables for rows, row_bytes in table.rectangles), default=0)

    def _signals(self) -> None:
        C, kernel = self.C.words, self.kernel
        C[at.K_SIGNALS] = len(kernel.signals)
        C[at.K_SIGNAL_TABLE] = self.C.room(len(kernel.signals) * at.SG_SIZE)
        kinds = {"aic_to_aiv": at.TO_AIV, "aiv_to_aic": at.TO_AIC, "barrier": at.BARRIER}
        for number, signal in enumerate(kernel.signals):
            base = C[at.K_SIGNAL_TABLE] + number * at.SG_SIZE
            C[base + at.SG_KIND] = kinds[signal.kind]
            raising = {part.name.upper() for part in self.program.parts
                       if any(instr.signal == ("signal", number) for instr in part.instructions())}
            C[base + at.SG_PARTICIPANTS] = sum(self.units.part(unit) in raising for unit in range(self.units.count))
        C[at.K_BARRIERS] = self.S.room(len(kernel.signals) * self.capacities.ring * at.B_SIZE)

    # Parts

    def _part(self, number: int, table: PartTable, traffic: int) -> dict[str, int]:
        """Place a part's tables; returns the positions inside a unit's block."""
        C = self.C.words
        part, registers = table.part, table.registers
        ring = at.R_TOKENS + self.capacities.ring
        senders = self.kernel.aiv_per_core if part.name == "aic" else 1
        offsets = {"registers": at.U_SIZE}
        offsets["pipes"] = offsets["registers"] + len(registers.initial)
        offsets["semaphores"] = offsets["pipes"] + MAX_PIPES * at.P_SIZE
        offsets["signals"] = offsets["semaphores"] + len(part.semaphores) * ring
        offsets["raised"] = offsets["signals"] + len(self.kernel.signals) * senders * ring
        offsets["end"] = offsets["raised"] + len(self.kernel.signals)
        moved = offsets["registers"]

        costs = self.C.add(registers.costs)
        position = 0
        while position < len(registers.costs):
            sizes = registers.costs[position + at.W_COUNT]
            for size in range(sizes):
                for column in (1, 2):
                    C[costs + position + at.W_SIZES + size * at.W_SIZE_WORDS + column] += moved
            position += at.W_SIZES + sizes * at.W_SIZE_WORDS
        prologue = self._segment(table.prologue, moved, costs)
        segments = [self._segment(segment, moved, costs) for segment in table.segments]
        instrs = [self._place_instr(table, position, words, offsets, traffic)
                  for position, words in enumerate(table.instrs)]
        code = self.C.add(table.code)
        self._place_code(code, segments, instrs, moved)
        base = C[at.K_PARTS] + number * at.PT_SIZE
        C[base + at.PT_CODE] = code
        C[base + at.PT_PROLOGUE], C[base + at.PT_PROLOGUE_END] = prologue
        C[base + at.PT_PIPES], C[base + at.PT_SIGNAL_RINGS] = offsets["pipes"], offsets["signals"]
        C[base + at.PT_RAISED], C[base + at.PT_SENDERS] = offsets["raised"], senders
        C[base + at.PT_CORE], C[base + at.PT_SUB] = table.core.number + moved, table.sub.number + moved
        C[base + at.PT_PIPE_COUNT] = len(part.pipes)
        waiting = [0] * len(self.kernel.signals)
        for instr in part.instructions():
            if instr.signal is not None and instr.signal[0] == "wait":
                waiting[instr.signal[1]] = part.pipes.index(instr.pipe)
        C[base + at.PT_WAITING] = self.C.add(waiting)
        C[base + at.PT_SEMAPHORES] = self.C.add([int(s.cause == "buffer") for s in part.semaphores])
        return offsets

    def _segment(self, segment: Segment, moved: int, costs: int) -> tuple[int, int]:
        words = list(segment.words)
        for position in range(0, len(words), at.OP_WORDS):
            words[position + 1] += moved
            if words[position] == at.OP_WORK:
                words[position + 2] += costs
            else:
                words[position + 2] += moved
                words[position + 3] += moved
        start = self.C.add(words)
        return start, start + len(words)

    def _place_instr(self, table: PartTable, position: int, words: list[int], offsets: dict[str, int], traffic: int) -> int:
        instr = table.part.instructions()[position]
        ring = at.R_TOKENS + self.capacities.ring
        words = list(words)
        for column in (at.I_BARRIER, at.I_V0, at.I_V1, at.I_V2):
            words[column] += offsets["registers"]
        waits: list[int] = []
        for number in instr.waits:
            waits += [offsets["semaphores"] + number * ring, number]
        posts: list[int] = []
        for number in instr.posts:
            posts += [offsets["semaphores"] + number * ring,
                      table.part.pipes.index(table.part.semaphores[number].target)]
        words[at.I_WAITS] = self.C.add(waits)
        words[at.I_WAITS_END] = words[at.I_WAITS] + len(waits)
        words[at.I_POSTS] = self.C.add(posts)
        words[at.I_POSTS_END] = words[at.I_POSTS] + len(posts)
        words[at.I_TRAFFIC] += traffic
        return self.C.add(words)

    def _place_code(self, code: int, segments: list[tuple[int, int]], instrs: list[int], moved: int) -> None:
        C = self.C.words
        at_word = code
        while C[at_word] != at.CODE_END:
            if C[at_word] == at.CODE_INSTR:
                C[at_word + 1] = instrs[C[at_word + 1]]
                at_word += at.INSTR_WORDS
            elif C[at_word] == at.CODE_ENTER:
                for column in (1, 2, 3):
                    C[at_word + column] += moved
                C[at_word + 4], C[at_word + 5] = segments[C[at_word + 4]]
                C[at_word + 6] += code
                at_word += at.ENTER_WORDS
            else:
                for column in (1, 2):
                    C[at_word + column] += moved
                C[at_word + 4], C[at_word + 5] = segments[C[at_word + 4]]
                C[at_word + 6] += code
                at_word += at.NEXT_WORDS

    # Units

    def _ports(self) -> list[tuple[int, int]]:
        """Every (unit, pipe) that can ask the memory system, in the order in which requests of a tick are served."""
        pipes = [sorted({table.part.pipes.index(instr.pipe) for instr in table.part.instructions()
                         if isinstance(instr.timing, Transfer)}) for table in self.tables]
        return [(unit, pipe) for unit in range(self.units.count)
                for pipe in pipes[0 if self.units.part(unit) == "AIC" else 1]]

    def _unit(self, unit: int, number: int, offsets: dict[str, int], books: int) -> int:
        table, S = self.tables[number], self.S
        part = self.C.words[at.K_PARTS] + number * at.PT_SIZE
        base = S.room(offsets["end"])
        words = S.words
        words[base + at.U_PART], words[base + at.U_NUMBER], words[base + at.U_BOOKS] = part, unit, books
        words[base + at.U_PC] = self.C.words[part + at.PT_CODE]
        words[base + at.U_CORE], words[base + at.U_SUB] = self.units.core(unit), self.units.sub(unit)
        registers = base + offsets["registers"]
        words[registers : registers + len(table.registers.initial)] = table.registers.initial
        words[registers + table.core.number] = self.units.core(unit)
        words[registers + table.sub.number] = self.units.sub(unit)
        ring = at.R_TOKENS + self.capacities.ring
        for index, semaphore in enumerate(table.part.semaphores):
            # Initial tokens were posted at cycle 0, which is what the ring holds.
            words[base + offsets["semaphores"] + index * ring + at.R_TAIL] = semaphore.initial
        used = {table.part.pipes.index(instr.pipe) for instr in table.part.instructions()}
        transferring = {table.part.pipes.index(instr.pipe) for instr in table.part.instructions()
                        if isinstance(instr.timing, Transfer)}
        for pipe, name in enumerate(table.part.pipes):
            if pipe in used:
                self._pipe(base + offsets["pipes"] + pipe * at.P_SIZE, self.chip.dispatch.queue_depth[name],  # type: ignore[index]
                           pipe in transferring)
        self.pipe_bases.append(base + offsets["pipes"])
        return base

    def _pipe(self, pipe: int, depth: int, transfers: bool) -> None:
        S, words = self.S, self.S.words
        capacity = min(depth, self.capacities.queue)
        queue = S.room(capacity * at.Q_SIZE)
        for column, value in ((at.P_DEPTH, depth), (at.P_CAPACITY, capacity), (at.P_QUEUE, queue),
                              (at.P_QUEUE_END, queue + capacity * at.Q_SIZE), (at.P_HEAD, queue), (at.P_TAIL, queue)):
            words[pipe + column] = value
        if transfers:
            words[pipe + at.P_WINDOW] = S.room(self.capacities.window * at.WINDOW_SIZE)


assert len(CATEGORIES) == at.CATEGORY_COUNT
