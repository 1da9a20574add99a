"""A model's config as its family reads it: other names, class defaults, checked values, and a record of what was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msdsim.errors import InputError
from msdsim.problems.model import MAX_SIZE

T = TypeVar("T")

#: Names under which families publish one and the same number; the first is the name that the code uses.
ALIASES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "n_embed", "d_model", "model_dim", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "num_layer"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "attention_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "n_head_kv", "num_query_groups"),
    "head_dim": ("attention_head_dim", "kv_channels", "attention_head_size", "dim_head", "head_size"),
    "intermediate_size": ("ffn_hidden_size", "n_inner", "ffn_dim", "dff", "dim_ff", "inner_hidden_size"),
    "vocab_size": ("n_vocab",),
    "max_position_embeddings": (
        "n_positions",
        "max_seq_len",
        "seq_length",
        "model_max_length",
        "context_length",
        "max_sequence_length",
    ),
    "num_experts": ("n_routed_experts", "num_local_experts", "num_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": (
        "num_experts_per_token",
        "moe_topk",
        "moe_top_k",
        "moe_k",
        "top_k_experts",
        "experts_per_token",
        "num_selected_experts",
    ),
    "n_shared_experts": ("num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "moe_intermediate_size": ("expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "first_k_dense_replace": ("num_dense_layers",),
    "kv_lora_rank": ("attention_kv_lora_dim",),
    "q_lora_rank": ("attention_q_lora_dim",),
    "qk_rope_head_dim": ("attention_qk_rope_dim",),
    "qk_nope_head_dim": ("attention_qk_dim",),
    "v_head_dim": ("attention_v_dim",),
    "hidden_act": ("activation_function", "hidden_activation", "mlp_hidden_act", "afn"),
    "sliding_window_pattern": ("_sliding_window_pattern", "layer_switch"),
    "sliding_window": ("sliding_window_size", "attention_window_size", "window_size"),
}


class Config:
    """Values of one config, looked up by the names of :data:`ALIASES`.

    What a config leaves out comes from ``defaults``, the class defaults of its family.  Every key that is looked up counts as
    read; :meth:`unread` lists the others.  A wrong value is an :class:`InputError` that names the key as the file has it.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        source: str,
        family: str = "",
        defaults: Mapping[str, Any] | None = None,
        inside: str = "",
    ) -> None:
        self.values, self.source, self.family, self.inside = values, source, family, inside
        self.defaults = defaults or {}
        self.used: set[str] = set()
        self.parts: list[Config] = []

    def refuse(self, text: str) -> InputError:
        """An error about this config."""
        return InputError(f"model config '{self.source}': {text}")

    def key(self, name: str) -> str:
        """The key that holds ``name`` in this file, as it is written there."""
        return self.inside + next((key for key in self._keys(name) if self.values.get(key) is not None), name)

    @staticmethod
    def _keys(name: str) -> tuple[str, ...]:
        return (name, *ALIASES.get(name, ()))

    def get(self, name: str, default: Any = None) -> Any:
        """The value as it stands.  A key that is null in the file has no value, whatever the family's default is."""
        found: dict[str, Any] = {}
        named = False
        for key in self._keys(name):
            if key in self.values:
                named = True
                self.used.add(key)
                if self.values[key] is not None:
                    found[key] = self.values[key]
        if not found:
            if named:
                return default
            # A default may be published under any of the names.
            return next((self.defaults[key] for key in self._keys(name) if self.defaults.get(key) is not None), default)
        values = list(found.values())
        if any(value != values[0] for value in values):
            both = " and ".join(f"{self.inside}{key} = {short(value)}" for key, value in found.items())
            raise self.refuse(f"{both} are two names of one number and differ; leave only the right one")
        return values[0]

    def has(self, name: str) -> bool:
        """Whether the file or the family's defaults give a value other than null."""
        return self.get(name) is not None

    def given(self, name: str) -> bool:
        """Whether the file itself gives a value other than null."""
        return any(self.values.get(key) is not None for key in self._keys(name))

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 to 2^31 - 1; an error when there is none."""
        value = self.get(name, default)
        if value is None:
            others = ", ".join(ALIASES.get(name, ()))
            raise InputError(
                f"model config '{self.source}' has no '{self.inside}{name}'{f' (or {others})' if others else ''}, "
                f"and family '{self.family}' has no default for it"
            )
        return self._whole(name, value, 1)

    def optional_size(self, name: str) -> int | None:
        """Like :meth:`size`; None where there is no value."""
        return None if self.get(name) is None else self.size(name)

    def count(self, name: str, default: int = 0) -> int:
        """A whole number from 0."""
        return self._whole(name, self.get(name, default), 0)

    def _whole(self, name: str, value: Any, low: int) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SIZE:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(f"{self.key(name)} = {short(value)} is not a whole number of at least {low}")
        if value < low:
            raise self.refuse(f"{self.key(name)} = {short(value)} is below {low}; a model has at least {low}")
        if value > MAX_SIZE:
            raise self.refuse(f"{self.key(name)} = {short(value)} is above {MAX_SIZE}, the largest size of a matrix here")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_SIZE:
            raise self.refuse(f"{self.key(name)} = {short(value)} is not a number above 0 and at most {MAX_SIZE}")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool) and value not in (0, 1):
            raise self.refuse(f"{self.key(name)} = {short(value)} is neither true nor false")
        return bool(value)

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise self.refuse(f"{self.key(name)} = {short(value)} is not text")
        return value

    def items(self, name: str, length: int | None = None) -> list[Any] | None:
        """A list, of one item a layer where ``length`` is given; None where there is none."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise self.refuse(f"{self.key(name)} = {short(value)} is not a list")
        if length is not None and len(value) != length:
            # Lists may go on with the layers of the multi-token prediction.
            if len(value) == length + (self.count("num_nextn_predict_layers") if length else 0):
                return list(value)[:length]
            raise self.refuse(f"{self.key(name)} has {len(value)} items for {length} layers")
        return list(value)

    def layer_indices(self, name: str, layers: int, first: int = 0) -> set[int] | None:
        """A list of layer numbers, counted from ``first``, as a set counted from 0."""
        value = self.items(name)
        if value is None:
            return None
        for item in value:
            if not isinstance(item, int) or isinstance(item, bool) or not first <= item < layers + first:
                raise self.refuse(f"{self.key(name)} has {short(item)}, which is no layer from {first} to {layers + first - 1}")
        if len(set(value)) != len(value):
            raise self.refuse(f"{self.key(name)} names a layer twice")
        return {item - first for item in value}

    def each_layer(self, name: str, layers: int, read: Callable[[Config, str], T]) -> list[T]:
        """A value that is one for all layers or a list of one for each, read by ``read``."""
        value = self.get(name)
        if not isinstance(value, list | tuple):
            return [read(self, name)] * layers
        if len(value) < layers:
            raise self.refuse(f"{self.key(name)} has {len(value)} items for {layers} layers")
        name = self.key(name).removeprefix(self.inside)
        return [read(Config({name: item}, self.source, self.family, inside=self.inside), name) for item in value[:layers]]

    def part(self, name: str) -> Config:
        """The table under a key; an empty one where there is none."""
        value = self.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.refuse(f"{self.key(name)} = {short(value)} is not a table")
        defaults = self.defaults.get(name)
        defaults = defaults if isinstance(defaults, Mapping) else {}
        part = Config(
            {} if value is None or name not in self.values else value,
            self.source,
            self.family,
            defaults,
            f"{self.inside}{name}.",
        )
        self.parts.append(part)
        return part

    def skip(self, *names: str) -> None:
        """Count keys as read: the family knows that they change no matrix of it."""
        self.used.update(names)

    def unread(self) -> dict[str, Any]:
        """Keys of the file that nobody looked up, with those of the tables that were opened."""
        found = {self.inside + key: value for key, value in self.values.items() if key not in self.used}
        for part in self.parts:
            found |= part.unread()
        return found


def short(value: Any) -> str:
    """A value in an error line: never longer than a line can bear."""
    text = repr(value) if not isinstance(value, int) or isinstance(value, bool) or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
