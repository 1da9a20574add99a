"""Families of softmax attention and linear attention in turn."""

from __future__ import annotations

from msdsim.models.attention import head_sizes, latent, latent_sizes, query_rank, softmax
from msdsim.models.config import Config
from msdsim.models.experts_of import checked_shared, counted_shared, moe_mlps, shared_size, width_shared, zipped
from msdsim.models.families_dense import inner_of
from msdsim.models.family import decoder, family
from msdsim.models.mlp import dense, expert_numbers, mixture, stepped_layers
from msdsim.models.parts import Decoder, Layer, Mixer
from msdsim.models.patterns import listed_kinds, window_size
from msdsim.models.recurrent import (
    delta_attention,
    gated_delta,
    lightning,
)


def _delta(c: Config, hidden: int) -> Mixer:
    """The gated delta net of the ``linear_*`` keys."""
    own = c.size("num_attention_heads") if c.family == "olmo_hybrid" else None
    key_heads = c.size("linear_num_key_heads", own)
    key_dim = c.size("linear_key_head_dim", int(0.75 * hidden / key_heads) if own else None)
    return gated_delta(
        hidden,
        key_heads,
        c.size("linear_num_value_heads", own),
        key_dim,
        c.size("linear_value_head_dim", 2 * key_dim if own else None),
        c.size("linear_conv_kernel_dim", 4),
    )


@family("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "lara_mini", "olmo_hybrid")
def gated_delta_hybrid(c: Config) -> Decoder:
    """Gated delta nets but in every fourth layer, which has attention, with an output gate as wide as the queries in Qwen."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    kinds = listed_kinds(c, layers, "full", "linear", "windowed")
    if kinds is None and c.family == "lara_mini":
        kinds = [("linear", "windowed", "linear", "full", "windowed")[layer % 5] for layer in range(layers)]
    if kinds is None:
        step = c.size("full_attention_interval", 4)
        kinds = ["full" if (layer + 1) % step == 0 else "linear" for layer in range(layers)]
        if c.family == "olmo_hybrid" and "full" not in kinds:
            kinds[-1] = "full"
    c.skip("full_attention_interval")
    gated = c.family.startswith("qwen") and c.flag("attn_output_gate", True)
    window = window_size(c) if "windowed" in kinds else None
    options = {"q_width": 2 * heads * head_dim} if gated else {}
    full = softmax(hidden, heads, kv_heads, head_dim, **options)  # type: ignore[arg-type]
    seen = softmax(hidden, heads, kv_heads, head_dim, window=window, **options)  # type: ignore[arg-type]
    delta = _delta(c, hidden)
    by_kind = {"full": full, "linear": delta, "windowed": seen}
    if c.has("num_experts"):
        mlps = moe_mlps(c, layers, which=stepped_layers, shared=width_shared, shared_gate=c.family.startswith("qwen"))
    else:
        mlps = [dense(hidden, inner_of(c))] * layers
    return decoder(c, zipped([by_kind[kind] for kind in kinds], mlps))


@family("kimi_linear", "bailing_hybrid")
def delta_hybrid(c: Config) -> Decoder:
    """Delta attention and latent attention, by a list of either or every so many layers."""
    layers, hidden, heads = c.size("num_hidden_layers"), c.size("hidden_size"), c.size("num_attention_heads")
    given = c.part("linear_attn_config")
    c.skip(
        "num_key_value_heads",
        "head_dim",
        "qk_head_dim",
        "layer_group_size",
        "mla_use_nope",
        "linear_conv_kernel_dim",
        "linear_head_dim",
        "linear_num_heads",
    )
    full_rank = given.flag("use_full_rank_gate") or c.family == "bailing_hybrid"
    forget = None if c.family == "bailing_hybrid" else 0
    dim = given.size("head_dim", c.size("linear_head_dim", c.size("head_dim", 128) if c.family == "bailing_hybrid" else 128))
    width_heads = given.size("num_heads", c.size("linear_num_heads", heads))
    delta = delta_attention(
        hidden,
        width_heads,
        dim,
        given.size("short_conv_kernel_size", c.size("short_conv_kernel_size", 4)),
        forget_rank=dim if forget is not None else None,
        gate_rank=None if full_rank else dim,
    )
    sizes = latent_sizes(c)
    gate = 0
    if c.family == "bailing_hybrid":
        gate = heads
    elif c.flag("mla_use_output_gate"):
        gate = heads * sizes.value
    full = latent(hidden, heads, sizes, query_rank(c), gate=gate)
    kinds = _delta_kinds(c, given, layers)
    narrow = c.optional_size("routed_expert_hidden_size")
    mlps = moe_mlps(c, layers, shared=counted_shared)
    if narrow:
        count, chosen = expert_numbers(c)
        mixed = mixture(hidden, count, chosen, c.size("moe_intermediate_size"), shared=counted_shared(c), latent=narrow)
        mlps = [mixed if mlp.experts else mlp for mlp in mlps]
    c.skip("attn_res_block_size")
    notes = (
        ("the residual of attention blocks (attn_res_block_size) has no matrix that is known, and none is counted",)
        if c.values.get("attn_res_block_size")
        else ()
    )
    return decoder(c, zipped([full if kind == "full" else delta for kind in kinds], mlps), notes=notes)


def _delta_kinds(c: Config, given: Config, layers: int) -> list[str]:
    listed = listed_kinds(c, layers, "full", "linear")
    # The lists of the checkpoints count from 1.
    full, kda = given.layer_indices("full_attn_layers", layers, 1), given.layer_indices("kda_layers", layers, 1)
    if full is None or kda is None:
        if listed:
            return listed
        group = c.count("layer_group_size")
        if group:
            return _grouped(c, layers, group)
        return ["full" if layer and layer % 4 == 0 else "linear" for layer in range(layers)]
    if full & kda or len(full | kda) != layers:
        raise c.refuse(f"linear_attn_config: full_attn_layers and kda_layers do not name each of {layers} layers once")
    kinds = ["full" if layer in full else "linear" for layer in range(layers)]
    if listed and listed != kinds:
        raise c.refuse("layer_types and linear_attn_config say different kinds for a layer; leave only the right one")
    return kinds


def _grouped(c: Config, layers: int, group: int) -> list[str]:
    """The last layer of each group is full.  What those of a last group cut short are, implementations do not agree on."""
    if layers % group:
        raise c.refuse(
            f"{layers} layers are no whole number of groups of layer_group_size = {group}, and what the last {layers % group} "
            f"are is not certain; give layer_types"
        )
    return ["full" if (layer + 1) % group == 0 else "linear" for layer in range(layers)]


@family("bailing_moe_linear")
def bailing_linear(c: Config) -> Decoder:
    """Lightning attention as wide as the model, but in the last layer of each group, which has attention."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    if heads * head_dim != hidden:
        raise c.refuse(f"{heads} heads of {head_dim} are not hidden_size = {hidden}, as the linear layers have them")
    c.skip("group_norm_size", "linear_silu", "layer_group_size")
    kinds = listed_kinds(c, layers, "full", "linear") or _grouped(c, layers, c.size("layer_group_size"))
    full, linear_one = softmax(hidden, heads, kv_heads, head_dim), lightning(hidden, heads, head_dim)
    mlps = moe_mlps(c, layers, shared=checked_shared)
    return decoder(c, zipped([full if kind == "full" else linear_one for kind in kinds], mlps))


@family("minimax", "minimax_text_01", "minimax_m1")
def minimax(c: Config) -> Decoder:
    """Lightning attention, and softmax attention where ``layer_types`` or ``attn_type_list`` (1) says so."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    kinds = listed_kinds(c, layers, "full", "linear")
    flags = c.items("attn_type_list", layers)
    if kinds is None and flags is not None:
        kinds = ["full" if flag else "linear" for flag in flags]
    if kinds is None:
        kinds = ["full" if (layer + 1) % 2 else "linear" for layer in range(layers)]
    if window_size(c):
        raise c.refuse(f"sliding_window = {c.get('sliding_window')}: this family is not known to have windows")
    c.skip("block_size", "shared_moe_mode")
    full, linear_one = softmax(hidden, heads, kv_heads, head_dim), lightning(hidden, heads, head_dim)
    count, chosen = expert_numbers(c)
    mixed = mixture(hidden, count, chosen, c.size("intermediate_size"), shared=shared_size(c), module="block_sparse_moe.")
    return decoder(c, [Layer((full if kind == "full" else linear_one,), (mixed,)) for kind in kinds])
