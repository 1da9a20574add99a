"""Mixers with softmax attention: grouped queries, latents, windows, gates and sparse indices."""

from __future__ import annotations

from msdsim.models.config import Config
from msdsim.models.parts import Attention, Latent, Linear, Mixer, MixerKind, ModuleColumns, linear


def head_sizes(c: Config, kv_default: int | None = None) -> tuple[int, int, int]:
    """Query heads, KV heads and channels of a head.

    Without a ``head_dim`` the hidden size is shared out, and must divide.  KV heads that are left out are ``kv_default``, or as
    many as there are query heads.
    """
    heads = c.size("num_attention_heads")
    kv_heads = c.size("num_key_value_heads", kv_default or heads)
    check_heads(c, heads, kv_heads)
    head_dim = c.optional_size("head_dim")
    if head_dim is None:
        hidden = c.size("hidden_size")
        if hidden % heads:
            raise c.refuse(
                f"{c.key('hidden_size')} = {hidden} is no multiple of {c.key('num_attention_heads')} = {heads}, and "
                f"head_dim is missing; give head_dim"
            )
        head_dim = hidden // heads
    return heads, kv_heads, head_dim


def check_heads(c: Config, heads: int, kv_heads: int) -> None:
    """Every KV head serves equally many query heads."""
    if heads % kv_heads:
        raise c.refuse(
            f"{c.key('num_attention_heads')} = {heads} is no multiple of {kv_heads} KV heads "
            f"({c.key('num_key_value_heads')}); every KV head serves equally many query heads"
        )


def softmax(
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    v_dim: int | None = None,
    window: int | None = None,
    chunked: bool = False,
    gate: int = 0,
    gate_units: int | None = None,
    q_width: int | None = None,
    key_is_value: bool = False,
    owns_cache: bool = True,
    out_hidden: int | None = None,
    kind: MixerKind | None = None,
    module: str = "self_attn.",
    more: tuple[ModuleColumns, ...] = (),
) -> Mixer:
    """Grouped-query attention; q, k and v, with an output gate of ``gate`` columns and ``more`` on the same input, are one
    matmul.

    ``q_width`` where the query projection is wider than the queries, ``key_is_value`` where one projection makes both,
    ``owns_cache`` False where keys and values are those of an earlier layer.
    """
    value_dim = v_dim or head_dim
    parts = [ModuleColumns(f"{module}q_proj", q_width or heads * head_dim, heads)]
    if owns_cache:
        parts.append(ModuleColumns(f"{module}k_proj", kv_heads * head_dim, kv_heads))
        if not key_is_value:
            parts.append(ModuleColumns(f"{module}v_proj", kv_heads * value_dim, kv_heads))
    if gate:
        parts.append(ModuleColumns(f"{module}g_proj", gate, gate_units or heads))
    return Mixer(
        kind=kind or ("full" if window is None else "windowed"),
        before=(Linear("qkv_proj", hidden, (*parts, *more)),),
        attention=Attention(heads, kv_heads, head_dim, v_dim, window=window, chunked=chunked),
        after=(linear("o_proj", heads * value_dim, out_hidden or hidden, f"{module}o_proj", k_units=heads),),
        owns_cache=owns_cache,
    )


def latent_sizes(c: Config, value: int | None = None) -> Latent:
    """Sizes of latent attention, all above 0; ``value`` channels of a head's values where they are left out."""
    return Latent(
        nope=c.size("qk_nope_head_dim"),
        rope=c.size("qk_rope_head_dim"),
        value=c.size("v_head_dim", value),
        rank=c.size("kv_lora_rank"),
    )


def query_rank(c: Config) -> int | None:
    """Rank of the query projection; None where it is one full matrix."""
    return c.optional_size("q_lora_rank")


def latent(
    hidden: int,
    heads: int,
    sizes: Latent,
    q_rank: int | None,
    *,
    gate: int = 0,
    indexer: tuple[int, int, int] | None = None,
    window: int | None = None,
    computes_latent: bool = True,
    module: str = "self_attn.",
) -> Mixer:
    """Multi-head latent attention.

    ``gate`` columns of an output gate; ``indexer``: heads, channels and tokens kept of a sparse index that every layer with
    one computes.
    """
    width = sizes.nope + sizes.rope
    query = ModuleColumns(f"{module}q_a_proj", q_rank) if q_rank else ModuleColumns(f"{module}q_proj", heads * width, heads)
    first = [query]
    if computes_latent:
        first.append(ModuleColumns(f"{module}kv_a_proj_with_mqa", sizes.rank + sizes.rope))
    if gate:
        first.append(ModuleColumns(f"{module}g_proj", gate, heads))
    if indexer is not None:
        first += [ModuleColumns(f"{module}indexer.wk", indexer[1]), ModuleColumns(f"{module}indexer.weights_proj", indexer[0])]
    before = [Linear("qkv_a_proj", hidden, tuple(first))]
    if q_rank:
        second = [ModuleColumns(f"{module}q_b_proj", heads * width, heads)]
        if indexer is not None:
            second.append(ModuleColumns(f"{module}indexer.wq_b", indexer[0] * indexer[1]))
        before.append(Linear("q_b_proj", q_rank, tuple(second)))
    elif indexer is not None:
        before.append(linear("indexer_q_proj", hidden, indexer[0] * indexer[1], f"{module}indexer.wq_b"))
    before.append(linear("kv_b_proj", sizes.rank, heads * (sizes.nope + sizes.value), f"{module}kv_b_proj", units=heads))
    left_out = (
        ()
        if indexer is None
        else (
            f"the scores and the choice of the sparse index ({indexer[0]} heads of {indexer[1]} channels: reads {indexer[1]} "
            f"cached values a token)",
        )
    )
    return Mixer(
        kind="full" if window is None else "windowed",
        before=tuple(before),
        attention=Attention(
            heads, heads, width, sizes.value, latent=sizes, window=window, reads=None if indexer is None else indexer[2]
        ),
        after=(linear("o_proj", heads * sizes.value, hidden, f"{module}o_proj", k_units=heads),),
        extra_cache_values=0 if indexer is None else indexer[1],
        not_simulated=left_out,
    )


def cross(hidden: int, heads: int, kv_heads: int, head_dim: int) -> Mixer:
    """Attention to what another model has encoded: keys and values are made once, a decode step has only q and o."""
    return Mixer(
        kind="cross",
        before=(
            linear("cross_q_proj", hidden, heads * head_dim, "cross_attn.q_proj", units=heads),
            Linear(
                "cross_kv_proj",
                hidden,
                (
                    ModuleColumns("cross_attn.k_proj", kv_heads * head_dim, kv_heads),
                    ModuleColumns("cross_attn.v_proj", kv_heads * head_dim, kv_heads),
                ),
            ),
        ),
        after=(linear("cross_o_proj", heads * head_dim, hidden, "cross_attn.o_proj", k_units=heads),),
        not_simulated=(
            f"cross-attention over the encoded images ({2 * kv_heads * head_dim} cached values an image token); its "
            f"k and v projections run once an image, and are in the weights but not in a step",
        ),
    )
