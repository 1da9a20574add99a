"""The memory system of the reference engine: ports and L2 as servers with exact rates, HBM as one more or bank by bank.

A transfer is cut into pieces of at most ``chunk_bytes``.  A core's port requests one piece after the other at its own rate
and keeps at most ``outstanding_bytes`` of data in flight.  L2 (read and write side) and HBM serve requests in
the order of (cycle, unit, pipe); each server's next free time is kept as a numerator over its rate, so that no rounding
accumulates.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from msdsim.engine.banked import BankedMemory, BankedTimings
from msdsim.hardware.chip import Chip
from msdsim.units import bytes_per_tick, ceil_div, exact

#: Odd step by which consecutive wraps of the line number are skewed over the L2 sets, so that strided tiles spread out.
SET_SKEW = 7919


class Server:
    """Serves bytes first come first served at an exact rate; time is counted in units of 1/numerator cycle."""

    def __init__(self, rate: Fraction) -> None:
        self.scale, self.per_byte = rate.numerator, rate.denominator
        self.free = 0

    def serve(self, now: int, count: int) -> int:
        """Cycle (rounded up) at which ``count`` bytes asked for at ``now`` have passed."""
        self.free = max(self.free, now * self.scale) + count * self.per_byte
        return ceil_div(self.free, self.scale)


class L2Cache:
    """Set-associative, LRU, write-back, write-allocate without fetch (writes carry byte masks)."""

    def __init__(self, chip: Chip) -> None:
        self.line = chip.l2.line_bytes
        self.ways = chip.l2.ways
        self.sets = chip.l2.capacity_bytes // (self.line * self.ways)
        # Per set the resident lines, most recently used first: [line, dirty, cycle its data is there].
        self.content: dict[int, list[list[int]]] = {}

    def touch(self, line: int, write: bool) -> tuple[list[int], bool, int]:
        """Access a line: its entry, whether it missed, and the dirty line that had to leave for it, or -1."""
        entries = self.content.setdefault((line + line // self.sets * SET_SKEW) % self.sets, [])
        for index, entry in enumerate(entries):
            if entry[0] == line:
                entries.insert(0, entries.pop(index))
                entry[1] |= write
                return entry, False, -1
        entry = [line, int(write), 0]
        entries.insert(0, entry)
        evicted = entries.pop() if len(entries) > self.ways else None
        return entry, True, evicted[0] if evicted is not None and evicted[1] else -1

    def dirty_bytes(self) -> int:
        return self.line * sum(entry[1] for entries in self.content.values() for entry in entries)


class MemorySystem:
    """L2 and HBM behind the cores' ports; ``model`` is the fidelity of HBM."""

    def __init__(self, chip: Chip, model: str = "bandwidth") -> None:
        clock = chip.clock_mhz
        self.l2 = L2Cache(chip)
        self.l2_read = Server(bytes_per_tick(chip.l2.read_gbps, clock))
        self.l2_write = Server(bytes_per_tick(chip.l2.write_gbps, clock))
        self.hbm = Server(bytes_per_tick(chip.hbm.bandwidth_gbps, clock) * exact(chip.hbm.efficiency))
        self.miss_latency = chip.hbm.extra_latency_cycles
        self.banked = BankedMemory(BankedTimings.of(chip)) if model == "banked" else None

    def access(self, now: int, segments: list[tuple[int, int]], write: bool, l2_bytes: int) -> tuple[int, int, int]:
        """Serve the row segments (address, bytes) of one piece asked for at ``now``, which takes ``l2_bytes`` of L2's time.

        Returns the cycle its data has passed L2 (and HBM where it had to), and the HBM bytes read and written for it.
        """
        missed: list[list[int]] = []
        written_back: list[int] = []
        ready = 0
        for address, count in segments:
            for line in range(address // self.l2.line, (address + count - 1) // self.l2.line + 1):
                entry, miss, evicted = self.l2.touch(line, write)
                if evicted >= 0:
                    written_back.append(evicted)
                if miss and not write:
                    missed.append(entry)
                elif not miss and not write:
                    ready = max(ready, entry[2])
        done = max(ready, (self.l2_write if write else self.l2_read).serve(now, l2_bytes))
        hbm_read, hbm_write = len(missed) * self.l2.line, len(written_back) * self.l2.line
        if self.banked is not None:
            # Reads first: what they displace waits in the write queues.
            for entry in missed:
                entry[2] = self.banked.read(now, entry[0])
                done = max(done, entry[2])
            for line in written_back:
                self.banked.write(now, line)
        elif hbm_read or hbm_write:
            served = self.hbm.serve(now, hbm_read + hbm_write)
            if missed:
                served += self.miss_latency
            for entry in missed:
                entry[2] = served
            done = max(done, served)
        return done, hbm_read, hbm_write


def pieces(address: int, rows: int, row_bytes: int, stride: int, chunk: int,
           merge: bool = True) -> Iterator[list[tuple[int, int]]]:
    """Cut a rectangle of bytes into pieces: parts of a long row, or several short rows together.

    With ``merge``, rows that lie one behind the other are one long row.
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
    group = chunk // row_bytes
    for first in range(0, rows, group):
        yield [(address + row * stride, row_bytes) for row in range(first, min(rows, first + group))]
