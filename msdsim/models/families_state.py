"""Families with Mamba or short convolutions, beside attention or alone."""

from __future__ import annotations

from msdsim.models.attention import head_sizes, softmax
from msdsim.models.config import Config
from msdsim.models.experts_of import moe_mlps, no_shared, zipped
from msdsim.models.families_dense import inner_of
from msdsim.models.family import decoder, family
from msdsim.models.mlp import check_experts, dense, expert_numbers, mixture
from msdsim.models.parts import Decoder, Layer, Mixer, Mlp, linear, padded
from msdsim.models.patterns import listed_kinds, window_size, windows
from msdsim.models.recurrent import (
    mamba1,
    mamba2,
    short_convolution,
)


def _mamba2_of(c: Config, hidden: int, module: str) -> Mixer:
    """Mamba-2 by the ``mamba_*`` keys."""
    inner = c.optional_size("mamba_d_ssm") or int(c.number("mamba_expand", 2) * hidden)
    heads = c.size("mamba_n_heads")
    head_dim = c.get("mamba_d_head")
    if head_dim in (None, "auto"):
        if inner % heads:
            raise c.refuse(f"mamba_n_heads = {heads} does not divide the {inner} channels of the Mamba layers")
        head_dim = inner // heads
    else:
        head_dim = c.size("mamba_d_head")
    if heads * head_dim != inner:
        raise c.refuse(f"mamba_n_heads = {heads} x mamba_d_head = {head_dim} is not the {inner} channels of the Mamba layers")
    return mamba2(
        hidden, heads, head_dim, c.size("mamba_n_groups", 1), c.size("mamba_d_state"), c.size("mamba_d_conv", 4), module
    )


@family("bamba")
def bamba(c: Config) -> Decoder:
    """Mamba-2 but in the layers of ``attn_layer_indices``."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    at = c.layer_indices("attn_layer_indices", layers) or set()
    c.skip("layer_types", "layers_block_type")
    mamba, full = _mamba2_of(c, hidden, "mamba."), softmax(hidden, heads, kv_heads, head_dim)
    mlp = dense(hidden, inner_of(c), module="feed_forward.")
    return decoder(c, [Layer((full if layer in at else mamba,), (mlp,)) for layer in range(layers)])


@family("falcon_h1")
def falcon_h1(c: Config) -> Decoder:
    """Attention and Mamba-2 side by side in every layer."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    c.skip("attn_layer_indices", "layers_block_type", "mamba_use_mlp", "mamba_expand")
    mlp = dense(hidden, inner_of(c), module="feed_forward.")
    return decoder(c, [Layer((softmax(hidden, heads, kv_heads, head_dim), _mamba2_of(c, hidden, "mamba.")), (mlp,))] * layers)


@family("granitemoehybrid")
def granite_hybrid(c: Config) -> Decoder:
    """Mamba-2 and attention by ``layer_types``; a mixture where there are experts, and a shared MLP in every layer."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    kinds = (
        listed_kinds(
            c, layers, "full", "linear", "mamba", key="layers_block_type" if c.given("layers_block_type") else "layer_types"
        )
        or ["mamba"] * layers
    )
    mamba, full = _mamba2_of(c, hidden, "mamba."), softmax(hidden, heads, kv_heads, head_dim)
    shared = dense(hidden, c.size("shared_intermediate_size"), prefix="shared_", module="shared_mlp.")
    mlps: tuple[Mlp, ...] = (shared,)
    if c.count("num_experts"):
        count, chosen = expert_numbers(c)
        mlps = (mixture(hidden, count, chosen, c.size("intermediate_size"), module="block_sparse_moe."), shared)
    c.skip("intermediate_size", "num_experts_per_tok")
    return decoder(c, [Layer((full if kind == "full" else mamba,), mlps) for kind in kinds])


@family("jamba")
def jamba(c: Config) -> Decoder:
    """Mamba, attention every ``attn_layer_period`` and a mixture every ``expert_layer_period`` layers."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    inner = int(c.number("mamba_expand", 2) * hidden)
    rank = c.get("mamba_dt_rank")
    mamba = mamba1(
        hidden,
        inner,
        c.size("mamba_d_state"),
        c.size("mamba_d_conv", 4),
        -(-hidden // 16) if rank in (None, "auto") else c.size("mamba_dt_rank"),
        "mamba.",
    )
    full = softmax(hidden, heads, kv_heads, head_dim)
    period, offset = c.size("attn_layer_period"), c.count("attn_layer_offset")
    expert_period, expert_offset = c.size("expert_layer_period"), c.count("expert_layer_offset")
    if offset >= period or expert_offset >= expert_period:
        raise c.refuse("attn_layer_offset and expert_layer_offset must be below their periods")
    count = c.size("num_experts")
    plain = dense(hidden, inner_of(c), prefix="dense_", module="feed_forward.")
    mixed = plain
    if count > 1:
        check_experts(c, count, c.count("num_experts_per_tok"))
        mixed = mixture(hidden, count, c.count("num_experts_per_tok"), inner_of(c), module="feed_forward.", router="router")
    c.skip("num_experts_per_tok", "sliding_window")
    for key in ("layers_block_type", "layer_types"):
        listed = listed_kinds(c, layers, "full", "mamba", key=key)
        if listed and [kind == "full" for kind in listed] != [layer % period == offset for layer in range(layers)]:
            raise c.refuse(f"{key} and attn_layer_period say different kinds for a layer; leave only the right one")
    return decoder(
        c,
        [
            Layer((full if layer % period == offset else mamba,), (mixed if layer % expert_period == expert_offset else plain,))
            for layer in range(layers)
        ],
    )


@family("nemotron_h")
def nemotron_h(c: Config) -> Decoder:
    """Every layer is one block: Mamba-2, attention, an MLP without gate, or a mixture of such, maybe in fewer channels."""
    hidden = c.size("hidden_size")
    kinds = _nemotron_kinds(c)
    found: dict[str, Layer] = {}
    if "mamba" in kinds:
        sizes = ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel")
        heads, head_dim, groups, state, kernel = map(c.size, sizes)
        found["mamba"] = Layer((mamba2(hidden, heads, head_dim, groups, state, kernel),), ())
    if "full" in kinds:
        heads, kv_heads, head_dim = head_sizes(c)
        found["full"] = Layer((softmax(hidden, heads, kv_heads, head_dim, window=window_size(c), module="mixer."),), ())
    if "mlp" in kinds:
        found["mlp"] = Layer((), (dense(hidden, inner_of(c), gated=False, prefix="dense_", module="mixer."),))
    if "moe" in kinds:
        count, chosen = expert_numbers(c)
        number = c.count("n_shared_experts")
        found["moe"] = Layer(
            (),
            (
                mixture(
                    hidden,
                    count,
                    chosen,
                    c.size("moe_intermediate_size"),
                    gated=False,
                    shared=c.size("moe_shared_expert_intermediate_size") * min(1, number),
                    shared_gated=False,
                    latent=c.optional_size("moe_latent_size"),
                    module="mixer.",
                ),
            ),
        )
    c.skip(
        "expand",
        "intermediate_size",
        "n_groups",
        "conv_kernel",
        "ssm_state_size",
        "mamba_num_heads",
        "mamba_head_dim",
        "moe_intermediate_size",
        "moe_latent_size",
        "moe_shared_expert_intermediate_size",
        "n_shared_experts",
        "n_routed_experts",
        "num_experts_per_tok",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "attention_head_dim",
        "sliding_window",
        "time_step_rank",
    )
    return decoder(c, [found[kind] for kind in kinds], prefix="backbone.layers.{}.")


def _nemotron_kinds(c: Config) -> list[str]:
    letters = {"M": "mamba", "*": "full", "-": "mlp", "E": "moe"}
    pattern, listed = c.get("hybrid_override_pattern"), c.get("layers_block_type") or c.get("layer_types")
    number = c.optional_size("num_hidden_layers") if c.given("num_hidden_layers") else None
    if pattern is not None and c.given("hybrid_override_pattern"):
        text = c.text("hybrid_override_pattern")
        wrong = next((letter for letter in text if letter not in letters), None)
        if wrong is not None or not text:
            raise c.refuse(f"hybrid_override_pattern has {wrong!r}; known are M (Mamba), * (attention), - (MLP), E (mixture)")
        kinds = [letters[letter] for letter in text]
    elif listed is not None:
        key = "layers_block_type" if c.given("layers_block_type") else "layer_types"
        named = listed_kinds(c, len(c.items(key) or []), "mamba", "linear", "full", "mlp", "moe", key=key) or []
        kinds = ["mamba" if kind == "linear" else kind for kind in named]
    else:
        raise c.refuse("has neither hybrid_override_pattern nor layers_block_type, which say what each layer is")
    if number is not None and number != len(kinds):
        raise c.refuse(f"num_hidden_layers = {number}, but the pattern has {len(kinds)} layers")
    return kinds


@family("mamba", "falcon_mamba")
def mamba_only(c: Config) -> Decoder:
    """Mamba in every layer, and nothing else."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    inner = c.optional_size("intermediate_size") or int(c.number("expand", 2) * hidden)
    rank = c.get("time_step_rank")
    block = mamba1(
        hidden,
        inner,
        c.size("state_size"),
        c.size("conv_kernel", 4),
        -(-hidden // 16) if rank in (None, "auto") else c.size("time_step_rank"),
    )
    c.skip("expand")
    return decoder(c, [Layer((block,), ())] * layers, prefix="backbone.layers.{}.")


@family("mamba2")
def mamba2_only(c: Config) -> Decoder:
    """Mamba-2 in every layer, and nothing else."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, head_dim, inner = c.size("num_heads"), c.size("head_dim"), int(c.number("expand", 2) * hidden)
    if heads * head_dim != inner:
        raise c.refuse(f"num_heads = {heads} x head_dim = {head_dim} is not expand x hidden_size = {inner}")
    c.skip("time_step_rank")
    block = mamba2(hidden, heads, head_dim, c.size("n_groups"), c.size("state_size"), c.size("conv_kernel", 4))
    return decoder(c, [Layer((block,), ())] * layers, prefix="backbone.layers.{}.")


@family("zamba2")
def zamba2(c: Config) -> Decoder:
    """Mamba-2 in every layer; some layers first pass an attention and MLP over twice the channels, whose weights are shared."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads = c.size("num_attention_heads")
    kinds = listed_kinds(
        c, layers, "mamba", "hybrid", "linear", key="layers_block_type" if c.given("layers_block_type") else "layer_types"
    )
    if kinds is None:
        at = c.layer_indices("hybrid_layer_ids", layers)
        if at is None:
            raise c.refuse("has no layers_block_type, which says where the shared attention stands")
        kinds = ["hybrid" if layer in at else "mamba" for layer in range(layers)]
    c.skip(
        "hybrid_layer_ids",
        "kv_channels",
        "attention_hidden_size",
        "attention_head_dim",
        "num_query_groups",
        "mamba_headdim",
        "num_key_value_heads",
        "use_long_context",
        "chunk_size",
        "adapter_rank",
    )
    if c.flag("use_shared_attention_adapter"):
        raise c.refuse("use_shared_attention_adapter = true: adapters of the shared attention are not understood here")
    blocks, rank = c.size("num_mem_blocks", 1), c.size("adapter_rank", 128)
    expand, m_heads = int(c.number("mamba_expand", 2) * hidden), c.size("n_mamba_heads")
    if expand % m_heads:
        raise c.refuse(f"n_mamba_heads = {m_heads} does not divide the {expand} channels of the Mamba layers")
    mamba = mamba2(
        hidden,
        m_heads,
        expand // m_heads,
        c.size("mamba_ngroups", 1),
        c.size("mamba_d_state"),
        c.size("mamba_d_conv", 4),
        "mamba.",
    )
    wide = 2 * hidden
    shared_mixer = softmax(wide, heads, heads, wide // heads, out_hidden=hidden)
    inner = c.optional_size("intermediate_size") or 4 * hidden
    own = Mlp((linear("adapter_down", hidden, rank, "adapter.0"), linear("adapter_up", rank, 2 * inner, "adapter.1")))
    uses = kinds.count("hybrid")
    shared_mlp = dense(hidden, inner)
    found = [
        Layer((shared_mixer, mamba), (shared_mlp, own), (linear("hybrid_linear", hidden, hidden),))
        if kind == "hybrid"
        else Layer((mamba,), ())
        for kind in kinds
    ]
    once = Layer((shared_mixer,), (shared_mlp,)).total
    return decoder(
        c,
        found,
        shared=max(0, uses - blocks) * once,
        notes=(f"{uses} layers pass one of {blocks} shared blocks of attention and MLP; weights count them once",),
    )


@family("lfm2", "lfm2_moe", "lfm3")
def lfm(c: Config) -> Decoder:
    """Short convolutions, and attention where ``layer_types`` or ``full_attn_idxs`` says so."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    kinds = listed_kinds(c, layers, "full", "convolution", "windowed")
    if kinds is None:
        at = c.layer_indices("full_attn_idxs", layers)
        if c.family == "lfm3":
            kinds = [
                "full" if layer % 4 == 2 else "windowed" if layer and layer % 4 == 0 else "convolution"
                for layer in range(layers)
            ]
        else:
            kinds = ["convolution" if at is not None and layer not in at else "full" for layer in range(layers)]
    c.skip(
        "full_attn_idxs",
        "conv_L_cache",
        "num_heads",
        "conv_dim",
        "conv_dim_out",
        "conv_use_xavier_init",
        "block_dim",
        "block_mlp_init_scale",
        "block_out_init_scale",
        "conv_bias",
    )
    gate = heads if c.flag("use_attention_gate", False) else 0
    see = windows(c, layers, kinds)
    by_layer = [
        short_convolution(hidden, c.size("conv_L_cache", 3))
        if kind == "convolution"
        else softmax(hidden, heads, kv_heads, head_dim, window=window, gate=gate)
        for kind, window in zip(kinds, see, strict=True)
    ]
    if c.family == "lfm2_moe":
        c.skip("block_ff_dim")
        mlps = moe_mlps(c, layers, shared=no_shared, module="feed_forward.")
    else:
        mlps = [dense(hidden, _lfm_width(c), module="feed_forward.")] * layers
    return decoder(c, zipped(by_layer, mlps))


def _lfm_width(c: Config) -> int:
    """Two thirds of the given width, scaled and rounded up, where ``block_auto_adjust_ff_dim`` is set (and by default)."""
    given = c.optional_size("block_ff_dim") or c.size("intermediate_size")
    c.skip("intermediate_size", "block_ff_dim", "block_multiple_of", "block_ffn_dim_multiplier")
    if c.family != "lfm2" or not c.flag("block_auto_adjust_ff_dim", True):
        return given
    width = int(2 * given / 3)
    if c.get("block_ffn_dim_multiplier") is not None:
        width = int(c.number("block_ffn_dim_multiplier") * width)
    return padded(width, c.size("block_multiple_of", 256))
