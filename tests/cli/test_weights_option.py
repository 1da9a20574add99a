"""``--weights``: a tensor of a safetensors file as the weights of a matmul."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msdsim.cli.program import run_program

PROBLEM = "gemm:m=4,k=64,n=96"
COMMON = ["run", PROBLEM, "--hw", "toy", "--dataflow", "msd-int8"]


@pytest.fixture
def weights(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    path = tmp_path / "model.safetensors"
    w = np.random.default_rng(3).standard_normal((96, 64)).astype(np.float32)
    save_file({"layer.weight": w, "bias": w[0]}, str(path))
    return path, w


def test_weights_are_what_is_multiplied(weights, tmp_path, capsys):
    path, w = weights
    x = np.random.default_rng(4).standard_normal((4, 64)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    out = tmp_path / "y.npz"
    arguments = [*COMMON, "--weights", f"{path}:layer.weight", "--inputs", str(tmp_path / "x.npz"), "--check", "--outputs", str(out)]
    assert run_program([*arguments, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["numerics"]["bit_exact"] is True
    # INT8 weights per channel: half a step of the largest weight each.
    np.testing.assert_allclose(np.load(out)["y"], x @ w.T, atol=0.3, rtol=0.02)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer.wait", "unknown tensor of model.safetensors 'layer.wait'; did you mean 'layer.weight'? (2 tensors)"),
        ("bias", "error: "),
    ],
)
def test_wrong_tensors(weights, name, message, capsys):
    assert run_program([*COMMON, "--weights", f"{weights[0]}:{name}"]) == 2
    assert message in capsys.readouterr().err


def test_wrong_use(weights, tmp_path, capsys):
    np.savez(tmp_path / "w.npz", w=np.ones((64, 96), np.float32))
    for arguments, message in (
        (["run", "llama3-8b-decode", "--weights", "a:b"], "--weights belongs to"),
        ([*COMMON, "--weights", "none.safetensors:w"], "does not exist"),
        ([*COMMON, "--weights", f"{weights[0]}:layer.weight", "--inputs", str(tmp_path / "w.npz")], "already has weights"),
    ):
        assert run_program(arguments) == 2
        assert message in capsys.readouterr().err
