"""``validate`` and ``micro`` from the command line."""

from __future__ import annotations

import json

import pytest

from msdsim.cli.program import run_program

ROW = """
[[row]]
id = "mine"
chip = "ascend910b1"
problem = "gemm:m=16,k=512,n=512"
dataflow = "bf16"
time_us = 10
scope = "task"
source = "my own bench"
"""


def test_validate_own_file(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(ROW)
    plot = tmp_path / "parity.png"
    assert run_program(["validate", str(path), "--plot", str(plot)]) == 0
    assert "1 of 1 rows predicted: median |error|" in capsys.readouterr().out
    assert plot.stat().st_size > 1000
    assert run_program(["validate", str(path), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "msdsim.validate/1"
    assert document["rows"][0]["id"] == "mine"


def test_micro_of_one_chip(capsys):
    assert run_program(["micro", "--hw", "ascend910b3", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "msdsim.micro/1"
    assert document["tables"]
    assert run_program(["micro", "--hw", "ascend910b3"]) == 0
    assert "GM -> UB  on ascend910b3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "none.toml"], "error: "),
        (["validate", "publish"], "error: unknown validation 'publish'"),
        (["micro", "--hw", "ascend"], "error: unknown chip 'ascend'"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert run_program(arguments) == 2
    assert capsys.readouterr().err.startswith(message)
