"""Traces for ui.perfetto.dev: run > core > pipe, in nanoseconds of the chip's time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import CounterDescriptor, TracePacket, TrackEvent

from msdsim.naming import PipeName
from msdsim.report.labels import problem_text
from msdsim.report.tracks import MOST_FLOWS, Counter, Shown, Slice

_SEQUENCE = 1


def _varint(number: int) -> bytes:
    """The length of a packet as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


#: Tag of a packet in a trace: field 1, with a length.
_PACKET = b"\x0a"


def perfetto_bytes(shown: Sequence[Shown]) -> bytes:
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
        self.ns_per_cycle, self.first_flow = 1.0, 0
        self.forms: dict[tuple[str, ...], tuple[TracePacket, list[Any]]] = {}
        self.closing = TracePacket(trusted_packet_sequence_id=_SEQUENCE, sequence_flags=TracePacket.SEQ_NEEDS_INCREMENTAL_STATE)
        self.closing.track_event.type = TrackEvent.TYPE_SLICE_END

    def run(self, shown: Shown, first_flow: int) -> None:
        run = shown.run
        self.ns_per_cycle, self.first_flow = 1000 / shown.clock_mhz, first_flow
        title = f"{run.dataflow}, {problem_text(run.problem)} on {run.hardware.name} at {shown.clock_mhz:g} MHz"
        root = self.track("; ".join(filter(None, [title, shown.note])), None)
        memory = self.track("memory", root)
        for counter in shown.counters():
            self.counter(counter, memory)
        cores: dict[int, int] = {}
        for track in shown.tracks():
            core = track.pipe.core
            if core not in cores:
                cores[core] = self.track(f"Core[{core}]", root)
            at = self.track(pipe_text(track.pipe), cores[core])
            for item in track.slices:
                self.slice(at, item)

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
        """Add a packet.  A trace is its packets one behind the other, each with its tag and length: no tree of all of them is
        built, which would take most of the time."""
        data = packet.SerializeToString()
        self.chunks += (_PACKET, _varint(len(data)), data)

    def slice(self, track: int, item: Slice) -> None:
        """A slice; packets of one form (name, names of arguments, texts) are made once and then copied with other numbers."""
        form = item.name, *item.texts.values(), *item.numbers
        found = self.forms.get(form)
        if found is None:
            found = self.forms[form] = self.form(item)
        packet, slots = found
        for slot, value in zip(slots, item.numbers.values(), strict=True):
            slot.int_value = value
        packet.timestamp = round(item.start * self.ns_per_cycle)
        packet.track_event.track_uuid = track
        event = packet.track_event
        del event.flow_ids[:], event.terminating_flow_ids[:]
        event.flow_ids.extend(self.first_flow + number for number in item.outgoing)
        event.terminating_flow_ids.extend(self.first_flow + number for number in item.incoming)
        self.put(packet)
        self.closing.timestamp = round(item.end * self.ns_per_cycle)
        self.closing.track_event.track_uuid = track
        self.put(self.closing)

    def form(self, item: Slice) -> tuple[TracePacket, list[Any]]:
        """The packet of slices like this one, and its arguments that are numbers."""
        texts = TracePacket()
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE, sequence_flags=TracePacket.SEQ_NEEDS_INCREMENTAL_STATE)
        packet.track_event.type = TrackEvent.TYPE_SLICE_BEGIN
        packet.track_event.name_iid = self.intern(texts, "event_names", item.name)
        for key, value in item.texts.items():
            annotation = packet.track_event.debug_annotations.add()
            annotation.name_iid = self.intern(texts, "debug_annotation_names", key)
            annotation.string_value_iid = self.intern(texts, "debug_annotation_string_values", value)
        numbers = [packet.track_event.debug_annotations.add() for _ in item.numbers]
        for annotation, key in zip(numbers, item.numbers, strict=True):
            annotation.name_iid = self.intern(texts, "debug_annotation_names", key)
        texts.trusted_packet_sequence_id, texts.sequence_flags = _SEQUENCE, self.flags
        self.flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        self.put(texts)
        return packet, numbers

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


def steps(counter: Counter) -> Iterator[tuple[int, float]]:
    """Where a counter changes, in cycles, and its end at zero."""
    last = None
    for at, value in zip(counter.edges.tolist(), counter.values.tolist(), strict=False):
        if value != last:
            yield at, value
            last = value
    yield int(counter.edges[-1]), 0.0
