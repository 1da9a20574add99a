"""Published model configs become the workloads that ship with msdsim."""

from __future__ import annotations

import json

import pytest

from msdsim.cli.program import run_program
from msdsim.errors import InputError
from msdsim.explore.import_model import workload_text
from msdsim.problems import parse_problem

# The sizes of the public configs (config.json) of these models.
LLAMA3_8B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
             "num_key_value_heads": 8, "num_hidden_layers": 32, "vocab_size": 128256}
QWEN3_14B = {"model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 17408, "num_attention_heads": 40,
             "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 40, "vocab_size": 151936}
DEEPSEEK_V3 = {"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
               "num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 61, "vocab_size": 129280,
               "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3,
               "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


def gemms(workload):
    return sorted((str(e.problem), e.count) for e in workload.entries if e.problem.kind == "gemm")


@pytest.mark.parametrize(("config", "shipped"), [(LLAMA3_8B, "llama3-8b-decode"), (QWEN3_14B, "qwen3-14b-decode"),
                                                 (DEEPSEEK_V3, "deepseek-v3-decode")])
def test_decode_equals_what_ships(config, shipped, tmp_path):
    reference = parse_problem(shipped)
    path = tmp_path / "model.toml"
    path.write_text(workload_text(config, "config.json", "model", reference.batch, 1))
    imported = parse_problem(str(path))
    assert imported.batch == reference.batch
    ours, theirs = gemms(imported), gemms(reference)
    assert set(ours) <= set(theirs) or ours == theirs


@pytest.mark.parametrize(("config", "shipped"), [(LLAMA3_8B, "llama3-8b-decode"), (QWEN3_14B, "qwen3-14b-decode"),
                                                 (DEEPSEEK_V3, "deepseek-v3-decode")])
def test_attention_of_a_decode_step_equals_what_ships(config, shipped, tmp_path):
    """Grouped queries, and the latent of MLA, absorbed."""
    reference = parse_problem(shipped)
    path = tmp_path / "model.toml"
    path.write_text(workload_text(config, "config.json", "model", reference.batch, 1, 4096))
    ours, theirs = ([(e.count, e.problem) for e in workload.entries if e.problem.kind == "attention"]
                    for workload in (parse_problem(str(path)), reference))
    assert ours == theirs
    assert len(ours) == 1


def test_attention_of_a_prefill(tmp_path):
    path = tmp_path / "p.toml"
    for config, expected in (
        (DEEPSEEK_V3, "attention:batch=2,heads=128,kv_heads=128,head_dim=192,q=512,kv=700,causal=1,v_dim=128"),
        (LLAMA3_8B, "attention:batch=2,heads=32,kv_heads=8,head_dim=128,q=512,kv=700,causal=1"),
    ):
        path.write_text(workload_text(config, "config.json", "model", 2, 512, 700))
        names = [entry.name for entry in parse_problem(str(path)).entries]
        assert names.index("attention") + 1 == names.index("o_proj")
        assert [str(e.problem) for e in parse_problem(str(path)).entries if e.problem.kind == "attention"] == [expected]
    with pytest.raises(InputError, match="100 tokens in the cache are fewer than the 512 new ones"):
        workload_text(DEEPSEEK_V3, "config.json", "model", 2, 512, 100)


def test_prefill_has_all_tokens_in_the_layers_and_one_in_the_head(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(workload_text(LLAMA3_8B, "config.json", "llama", 2, 512))
    sizes = {entry.name: entry.problem.m for entry in parse_problem(str(path)).entries}
    assert sizes == {"qkv_proj": 1024, "o_proj": 1024, "gate_up_proj": 1024, "down_proj": 1024, "lm_head": 2}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has no 'hidden_size'; only decoder-only transformers are understood"),
        (LLAMA3_8B | {"vocab_size": "many"}, "vocab_size = 'many' is not a whole number"),
        (LLAMA3_8B | {"vocab_size": -1}, "vocab_size = -1 is not a whole number"),
    ],
)
def test_mistakes(config, message):
    with pytest.raises(InputError, match=message):
        workload_text(config, "config.json", "model", 1, 1)


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA3_8B))
    assert run_program(["import", "my-model/config.json", "--batch", "4"]) == 0
    assert "wrote my-model-decode.toml" in capsys.readouterr().out
    assert run_program(["run", "my-model-decode.toml", "--dataflow", "bf16", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "msdsim.workload/1"
    for arguments, message in ((["import", "none.json"], "cannot be read"), (["import", "my-model-decode.toml"], "is not JSON"),
                               (["import", "my-model/config.json", "--out", "nowhere/x.toml"], "error: --out")):
        assert run_program(arguments) == 2
        assert message in capsys.readouterr().err
