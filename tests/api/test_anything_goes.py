"""Names, paths, objects, workloads and kernels are taken alike; rows, JSON and frames of a run agree."""

from __future__ import annotations

import csv
import io
import subprocess
import sys

import numpy as np
import pytest

import msdsim
from msdsim.errors import InputError
from msdsim.ir import KernelBuilder, print_kernel
from msdsim.problems import Entry, Gemm, Workload
from msdsim.report.frames import csv_text, run_row
from msdsim.report.shown import ShownComparison, ShownWorkloadComparison
from tests.ir.kernels import copy_kernel

P = "gemm:m=4,k=64,n=96"
TWO = Workload("two", "", "", None, (Entry("up", 2, Gemm(m=4, k=64, n=96)), Entry("down", 1, Gemm(m=4, k=96, n=64))), "msd-int8")
TOML = """description = "two"
source = "none"
dataflow = "msd-int8"
[[op]]
name = "up"
count = 2
problem = "gemm:m=4,k=64,n=96"
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "copy.kir").write_text(print_kernel(copy_kernel()))
    (tmp_path / "two.toml").write_text(TOML)
    (tmp_path / "chip.toml").write_text('extends = "toy"\n')
    return tmp_path


def test_a_problem_by_text_object_and_path(files):
    assert msdsim.simulate(P, "toy").cycles == msdsim.simulate(Gemm(m=4, k=64, n=96), msdsim.load_hw("toy")).cycles
    by_path = [msdsim.simulate(files / "copy.kir", files / "chip.toml"), msdsim.simulate(str(files / "copy.kir"), "toy")]
    assert {run.cycles for run in by_path} == {msdsim.simulate(copy_kernel(), "toy").cycles}


def test_workloads_by_object_and_path_with_the_dataflow_of_the_file(files):
    whole = msdsim.simulate(TWO, "toy")
    assert (whole.dataflow, [run.name for run in whole.runs]) == ("msd-int8", ["up", "down"])
    assert msdsim.simulate(TWO, "toy", "bf16").dataflow == "bf16"
    assert msdsim.simulate(files / "two.toml", "toy").dataflow == "msd-int8"
    assert msdsim.load_workload(TWO) is TWO
    assert msdsim.load_workload("deepseek-v3-decode").entries
    with pytest.raises(InputError, match="is one problem, not a workload"):
        msdsim.load_workload(P)


def test_compare_takes_workloads_and_single_names():
    assert isinstance(msdsim.compare(TWO, "toy", ["bf16", "msd-int8"]), ShownWorkloadComparison)
    found = msdsim.compare(P, "toy", "bf16")
    assert isinstance(found, ShownComparison)
    assert [run.dataflow for run in found.runs] == ["bf16"]


def test_what_belongs_to_a_problem_is_refused_beside_a_kernel():
    with pytest.raises(InputError, match="is a kernel already; leave it out"):
        msdsim.simulate(copy_kernel(), "toy", "bf16")
    with pytest.raises(InputError, match="base_m"):
        msdsim.simulate(copy_kernel(), "toy", tiling={"base_m": 16})
    with pytest.raises(InputError, match="leaves nothing open to tune"):
        msdsim.tune(copy_kernel(), "toy")
    with pytest.raises(InputError, match="is a kernel"):
        msdsim.accuracy(copy_kernel())
    for call in (lambda: msdsim.tune(P, "toy", ops=["x"]), lambda: msdsim.accuracy(P, ops=["x"])):
        with pytest.raises(InputError, match=r"belong to a workload|are those of a workload"):
            call()


def test_row_json_csv_and_frame_agree():
    result = msdsim.simulate(P, "toy", "dequant-int8", check=True)
    row, document, frame = run_row(result), result.to_json(), result.to_frame()
    assert list(frame.columns) == list(row)
    [read] = csv.DictReader(io.StringIO(csv_text([row])))
    for name, value in row.items():
        assert frame[name].iloc[0] == value or value is None
        assert read[name] == ("" if value is None else str(value))
    assert row["problem"] == P
    assert {name: row[name] for name in document["traffic"]} == document["traffic"]
    assert row["relative_l2"] == document["numerics"]["relative_l2"]
    for pipe, counts in document["pipes"].items():
        whole = counts["instances"] * document["cycles"]
        assert {name: row[f"{name}.{pipe}"] * whole for name in counts if name != "instances"} == pytest.approx(
            {name: value for name, value in counts.items() if name != "instances"})
    swept = msdsim.sweep("gemm:m={m},k=64,n=96", "toy", "dequant-int8", parameters={"m": [4]}, check=True)
    for name in ("time_us", "hbm_read_bytes", "busy.aic.m", "relative_l2", "tiling.base_n", "l2_read_hit_rate"):
        assert swept[name].iloc[0] == row[name]


def test_other_tables_of_a_run():
    result = msdsim.simulate(P, "toy", "dequant-int8", timeline=True)
    assert int(result.to_frame("pipes")["busy"].sum()) == sum(row["busy"] for row in result.stalls.values())
    waits = result.to_frame("waits")
    assert int(waits["cycles"].sum()) == sum(v for row in result.stalls.values() for k, v in row.items() if k.startswith("wait_"))
    assert len(result.to_frame("timeline")) == len(result.timeline["unit"])
    assert set(result.to_frame("lines")["line"]) == {line.profile.line for line in result.lines}
    with pytest.raises(InputError, match=r"no table 'stalls' of a run \(tables: run, pipes, waits, lines, timeline\)"):
        result.to_frame("stalls")


def test_frames_of_comparisons_and_workloads():
    found = msdsim.compare(P, "toy", ["bf16", "msd-int8"])
    assert list(found.to_frame()["time_us"]) == [run.time_us for run in found.runs]
    step = msdsim.simulate(TWO, "toy")
    assert step.to_frame()["total_us"].sum() == pytest.approx(step.time_us)
    both = msdsim.compare(TWO, "toy", ["bf16", "msd-int8"])
    assert list(both.to_frame()["asked"]) == ["bf16", "bf16", "msd-int8", "msd-int8"]


def test_explanations_of_results_comparisons_and_workloads():
    run = msdsim.simulate(P, "toy", "msd-int8")
    why = run.explain()
    assert why.result.cycles == run.cycles
    assert why.to_json()["what_if"][0]["speedup"] == why.what_if[0].speedup
    assert {item.change for item in why.what_if} == set(why.to_frame()["change"])
    assert set(msdsim.compare(P, "toy", ["bf16", "msd-int8"]).explain()) == {"bf16", "msd-int8"}
    step = msdsim.explain(TWO, "toy")
    assert set(step) == {"up", "down"}
    assert "empty L2" in step.note
    with pytest.raises(InputError, match="a result is explained as it was run"):
        msdsim.explain(run, "toy")


def test_pandas_is_asked_for_only_when_it_is_needed():
    code = ("import sys\nsys.modules['pandas'] = None\nimport msdsim\nfrom msdsim.errors import InputError\n"
            "run = msdsim.simulate('gemm:m=4,k=64,n=96', 'toy')\nrun.to_json(), run.explain()\n"
            "try:\n    run.to_frame()\nexcept InputError as err:\n    print(err)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "to_frame needs pandas; install it with: pip install 'msdsim[frames]'\n"


def test_inputs_of_a_kernel_are_rounded_to_its_tensors():
    """1 + 2^-8 lies between two bf16 numbers and goes to the even one, 1 + 3 * 2^-8 likewise."""
    kb = KernelBuilder("copy", cores=1, aiv_per_core=1)
    x, y = kb.tensor("x", "bf16", (1, 16), "in"), kb.tensor("y", "bf16", (1, 16), "out")
    with kb.part("aiv"):
        tile = kb.buffer("tile", "UB", "bf16", (1, 16))
        kb.copy(tile[:, :], x[:, :])
        kb.copy(y[:, :], tile[:, :])
    given = np.full((1, 16), 1 + 2.0**-8, np.float32)
    given[0, 1] = 1 + 3 * 2.0**-8
    found = msdsim.simulate(kb.build(), "toy", inputs={"x": given}).arrays["y"]
    np.testing.assert_array_equal(found, np.where(np.arange(16) == 1, 1 + 2.0**-6, 1.0)[None])


def test_models_become_workloads(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, '
        '"num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": false}')
    found = msdsim.import_model(tmp_path / "config.json", batch=4, kv=128)
    assert found.name.endswith("-decode")
    assert msdsim.import_model(tmp_path / "config.json", tokens=2).name.endswith("-prefill")
    assert {entry.problem.kind for entry in found.entries} == {"gemm", "attention"}
    assert msdsim.simulate(found, "ascend910b4", "bf16").cycles > 0
    with pytest.raises(InputError, match="batch = 0 of a step is no whole number"):
        msdsim.import_model(tmp_path / "config.json", batch=0)


def test_explain_refuses_for_a_kernel_what_belongs_to_a_problem(files, capsys):
    from msdsim.cli.program import run_program

    assert run_program(["explain", str(files / "copy.kir"), "--hw", "toy", "--dataflow", "msd-int8"]) == 2
    assert f"error: --dataflow belongs to a problem, and '{files / 'copy.kir'}' is a kernel already; leave it out" in capsys.readouterr().err
    assert run_program(["explain", str(files / "copy.kir"), "--hw", "toy", "--tiling", "base_m=16"]) == 2
    assert "base_m" in capsys.readouterr().err
    assert run_program(["explain", str(files / "copy.kir"), "--hw", "toy", "--plot", str(files / "why.png"), "--html",
                        str(files / "why.html"), "--quiet"]) == 0
    assert (files / "why.png").stat().st_size > 10_000
    assert "Who waits for whom" in (files / "why.html").read_text()
