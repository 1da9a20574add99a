"""What an operator is called, by the names of the modules whose matrices it multiplies with."""

from __future__ import annotations

import re

#: Last parts of modules that read one input, as inference engines run them in one matmul, and what that is called.
FUSED = (
    {"q_proj", "k_proj", "v_proj", "query", "key", "value", "wq", "wk", "wv", "g_proj"},
    {"gate_proj", "up_proj"},
    {"w1", "w3"},
    {"q_a_proj", "kv_a_proj_with_mqa", "wq_a", "wkv_a"},
    {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"},
    {"in_proj_qkvz", "in_proj_ba"},
)
FUSED_NAMES = ("qkv_proj", "gate_up_proj", "gate_up_proj", "qkv_a_proj", "linear_in_proj", "linear_in_proj")
#: Other names of what an operator is called.
_ALSO = {"w2": "down_proj", "wo": "o_proj", "out_proj": "o_proj", "attn_q": "qkv_proj", "attn_k": "qkv_proj",
         "attn_v": "qkv_proj", "attn_output": "o_proj", "ffn_gate": "gate_up_proj", "ffn_up": "gate_up_proj",
         "ffn_down": "down_proj", "output": "lm_head"}


def operator_names(module: str) -> list[str]:
    """What the operator may be called that a matrix belongs to, by the module's name: the one it is fused into, its own."""
    last = module.rpartition(".")[2]
    names = [name for members, name in zip(FUSED, FUSED_NAMES, strict=True) if last in members]
    kind = "shared_" if "shared" in module else "expert_" if ".experts." in f".{module}." else ""
    return [f"{kind}{clean(name)}" for name in dict.fromkeys((*names, _ALSO.get(last, last), last))]


def clean(name: str) -> str:
    """A name without what TOML and the command line take for something else."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)
