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
from msdsim.timeline.record import BUSY, CATEGORIES, DRAINED, HEAD, WAIT_ISSUE, WAIT_MEMORY, RunRecord, Units

PHASES = ("fill", "steady", "drain")
_COLUMNS = ("instr", "start", "end", "work", "cause")
_MOST_PIPES = 16
#: Where a record keeps its phases.
_KEPT = "_phases"


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
    # Kept beside the fields of the record: every report of a run asks several times.
    found: Phases | None = record.__dict__.get(_KEPT)
    if found is None:
        found = record.__dict__[_KEPT] = _phases(record, record.timeline)
    return found


def _phases(record: RunRecord, line: Mapping[str, np.ndarray]) -> Phases:
    lead = lead_pipe(record)
    edges = _edges(record, line, lead)
    kinds = list(record.pipe_totals())
    cycles = np.zeros((len(kinds), len(PHASES), len(CATEGORIES)), np.int64)
    for begin, end, kind, core, category in _pieces(record, line, kinds):
        for phase in range(len(PHASES)):
            taken = np.minimum(end, edges[core, phase + 1]) - np.maximum(begin, edges[core, phase])
            where = (kind * len(PHASES) + phase) * len(CATEGORIES) + category
            # Sums of whole numbers below 2^53 are exact.
            cycles += np.bincount(where, np.maximum(0, taken), cycles.size).astype(np.int64).reshape(cycles.shape)
    for unit in range(record.units.count):
        part = record.units.part(unit)
        scalar = pipe_kind(part, "S")
        if scalar in kinds:
            totals = record.totals[unit, PIPES[part].index("S")]
            _scalar(record.cycles, totals, edges[record.units.core(unit)].tolist(), cycles[kinds.index(scalar)])
    fill, steady, drain = np.diff(edges, axis=1).mean(axis=0).tolist() if len(edges) else (0.0, 0.0, 0.0)
    return Phases(lead, {"fill": fill, "steady": steady, "drain": drain}, {
        kind: {phase: {name: int(value) for name, value in zip(CATEGORIES, row, strict=True) if value}
               for phase, row in zip(PHASES, rows, strict=True)}
        for kind, rows in zip(kinds, cycles.tolist(), strict=True)})


def _edges(record: RunRecord, line: Mapping[str, np.ndarray], lead: str) -> np.ndarray:
    """``[cores, phases + 1]``: where the phases of every core begin and end, by the first start and the last end of the leading
    pipe's instructions."""
    part, pipe = lead.upper().split(".")
    units, cycles = record.units, record.cycles
    of_part = _of_part(units, part)
    rows = of_part[line["unit"]] & (line["pipe"] == PIPES[part].index(pipe)) & (line["work"] > 0)
    core = _cores(units, line["unit"][rows].astype(np.int64))
    first, last = np.full(units.cores, np.iinfo(np.int64).max), np.full(units.cores, -1)
    np.minimum.at(first, core, line["start"][rows])
    np.maximum.at(last, core, line["end"][rows])
    idle = last < 0
    edges = np.zeros((units.cores, len(PHASES) + 1), np.int64)
    edges[:, 1], edges[:, 2] = np.where(idle, cycles, first), np.where(idle, cycles, np.minimum(cycles, last))
    edges[:, 3] = cycles
    return edges


def _cores(units: Units, unit: np.ndarray) -> np.ndarray:
    """The cores of AICs and AIVs."""
    return np.array([units.core(each) for each in range(units.count)], np.int64)[unit]


def _of_part(units: Units, part: str) -> np.ndarray:
    """Which AICs and AIVs are of a part."""
    found = np.zeros(units.count, bool)
    found[units.of_part(part)] = True
    return found


Pieces = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _pieces(record: RunRecord, line: Mapping[str, np.ndarray], kinds: Sequence[str]) -> Iterator[Pieces]:
    """The time of every pipe but the dispatching ones: begin, end, kind of pipe, core and category of its pieces, as arrays."""
    units = record.units
    pipes = [(unit, index) for unit in range(units.count) for index, pipe in enumerate(PIPES[units.part(unit)])
             if pipe != "S" and pipe_kind(units.part(unit), pipe) in kinds]
    kind_of = np.zeros((units.count, _MOST_PIPES), np.int64)
    for unit, index in pipes:
        kind_of[unit, index] = kinds.index(pipe_kind(units.part(unit), PIPES[units.part(unit)][index]))
    keys = line["unit"].astype(np.int64) * _MOST_PIPES + line["pipe"]
    order = np.lexsort((line["dispatched"], line["start"], keys))
    key, owner = keys[order], line["unit"][order].astype(np.int64)
    number, start, end, work, cause = (line[name][order].astype(np.int64) for name in _COLUMNS)
    # By the engines' rules a pipe's time is spoken for up to the latest end so far.
    reached = np.maximum(start, end)
    offset = key * (reached.max(initial=0) + 1)
    after = np.maximum.accumulate(offset + reached) - offset
    before = np.where(np.diff(key, prepend=-1) != 0, 0, np.concatenate([[0], after])[:-1])
    begin = np.maximum(before, start)
    worked = begin + np.minimum(after - begin, work)
    waited = worked + _of_memory(record, owner, number, after - worked)
    kind, core = kind_of.ravel()[key], _cores(units, owner)
    for since, until, category in ((before, begin, np.where(cause >= 0, cause, WAIT_ISSUE)), (begin, worked, BUSY),
                                   (worked, waited, WAIT_MEMORY), (waited, after, HEAD)):
        yield since, until, kind, core, np.broadcast_to(category, key.shape)
    ended = np.zeros(units.count * _MOST_PIPES, np.int64)
    np.maximum.at(ended, key, after)
    every = np.array(pipes, np.int64).reshape(-1, 2)
    lane = every[:, 0] * _MOST_PIPES + every[:, 1]
    yield (ended[lane], np.full(len(lane), record.cycles), kind_of.ravel()[lane], _cores(units, every[:, 0]),
           np.full(len(lane), DRAINED))


def _of_memory(record: RunRecord, unit: np.ndarray, number: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """How much of what every execution takes beyond its work is waiting for memory, cycles."""
    share = np.concatenate([record.instr_totals[part][:, [WAIT_MEMORY, HEAD]] for part in ("aic", "aiv")])
    which = number + np.where(_of_part(record.units, "AIV")[unit], len(record.instr_totals["aic"]), 0)
    # What the executions of an instruction have taken so far, pipe by pipe.
    order = np.argsort(which, kind="stable")
    so_far = np.cumsum(beyond[order])
    firsts = np.flatnonzero(np.diff(which[order], prepend=-1))
    earlier = np.repeat((so_far - beyond[order])[firsts], np.diff(firsts, append=len(order)))
    done = np.empty_like(beyond)
    done[order] = so_far - earlier
    waited, both = share[which, 0], share[which].sum(axis=1)
    if int(waited.max(initial=0)) * int(done.max(initial=0)) >= 2**63:
        waited, done, both, beyond = (column.astype(object) for column in (waited, done, both, beyond))
    # Differences of whole numbers: over all executions they add up to the instruction's total.
    divisor = np.maximum(both, 1)
    return (waited * done // divisor - waited * (done - beyond) // divisor).astype(np.int64)


def _scalar(cycles: int, totals: np.ndarray, edges: Sequence[int], into: np.ndarray) -> None:
    """The dispatching unit: until its last dispatch it works and waits in the proportion of its totals."""
    counts = totals.tolist()
    active = cycles - counts[DRAINED]
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
