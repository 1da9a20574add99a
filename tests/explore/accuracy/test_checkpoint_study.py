"""``msdsim accuracy --weights``: what a format costs and what a method adds, on tensors of a checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msdsim.cli.program import run_program
from msdsim.errors import ArrayError
from msdsim.explore.accuracy.checkpoint_study import checkpoint_study
from msdsim.problems import parse_problem
from tests.checkpoints import files


def rows_of(study, method):
    return [row for row in study.rows if row.method == method]


def test_stored_integers_cost_nothing_and_values_do(tmp_path):
    problem = parse_problem("gemm:m=3,k=64,n=24")
    study = checkpoint_study(problem, files.gptq(act_order=True).write(tmp_path), ["normal", "outliers"])
    assert {row.input for row in study.rows} == {"normal", "outliers"}
    assert all(row.format_l2 < 1e-15 for row in rows_of(study, "msd-int4"))
    # Values rounded to BF16: at most half a unit in the last place each.
    assert all(0 < row.format_l2 < 2**-8 for row in rows_of(study, "bf16"))
    assert {method for _, method, _ in study.skipped} == {"dequant-mxfp4", "msd-mxfp4", "mxfp8"}
    three = [row.added_l2 for row in rows_of(study, "msd-int8") if row.input == "normal"]
    assert three == sorted(three, reverse=True)


def test_the_truth_is_the_product_with_the_stored_values(tmp_path):
    made = files.fp8(n=24, k=64)
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    problem = parse_problem("gemm:m=5,k=64,n=24")
    spec = made.write(tmp_path)
    floor = checkpoint_study(problem, spec, inputs={"x": x})
    even = checkpoint_study(problem, spec, inputs={"x": x}, scale_rule="even")
    assert rows_of(floor, "dequant-mxfp4")[0].format_l2 != rows_of(even, "dequant-mxfp4")[0].format_l2
    # MXFP4 weights are exact in BF16: all that a method of BF16 products adds is FP32 sums.
    assert rows_of(floor, "dequant-mxfp4")[0].added_l2 < 1e-6
    assert rows_of(floor, "dequant-int8")[0].format_l2 < rows_of(floor, "dequant-int4")[0].format_l2 / 5
    with pytest.raises(ArrayError, match=r"x has shape \[4, 64\], the problem needs \[5, 64\]"):
        checkpoint_study(problem, spec, inputs={"x": x[:4]})


def test_several_tensors_by_the_command(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = files.save(tmp_path / "m.safetensors", {"layers.0.up.weight": rng.standard_normal((24, 64)).astype(np.float32),
                                                   "layers.1.up.weight": rng.standard_normal((40, 32)).astype(np.float32),
                                                   "layers.1.norm.weight": np.ones(32, np.float32)})
    picture = tmp_path / "a.png"
    arguments = ["accuracy", "gemm:m=3,k=64,n=24", "--weights", f"{path}:layers.*.weight", "--input", "normal", "--plot", str(picture)]
    assert run_program([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    text = capsys.readouterr().out
    assert "layers.1.up.weight" in text
    assert "not measured on layers.1.norm.weight: all methods" in text
    assert picture.stat().st_size > 10_000
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found["tensors"]) == {"layers.0.up.weight", "layers.1.up.weight"}
    assert {row["tensor"] for row in found["rows"]} == set(found["tensors"])


def test_experts(tmp_path):
    made = files.mxfp4(form="_blocks", experts=2)
    path = files.save(tmp_path / "m.safetensors", made.tensors)
    study = checkpoint_study(parse_problem("grouped_gemm:rows=2+1,k=64,n=24"), f"{path}:{files.MODULE}_blocks", ["normal"])
    assert rows_of(study, "msd-mxfp4")[1].format_l2 == 0
    assert rows_of(study, "msd-mxfp4")[1].added_l2 < 0.05
