"""Timelines as Perfetto traces: one track per pipe, one slice per instruction, and HBM and L2 bandwidth as counters.

A nanosecond of the trace is a cycle of the core clock: cycles are what the simulator knows exactly.  Instructions of a pipe
overlap (the next starts while the last still completes), slices of a track must not; so a slice lasts until the pipe takes its
next instruction, and the true completion is the argument ``end_cycle``.  Waits are slices of their own, in front of the
instruction that waited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import CounterDescriptor, TracePacket, TrackEvent
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from msdsim.errors import InputError
from msdsim.ir.program import Instr, Part
from msdsim.naming import PIPES
from msdsim.report.files import replacing, require_writable
from msdsim.report.labels import problem_text
from msdsim.report.waits import semaphore_text, transfer_text
from msdsim.timeline.record import CATEGORIES, TRAFFIC, WAIT_SYNC, RunRecord

if TYPE_CHECKING:
    from msdsim.report.result import Result

_SEQUENCE = 1


def write_trace(run: Result, path: str) -> None:
    """Write one run's timeline for ui.perfetto.dev; it must have been simulated with ``timeline=True``."""
    write_traces([run], path)


def write_traces(runs: Sequence[Result], path: str) -> None:
    """Write several timelines into one trace, one group of tracks per run."""
    require_writable(path, "trace file")
    for run in runs:
        if run.record.timeline is None:
            raise InputError(f"the run of '{run.dataflow}' kept no timeline; simulate with timeline=True (--trace does)")
    builder = TraceProtoBuilder()
    writer = _Writer(builder)
    for run in runs:
        writer.run(run)
    with replacing(path) as temporary:
        temporary.write_bytes(builder.serialize())


class _Writer:
    """Adds packets to a trace; every track has its own id, every text is written once and then referred to by number."""

    def __init__(self, builder: TraceProtoBuilder) -> None:
        self.builder, self.tracks = builder, 0
        self.interned: dict[tuple[str, str], int] = {}
        self.flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED

    def run(self, run: Result) -> None:
        chip = run.hardware.chip
        unit = f"1 ns is 1 cycle at {chip.clock_mhz:g} MHz"
        root = self.track(f"{run.dataflow}, {problem_text(run.problem)} on {chip.name}; {unit}", None)
        self.bandwidth(run, root)
        record = run.record
        assert record.timeline is not None
        table = np.stack([record.timeline[name] for name in _COLUMNS], axis=1)
        order = np.lexsort((table[:, 3], table[:, 2], table[:, 1], table[:, 0]))
        table = table[order]
        pipes = table[:, 0] * len(max(PIPES.values(), key=len)) + table[:, 1]
        for rows in np.split(table, np.flatnonzero(np.diff(pipes)) + 1):
            if len(rows):
                self.pipe(record, rows, root)

    def track(self, name: str, parent: int | None, counter: bool = False) -> int:
        self.tracks += 1
        packet = self.builder.add_packet()
        packet.track_descriptor.uuid = self.tracks
        packet.track_descriptor.name = name
        if parent is not None:
            packet.track_descriptor.parent_uuid = parent
        if counter:
            packet.track_descriptor.counter.unit_name = "GB/s"
            packet.track_descriptor.counter.type = CounterDescriptor.COUNTER_UNSPECIFIED
        return self.tracks

    def pipe(self, record: RunRecord, rows: np.ndarray, parent: int) -> None:
        """The instructions of one pipe, in order of their starts."""
        unit, pipe = int(rows[0, 0]), int(rows[0, 1])
        track = self.track(str(record.units.pipe_name(unit, pipe)), parent)
        part = record.program.aic if record.units.part(unit) == "AIC" else record.program.aiv
        instructions = part.instructions()
        describe = [_description(instr) for instr in instructions]
        starts = rows[:, 2].tolist()
        free = 0
        for row, following in zip(rows.tolist(), [*starts[1:], record.cycles], strict=True):
            _, _, start, end, number, dispatched, count, cause, culprit = row
            instr = instructions[number]
            waited = _wait(record, part, cause, culprit) if cause >= 0 else ""
            if waited and start > free:
                self.slice(track, waited, free, start, {"cycles": start - free})
            until = max(start, min(end, following))
            name, fixed = describe[number]
            arguments: dict[str, Any] = {**fixed, "start_cycle": start, "end_cycle": end, "dispatched_cycle": dispatched}
            if count:
                arguments["bytes"] = count
            if waited:
                arguments |= {"cause": CATEGORIES[cause], "culprit": waited}
            if instr.op is not None or until > start:
                self.slice(track, name, start, until, arguments)
            free = max(free, until)

    def slice(self, track: int, name: str, start: int, end: int, arguments: dict[str, Any]) -> None:
        packet = self.event(track, TrackEvent.TYPE_SLICE_BEGIN, start)
        packet.track_event.name_iid = self.intern(packet, "event_names", name)
        for key, value in arguments.items():
            annotation = packet.track_event.debug_annotations.add()
            annotation.name_iid = self.intern(packet, "debug_annotation_names", key)
            if isinstance(value, int):
                annotation.int_value = value
            else:
                annotation.string_value_iid = self.intern(packet, "debug_annotation_string_values", value)
        self.event(track, TrackEvent.TYPE_SLICE_END, end)

    def intern(self, packet: Any, table: str, text: str) -> int:
        """Number of a text in one of the trace's tables; a new text travels with the packet."""
        number = self.interned.get((table, text))
        if number is None:
            number = self.interned[table, text] = len(self.interned) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid = number
            if table == "debug_annotation_string_values":
                entry.str = text.encode()
            else:
                entry.name = text
        return number

    def event(self, track: int, kind: Any, at: int) -> Any:
        packet = self.builder.add_packet()
        packet.timestamp = at
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.sequence_flags = self.flags
        self.flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        return packet

    def bandwidth(self, run: Result, parent: int) -> None:
        """One counter per direction of HBM and L2 that moved anything."""
        found, clock = run.bandwidth, float(run.hardware.chip.clock_mhz)
        used = -(-run.cycles // found.interval_cycles)
        for index, name in enumerate(TRAFFIC):
            if not found.bytes[index].any():
                continue
            track = self.track(name.removesuffix("_bytes").replace("_", " ").replace("hbm", "HBM").replace("l2", "L2"), parent,
                               counter=True)
            rates = found.bytes[index, :used] * clock / found.interval_cycles / 1000
            for at, value in _changes(rates.tolist(), found.interval_cycles, run.cycles):
                self.event(track, TrackEvent.TYPE_COUNTER, at).track_event.double_counter_value = value


_COLUMNS = ("unit", "pipe", "start", "end", "instr", "dispatched", "bytes", "cause", "culprit")


def _changes(rates: Sequence[float], interval: int, cycles: int) -> Iterator[tuple[int, float]]:
    """Where a rate changes, and its end at zero."""
    last = None
    for index, rate in enumerate(rates):
        if rate != last:
            yield index * interval, rate
            last = rate
    yield cycles, 0.0


def _description(instr: Instr) -> tuple[str, dict[str, Any]]:
    """Name of an instruction's slices, and the arguments that are the same in all of them."""
    if instr.op is None:
        return "flags", {}
    name = transfer_text(instr)
    text = str(instr.op)
    return (instr.op.kind if name == instr.op.kind else f"{instr.op.kind}: {name}",
            {"op": text, "kernel_line": instr.op.line})


def _wait(record: RunRecord, part: Part, cause: int, culprit: int) -> str:
    """What an instruction waited for, in words."""
    if culprit < 0:
        return f"{CATEGORIES[cause]}"
    if cause == WAIT_SYNC:
        return f"wait signal {record.program.kernel.signals[culprit].name}"
    return f"wait {semaphore_text(part.semaphores[culprit])}"
