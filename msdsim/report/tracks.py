"""What a trace shows of a run: tracks of slices, arrows between them and counters, in cycles; trace formats only write it down.

Instructions of a pipe overlap (the next starts while the last still completes), slices of a track must not; so a slice lasts
until the pipe takes its next instruction, and the true completion is the argument ``end_cycle``.  Waits are slices of their
own, in front of the instruction that waited.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from msdsim.errors import InputError
from msdsim.ir.program import Instr, Part
from msdsim.moved import renamed
from msdsim.naming import PIPES, PipeName
from msdsim.report.waits import semaphore_text, transfer_text
from msdsim.timeline.record import CATEGORIES, TRAFFIC, WAIT_SYNC, RunRecord

if TYPE_CHECKING:
    from msdsim.report.result import Result

__getattr__ = renamed(__name__)

#: Instructions in a trace, at most: some 100 bytes each in a file, and what viewers still open quickly.
MOST_INSTRUCTIONS = 500_000
#: Arrows in a trace, and steps of a counter, at most.
MOST_FLOWS, _MOST_STEPS = 20_000, 4000


@dataclass(frozen=True)
class TraceOptions:
    """What of a run a trace shows: ``window_us`` from and to, ``cores`` by number (None: all); with ``flows`` arrows from what
    was waited for to what waited, the first :data:`MOST_FLOWS`.  At most ``limit`` instructions: the trace ends where they are
    used up, and says so."""

    window_us: tuple[float, float] | None = None
    cores: frozenset[int] | None = None
    flows: bool = False
    limit: int = MOST_INSTRUCTIONS


class Form(NamedTuple):
    """What slices have in common: their ``kind`` (``op``, ``flags``, ``wait`` or ``issue``), name, arguments that are texts,
    and the names of those that are numbers."""

    kind: str
    name: str
    texts: Mapping[str, str]
    numbers: tuple[str, ...]


class _Forms:
    """Forms by number; the same is kept once."""

    def __init__(self) -> None:
        self.found: list[Form] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def number(self, form: Form) -> int:
        key = form.kind, form.name, *form.texts.items(), form.numbers
        if key not in self._numbers:
            self._numbers[key] = len(self.found)
            self.found.append(form)
        return self._numbers[key]


class TrackSlice(NamedTuple):
    """Something on a track, from ``start`` to ``end`` (cycles); ``texts`` and ``numbers`` are its arguments; ``outgoing`` and
    ``incoming`` are numbers of the arrows that begin and end at it."""

    kind: str
    name: str
    start: int
    end: int
    texts: Mapping[str, str]
    numbers: Mapping[str, int]
    outgoing: Sequence[int] = ()
    incoming: Sequence[int] = ()


@dataclass(frozen=True)
class TrackSlices:
    """Slices as columns, track by track, on each in order and without overlap: ``form`` is an index into ``forms``, ``track``
    one into ``pipes``; ``outgoing`` and ``incoming`` are by position."""

    pipes: Sequence[PipeName]
    forms: Sequence[Form]
    track: np.ndarray
    form: np.ndarray
    start: np.ndarray
    end: np.ndarray
    numbers: Mapping[str, np.ndarray]
    outgoing: Mapping[int, list[int]]
    incoming: Mapping[int, list[int]]


@dataclass(frozen=True)
class Track:
    """One pipe of one core with its slices, in order and without overlap."""

    pipe: PipeName
    slices: list[TrackSlice]


@dataclass(frozen=True)
class Counter:
    """A quantity over time: ``values[i]`` holds from ``edges[i]`` to ``edges[i + 1]`` (cycles)."""

    name: str
    unit: str
    edges: np.ndarray
    values: np.ndarray


_COLUMNS = ("unit", "pipe", "start", "end", "instr", "dispatched", "bytes", "cause", "culprit")
_MOST_PIPES = max(map(len, PIPES.values()))
#: Arguments of slices that are numbers, and the columns of slices.
_NUMBERS = ("kernel_line", "start_cycle", "end_cycle", "dispatched_cycle", "bytes", "cycles", "instructions", "waited_cycles")
_SLICES = ("lane", "form", "row", "start", "end", *_NUMBERS)
_UNIT, _PIPE, _START, _END, _INSTR, _DISPATCHED, _BYTES, _CAUSE, _CULPRIT = range(len(_COLUMNS))


class TracedRun:
    """The part of a run that the options choose; InputError where it has none."""

    def __init__(self, run: Result, options: TraceOptions | None = None) -> None:
        self.run, self.record, self.options = run, run.record, options or TraceOptions()
        if self.record.timeline is None:
            raise InputError(f"the run of '{run.dataflow}' kept no timeline; simulate with timeline=True (--trace does)")
        self.clock_mhz = float(run.hardware.chip.clock_mhz)
        table = np.stack([self.record.timeline[name] for name in _COLUMNS], axis=1)
        #: Every executed instruction, pipe by pipe in order of start; columns as in ``_COLUMNS``.
        self.table = table[np.lexsort((table[:, _END], table[:, _START], table[:, _PIPE], table[:, _UNIT]))]
        #: From and to, in cycles.
        self.span = self._window()
        #: Which rows of the table are shown.
        self.chosen = self._chosen()
        #: What was left out for the sake of size; empty where nothing was.
        self.note = ""
        if np.count_nonzero(self.chosen) > self.options.limit:
            self._cut_off()

    def _window(self) -> tuple[int, int]:
        window = self.options.window_us
        if window is None:
            return 0, self.record.cycles
        if window[0] >= self.run.time_us:
            raise InputError(f"the run of '{self.run.dataflow}' ends at {self.run.time_us:.3f} us, and the window of the trace "
                             f"begins at {window[0]:g} us")
        return int(window[0] * self.clock_mhz), min(self.record.cycles, ceil(window[1] * self.clock_mhz))

    def _chosen(self) -> np.ndarray:
        units, cores, (begin, end) = self.record.units, self.options.cores, self.span
        shown = (self.table[:, _END] >= begin) & (self.table[:, _START] <= end)
        if cores is None:
            return shown
        unknown = sorted(cores - set(range(units.cores)))
        if unknown:
            raise InputError(f"the kernel of '{self.run.dataflow}' runs on cores 0 to {units.cores - 1}, and there is no core "
                             f"{unknown[0]} to trace")
        return shown & np.isin(self.table[:, _UNIT], [unit for unit in range(units.count) if units.core(unit) in cores])

    def _cut_off(self) -> None:
        """End where the limit is reached."""
        limit = self.options.limit
        end = int(np.partition(self.table[self.chosen, _START], limit)[limit])
        self.chosen &= self.table[:, _START] < end
        self.span = self.span[0], end
        begin, end_us = (cycle / self.clock_mhz for cycle in self.span)
        self.note = (f"the trace of '{self.run.dataflow}' shows {begin:.3f} to {end_us:.3f} of {self.run.time_us:.3f} us, the "
                     f"first {limit:,} instructions; a window or fewer cores show others")

    def tracks(self) -> Iterator[Track]:
        """The pipes of every core that is shown, the scalar unit first."""
        found = self.slices()
        bounds = np.searchsorted(found.track, np.arange(len(found.pipes) + 1)).tolist()
        columns = {name: values.tolist() for name, values in found.numbers.items()}
        for track, (first, behind) in enumerate(pairwise(bounds)):
            slices = []
            for at, form, start, end in zip(range(first, behind), found.form[first:behind].tolist(),
                                            found.start[first:behind].tolist(), found.end[first:behind].tolist(), strict=True):
                kind, name, texts, numbers = found.forms[form]
                slices.append(TrackSlice(kind, name, start, end, texts, {key: columns[key][at] for key in numbers},
                                    found.outgoing.get(at, ()), found.incoming.get(at, ())))
            yield Track(found.pipes[track], slices)

    def slices(self) -> TrackSlices:
        """All that is shown, as columns."""
        outgoing, incoming = self._flows() if self.options.flows else ({}, {})
        forms = _Forms()
        found = [self._of_pipes(forms, outgoing.keys() | incoming.keys())]
        shown = np.unique(self.table[self.chosen, _UNIT]).tolist()
        found += [self._of_scalar(unit, forms) for unit in shown]
        whole = {name: np.concatenate([columns.get(name, np.zeros(len(columns["lane"]), np.int64)) for columns in found])
                 for name in _SLICES}
        order = np.argsort(whole["lane"], kind="stable")
        whole = {name: values[order] for name, values in whole.items()}
        lanes = sorted({*np.unique(self._lanes[self.chosen]).tolist(), *(unit * _MOST_PIPES for unit in shown)})
        place = {row: at for at, row in enumerate(whole["row"].tolist()) if row >= 0} if outgoing else {}
        return TrackSlices([self.record.units.pipe_name(*divmod(lane, _MOST_PIPES)) for lane in lanes], forms.found,
                      np.searchsorted(lanes, whole["lane"]), whole["form"], whole["start"], whole["end"],
                      {name: whole[name] for name in _NUMBERS},
                      {place[row]: numbers for row, numbers in outgoing.items()},
                      {place[row]: numbers for row, numbers in incoming.items()})

    @cached_property
    def _lanes(self) -> np.ndarray:
        """The pipe of every row: one number for all of the chip."""
        lanes: np.ndarray = self.table[:, _UNIT] * _MOST_PIPES + self.table[:, _PIPE]
        return lanes

    def _part(self, unit: int) -> Part:
        program = self.record.program
        return program.aic if self.record.units.part(unit) == "AIC" else program.aiv

    def _of_pipes(self, forms: _Forms, flowing: Set[int]) -> dict[str, np.ndarray]:
        """The instructions of all pipes, and the waits before them."""
        start, end = self.table[:, _START], self.table[:, _END]
        lane, cause = self._lanes, self.table[:, _CAUSE]
        following = np.where(np.diff(lane, append=-1) != 0, self.record.cycles, np.append(start[1:], 0))
        until = np.maximum(start, np.minimum(end, following))
        offset = lane * (until.max(initial=0) + 1)
        taken = np.maximum.accumulate(offset + until) - offset
        free = np.where(np.diff(lane, prepend=-1) != 0, 0, np.append(0, taken)[:-1])
        op_form, wait_form, line = self._forms(forms)
        flows = np.zeros(len(lane), bool)
        flows[list(flowing)] = True
        kinds = np.array([form.kind == "op" for form in forms.found])
        shown = self.chosen & (kinds[op_form] | (until > start) | flows)
        waits, ops = np.flatnonzero(self.chosen & (cause >= 0) & (start > free)), np.flatnonzero(shown)
        row = np.concatenate([waits, ops])
        is_op = np.arange(len(row)) >= len(waits)
        order = np.argsort(2 * row + is_op)
        row, is_op = row[order], is_op[order]
        return {"lane": lane[row], "form": np.where(is_op, op_form[row], wait_form[row]), "row": np.where(is_op, row, -1),
                "start": np.where(is_op, start[row], free[row]), "end": np.where(is_op, until[row], start[row]),
                "kernel_line": line[row], "start_cycle": start[row], "end_cycle": end[row],
                "dispatched_cycle": self.table[row, _DISPATCHED], "bytes": self.table[row, _BYTES],
                "cycles": start[row] - free[row]}

    def _forms(self, forms: _Forms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By row of the table: the form of its slice, that of the wait before it, and its line of the kernel."""
        unit, instr, cause, culprit = (self.table[:, column] for column in (_UNIT, _INSTR, _CAUSE, _CULPRIT))
        cube = np.array([self._part(each) is self.record.program.aic for each in range(self.record.units.count)])
        key = cube[unit].astype(np.int64)
        for column in (instr, self.table[:, _BYTES] > 0, cause + 1, culprit + 1):
            key = key * (int(column.max(initial=0)) + 1) + column
        _, firsts, which = np.unique(key, return_index=True, return_inverse=True)
        found = []
        for row in self.table[firsts].tolist():
            part = self._part(row[_UNIT])
            kind, name, texts, line = _description(part.instructions()[row[_INSTR]])
            numbers = (*line, "start_cycle", "end_cycle", "dispatched_cycle", *(("bytes",) if row[_BYTES] else ()))
            wait = -1
            if row[_CAUSE] >= 0:
                waited = _wait(self.record, part, row[_CAUSE], row[_CULPRIT])
                texts = {**texts, "cause": CATEGORIES[row[_CAUSE]], "culprit": waited}
                wait = forms.number(Form("wait", waited, {}, ("cycles",)))
            found.append((forms.number(Form(kind, name, texts, numbers)), wait, line.get("kernel_line", 0)))
        columns = np.array(found, np.int64).reshape(-1, 3)[which]
        return columns[:, 0], columns[:, 1], columns[:, 2]

    def _of_scalar(self, unit: int, forms: _Forms) -> dict[str, np.ndarray]:
        """The scalar unit: what it issues, where nothing is it waits for room in a queue.  Instructions issued one right after
        the other are one slice, with the wait before it as arguments."""
        part, dispatch = self._part(unit), self.record.program.chip.dispatch
        cost = np.array([dispatch.issue_cycles * (1 + len(item.waits) + len(item.posts)) for item in part.instructions()])
        rows = self.table[slice(*np.searchsorted(self.table[:, _UNIT], [unit, unit + 1]))]
        rows = rows[np.argsort(rows[:, _DISPATCHED], kind="stable")]
        dispatched = rows[:, _DISPATCHED]
        issued = np.concatenate([[0], dispatched[:-1]]) + cost[rows[:, _INSTR]]
        # Where an instruction waits for its queue, the next begins a slice of its own.
        waits = np.flatnonzero(dispatched > issued)
        firsts, lasts = np.concatenate([[0], waits + 1]), np.concatenate([waits, [len(rows) - 1]])
        start, until = np.append(0, dispatched)[firsts], issued[lasts]
        waited = np.append(0, (dispatched - issued)[waits])
        form = np.append(forms.number(Form("issue", "issue", {}, ("instructions",))), np.array([forms.number(Form(
            "issue", "issue", {"waited_for": f"room in the queue of {pipe}"}, ("instructions", "waited_cycles")))
            for pipe in part.pipes], np.int64)[rows[waits, _PIPE]])
        begin, end = self.span
        shown = (firsts <= lasts) & (until > start) & (until > begin) & (start < end)
        return {"lane": np.full(np.count_nonzero(shown), unit * _MOST_PIPES), "form": form[shown], "start": start[shown],
                "row": np.full(np.count_nonzero(shown), -1), "end": until[shown], "instructions": (lasts - firsts + 1)[shown],
                "waited_cycles": waited[shown]}

    def _flows(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Numbers of the arrows that begin and end at rows of the table: from the instruction whose flag or signal was the last
        to come, to the one that waited for it."""
        outgoing: dict[int, list[int]] = defaultdict(list)
        incoming: dict[int, list[int]] = defaultdict(list)
        number = 0
        for source, target in sorted(self._edges(), key=lambda edge: self.table[edge[1], _START]):
            if number >= MOST_FLOWS:
                break
            if self.chosen[source] and self.chosen[target]:
                number += 1
                outgoing[source].append(number)
                incoming[target].append(number)
        return outgoing, incoming

    def _edges(self) -> Iterator[tuple[int, int]]:
        """Rows that were waited for, and rows that waited for them.  Flags and signals are counted: the k-th wait takes the
        k-th posting, after those that a semaphore has from the beginning."""
        posts: dict[tuple[int, int], list[int]] = defaultdict(list)
        raised: dict[tuple[int, int], list[int]] = defaultdict(list)
        taken: dict[tuple[int, int], int] = defaultdict(int)
        received: dict[tuple[int, int], int] = defaultdict(int)
        waits: list[tuple[int, tuple[int, int], int, bool]] = []
        instructions = {part.name: part.instructions() for part in self.record.program.parts}
        for index, (unit, number, cause, culprit) in enumerate(self.table[:, [_UNIT, _INSTR, _CAUSE, _CULPRIT]].tolist()):
            instr = instructions[self._part(unit).name][number]
            for semaphore in instr.posts:
                posts[unit, semaphore].append(index)
            for semaphore in instr.waits:
                order = taken[unit, semaphore]
                taken[unit, semaphore] += 1
                if culprit == semaphore and cause not in (-1, WAIT_SYNC):
                    waits.append((index, (unit, semaphore), order, False))
            if instr.signal is not None:
                what, signal = instr.signal
                if what == "signal":
                    raised[unit, signal].append(index)
                else:
                    order = received[unit, signal]
                    received[unit, signal] += 1
                    if cause == WAIT_SYNC:
                        waits.append((index, (unit, signal), order, True))
        for index, (unit, item), order, cross in waits:
            if not cross:
                order -= self._part(unit).semaphores[item].initial
                if 0 <= order < len(posts[unit, item]):
                    yield posts[unit, item][order], index
                continue
            sources = [raised[sender, item][order] for sender in self._senders(unit, item)
                       if order < len(raised[sender, item])]
            if sources:
                yield max(sources, key=lambda source: self.table[source, _END]), index

    def _senders(self, unit: int, signal: int) -> list[int]:
        """Units that raise a signal for a unit: of its group, or all at a barrier."""
        units = self.record.units
        kind = self.record.program.kernel.signals[signal].kind
        if kind == "barrier":
            return list(range(units.count))
        part = "AIC" if kind == "aic_to_aiv" else "AIV"
        return [sender for sender in units.of_part(part) if units.core(sender) == units.core(unit)]

    def counters(self) -> Iterator[Counter]:
        """Bandwidth of HBM and L2 by direction, where anything moved, and bytes on their way between cores and GM."""
        found = self.run.bandwidth
        begin, end = self.span
        used = max(1, -(-self.record.cycles // found.interval_cycles))
        edges = np.minimum(np.arange(used + 1) * found.interval_cycles, max(1, self.record.cycles))
        first, last = max(0, int(np.searchsorted(edges, begin, "right")) - 1), max(1, int(np.searchsorted(edges, end)))
        edges = edges[first : last + 1]
        for index, name in enumerate(TRAFFIC):
            moved = found.bytes[index, first : first + len(edges) - 1]
            if moved.any():
                label = name.removesuffix("_bytes").replace("_", " ").replace("hbm", "HBM").replace("l2", "L2")
                yield Counter(label, "GB/s", edges, moved / np.diff(edges) * self.clock_mhz / 1000)
        rows = self.table[self.table[:, _BYTES] > 0]
        if len(rows) and end > begin:
            steps = np.unique(np.linspace(begin, end, min(_MOST_STEPS, end - begin) + 1).astype(np.int64))
            yield Counter("in flight", "KB", steps, np.diff(_cumulative(rows, steps)) / np.diff(steps) / 1000)


def _cumulative(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The integral over time of the bytes of transfers that have started and not completed."""
    times = np.concatenate([rows[:, _START], rows[:, _END]])
    change = np.concatenate([rows[:, _BYTES], -rows[:, _BYTES]]).astype(float)
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(change[order])
    area = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(times))])
    return np.interp(at, times, area)


def _description(instr: Instr) -> tuple[str, str, dict[str, str], dict[str, int]]:
    """Kind and name of an instruction's slices, and the arguments that are the same in all of them: texts and numbers."""
    if instr.op is None:
        return "flags", "flags", {}, {}
    name, kind = transfer_text(instr), instr.op.kind
    return "op", kind if name == kind else f"{kind}: {name}", {"op": str(instr.op)}, {"kernel_line": instr.op.line}


def _wait(record: RunRecord, part: Part, cause: int, culprit: int) -> str:
    """What an instruction waited for, in words."""
    if culprit < 0:
        return f"{CATEGORIES[cause]}"
    if cause == WAIT_SYNC:
        return f"wait signal {record.program.kernel.signals[culprit].name}"
    return f"wait {semaphore_text(part.semaphores[culprit])}"
