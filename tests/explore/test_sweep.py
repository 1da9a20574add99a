"""Sweeps: the grid, draws, refusals, resuming after an interruption, and the DataFrame."""

from __future__ import annotations

import json

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore import sweep as module
from msdsim.explore.sweep import points, run_sweep

SPEC = {"problem": "gemm:m={m},k=64,n=96", "hw": "toy", "dataflow": ["bf16", "msd-int8"],
        "parameters": {"m": [1, 20], "hbm.bandwidth_gbps": [64, 128]}}


def test_grid_crosses_everything():
    found = points(SPEC)
    assert len(found) == 8
    assert len({point.key for point in found}) == 8
    assert found[0].problem == "gemm:m=1,k=64,n=96"


def test_draws_follow_the_seed():
    spec = SPEC | {"parameters": {"m": {"low": 1, "high": 100}, "hbm.bandwidth_gbps": {"low": 10.0, "high": 1000.0, "log": True}},
                   "random": {"samples": 20, "seed": 7}}
    first, second = points(spec), points(spec)
    assert first == second
    assert points(spec | {"random": {"samples": 20, "seed": 8}}) != first
    values = [dict(point.parameters) for point in first]
    assert all(1 <= v["m"] <= 100 and isinstance(v["m"], int) for v in values)
    assert all(10 <= v["hbm.bandwidth_gbps"] <= 1000 for v in values)


def test_rows_are_what_single_runs_give():
    rows = run_sweep(SPEC)
    chip = msdsim.load_hw("toy").replace(**{"hbm.bandwidth_gbps": 64})
    assert rows[0]["cycles"] == msdsim.simulate("gemm:m=1,k=64,n=96", chip, "bf16").cycles
    assert [row["error"] for row in rows] == [None] * 8
    slow, fast = (next(r for r in rows if r["dataflow"] == "bf16" and r["m"] == 1 and r["hbm.bandwidth_gbps"] == b) for b in (64, 128))
    assert slow["time_us"] > fast["time_us"]


def test_refusals_are_rows():
    rows = run_sweep(SPEC | {"parameters": {"m": [4], "tiling.base_n": [16, 17]}, "dataflow": "bf16"})
    assert rows[0]["error"] is None
    assert "tiling base_n=17 is not a multiple of 16" in rows[1]["error"]


def test_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = run_sweep(SPEC, tmp_path / "whole")
    store = tmp_path / "whole" / "results.jsonl"
    lines = store.read_text().splitlines()
    assert len(lines) == 8
    # Interrupted in the middle of the fourth row.
    store.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    ran = []
    monkeypatch.setattr(module, "run_point", lambda point, run=module.run_point: ran.append(point) or run(point))
    assert run_sweep(SPEC, tmp_path / "whole") == whole
    assert len(ran) == 5
    assert len(store.read_text().splitlines()) == 8


def test_processes_do_not_change_rows():
    assert run_sweep(SPEC, jobs=2) == run_sweep(SPEC, jobs=1)


def test_dask_cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        assert run_sweep(SPEC, scheduler=cluster.scheduler_address) == run_sweep(SPEC)


def test_dataframe():
    pandas = pytest.importorskip("pandas")
    table = msdsim.sweep("gemm:m={m},k=64,n=96", "toy", ["bf16", "msd-int8"], parameters={"m": range(1, 4)})
    assert isinstance(table, pandas.DataFrame)
    assert list(table.m) == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chip": "toy"}, "unknown key 'chip'"),
        ({"problem": 3}, "'problem' must be an inline form"),
        ({"problem": "gemm:m={rows},k=1,n=1"}, r"asks for \{rows\}, which is no parameter \(parameters: m, hbm"),
        ({"dataflow": []}, "'dataflow' must be a name or a list of names"),
        ({"dataflow": "msd-int9"}, "unknown gemm dataflow 'msd-int9'"),
        ({"hw": "toys"}, "unknown chip 'toys'"),
        ({"parameters": {"m": []}}, "empty list"),
        ({"parameters": {"m": 3}}, "parameter 'm' must be a list of values or a range"),
        ({"parameters": {"m": {"low": 9, "high": 1}}}, "runs from 9 to 1"),
        ({"parameters": {"m": {"low": 1, "high": 9}}}, r"ranges need \[random\] with samples"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(InputError, match=message):
        run_sweep(SPEC | change)


def test_command(tmp_path, capsys):
    spec = tmp_path / "spec.toml"
    spec.write_text('problem = "gemm:m={m},k=64,n=96"\nhw = "toy"\n[parameters]\nm = [1, 2]\n')
    assert run_program(["sweep", str(spec), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert "2 runs, 0 refused" in capsys.readouterr().out
    assert run_program(["sweep", str(spec), "--out", str(tmp_path / "out"), "--jobs", "1", "--json", "-"]) == 0
    assert [row["m"] for row in json.loads(capsys.readouterr().out)["rows"]] == [1, 2]
    spec.write_text("problem = ")
    assert run_program(["sweep", str(spec), "--out", str(tmp_path / "out")]) == 2
    assert "is not valid TOML" in capsys.readouterr().err
    assert run_program(["sweep", str(tmp_path / "none.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
