"""A check that fails leaves with exit code 1, whatever command ran it; and options do what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msdsim.numerics import executor

WORKLOAD = """
description = "two layers"
source = "made up"
batch = 1
[[op]]
count = 1
name = "a"
problem = "gemm:m=4,k=64,n=32"
[[op]]
count = 1
name = "b"
problem = "gemm:m=4,k=64,n=64"
"""


@pytest.fixture
def one_bit(monkeypatch):
    """An executor that gets the last bit of one output wrong."""
    right = executor.execute

    def wrong(kernel, inputs, *rest):
        found = right(kernel, inputs, *rest)
        found["y"].reshape(-1).view(np.uint16)[3] ^= 1
        return found

    monkeypatch.setattr(executor, "execute", wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "gemm:m=4,k=64,n=32", "--dataflow", "msd-int8"],
        ["compare", "gemm:m=4,k=64,n=32", "--dataflow", "bf16", "--jobs", "1"],
        ["compare", "gemm:m=4,k=64,n=32", "--dataflow", "bf16,msd-int8", "--jobs", "1"],
        ["run", "layers.toml", "--dataflow", "bf16", "--jobs", "1"],
        ["compare", "layers.toml", "--dataflow", "bf16,msd-int8", "--jobs", "1"],
    ],
    ids=" ".join,
)
def test_exit_code_of_a_failed_check(cli, tmp_path, one_bit, arguments):
    (tmp_path / "layers.toml").write_text(WORKLOAD)
    found = cli(*arguments, "--hw", "toy", "--check")
    assert found.code == 1
    assert "1 of " in found.err
    assert "differ; first at [0, 3]" in found.err
    assert found.out, "what was measured is still shown"


@pytest.fixture
def wrong_in(monkeypatch):
    """An executor that gets one output wrong, in kernels of one dataflow and one number of columns only."""
    right = executor.execute

    def spoil(dataflow, columns):
        def execute(kernel, inputs, *rest):
            found = right(kernel, inputs, *rest)
            if kernel.name.startswith(dataflow) and found["y"].shape[-1] == columns:
                found["y"].reshape(-1).view(np.uint16)[3] ^= 1
            return found

        monkeypatch.setattr(executor, "execute", execute)

    return spoil


@pytest.mark.parametrize("command", [["run", "layers.toml", "--dataflow", "msd-int8"], ["compare", "layers.toml", "--dataflow", "bf16,msd-int8"],
                                     ["compare", "layers.toml", "--dataflow", "msd-int8,bf16"], ["compare", "gemm:m=4,k=64,n=64", "--dataflow", "bf16,msd-int8"],
                                     ["compare", "gemm:m=4,k=64,n=64", "--dataflow", "msd-int8,bf16"]], ids=" ".join)
@pytest.mark.parametrize("columns", [32, 64])
def test_one_wrong_result_anywhere_fails(cli, tmp_path, wrong_in, command, columns):
    """In the first or the last layer, in the first dataflow or in the last."""
    (tmp_path / "layers.toml").write_text(WORKLOAD)
    wrong_in("msd", columns)
    found = cli(*command, "--jobs", "1", "--hw", "toy", "--check")
    there = columns == 64 or "layers.toml" in command
    assert (found.code, found.err.count("differ; first at [0, 3]")) == ((1, 1) if there else (0, 0))


@pytest.mark.parametrize(("ratio", "code"), [(1.0, 0), (1.001, 1), (None, 0)])
def test_a_bound_that_does_not_hold_fails_too(cli, monkeypatch, ratio, code):
    from msdsim.numerics import metrics

    monkeypatch.setattr(metrics, "bound_ratio", lambda *_: ratio)
    found = cli("run", "gemm:m=4,k=64,n=32", "--hw", "toy", "--check")
    assert found.code == code
    assert ("its proven bound" in found.err) is bool(code)


def test_no_skip_simulates_every_iteration(cli):
    chain = ["run", "micro:op=vector,instr=add,repeats=1,count=200000", "--hw", "toy", "--json", "-"]
    skipped = [json.loads(cli(*chain, *more).out)["skipped_iterations"] for more in ([], ["--no-skip"])]
    assert skipped[0] > 0
    assert skipped[1] == 0
