"""The operators of a step hold the weights of the decoder, whatever the step."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from msdsim.errors import InputError
from msdsim.explore.import_model import model_of
from msdsim.models.parts import Linear, ModuleColumns
from msdsim.models.quantization import Quantization
from msdsim.models.step import ModelStep, _matmuls, operators
from msdsim.problems.parse import parse_inline

PUBLISHED = tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))
STEPS = [ModelStep(1, 1, 64), ModelStep(33, 1, 100_000), ModelStep(2, 3000, 5000), ModelStep(1, 100)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_operators_hold_all_weights(name):
    model = model_of(json.loads(PUBLISHED[name]["config"]), "config.json")
    for step in STEPS:
        found = operators(model.decoder, step, model.quantization)
        assert len({item.name for item in found}) == len(found)
        total = 0
        for item in found:
            problem = parse_inline(item.problem)
            if problem.kind == "attention":
                assert step.kv is not None
                assert problem.q <= problem.kv <= step.kv
            else:
                total += item.count * (item.experts or getattr(problem, "groups", 1)) * problem.k * problem.n
        assert total == model.decoder.total


@pytest.mark.parametrize("name", ["deepseek-v3", "qwen3-30b-a3b", "llama-3.1-8b", "gpt-oss-20b", "qwen3-next-80b-a3b"])
def test_devices_share_the_weights(name):
    """What is not copied to every device is there once: the shares of 2 and 4 add up, up to what is copied."""
    model = model_of(json.loads(PUBLISHED[name]["config"]), "config.json")

    def held(devices):
        return sum(item.count * (item.experts or getattr(parse_inline(item.problem), "groups", 1)) * parse_inline(item.problem).k
                   * parse_inline(item.problem).n for item in operators(model.decoder, ModelStep(4, 1, 64, devices)) if "attention" not in
                   item.name)

    whole, half, quarter = held(1), held(2), held(4)
    # A device has its share and a copy of what cannot be spread: whole = spread + copied, half = spread / 2 + copied.
    copied = 2 * half - whole
    assert 0 <= copied < 0.05 * whole
    assert quarter == pytest.approx((whole - copied) / 4 + copied, rel=1e-3)


def expert_operators(name, step):
    model = model_of(json.loads(PUBLISHED[name]["config"]), "config.json")
    return {item.name: (parse_inline(item.problem), item) for item in operators(model.decoder, step, model.quantization)}


@pytest.mark.parametrize(("devices", "shares"), [(1, 16), (1, 64), (4, 64), (1, 256), (8, 8)])
@pytest.mark.parametrize("batch", [1, 33, 96])
def test_devices_share_the_experts(devices, shares, batch):
    """Whole experts, with the rows of all batches: as many as the rule of one device gives, dealt in turn."""
    found = expert_operators("deepseek-v3", ModelStep(batch, 1, 64, devices, shares))
    whole = expert_operators("deepseek-v3", ModelStep(batch, 1, 64))
    problem, item = found["expert_gate_up_proj"]
    rows = problem.rows if hasattr(problem, "rows") and problem.rows else (problem.m,) * getattr(problem, "groups", 1)
    routed = batch * shares // devices * 8
    active, held = min(256, routed), 256 // shares
    assert sum(rows) == sum(routed // active + (expert < routed % active) for expert in range(0, active, shares))
    assert (item.experts or len(rows)) == held
    assert len(rows) == len(range(0, active, shares))
    assert (problem.k, problem.n) == (7168, 4096)
    # Everything else is as without: a batch of its own for each group of tensor-parallel devices.
    alone = expert_operators("deepseek-v3", ModelStep(batch, 1, 64, devices))
    for name, (other, _) in alone.items():
        if not name.startswith("expert_"):
            assert found[name][0] == other
    assert whole["expert_down_proj"][0].k == problem.n // 2


@pytest.mark.parametrize(("name", "step", "said"), [
    ("deepseek-v3", (1, 1, 64, 1, 48), "does not divide the 256 routed experts"),
    ("llama-3.1-8b", (1, 1, 64, 1, 2), "the model has no routed experts"),
])
def test_experts_that_cannot_be_shared(name, step, said):
    with pytest.raises(InputError, match=said):
        expert_operators(name, ModelStep(*step))


def test_groups_of_devices_share_the_experts():
    with pytest.raises(InputError, match="--expert-parallel 6 is no multiple of --tensor-parallel 4"):
        ModelStep(1, 1, 64, 4, 6)


@pytest.mark.parametrize(("repeats", "form"), [(1, "gemm:m=3,k=16,n=32"), (2, "grouped_gemm:groups=2,m=3,k=16,n=32")])
def test_matrices_side_by_side_are_groups(repeats, form):
    """Two already: each has an input of its own."""
    item = Linear("mix", 16, (ModuleColumns("mix", 32),), repeats=repeats)
    found = list(_matmuls(item, "", 3, ModelStep(3, 1, 64), Quantization("", lambda module: None), ()))
    assert [operator.problem for operator in found] == [form]
