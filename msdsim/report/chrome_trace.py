"""Traces as the vendor's operator simulator writes them (Chrome JSON), for MindStudio Insight, which opens them beside measured
ones, and for chrome://tracing.

Insight takes a file as the trace of an operator where ``"profilingType":"op"`` stands before the first ``[``.  A process is a
core, a thread a pipe, both called as ``msprof op simulator`` calls them (Ascend/msopprof); times are microseconds, arguments
texts.  What an instruction waited for is a WAIT_FLAG before it; counters at time 0 would be dropped, and come a tick later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from msdsim.naming import PipeName
from msdsim.report.perfetto_trace import steps
from msdsim.report.tracks import MOST_FLOWS, TracedRun, TrackSlice

#: The vendor's names of the pipes, in the order of its tracks, and its colours.
PIPES = {"S": ("SCALAR", "startup"), "MTE1": ("MTE1", "thread_state_running"), "M": ("CUBE", "background_memory_dump"),
         "FIX": ("FIXP", "thread_state_unknown"), "MTE2": ("MTE2", "thread_state_iowait"), "V": ("VECTOR", "cq_build_failed"),
         "MTE3": ("MTE3", "rail_response")}
_ORDER = list(PIPES)
_WAIT_COLOUR = "yellow"
#: The vendor's names of arguments.
_NAMES = {"op": "detail", "bytes": "process_bytes", "kernel_line": "code"}
#: A counter's earliest time, us.
_FIRST_US = 1e-6

Event = dict[str, Any]


def chrome_text(shown: Sequence[TracedRun]) -> str:
    """The trace of one run, or of several, whose cores are then called by their dataflow."""
    lines = [json.dumps(event, separators=(",", ":")) for index, item in enumerate(shown)
             for event in _events(item, f"{item.run.dataflow} " if len(shown) > 1 else "", index)]
    head = '{"displayTimeUnit":"ns","profilingType":"op","schemaVersion":2,"traceEvents":['
    return head + "\n" + ",\n".join(lines) + "\n]}\n"


def core_text(pipe: PipeName) -> str:
    """The vendor's name of a core: ``core0.cubecore0``, ``core0.veccore1``."""
    return f"core{pipe.core}.{'cubecore0' if pipe.part == 'AIC' else f'veccore{pipe.sub}'}"


def _events(shown: TracedRun, prefix: str, run: int) -> Iterator[Event]:
    cores: set[str] = set()
    waits = 0
    for track in shown.tracks():
        core, (lane, colour) = prefix + core_text(track.pipe), PIPES[track.pipe.pipe]
        if core not in cores:
            cores.add(core)
            index = len(cores) + run * 10_000
            yield {"args": {"sort_index": index}, "name": "process_sort_index", "ph": "M", "pid": core, "tid": "NA"}
        order = _ORDER.index(track.pipe.pipe) + 1
        yield {"args": {"sort_index": order}, "name": "thread_sort_index", "ph": "M", "pid": core, "tid": lane}
        where = {"pid": core, "tid": lane}
        for item in track.slices:
            start = _us(item.start, shown)
            if item.kind == "wait":
                waits += 1
                yield from _wait(item, where, f"{run}{waits:08}", start, _us(item.end, shown))
                continue
            yield {"args": _arguments(item), "cname": colour, "dur": round(_us(item.end, shown) - start, 6), "name": item.name,
                   "ph": "X", **where, "ts": start}
            for kind, numbers in (("s", item.outgoing), ("t", item.incoming)):
                for number in numbers:
                    yield {"cat": "flow", "id": str(run * (MOST_FLOWS + 1) + number), "name": "flow", "ph": kind, **where,
                           "ts": start}
    for counter in shown.counters():
        for at, value in steps(counter):
            yield {"args": {counter.unit: round(value, 3)}, "name": counter.name, "ph": "C", "pid": f"{prefix}memory",
                   "tid": "NA", "ts": max(_FIRST_US, _us(at, shown))}


def _wait(item: TrackSlice, where: Event, number: str, start: float, end: float) -> Iterator[Event]:
    common = {"cname": _WAIT_COLOUR, "id": number, "name": "WAIT_FLAG", **where}
    yield {"args": {"detail": item.name}, "ph": "B", "ts": start, **common}
    yield {"args": {}, "ph": "E", "ts": end, **common}


def _us(cycle: int, shown: TracedRun) -> float:
    return round(cycle / shown.clock_mhz, 6)


def _arguments(item: TrackSlice) -> dict[str, str]:
    """Texts, under the vendor's names where it has them."""
    found = {_NAMES.get(key, key): str(value) for key, value in (item.texts | item.numbers).items()}  # type: ignore[operator]
    return found | {"code": f"kernel.kir:{found['code']}"} if "code" in found else found
