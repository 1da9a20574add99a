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
        ({}, "has no 'model_type', which tells the family"),
        (LLAMA3_8B | {"vocab_size": "many"}, "vocab_size = 'many' is not a whole number"),
        (LLAMA3_8B | {"vocab_size": -1}, "vocab_size = -1 is below 1"),
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


def entries(config, tmp_path, **options):
    path = tmp_path / "w.toml"
    path.write_text(workload_text(config, "config.json", "model", **options))
    return {entry.name: entry for entry in parse_problem(str(path)).entries}


GPT_OSS = {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32,
           "layer_types": ["sliding_attention", "full_attention"] * 12,
           "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
               "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}}


def test_windows_and_formats(tmp_path):
    found = entries(GPT_OSS, tmp_path, batch=16, tokens=1, kv=32768)
    assert (found["windowed_attention"].count, found["windowed_attention"].problem.kv) == (12, 128)
    assert (found["attention"].count, found["attention"].problem.kv) == (12, 32768)
    assert {name: entry.weights for name, entry in found.items() if entry.weights} == {
        "qkv_proj": "bf16", "o_proj": "bf16", "moe_router": "bf16", "expert_gate_up_proj": "mxfp4", "expert_down_proj": "mxfp4",
        "lm_head": "bf16"}


def test_a_window_that_the_cache_does_not_fill(tmp_path):
    assert entries(GPT_OSS, tmp_path, batch=1, tokens=1, kv=100)["windowed_attention"].problem.kv == 100


def test_a_prefill_longer_than_its_window_runs_in_blocks(tmp_path):
    found = [e for e in entries(GPT_OSS, tmp_path, batch=1, tokens=300, kv=300).values() if "windowed" in e.name]
    assert [(e.count, e.problem.q, e.problem.kv, e.problem.causal) for e in found] == [(24, 128, 255, True), (12, 44, 171, True)]


def test_rows_of_experts_are_exact(tmp_path):
    rows = entries(DEEPSEEK_V3, tmp_path, batch=33, tokens=1)["expert_down_proj"].problem.rows
    assert (sum(rows), len(rows), max(rows), min(rows)) == (264, 256, 2, 1)
    few = entries(DEEPSEEK_V3, tmp_path, batch=3, tokens=1)["expert_down_proj"]
    assert (few.problem.groups, few.problem.m, few.experts) == (24, 1, 256)


KIMI = {"model_type": "kimi_k25", "text_config": {**DEEPSEEK_V3, "model_type": "kimi_k2", "quantization_config": {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": [
        "lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
        "num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}}}}}}


def test_only_the_experts_of_kimi_are_converted(tmp_path):
    found = entries(KIMI, tmp_path, batch=64, tokens=1)
    assert {name for name, entry in found.items() if entry.weights == "int4"} == {"expert_gate_up_proj", "expert_down_proj"}
    assert found["expert_down_proj"].problem.group == 32
    assert found["dense_down_proj"].problem.group is None


@pytest.mark.parametrize(("method", "name", "group", "offset"), [
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "int4", 128, True),
    ({"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True}, "int4", 64, False),
    ({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True}, "int8", None, False),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_e4m3", None, False),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}, "nvfp4", None, False),
    ({"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": {
        "num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}}}, "ignore": ["lm_head"]}, "int8", None, False),
])
def test_methods_of_quantization(method, name, group, offset, tmp_path):
    found = entries(LLAMA3_8B | {"quantization_config": method}, tmp_path, batch=1, tokens=1)
    assert {found[entry].weights for entry in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")} == {name}
    assert (found["o_proj"].problem.group, found["o_proj"].problem.offset) == (group, offset)
    assert found["lm_head"].weights == "bf16"


def test_modules_left_out_of_a_fused_matmul_are_a_matmul_of_their_own(tmp_path):
    skip = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn.v_proj", "lm_head"]}
    found = entries(LLAMA3_8B | {"quantization_config": skip}, tmp_path, batch=1, tokens=1)
    assert {name: (e.count, e.problem.n, e.weights) for name, e in found.items() if "qkv" in name} == {
        "qkv_proj": (31, 6144, "fp8_e4m3"), "qkv_proj_fp8_e4m3": (1, 5120, "fp8_e4m3"), "qkv_proj_bf16": (1, 1024, "bf16")}


def test_tensor_parallel(tmp_path):
    found = entries(LLAMA3_8B, tmp_path, batch=8, tokens=1, kv=1024, devices=8)
    assert {name: (e.problem.k, e.problem.n) for name, e in found.items() if name != "attention"} == {
        "qkv_proj": (4096, 768), "o_proj": (512, 4096), "gate_up_proj": (4096, 3584), "down_proj": (1792, 4096), "lm_head": (4096, 16032)}
    assert (found["attention"].problem.heads, found["attention"].problem.kv_heads) == (4, 1)
    # KV heads that are too few are copied.
    found = entries(LLAMA3_8B, tmp_path, batch=8, tokens=1, kv=1024, devices=16)
    assert (found["attention"].problem.heads, found["attention"].problem.kv_heads, found["qkv_proj"].problem.n) == (2, 1, 512)
    found = entries(DEEPSEEK_V3, tmp_path, batch=8, tokens=1, kv=1024, devices=16)
    assert str(found["attention"].problem).startswith("attention:batch=8,heads=8,kv_heads=1,head_dim=576")
    assert (found["qkv_a_proj"].problem.n, found["q_b_proj"].problem.n, found["expert_down_proj"].problem.k) == (2112, 1536, 128)
    with pytest.raises(InputError, match="--tensor-parallel 3 does not divide"):
        entries(LLAMA3_8B, tmp_path, batch=8, tokens=1, kv=1024, devices=3)


def test_what_was_understood_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nemotron.json").write_text(json.dumps({
        "model_type": "nemotron_h", "hidden_size": 256, "hybrid_override_pattern": "M*-", "mamba_num_heads": 8, "mamba_head_dim": 64,
        "ssm_state_size": 16, "n_groups": 1, "conv_kernel": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "intermediate_size": 512, "vocab_size": 1000, "mystery": "x"}))
    assert run_program(["import", "nemotron.json", "--kv", "64"]) == 0
    text = capsys.readouterr().out
    for part in ("family: nemotron_h", "layers: 3 (1 full attention, 1 Mamba)", "weights: 0.001 x 10^9 in all",
                 "KV cache: 512 bytes a token", "not simulated: the scan of Mamba-2: 9824 state values", "keys that were not read: mystery",
                 "wrote nemotron-decode.toml"):
        assert part in text, part


def test_no_workload_is_lost_to_another_of_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    name = f"{tmp_path.name}-decode.toml"
    assert run_program(["import", "config.json"]) == 0
    assert run_program(["import", "config.json"]) == 0
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_14B))
    assert run_program(["import", "config.json"]) == 2
    assert f"'{name}' is there already and holds something else" in capsys.readouterr().err
    assert run_program(["import", "config.json", "--out", name]) == 0
    for file in ("a.json", "b.json"):
        (tmp_path / file).write_text(json.dumps(LLAMA3_8B))
        assert run_program(["import", file]) == 0
    assert (tmp_path / "a-decode.toml").exists()
    assert (tmp_path / "b-decode.toml").exists()


def test_other_files_of_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    assert run_program(["import", "model"]) == 2
    assert "folder 'model' has neither a config.json nor safetensors files" in capsys.readouterr().err
    (folder / "config.json").write_text(json.dumps(LLAMA3_8B))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}))
    assert run_program(["import", "model"]) == 0
    assert "fp8_e4m3, one scale a tensor for qkv_proj" in capsys.readouterr().out
    (folder / "config.json").write_text("[" * 100000)
    assert run_program(["import", "model"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "held", "said"),
    [
        ("quantize_config.json", {"bits": 4, "group_size": 64, "sym": False, "desc_act": True}, "(gptq): int4, groups of 64, offsets for qkv_proj"),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128, "zero_point": True}, "(awq): int4, groups of 128, offsets for qkv_proj"),
        ("quant_model_description_w8a8.json", {"model_quant_type": "W8A8", **{f"model.layers.{layer}.{module}.weight": "W8A8_DYNAMIC"
         for layer in range(32) for module in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")},
         "lm_head.weight": "FLOAT"}, "(msmodelslim): int8 for qkv_proj, gate_up_proj"),
        ("quant_model_description.json", {"group_size": 256, **{f"model.layers.{layer}.mlp.{module}.weight": "W4A8_DYNAMIC"
         for layer in range(32) for module in ("gate_proj", "up_proj")}}, "(msmodelslim): int4, groups of 256 for gate_up_proj"),
        ("quant_model_description.json", {"model.layers.0.mlp.up_proj.weight": "W3A3_NEW"}, "method 'msmodelslim' is not understood"),
    ],
)
def test_what_quantizers_write_beside_a_config(tmp_path, monkeypatch, capsys, file, held, said):
    """Ascend's quantizer and the first exporters of GPTQ and AWQ leave config.json as it was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA3_8B))
    (tmp_path / file).write_text(json.dumps(held))
    assert run_program(["import", "config.json"]) == 0
    assert said in capsys.readouterr().out


def test_a_device_with_experts_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "qwen3_moe", "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
              "num_hidden_layers": 2, "num_experts": 16, "num_experts_per_tok": 3, "moe_intermediate_size": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run_program(["import", "config.json", "--batch", "5", "--expert-parallel", "8", "--out", "a.toml"]) == 0
    said = capsys.readouterr().out
    assert "8 batches of 5 are under way at once, 40 tokens in all" in said
    assert "not simulated: what 8 devices send to one another" in said
    # 120 rows over 16 experts: eight each for the first half, seven for the other; a device has one of each.
    assert 'problem = "grouped_gemm:rows=8+7,k=256,n=256"' in (tmp_path / "a.toml").read_text(encoding="utf-8")
    assert run_program(["import", "config.json", "--expert-parallel", "3", "--out", "b.toml"]) == 2
    assert "--expert-parallel 3 does not divide the 16 routed experts" in capsys.readouterr().err
    assert not (tmp_path / "b.toml").exists()
