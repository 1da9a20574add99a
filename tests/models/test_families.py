"""Published configs come to the weights, layers and caches that their models have; what is not understood is refused by name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from msdsim.errors import InputError
from msdsim.models.families import FAMILIES
from msdsim.models.reading import read_decoder

HERE = Path(__file__).parent
PUBLISHED = tomllib.loads((HERE / "published.toml").read_text(encoding="utf-8"))
CLASS_DEFAULTS = tomllib.loads((HERE / "class_defaults.toml").read_text(encoding="utf-8"))

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 1000,
}
MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 1000,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
}


def decoder(config):
    return read_decoder(config, "config.json").decoder


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name):
    want = PUBLISHED[name]
    found = decoder(json.loads(want["config"]))
    assert {kind: count for kind, count in found.mixer_counts().items() if count} == want["layers"]
    if "total" in want:
        # The table has three digits after the point.
        assert found.total / 1e9 == pytest.approx(want["total"], rel=1e-3, abs=5e-4)
        assert found.active / 1e9 == pytest.approx(want["active"], rel=1e-3, abs=5e-4)
    mixers = [mixer for layer in found.layers for mixer in layer.mixers if mixer.attention is not None]
    first = next((mixer for mixer in mixers if mixer.kind == "full"), mixers[0])
    assert first.attention.cached_values == want["cached"]


@pytest.mark.parametrize("model_type", CLASS_DEFAULTS)
def test_class_defaults(model_type):
    """A config of nothing but its model_type is the model that its class makes."""
    want = CLASS_DEFAULTS[model_type]
    found = decoder({"model_type": model_type})
    # Mixing of parallel streams and the compressor's position are named as not simulated.
    close = 2e-3 if model_type == "deepseek_v4" else 1e-3
    assert found.total / 1e6 == pytest.approx(want["total"], rel=close)
    assert found.active / 1e6 == pytest.approx(want["active"], rel=close)
    if "windowed" in want:
        assert found.mixer_counts()["windowed"] == want["windowed"]


def test_the_table_is_wide():
    assert len(FAMILIES) > 140
    assert len(CLASS_DEFAULTS) > 110


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "hidden_size": 768}, "is an encoder, not a decoder"),
        ({"model_type": "t5"}, "has an encoder and a decoder"),
        ({"model_type": "nobody"}, "is no family that is known"),
        ({"hidden_size": 8}, "has no 'model_type'"),
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "llava"}, "there is no text_config"),
        (LLAMA | {"text_config": None}, "text_config is null"),
        (LLAMA | {"text_config": 3}, "text_config = 3 is not a table"),
        (LLAMA | {"hidden_size": 250}, "hidden_size = 250 is no multiple of num_attention_heads = 4, and head_dim is missing"),
        (LLAMA | {"num_attention_heads": 0}, "num_attention_heads = 0 is below 1"),
        (LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 4, "hidden_size": 384}, "6 is no multiple of 4 KV heads"),
        (LLAMA | {"hidden_size": 0}, "hidden_size = 0 is below 1"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers = 0 is below 1"),
        (LLAMA | {"num_hidden_layers": -1}, "num_hidden_layers = -1 is below 1"),
        (LLAMA | {"vocab_size": "many"}, "vocab_size = 'many' is not a whole number"),
        (LLAMA | {"vocab_size": True}, "vocab_size = True is not a whole number"),
        (LLAMA | {"hidden_size": 2**40}, "hidden_size = 1099511627776 is above 2147483647"),
        (LLAMA | {"hidden_size": 10**5000}, "a huge number is above"),
        (LLAMA | {"hidden_size": [1] * 100000}, "300000 characters"),
        (LLAMA | {"num_experts": 8, "num_experts_per_tok": 0}, "num_experts_per_tok = 0: no token reaches an expert"),
        (LLAMA | {"num_experts": 8, "num_experts_per_tok": 2}, "num_experts = 8 is not understood for family 'llama'"),
        (LLAMA | {"kv_lora_rank": 0}, "kv_lora_rank = 0 is below 1"),
        (LLAMA | {"kv_lora_rank": 64}, "kv_lora_rank = 64 is not understood"),
        (LLAMA | {"n_embd": 128}, "hidden_size = 256 and n_embd = 128 are two names of one number and differ"),
        (LLAMA | {"sliding_window": 64}, "which layers see them is not certain"),
        (LLAMA | {"layer_types": ["full_attention"]}, "layer_types has 1 items for 2 layers"),
        (LLAMA | {"layer_types": ["full_attention", "mystery"]}, "calls layer 1 'mystery'"),
        (LLAMA | {"shared_attention_every": 3}, "shared_attention_every = 3 is not understood"),
        (LLAMA | {"quantization_config": 4}, "quantization_config = 4 is not a table"),
        (LLAMA | {"hidden_act": "relu2"}, "belongs to an MLP without a gate"),
        (MOE | {"num_experts_per_tok": 9}, "9 is above the 8 experts"),
        (MOE | {"first_k_dense_replace": 5}, "5 dense layers are more than the 2 layers"),
        (MOE | {"mlp_only_layers": [7]}, "mlp_only_layers has 7, which is no layer from 0 to 1"),
        (MOE | {"n_shared_experts": 1}, "n_shared_experts = 1 is not understood for family 'qwen3_moe'"),
        ({"model_type": "bailing_hybrid", "num_hidden_layers": 20}, "20 layers are no whole number of groups of layer_group_size = 6"),
        ({"model_type": "jamba", "layers_block_type": ["mamba"] * 32}, "layers_block_type and attn_layer_period say different kinds"),
        ({"model_type": "cohere2", "order_of_interleaved_layers": "global_first"}, "known is 'local_attn_first'"),
        ({"model_type": "deepseek_vl_v2", "language_config": {"hidden_size": 64}}, "neither language_config.kv_lora_rank nor use_mla"),
        (MOE | {"router_lora_rank": 32}, "router_lora_rank = 32 is not understood"),
        ({"model_type": "bailing_moe", "num_shared_experts": 1, "moe_router_enable_shared_expert": False, **{key: value
          for key, value in MOE.items() if key != "model_type"}}, "whether they are there is not certain"),
        (LLAMA | {"sliding_window": 64, "max_window_layers": 1}, "is not known to have windows"),
        ({"model_type": "ernie4_5_moe", "moe_layer_end_index": [3]}, "moe_layer_end_index = [3] is not a whole number"),
        ({"model_type": "deepseek_v4", "n_shared_experts": 2}, "n_shared_experts = 2: implementations of this family have one"),
        ({"model_type": "helium", "head_dim": 64}, "20 heads of 64 are not hidden_size = 2560"),
        ({"model_type": "gemma3n_text", "num_hidden_layers": 15}, "num_kv_shared_layers = 15 of 15 layers"),
        ({"model_type": "gemma4_text", "num_kv_shared_layers": 99}, "num_kv_shared_layers = 99 are more than the"),
        ({"model_type": "nemotron_h", "hidden_size": 64, "vocab_size": 8, "hybrid_override_pattern": "MX"}, "has 'X'"),
    ],
)
def test_refusals(config, message):
    with pytest.raises(InputError) as found:
        decoder(config)
    assert message in str(found.value)
    assert len(str(found.value)) < 2000
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("architecture", "more", "columns"),
    [
        ("LlamaForCausalLM", {}, 1000),
        ("LlamaForSequenceClassification", {"id2label": {"0": "no", "1": "yes", "2": "maybe"}}, 3),
        ("LlamaForSequenceClassification", {"num_labels": 1}, 1),
        ("LlamaForTokenClassification", {}, 2),
        ("LlamaModel", {}, 0),
        ("NVEmbedModel", {}, 0),
        ("ChatGLMModel", {}, 1000),
        ("QWenLMHeadModel", {}, 1000),
        ("GPT2DoubleHeadsModel", {}, 1000),
    ],
)
def test_embedding_models_and_rerankers_have_no_vocabulary(architecture, more, columns):
    """A class that scores or embeds has another head than one that writes."""
    found = decoder(LLAMA | more | {"architectures": [architecture]})
    plain = decoder(LLAMA)
    assert found.total == plain.total - 256 * (1000 - columns)
    assert (found.notes != ()) == (columns != 1000)


def test_bidirectional_attention_is_said():
    assert "tokens see those after them as well" in decoder(LLAMA | {"is_causal": False}).notes[0]


def test_keys_that_change_nothing_are_no_obstacle():
    more = {
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "yarn"},
        "rms_norm_eps": 1e-6,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "attention_dropout": 0.1,
        "bos_token_id": 1,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "num_nextn_predict_layers": 1,
        "architectures": ["LlamaForCausalLM"],
        "rope_parameters": {"rope_type": "default"},
        "mystery": 3.5,
    }
    assert decoder(LLAMA | more).total == decoder(LLAMA).total
    assert decoder(LLAMA | more).notes == ("keys that were not read: mystery",)


@pytest.mark.parametrize("off", [None, False, "", 0, [], {}])
def test_what_is_switched_off_is_no_obstacle(off):
    assert decoder(LLAMA | {"shared_attention_every": off}).total == decoder(LLAMA).total


def test_null_counts_as_left_out_even_where_the_family_has_a_default():
    assert decoder({"model_type": "mistral"}).mixer_counts()["windowed"] == 32
    assert decoder({"model_type": "mistral", "sliding_window": None}).mixer_counts()["full"] == 32
    with_rank = decoder({"model_type": "deepseek_v3"})
    without = decoder({"model_type": "deepseek_v3", "q_lora_rank": None})
    assert without.total - with_rank.total == 61 * (7168 * 128 * 192 - 7168 * 1536 - 1536 * 128 * 192)


@pytest.mark.parametrize("name", ["deepseek-v4-flash", "nemotron-3-nano-30b", "kimi-k3", "hunyuan-a13b", "dbrx", "gemma-4-26b-a4b"])
def test_whatever_a_key_holds_is_understood_or_refused(name):
    """No value of any key ends in anything but a decoder or one line."""
    config = json.loads(PUBLISHED[name]["config"])

    def places(table, path=()):
        for key, value in table.items():
            yield (*path, key)
            if isinstance(value, dict) and key != "quantization_config":
                yield from places(value, (*path, key))

    for path in list(places(config)):
        for value in (None, -1, 0, 1.5, "x", [], {}, True, 10**30, [1, 2], {"a": 1}, float("nan"), float("inf"), [None]):
            changed = json.loads(PUBLISHED[name]["config"])
            table = changed
            for key in path[:-1]:
                table = table[key]
            table[path[-1]] = value
            said = ""
            try:
                decoder(changed)
            except InputError as err:
                said = str(err)
            assert len(said) < 2000
            assert "\n" not in said


SMALL = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "vocab_size": 96}


@pytest.mark.parametrize(("config", "message"), [
    (SMALL | {"architectures": ["LlamaForCausalLMEagle"]}, "'LlamaForCausalLMEagle' proposes tokens for another model"),
    ({"model_type": "gemma4_assistant", "text_config": {"model_type": "gemma4_text"}}, "'gemma4_assistant' proposes tokens"),
    ({"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLMNextN"]}, "proposes tokens"),
    (SMALL | {"model_type": "qwen2", "architectures": ["Qwen2ForRewardModel"]}, "the head of Qwen2ForRewardModel is two matrices"),
    ({"model_type": "flamingo", "text_config": SMALL, "cross_attn_every_n_layers": 4},
     "cross_attn_every_n_layers = 4 stands beside text_config of a model that is not known"),
])
def test_what_is_no_plain_decoder_is_refused_by_name(config, message):
    with pytest.raises(InputError, match=message):
        read_decoder(config, "config.json")


def test_a_model_around_a_known_one_is_named():
    around = {"model_type": "ultravox", "text_config": SMALL, "audio_config": {}, "projector_hidden_size": 32}
    assert read_decoder(around, "config.json").decoder.notes[0].startswith("only the language part")
    assert "model_type 'ultravox' is not known: its text_config is taken as a plain llama" in read_decoder(around, "c").decoder.notes
    known = {"model_type": "llava", "text_config": SMALL, "vision_feature_layer": -2}
    assert not any("not known" in note for note in read_decoder(known, "config.json").decoder.notes)
