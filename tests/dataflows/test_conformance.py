"""Every dataflow on every chip: verified, bit-exact, accounted for to the cycle, not faster than physics, free of races.

Runs over the registries, so that a new dataflow or chip is tested by being there.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import msdsim
from msdsim.analysis.closed_form import CLOSED_FORMS, floor_us
from msdsim.analysis.hazards import HazardCheck
from msdsim.api import find_dataflow
from msdsim.dataflows import DATAFLOWS
from msdsim.errors import InputError
from msdsim.hardware import load_hw
from msdsim.ir import print_kernel
from msdsim.numerics.contracts import CONTRACTS, contract_for
from msdsim.numerics.executor import execute
from msdsim.problems import parse_problem
from msdsim.resources import shipped_names
from msdsim.tilings import automatic_tiling

from ..products import diagonals, each

CHIPS = shipped_names("hwmodels")
GEMMS = [entry.name for entry in DATAFLOWS.values() if entry.kind == "gemm"]
SHAPES = ["gemm:m=1,k=1,n=2", "gemm:m=7,k=333,n=517", "gemm:m=40,k=300,n=130,offset=1", "gemm:m=16,k=2048,n=96,trans_b=1",
          "gemm:m=7,k=333,n=518,group=32", "gemm:m=33,k=320,n=130,group=128,offset=1", "gemm:m=9,k=200,n=70,group=64,trans_b=1",
          "grouped_gemm:groups=3,m=5,k=192,n=96", "grouped_gemm:groups=5,m=20,k=300,n=140,group=64,offset=1,trans_b=1"]
#: Chips of every architecture, on which the fast subset runs all shapes; the others differ from them by numbers only.
DISTINCT = ["toy", "ascend910b1", "ascend950pr"]
FAST = [(chip, shape) for chip in DISTINCT for shape in SHAPES] + [(chip, SHAPES[2]) for chip in CHIPS if chip not in DISTINCT]
#: More of the same, for the exhaustive suite.
MORE = SHAPES + [
    f"gemm:m={m},k={k},n={n}{extra}" for m in (1, 7, 16, 33, 64, 128, 300) for k, n in ((65, 1000), (1024, 34))
    for extra in ("", ",offset=1", ",trans_b=1", ",group=32", ",group=64,offset=1", ",group=128,offset=1", ",group=100,trans_b=1")
]


def legal(dataflow, shape, chip):
    problem, hardware = parse_problem(shape), load_hw(chip)
    if problem.kind != DATAFLOWS[dataflow].kind and DATAFLOWS[dataflow].restates:
        pytest.skip("restates an operator for plain GEMMs")
    reason = find_dataflow(problem, dataflow).refuses(problem, hardware.chip)
    if reason is not None:
        with pytest.raises(InputError, match="cannot run"):
            msdsim.simulate(problem, hardware, dataflow)
        pytest.skip(reason)
    return problem, hardware


def checked(dataflow, problem, hardware, **options):
    """A run whose numbers are exact, whose pipes account for every cycle, and which HBM allows."""
    result = msdsim.simulate(problem, hardware, dataflow, check=True, **options)
    assert result.numerics.bit_exact, result.numerics.first_mismatch
    assert result.numerics.bound_ratio <= 1
    for pipe, row in result.stalls.items():
        assert sum(value for name, value in row.items() if name != "instances") == row["instances"] * result.cycles, pipe
    moved = result.traffic["hbm_read_bytes"] + result.traffic["hbm_write_bytes"]
    assert result.time_us >= moved / (hardware.chip.hbm.bandwidth_gbps * 1000)
    return result


def conforms(dataflow, shape, chip, engine="fast"):
    problem, hardware = legal(dataflow, shape, chip)
    result = checked(dataflow, problem, hardware, engine=engine)
    if dataflow in CLOSED_FORMS:
        assert result.time_us >= floor_us(dataflow, problem, hardware.chip)
    return result


@pytest.mark.parametrize(("dataflow", "chip", "shape"), diagonals(GEMMS, FAST, every=3))
def test_gemm(dataflow, shape, chip):
    conforms(dataflow, shape, chip)


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("dataflow", GEMMS)
def test_gemm_exhaustively(dataflow, chip):
    each(conforms, ((dataflow, shape, chip) for shape in MORE))


RACES = [("toy", "gemm:m=40,k=700,n=130", "fast"), ("toy", "gemm:m=40,k=700,n=130", "reference"),
         ("ascend910b1", "gemm:m=40,k=700,n=130", "fast"), ("ascend950pr", "gemm:m=40,k=700,n=130", "fast"),
         ("toy", "gemm:m=20,k=320,n=70,group=64,offset=1,trans_b=1", "fast"),
         ("ascend950pr", "gemm:m=3,k=320,n=70,group=64,offset=1", "fast"),
         ("toy", "grouped_gemm:groups=3,m=20,k=200,n=70", "fast")]


@pytest.mark.parametrize(("dataflow", "chip", "shape", "engine"), diagonals(GEMMS, RACES, every=2))
def test_timelines_have_no_race(dataflow, chip, shape, engine):
    problem, hardware = legal(dataflow, shape, chip)
    result = msdsim.simulate(problem, hardware, dataflow, engine=engine, timeline=True)
    operands = contract_for(problem.kind, find_dataflow(problem, dataflow).contract).operands(problem, None, 0)
    execute(result.kernel, operands, observer=HazardCheck(result.record).observe)


@pytest.mark.parametrize("dataflow", GEMMS)
def test_flipped_bit_is_found(dataflow, monkeypatch):
    """One wrong bit in one product of the executor's Cube turns the check red and is located."""
    from msdsim.numerics import executor

    problem, hardware = parse_problem("gemm:m=16,k=64,n=96"), load_hw("toy")
    if DATAFLOWS[dataflow].refuses(problem, hardware.chip) is not None:
        hardware = load_hw("ascend950pr")
    struck = []

    def strike(name):
        clean = getattr(executor.CubeArithmetic, name)

        def struck_once(self, *args):
            result = clean(self, *args)
            if not struck:
                struck.append(True)
                result[0, 5] = (result[0, 5:6].view(np.int32) ^ 1 << 24).view(result.dtype)[0]
            return result

        monkeypatch.setattr(executor.CubeArithmetic, name, struck_once)

    strike("mmad")
    strike("mmad_mx")
    result = msdsim.simulate(problem, hardware, dataflow, check=True)
    assert not result.numerics.bit_exact
    assert re.match(r"y: 1 of 1536 elements differ; first at \[\d+, \d+\]: expected .* got", result.numerics.first_mismatch)


@pytest.mark.parametrize("dataflow", GEMMS)
def test_contract_exists_and_text_is_deterministic(dataflow):
    entry = DATAFLOWS[dataflow]
    assert entry.contract in CONTRACTS
    assert entry.description
    problem, hardware = parse_problem("gemm:m=16,k=512,n=512"), load_hw("ascend910b1")
    if entry.refuses(problem, hardware.chip) is not None:
        hardware = load_hw("ascend950pr")
    texts = {print_kernel(entry.build(problem, hardware.chip, automatic_tiling(entry, problem, hardware.chip))) for _ in range(2)}
    assert len(texts) == 1


def test_every_contract_of_a_dataflow_is_used_once():
    contracts = [(entry.kind, entry.contract) for entry in DATAFLOWS.values() if not entry.restates]
    assert len(contracts) == len(set(contracts))
