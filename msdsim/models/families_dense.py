"""Families with one MLP in every layer."""

from __future__ import annotations

from collections.abc import Callable

from msdsim.models.attention import head_sizes, latent, latent_sizes, query_rank, softmax
from msdsim.models.config import Config
from msdsim.models.family import decoder, family
from msdsim.models.mlp import dense, is_gated
from msdsim.models.parts import Decoder, Layer, Linear, ModuleColumns, linear, padded
from msdsim.models.patterns import all_windowed, every, listed_kinds, no_windows, patterned, qwen_windows, window_size, windows

Windows = Callable[[Config, int], list[int | None]]


def inner_of(c: Config) -> int:
    """Width of the MLP; four times the hidden size where a family has that rule and no width is given."""
    return c.size("intermediate_size")


def four_times(c: Config) -> int:
    """Width of the MLP, or four times the hidden size."""
    return c.optional_size("intermediate_size") or 4 * c.size("hidden_size")


def plain(
    c: Config,
    *,
    gated: bool = True,
    see: Windows = no_windows,
    inner: Callable[[Config], int] = inner_of,
    kv_default: int | None = None,
    gate: str = "",
    notes: tuple[str, ...] = (),
) -> Decoder:
    """Grouped-query attention and one MLP in every layer.

    ``see`` gives the window of each layer, ``gate`` says what output gate attention has: "" none, "full" as wide as the heads
    together, "head" one column for each head.
    """
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    heads, kv_heads, head_dim = head_sizes(c, kv_default)
    columns = {"": 0, "full": heads * head_dim, "head": heads}[gate]
    mlp = dense(hidden, inner(c), gated=is_gated(c, gated))
    return decoder(
        c,
        [
            Layer((softmax(hidden, heads, kv_heads, head_dim, window=window, gate=columns),), (mlp,))
            for window in see(c, layers)
        ],
        notes=notes,
    )


#: Attention over all tokens and a gated MLP.
family(
    "llama",
    "exaone",
    "internlm",
    "internlm2",
    "internlm3",
    "iquestcoder",
    "Yi",
    "baichuan",
    "aquila",
    "orion",
    "xverse",
    "cohere",
    "olmo",
    "olmo2",
    "hyperclovax",
    "granite",
    "gemma",
    "glm",
    "glm4",
    "seed_oss",
    "stablelm",
    "bitnet",
    "ernie4_5",
    "hunyuan_v1_dense",
    "glm4v_text",
    "glm_ocr_text",
    "paddleocr_vl_text",
    "hunyuan_vl_text",
    "telechat",
    "telechat3",
    "skywork",
    "granite_docling_text",
    "granite4_vision_text",
    "PanguEmbedded",
)(plain)
family("ministral3", "mistral", "ministral", "phi3", "phi4_multimodal", "voxtral_realtime_text", see=all_windowed)(plain)
family("qwen2", "qwen3", "mimo", "qwen2_5_omni_text", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", see=qwen_windows)(
    plain
)
family("gemma2", "vaultgemma", see=patterned(2))(plain)
family("gemma3_text", see=patterned(6))(plain)
family("olmo3", see=patterned(4))(plain)
family("exaone4", see=patterned(4))(plain)
family("cwm", see=patterned(4, full_at=0))(plain)
family("granite_swa", see=patterned(4, full_at=0))(plain)
#: MLPs of two matrices.
family("apertus", "apertus1p5_text", "arcee", "jais2", "nanochat", "nemotron", "gpt_neox", "persimmon", gated=False)(plain)
family("phi", "biogpt", "xglm", gated=False, inner=four_times)(plain)
family("starcoder2", gated=False, see=all_windowed)(plain)
family("codegen", "gptj", "gpt2", "gpt-sw3", "openai-gpt", "ctrl", "bloom", gated=False, inner=four_times)(plain)


@family("cohere2")
def cohere2(c: Config) -> Decoder:
    """Three layers with a window, then one without."""
    for key, usual in (("order_of_interleaved_layers", "local_attn_first"), ("use_gated_activation", True)):
        if c.get(key, usual) != usual:
            raise c.refuse(f"{key} = {c.get(key)!r:.60}; known is {usual!r}")
    c.skip("use_embedding_sharing", "use_parallel_block", "use_parallel_embedding")
    return plain(c, see=patterned(4))


@family("minicpm")
def minicpm(c: Config) -> Decoder:
    """Sparse attention, which has no weights of its own, is simulated as full."""
    sparse = c.get("sparse_config")
    notes = ("attention chosen by blocks (sparse_config) is simulated over all tokens",) if sparse else ()
    return plain(c, notes=notes)


@family("helium")
def helium(c: Config) -> Decoder:
    """The output projection is square, so that the heads together are as wide as the model."""
    heads, _, head_dim = head_sizes(c)
    if heads * head_dim != c.size("hidden_size"):
        raise c.refuse(f"{heads} heads of {head_dim} are not hidden_size = {c.size('hidden_size')}, as this family has it")
    return plain(c)


@family("smollm3")
def smollm(c: Config) -> Decoder:
    """Windows, where they are asked for, in the layers without rotary embedding."""

    def see(c: Config, layers: int) -> list[int | None]:
        listed = listed_kinds(c, layers, "full", "windowed")
        if not c.flag("use_sliding_window"):
            c.skip("sliding_window")
        if listed:
            return windows(c, layers, listed)
        if not c.flag("use_sliding_window"):
            return [None] * layers
        interval = c.size("no_rope_layer_interval", 4)
        rotary = c.items("no_rope_layers", layers) or [(layer + 1) % interval != 0 for layer in range(layers)]
        return [None if has else window_size(c) for has in rotary]

    return plain(c, see=see)


@family("gpt_bigcode")
def gpt_bigcode(c: Config) -> Decoder:
    """One KV head for all queries, unless ``multi_query`` is false."""
    return plain(c, gated=False, inner=four_times, kv_default=1 if c.flag("multi_query", True) else None)


@family("gpt_neo")
def gpt_neo(c: Config) -> Decoder:
    """Global and local layers in turn, by ``attention_types``."""

    def see(c: Config, layers: int) -> list[int | None]:
        c.skip("attention_layers")
        groups = c.items("attention_types") or [[["global", "local"], layers // 2]]
        kinds: list[str] = []
        for group in groups:
            if not isinstance(group, list | tuple) or len(group) != 2 or not isinstance(group[1], int) or group[1] > layers:
                raise c.refuse(f"attention_types = {groups!r:.80} is no list of [[kinds], times]")
            kinds += list(group[0]) * group[1]
        if len(kinds) != layers or set(kinds) - {"global", "local"}:
            raise c.refuse(f"attention_types gives {len(kinds)} kinds of global and local for {layers} layers")
        return [window_size(c) if kind == "local" else None for kind in kinds]

    return plain(c, gated=False, inner=four_times, see=see)


@family("gpt_neox_japanese")
def gpt_neox_japanese(c: Config) -> Decoder:
    return plain(c, gated=False, inner=lambda c: c.size("intermediate_multiple_size", 4) * c.size("hidden_size"))


@family("falcon", "RefinedWeb", "RefinedWebModel")
def falcon(c: Config) -> Decoder:
    """One KV head with ``multi_query``, ``num_kv_heads`` of them in the new architecture, else as many as queries."""
    heads = c.size("num_attention_heads")
    given = c.get("num_key_value_heads")
    if not c.flag("new_decoder_architecture"):
        given = 1 if c.flag("multi_query", True) else heads
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    c.flag("multi_query", True)
    kv_heads = heads if given is None else c.size("num_key_value_heads") if c.flag("new_decoder_architecture") else given
    if hidden % heads or heads % kv_heads:
        raise c.refuse(f"hidden_size = {hidden}, {heads} heads and {kv_heads} KV heads do not divide")
    layer = Layer((softmax(hidden, heads, kv_heads, hidden // heads),), (dense(hidden, four_times(c), gated=False),))
    return decoder(c, [layer] * layers, prefix="transformer.h.{}.")


@family("mpt")
def mpt(c: Config) -> Decoder:
    """MLPs of ``expansion_ratio``; KV heads, where there are fewer, in ``attn_config``."""
    attention = c.part("attn_config")
    heads = c.size("num_attention_heads")
    kv_heads = attention.optional_size("kv_n_heads") or (1 if attention.get("attn_type") == "multiquery_attention" else heads)
    c.skip("embedding_fraction")
    attention.skip(
        "attn_type",
        "attn_pdrop",
        "attn_impl",
        "qk_ln",
        "clip_qkv",
        "softmax_scale",
        "prefix_lm",
        "attn_uses_sequence_id",
        "alibi",
        "alibi_bias_max",
        "model_type",
    )
    ffn = c.part("ffn_config")
    if ffn.values.get("ffn_type") not in (None, "mptmlp"):
        raise c.refuse(f"ffn_config.ffn_type = {ffn.values['ffn_type']!r:.60}; known is mptmlp")
    ffn.skip("ffn_type")
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    if hidden % heads or heads % kv_heads:
        raise c.refuse(f"d_model = {hidden}, {heads} heads and {kv_heads} KV heads do not divide")
    inner = int(c.number("expansion_ratio", 4) * hidden)
    layer = Layer((softmax(hidden, heads, kv_heads, hidden // heads),), (dense(hidden, inner, gated=False),))
    return decoder(c, [layer] * layers, prefix="transformer.blocks.{}.")


@family("opt")
def opt(c: Config) -> Decoder:
    """Embeddings may be narrower than the model, with a projection at either end."""
    found = plain(c, gated=False)
    width = c.size("word_embed_proj_dim", c.size("hidden_size"))
    if width == found.hidden:
        return found
    once = (
        linear("embed_in_proj", width, found.hidden, "model.decoder.project_in"),
        linear("embed_out_proj", found.hidden, width, "model.decoder.project_out"),
    )
    head = linear("lm_head", width, c.size("vocab_size"))
    return Decoder(found.family, found.hidden, found.layers, head, once, 0, found.prefix, found.notes)


@family("cpmant")
def cpmant(c: Config) -> Decoder:
    """The vocabulary of the head is without the prompts."""
    return plain(c)


@family("qwen")
def qwen_first(c: Config) -> Decoder:
    """``intermediate_size`` counts both inputs of the gated MLP."""
    return plain(c, inner=lambda c: _half(c, c.size("intermediate_size")))


def _half(c: Config, value: int) -> int:
    if value % 2:
        raise c.refuse(f"intermediate_size = {value} is odd; it counts both inputs of a gated MLP")
    return value // 2


@family("chatglm")
def chatglm(c: Config) -> Decoder:
    """``multi_query_group_num`` KV heads; the vocabulary is the padded one."""
    groups = c.size("multi_query_group_num", 1) if c.flag("multi_query_attention") else None
    c.skip("multi_query_group_num", "vocab_size")
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    heads, kv_heads, head_dim = head_sizes(c, groups)
    layer = Layer((softmax(hidden, heads, kv_heads, head_dim),), (dense(hidden, inner_of(c)),))
    return decoder(
        c,
        [layer] * layers,
        vocab=c.optional_size("padded_vocab_size") or c.size("vocab_size"),
        prefix="transformer.encoder.layers.{}.",
    )


@family("youtu", "youtu_llm", "minicpm3")
def latent_dense(c: Config) -> Decoder:
    """Latent attention and one MLP in every layer."""
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    c.skip("qk_head_dim", "head_dim", "num_key_value_heads")
    heads = c.size("num_attention_heads")
    value = c.optional_size("v_head_dim")
    if value is None and hidden % heads:
        raise c.refuse(f"hidden_size = {hidden} is no multiple of {heads} heads, and v_head_dim is missing; give v_head_dim")
    mixer = latent(hidden, heads, latent_sizes(c, hidden // heads), query_rank(c))
    return decoder(c, [Layer((mixer,), (dense(hidden, inner_of(c), gated=is_gated(c)),))] * layers)


@family("nemotron-nas")
def nemotron_nas(c: Config) -> Decoder:
    """Every layer has its own KV heads and MLP width, or leaves attention or MLP out (``block_configs``)."""
    hidden, layers, heads = c.size("hidden_size"), c.size("num_hidden_layers"), c.size("num_attention_heads")
    _, _, head_dim = head_sizes(c)
    found = []
    for number, block in enumerate(c.items("block_configs", layers) or []):
        if not isinstance(block, dict):
            raise c.refuse(f"block_configs[{number}] is not a table")
        block_config = Config(block, c.source, c.family, inside=f"block_configs[{number}].")
        attention, ffn = block_config.part("attention"), block_config.part("ffn")
        mixers, mlps, beside = [], [], []
        if attention.flag("replace_with_linear"):
            beside.append(linear("attention_as_linear", hidden, hidden, "self_attn.linear_attn"))
        elif not attention.flag("no_op"):
            group = attention.size("n_heads_in_group")
            if heads % group:
                raise c.refuse(f"block_configs[{number}]: {heads} heads are no multiple of n_heads_in_group = {group}")
            mixers.append(softmax(hidden, heads, heads // group, head_dim))
        if ffn.flag("replace_with_linear"):
            beside.append(linear("mlp_as_linear", hidden, hidden, "mlp.linear_mlp"))
        elif not ffn.flag("no_op"):
            inner = ffn.optional_size("intermediate_size") or padded(int(2 * ffn.number("ffn_mult") * hidden / 3), 256)
            mlps.append(dense(hidden, inner))
        found.append(Layer(tuple(mixers), tuple(mlps), tuple(beside)))
    if not found:
        raise c.refuse("has no block_configs, which family 'nemotron-nas' needs: they say what each layer is")
    c.skip("num_key_value_heads", "intermediate_size")
    return decoder(c, found)


@family("modernbert-decoder")
def modernbert_decoder(c: Config) -> Decoder:
    """Windows of half ``local_attention`` but in every third layer; a square matrix before the head."""
    local = c.size("local_attention", 128)
    if local < 2:
        raise c.refuse(f"local_attention = {local} is below 2; windows are half of it")
    c.skip("sliding_window")

    def see(c: Config, layers: int) -> list[int | None]:
        kinds = listed_kinds(c, layers, "full", "windowed") or every(layers, c.size("global_attn_every_n_layers", 3), full_at=0)
        return [local // 2 if kind == "windowed" else None for kind in kinds]

    found = plain(c, see=see)
    head_first = (linear("head_dense", found.hidden, found.hidden, "lm_head.dense"),)
    return Decoder(found.family, found.hidden, found.layers, found.head, head_first, 0, found.prefix, found.notes)


@family("gemma3n_text")
def gemma3n(c: Config) -> Decoder:
    """Windows, layers that share an earlier cache, low-rank side paths and per-layer embeddings."""
    hidden, layers = c.size("hidden_size"), c.size("num_hidden_layers")
    heads, kv_heads, head_dim = head_sizes(c)
    shared, streams = c.count("num_kv_shared_layers"), c.size("altup_num_inputs")
    rank, extra = c.size("laurel_rank"), c.size("hidden_size_per_layer_input")
    widths = c.each_layer("intermediate_size", layers, Config.size)
    if shared >= layers:
        raise c.refuse(f"num_kv_shared_layers = {shared} of {layers} layers: none would have a cache of its own")
    see = patterned(5)(c, layers)
    c.skip(
        "vocab_size_per_layer_input",
        "activation_sparsity_pattern",
        "altup_active_idx",
        "altup_coef_clip",
        "altup_correct_scale",
        "altup_lr_multiplier",
    )
    beside = (
        linear("laurel_left", hidden, rank, "laurel.linear_left"),
        linear("laurel_right", rank, hidden, "laurel.linear_right"),
        linear("per_layer_gate", hidden, extra, "per_layer_input_gate"),
        linear("per_layer_projection", extra, hidden),
        linear("altup_router", hidden, streams, "altup.modality_router"),
    )
    found = [
        Layer(
            (softmax(hidden, heads, kv_heads, head_dim, window=window, owns_cache=layer < layers - shared),),
            (dense(hidden, widths[layer]),),
            beside,
        )
        for layer, window in enumerate(see)
    ]
    once = (
        linear("per_layer_model_projection", hidden, layers * extra, "model.per_layer_model_projection"),
        Linear("altup_projections", hidden, (ModuleColumns("model.altup_projections", hidden),), repeats=2 * (streams - 1)),
    )
    return decoder(c, found, once=once, notes=("per-layer embeddings and the mixing of the parallel streams are no matrices",))
