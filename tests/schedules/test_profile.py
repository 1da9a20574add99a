"""A trace of the vendor's form beside a schedule: made-up files in both of its forms, and our own trace of the same run."""

from __future__ import annotations

import json

import pytest

from msdsim.api import simulate
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.problems import parse_problem
from msdsim.schedules import lay_beside, record_schedule, save_schedule

P = "gemm:m=16,k=256,n=192"


@pytest.fixture(scope="module")
def schedule():
    return record_schedule(parse_problem(P), "toy", "dequant-int8")


def event(core, pipe, start, length, **more):
    return {"ph": "X", "pid": core, "tid": pipe, "name": "MMAD", "ts": start, "dur": length, "args": {}, **more}


#: A summary: two copies of MTE2 overlap (1..4 and 3..6), Cube works 6..8 and 9..10; then 2 us of Vector on another core.
SUMMARY = [
    {"args": {"sort_index": 1}, "name": "process_sort_index", "ph": "M", "pid": "core0.cubecore0", "tid": "NA"},
    event("core0.cubecore0", "MTE2", 1.0, 3.0), event("core0.cubecore0", "MTE2", 3.0, 3.0),
    event("core0.cubecore0", "CUBE", 6.0, 2.0), event("core0.cubecore0", "CUBE", 9.0, 1.0),
    {"ph": "B", "name": "WAIT_FLAG", "id": "0", "pid": "core0.cubecore0", "tid": "CUBE", "ts": 1.0},
    {"ph": "E", "name": "WAIT_FLAG", "id": "0", "pid": "core0.cubecore0", "tid": "CUBE", "ts": 6.0},
    event("core0.cubecore0", "FLOWCTRL", 0.0, 20.0), event("core0.veccore0", "VECTOR", 10.0, 2.0),
    event("core0.veccore1", "VECTOR", 2.0, 4.0),
]
#: The same Cube core in a file of its own: a process is a pipe, threads are lanes for what overlaps.
OF_A_CORE = [
    {"ph": "M", "name": "process_name", "pid": 60, "tid": 0, "args": {"name": "MTE2"}},
    {"ph": "M", "name": "process_name", "pid": 40, "tid": 0, "args": {"name": "CUBE"}},
    event(60, 1, 1.0, 3.0), event(60, 2, 3.0, 3.0), event(40, 1, 6.0, 2.0), event(40, 1, 9.0, 1.0),
]


def written(tmp_path, events, name="trace.json"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps({"displayTimeUnit": "ns", "profilingType": "op", "traceEvents": events}))
    return path


def rows(found):
    return {row.pipe: row.traced for row in found.pipes if row.traced is not None}


def test_a_summary(schedule, tmp_path):
    found = lay_beside(schedule, written(tmp_path, SUMMARY))
    assert found.traced_us == 11.0
    assert found.simulated_us == schedule.cycles / 1000
    traced = rows(found)
    # The schedule has two AICs and four AIVs, the trace one and two: the others are idle.
    assert [traced["aic.mte2"].busy_us, traced["aic.mte2"].gaps_us, traced["aic.mte2"].after_us] == [5.0 / 2, 0.0, (6.0 + 11) / 2]
    assert [traced["aic.m"].busy_us, traced["aic.m"].gaps_us, traced["aic.m"].after_us] == [3.0 / 2, 6.0 / 2, (2.0 + 11) / 2]
    assert (traced["aiv.v"].instances, traced["aiv.v"].busy_us, traced["aiv.v"].after_us) == (2, 6.0 / 4, (6.0 + 22) / 4)
    assert any("AIC M 1 of 2" in line.plain for line in found.lines())
    assert found.passed_over == ("FLOWCTRL",)
    assert {row.pipe for row in found.pipes if row.simulated is not None} == set(schedule.pipes)


def test_a_file_of_one_core(schedule, tmp_path):
    traced = rows(lay_beside(schedule, written(tmp_path, OF_A_CORE, "simulator/core0.cubecore0/trace.json")))
    assert set(traced) == {"aic.mte2", "aic.m"}
    assert (traced["aic.mte2"].busy_us, traced["aic.m"].busy_us) == (5.0, 3.0)


@pytest.mark.parametrize(("problem", "hw", "dataflow"), [(P, "toy", "dequant-int8"), (P, "toy", "msd-int8"),
                                                         ("gemm:m=16,k=512,n=256", "ascend910b1", "bf16")])
def test_our_own_trace_is_the_schedule(problem, hw, dataflow, tmp_path):
    schedule = record_schedule(parse_problem(problem), hw, dataflow)
    run = simulate(problem, hw, dataflow, tiling=schedule.tiling, timeline=True)
    run.to_trace(str(tmp_path / "own.json"))
    found = lay_beside(schedule, tmp_path / "own.json")
    assert found.traced_us == pytest.approx(found.simulated_us, abs=1e-4)
    for row in found.pipes:
        if row.pipe.endswith(".s") or row.traced is None:
            continue
        for name in ("busy_us", "gaps_us", "after_us"):
            assert getattr(row.traced, name) == pytest.approx(getattr(row.simulated, name), abs=2e-3), (row.pipe, name)


def test_on_the_command_line(schedule, tmp_path, capsys):
    save_schedule(schedule, tmp_path / "golden.json")
    trace = written(tmp_path, SUMMARY)
    assert run_program(["schedule", "diff", str(tmp_path / "golden.json"), "--profile", str(trace), "--json", str(tmp_path / "d.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("simulated ")
    assert "AIC M" in out
    assert "FLOWCTRL" in out
    document = json.loads((tmp_path / "d.json").read_text())
    assert document["schema"] == "msdsim.schedule_profile/1"
    assert document["traced_us"] == 11.0
    assert next(row for row in document["pipes"] if row["pipe"] == "aic.m")["traced"]["gaps_us"] == 3.0


@pytest.mark.parametrize(("text", "said"), [
    ("{", "is not JSON"),
    ("[1]", "is no Chrome trace"),
    ('{"traceEvents": {}}', "is no Chrome trace"),
    ('{"traceEvents": []}', "has no instructions"),
    (json.dumps([event("core0.cubecore0", "CUBE", "now", 1)]), "has ts now, and it must be a number of microseconds"),
    (json.dumps([event("core0.cubecore0", "CUBE", 1, None)]), "has dur None, and it must be a number of microseconds"),
    (json.dumps([event("core0.cubecore0", "CUBE", 1, -2)]), "has dur -2; none takes less than no time"),
    ('[{"ph": "X", "pid": "core0.cubecore0", "tid": "CUBE", "ts": NaN, "dur": 1}]', "has ts nan"),
])
def test_what_is_no_trace_is_refused(schedule, tmp_path, text, said):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        lay_beside(schedule, path)
    assert said in str(caught.value)


def test_one_or_the_other(schedule, tmp_path, capsys):
    save_schedule(schedule, tmp_path / "golden.json")
    for arguments in ([], ["x.json", "--profile", "t.json"], ["--profile", "t.json", "--cycles-only"]):
        assert run_program(["schedule", "diff", str(tmp_path / "golden.json"), *arguments]) == 2
        assert capsys.readouterr().err.startswith("error: ")
