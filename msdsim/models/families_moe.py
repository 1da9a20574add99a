"""Families with mixtures of experts and attention over a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from msdsim.models.attention import head_sizes, softmax
from msdsim.models.config import Config
from msdsim.models.experts_of import (
    all_but_first,
    all_layers,
    moe,
    moe_mlps,
    plain_width,
    shared_size,
    softmax_mixers,
    width_shared,
    zipped,
)
from msdsim.models.family import decoder, family
from msdsim.models.mlp import (
    check_experts,
    dense,
    expert_layers,
    expert_numbers,
    mixture,
    stepped_layers,
)
from msdsim.models.parts import Decoder, Layer, Mixer, Mlp, ModuleColumns, RoutedExperts, linear
from msdsim.models.patterns import (
    listed_kinds,
    no_windows,
    window_size,
    windows,
)


@family("minimax_m2")
def minimax_m2(c: Config) -> Decoder:
    """Softmax attention in all layers, which ``attn_type_list`` may say as well."""
    kinds = c.items("attn_type_list", c.size("num_hidden_layers"))
    if kinds is not None and set(kinds) != {1}:
        raise c.refuse("attn_type_list has other kinds than 1 (softmax attention), which this family is not known to have")
    return moe(c, which=all_layers, width=plain_width, shared=shared_size)


@family("flint")
def flint(c: Config) -> Decoder:
    """Full attention in the first two layers, every fourth and the last; the first two have plain MLPs."""

    def see(c: Config, layers: int) -> list[int | None]:
        listed = listed_kinds(c, layers, "full", "windowed")
        return windows(
            c,
            layers,
            listed or ["full" if layer < 2 or layer % 4 == 1 or layer == layers - 1 else "windowed" for layer in range(layers)],
        )

    def which(c: Config, layers: int) -> list[bool]:
        plain = c.layer_indices("mlp_only_layers", layers)
        flags = stepped_layers(c, layers)
        return [flag and layer > 1 for layer, flag in enumerate(flags)] if plain is None else flags

    return moe(c, which=which, shared=width_shared, see=see)


@family("aria_text")
def aria(c: Config) -> Decoder:
    """Experts as wide as ``intermediate_size``, and so many shared ones of the same width."""
    return moe(
        c, which=all_layers, width=plain_width, shared=lambda c: c.count("n_shared_experts") * c.size("intermediate_size")
    )


@family("hunyuan_v1_moe", "hunyuan")
def hunyuan_moe(c: Config) -> Decoder:
    """Numbers of experts, their width and how many are shared may be lists of one for each layer."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    counts = c.each_layer("num_experts", layers, Config.size)
    chosen = c.each_layer("num_experts_per_tok", layers, Config.count)
    widths = c.each_layer("moe_intermediate_size", layers, Config.optional_size)
    shared = c.each_layer("n_shared_experts", layers, Config.count) if c.has("n_shared_experts") else [1] * layers
    if c.size("num_experts", 1) == 1 if not isinstance(c.get("num_experts"), list) else False:
        raise c.refuse("num_experts = 1: whether layers have one expert or a plain MLP is not certain; give the right number")
    inner = c.size("intermediate_size")
    c.skip("moe_layer_num_skipped")
    skipped = c.count("moe_layer_num_skipped")
    mixers = softmax_mixers(c, layers, no_windows)
    c.skip(
        "use_cla",
        "cla_share_factor",
        "class_num",
        "pool_type",
        "dense_list",
        "org_vocab_size",
        "num_media_embeds",
        "anyres_pooling_size",
        "use_mixed_mlp_moe",
    )
    if c.get("use_mla") or c.get("mixture") or c.get("add_classification_head"):
        raise c.refuse("use_mla, mixture or add_classification_head is true: its matrices are not certain for this family")
    if c.values.get("use_cla"):
        raise c.refuse("use_cla = true: layers share keys and values in a way that is not understood here")
    mlps = []
    for layer in range(layers):
        if counts[layer] == 1 or layer < skipped:
            mlps.append(dense(hidden, inner, prefix="dense_"))
            continue
        check_experts(c, counts[layer], chosen[layer])
        width = widths[layer] or inner
        mlps.append(mixture(hidden, counts[layer], chosen[layer], width, shared=shared[layer] * width))
    return decoder(c, zipped(mixers, mlps))


@family("ernie4_5_moe", "ernie4_5_vl_moe_text")
def ernie_moe(c: Config) -> Decoder:
    """Mixtures from one layer to another, every so many; experts of the multi-modal form for images are no part of a step."""
    layers = c.size("num_hidden_layers")

    def which(c: Config, layers: int) -> list[bool]:
        start, end, step = (
            c.count("moe_layer_start_index", 1),
            c.get("moe_layer_end_index", -1),
            c.size("moe_layer_interval", 1),
        )
        end = layers - 1 if end == -1 else c.count("moe_layer_end_index")
        if c.given("mlp_layer_types"):
            return expert_layers(c, layers)
        return [(layer + 1) % step == 0 and start <= layer <= end for layer in range(layers)]

    def text_number(name: str) -> Callable[[Config], int]:
        def read(c: Config) -> int:
            value = c.get(name)
            return (
                Config({name: value[0]}, c.source, c.family).size(name) if isinstance(value, list) and value else c.size(name)
            )

        return read

    if c.get("moe_gate", "topk") not in ("topk", "top2_fused"):
        raise c.refuse(f"moe_gate = {c.get('moe_gate')!r:.60}; known are 'topk' and 'top2_fused'")
    width = text_number("moe_intermediate_size")
    return moe(c, which=which, width=width, shared=lambda c: c.count("n_shared_experts") * width(c)) if layers else moe(c)


@family("dbrx")
def dbrx(c: Config) -> Decoder:
    """Sizes of attention and experts stand in tables of their own."""
    attention, ffn = c.part("attn_config"), c.part("ffn_config")
    hidden, heads, layers = c.size("hidden_size"), c.size("num_attention_heads"), c.size("num_hidden_layers")
    kv_heads = attention.size("kv_n_heads", 1)
    count, chosen = ffn.size("num_experts", 4), ffn.size("num_experts_per_tok", 1)
    if chosen > count:
        raise c.refuse(f"ffn_config: {chosen} experts a token are more than the {count} there are")
    inner = ffn.size("intermediate_size", 3584)
    for part in (attention, ffn):
        part.skip("model_type", "attn_pdrop", "clip_qkv", "ffn_act_fn", "hidden_size")
    if hidden % heads or heads % kv_heads:
        raise c.refuse(f"d_model = {hidden}, {heads} heads and {kv_heads} KV heads do not divide")
    layer = Layer((softmax(hidden, heads, kv_heads, hidden // heads),), (mixture(hidden, count, chosen, inner),))
    return decoder(c, [layer] * layers, prefix="transformer.blocks.{}.")


@family("llama4_text")
def llama4(c: Config) -> Decoder:
    """Dense and mixture layers in turn, a shared expert in every mixture, and attention by chunks but in every fourth layer."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    step = c.count("interleave_moe_layer_step", 1)
    at = c.layer_indices("moe_layers", layers)
    at = (set(range(step - 1, layers, step)) if step else set()) if at is None else at
    inner = c.size("intermediate_size")
    c.skip("num_local_experts", "num_experts_per_tok")
    mixed = None
    if at:
        count, chosen = expert_numbers(c)
        mixed = mixture(hidden, count, chosen, inner, shared=inner, module="feed_forward.", router="router")
    # Without a dense layer nobody asks for its width.
    plain = dense(hidden, c.size("intermediate_size_mlp"), prefix="dense_", module="feed_forward.")
    kinds = listed_kinds(c, layers, "full", "chunked")
    if kinds is None:
        interval = c.size("no_rope_layer_interval", 4)
        rotary = c.items("no_rope_layers") or [(layer + 1) % interval != 0 for layer in range(layers)]
        if len(rotary) != layers:
            raise c.refuse(f"no_rope_layers has {len(rotary)} items for {layers} layers")
        kinds = ["chunked" if has else "full" for has in rotary]
    chunk = c.optional_size("attention_chunk_size")
    return decoder(
        c,
        [
            Layer(
                (softmax(hidden, heads, kv_heads, head_dim, window=chunk if kind == "chunked" else None, chunked=True),),
                (mixed if mixed and layer in at else plain,),
            )
            for layer, kind in enumerate(kinds)
        ],
    )


@family("cohere2_moe")
def cohere2_moe(c: Config) -> Decoder:
    """The first dense layers have a width and a pattern of windows of their own."""
    layers = c.size("num_hidden_layers")
    first = c.count("first_k_dense_replace")

    def see(c: Config, layers: int) -> list[int | None]:
        listed = listed_kinds(c, layers, "full", "windowed")
        before, after = c.size("prefix_dense_sliding_window_pattern", 1), c.size("sliding_window_pattern", 4)
        kinds = ["full" if (layer + 1) % before == 0 else "windowed" for layer in range(min(first, layers))]
        kinds += ["full" if (layer + 1) % after == 0 else "windowed" for layer in range(layers - first)]
        return windows(c, layers, listed or kinds)

    def inner(c: Config) -> int:
        return c.optional_size("prefix_dense_intermediate_size") or c.size("intermediate_size")

    c.skip("prefix_dense_intermediate_size")
    return (
        moe(
            c,
            see=see,
            width=plain_width,
            dense_inner=inner,
            shared=lambda c: c.count("n_shared_experts") * c.size("intermediate_size"),
        )
        if layers
        else moe(c)
    )


@family("mimo_v2_flash")
def mimo_v2(c: Config) -> Decoder:
    """Windowed layers have KV heads and channels of their own."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    v_dim = c.size("v_head_dim", head_dim)
    listed = listed_kinds(c, layers, "full", "windowed")
    if listed is None:
        given = c.items("hybrid_layer_pattern", layers)
        listed = (
            ["windowed" if flag else "full" for flag in given]
            if given
            else ["full" if layer == 0 or (layer + 1) % 6 == 0 else "windowed" for layer in range(layers)]
        )
    window = window_size(c)
    c.skip("attention_chunk_size", "hybrid_layer_pattern", "hybrid_block_size", "qk_nope_head_dim", "qk_rope_head_dim")
    windowed = softmax(
        hidden,
        c.size("swa_num_attention_heads", heads),
        c.size("swa_num_key_value_heads", 2 * kv_heads),
        c.size("swa_head_dim", head_dim),
        v_dim=c.size("swa_v_head_dim", v_dim),
        window=window,
    )
    full = softmax(hidden, heads, kv_heads, head_dim, v_dim=v_dim)
    which = expert_layers if c.given("moe_layer_freq") or c.given("mlp_layer_types") else all_but_first
    return decoder(c, zipped([windowed if kind == "windowed" else full for kind in listed], moe_mlps(c, layers, which=which)))


@family("jetmoe")
def jetmoe(c: Config) -> Decoder:
    """Attention is a mixture too: each token has its query and output matrices chosen, keys and values are common."""
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    kv_heads, head_dim = c.size("num_key_value_heads"), c.size("head_dim")
    count, chosen = expert_numbers(c)
    inner = c.size("intermediate_size")
    width = kv_heads * head_dim
    c.skip("num_attention_heads")
    attention = softmax(hidden, chosen * kv_heads, kv_heads, head_dim)
    common = Mixer(
        "full", (linear("kv_proj", hidden, 2 * width, "self_attention.kv_proj", units=kv_heads),), (), attention.attention
    )
    routed = Mlp(
        (linear("attention_router", hidden, count, "self_attention.experts.router"),),
        RoutedExperts(
            count,
            chosen,
            (
                linear("attention_expert_q_proj", hidden, width, units=kv_heads),
                linear("attention_expert_o_proj", width, hidden, k_units=kv_heads),
            ),
        ),
    )
    return decoder(
        c,
        [Layer((common,), (routed, mixture(hidden, count, chosen, inner)))] * layers,
        notes=("the mixture of attention stands after the attention that it surrounds",),
    )


@family("step3p5")
def step(c: Config) -> Decoder:
    """A gate of one column a head; windowed layers may have query heads of their own."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    kinds = listed_kinds(c, layers, "full", "windowed") or ["full"] * layers
    see = windows(c, layers, kinds)
    other = c.part("attention_other_setting")
    windowed_heads = other.size("num_attention_heads", c.size("num_sliding_attention_heads", heads))
    windowed_kv = other.size("num_key_value_heads", kv_heads)
    other.skip("attention_type", "head_dim", "true_head_dim")
    mixers = [
        softmax(hidden, windowed_heads, windowed_kv, head_dim, window=window, gate=windowed_heads)
        if window
        else softmax(hidden, heads, kv_heads, head_dim, gate=heads)
        for window in see
    ]

    def which(c: Config, layers: int) -> list[bool]:
        listed = c.get("moe_layers_enum")
        if isinstance(listed, str) and not c.given("mlp_layer_types"):
            numbers = [int(item) for item in listed.split(",") if item.strip().isdigit()]
            return [layer in numbers for layer in range(layers)]
        if c.given("mlp_layer_types") or c.given("first_k_dense_replace"):
            return expert_layers(c, layers)
        return [layer >= 3 for layer in range(layers)]

    c.skip("n_shared_experts", "moe_every_n_layer", "use_head_wise_attn_gate", "att_impl_type", "layer_types")
    return decoder(c, zipped(mixers, moe_mlps(c, layers, which=which, shared=lambda c: c.count("share_expert_dim"))))


@family("minimax_m3_vl_text", "minimax_m3", "minimax_m3_text")
def minimax_m3(c: Config) -> Decoder:
    """Layers with a sparse index have one query head of it for each KV head, and one key of it."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    sparse = c.part("sparse_attention_config")
    kinds = listed_kinds(c, layers, "full", "indexed")
    if kinds is None:
        flags = sparse.items("sparse_attention_freq", layers)
        kinds = ["indexed" if flag else "full" for flag in flags] if flags else ["full"] * layers
    index_heads = sparse.size("sparse_num_index_heads", c.size("index_n_heads", 4))
    index_dim = sparse.size("sparse_index_dim", c.size("index_head_dim", 128))
    block = sparse.size("sparse_block_size", c.size("index_block_size", 128))
    kept = sparse.size("sparse_topk_blocks", c.size("index_topk_blocks", 16))
    sparse.skip(
        "sparse_disable_index_value",
        "sparse_init_block",
        "sparse_local_block",
        "sparse_score_type",
        "use_sparse_attention",
        "sparse_attention_freq",
    )
    c.skip(
        "index_n_heads",
        "index_head_dim",
        "index_block_size",
        "index_topk_blocks",
        "dense_intermediate_size",
        "index_local_blocks",
        "attention_output_gate",
        "moe_intermediate_size",
    )
    if c.values.get("attention_output_gate"):
        raise c.refuse("attention_output_gate = true is not known for this family; the gate's matrix is not certain")
    index = (
        ModuleColumns("self_attn.indexer.q_proj", index_heads * index_dim, index_heads),
        ModuleColumns("self_attn.indexer.k_proj", index_dim),
    )
    full = softmax(hidden, heads, kv_heads, head_dim)
    indexed = softmax(hidden, heads, kv_heads, head_dim, more=index)
    assert indexed.attention is not None
    indexed = replace(
        indexed,
        attention=replace(indexed.attention, reads=block * kept),
        extra_cache_values=index_dim,
        not_simulated=(
            f"the scores and the choice of the sparse index ({index_heads} heads of {index_dim} "
            f"channels: reads {index_dim} cached values a token)",
        ),
    )
    which = (
        expert_layers
        if c.given("moe_layer_freq") or c.given("mlp_layer_types") or c.given("first_k_dense_replace")
        else all_layers
    )
    mlps = moe_mlps(
        c, layers, which=which, width=plain_width, dense_inner=lambda c: c.size("dense_intermediate_size"), shared=shared_size
    )
    c.skip("n_shared_experts")
    return decoder(c, zipped([indexed if kind == "indexed" else full for kind in kinds], mlps))
