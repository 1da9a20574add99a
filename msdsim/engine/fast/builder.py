"""Places a program's tables, the units' blocks and the books in the arrays that the compiled engine runs on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msdsim.engine.banked import BankedTimings
from msdsim.engine.fast import banked_layout
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.capacities import Capacities
from msdsim.engine.fast.expressions import LARGEST
from msdsim.engine.fast.l2_layout import PC_SIZE
from msdsim.engine.fast.part_block import PartBlock, PartBooks
from msdsim.engine.fast.repetition import Repetition
from msdsim.engine.fast.tables import PartTable
from msdsim.engine.fast.words import Words
from msdsim.engine.memory import MemorySystem
from msdsim.errors import InputError
from msdsim.ir.program import Program
from msdsim.ir.timing import Transfer
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import CATEGORIES, TRAFFIC, Units
from msdsim.units import ceil_div, round_up

#: Bandwidth over time is kept in at most this many intervals, the first of 2**6 cycles.
INTERVALS, FIRST_INTERVAL_SHIFT = 512, 6
#: Ticks stay below this whatever the rates are: a tree key holds the tick above LEAF_BITS.
_MOST_TICKS = 2**42
#: Most blocks of L2.pieces that all have a place of their own, and places in the table for more.
MOST_BLOCKS, TABLE_BLOCKS = 2**20, 2**18


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
    #: Lines of GM, words of L2.pieces for them and where in these turns begin that must be cleared (the last ones), and whether
    #: all lines fit into L2.
    lines: int
    pieces: int
    turns: int
    roomy: bool


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
        self.timings, self.repetitions = timings, repetitions

    def build(self) -> Machine:
        C = self.C.words
        self._memory()
        self._signals()
        books = self._books()
        C[at.K_PARTS] = self.C.room(len(self.tables) * at.PT_SIZE)
        self.parts = [C[at.K_PARTS] + number * at.PT_SIZE for number in range(len(self.tables))]
        blocks = [PartBlock(self.C, base, self.program, table, self.capacities, PartBooks(semaphores, signals, self.traffic))
                  for base, table, semaphores, signals
                  in zip(self.parts, self.tables, self.semaphore_waits, self.signal_waits, strict=True)]
        for block, repetitions in zip(blocks, self.repetitions, strict=True):
            block.place(repetitions)
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
                       *self._piece_words(), bool(C[at.K_ROOMY]))

    def _piece_words(self) -> tuple[int, int]:
        """Words of L2.pieces, and the first of those that are turns and nothing else."""
        C = self.C.words
        blocks = C[at.K_TURN_LINES] * C[at.K_TURN_PIECES]
        words = C[at.K_TURNS] + blocks if C[at.K_TURNS] else blocks * PC_SIZE
        return words, C[at.K_TURNS] or words

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
        # Most of very many lines are asked for once: a table of blocks then keeps what may be asked for again.
        many = C[at.K_TURN_LINES] * C[at.K_TURN_PIECES] > MOST_BLOCKS
        C[at.K_PIECE_MASK] = TABLE_BLOCKS - 1 if many else -1
        C[at.K_TURNS] = TABLE_BLOCKS * PC_SIZE if many else 0
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

    def _units(self, blocks: list[PartBlock], books: int) -> tuple[np.ndarray, list[int], list[int]]:
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
