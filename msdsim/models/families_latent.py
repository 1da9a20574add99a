"""Families with latent attention and mixtures of experts."""

from __future__ import annotations

from dataclasses import replace

from msdsim.models.attention import latent, latent_sizes, query_rank
from msdsim.models.config import Config
from msdsim.models.experts_of import Which, moe_mlps, routed_width, zipped
from msdsim.models.family import decoder, family
from msdsim.models.mlp import (
    dense,
    expert_layers,
    expert_numbers,
    mixture,
)
from msdsim.models.parts import Decoder, Layer, Mixer
from msdsim.models.patterns import (
    listed_kinds,
)


def latent_moe(c: Config, *, index: bool = False, which: Which = expert_layers, **options: object) -> Decoder:
    """Latent attention and mixtures after the first dense layers; ``index``: a sparse index chooses what is read."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads = c.size("num_attention_heads")
    c.skip("num_key_value_heads", "head_dim", "qk_head_dim", "kv_channels")
    if index or c.given("index_topk"):
        sparse = (c.size("index_n_heads"), c.size("index_head_dim"), c.size("index_topk"))
    else:
        sparse = None
    sizes, rank = latent_sizes(c), query_rank(c)
    full = latent(hidden, heads, sizes, rank, indexer=sparse)
    mixers = [full] * layers
    if sparse is not None:
        listed_kinds(c, layers, "indexed", "full")
        mixers = _shared_indices(c, layers, full, latent(hidden, heads, sizes, rank), sparse[2])
    return decoder(c, zipped(mixers, moe_mlps(c, layers, which=which, **options)))  # type: ignore[arg-type]


def _shared_indices(c: Config, layers: int, full: Mixer, without: Mixer, kept: int) -> list[Mixer]:
    """Layers of ``indexer_types`` that share the index of an earlier one read as few tokens and have no index of their own.

    Its matrices count in every layer, as checkpoints have them, unless the config says which layers share.
    """
    kinds = _index_kinds(c, layers)
    if kinds is None or set(kinds) == {"full"}:
        return [full] * layers
    if set(kinds) - {"full", "shared"}:
        raise c.refuse(
            f"indexer_types has {sorted(map(str, set(kinds) - {'full', 'shared'}))[0]!r:.60}; known are full, shared"
        )
    assert without.attention is not None
    sharing = replace(without, attention=replace(without.attention, reads=kept))
    return [full if kind == "full" else sharing for kind in kinds]


def _index_kinds(c: Config, layers: int) -> list[str] | None:
    """By ``indexer_types``, a pattern of F and S, or every so many layers from an offset on."""
    listed, pattern = c.items("indexer_types", layers), c.get("index_topk_pattern")
    frequency, offset = max(1, c.count("index_topk_freq", 1)), c.count("index_skip_topk_offset", 2)
    if listed is not None:
        return listed
    if pattern is None:
        return ["shared" if max(layer - offset + 1, 0) % frequency else "full" for layer in range(layers)]
    if not isinstance(pattern, str) or len(pattern) != layers or set(pattern) - {"F", "S"}:
        raise c.refuse(f"index_topk_pattern = {pattern!r:.60} is no text of {layers} letters F (full) and S (shared)")
    return ["full" if letter == "F" else "shared" for letter in pattern]


family(
    "deepseek_v2",
    "deepseek_v3",
    "kimi_k2",
    "glm4_moe_lite",
    "axk1",
    "AXK1",
    "mistral4",
    "sarvam_mla",
    "deepseek_vl_v2",
    "pangu_ultra_moe",
)(latent_moe)
family("deepseek_v32", "glm_moe_dsa", index=True)(latent_moe)


@family("longcat_flash")
def longcat(c: Config) -> Decoder:
    """Two latent attentions and two plain MLPs a layer, and one mixture; some of the chosen experts may do nothing."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    count, chosen = expert_numbers(c)
    idle = c.count("zero_expert_num")
    c.skip(
        "num_key_value_heads",
        "head_dim",
        "qk_head_dim",
        "zero_expert_type",
        "mla_scale_q_lora",
        "mla_scale_kv_lora",
        "attention_method",
    )
    mixer = latent(hidden, heads, latent_sizes(c), query_rank(c), module="self_attn.0.")
    plain = dense(hidden, c.size("intermediate_size"), prefix="dense_", module="mlps.0.")
    mixed = mixture(hidden, count, chosen, routed_width(c), routes=count + idle, router="router.classifier")
    note = (
        f"{idle} of {count + idle} choices of the router are experts that do nothing; every choice is counted as a real one",
    )
    return decoder(c, [Layer((mixer, mixer), (plain, plain, mixed))] * layers, notes=note if idle else ())
