"""The memory system of the reference engine: ports and L2 as servers with exact rates, HBM as one more or bank by bank.

A transfer is cut into pieces of at most ``chunk_bytes``.  A core's port requests one piece after the other at its own rate
and keeps at most ``outstanding_bytes`` of data in flight.  L2 (read and write side) and HBM serve requests in
the order of (cycle, unit, pipe); each server's next free time is kept as a numerator over its rate, so that no rounding
accumulates.

A line of L2 is served to one core after the other, ``same_line_cycles`` each.  Only the first line of a piece is looked at:
cores that ask for the same data ask for the same pieces, and the lines of a piece are served side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeVar

import numpy as np

from msdsim.engine.banked import BankedMemory, BankedTimings
from msdsim.errors import InputError
from msdsim.hardware.chip import Chip
from msdsim.timeline.l2_state import L2State
from msdsim.units import bytes_per_tick, ceil_div, exact

#: Odd step by which consecutive wraps of the line number are skewed over the L2 sets, so that strided tiles spread out.
SET_SKEW = 7919

LineNumbers = TypeVar("LineNumbers", int, np.ndarray)


class Server:
    """Serves bytes first come first served at an exact rate; time is counted in units of 1/numerator cycle."""

    def __init__(self, rate: Fraction) -> None:
        self.scale, self.per_byte = rate.numerator, rate.denominator
        self.free = 0

    def serve(self, now: int, count: int) -> int:
        """Cycle (rounded up) at which ``count`` bytes asked for at ``now`` have passed."""
        self.free = max(self.free, now * self.scale) + count * self.per_byte
        return ceil_div(self.free, self.scale)


def l2_geometry(chip: Chip) -> tuple[int, int, int]:
    """Line size, sets and ways of a chip's L2."""
    return chip.l2.line_bytes, chip.l2.capacity_bytes // (chip.l2.line_bytes * chip.l2.ways), chip.l2.ways


def set_of(line: LineNumbers, sets: int) -> LineNumbers:
    """The set, of ``sets``, that a line belongs to, or those that an array of lines belong to."""
    return (line + line // sets * SET_SKEW) % sets


def check_l2(state: L2State | None, chip: Chip) -> None:
    """Refuse the state of another cache."""
    if state is not None and state.geometry != l2_geometry(chip):
        sizes = ["{2} ways of {1} lines of {0} bytes".format(*geometry) for geometry in (state.geometry, l2_geometry(chip))]
        raise InputError(f"the L2 state is of a cache of {sizes[0]}, and chip '{chip.name}' has {sizes[1]}; start with an "
                         f"empty one")


class Turns:
    """Pieces that begin with the same line are served to one core after the other, ``cycles`` each (0: all at once)."""

    def __init__(self, cycles: int) -> None:
        self.cycles = cycles
        # By line: the cycle from which it can be served to another core than the last one, and that one.
        self.free: dict[int, tuple[int, int]] = {}

    def start(self, now: int, line: int, unit: int) -> int:
        """The cycle from which a line asked for at ``now`` is served to ``unit``.

        A core that was the last one does not wait for itself, only for what it had to wait for then.
        """
        free, last = self.free.get(line, (0, 0))
        return max(now, free - self.cycles if last == unit else free)

    def serve(self, line: int, unit: int, start: int) -> None:
        """Serve it from ``start``."""
        self.free[line] = start + self.cycles, unit


@dataclass(slots=True)
class CacheLine:
    """A line in L2; ``arrival`` is the cycle at which its data is there."""

    number: int
    dirty: bool
    arrival: int = 0


class L2Cache:
    """Set-associative, LRU, write-back, write-allocate without fetch (writes carry byte masks)."""

    def __init__(self, chip: Chip) -> None:
        self.line, self.sets, self.ways = l2_geometry(chip)
        self.sector = chip.l2.sector
        self.sectors = self.line // self.sector
        # Per set the resident lines, most recently used first.
        self.content: dict[int, list[CacheLine]] = {}

    def sectors_of(self, line: int, address: int, count: int) -> int:
        """Sectors of a line that ``count`` bytes from ``address`` touch."""
        begin, end = max(address, line * self.line), min(address + count, (line + 1) * self.line)
        return ceil_div(end, self.sector) - begin // self.sector

    def find(self, line: int, write: bool) -> CacheLine | None:
        """A resident line, from now on the most recently used of its set; None on a miss."""
        entries = self.content.get(set_of(line, self.sets), [])
        for index, entry in enumerate(entries):
            if entry.number == line:
                entries.insert(0, entries.pop(index))
                entry.dirty |= write
                return entry
        return None

    def insert(self, entry: CacheLine) -> int:
        """Take a line in; the number of the dirty line that had to leave for it, or -1."""
        entries = self.content.setdefault(set_of(entry.number, self.sets), [])
        entries.insert(0, entry)
        evicted = entries.pop() if len(entries) > self.ways else None
        return evicted.number if evicted is not None and evicted.dirty else -1

    def load(self, state: L2State) -> None:
        """Begin with what another kernel has left."""
        for number, dirty in zip(state.lines.tolist(), state.dirty.tolist(), strict=True):
            self.insert(CacheLine(number, dirty))

    def state(self) -> L2State:
        """What is left to another kernel."""
        entries = [entry for number in sorted(self.content) for entry in reversed(self.content[number])]
        return L2State(self.line, self.sets, self.ways, np.array([entry.number for entry in entries], np.int64),
                       np.array([entry.dirty for entry in entries], bool))

    def dirty_bytes(self) -> int:
        return self.line * sum(entry.dirty for entries in self.content.values() for entry in entries)


@dataclass
class Asked:
    """What a piece asks of HBM: lines that L2 has not, the ``sectors`` of each that are read, and lines that are written there;
    ``ready`` is when those that L2 has are there."""

    missed: list[CacheLine] = field(default_factory=list)
    sectors: list[int] = field(default_factory=list)
    to_hbm: list[int] = field(default_factory=list)
    ready: int = 0


class MemorySystem:
    """L2 and HBM behind the cores' ports; ``model`` is the fidelity of HBM, ``state`` what is in L2 at cycle 0."""

    def __init__(self, chip: Chip, model: str = "bandwidth", state: L2State | None = None) -> None:
        clock = chip.clock_mhz
        self.l2 = L2Cache(chip)
        if state is not None:
            self.l2.load(state)
        self.turns = Turns(chip.l2.same_line_cycles)
        self.l2_read = Server(bytes_per_tick(chip.l2.read_gbps, clock))
        self.l2_write = Server(bytes_per_tick(chip.l2.write_gbps, clock))
        self.hbm = Server(bytes_per_tick(chip.hbm.bandwidth_gbps, clock) * exact(chip.hbm.efficiency))
        self.miss_latency, self.write_back = chip.hbm.extra_latency_cycles, chip.hbm.write_back_cycles
        self.banked = BankedMemory(BankedTimings.of(chip)) if model == "banked" else None

    def access(self, now: int, unit: int, segments: list[tuple[int, int]], write: bool, l2_bytes: int,
               bypass: bool = False) -> tuple[int, int, int]:
        """Serve the row segments (address, bytes) of one piece that ``unit`` asks for at ``now``; it takes ``l2_bytes`` of L2's
        time.  With ``bypass`` a line that is not in L2 passes it by.

        Returns the cycle its data has passed L2 (and HBM where it had to), and the HBM bytes read and written for it.
        """
        found = self._look_up(segments, write, bypass)
        done = max(found.ready, (self.l2_write if write else self.l2_read).serve(now, l2_bytes))
        hbm_read, hbm_write = sum(found.sectors) * self.l2.sector, len(found.to_hbm) * self.l2.line
        if self.banked is not None or hbm_read or hbm_write:
            done = max(done, self._from_hbm(now, found, hbm_read + hbm_write))
        if self.turns.cycles:
            first = segments[0][0] // self.l2.line
            start = self.turns.start(now, first, unit)
            done = max(done, start)
            if found.missed and found.missed[0].number == first:
                start = max(start, found.missed[0].arrival)
            self.turns.serve(first, unit, start)
        return done, hbm_read, hbm_write

    def _look_up(self, segments: list[tuple[int, int]], write: bool, bypass: bool) -> Asked:
        """Find the lines of the segments in L2, or take them in."""
        asked, last = Asked(), -1
        for address, count in segments:
            for number in range(address // self.l2.line, (address + count - 1) // self.l2.line + 1):
                # Rows that share a line ask for it once.
                if number == last:
                    if bypass and asked.missed and asked.missed[-1].number == number:
                        sectors = asked.sectors[-1] + self.l2.sectors_of(number, address, count)
                        asked.sectors[-1] = min(self.l2.sectors, sectors)
                    continue
                last = number
                entry = self.l2.find(number, write)
                if entry is not None:
                    asked.ready = max(asked.ready, 0 if write else entry.arrival)
                    continue
                entry = CacheLine(number, write)
                evicted = -1 if bypass else self.l2.insert(entry)
                if evicted >= 0:
                    asked.to_hbm.append(evicted)
                if not write:
                    asked.missed.append(entry)
                    asked.sectors.append(self.l2.sectors_of(number, address, count) if bypass else self.l2.sectors)
                elif bypass:
                    asked.to_hbm.append(number)
        return asked

    def _from_hbm(self, now: int, asked: Asked, hbm_bytes: int) -> int:
        """The cycle at which the last line that was missed is there: later where one that has been written makes room for it,
        as that is written back first."""
        written_back = self.write_back if asked.to_hbm else 0
        if self.banked is None:
            served = self.hbm.serve(now, hbm_bytes) + (self.miss_latency + written_back if asked.missed else 0)
            for entry in asked.missed:
                entry.arrival = served
            return served
        # Reads first: what they displace waits in the write queues.
        for entry, sectors in zip(asked.missed, asked.sectors, strict=True):
            entry.arrival = self.banked.read(now, entry.number, Fraction(sectors, self.l2.sectors)) + written_back
        for number in asked.to_hbm:
            self.banked.write(now, number)
        return max((entry.arrival for entry in asked.missed), default=0)


def pieces(address: int, rows: int, row_bytes: int, stride: int, chunk: int,
           merge: bool = True, held: int = 0) -> Iterator[list[tuple[int, int]]]:
    """Cut a rectangle of bytes into pieces: parts of a long row, or several short rows together.

    With ``merge``, rows that lie one behind the other are one long row.  ``held`` is what a short row takes of the window.
    """
    if rows <= 0 or row_bytes <= 0:
        return
    if merge and stride == row_bytes:
        rows, row_bytes = 1, rows * row_bytes
    if row_bytes >= chunk:
        for row in range(rows):
            start = address + row * stride
            for at in range(0, row_bytes, chunk):
                yield [(start + at, min(chunk, row_bytes - at))]
        return
    group = max(1, chunk // max(held, row_bytes))
    for first in range(0, rows, group):
        yield [(address + row * stride, row_bytes) for row in range(first, min(rows, first + group))]
