"""HBM at the level of banks: channels, row buffers, refresh and the direction of the bus, with timings of the JEDEC standard.

Time here is counted in clocks of the memory, converted exactly to and from cycles of the core clock.  Requests are whole
lines of L2.  A line lies in one row of one bank; neighbouring lines lie in different pseudo-channels, then in the same row,
then in other bank groups; channels and banks are skewed so that powers of two spread.

The scheduler is the closest to FR-FCFS that needs no knowledge of requests still to come.  Each bank serves its
requests in the order of arrival and opens a row as soon as the request is there.  What the banks of a channel share, the
bus and the distance between activations, is given out in the order of arrival too, but a request that waits for its bank
does not hold it, as others would be served first.  Writes wait in a queue of their channel and go together, rows in order,
when the queue is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from msdsim.errors import InputError
from msdsim.hardware.chip import Chip
from msdsim.units import ceil_div, exact

#: Odd weights of a line's digits, to the base of the channels, in its channel; and the skew of rows over the banks.
DIGITS = (7, 11, 3)
BANK_SKEW = 5


@dataclass(frozen=True)
class BankedTimings:
    """The chip's banked memory in whole clocks of the memory; ``clock`` is memory clocks per core cycle.

    ``activation`` is the distance of activations in a channel: tRRD, or a quarter of tFAW.
    """

    clock: Fraction
    channels: int
    groups: int
    banks: int
    bursts: int
    slots: int
    short: int
    long: int
    rcd: int
    rp: int
    cl: int
    cwl: int
    ras: int
    rtp: int
    wr: int
    activation: int
    rfc: int
    refi: int
    read_to_write: int
    write_to_read: int
    write_batch: int
    controller: int

    @staticmethod
    def of(chip: Chip) -> BankedTimings:
        """Nanoseconds of the chip file as clocks, rounded up as the standard does."""
        b = chip.hbm.banked
        if b is None:
            raise InputError(f"chip '{chip.name}' has no table [hbm.banked]; use the memory model 'bandwidth'")
        channels = b.stacks * b.channels_per_stack * b.pseudo_channels
        mhz = exact(chip.hbm.bandwidth_gbps) * 1000 / (channels * b.bytes_per_clock)

        def clocks(ns: float) -> int:
            return ceil(exact(ns) * mhz / 1000)

        length = ceil_div(b.burst_bytes, b.bytes_per_clock)
        cl, cwl = clocks(b.tcl_ns), clocks(b.tcwl_ns)
        return BankedTimings(
            clock=mhz / exact(chip.clock_mhz), channels=channels, groups=b.bank_groups, banks=b.bank_groups * b.banks_per_group,
            bursts=ceil_div(chip.l2.line_bytes, b.burst_bytes), slots=max(1, b.row_bytes // chip.l2.line_bytes),
            short=b.tccd_short_clocks, long=b.tccd_long_clocks, rcd=clocks(b.trcd_ns), rp=clocks(b.trp_ns), cl=cl,
            cwl=cwl, ras=clocks(b.tras_ns), rtp=clocks(b.trtp_ns), wr=clocks(b.twr_ns),
            activation=max(clocks(b.trrd_ns), ceil_div(clocks(b.tfaw_ns), 4)), rfc=clocks(b.trfc_ns),
            refi=clocks(b.trefi_ns), read_to_write=max(0, cl + length + 2 - cwl),
            write_to_read=cwl + length + clocks(b.twtr_ns), write_batch=b.write_batch_lines, controller=b.controller_cycles,
        )


class Counters:
    """What the banks did: rows opened, after another one or not; refreshes; turns of the bus; bursts by channel."""

    def __init__(self, channels: int) -> None:
        self.misses = self.conflicts = self.refreshes = self.turns = 0
        self.reads, self.writes = [0] * channels, [0] * channels

    def to_json(self, timings: BankedTimings, cycles: int) -> dict[str, object]:
        """Plain data; ``cycles`` is the length of the run."""
        bursts = sum(self.reads) + sum(self.writes)
        opened = self.misses + self.conflicts
        clocks = max(1, int(cycles * timings.clock)) * timings.channels
        return {
            "read_bursts": sum(self.reads), "write_bursts": sum(self.writes), "row_misses": self.misses,
            "row_conflicts": self.conflicts, "row_hit_rate": 1 - opened / bursts if bursts else 0.0,
            "refreshes": self.refreshes, "refresh_share": self.refreshes * timings.rfc / clocks, "bus_turns": self.turns,
            "read_bursts_by_channel": list(self.reads), "write_bursts_by_channel": list(self.writes),
        }


class BankedMemory:
    """State of all banks and channels; see the module's text."""

    def __init__(self, timings: BankedTimings) -> None:
        t = self.timings = timings
        self.counters = Counters(t.channels)
        banks = t.banks
        self.row = [[-1] * banks for _ in range(t.channels)]
        # The clock at which a bank's open row takes columns, was activated, and can next be closed (or, when closed, opened).
        self.ready = [[0] * banks for _ in range(t.channels)]
        self.opened = [[0] * banks for _ in range(t.channels)]
        self.close = [[0] * banks for _ in range(t.channels)]
        self.activation_free = [0] * t.channels
        self.group_free = [[0] * t.groups for _ in range(t.channels)]
        self.free, self.writing = [0] * t.channels, [False] * t.channels
        # All channels are refreshed together: spread over the interval, a piece of a few lines would wait far more often.
        self.refresh_at = [t.refi] * t.channels
        self.queue: list[list[int]] = [[] for _ in range(t.channels)]

    def read(self, now: int, line: int, share: Fraction = Fraction(1)) -> int:
        """The cycle at which a line asked for at cycle ``now``, or a ``share`` of it, has been read."""
        t = self.timings
        bursts = ceil_div(t.bursts * share.numerator, share.denominator)
        end = self._line(self._clock(now), line, bursts, write=False)
        return ceil_div(end * t.clock.denominator, t.clock.numerator) + t.controller

    def write(self, now: int, line: int) -> None:
        """Take a line to be written; a full queue goes to the banks at once."""
        channel, _ = self._place(line)
        waiting = self.queue[channel]
        waiting.append(line)
        if len(waiting) == self.timings.write_batch:
            for item in sorted(waiting):
                self._line(self._clock(now), item, self.timings.bursts, write=True)
            waiting.clear()

    def _clock(self, cycle: int) -> int:
        return ceil_div(cycle * self.timings.clock.numerator, self.timings.clock.denominator)

    def _place(self, line: int) -> tuple[int, int]:
        """Channel of a line and its number inside the channel."""
        channels = self.timings.channels
        inside = rest = line // channels
        channel = line
        for weight in DIGITS:
            channel += weight * rest
            rest //= channels
        return channel % channels, inside

    def _line(self, now: int, line: int, bursts: int, write: bool) -> int:
        """Schedule the columns of a line; the clock after its last data."""
        t = self.timings
        channel, inside = self._place(line)
        self._refresh(channel, now)
        number = inside // t.slots
        row = number // t.banks
        bank = (number + row * BANK_SKEW) % t.banks
        group = bank % t.groups
        ready = self._open(channel, bank, row, now)
        if write != self.writing[channel]:
            self.free[channel] += t.read_to_write if write else t.write_to_read
            self.writing[channel] = write
            self.counters.turns += 1
        # The bus carries bursts of several bank groups in turn; those of one group keep the long distance.
        on_bus = max(self.free[channel], now)
        self.free[channel] = on_bus + bursts * t.short
        start = max(ready, on_bus, self.group_free[channel][group])
        last = start + (bursts - 1) * t.long
        self.group_free[channel][group] = last + t.long
        after = last + (t.cwl + t.short + t.wr if write else t.rtp)
        self.close[channel][bank] = max(self.opened[channel][bank] + t.ras, after)
        (self.counters.writes if write else self.counters.reads)[channel] += bursts
        return last + t.short + (t.cwl if write else t.cl)

    def _open(self, channel: int, bank: int, row: int, now: int) -> int:
        """Have a row open in a bank; the clock from which it takes columns."""
        t = self.timings
        found = self.row[channel][bank]
        if found == row:
            return self.ready[channel][bank]
        at = max(now, self.close[channel][bank])
        if found >= 0:
            self.counters.conflicts += 1
            at += t.rp
        else:
            self.counters.misses += 1
        turn = max(self.activation_free[channel], now)
        self.activation_free[channel] = turn + t.activation
        at = max(at, turn)
        self.row[channel][bank], self.opened[channel][bank], self.ready[channel][bank] = row, at, at + t.rcd
        return at + t.rcd

    def _refresh(self, channel: int, now: int) -> None:
        """All banks of a channel close and wait when their refresh is due before the next column."""
        t = self.timings
        reached = max(now, self.free[channel])
        while reached >= self.refresh_at[channel]:
            passed = (reached - self.refresh_at[channel]) // t.refi
            due = self.refresh_at[channel] + passed * t.refi
            end = max(due, self.free[channel]) + t.rfc
            self.counters.refreshes += passed + 1
            self.refresh_at[channel] = due + t.refi
            self.free[channel] = end
            for bank in range(t.banks):
                self.row[channel][bank] = -1
                self.close[channel][bank] = end
            reached = max(now, end)
