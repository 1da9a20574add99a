"""Families with latent attention and mixtures of experts."""

from __future__ import annotations

from dataclasses import replace

from msdsim.models.attention import latent, latent_sizes, query_rank
from msdsim.models.config import Config
from msdsim.models.experts_of import Which, moe, moe_mlps, routed_width, zipped
from msdsim.models.family import decoder, family
from msdsim.models.mlp import (
    dense,
    expert_layers,
    expert_numbers,
    mixture,
)
from msdsim.models.parts import Decoder, Layer, Linear, Mixer, linear
from msdsim.models.patterns import (
    listed_kinds,
)


def latent_moe(c: Config, *, index: bool = False, which: Which = expert_layers, **options: object) -> Decoder:
    """Latent attention and mixtures after the first dense layers; ``index``: a sparse index chooses what is read."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads = c.size("num_attention_heads")
    c.skip("lm_head", "rm_head")
    if c.inside == "language_config." and not c.given("kv_lora_rank") and "use_mla" not in c.values:
        raise c.refuse("has neither language_config.kv_lora_rank nor use_mla; models of this type differ in their attention")
    if not c.flag("use_mla", True):
        c.skip("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank", "q_lora_rank")
        return moe(c, which=which, **options)  # type: ignore[arg-type]
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


@family("openpangu_v2")
def openpangu(c: Config) -> Decoder:
    """Latent attention that sees a window, or reads what a sparse index chooses, over parallel streams of the residual."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    c.skip("num_key_value_heads", "head_dim", "qk_head_dim", "block_post_layernorm_idx", "mhc_recur_norm", "mhc_use_gamma")
    sizes, rank = latent_sizes(c), query_rank(c)
    seen = _pangu_windows(c, layers)
    indexed = {layer for layer in c.items("dsa_layers") or [] if layer in range(layers)}
    sparse = (c.size("index_n_heads"), c.size("index_head_dim"), c.size("index_topk")) if indexed else None
    c.skip("index_n_heads", "index_head_dim", "index_topk")
    if indexed & set(seen):
        raise c.refuse(f"layer {min(indexed & set(seen))} is in dsa_layers and swa_layers; leave only the right one")
    streams = c.size("mhc_num_stream", 4) if c.flag("use_mhc") else 1
    kernel = c.count("router_sliding_window") if c.flag("use_mome", True) else 0
    sinks, width = c.count("param_sink_number"), (rank or 0) + sizes.rank + heads * sizes.value
    c.skip("router_sliding_window", "mhc_num_stream")
    left_out = []
    if streams > 1:
        mixing = f"two matrices of {streams * hidden} x {(2 + streams) * streams} a layer"
        left_out.append(f"the mixing of {streams} parallel streams: {mixing}")
    if kernel:
        left_out.append(f"the convolutions over {kernel} tokens: {width * (kernel - 1)} state values a sequence and layer")
    mixers = []
    for layer in range(layers):
        one = latent(hidden, heads, sizes, rank, indexer=sparse if layer in indexed else None, window=seen.get(layer))
        state = width * (kernel - 1) if kernel else 0
        mixers.append(replace(one, not_simulated=(*one.not_simulated, *left_out), state_values=state))
    notes = (f"{sinks} sinks, which every query reads as well, are not in kv",) if sinks else ()
    return decoder(c, zipped(mixers, moe_mlps(c, layers)), notes=notes)


def _pangu_windows(c: Config, layers: int) -> dict[int, int]:
    """The window of each layer of ``swa_layers`` (which goes on with those of the prediction modules) or ``layer_types``."""
    listed = listed_kinds(c, layers, "full", "windowed")
    given = c.items("swa_layers") or []
    sizes = c.items("sliding_window_list")
    if sizes is None and isinstance(c.get("sliding_window"), list | tuple):
        sizes = c.items("sliding_window")
    if sizes is not None and len(sizes) != len(given):
        raise c.refuse(f"{len(sizes)} windows for {len(given)} swa_layers; give one a layer")
    for values in (given, sizes or []):
        wrong = next((item for item in values if not isinstance(item, int) or isinstance(item, bool) or item < 0), None)
        if wrong is not None:
            raise c.refuse(f"swa_layers and their windows are whole numbers; one is {wrong!r:.60}")
    if listed is not None and given and [layer in given for layer in range(layers)] != [kind == "windowed" for kind in listed]:
        raise c.refuse("layer_types and swa_layers say different kinds for a layer; leave only the right one")
    at = given or [layer for layer, kind in enumerate(listed or []) if kind == "windowed"]
    c.skip("sliding_window")
    windows = sizes or [c.size("sliding_window")] * len(at)
    return {layer: window for layer, window in zip(at, windows, strict=True) if layer < layers and window}


@family("longcat_flash", "longcat_flash_ngram")
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
    once: tuple[Linear, ...] = ()
    if c.family == "longcat_flash_ngram":
        c.skip("ngram_vocab_size_ratio")
        tables = c.size("emb_split_num", 4) * (c.size("emb_neighbor_num", 4) - 1)
        once = (linear("ngram_projection", hidden // tables, hidden, "model.ngram_embeddings.post_projs", repeats=tables),)
    note = (
        f"{idle} of {count + idle} choices of the router are experts that do nothing; every choice is counted as a real one",
    )
    return decoder(c, [Layer((mixer, mixer), (plain, plain, mixed))] * layers, once=once, notes=note if idle else ())
