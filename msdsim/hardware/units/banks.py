"""Banks of the Unified Buffer: how many cycles they need for what one repeat of a Vector instruction reads and writes.

UB is made of rows of ``row_bytes``; consecutive rows lie in consecutive bank groups.  In a cycle a group serves ``group_reads``
reads and one write, and each of its banks one access.  A repeat therefore takes the largest of: reads of one group over
``group_reads``, writes of one group, accesses of one bank.  The unit works meanwhile: a conflict costs only what the banks need
beyond the unit's own cycles.

Where ``delays_aligned_writes``, a write whose rows lie in the very banks of the rows just read (an operation in place, or
buffers of the same phase) is held back by one repeat and meets the reads of the next one instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from math import gcd
from typing import NamedTuple

from msdsim.hardware.chip import Banks
from msdsim.units import ceil_div


@dataclass(frozen=True)
class Steps:
    """How an instruction goes through an operand: ``repeat_bytes`` with each repeat of a run, from where the one before ended,
    and ``pitch_bytes`` on from one run to the next.  Rows of a repeat lie ``row_stride`` rows apart."""

    repeat_bytes: int
    pitch_bytes: int = 0
    row_stride: int = 1


@dataclass(frozen=True)
class Pattern:
    """Operands of an instruction, those it reads first, and its ``runs`` of ``repeats`` repeats each."""

    reads: tuple[Steps, ...]
    write: Steps
    runs: int
    repeats: int

    @property
    def operands(self) -> tuple[Steps, ...]:
        return (*self.reads, self.write)

    @cached_property
    def count(self) -> int:
        """Repeats in all."""
        return self.runs * self.repeats

    @cached_property
    def number(self) -> int:
        """A number that equal patterns share: quicker to look up than all of this."""
        return _numbers.setdefault(self, len(_numbers))


_numbers: dict[Pattern, int] = {}
NOTHING = Fraction(0)

class _Walk(NamedTuple):
    """A pattern as runs that can be cut: its operands, how far each goes from the first run to the last, runs, repeats of a
    run, and after how many of each phases come back."""

    operands: tuple[Steps, ...]
    spans: tuple[int, ...]
    runs: int
    repeats: int
    run_period: int
    repeat_period: int


@lru_cache(maxsize=64)
def bank_model(banks: Banks) -> BankModel:
    """The model of these banks; one for equal banks, since it remembers what it has worked out."""
    return BankModel(banks)


class BankModel:
    """Cycles of repeats by where their operands begin."""

    def __init__(self, banks: Banks) -> None:
        self.banks, self.groups, self.row_bytes = banks, banks.groups, banks.row_bytes
        #: Bytes after which the groups, and interleaved banks, start over.
        self.round_bytes = banks.row_bytes * banks.groups * (banks.banks_per_group if banks.interleaved else 1)
        #: Bytes that lie in the same bank of every group, where banks are not interleaved.
        self.region_bytes = banks.row_bytes * banks.groups * banks.rows_per_bank
        self._known: dict[tuple[object, ...], Fraction] = {}
        self._means: dict[tuple[object, ...], Fraction] = {}
        self._walks: dict[int, _Walk] = {}

    def bank(self, row: int) -> int:
        """Number of the bank that holds a row of UB; its group is the number modulo ``groups``."""
        if self.banks.interleaved:
            return row % (self.groups * self.banks.banks_per_group)
        return row % self.groups + row // (self.groups * self.banks.rows_per_bank) * self.groups

    def cycles(self, pattern: Pattern, addresses: Sequence[int]) -> Fraction:
        """Mean cycles that the banks need for a repeat, with the operands beginning at ``addresses``.

        One period of the phases is counted; where an operand runs on into other banks, each stretch counts for its length.
        """
        if pattern.count < 1:
            return NOTHING
        walk = self._walks.get(pattern.number)
        if walk is None:
            walk = self._walks[pattern.number] = self._walk(pattern)
        uncut = self._uncut(walk, addresses)
        if uncut is not None:
            key = pattern.number, *uncut
            found = self._means.get(key)
            if found is None:
                found = self._means[key] = self._stretch(pattern, walk, addresses, walk.runs)
            return found
        shift = min(addresses) // self.region_bytes * self.region_bytes
        key = (pattern.number, *[address - shift for address in addresses])
        if key not in self._known:
            self._known[key] = self._cut(pattern, walk, addresses)
        return self._known[key]

    def most_cycles(self, pattern: Pattern, situations: Sequence[Sequence[int]]) -> Fraction:
        """The most of :meth:`cycles` over situations, each the addresses of all operands."""
        # What is remembered is often the same object, and fractions compare slowly.
        found = {id(cycles): cycles for cycles in (self.cycles(pattern, addresses) for addresses in situations)}
        return max(found.values())

    def _uncut(self, walk: _Walk, addresses: Sequence[int]) -> list[int] | None:
        """:meth:`_places` where no operand runs on into another bank; None where one does."""
        if self.banks.interleaved:
            return [address % self.round_bytes for address in addresses]
        found, seen, region = list[int](), dict[int, int](), self.region_bytes
        for address, span in zip(addresses, walk.spans, strict=True):
            number, inside = divmod(address, region)
            if inside + span >= region:
                return None
            found.append(inside % self.round_bytes + seen.setdefault(number, len(seen)) * region)
        return found

    def _cut(self, pattern: Pattern, walk: _Walk, addresses: Sequence[int]) -> Fraction:
        """Mean cycles of a repeat where operands run on into other banks."""
        total = NOTHING
        for first, end in pairwise(self._cuts(walk.operands, addresses, walk.runs)):
            begins = [at + first * steps.pitch_bytes for at, steps in zip(addresses, walk.operands, strict=True)]
            total += (end - first) * self._stretch(pattern, walk, begins, end - first)
        return total / walk.runs

    def _walk(self, pattern: Pattern) -> _Walk:
        runs, operands = pattern.runs, pattern.operands
        if runs == 1:
            # One long run is as many runs of one repeat each, so that stretches are cut along it.
            runs = pattern.repeats
            operands = tuple(Steps(steps.repeat_bytes, steps.repeat_bytes, steps.row_stride) for steps in operands)
        spans = tuple((runs - 1) * steps.pitch_bytes for steps in operands)
        return _Walk(operands, spans, runs, pattern.count // runs, self._period([steps.pitch_bytes for steps in operands]),
                     self._period([steps.repeat_bytes for steps in operands]))

    def _stretch(self, pattern: Pattern, walk: _Walk, addresses: Sequence[int], runs: int) -> Fraction:
        """Mean cycles of a repeat over some runs without a cut."""
        starts = self._places(addresses)
        some_runs, some_repeats = min(runs, walk.run_period), min(walk.repeats, walk.repeat_period)
        key = pattern.number, starts, some_runs, some_runs < runs
        if key not in self._means:
            self._means[key] = self._mean(walk.operands, starts, some_runs, some_repeats, some_runs < runs,
                                          some_repeats < walk.repeats)
        return self._means[key]

    def _places(self, addresses: Sequence[int]) -> tuple[int, ...]:
        """The same situation in its plainest form: phases, and regions numbered as they come."""
        if self.banks.interleaved:
            return tuple(address % self.round_bytes for address in addresses)
        seen: dict[int, int] = {}
        regions = [seen.setdefault(address // self.region_bytes, len(seen)) for address in addresses]
        return tuple(address % self.round_bytes + region * self.region_bytes
                     for address, region in zip(addresses, regions, strict=True))

    def _cuts(self, operands: Sequence[Steps], addresses: Sequence[int], runs: int) -> list[int]:
        """Runs at which an operand passes into another bank of its groups, with 0 and ``runs``."""
        cuts = {0, runs}
        for address, steps in zip(addresses, operands, strict=True):
            last = address + (runs - 1) * steps.pitch_bytes
            for region in range(address // self.region_bytes + 1, last // self.region_bytes + 1):
                cuts.add(ceil_div(region * self.region_bytes - address, steps.pitch_bytes))
        return sorted(cuts)

    def _period(self, steps: Sequence[int]) -> int:
        """Steps after which every operand is at the phase where it began."""
        return max(self.round_bytes // gcd(step, self.round_bytes) if step else 1 for step in steps)

    def _mean(self, operands: tuple[Steps, ...], addresses: tuple[int, ...], runs: int, repeats: int,
              more_runs: bool, more_repeats: bool) -> Fraction:
        """Mean over these repeats; ``more_runs`` and ``more_repeats`` say that the same come again and again, so that the last
        goes before the first.  A write that is late at the end of a run of several repeats meets nothing."""
        if repeats == 1:
            return Fraction(self._sum([self._touched(operands, addresses, run, 0) for run in range(runs)], more_runs), runs)
        total = sum(self._sum([self._touched(operands, addresses, run, repeat) for repeat in range(repeats)], more_repeats)
                    for run in range(runs))
        return Fraction(total, runs * repeats)

    def _sum(self, touched: Sequence[list[list[int]]], again: bool) -> int:
        """Cycles of repeats one after the other: of each operand the banks it touches, the write last."""
        late = [self.banks.delays_aligned_writes and any(banks[: len(write)] == write for banks in reads)
                for *reads, write in touched]
        total = 0
        for index, (*reads, write) in enumerate(touched):
            writes = [] if late[index] else [*write]
            if late[index - 1] and (index or again):
                writes += touched[index - 1][-1]
            total += self._together([bank for banks in reads for bank in banks], writes)
        return total

    def _touched(self, operands: Sequence[Steps], addresses: Sequence[int], run: int, repeat: int) -> list[list[int]]:
        """Banks that each operand touches in one repeat, row by row; a start inside a row counts as the row's."""
        found = []
        for address, steps in zip(addresses, operands, strict=True):
            first = (address + run * steps.pitch_bytes + repeat * steps.repeat_bytes) // self.row_bytes
            found.append([self.bank(first + row * steps.row_stride)
                          for row in range(ceil_div(steps.repeat_bytes, self.row_bytes))])
        return found

    def _together(self, reads: Sequence[int], writes: Sequence[int]) -> int:
        """Cycles for these accesses: the busiest group's reads, the busiest group's writes, the busiest bank."""
        group_reads, group_writes = [0] * self.groups, [0] * self.groups
        read, written = dict.fromkeys(reads, 0), dict.fromkeys(writes, 0)
        for bank in reads:
            group_reads[bank % self.groups] += 1
            read[bank] += 1
        for bank in writes:
            group_writes[bank % self.groups] += 1
            written[bank] += 1
        if self.banks.read_write_conflicts:
            written |= {bank: written[bank] + count for bank, count in read.items() if bank in written}
        return max(ceil_div(max(group_reads), self.banks.group_reads), max(group_writes), *read.values(), *written.values())
