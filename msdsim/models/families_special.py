"""Families whose attention has a form of its own."""

from __future__ import annotations

from dataclasses import replace

from msdsim.models.attention import cross, head_sizes, softmax
from msdsim.models.config import Config
from msdsim.models.experts_of import all_but_first, moe_mlps, width_shared, zipped
from msdsim.models.families_dense import inner_of
from msdsim.models.family import decoder, family
from msdsim.models.mlp import dense, expert_layers, expert_numbers, mixture
from msdsim.models.parts import Decoder, Layer, Linear, Mixer, Mlp, ModuleColumns, linear
from msdsim.models.patterns import listed_kinds, window_size, windows


@family("deepseek_v4", "deepseek_ref")
def deepseek_v4(c: Config) -> Decoder:
    """One vector that is key and value, low-rank queries and grouped low-rank outputs; all layers see a window, and some also
    tokens compressed by a ratio, of which an index may choose."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    dim, q_rank, o_rank, groups = c.size("head_dim"), c.size("q_lora_rank"), c.size("o_lora_rank"), c.size("o_groups")
    if heads % groups:
        raise c.refuse(f"o_groups = {groups} does not divide {heads} heads")
    streams = c.size("hc_mult")
    c.skip(
        "num_key_value_heads",
        "qk_rope_head_dim",
        "mlp_layer_types",
        "num_hash_layers",
        "intermediate_size",
        "hc_sinkhorn_iters",
        "hc_eps",
        "compress_rope_theta",
    )
    ratios = _compression(c, layers)
    window = window_size(c)
    index = (c.size("index_n_heads"), c.size("index_head_dim"), c.size("index_topk"))
    by_ratio = {ratio: _compressed(hidden, heads, dim, q_rank, o_rank, groups, window, ratio, index) for ratio in set(ratios)}
    count, chosen = expert_numbers(c)
    width = c.size("moe_intermediate_size")
    if c.count("n_shared_experts") != 1:
        raise c.refuse(f"n_shared_experts = {c.get('n_shared_experts')}: implementations of this family have one in any case")
    mlp = mixture(hidden, count, chosen, width, shared=width)
    mixing = (
        f"the mixing of {streams} parallel streams: two matrices of {streams * hidden} x {(2 + streams) * streams} a layer",
    )
    return decoder(
        c,
        [
            Layer((replace(by_ratio[ratio], not_simulated=(*by_ratio[ratio].not_simulated, *mixing)),), (mlp,))
            for ratio in ratios
        ],
    )


def _compression(c: Config, layers: int) -> list[int]:
    """How many tokens each layer compresses to one; 0 for none.  A list may go on with the prediction module's layers."""
    given = c.items("compress_ratios")
    kinds = c.items("layer_types", layers)
    rates = c.part("compress_rates")
    if given is not None:
        if len(given) < layers or any(not isinstance(item, int) or isinstance(item, bool) or item < 0 for item in given):
            raise c.refuse(f"compress_ratios must be {layers} whole numbers of at least 0, one a layer")
        return given[:layers]
    if kinds is not None:
        known = {
            "heavily_compressed_attention": rates.size("heavily_compressed_attention", c.size("compress_rate_hca", 128)),
            "compressed_sparse_attention": rates.size("compressed_sparse_attention", c.size("compress_rate_csa", 4)),
            "sliding_attention": 0,
        }
        wrong = next((kind for kind in kinds if kind not in known), None)
        if wrong is not None:
            raise c.refuse(f"layer_types has {wrong!r:.60}; known are {', '.join(known)}")
        return [known[kind] for kind in kinds]
    sparse, heavy = (
        rates.size("compressed_sparse_attention", c.size("compress_rate_csa", 4)),
        rates.size("heavily_compressed_attention", c.size("compress_rate_hca", 128)),
    )
    return [heavy if layer < 2 or layer % 2 == 0 else sparse for layer in range(layers)]


def _compressed(
    hidden: int,
    heads: int,
    dim: int,
    q_rank: int,
    o_rank: int,
    groups: int,
    window: int | None,
    ratio: int,
    index: tuple[int, int, int],
) -> Mixer:
    """One layer: the window, and with a ``ratio`` the compressor's key and gate, below 128 twice as wide and with an index."""
    first = [ModuleColumns("self_attn.q_a_proj", q_rank), ModuleColumns("self_attn.kv_proj", dim)]
    second = [ModuleColumns("self_attn.q_b_proj", heads * dim, heads)]
    left: tuple[str, ...] = ()
    extra = 0
    if ratio:
        extra = dim // ratio
        chosen = ratio < 128
        columns = dim * (2 if chosen else 1)
        first += [ModuleColumns(f"self_attn.compressor.{name}_proj", columns) for name in ("kv", "gate")]
        left = (f"attention over tokens compressed {ratio} to 1 (one vector of {dim} values for {ratio} tokens)",)
        if chosen:
            first += [
                ModuleColumns("self_attn.compressor.indexer.kv_proj", 2 * index[1]),
                ModuleColumns("self_attn.compressor.indexer.gate_proj", 2 * index[1]),
                ModuleColumns("self_attn.compressor.indexer.weights_proj", index[0]),
            ]
            extra += index[1] // ratio
            second.append(ModuleColumns("self_attn.compressor.indexer.q_b_proj", index[0] * index[1], index[0]))
            left += (f"the sparse index over them ({index[0]} heads of {index[1]} channels, {index[2]} kept)",)
    mixer = softmax(hidden, heads, 1, dim, v_dim=dim, window=window, kind="windowed")
    assert mixer.attention is not None
    grouped = Linear("o_a_proj", heads * dim // groups, (ModuleColumns("self_attn.o_a_proj", o_rank),), repeats=groups)
    return Mixer(
        "windowed",
        (Linear("qkv_a_proj", hidden, tuple(first)), Linear("q_b_proj", q_rank, tuple(second))),
        (grouped, linear("o_b_proj", groups * o_rank, hidden, "self_attn.o_b_proj", k_units=groups)),
        replace(mixer.attention, shared_kv=True),
        extra_cache_values=extra,
        not_simulated=left,
    )


@family("gemma4_text", "gemma4_unified_text")
def gemma4(c: Config) -> Decoder:
    """Full layers have wider heads and KV heads of their own, maybe one projection for key and value; a mixture may stand
    beside the dense MLP of every layer."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    _, kv_heads, head_dim = head_sizes(c)
    kinds = listed_kinds(c, layers, "full", "windowed") or [
        "full" if (layer + 1) % 6 == 0 or layer == layers - 1 else "windowed" for layer in range(layers)
    ]
    wide = c.size("global_head_dim", 512)
    k_is_v = c.flag("attention_k_eq_v")
    full_kv = c.size("num_global_key_value_heads", kv_heads) if k_is_v else kv_heads
    c.skip("num_global_key_value_heads", "vocab_size_per_layer_input", "per_layer_config")
    shared = c.count("num_kv_shared_layers")
    if shared > layers:
        raise c.refuse(f"num_kv_shared_layers = {shared} are more than the {layers} layers")
    inner, doubled = c.size("intermediate_size"), c.flag("use_double_wide_mlp")
    extra = c.count("hidden_size_per_layer_input")
    see = windows(c, layers, kinds)
    mixed: tuple[Mlp, ...] = ()
    if c.flag("enable_moe_block"):
        count, chosen = expert_numbers(c)
        mixed = (mixture(hidden, count, chosen, c.size("moe_intermediate_size"), router="router.proj"),)
    c.skip("num_experts", "top_k_experts", "moe_intermediate_size")
    beside = (
        (linear("per_layer_gate", hidden, extra, "per_layer_input_gate"), linear("per_layer_projection", extra, hidden))
        if extra
        else ()
    )
    found = []
    for layer, kind in enumerate(kinds):
        own = layer < layers - shared
        mixer = (
            softmax(hidden, heads, full_kv, wide, key_is_value=k_is_v, owns_cache=own)
            if kind == "full"
            else softmax(hidden, heads, kv_heads, head_dim, window=see[layer], owns_cache=own)
        )
        width = inner * (2 if doubled and not own else 1)
        found.append(Layer((mixer,), (dense(hidden, width, prefix="dense_" if mixed else ""), *mixed), beside))
    once = (linear("per_layer_model_projection", hidden, layers * extra, "model.per_layer_model_projection"),) if extra else ()
    return decoder(c, found, once=once)


@family("mllama_text_model")
def mllama(c: Config) -> Decoder:
    """Some layers attend to the encoded images instead of the text."""
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    heads, kv_heads, head_dim = head_sizes(c)
    at = c.layer_indices("cross_attention_layers", layers)
    at = set(range(3, layers, 5)) if at is None else at
    mlp = (dense(hidden, inner_of(c)),)
    return decoder(
        c,
        [
            Layer(
                (cross(hidden, heads, kv_heads, head_dim) if layer in at else softmax(hidden, heads, kv_heads, head_dim),), mlp
            )
            for layer in range(layers)
        ],
    )


@family("laguna")
def laguna(c: Config) -> Decoder:
    """Heads may differ by layer; attention has an output gate of one column a head, or of all of them."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    _, kv_heads, head_dim = head_sizes(c)
    heads = (
        c.each_layer("num_attention_heads_per_layer", layers, Config.size)
        if c.has("num_attention_heads_per_layer")
        else [c.size("num_attention_heads")] * layers
    )
    gating = c.get("gating", True)
    kinds = listed_kinds(c, layers, "full", "windowed") or ["full"] * layers
    see = windows(c, layers, kinds)
    which = expert_layers if c.given("mlp_layer_types") else all_but_first
    mlps = moe_mlps(c, layers, which=which, shared=width_shared)
    per_head = gating is True or gating == "per-head"
    if not per_head and gating not in (False, "per-element"):
        raise c.refuse(f"gating = {gating!r:.60}; known are true, false, 'per-head' and 'per-element'")
    mixers = []
    for own, window in zip(heads, see, strict=True):
        if own % kv_heads:
            raise c.refuse(f"num_attention_heads_per_layer has {own}, which is no multiple of {kv_heads} KV heads")
        mixers.append(softmax(hidden, own, kv_heads, head_dim, window=window, gate=own if per_head else own * head_dim))
    return decoder(c, zipped(mixers, mlps))
