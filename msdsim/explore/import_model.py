"""From a model's ``config.json`` to a workload: the linear layers of one decode step or one prefill, and its attention.

Understood are decoder-only transformers in the form that model cards publish: dense and mixture-of-experts layers, grouped
query attention, and latent attention (MLA) with its low-rank projections.  Query, key and value projections are fused, as are
gate and up, as inference engines run them.  Latent attention is absorbed in a decode step, where all heads share one latent a
token that is key and value at once, and not in a prefill.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msdsim.errors import InputError
from msdsim.units import ceil_div

#: Name, how often, problem in its inline form.
Layer = tuple[str, int, str]


def read_config(path: str | Path) -> dict[str, Any]:
    """The parsed file; InputError when it is none or no JSON object."""
    file = Path(path)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"model config '{path}' cannot be read ({err.strerror or err}); give a model's config.json") from None
    except ValueError as err:
        raise InputError(f"model config '{path}' is not JSON: {err}") from None
    if not isinstance(config, dict):
        raise InputError(f"model config '{path}' is not a JSON object; give a model's config.json")
    # Multi-modal configs keep the language model in a table of its own.
    return dict(config.get("text_config", config))


class Model:
    """The sizes of a decoder, by the names that published configs use."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config, self.source = config, source
        self.hidden = self._size("hidden_size")
        self.layers = self._size("num_hidden_layers")
        self.heads = self._size("num_attention_heads")
        self.vocab = self._size("vocab_size")
        self.kv_heads = self._size("num_key_value_heads", self.heads)
        self.head_dim = self._size("head_dim", self.hidden // self.heads)
        self.experts = self._size("n_routed_experts", self._size("num_local_experts", self._size("num_experts", 0)))
        self.dense_layers = self._size("first_k_dense_replace", 0) if self.experts else self.layers

    def _size(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None:
            if default is None:
                raise InputError(f"model config '{self.source}' has no '{key}'; only decoder-only transformers are understood")
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"model config '{self.source}': {key} = {value!r} is not a whole number of at least 0")
        return value

    def linear_layers(self, batch: int, tokens: int) -> list[Layer]:
        """Every matmul of one step over ``batch`` sequences of ``tokens`` new tokens each, with how often it runs."""
        m = batch * tokens
        found = [(name, self.layers, _gemm(m, k, n)) for name, k, n in self._attention()]
        if self.dense_layers:
            found += _mlp("dense_" if self.experts else "", self.dense_layers, m, self.hidden, self._size("intermediate_size"))
        if self.experts:
            found += self._mixture(m)
        # Only the last token of a sequence needs logits.
        return [*found, ("lm_head", 1, _gemm(batch, self.hidden, self.vocab))]

    def _attention(self) -> list[tuple[str, int, int]]:
        if self.config.get("kv_lora_rank") is None:
            width = self.heads * self.head_dim
            return [("qkv_proj", self.hidden, width + 2 * self.kv_heads * self.head_dim), ("o_proj", width, self.hidden)]
        rank, rope = self._size("kv_lora_rank"), self._size("qk_rope_head_dim")
        nope, value = self._size("qk_nope_head_dim"), self._size("v_head_dim")
        query = self._size("q_lora_rank", 0)
        down = (query or self.heads * (nope + rope)) + rank + rope
        found = [("qkv_a_proj", self.hidden, down)]
        if query:
            found.append(("q_b_proj", query, self.heads * (nope + rope)))
        return [*found, ("kv_b_proj", rank, self.heads * (nope + value)), ("o_proj", self.heads * value, self.hidden)]

    def attention(self, batch: int, tokens: int, kv: int) -> str:
        """The attention of one layer: ``tokens`` new ones of each sequence, the last of ``kv``."""
        causal = ",causal=1" if tokens > 1 else ""
        if self.config.get("kv_lora_rank") is None:
            shape = f"heads={self.heads},kv_heads={self.kv_heads},head_dim={self.head_dim}"
            return f"attention:batch={batch},{shape},q={tokens},kv={kv}{causal}"
        rank, rope, nope = self._size("kv_lora_rank"), self._size("qk_rope_head_dim"), self._size("qk_nope_head_dim")
        if tokens == 1:
            shape = f"heads={self.heads},kv_heads=1,head_dim={rank + rope},v_dim={rank}"
            more = f",shared_kv=1,scale_dim={nope + rope}"
        else:
            width = f"head_dim={nope + rope},v_dim={self._size('v_head_dim')}"
            shape, more = f"heads={self.heads},kv_heads={self.heads},{width}", causal
        return f"attention:batch={batch},{shape},q={tokens},kv={kv}{more}"

    def _mixture(self, m: int) -> list[Layer]:
        layers = self.layers - self.dense_layers
        width = self._size("moe_intermediate_size", self._size("intermediate_size", 0))
        chosen = self._size("num_experts_per_tok")
        # Balanced routing: every token picks `chosen` experts, all experts that are hit have equally many rows.
        active = min(self.experts, m * chosen)
        rows = ceil_div(m * chosen, active)
        found: list[Layer] = [("moe_router", layers, _gemm(m, self.hidden, self.experts))]
        shared = self._size("n_shared_experts", 0)
        if shared:
            found += _mlp("shared_", layers, m, self.hidden, shared * width)
        return found + _mlp("expert_", layers, rows, self.hidden, width, active)


def _gemm(m: int, k: int, n: int, groups: int = 1) -> str:
    """One matmul, or one of m rows for each of ``groups`` experts in one kernel."""
    return f"gemm:m={m},k={k},n={n}" if groups == 1 else f"grouped_gemm:groups={groups},m={m},k={k},n={n}"


def _mlp(prefix: str, count: int, m: int, hidden: int, inner: int, groups: int = 1) -> list[Layer]:
    return [(f"{prefix}gate_up_proj", count, _gemm(m, hidden, 2 * inner, groups)),
            (f"{prefix}down_proj", count, _gemm(m, inner, hidden, groups))]


def workload_text(config: Mapping[str, Any], source: str, name: str, batch: int, tokens: int, kv: int | None = None) -> str:
    """The workload file, TOML, of one step; ``tokens`` is 1 for decode and the prompt's length for prefill, ``kv`` the tokens
    that attention reads, the new ones among them (None: attention is left out)."""
    if batch < 1 or tokens < 1:
        raise InputError(f"batch {batch} and {tokens} tokens must both be at least 1")
    if kv is not None and kv < tokens:
        raise InputError(f"{kv} tokens in the cache are fewer than the {tokens} new ones, which are among them; give at least "
                         f"{tokens}")
    model = Model(config, source)
    step = "decode step" if tokens == 1 else f"prefill of {tokens} tokens"
    kind = config.get("model_type", "transformer")
    what = "linear layers" if kv is None else f"linear layers and attention over {kv} tokens"
    lines = [
        f"# {what.capitalize()} of one {step}, batch {batch}, worked out from a published model config.",
        f"description = {json.dumps(f'{what} of one {step} of {name} ({kind}), batch {batch}')}",
        f"source = {json.dumps(f'model config {source}')}",
        f"batch = {batch}",
    ]
    problems = model.linear_layers(batch, tokens)
    if kv is not None:
        # Between the projections to and from it.
        before = next(index for index, (layer, _, _) in enumerate(problems) if layer == "o_proj")
        problems.insert(before, ("attention", model.layers, model.attention(batch, tokens, kv)))
    for layer, count, problem in problems:
        lines += ["", "[[op]]", f'name = "{layer}"', f"count = {count}", f'problem = "{problem}"']
    return "\n".join(lines) + "\n"
