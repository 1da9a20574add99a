"""Traces for ui.perfetto.dev: run > core > pipe, in nanoseconds of the chip's time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import CounterDescriptor, DebugAnnotation, Trace, TracePacket, TrackEvent

from msdsim.naming import PipeName
from msdsim.report.labels import problem_text
from msdsim.report.tracks import MOST_FLOWS, Counter, Form, TracedRun, TrackSlices

_SEQUENCE = 1
_BEGIN, _END = TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_SLICE_END


#: Numbers of a form's name, of its arguments that are texts with these, and of the names of its numbers.
_Interned = tuple[int, list[tuple[int, int]], list[int]]


def _varint(number: int, width: int = 0) -> bytes:
    """A number as protobuf writes it, seven bits a byte, the lowest first; with a width, zeros lead it."""
    found = bytearray()
    while number > 127 or len(found) < width - 1:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


@cache
def _fields(kind: Any) -> dict[str, int]:
    """Numbers of a message's fields."""
    return {field.name: field.number for field in kind.DESCRIPTOR.fields}


class _Message:
    """A message of protobuf as bytes, and where in it the numbers stand that are filled in later."""

    def __init__(self, kind: Any) -> None:
        self.fields = _fields(kind)
        self.data, self.slots = b"", dict[str, tuple[int, int]]()

    def number(self, field: str, value: int) -> _Message:
        self.data += _varint(self.fields[field] << 3) + _varint(value)
        return self

    def slot(self, field: str, name: str, most: int) -> _Message:
        """Room for a number up to ``most``."""
        width = len(_varint(most))
        self.data += _varint(self.fields[field] << 3)
        self.slots[name] = len(self.data), width
        self.data += _varint(0, width)
        return self

    def fixed(self, field: str, value: int) -> _Message:
        self.data += _varint(self.fields[field] << 3 | 1) + value.to_bytes(8, "little")
        return self

    def message(self, field: str, inner: _Message) -> _Message:
        self.data += _varint(self.fields[field] << 3 | 2) + _varint(len(inner.data))
        self.slots |= {name: (len(self.data) + at, width) for name, (at, width) in inner.slots.items()}
        self.data += inner.data
        return self

    def filled(self, values: Mapping[str, np.ndarray]) -> list[bytes]:
        """The message once for every row of the values of its slots."""
        count = len(next(iter(values.values())))
        rows = np.tile(np.frombuffer(self.data, np.uint8), (count, 1))
        for name, (at, width) in self.slots.items():
            for place in range(width):
                low = (values[name] >> (7 * place)) & 127
                rows[:, at + place] = low | 128 if place < width - 1 else low
        found: list[bytes] = rows.view(f"V{len(self.data)}").ravel().tolist()
        return found


def perfetto_bytes(shown: Sequence[TracedRun]) -> bytes:
    """The trace of several runs, one group of tracks each."""
    writer = _Writer()
    for index, item in enumerate(shown):
        writer.run(item, index * (MOST_FLOWS + 1))
    return b"".join(writer.chunks)


def pipe_text(pipe: PipeName) -> str:
    """A pipe's name below its core: ``AIV[1].MTE2``."""
    return str(pipe).partition("].")[2]


class _Writer:
    """Adds packets to a trace; every track has its own id, every text is written once and then referred to by number."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.tracks = 0
        self.interned: dict[tuple[str, str], int] = {}
        self.flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        self.ns_per_cycle = 1.0

    def run(self, shown: TracedRun, first_flow: int) -> None:
        run = shown.run
        self.ns_per_cycle = 1000 / shown.clock_mhz
        title = f"{run.dataflow}, {problem_text(run.problem)} on {run.hardware.name} at {shown.clock_mhz:g} MHz"
        root = self.track("; ".join(filter(None, [title, shown.note])), None)
        memory = self.track("memory", root)
        for counter in shown.counters():
            self.counter(counter, memory)
        slices = shown.slices()
        cores: dict[int, int] = {}
        tracks = []
        for pipe in slices.pipes:
            if pipe.core not in cores:
                cores[pipe.core] = self.track(f"Core[{pipe.core}]", root)
            tracks.append(self.track(pipe_text(pipe), cores[pipe.core]))
        self.slices(slices, np.array(tracks, np.int64)[slices.track], first_flow)

    def track(self, name: str, parent: int | None, unit: str = "") -> int:
        self.tracks += 1
        packet = TracePacket()
        packet.track_descriptor.uuid = self.tracks
        packet.track_descriptor.name = name
        if parent is not None:
            packet.track_descriptor.parent_uuid = parent
        if unit:
            packet.track_descriptor.counter.unit_name = unit
            packet.track_descriptor.counter.type = CounterDescriptor.COUNTER_UNSPECIFIED
        self.put(packet)
        return self.tracks

    def put(self, packet: TracePacket) -> None:
        """Add a packet.  A trace is its packets one behind the other: no tree of all of them is built, which would take most of
        the time."""
        self.chunks.append(_in_trace(packet.SerializeToString()).data)

    def slices(self, slices: TrackSlices, track: np.ndarray, first_flow: int) -> None:
        """Two packets for each slice.  Those of one form (name, names of arguments, texts) differ in numbers alone, which stand
        at the same places: they are written for all of them at once."""
        texts = [self.texts(form) for form in slices.forms]
        times = [np.rint(cycles * self.ns_per_cycle).astype(np.int64) for cycles in (slices.start, slices.end)]
        columns = {**slices.numbers, "track": track, "timestamp": times[0]}
        most = {name: int(values.max(initial=0)) for name, values in columns.items()}
        most["timestamp"] = int(times[1].max(initial=0))
        packets = np.empty((len(track), 2), object)
        order = np.argsort(slices.form, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(slices.form[order])) + 1) if len(order) else []:
            form = slices.form[rows[0]]
            packets[rows, 0] = _object(_packet(_begin(slices.forms[form], texts[form], most), most).filled(
                {name: values[rows] for name, values in columns.items()}))
        for row in slices.outgoing.keys() | slices.incoming.keys():
            form = slices.form[row]
            event = _begin(slices.forms[form], texts[form], most)
            for field, numbers in (("flow_ids", slices.outgoing), ("terminating_flow_ids", slices.incoming)):
                for number in numbers.get(row, ()):
                    event.fixed(field, first_flow + number)
            packets[row, 0] = _packet(event, most).filled({name: values[row : row + 1] for name, values in columns.items()})[0]
        end = _Message(TrackEvent).number("type", _END).slot("track_uuid", "track", most["track"])
        packets[:, 1] = _object(_packet(end, most).filled({"track": track, "timestamp": times[1]}))
        self.chunks += packets.ravel().tolist()

    def texts(self, form: Form) -> _Interned:
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE, sequence_flags=self.flags)
        name = self.intern(packet, "event_names", form.name)
        said = [(self.intern(packet, "debug_annotation_names", key),
                 self.intern(packet, "debug_annotation_string_values", value)) for key, value in form.texts.items()]
        numbers = [self.intern(packet, "debug_annotation_names", key) for key in form.numbers]
        self.flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        self.put(packet)
        return name, said, numbers

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

    def counter(self, counter: Counter, parent: int) -> None:
        track = self.track(counter.name, parent, counter.unit)
        for at, value in steps(counter):
            packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE, sequence_flags=self.flags)
            packet.timestamp = round(at * self.ns_per_cycle)
            self.flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            packet.track_event.type, packet.track_event.track_uuid = TrackEvent.TYPE_COUNTER, track
            packet.track_event.double_counter_value = value
            self.put(packet)


def _begin(form: Form, interned: _Interned, most: Mapping[str, int]) -> _Message:
    """The beginning of a slice of a form, with room for numbers up to ``most``."""
    name, texts, numbers = interned
    event = _Message(TrackEvent).number("type", _BEGIN).slot("track_uuid", "track", most["track"]).number("name_iid", name)
    for key, text in texts:
        event.message("debug_annotations", _Message(DebugAnnotation).number("name_iid", key).number("string_value_iid", text))
    for key, slot in zip(numbers, form.numbers, strict=True):
        annotation = _Message(DebugAnnotation).number("name_iid", key).slot("int_value", slot, most[slot])
        event.message("debug_annotations", annotation)
    return event


def _packet(event: _Message, most: Mapping[str, int]) -> _Message:
    """An event as a packet of a trace."""
    packet = _Message(TracePacket).slot("timestamp", "timestamp", most["timestamp"])
    packet.number("trusted_packet_sequence_id", _SEQUENCE)
    return _in_trace(packet.number("sequence_flags", TracePacket.SEQ_NEEDS_INCREMENTAL_STATE).message("track_event", event))


def _in_trace(packet: bytes | _Message) -> _Message:
    if isinstance(packet, bytes):
        data, packet = packet, _Message(TracePacket)
        packet.data = data
    return _Message(Trace).message("packet", packet)


def _object(packets: Sequence[bytes]) -> np.ndarray:
    found = np.empty(len(packets), object)
    found[:] = packets
    return found


def steps(counter: Counter) -> Iterator[tuple[int, float]]:
    """Where a counter changes, in cycles, and its end at zero."""
    last = None
    for at, value in zip(counter.edges.tolist(), counter.values.tolist(), strict=False):
        if value != last:
            yield at, value
            last = value
    yield int(counter.edges[-1]), 0.0
