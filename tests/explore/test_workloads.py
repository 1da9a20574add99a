"""Searches and errors over a workload: each distinct operator once, what that means for the whole, and what can be read again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import msdsim
from msdsim.cli.program import run_program
from msdsim.errors import InputError, TilingError
from msdsim.explore.accuracy.study import accuracy_study
from msdsim.problems import parse_problem
from msdsim.tilings_file import read_tilings_file

TEXT = """description = "two layers"
source = "made up"
dataflow = "gemm=msd-int8,attention=bf16"

[[op]]
name = "qkv_proj"
count = 2
problem = "gemm:m=4,k=128,n=192"

[[op]]
name = "attention"
count = 2
problem = "attention:batch=2,heads=4,kv_heads=2,head_dim=32,q=1,kv=64"

[[op]]
name = "o_proj"
count = 2
problem = "gemm:m=4,k=128,n=192"

[[op]]
name = "down_proj"
count = 2
problem = "gemm:m=4,k=256,n=128"
"""


@pytest.fixture
def workload(tmp_path):
    file = tmp_path / "two.toml"
    file.write_text(TEXT)
    return str(file)


def test_the_whole_is_what_its_operators_are(workload, tmp_path):
    found = msdsim.tune(workload, "toy", budget=6)
    assert sorted(item.names for item in found.operators) == [("attention",), ("down_proj",), ("qkv_proj", "o_proj")]
    assert found.best.cycles <= found.start.cycles == msdsim.simulate(workload, "toy").cycles
    assert sum(item.before_us for item in found.operators) == pytest.approx(found.start.time_us)
    assert sum(item.after_us for item in found.operators) == pytest.approx(found.best.time_us)
    before = [item.before_us for item in found.operators]
    assert before == sorted(before, reverse=True)
    file = tmp_path / "tilings.toml"
    found.save(str(file))
    again = msdsim.simulate(workload, "toy", tilings=file, check=True)
    assert again.cycles == found.best.cycles
    assert all(run.result.numerics.bit_exact for run in again.runs)
    assert {run.name: dict(run.result.tiling) for run in again.runs} == \
        {name: dict(item.tiling) for item in found.operators for name in item.names}
    assert read_tilings_file(file).ops == found.tilings.ops
    assert len(found.to_frame()) == 3
    assert msdsim.tune(workload, "toy", budget=6).to_json()["operators"] == found.to_json()["operators"], "can be repeated"


def test_a_bad_tiling_gains_and_one_operator_is_searched_alone(workload):
    found = msdsim.tune(workload, "toy", budget=12, ops=["down_proj"], dataflow="bf16")
    assert [item.names for item in found.operators] == [("down_proj",)]
    kept = {run.name: run.result.tiling for run in found.start.runs if run.name != "down_proj"}
    assert all(run.result.tiling == kept[run.name] for run in found.best.runs if run.name in kept)
    whole = msdsim.tune(workload, "toy", "bf16", budget=12, tiling=None)
    assert whole.speedup >= found.speedup >= 1


def test_what_is_slower_in_the_workload_is_not_kept(workload, monkeypatch):
    """A search that lies: its best tiling is the slowest that it saw."""
    from msdsim.explore import tune as module

    honest = module._tune_problem

    def lying(*args):
        from dataclasses import replace

        found = honest(*args)
        slowest = max(found.trials, key=lambda trial: trial.cycles)
        return replace(found, best=msdsim.simulate(args[0], args[1], args[2], tiling=slowest.tiling))

    monkeypatch.setattr(module, "_tune_problem", lying)
    found = msdsim.tune(workload, "toy", budget=6)
    assert not all(item.kept for item in found.operators)
    assert found.best.cycles <= found.start.cycles
    for item in found.operators:
        assert item.kept or item.tiling == dict(item.tuning.start.tiling)


def test_a_time_limit_ends_every_search(workload):
    found = msdsim.tune(workload, "toy", budget=1000, time_limit=1e-6)
    assert [len(item.tuning.trials) for item in found.operators] == [1, 1, 1]
    assert found.out_of_time
    assert found.speedup == 1
    with pytest.raises(InputError, match="a time limit of 0 s is no time"):
        msdsim.tune(workload, "toy", time_limit=0)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("k=256", "k=512", "'down_proj' for gemm:m=4,k=512,n=128 with msd-int8, and here it is gemm:m=4,k=256,n=128"),
    ('dataflow = "msd-int8"', 'dataflow = "w8a8"', "with w8a8, and here it is"),
    ('name = "down_proj"', 'name = "down_prj"', "no operator of the workload.*did you mean 'down_proj'"),
    ("tilings/1", "tilings/2", "is not 'msdsim.tilings/1'"),
    ("{ base_m = ", "{ base_m = -", "is not a whole number"),
    ('schema = "msdsim.tilings/1"\n', "", "key 'schema' is missing"),
    ("[[op]]", "[[ops]]", "unknown key 'ops'; did you mean 'op'"),
])
def test_tilings_of_something_else_are_refused(workload, tmp_path, old, new, message):
    text = msdsim.tune(workload, "toy", budget=1).tilings.to_toml()
    assert old in text
    file = tmp_path / "tilings.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(TilingError, match=message):
        msdsim.simulate(workload, "toy", tilings=file)


def test_what_a_file_does_not_say_is_said(workload, tmp_path):
    found = msdsim.tune(workload, "toy", budget=2, ops=["down_proj"])
    notes = " ".join(msdsim.simulate(workload, "toy", tilings=found.tilings).notes)
    assert "has no tiling of qkv_proj, attention, o_proj" in notes
    from msdsim.hardware import override

    other = override(msdsim.load_hw("toy"), {"name": "other"})
    assert "was found for toy, not for other" in " ".join(msdsim.simulate(workload, other, tilings=found.tilings).notes)


def test_tune_commands(workload, tmp_path, capsys):
    out, page, picture = (str(tmp_path / name) for name in ("t.toml", "t.html", "t.png"))
    arguments = ["tune", workload, "--hw", "toy", "--budget", "2", "--out", out, "--html", page, "--plot", picture]
    assert run_program([*arguments, "--json", str(tmp_path / "t.json")]) == 0
    shown = capsys.readouterr().out
    assert "qkv_proj, o_proj" in shown
    assert f"--tilings {out}" in shown
    document = json.loads((tmp_path / "t.json").read_text())
    assert document["schema"] == "msdsim.tune_workload/1"
    assert document["best"]["total"]["cycles"] <= document["start"]["total"]["cycles"]
    assert run_program(["run", workload, "--hw", "toy", "--tilings", out, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["cycles"] == document["best"]["total"]["cycles"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["tune", "gemm:m=1,k=32,n=32", "--op", "x"], "--op belongs to a workload"),
    (["tune", "gemm:m=1,k=32,n=32", "--out", "x.toml"], "--out belongs to a workload"),
    (["run", "gemm:m=1,k=32,n=32", "--tilings", "x.toml"], "--tilings belongs to a workload"),
    (["tune", "qwen3-14b-decode", "--op", "lm_hed"], "did you mean 'lm_head'"),
    (["accuracy", "qwen3-14b-decode", "--op", "lm_hed"], "did you mean 'lm_head'"),
    (["tune", "qwen3-14b-decode", "--out", "x.json"], r"\.toml"),
])
def test_refused(arguments, message, capsys):
    import re

    assert run_program([*arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_errors_of_each_distinct_shape(workload):
    found = msdsim.accuracy(workload, "normal")
    assert [item.names for item in found.shapes] == [("qkv_proj", "o_proj"), ("attention",), ("down_proj",)]
    assert [str(item.problem) for item in found.shapes] == [
        "gemm:m=4,k=128,n=192", "attention:batch=1,heads=2,kv_heads=1,head_dim=32,q=1,kv=64", "gemm:m=4,k=256,n=128"]
    alone = accuracy_study(parse_problem("gemm:m=4,k=256,n=128"), ["normal"])
    assert list(found.shapes[2].rows) == alone
    assert len(found.to_frame()) == sum(len(item.rows) for item in found.shapes)


def checkpoint(folder, share=1):
    rng = np.random.default_rng(5)
    tensors = {}
    for layer in range(2):
        for name, n, k in (("self_attn.q_proj", 128, 128), ("self_attn.k_proj", 32, 128), ("self_attn.v_proj", 32, 128),
                           ("self_attn.o_proj", 192, 128), ("mlp.down_proj", 128, 256 * share)):
            tensors[f"model.layers.{layer}.{name}.weight"] = rng.standard_normal((n, k)).astype(np.float32)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = np.ones(128, np.float32)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return tensors


def test_errors_on_a_models_own_weights(workload, tmp_path):
    tensors = checkpoint(tmp_path / "model")
    found = msdsim.accuracy(workload, "normal", weights=str(tmp_path / "model"))
    first = [f"model.layers.0.{name}.weight" for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                          "self_attn.o_proj", "mlp.down_proj")]
    assert list(found.weights.tensors) == [first[1], first[0], first[2], first[3], first[4]]
    assert list(found.by_operator.tensors) == ["qkv_proj", "o_proj", "down_proj"]
    # By hand: INT8 by channel of the one tensor of down_proj, and root mean squares of the three of qkv_proj.
    w = tensors[first[4]].T.astype(np.float64)
    scale = (np.abs(w).max(axis=0) / 127).astype(np.float32)
    rounded = np.round(w / scale) * scale
    from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
    from msdsim.formats.number import BF16
    from msdsim.formats.rounding import round_to

    x = round_to(DISTRIBUTIONS["normal"].draw(np.random.default_rng(0), (4, 256)), BF16).astype(np.float64)
    error = np.linalg.norm(x @ rounded - x @ w) / np.linalg.norm(x @ w)
    row = next(row for row in found.weights.rows if row.tensor == first[4] and row.method == "dequant-int8")
    assert row.format_l2 == pytest.approx(error, rel=1e-3)
    of = [row.total_l2 for row in found.weights.rows if "self_attn" in row.tensor and "o_proj" not in row.tensor
          and row.method == "a8w4"]
    mean = next(row.total_l2 for row in found.by_operator.rows if row.tensor == "qkv_proj" and row.method == "a8w4")
    assert mean == pytest.approx(np.sqrt(np.mean(np.square(of))))
    both = msdsim.accuracy(workload, "normal", weights=f"{tmp_path / 'model'}:*mlp*")
    assert list(both.weights.tensors) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)]
    assert any(reason.startswith("no tensor of model") for _, _, reason in both.weights.skipped)


def test_weights_of_another_model_are_refused_by_name(workload, tmp_path):
    checkpoint(tmp_path / "model", share=2)
    with pytest.raises(InputError, match="has shape \\[128, 512\\], and 'down_proj' is gemm:m=4,k=256,n=128: another model"):
        msdsim.accuracy(workload, "normal", weights=f"{tmp_path / 'model'}:*mlp*")


def test_accuracy_commands(workload, tmp_path, capsys):
    checkpoint(tmp_path / "model")
    page, picture = str(tmp_path / "a.html"), str(tmp_path / "a.png")
    assert run_program(["accuracy", workload, "--op", "down_proj", "--html", page, "--plot", picture]) == 0
    shown = capsys.readouterr().out
    assert "(1) gemm m=4 k=256 n=128: down_proj" in shown
    assert "input: outliers" in shown
    assert run_program(["accuracy", workload, "--input", "normal", "--weights", str(tmp_path / "model"), "--json", "-",
                        "--html", page]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "msdsim.accuracy_workload/1"
    assert {row["tensor"] for row in document["operators"]} == {"qkv_proj", "o_proj", "down_proj"}
