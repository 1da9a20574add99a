"""The tuner: deterministic, never worse than the automatic tiling, honest about what it refused."""

from __future__ import annotations

import json

import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore.tune import neighbours, tune

PROBLEM = "gemm:m=20,k=256,n=320"


def shape():
    from msdsim.problems import parse_problem

    return parse_problem(PROBLEM)


@pytest.mark.parametrize("dataflow", ["bf16", "msd-int8"])
def test_climbs_and_can_be_repeated(dataflow):
    first, second = (tune(shape(), "toy", dataflow, budget=40) for _ in range(2))
    assert [trial.cycles for trial in first.trials] == [trial.cycles for trial in second.trials]
    assert first.best.cycles == min(trial.cycles for trial in first.trials) <= first.start.cycles
    again = msdsim.simulate(PROBLEM, "toy", dataflow, tiling=first.best.tiling, check=True)
    assert again.cycles == first.best.cycles
    assert again.numerics.bit_exact


def test_finds_a_better_tiling_than_a_bad_one():
    bad = tune(shape(), "toy", "bf16", budget=60, tiling={"base_m": 16, "base_n": 16, "l0_k": 16, "l1_k": 16})
    assert bad.speedup > 1.2


def test_neighbours_change_one_thing_and_stay_whole_numbers():
    tiling = {"base_m": 32, "slots": 2, "passes": 2}
    for change, other in neighbours(tiling):
        assert sum(other[key] != tiling[key] for key in tiling) == 1, change
        assert all(value >= 0 for value in other.values())
        assert other["passes"] == 2


@pytest.mark.parametrize(("value", "others"), [(0, [1]), (1, [0, 2]), (2, [1, 3, 4]), (15, [14, 16, 30]), (16, [0, 32]), (64, [32, 48, 80, 128]),
                                               (72, [32, 56, 88, 144])])
def test_steps_of_a_value(value, others):
    """Small ones go by one and double; from 16 on they go by 16, double, and halve to a multiple of 16."""
    assert [tiling["base_m"] for _, tiling in neighbours({"base_m": value})] == others


def test_the_depth_of_l1_follows_that_of_l0():
    pairs = [(tiling["l0_k"], tiling["l1_k"]) for change, tiling in neighbours({"l0_k": 64, "l1_k": 128})]
    assert [pair for pair in pairs if pair[1] == 128] == [(32, 128), (48, 128), (80, 128), (128, 128), (32, 128), (16, 128), (64, 128)]
    assert [pair for pair in pairs if pair[0] == 64] == [(64, 64), (64, 112), (64, 144), (64, 256), (64, 64), (64, 128), (64, 256), (64, 512)]


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_budget(budget):
    found = tune(shape(), "toy", "bf16", budget=budget)
    assert len(found.trials) == budget
    assert len({tuple(trial.tiling.items()) for trial in found.trials}) == budget, "none twice"
    assert not found.complete


def test_no_budget():
    with pytest.raises(InputError, match="a budget of 0 simulations is below 1"):
        tune(shape(), "toy", "bf16", budget=0)


def test_command(capsys):
    arguments = ["tune", PROBLEM, "--hw", "toy", "--dataflow", "msd-int8", "--budget", "12"]
    assert run_program([*arguments, "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "msdsim.tune/1"
    assert len(document["trials"]) <= 12
    assert document["best"]["cycles"] <= document["start"]["cycles"]
    assert run_program(arguments) == 0
    assert "msd-int8 on toy:" in capsys.readouterr().out
    assert run_program(["tune", PROBLEM, "--hw", "toy", "--dataflow", "msd-int9"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown gemm dataflow 'msd-int9'")
