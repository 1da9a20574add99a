"""Families with recurrences of their own, beside windowed attention or alone."""

from __future__ import annotations

from msdsim.models.attention import head_sizes, softmax
from msdsim.models.config import Config
from msdsim.models.family import decoder, family
from msdsim.models.mlp import dense
from msdsim.models.parts import Decoder, Layer, Mlp, linear, padded
from msdsim.models.patterns import window_size
from msdsim.models.recurrent import (
    matrix_memory,
    receptance,
    recurrent_unit,
)


@family("recurrent_gemma")
def recurrent_gemma(c: Config) -> Decoder:
    """Linear recurrences and windowed attention in turn, by ``block_types``."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    heads, kv_heads, head_dim = head_sizes(c)
    types = c.items("block_types") or ["recurrent", "recurrent", "attention"]
    if set(types) - {"recurrent", "attention"}:
        raise c.refuse(f"block_types has other kinds than recurrent and attention: {types!r:.80}")
    c.skip("layers_block_type")
    width = c.optional_size("lru_width") or hidden
    if width % heads:
        raise c.refuse(f"lru_width = {width} is no multiple of {heads} heads, which share the gates of the recurrence")
    recurrent = recurrent_unit(hidden, width, heads, c.size("conv1d_width", 4))
    inner = c.size("intermediate_size")
    if inner % 2:
        raise c.refuse(f"intermediate_size = {inner} is odd; it counts both inputs of a gated MLP")
    seen = softmax(hidden, heads, kv_heads, head_dim, window=window_size(c), module="temporal_block.")
    mlp = dense(hidden, inner // 2, module="mlp_block.")
    return decoder(
        c, [Layer((recurrent if types[layer % len(types)] == "recurrent" else seen,), (mlp,)) for layer in range(layers)]
    )


@family("rwkv")
def rwkv(c: Config) -> Decoder:
    """RWKV version 4: time mixing and channel mixing, both with a receptance."""
    layers, hidden = c.size("num_hidden_layers"), c.size("hidden_size")
    width = c.optional_size("attention_hidden_size") or hidden
    inner = c.optional_size("intermediate_size") or 4 * hidden
    c.skip("rescale_every")
    mlp = Mlp(
        (
            linear("channel_key", hidden, inner, "feed_forward.key", units=inner),
            linear("channel_receptance", hidden, hidden, "feed_forward.receptance"),
            linear("channel_value", inner, hidden, "feed_forward.value", k_units=inner),
        )
    )
    return decoder(c, [Layer((receptance(hidden, width),), (mlp,))] * layers, prefix="rwkv.blocks.{}.")


@family("xlstm")
def xlstm(c: Config) -> Decoder:
    """Matrix memories and a gated MLP of a rounded width."""
    hidden = c.size("hidden_size", c.optional_size("embedding_dim"))
    c.skip("embedding_dim")
    layers = c.optional_size("num_blocks") or c.size("num_hidden_layers")
    multiple = c.size("mlstm_round_up_to_multiple_of", 64)
    keys = padded(int(hidden * c.number("qk_dim_factor", 0.5)), multiple)
    values = padded(int(hidden * c.number("v_dim_factor", 1.0)), multiple)
    inner = padded(int(hidden * c.number("ffn_proj_factor", 2.667)), c.size("ffn_round_up_to_multiple_of", 64))
    c.skip("head_dim", "num_hidden_layers", "num_blocks", "hidden_size")
    block = matrix_memory(hidden, c.size("num_heads"), keys, values)
    return decoder(c, [Layer((block,), (dense(hidden, inner, module="ffn."),))] * layers, prefix="backbone.blocks.{}.")
