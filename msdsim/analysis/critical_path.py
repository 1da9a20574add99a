"""The critical path of a run: the chain of instructions, waits and signals that its last cycle hangs on.

Walked backwards over the timeline.  Every instruction started when the last thing it waited for happened: the end of a
producer, a released slot, a signal, its dispatch, or its own pipe becoming free.  The segments found tile the run from
cycle 0 to its end, so their shares add up to one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from msdsim.ir.program import Instr
from msdsim.naming import PIPES
from msdsim.timeline.record import WAIT_BUFFER, WAIT_DATA, WAIT_ISSUE, WAIT_SYNC, RunRecord


@dataclass(frozen=True)
class PathSegment:
    """Cycles ``begin`` to ``end`` of the path, spent in an instruction (``instr`` of ``part``) or, with ``instr`` -1, in
    dispatch (``pipe`` S) or on the way of a signal (``pipe`` empty)."""

    unit: int
    part: str
    pipe: str
    instr: int
    begin: int
    end: int

    @property
    def cycles(self) -> int:
        return self.end - self.begin

    @property
    def place(self) -> tuple[str, str, int]:
        """What stays the same from one iteration or core to the next."""
        return self.part, self.pipe, self.instr


def critical_path(record: RunRecord) -> list[PathSegment]:
    """Segments in order of time; the run must have kept its timeline (ValueError otherwise)."""
    if record.timeline is None:
        raise ValueError("the critical path needs a run that kept its timeline")
    return _Walk(record).run()


@dataclass(frozen=True)
class PathPlace:
    """A place on the critical path, with all its visits together."""

    part: str
    pipe: str
    instr: int
    visits: int
    cycles: int


def by_place(path: Sequence[PathSegment]) -> list[PathPlace]:
    """The path's cycles by static instruction (dispatch and signals each as one place), longest first."""
    cycles: dict[tuple[str, str, int], int] = defaultdict(int)
    visits: dict[tuple[str, str, int], int] = defaultdict(int)
    for segment in path:
        cycles[segment.place] += segment.cycles
        visits[segment.place] += 1
    ordered = sorted(cycles.items(), key=lambda item: (-item[1], item[0]))
    return [PathPlace(*place, visits[place], total) for place, total in ordered]


def circuit(path: Sequence[PathSegment], agreement: float = 0.8) -> list[PathPlace]:
    """The loop that the path runs in its steady state: places of one period with their mean cycles, in order.

    Looked for in the middle half of the path's cycles: the shortest period by which places repeat for three turns and more at a
    time, in at least ``agreement`` of the cycles.  Empty where there is none.
    """
    cycles = path[-1].end - path[0].begin if path else 0
    middle = [s for s in path if s.cycles and cycles <= 4 * s.begin and 4 * s.end <= 3 * cycles]
    places = [segment.place for segment in middle]
    whole = sum(segment.cycles for segment in middle)
    for period in range(1, len(places) // 3 + 1):
        same = [a == b for a, b in zip(places, places[period:], strict=False)]
        last = sum(segment.cycles for segment in middle[len(middle) - period :])
        if _in_long_runs(same, middle, 2 * period) >= agreement * (whole - last):
            break
    else:
        return []
    turns = len(places) // period
    spent = [sum(middle[turn * period + at].cycles for turn in range(turns)) / turns for at in range(period)]
    # Where turns differ, most of them are right: the first may still come from elsewhere.
    usual = [Counter(places[at : turns * period : period]).most_common(1)[0][0] for at in range(period)]
    return [PathPlace(*usual[at], 1, round(spent[at])) for at in range(period)]


def _in_long_runs(same: Sequence[bool], segments: Sequence[PathSegment], least: int) -> int:
    """Cycles of the segments that are the same as the one a period later, ``least`` and more of them in a row."""
    found = 0
    for is_same, run in groupby(zip(same, segments, strict=False), key=lambda pair: pair[0]):
        members = [segment for _, segment in run]
        if is_same and len(members) >= least:
            found += sum(segment.cycles for segment in members)
    return found


class _Walk:
    """The walk; it visits a small part of the timeline: columns stay arrays and become lists pipe by pipe when asked for."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        assert record.timeline is not None
        self.columns = record.timeline
        self.instrs: dict[str, list[Instr]] = {part.name: part.instructions() for part in record.program.parts}
        line = record.timeline
        most = max(map(len, PIPES.values()))
        keys = line["unit"].astype(np.int64) * most + line["pipe"]
        #: Rows pipe by pipe in the order of their starts, where each row stands among them, and where a pipe begins and ends.
        self.order = np.lexsort((line["dispatched"], line["start"], keys))
        self.position = np.empty(len(keys), np.int64)
        self.position[self.order] = np.arange(len(keys))
        found, firsts = np.unique(keys[self.order], return_index=True)
        self.bounds = {divmod(key, most): bounds for key, bounds in
                       zip(found.tolist(), pairwise([*firsts.tolist(), len(keys)]), strict=True)}
        self.lists: dict[tuple[str, tuple[int, int]], list[int]] = {}
        self.segments: list[PathSegment] = []

    def at(self, name: str, row: int) -> int:
        """A column of a row."""
        return int(self.columns[name][row])

    def pipe(self, name: str, key: tuple[int, int]) -> list[int]:
        """A column of a pipe's rows in order; empty for a pipe without any."""
        if (name, key) not in self.lists:
            self.lists[name, key] = self.columns[name][self.order[slice(*self.bounds.get(key, (0, 0)))]].tolist()
        return self.lists[name, key]

    def row(self, key: tuple[int, int], index: int) -> int:
        """A row of a pipe by its place in the order."""
        return int(self.order[self.bounds[key][0] + index])

    def run(self) -> list[PathSegment]:
        ends = self.columns["end"]
        if not len(ends):
            return []
        row = max(np.flatnonzero(ends == ends.max()).tolist(), key=lambda r: (self.at("start", r), -self.at("unit", r)))
        now = self.record.cycles
        while now > 0:
            start = self.at("start", row)
            self._add(row, min(start, now), now)
            now = min(start, now)
            if now == 0:
                break
            before = self._before(row, now)
            if before is None:
                self._charge(self.at("unit", row), "S", 0, now)
                break
            row, now = before
        return self.segments[::-1]

    # Segments

    def _add(self, row: int, begin: int, end: int) -> None:
        unit = self.at("unit", row)
        part = self.record.units.part(unit)
        if end > begin:
            self.segments.append(PathSegment(unit, part.lower(), PIPES[part][self.at("pipe", row)], self.at("instr", row),
                                         begin, end))

    def _charge(self, unit: int, pipe: str, begin: int, end: int) -> None:
        if end > begin:
            self.segments.append(PathSegment(unit, self.record.units.part(unit).lower(), pipe, -1, begin, end))

    # What a start hung on

    def _before(self, row: int, now: int) -> tuple[int, int] | None:
        """The row whose end or start explains the start of ``row`` at ``now``, and the cycle to go on from."""
        cause, culprit = self.at("cause", row), self.at("culprit", row)
        found = None
        if cause in (WAIT_DATA, WAIT_BUFFER) and culprit >= 0:
            found = self._poster(row, culprit, now)
        elif cause == WAIT_SYNC and culprit >= 0:
            found = self._raiser(row, culprit, now)
        elif cause == WAIT_ISSUE:
            found = self._dispatcher(row, now)
        return found or self._same_pipe(row, now)

    def _same_pipe(self, row: int, now: int) -> tuple[int, int] | None:
        index = int(self.position[row])
        first, _ = self.bounds[self.at("unit", row), self.at("pipe", row)]
        return (int(self.order[index - 1]), now) if index > first else None

    def _ending(self, key: tuple[int, int], at: int) -> list[int]:
        """Rows of a pipe that end exactly at a cycle, last first."""
        ends = self.pipe("end", key)
        return [self.row(key, index) for index in range(bisect_left(ends, at), bisect_right(ends, at))][::-1]

    def _poster(self, row: int, semaphore: int, now: int) -> tuple[int, int] | None:
        unit = self.at("unit", row)
        part = self.record.units.part(unit)
        source = self._part(unit).semaphores[semaphore].source
        for candidate in self._ending((unit, PIPES[part].index(source)), now):
            if semaphore in self._instr(candidate).posts:
                return candidate, now
        return self._overlapped(unit, PIPES[part].index(source), semaphore, now)

    def _overlapped(self, unit: int, pipe: int, semaphore: int, now: int) -> tuple[int, int] | None:
        """The instruction whose blocks were waited for: by unit flags, which are set before it ends."""
        index = bisect_left(self.pipe("start", (unit, pipe)), now) - 1
        if index < 0 or semaphore not in self._instr(self.row((unit, pipe), index)).gives:
            return None
        return self.row((unit, pipe), index), now

    def _raiser(self, row: int, signal: int, now: int) -> tuple[int, int] | None:
        kind = self.record.program.kernel.signals[signal].kind
        cross = self.record.program.chip.cross_core
        latency = cross.barrier_latency_cycles if kind == "barrier" else cross.signal_latency_cycles
        for key in self.bounds:
            for candidate in self._ending(key, now - latency):
                if self._instr(candidate).signal == ("signal", signal) and self._reaches(candidate, row, kind):
                    self._charge(self.at("unit", row), "", now - latency, now)
                    return candidate, now - latency
        return None

    def _reaches(self, sender: int, receiver: int, kind: str) -> bool:
        units = self.record.units
        return kind == "barrier" or units.core(self.at("unit", sender)) == units.core(self.at("unit", receiver))

    def _dispatcher(self, row: int, now: int) -> tuple[int, int] | None:
        """The scalar unit was late: it had itself been held up by the last instruction to leave a queue."""
        unit, best = self.at("unit", row), None
        for pipe in range(1, len(PIPES[self.record.units.part(unit)])):
            starts = self.pipe("start", (unit, pipe))
            index = bisect_left(starts, now) - 1
            if index >= 0 and self.row((unit, pipe), index) != row and (best is None or starts[index] > best[1]):
                best = self.row((unit, pipe), index), starts[index]
        if best is None or best[1] >= now:
            return None
        self._charge(unit, "S", best[1], now)
        return best

    def _part(self, unit: int):  # type: ignore[no-untyped-def]
        return self.record.program.aic if self.record.units.part(unit) == "AIC" else self.record.program.aiv

    def _instr(self, row: int) -> Instr:
        return self.instrs[self.record.units.part(self.at("unit", row)).lower()][self.at("instr", row)]
