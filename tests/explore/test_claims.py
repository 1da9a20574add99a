"""The claims about time, from simulation, and the commands that print claims and accuracy."""

from __future__ import annotations

import json

import pytest

from msdsim.cli.program import run_program
from msdsim.explore.accuracy.claims import claims
from msdsim.explore.claims import DECODE, timing_claims


@pytest.fixture(scope="module")
def rows():
    return timing_claims("ascend910b1")


def test_every_timed_claim_has_rows(rows):
    assert {"P1", "P2", "P5"} <= set(rows)
    for group in rows.values():
        for row in group:
            assert row.measured_on
            assert row.verdict


def test_dequantization_costs_more_than_the_matmul_for_few_rows_only(rows):
    """The closed form has Cube and Vector equal at about m = 112 (910B1, K=8192, N=12288); the grid has 64, 128 and 256."""
    cost = rows["P1"][0]
    assert cost.verdict in ("holds only for m <= 64", "holds only for m <= 128")


def test_no_vector_operation_touches_weights(rows):
    assert rows["P2"][0].verdict == "reproduced"
    assert "0 Vector operations read weights" in rows["P2"][0].ours


def test_claims_without_timing_say_what_is_missing():
    from msdsim.explore.accuracy.claims import ClaimProblems
    from msdsim.problems import Attention, Gemm

    small = ClaimProblems(gemm=Gemm(m=2, k=64, n=16), attention=Attention(batch=1, heads=1, kv_heads=1, head_dim=32, q=1, kv=64))
    missing = [row for row in claims(small) if row.claim in ("P1", "P2", "P5")]
    assert missing
    assert all(row.verdict.startswith("not measured: needs") for row in missing)


def test_accuracy_command(capsys):
    assert run_program(["accuracy", "gemm:m=2,k=64,n=16", "--input", "normal", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "msdsim.accuracy/1"
    methods = [(row["method"], row["passes"]) for row in document["rows"]]
    assert ("dequant-int8", None) in methods
    assert ("msd-int8", 2) in methods
    errors = {(row["method"], row["passes"]): row["relative_l2_fp32"] for row in document["rows"]}
    assert errors["msd-int8", 2] < errors["dequant-int8", None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["accuracy", "gemm:m=2,k=64,n=16", "--input", "gauss"], "error: unknown input distribution 'gauss'"),
        (["accuracy", "llama3-8b-prefil"], "error: "),
        (["claims", "--hw", "ascend910"], "error: unknown chip 'ascend910'"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert run_program(arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_the_problem_of_the_story_is_decode_sized():
    assert DECODE.k * DECODE.n > 50e6
    assert DECODE.m <= 16
