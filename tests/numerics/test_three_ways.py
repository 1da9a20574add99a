"""Executor = whole-tensor reference = rational arithmetic, for every dataflow there is, on small ragged shapes."""

import numpy as np
import pytest
from rational_attention import METHODS, attention
from rational_oracle import GEMM_ORACLES, fractions

import msdsim
from msdsim.api import find_dataflow
from msdsim.dataflows import DATAFLOWS
from msdsim.hardware import load_hw
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.references.attention import KV_TILE
from msdsim.problems.model import Attention, Gemm, GroupedGemm

CHIPS = ("toy", "ascend910b1", "ascend950pr")
PROBLEMS = {
    "gemm": [Gemm(m=3, k=70, n=5), Gemm(m=3, k=70, n=6), Gemm(m=2, k=70, n=4, offset=True), Gemm(m=2, k=64, n=4, group=32),
             Gemm(m=2, k=70, n=4, group=32, offset=True), Gemm(m=3, k=64, n=4, trans_b=True)],
    "grouped_gemm": [GroupedGemm(groups=2, m=2, k=40, n=4), GroupedGemm(rows=(2, 0, 1, 3), k=40, n=4)],
    "attention": [Attention(batch=1, heads=2, kv_heads=1, head_dim=16, q=1, kv=40),
                  Attention(batch=1, heads=2, kv_heads=1, head_dim=16, q=2, kv=40, scales="token", causal=1)],
}


def oracle_values(problem, name, operands):
    if problem.kind == "attention":
        nested = attention(METHODS[name], KV_TILE)(problem, operands)
        return [row for batch in nested for head in batch for row in head]
    if problem.kind == "gemm":
        return GEMM_ORACLES[name](problem, operands)
    found, start = [], 0
    for g, m in enumerate(problem.rows or (problem.m,) * problem.groups):
        part = {key: array[g] for key, array in operands.items() if key != "x"}
        part["x"] = operands["x"][g] if problem.rows is None else operands["x"][start : start + m]
        start += m
        if m:
            found += GEMM_ORACLES[name](Gemm(m=m, k=problem.k, n=problem.n), part)
    return found


# Microbenchmarks measure time and have no contract.
@pytest.mark.parametrize("key", [key for key, dataflow in DATAFLOWS.items() if dataflow.kind in PROBLEMS])
def test_three_ways(key):
    dataflow = DATAFLOWS[key]
    ran = 0
    for problem in PROBLEMS[dataflow.kind]:
        chip = next((c for c in CHIPS if find_dataflow(problem, dataflow.name).refuses(problem, load_hw(c).chip) is None), None)
        if chip is None:
            continue
        ran += 1
        result = msdsim.simulate(problem, chip, dataflow.name, check=True, seed=1)
        assert result.numerics.bit_exact, result.numerics.first_mismatch
        assert result.numerics.bound_ratio <= 1
        operands = contract_for(problem.kind, dataflow.contract).operands(problem, None, 1)
        y = np.asarray(result.arrays["y"])
        assert fractions(y.reshape(-1, y.shape[-1])) == oracle_values(problem, dataflow.contract, operands)
    assert ran, f"no chip of {CHIPS} runs '{key}'"
