"""Traces, read back with the format's own definition: every instruction is there, and no slice of a track overlaps another."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent

from msdsim.api import simulate
from msdsim.errors import InputError
from msdsim.naming import parse_pipe_name


class Read:
    """Tracks by name; slices as (name, start, end, arguments); counters as (time, value)."""

    def __init__(self, path):
        trace = Trace()
        trace.ParseFromString(path.read_bytes())
        names, self.parents, self.slices, self.counters = {}, {}, defaultdict(list), defaultdict(list)
        texts = {"event_names": {}, "debug_annotation_names": {}, "debug_annotation_string_values": {}}
        started = False
        open_slices = {}
        for packet in trace.packet:
            if packet.HasField("track_descriptor"):
                track = packet.track_descriptor
                names[track.uuid] = track.name
                self.parents[track.name] = names.get(track.parent_uuid, "")
                continue
            assert packet.sequence_flags == (TracePacket.SEQ_NEEDS_INCREMENTAL_STATE if started
                                             else TracePacket.SEQ_INCREMENTAL_STATE_CLEARED)
            started = True
            for table, known in texts.items():
                for entry in getattr(packet.interned_data, table):
                    known[entry.iid] = entry.str.decode() if table.endswith("values") else entry.name
            event, at = packet.track_event, packet.timestamp
            track = names[event.track_uuid]
            if event.type == TrackEvent.TYPE_COUNTER:
                self.counters[track].append((at, event.double_counter_value))
            elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
                assert track not in open_slices
                arguments = {
                    texts["debug_annotation_names"][item.name_iid]:
                        item.int_value if item.HasField("int_value") else texts["debug_annotation_string_values"][item.string_value_iid]
                    for item in event.debug_annotations
                }
                open_slices[track] = (texts["event_names"][event.name_iid], at, arguments)
            else:
                name, start, arguments = open_slices.pop(track)
                self.slices[track].append((name, start, at, arguments))
        assert not open_slices


@pytest.fixture(scope="module")
def traced(dequant, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "run.pftrace"
    dequant.to_perfetto(str(path))
    return Read(path)


def test_one_track_per_pipe_named_by_the_machine(traced, dequant):
    timeline = dequant.timeline
    pairs = set(zip(timeline["unit"].tolist(), timeline["pipe"].tolist(), strict=True))
    expected = {str(dequant.record.units.pipe_name(unit, pipe)) for unit, pipe in pairs}
    assert set(traced.slices) == expected
    assert {str(parse_pipe_name(name)) for name in traced.slices} == expected
    assert "Chip.Core[1].AIV[0].MTE2" in expected
    root = "dequant-int8, gemm m=16 k=256 n=192 on toy; 1 ns is 1 cycle at 1000 MHz"
    assert {traced.parents[name] for name in expected} == {root}


def test_slices_of_a_track_do_not_overlap_and_lie_inside_the_run(traced, dequant):
    for slices in traced.slices.values():
        ends = [0]
        for _, start, end, _ in slices:
            assert ends[-1] <= start <= end <= dequant.cycles
            ends.append(end)


def test_every_instruction_is_a_slice_with_its_facts(traced, dequant):
    timeline, record = dequant.timeline, dequant.record
    for track, slices in traced.slices.items():
        name = parse_pipe_name(track)
        unit = record.units.unit(name.core, name.part, name.sub)
        part = record.program.aic if name.part == "AIC" else record.program.aiv
        rows = [index for index in range(len(timeline["unit"]))
                if timeline["unit"][index] == unit and part.pipes[timeline["pipe"][index]] == name.pipe]
        ops = [index for index in rows if part.instructions()[timeline["instr"][index]].op is not None]
        shown = [item for item in slices if "op" in item[3]]
        assert len(shown) == len(ops)
        for (_, start, _, arguments), index in zip(shown, sorted(ops, key=lambda index: timeline["start"][index]), strict=True):
            op = part.instructions()[timeline["instr"][index]].op
            assert (start, arguments["end_cycle"]) == (timeline["start"][index], timeline["end"][index])
            assert (arguments["op"], arguments["kernel_line"]) == (str(op), op.line)
            assert arguments.get("bytes", 0) == timeline["bytes"][index]


def test_waits_are_named(traced):
    slices = traced.slices["Chip.Core[0].AIC.M"]
    waits = [item for item in slices if item[0] == "wait data b0 from MTE1"]
    assert waits
    for _, start, end, arguments in waits:
        assert arguments["cycles"] == end - start
    waited = [arguments for _, _, _, arguments in slices if arguments.get("cause") == "wait_data"]
    assert len(waited) >= len(waits)
    assert any(item[0] == "wait signal full" for item in traced.slices["Chip.Core[0].AIC.MTE2"])


def test_counters_integrate_to_the_traffic(traced, dequant):
    points = traced.counters["HBM read"]
    assert points[-1] == (dequant.cycles, 0.0)
    total = sum(value * (later - at) for (at, value), (later, _) in pairwise(points))
    interval = dequant.bandwidth.interval_cycles
    # The last interval may be cut short by the end of the run.
    assert total == pytest.approx(dequant.traffic["hbm_read_bytes"], abs=interval * max(value for _, value in points))


def test_several_runs_share_a_trace(comparison, tmp_path):
    comparison.to_perfetto(str(tmp_path / "all.pftrace"))
    found = Read(tmp_path / "all.pftrace")
    roots = [name for name, parent in found.parents.items() if not parent]
    assert [name.split(",")[0] for name in roots] == ["bf16", "dequant-int8", "msd-int8"]


def test_a_run_without_timeline_is_refused(tmp_path):
    run = simulate("gemm:m=4,k=64,n=48", "toy")
    with pytest.raises(InputError, match=r"^the run of 'bf16' kept no timeline; simulate with timeline=True"):
        run.to_perfetto(str(tmp_path / "t"))
    assert list(tmp_path.iterdir()) == []
