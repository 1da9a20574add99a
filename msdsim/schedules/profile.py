"""A per-pipe trace of the vendor's simulator or profiler (Chrome JSON) beside a schedule: busy time and gaps of each pipe.

``msprof op simulator`` writes two forms (Ascend/msopprof): the summary, where a process is a core (``core0.cubecore0``) and a
thread a pipe, and one file per core, where a process is a number that a ``process_name`` event calls by its pipe.  Instructions
are events of ``ph`` X, with ``ts`` and ``dur`` in microseconds; everything else is passed over.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from msdsim.errors import InputError
from msdsim.naming import pipe_kind
from msdsim.report.table import TextTable
from msdsim.schedules.schedule import Schedule

#: The trace's names of what a schedule has a pipe for; the others (FLOWCTRL, CACHEMISS, SCALARLDST, ALL ...) have none.
_PIPES = {"SCALAR": "S", "MTE1": "MTE1", "MTE2": "MTE2", "MTE3": "MTE3", "CUBE": "M", "FIXP": "FIX", "VECTOR": "V"}
#: Pipes that tell the kind of core where a file does not name it.
_ONLY = {"CUBE": "aic", "MTE1": "aic", "FIXP": "aic", "VECTOR": "aiv", "MTE3": "aiv"}

Span = tuple[float, float]


@dataclass(frozen=True)
class PipeTime:
    """Time of one kind of pipe, us, a mean: with an instruction running, without one before its last has ended, and after that.
    The three add up to the time of the kernel.  ``instances`` are those that the schedule or the trace has; in a trace of all
    cores those that it lacks are idle, and the mean is over them too."""

    instances: int
    busy_us: float
    gaps_us: float
    after_us: float


@dataclass(frozen=True)
class PipeRow:
    """One kind of pipe in the schedule and in the trace; None where one of them does not have it."""

    pipe: str
    simulated: PipeTime | None
    traced: PipeTime | None


@dataclass(frozen=True)
class Profile:
    """A schedule beside a trace: times of the kernel, pipe by pipe, and the names of lanes that are no pipe here."""

    simulated_us: float
    traced_us: float
    pipes: tuple[PipeRow, ...]
    passed_over: tuple[str, ...]
    of_all_cores: bool

    @property
    def headline(self) -> str:
        """The two times."""
        found = f"simulated {self.simulated_us:,.3f} us, traced {self.traced_us:,.3f} us"
        return f"{found}: {self.simulated_us / self.traced_us:.2f} of it" if self.traced_us else found

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    def lines(self) -> list[Text]:
        """The table, and what was passed over."""
        columns = ("busy us", "gaps us", "at the end", "pipes")
        titles = [f"{title}\n{side}" for title in columns for side in ("simulated", "traced")]
        table = TextTable(["pipe", *titles], right=frozenset(range(1, 9)))
        for row in self.pipes:
            pairs = zip(_cells(row.simulated), _cells(row.traced), strict=True)
            table.add(_label(row), *(cell for pair in pairs for cell in pair))
        found = table.lines()
        idle = [f"{_label(row)} {row.traced.instances} of {row.simulated.instances}" for row in self.pipes
                if row.traced and row.simulated and self.of_all_cores and row.traced.instances < row.simulated.instances]
        if idle:
            found.append(Text(f"  pipes that the trace lacks are taken as idle: it has {', '.join(idle)}"))
        if self.passed_over:
            found.append(Text(f"  lanes of the trace that are no pipe here: {', '.join(self.passed_over)}"))
        return found


def _label(row: PipeRow) -> str:
    return row.pipe.upper().replace(".", " ")


def _cells(time: PipeTime | None) -> list[str]:
    if time is None:
        return ["-"] * 4
    return [f"{time.busy_us:,.3f}", f"{time.gaps_us:,.3f}", f"{time.after_us:,.3f}", f"{time.instances}"]


def lay_beside(schedule: Schedule, file: str | Path) -> Profile:
    """A schedule beside the trace in a file; InputError for a file that is no such trace.

    The kernel begins with the first instruction of any pipe in the trace and ends with the last.
    """
    events = _read(file)
    lanes, passed = _lanes(events, str(file))
    if not lanes:
        raise InputError(f"trace '{file}' has no instructions (events of ph X) on a pipe ({', '.join(_PIPES)}); "
                         f"'msprof op simulator' writes such a trace.json")
    clock = float(schedule.chip.get("clock_mhz", 0))
    if not clock:
        raise InputError("the schedule does not say the clock of its chip, since an older version recorded it; record it again")
    begin = min(start for spans in lanes.values() for start, _ in spans)
    end = max(stop for spans in lanes.values() for _, stop in spans)
    by_pipe: dict[str, list[list[Span]]] = defaultdict(list)
    for (_, kind), spans in lanes.items():
        by_pipe[kind].append(spans)
    of_all_cores = all(core for core, _ in lanes)
    rows = []
    for kind in dict.fromkeys([*schedule.pipes, *sorted(by_pipe)]):
        simulated = _simulated(schedule.pipes[kind], clock) if kind in schedule.pipes else None
        count = simulated.instances if simulated is not None and of_all_cores else 0
        rows.append(PipeRow(kind, simulated, _traced(by_pipe[kind], begin, end, count) if kind in by_pipe else None))
    return Profile(schedule.cycles / clock, end - begin, tuple(rows), tuple(sorted(passed)), of_all_cores)


def _simulated(totals: Mapping[str, int], clock: float) -> PipeTime:
    """A trace shows an instruction from its start to its end, so heads and slow memory are in its busy time."""
    count = totals["instances"]
    busy = sum(totals[name] for name in ("busy", "head", "wait_memory"))
    gaps = sum(value for name, value in totals.items() if name != "instances") - busy - totals["drained"]
    return PipeTime(count, *(cycles / (count * clock) for cycles in (busy, gaps, totals["drained"])))


def _traced(instances: Sequence[list[Span]], begin: float, end: float, least: int) -> PipeTime:
    """Means over at least so many instances; those without a lane are idle."""
    count = max(len(instances), least)
    busy = sum(map(_covered, instances)) / count
    ends = [max(stop for _, stop in spans) for spans in instances] + [begin] * (count - len(instances))
    after = sum(end - stop for stop in ends) / count
    return PipeTime(len(instances), busy, max(0.0, end - begin - busy - after), after)


def _covered(spans: Sequence[Span]) -> float:
    """Length of the union: instructions of a pipe overlap."""
    total, reached = 0.0, -math.inf
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total


def _read(file: str | Path) -> list[dict[str, Any]]:
    """The events of a Chrome trace."""
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"trace '{file}' cannot be read: {err.strerror}") from None
    except (ValueError, RecursionError) as err:
        raise InputError(f"trace '{file}' is not JSON: {str(err)[:200]}; give a trace.json of 'msprof op simulator'") from None
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise InputError(f"trace '{file}' is no Chrome trace: it has no list of events 'traceEvents'")
    return events


def _lanes(events: Sequence[dict[str, Any]], file: str) -> tuple[dict[tuple[str, str], list[Span]], set[str]]:
    """Spans by core and kind of pipe, and names of the lanes that are none."""
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    passed: set[str] = set()
    for core, name, event in _instructions(events):
        part = "aic" if "cubecore" in core else "aiv" if "veccore" in core else _ONLY.get(name, _part_of_file(file))
        if name not in _PIPES or not part:
            passed.add(name[:40])
            continue
        start, length = _time(event, "ts", file), _time(event, "dur", file)
        if length < 0:
            raise InputError(f"trace '{file}': instruction '{str(event.get('name'))[:80]}' has dur {length:g}; none takes less "
                             f"than no time")
        found[core, pipe_kind(part, _PIPES[name])].append((start, start + length))
    return dict(found), passed


def _time(event: Mapping[str, Any], key: str, file: str) -> float:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        name = str(event.get("name"))[:80]
        raise InputError(f"trace '{file}': instruction '{name}' has {key} {str(value)[:40]}, and it must be a number of "
                         f"microseconds")
    return float(value)


def _part_of_file(file: str) -> str:
    """The kind of core that a per-core file's folder names (``simulator/core0.cubecore0/trace.json``)."""
    return "aic" if "cubecore" in file else "aiv" if "veccore" in file else ""


def _instructions(events: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Core, lane and event of every instruction, in either form of the file; lanes of a per-core file for overlapping
    instructions of one pipe are that pipe."""
    names: dict[str, str] = {}
    for event in events:
        if event.get("ph") == "M" and event.get("name") == "process_name" and isinstance(event.get("args"), dict):
            names[str(event.get("pid"))] = str(event["args"].get("name", ""))
    for event in events:
        if event.get("ph") != "X" or "pid" not in event or "tid" not in event:
            continue
        core, lane = str(event["pid"]), str(event["tid"])
        yield ("", names[core], event) if names.get(core) in _PIPES else (core, lane, event)
