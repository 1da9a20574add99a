"""The whole way in seconds: a problem and a chip in; cycles, stalls and bit-exact numbers out.  Runs first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import msdsim

PROBLEM = "gemm:m=7,k=96,n=80"


@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "msd-int8"])
def test_whole_way(dataflow):
    result = msdsim.simulate(PROBLEM, hw="toy", dataflow=dataflow, check=True)
    assert result.cycles > 0
    assert result.numerics.bit_exact
    assert result.numerics.bound_ratio <= 1
    for pipe, row in result.stalls.items():
        instances = row.pop("instances")
        assert sum(row.values()) == instances * result.cycles, pipe


def test_both_engines_agree():
    fast, reference = (msdsim.simulate(PROBLEM, hw="toy", dataflow="msd-int8", engine=e) for e in ("fast", "reference"))
    assert fast.cycles == reference.cycles
    assert fast.stalls == reference.stalls
    assert fast.traffic == reference.traffic


def test_command_line():
    command = [sys.executable, "-m", "msdsim", "run", PROBLEM, "--hw", "toy", "--dataflow", "msd-int8", "--check", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["schema"] == "msdsim.run/1"
    assert run["numerics"]["bit_exact"] is True


def test_a_mistake_is_one_line():
    command = [sys.executable, "-m", "msdsim", "run", PROBLEM, "--hw", "ascend910x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown chip 'ascend910x'")
    assert done.stderr.count("\n") == 1
