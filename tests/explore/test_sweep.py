"""Sweeps: the grid, draws, refusals, resuming after an interruption, and the DataFrame."""

from __future__ import annotations

import json

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore.sweep import points, run_sweep, workers
from msdsim.ir.printer import print_kernel

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


def test_a_logarithmic_draw_is_even_over_the_logarithm():
    from msdsim.explore.sweep.spec import Draw

    draw = Draw("x", 1, 10_000, log=True, whole=False)
    assert [draw.at(share) for share in (0, 0.25, 0.5, 1)] == [1, 10, 100, 10_000]
    assert Draw("x", 1, 10_001, log=False, whole=True).at(0.5) == 5001


def test_ranges_and_values_that_go_together():
    spec = {"problem": "gemm:m={m},k={k},n={n}", "hw": "toy", "parameters": {
        "k, n": [[64, 96], [128, 32]], "m": {"start": 1, "stop": 7, "step": 3},
        "hbm.bandwidth_gbps": {"start": 10, "stop": 1000, "count": 3, "log": True}}}
    found = points(spec)
    assert [point.problem for point in found[::3]] == [f"gemm:m={m},k={k},n={n}" for k, n in ((64, 96), (128, 32)) for m in (1, 4, 7)]
    assert [dict(point.parameters)["hbm.bandwidth_gbps"] for point in found[:3]] == [10, 100, 1000]


def test_shares_of_a_pipe_add_up():
    row = run_sweep({"problem": "gemm:m=4,k=256,n=64", "hw": "toy", "parameters": {"tiling.base_n": [32]}})[0]
    assert row["tiling.base_n"] == 32
    for pipe in {name.partition(".")[2] for name in row if name.startswith("busy.")}:
        shares = [value for name, value in row.items() if name.partition(".")[2] == pipe]
        assert sum(shares) == pytest.approx(1)


def test_a_kernel_over_chip_numbers(tmp_path):
    path = tmp_path / "mine.kir"
    path.write_text(print_kernel(msdsim.simulate("gemm:m=4,k=256,n=64", "toy", "bf16").kernel))
    rows = run_sweep({"problem": str(path), "hw": "toy", "parameters": {"hbm.bandwidth_gbps": [16, 64]}})
    assert rows[0]["cycles"] > rows[1]["cycles"]
    assert rows[1]["cycles"] == msdsim.simulate(str(path), msdsim.load_hw("toy").replace(hbm__bandwidth_gbps=64)).cycles
    with pytest.raises(InputError, match="nothing uses the parameter 'tiling"):
        run_sweep({"problem": str(path), "hw": "toy", "parameters": {"tiling.base_n": [16]}})


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
    monkeypatch.setattr(workers, "run_point", lambda setting, point, run=workers.run_point: ran.append(point) or run(setting, point))
    assert run_sweep(SPEC, tmp_path / "whole") == whole
    assert len(ran) == 5
    # Nothing is written anew: the row cut short stays as it was, on a line of its own.
    assert store.read_text().splitlines()[:4] == [*lines[:3], lines[3][:20]]
    assert len(store.read_text().splitlines()) == 9


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
        ({"problem": "gemm:m={rows},k=1,n=1"}, r"nothing uses the parameter 'm' \(the problem takes \{rows\};"),
        ({"dataflow": []}, "'dataflow' must be a name or a list of names"),
        ({"dataflow": "msd-int9"}, "unknown gemm dataflow 'msd-int9'"),
        ({"hw": "toys"}, "unknown chip 'toys'"),
        ({"parameters": {"m": []}}, "empty list"),
        ({"parameters": {"m": 3}}, "parameter 'm' must be a list of values, a range"),
        ({"parameters": {"m": {"low": 9, "high": 1}}}, "runs from 9 to 1"),
        ({"parameters": {"m": {"low": 1, "high": 9}}}, r"low and high need \[random\] with samples"),
        ({"parameters": "x"}, "'parameters' is x; give a table"),
        ({"parameters": {"m": [1], "M": [5, 6]}}, r"nothing uses the parameter 'M' \(the problem takes \{m\}"),
        ({"parameters": {"m": [1], "hw": ["toy"]}}, "'hw' cannot be a parameter, since a column"),
        ({"parameters": {"m": [1], "cycles": [7]}}, "'cycles' cannot be a parameter, since a column"),
        ({"parameters": {"m": [1], "hbm.bandwith": [1]}}, "unknown chip parameter 'hbm.bandwith'; did you mean 'hbm.bandwidth_gbps'"),
        ({"parameters": {"m": [1], "tiling.base_x": [1]}}, "nothing uses the parameter 'tiling.base_x' .keys of bf16, msd-int8: base_m"),
        ({"parameters": {"m": [1], "hbm.bandwidth_gbps": [float("nan")]}}, "value nan; numbers must be finite"),
        ({"parameters": {"m": [True]}}, "value True; give numbers or texts"),
        ({"parameters": {"m": [10**400]}}, "a value of 401 digits; give one below 2"),
        ({"parameters": {"m": {"low": 1, "high": 10**400}}, "random": {"samples": 1}}, r"high = 1000.*; give a number between -2\^63 and"),
        ({"parameters": {"m": {"low": 1, "high": 2}}, "random": {"samples": 10**9}}, "samples = 1000000000; give at most 10,000,000"),
        ({"parameters": {"m": [1, "2"]}}, "parameter 'm' has texts and numbers"),
        ({"parameters": {"m": [[1]]}}, r"value \[1\]; give numbers or texts"),
        ({"parameters": {"m": [2, 1, 2]}}, "has 2 twice"),
        ({"dataflow": ["bf16", "bf16"]}, "'dataflow' has bf16 twice"),
        ({"parameters": {"m, k": [[1, 2], [3]]}}, "has 2 names, and"),
        ({"parameters": {"m": {"low": "a", "high": "b"}}}, "low = a; give a number between"),
        ({"parameters": {"m": {"low": 1, "high": 2, "log": "no"}}}, "log of parameter 'm' is no; give true or false"),
        ({"parameters": {"m": {"low": 1, "high": 2, "steps": 2}}}, r"unknown key 'steps' \(keys: low, high, log, whole\)"),
        ({"parameters": {"m": {"start": 1, "stop": 9}}}, r"has no count"),
        ({"parameters": {"m": {"start": 1, "stop": 9, "step": 0}}}, "step = 0; give one above 0"),
        ({"parameters": {"m": {"start": 1, "stop": 10**12, "step": 1}}}, "would take 1,000,000,000,000 values"),
        ({"parameters": {"m": {"low": 1, "high": 9}}, "random": {"samples": 3, "sed": 5}}, r"unknown key 'sed' \(keys: samples, seed"),
        ({"parameters": {"m": {"low": 1, "high": 9}}, "random": {"samples": True}}, "samples = True"),
        ({"parameters": {"m": {"low": 1, "high": 9}}, "random": {"samples": 3, "seed": -1}}, "seed = -1; give a whole number"),
        ({"random": {"samples": 3}}, "no parameter is a range with low and high"),
        ({"memory": "bank"}, "unknown memory model 'bank'; did you mean 'banked'"),
        ({"check": "yes"}, "'check' is yes; give true or false"),
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


def test_a_row_is_on_disk_when_it_is_done(tmp_path):
    """At once, not when a buffer is full: what is killed loses nothing that was done."""
    from msdsim.explore.sweep.store import RESULTS, Store

    with Store(tmp_path) as store:
        for count in (1, 2, 3):
            store.append({"key": str(count), "status": "done"})
            assert (tmp_path / RESULTS).read_text().count("\n") == count
