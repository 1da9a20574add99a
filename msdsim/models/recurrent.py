"""Mixers that keep a state of fixed size instead of a cache: their projections are matrices, their scan is not simulated."""

from __future__ import annotations

from msdsim.models.parts import Linear, Mixer, ModuleColumns, linear


def _scan(what: str, state: int) -> tuple[str, ...]:
    return (f"the scan of {what}: {state} state values a sequence and layer, read and written every step",)


def mamba2(hidden: int, heads: int, head_dim: int, groups: int, state: int, kernel: int, module: str = "mixer.") -> Mixer:
    """Mamba-2: z, x, B, C and one step size a head from one projection, and one projection out."""
    inner = heads * head_dim
    mixed = inner + 2 * groups * state
    values = inner * state + mixed * (kernel - 1)
    parts = (ModuleColumns(f"{module}in_proj", 2 * inner + 2 * groups * state + heads, None),)
    return Mixer(
        "mamba",
        (Linear("mamba_in_proj", hidden, parts),),
        (linear("mamba_out_proj", inner, hidden, f"{module}out_proj"),),
        state_values=values,
        not_simulated=_scan("Mamba-2", values),
    )


def mamba1(hidden: int, inner: int, state: int, kernel: int, step_rank: int, module: str = "mixer.") -> Mixer:
    """Mamba: x and z from one projection, B, C and a low-rank step size from x."""
    values = inner * (state + kernel - 1)
    return Mixer(
        "mamba",
        (
            linear("mamba_in_proj", hidden, 2 * inner, f"{module}in_proj", units=inner),
            linear("mamba_x_proj", inner, step_rank + 2 * state, f"{module}x_proj", k_units=inner),
            linear("mamba_dt_proj", step_rank, inner, f"{module}dt_proj", units=inner),
        ),
        (linear("mamba_out_proj", inner, hidden, f"{module}out_proj", k_units=inner),),
        state_values=values,
        not_simulated=_scan("Mamba", values),
    )


def gated_delta(
    hidden: int,
    key_heads: int,
    value_heads: int,
    key_dim: int,
    value_dim: int,
    kernel: int,
    *,
    gate: bool = True,
    module: str = "linear_attn.",
) -> Mixer:
    """Gated delta net: q, k, v, an output gate z as wide as v, and two gates for each value head."""
    keys, values = key_heads * key_dim, value_heads * value_dim
    state = value_heads * key_dim * value_dim + (2 * keys + values) * (kernel - 1)
    parts = [ModuleColumns(f"{module}in_proj_qkv", 2 * keys + values, key_heads)]
    if gate:
        parts.append(ModuleColumns(f"{module}in_proj_z", values, value_heads))
    parts.append(ModuleColumns(f"{module}in_proj_ba", 2 * value_heads, value_heads))
    return Mixer(
        "linear",
        (Linear("linear_in_proj", hidden, tuple(parts)),),
        (linear("linear_out_proj", values, hidden, f"{module}out_proj", k_units=value_heads),),
        state_values=state,
        not_simulated=_scan("gated delta attention", state),
    )


def delta_attention(
    hidden: int,
    heads: int,
    head_dim: int,
    kernel: int,
    *,
    forget_rank: int | None,
    gate_rank: int | None,
    module: str = "self_attn.",
) -> Mixer:
    """Kimi delta attention: q, k, v, a forget gate and an output gate as wide as they (by a rank, or full), a gate a head."""
    width = heads * head_dim
    state = width * head_dim + 3 * width * (kernel - 1)
    parts = [ModuleColumns(f"{module}{name}_proj", width, heads) for name in "qkv"]
    second: list[Linear] = []
    for name, rank in (("f", forget_rank), ("g", gate_rank)):
        if rank is None:
            parts.append(ModuleColumns(f"{module}{name}_proj", width, heads))
        else:
            parts.append(ModuleColumns(f"{module}{name}_a_proj", rank))
            second.append(linear(f"linear_{name}_b_proj", rank, width, f"{module}{name}_b_proj", units=heads))
    parts.append(ModuleColumns(f"{module}b_proj", heads, heads))
    return Mixer(
        "linear",
        (Linear("linear_in_proj", hidden, tuple(parts)), *second),
        (linear("linear_out_proj", width, hidden, f"{module}o_proj", k_units=heads),),
        state_values=state,
        not_simulated=_scan("delta attention", state),
    )


def lightning(hidden: int, heads: int, head_dim: int, module: str = "self_attn.") -> Mixer:
    """Lightning attention: q, k, v and an output gate of the same width."""
    width, state = heads * head_dim, heads * head_dim * head_dim
    parts = (ModuleColumns(f"{module}qkv_proj", 3 * width, heads), ModuleColumns(f"{module}output_gate", width, heads))
    return Mixer(
        "linear",
        (Linear("linear_in_proj", hidden, parts),),
        (linear("linear_out_proj", width, hidden, f"{module}out_proj", k_units=heads),),
        state_values=state,
        not_simulated=_scan("lightning attention", state),
    )


def short_convolution(hidden: int, kernel: int, module: str = "conv.") -> Mixer:
    """Gated short convolution: two gates and an input from one projection, and one projection out."""
    state = hidden * (kernel - 1)
    return Mixer(
        "convolution",
        (linear("conv_in_proj", hidden, 3 * hidden, f"{module}in_proj", units=hidden),),
        (linear("conv_out_proj", hidden, hidden, f"{module}out_proj", k_units=hidden),),
        state_values=state,
        not_simulated=(f"the short convolution over {kernel} tokens: {state} state values a sequence and layer",),
    )


def recurrent_unit(hidden: int, width: int, heads: int, kernel: int, module: str = "temporal_block.") -> Mixer:
    """Griffin's recurrent block: two inputs, block-diagonal gates of the recurrence, and one projection out."""
    state, share = width * kernel, width // heads
    parts = (ModuleColumns(f"{module}linear_x", width, width), ModuleColumns(f"{module}linear_y", width, width))
    gates = linear("recurrent_gates", share, 2 * share, f"{module}rg_lru", repeats=heads)
    return Mixer(
        "linear",
        (Linear("recurrent_in_proj", hidden, parts), gates),
        (linear("recurrent_out_proj", width, hidden, f"{module}linear_out", k_units=width),),
        state_values=state,
        not_simulated=_scan("the linear recurrence", state),
    )


def receptance(hidden: int, width: int) -> Mixer:
    """RWKV's time mixing."""
    parts = tuple(ModuleColumns(f"attention.{name}", width, width) for name in ("key", "value", "receptance"))
    return Mixer(
        "linear",
        (Linear("linear_in_proj", hidden, parts),),
        (linear("linear_out_proj", width, hidden, "attention.output", k_units=width),),
        state_values=5 * width,
        not_simulated=_scan("RWKV time mixing", 5 * width),
    )


def matrix_memory(hidden: int, heads: int, keys: int, values: int, module: str = "mlstm_layer.") -> Mixer:
    """xLSTM's matrix memory: q, k, v, an output gate, and two gates a head."""
    state = heads * ((keys // heads) * (values // heads) + keys // heads + 1)
    parts = (
        ModuleColumns(f"{module}q", keys, heads),
        ModuleColumns(f"{module}k", keys, heads),
        ModuleColumns(f"{module}v", values, heads),
        ModuleColumns(f"{module}ogate_preact", values, heads),
        ModuleColumns(f"{module}igate_preact", heads, heads),
        ModuleColumns(f"{module}fgate_preact", heads, heads),
    )
    return Mixer(
        "linear",
        (Linear("linear_in_proj", hidden, parts),),
        (linear("linear_out_proj", values, hidden, f"{module}out_proj", k_units=heads),),
        state_values=state,
        not_simulated=_scan("the matrix memory", state),
    )
