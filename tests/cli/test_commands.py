"""What the commands write: JSON with exactly the documented keys, arrays, pictures, pages, traces, lists, kernels."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from msdsim.api import dataflows_for

P = "gemm:m=16,k=64,n=48"
TOY = ["--hw", "toy"]
CATEGORIES = {"busy", "head", "wait_data", "wait_buffer", "wait_sync", "wait_memory", "wait_issue", "drained"}
RUN_KEYS = ["schema", "problem", "hw", "dataflow", "engine", "memory", "tiling", "seed", "cycles", "clock_mhz", "time_us",
            "launch_us", "instructions", "traffic", "bandwidth", "pipes", "bottleneck", "wall_s"]
WORKLOAD = """description = "two layers"
source = "made up"
[[op]]
name = "up"
count = 3
problem = "gemm:m=4,k=64,n=96"
[[op]]
name = "down"
count = 3
problem = "gemm:m=4,k=96,n=64"
"""


@pytest.fixture
def workload(cli):
    Path("two.toml").write_text(WORKLOAD, encoding="utf-8")
    return "./two.toml"


def test_json_of_a_run_has_the_documented_keys(cli):
    found = cli("run", P, *TOY, "--dataflow", "msd-int8", "--check", "--json", "-")
    assert (found.code, found.err) == (0, "")
    run = json.loads(found.out)
    assert list(run)[: len(RUN_KEYS)] == RUN_KEYS
    assert set(run) - set(RUN_KEYS) - {"skip_reason"} == {
        "skipped_iterations", "ub_conflict_cycles", "l2_start", "l2_read_hit_rate", "bound_by", "closed_form", "energy", "numerics",
        "chosen"}
    assert re.match(r"(first )?of \d+ by estimate", run["chosen"])
    assert run["schema"] == "msdsim.run/1"
    assert run["problem"] == {"kind": "gemm", "m": 16, "k": 64, "n": 48}
    assert (run["hw"], run["dataflow"], run["engine"], run["memory"], run["seed"]) == ("toy", "msd-int8", "fast", "bandwidth", 0)
    assert run["time_us"] == run["cycles"] / 1000
    assert {"hbm_read_bytes", "hbm_write_bytes", "l2_read_bytes", "l2_write_bytes"} <= set(run["traffic"])
    assert set(run["bandwidth"]) == {"hbm_gbps", "hbm_utilization"}
    for name, pipe in run["pipes"].items():
        assert set(pipe) == {"instances"} | CATEGORIES, name
        assert sum(pipe[key] for key in CATEGORIES) == pipe["instances"] * run["cycles"], name
    assert set(run["numerics"]) == {"bit_exact", "elements", "mismatches", "relative_l2", "max_abs_error", "bound_ratio", "overflowed"}
    assert (run["numerics"]["bit_exact"], run["numerics"]["elements"], run["numerics"]["mismatches"]) == (True, 768, 0)


def test_numerics_are_there_only_when_numbers_were_executed(cli):
    assert "numerics" not in json.loads(cli("run", P, *TOY, "--json", "-").out)


def test_overrides_are_in_the_json_and_in_the_heading(cli):
    arguments = ["run", P, *TOY, "--set", "hbm.bandwidth_gbps=64", "--set", "launch.head_us=2.5"]
    assert json.loads(cli(*arguments, "--json", "-").out)["overrides"] == {"hbm.bandwidth_gbps": 64, "launch.head_us": 2.5}
    out = cli(*arguments).out
    assert out.startswith("bf16  gemm m=16 k=64 n=48  on toy with hbm.bandwidth_gbps=64, launch.head_us=2.5\n")
    assert "(+ 2.50 us launch)" in out


def test_json_to_a_file_leaves_the_tables_and_quiet_takes_them(cli):
    found = cli("run", P, *TOY, "--json", "run.json")
    assert found.out.startswith("bf16  gemm m=16 k=64 n=48  on toy\n")
    quiet = cli("run", P, *TOY, "--json", "again.json", "--quiet")
    assert quiet == (0, "", "")
    one, two = (json.loads(Path(name).read_text(encoding="utf-8")) for name in ("run.json", "again.json"))
    assert {**one, "wall_s": 0} == {**two, "wall_s": 0}
    assert Path("run.json").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_engines_give_the_same_run(cli):
    runs = [json.loads(cli("run", P, *TOY, "--dataflow", "dequant-int8", "--json", "-", *more).out)
            for more in ([], ["--engine", "reference"], ["--no-skip"])]
    same = [{key: run[key] for key in ("cycles", "pipes", "traffic", "instructions")} for run in runs]
    assert same[0] == same[1] == same[2]
    assert [run["engine"] for run in runs] == ["fast", "reference", "fast"]


def test_tiling_is_taken_and_auto_is_the_default(cli):
    auto, named, given = (json.loads(cli("run", P, *TOY, "--json", "-", *more).out)["tiling"]
                          for more in ([], ["--tiling", "auto"], ["--tiling", "l1_k=16,l0_k=16"]))
    assert auto == named
    assert (given["l1_k"], given["l0_k"]) == (16, 16)


def test_inputs_and_outputs(cli, activations):
    weights = np.random.default_rng(3).standard_normal((64, 48), dtype=np.float32)
    np.savez("in.npz", x=activations, w=weights)
    found = cli("run", P, *TOY, "--inputs", "in.npz", "--outputs", "out.npz")
    assert (found.code, found.err) == (0, "")
    with np.load("out.npz") as arrays:
        assert arrays["y"].dtype == np.float32
        np.testing.assert_allclose(arrays["y"], activations @ weights, rtol=0.05, atol=0.3)
        assert not set(arrays.files) & {"a1", "a2"}


def test_components_are_kept_on_request(cli):
    assert cli("run", P, *TOY, "--dataflow", "msd-int8", "--outputs", "out.npz", "--keep", "components").code == 0
    with np.load("out.npz") as arrays:
        assert arrays["y"].shape == (16, 48)
        assert arrays["a1"].dtype == arrays["a2"].dtype == np.int8
        assert arrays["a1"].shape == (16, 64)
        assert arrays["row_scale"].dtype == np.float32


def test_the_seed_decides_the_numbers(cli):
    values = []
    for seed in (0, 0, 1):
        assert cli("run", P, *TOY, "--seed", seed, "--outputs", "out.npz", "--quiet").code == 0
        with np.load("out.npz") as arrays:
            values.append(arrays["y"])
    assert np.array_equal(values[0], values[1])
    assert not np.array_equal(values[0], values[2])


def test_pictures_pages_and_traces(cli):
    found = cli("run", P, *TOY, "--plot", "run.png", "--html", "run.html", "--trace", "run.pftrace", "--quiet")
    assert found == (0, "", "")
    assert Path("run.png").read_bytes().startswith(b"\x89PNG")
    page = Path("run.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page), "the page stands alone"
    assert Path("run.pftrace").stat().st_size > 1000
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_compare_json(cli):
    found = cli("compare", P, *TOY, "--dataflow", "bf16,dequant-int8,msd-int8", "--check", "--json", "-")
    document = json.loads(found.out)
    assert list(document) == ["schema", "runs", "skipped", "winner", "fastest"]
    assert document["schema"] == "msdsim.compare/1"
    assert [run["dataflow"] for run in document["runs"]] == ["bf16", "dequant-int8", "msd-int8"]
    assert all(run["schema"] == "msdsim.run/1" and run["numerics"]["bit_exact"] for run in document["runs"])
    assert document["fastest"] == min(document["runs"], key=lambda run: run["cycles"])["dataflow"]
    # dequant-int8 rounds its weights, and so is less accurate than 16-bit weights.
    accurate = [run for run in document["runs"] if run["dataflow"] != "dequant-int8"]
    assert document["winner"] == min(accurate, key=lambda run: run["cycles"])["dataflow"]


def test_compare_all_runs_or_skips_every_dataflow(cli):
    document = json.loads(cli("compare", "gemm:m=16,k=64,n=48,offset=1", *TOY, "--json", "-").out)
    names = [run["dataflow"] for run in document["runs"]] + [item["dataflow"] for item in document["skipped"]]
    assert sorted(names) == sorted(dataflows_for("gemm"))
    # Offsets say how integers are stored, which 16-bit weights are not.
    assert "bf16" in [run["dataflow"] for run in document["runs"]]
    reason = "'dequant-mxfp4' weights have MX blocks of 32 along k and no offset; leave out group and offset"
    assert {"dataflow": "dequant-mxfp4", "reason": reason} in document["skipped"]
    out = cli("compare", "gemm:m=16,k=64,n=48,offset=1", *TOY).out
    assert f"skipped dequant-mxfp4: {reason}" in out


def test_compare_where_nothing_runs(cli):
    found = cli("compare", "gemm:m=16,k=64,n=48,offset=1", *TOY, "--dataflow", "dequant-mxfp4", "--json", "a.json")
    assert (found.code, found.err) == (0, "")
    assert found.out == ("skipped dequant-mxfp4: 'dequant-mxfp4' weights have MX blocks of 32 along k and no offset; leave out "
                         "group and offset\n")
    assert json.loads(Path("a.json").read_text(encoding="utf-8"))["runs"] == []


def test_compare_takes_a_tiling_per_dataflow(cli):
    found = cli("compare", P, *TOY, "--dataflow", "bf16,msd-int8", "--tiling", "l1_ring=1", "--tiling", "msd-int8:passes=1",
                   "--json", "-")
    bf16, msd = (run["tiling"] for run in json.loads(found.out)["runs"])
    assert (bf16["l1_ring"], msd["l1_ring"], msd["passes"]) == (1, 1, 1)


def test_compare_writes_arrays_and_timelines_of_every_dataflow(cli):
    found = cli("compare", P, *TOY, "--dataflow", "bf16,msd-int8", "--outputs", "out.npz", "--trace", "t.pftrace", "--html",
                   "c.html", "--plot", "c.svg", "--quiet")
    assert found == (0, "", "")
    with np.load("out.npz") as arrays:
        assert {"bf16.y", "msd-int8.y"} <= set(arrays.files)
    assert Path("c.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_run_of_a_workload(cli, workload):
    found = cli("run", workload, *TOY, "--dataflow", "msd-int8", "--check", "--json", "w.json", "--plot", "w.png", "--html",
                   "w.html")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0] == "msd-int8  two  on toy"
    assert [line.split()[0] for line in lines if line.startswith("  ")][:3] == ["layer", "up", "down"]
    assert "total" in lines[-1]
    assert "in 6 kernels" in lines[-1]
    document = json.loads(Path("w.json").read_text(encoding="utf-8"))
    assert (document["schema"], document["name"]) == ("msdsim.workload/1", "two")
    assert set(document["total"]) == {"time_us", "cycles", "traffic", "energy"}
    assert [(run["name"], run["count"], run["schema"]) for run in document["runs"]] == [("up", 3, "msdsim.run/1"),
                                                                                     ("down", 3, "msdsim.run/1")]
    assert document["total"]["cycles"] == sum(run["count"] * run["cycles"] for run in document["runs"])
    for key, value in document["total"]["traffic"].items():
        runs = document["runs"]
        # What is left dirty in L2 counts once, at the end.
        assert value == (runs[-1]["traffic"][key] if key == "l2_dirty_bytes" else
                         sum(run["count"] * run["traffic"][key] for run in runs))


def test_compare_of_a_workload(cli, workload):
    found = cli("compare", workload, *TOY, "--dataflow", "bf16,msd-int8", "--json", "w.json", "--plot", "w.png", "--html", "w.html")
    assert (found.code, found.err) == (0, "")
    assert [line.split()[:4] for line in found.out.splitlines() if line.startswith("  layer")] == [
        ["layer", "count", "bf16", "msd-int8"]]
    document = json.loads(Path("w.json").read_text(encoding="utf-8"))
    assert [(run["schema"], run["dataflow"]) for run in document["runs"]] == [("msdsim.workload/1", "bf16"),
                                                                             ("msdsim.workload/1", "msd-int8")]


def test_ir_prints_a_kernel_that_runs_as_a_file(cli):
    text = cli("ir", P, *TOY, "--dataflow", "msd-int8").out
    assert text.startswith("kernel msd_int8 {\n")
    Path("mine.kir").write_text(text, encoding="utf-8")
    lines = len(text.splitlines())
    assert cli("ir", "mine.kir", *TOY).out == text
    assert cli("ir", "mine.kir", *TOY, "--verify").out == f"ok: kernel 'msd_int8', {lines} lines, passes the verifier for 'toy'; all accesses of one place are ordered\n"
    one = json.loads(cli("run", P, *TOY, "--dataflow", "msd-int8", "--json", "-").out)
    two = json.loads(cli("run", "mine.kir", *TOY, "--json", "-").out)
    assert one["cycles"] == two["cycles"]
    refused = cli("compare", "mine.kir", *TOY)
    assert refused.err == "error: 'mine.kir' is one kernel, and compare runs several dataflows; use run\n"


def test_lists_name_what_there_is(cli):
    for what, name in (("hw", "ascend910b1"), ("workloads", "llama3-8b-decode"), ("dataflows", "msd-int8"), ("formats", "bf16")):
        assert any(line.split()[0] == name for line in cli("list", what).out.splitlines()), what
        document = json.loads(cli("list", what, "--json", "-").out)
        assert document["schema"] == "msdsim.list/1"
        assert name in [entry["name"] for entry in document[what]]


def test_verbose_list_of_a_chip_shows_every_number_with_its_source(cli):
    out = cli("list", "hw", "ascend910b1", "--verbose").out
    row = next(line for line in out.splitlines() if line.startswith("hbm.bandwidth_gbps"))
    assert "1600 GB/s" in row
    document = json.loads(cli("list", "hw", "ascend910b1", "--verbose", "--json", "-").out)
    numbers = [item for item in document["hw"][0]["parameters"] if isinstance(item["value"], int | float)]
    assert len(numbers) > 50
    assert all(item["kind"] and item["source"] for item in numbers)


def test_verbose_lists_of_the_others(cli):
    assert "gate_up_proj" in cli("list", "workloads", "llama3-8b-decode", "--verbose").out
    assert "tiling: base_m base_n" in cli("list", "dataflows", "bf16", "--verbose").out
    assert "3.38953e+38" in cli("list", "formats", "bf16", "--verbose").out


def test_warm_times_the_second_run(cli):
    found = cli("run", P, *TOY, "--warm")
    assert (found.code, found.err) == (0, "")
    assert "an earlier run of the kernel has filled it" in found.out
    compared = cli("compare", P, *TOY, "--warm", "--json", "-")
    assert {run["l2_start"] for run in json.loads(compared.out)["runs"]} == {"warm"}
    refused = cli("run", "llama3-8b-decode", "--warm")
    assert refused.code == 2
    assert refused.err.startswith("error: --warm belongs to one problem")
