"""Fill, steady state and drain of a run, and every cycle of every pipe in one of them.

The pipe with most to do leads (working, starting and moving through slow memory; of all kinds of pipes the mean over their
instances).  On every core the steady state is the time from its leading pipe's first instruction to the end of its last; what
comes before is the fill, what comes after the drain.  A core without an instruction on that pipe is in fill and drain only: its
steady state is empty.

The categories are those of the engines, repeated over the timeline by their rules (a gap is what its instruction waited for,
then work comes first), and cut where a phase ends.  What a transfer takes beyond its work is part latency and part waiting for
memory; the timeline does not keep which, so that every execution of an instruction has them in the proportion of its totals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msdsim.naming import PIPES, pipe_kind
from msdsim.timeline.record import BUSY, CATEGORIES, DRAINED, HEAD, WAIT_ISSUE, WAIT_MEMORY, RunRecord

PHASES = ("fill", "steady", "drain")
_COLUMNS = ("instr", "start", "end", "work", "cause")
_MOST_PIPES = 16


@dataclass(frozen=True)
class Phases:
    """``cycles[pipe][phase][category]``, summed over the instances of a kind of pipe: with all phases and categories they add
    up to instances x cycles.  ``lead`` is the kind of pipe that leads, ``mean`` the cycles of a phase, mean over the cores."""

    lead: str
    mean: dict[str, float]
    cycles: dict[str, dict[str, dict[str, int]]]


def lead_pipe(record: RunRecord) -> str:
    """The kind of pipe with most to do."""
    def taken(item: tuple[str, dict[str, int]]) -> float:
        return (item[1]["busy"] + item[1]["head"] + item[1]["wait_memory"]) / max(1, item[1]["instances"])

    return max(((kind, row) for kind, row in record.pipe_totals().items() if not kind.endswith(".s")), key=taken)[0]


def phases(record: RunRecord) -> Phases:
    """The phases of a run that kept its timeline (ValueError otherwise)."""
    if record.timeline is None:
        raise ValueError("phases need a run that kept its timeline")
    lead, bounds = lead_pipe(record), {}
    for core in range(record.units.cores):
        bounds[core] = _steady(record, lead, core)
    found = {kind: np.zeros((len(PHASES), len(CATEGORIES)), np.int64) for kind in record.pipe_totals()}
    cut = _Cut(record, bounds)
    for unit in range(record.units.count):
        part = record.units.part(unit)
        for index, pipe in enumerate(PIPES[part]):
            if pipe_kind(part, pipe) in found:
                cut.pipe(unit, index, found[pipe_kind(part, pipe)])
    cores = max(1, record.units.cores)
    begin, end = (sum(bound[side] for bound in bounds.values()) / cores for side in (0, 1))
    mean = {"fill": begin, "steady": end - begin, "drain": record.cycles - end}
    return Phases(lead, mean, {kind: {phase: {name: int(value) for name, value in zip(CATEGORIES, row, strict=True) if value}
                                      for phase, row in zip(PHASES, rows.tolist(), strict=True)}
                               for kind, rows in found.items()})


def _steady(record: RunRecord, lead: str, core: int) -> tuple[int, int]:
    """First start and last end of the leading pipe's instructions on a core."""
    assert record.timeline is not None
    part, pipe = lead.upper().split(".")
    line, units = record.timeline, record.units
    mine = [unit for unit in units.of_part(part) if units.core(unit) == core]
    rows = np.isin(line["unit"], mine) & (line["pipe"] == PIPES[part].index(pipe)) & (line["work"] > 0)
    if not rows.any():
        return record.cycles, record.cycles
    return int(line["start"][rows].min()), min(record.cycles, int(line["end"][rows].max()))


class _Cut:
    """Walks over every pipe and cuts its time at the ends of its core's phases."""

    def __init__(self, record: RunRecord, bounds: Mapping[int, tuple[int, int]]) -> None:
        self.record = record
        self.edges = {core: (0, *bound, record.cycles) for core, bound in bounds.items()}
        #: By part and instruction: what its executions have taken beyond their work so far.
        self.beyond = {part.name: [0] * len(part.instructions()) for part in record.program.parts}
        line = record.timeline
        assert line is not None
        keys = line["unit"].astype(np.int64) * _MOST_PIPES + line["pipe"]
        order = np.lexsort((line["dispatched"], line["start"], keys))
        splits = np.flatnonzero(np.diff(keys[order])) + 1
        self.rows = {int(keys[part[0]]): part for part in np.split(order, splits) if len(part)}

    def pipe(self, unit: int, index: int, into: np.ndarray) -> None:
        """Add the time of a pipe to cycles by phase and category."""
        edges = self.edges[self.record.units.core(unit)]
        if PIPES[self.record.units.part(unit)][index] == "S":
            self.scalar(self.record.totals[unit, index], edges, into)
            return
        rows = self.rows.get(unit * _MOST_PIPES + index, np.zeros(0, np.int64))
        for begin, end, category in self.pieces(unit, rows):
            for phase in range(len(PHASES)):
                into[phase, category] += max(0, min(end, edges[phase + 1]) - max(begin, edges[phase]))

    def pieces(self, unit: int, rows: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """The time of a pipe from cycle to cycle with its category, by the engines' rules."""
        line, part = self.record.timeline, self.record.units.part(unit).lower()
        assert line is not None
        totals, beyond, cursor = self.record.instr_totals[part], self.beyond[part], 0
        for number, start, end, work, cause in zip(*(line[name][rows].tolist() for name in _COLUMNS), strict=True):
            if start > cursor:
                yield cursor, start, cause if cause >= 0 else WAIT_ISSUE
                cursor = start
            rest = max(0, end - cursor)
            busy, before = min(rest, work), beyond[number]
            after = beyond[number] = before + rest - busy
            waited, both = int(totals[number, WAIT_MEMORY]), int(totals[number, WAIT_MEMORY] + totals[number, HEAD])
            # Differences of whole numbers: over all executions they add up to the instruction's total.
            memory = waited * after // both - waited * before // both if both else 0
            for category, count in ((BUSY, busy), (WAIT_MEMORY, memory), (HEAD, rest - busy - memory)):
                yield cursor, cursor + count, category
                cursor += count
        yield cursor, self.record.cycles, DRAINED

    def scalar(self, totals: np.ndarray, edges: Sequence[int], into: np.ndarray) -> None:
        """The dispatching unit: until its last dispatch it works and waits in the proportion of its totals."""
        counts = totals.tolist()
        active = self.record.cycles - counts[DRAINED]
        for phase in range(len(PHASES)):
            before, after = min(edges[phase], active), min(edges[phase + 1], active)
            into[phase, DRAINED] += edges[phase + 1] - edges[phase] - (after - before)
            left = after - before
            for category, count in enumerate(counts):
                if category not in (DRAINED, BUSY) and active:
                    share = count * after // active - count * before // active
                    into[phase, category] += share
                    left -= share
            into[phase, BUSY] += left
