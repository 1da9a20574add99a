"""The critical path: it tiles the run, follows the bottleneck, and finds the steady-state loop."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

import msdsim
from msdsim.analysis.critical_path import by_place, circuit, critical_path
from msdsim.cli.program import run_program
from msdsim.explore.whatif import CHANGES, what_if
from msdsim.hardware import load_hw
from tests.ir.kernels import copy_kernel, exchange_kernel, matmul_kernel, scale_kernel

CASES = [(copy_kernel(), "toy", ""), (scale_kernel(), "toy", ""), (matmul_kernel(), "toy", ""), (exchange_kernel(), "toy", ""),
         *(("gemm:m=40,k=700,n=330", chip, dataflow) for chip in ("toy", "ascend910b1")
           for dataflow in ("bf16", "dequant-int8", "msd-int8"))]


@pytest.mark.parametrize(("problem", "chip", "dataflow"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_the_path_tiles_the_run(problem, chip, dataflow):
    record = msdsim.simulate(problem, chip, dataflow, timeline=True).record
    path = critical_path(record)
    assert path[0].begin == 0
    assert path[-1].end == record.cycles
    assert all(before.end == after.begin for before, after in pairwise(path))
    assert sum(step.cycles for step in by_place(path)) == record.cycles


@pytest.mark.parametrize(("dataflow", "pipe"), [("dequant-mxfp4", ("aiv", "V")), ("dequant-int8", ("aic", "MTE2")),
                                                ("msd-int8", ("aic", "MTE2"))])
def test_it_runs_through_what_bounds_a_decode_shape(dataflow, pipe):
    result = msdsim.simulate("gemm:m=16,k=16384,n=6144", "ascend910b1", dataflow, timeline=True)
    path = critical_path(result.record)
    through = sum(segment.cycles for segment in path if (segment.part, segment.pipe) == pipe)
    assert through > 0.75 * result.cycles
    loop = circuit(path)
    assert {(step.part, step.pipe) for step in loop} == {pipe}


def test_no_circuit_where_nothing_repeats():
    assert circuit(critical_path(msdsim.simulate("gemm:m=1,k=16,n=16", "toy", "bf16", timeline=True).record)) == []


def test_needs_a_timeline():
    with pytest.raises(ValueError, match="kept its timeline"):
        critical_path(msdsim.simulate("gemm:m=1,k=16,n=16", "toy", "bf16").record)


def test_what_if_answers_with_the_resource_that_bounds():
    result = msdsim.simulate("gemm:m=16,k=4096,n=6144", "ascend910b1", "bf16")
    found = what_if(result, lambda hardware: msdsim.simulate(result.kernel, hardware))
    assert found[0].change == "HBM twice as fast"
    assert found[0].speedup > 1.1
    assert {item.change for item in found} == set(CHANGES)


@pytest.mark.parametrize("chip", ["toy", "ascend910b1", "ascend950pr"])
def test_every_change_is_a_valid_chip(chip):
    hardware = load_hw(chip)
    for changes in CHANGES.values():
        assert hardware.replace(**changes(hardware)).chip != hardware.chip


def test_command(capsys):
    assert run_program(["explain", "gemm:m=4,k=256,n=256", "--hw", "toy", "--dataflow", "msd-int8", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "msdsim.explain/1"
    assert sum(step["cycles"] for step in document["critical_path"]) == document["run"]["cycles"]
    assert run_program(["explain", "gemm:m=4,k=256,n=256", "--hw", "toy", "--dataflow", "msd-int8"]) == 0
    assert "Critical path: what the last of" in capsys.readouterr().out
