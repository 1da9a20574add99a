"""The table of families against the models that transformers makes: shapes on the meta device, and class defaults."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest

from msdsim.errors import InputError
from msdsim.models.families import FAMILIES
from msdsim.models.family import defaults
from msdsim.models.reading import read_decoder

pytestmark = pytest.mark.slow

#: Where a class of transformers is no model that is published: a default that is null, heads that do not divide, experts that
#: do nothing counted with weights, layers counted once for each use.
STRANGE = {"deepseek_v2": "no number of experts a token", "glm4_moe": "96 heads of 4096", "longcat_flash": "idle experts have weights",
           "zamba2": "shared layers counted again", "mllama": "two models", "jetmoe": "experts called otherwise"}
_ASIDE = re.compile(
    r"embed_tokens|word_embeddings|\.wte|\.wpe|position|tokens_embed|embed_in|embeddings?$|embedding\.|tok_embeddings|\.w$|A_log|_bias$|"
    r"conv1d|\.conv\.conv|conv_1d|sconv|\.D$|time_mix|\.hc|attn_hc|ffn_hc|altup\.(correction|prediction)|norm|e_score|sink")


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="torch is not installed; it makes the models whose shapes are compared")
    return pytest.importorskip("transformers", reason="transformers is not installed; its classes are the oracle of this test")


def weights(model, chosen):
    """Weights of all matrices, and of those that one token passes."""
    total = active = 0
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shape = tuple(parameter.shape)
        if len(shape) < 2 or _ASIDE.search(name.removesuffix(".weight")):
            continue
        total += math.prod(shape)
        routed = len(shape) == 3 and "expert" in name and "shared" not in name
        active += math.prod(shape) // shape[0] * chosen if routed else math.prod(shape)
    return total, active


def made(transformers, model_type, **changes):
    """The causal model of a class on the meta device, its configuration, and how many experts a token passes."""
    import torch
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if name is None or model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no causal model '{model_type}'")
    try:
        config = CONFIG_MAPPING[model_type](**changes)
        with torch.device("meta"):
            model = getattr(transformers, name if isinstance(name, str) else name[0])(config)
    except Exception as err:
        pytest.skip(f"this transformers does not make it: {type(err).__name__}: {str(err)[:80]}")
    plain = json.loads(json.dumps(config.to_dict(), default=str))
    chosen = next((plain[key] for key in ("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token", "top_k_experts")
                   if isinstance(plain.get(key), int)), 1)
    return model, plain, chosen


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_default_models(transformers, model_type):
    if model_type in STRANGE:
        pytest.skip(STRANGE[model_type])
    model, config, chosen = made(transformers, model_type)
    total, active = weights(model, chosen)
    # The whole configuration, as save_pretrained writes it, and nothing but the type.
    for given in (config, {"model_type": model_type}):
        if model_type == "nemotron_h" and given is not config:
            continue
        found = read_decoder(given, model_type).decoder
        assert found.total == pytest.approx(total, rel=1e-3)
        assert found.active == pytest.approx(active, rel=1e-3)


#: Keys that double a size, where the class has them and not as null.
DOUBLED = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "num_experts",
           "n_routed_experts", "num_local_experts", "moe_intermediate_size", "n_shared_experts", "num_shared_experts",
           "shared_expert_intermediate_size", "shared_intermediate_size", "first_k_dense_replace", "q_lora_rank", "kv_lora_rank",
           "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "linear_num_value_heads", "linear_num_key_heads",
           "linear_key_head_dim", "linear_value_head_dim", "mamba_d_state", "mamba_n_groups", "n_embd", "n_inner", "ffn_dim",
           "index_n_heads", "index_head_dim", "vocab_size")
#: What transformers does not do with a key that it has: a width that only divides, shared experts that are always one.
IGNORED = {("helium", "hidden_size"), ("helium", "num_attention_heads"), ("helium", "head_dim"), ("deepseek_v4", "n_shared_experts")}


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_changed_sizes(transformers, model_type):
    if model_type in STRANGE or model_type == "nemotron_h":
        pytest.skip(STRANGE.get(model_type, "no default pattern"))
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    fields = {f.name: f.default for f in dataclasses.fields(CONFIG_MAPPING[model_type])} if model_type in CONFIG_MAPPING else {}
    few = next((key for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if isinstance(fields.get(key), int)), None)
    base = {few: 8} if few and model_type != "gpt_neo" else {}
    checked = 0
    for key in DOUBLED:
        value = fields.get(key)
        if type(value) is not int or value < 1 or (model_type, key) in IGNORED:
            continue
        try:
            model, _, chosen = made(transformers, model_type, **base, **{key: 2 * value})
        except pytest.skip.Exception:
            continue
        total, active = weights(model, chosen)
        try:
            found = read_decoder({"model_type": model_type, **base, key: 2 * value}, model_type).decoder
        except InputError:
            # Refused is never wrong.
            continue
        assert found.total == pytest.approx(total, rel=1e-3), key
        assert found.active == pytest.approx(active, rel=1e-3), key
        checked += 1
    if not checked:
        pytest.skip("no size of it can be changed alone")


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_class_defaults_are_those_of_the_classes(transformers, model_type):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no class '{model_type}'")
    fields = {f.name: f.default for f in dataclasses.fields(CONFIG_MAPPING[model_type])}
    for key, value in defaults(model_type).items():
        # Lists are made by factories, and first_k_dense_replace may stand for a list that the class derives.
        if key in fields and not isinstance(value, list) and fields[key] is not dataclasses.MISSING and fields[key] is not None:
            assert value == fields[key], key
