"""Which layers see a window: the keys that say so, and what each family does without them."""

from __future__ import annotations

from msdsim.models.config import Config

#: Kinds of layers as configs name them.
_KINDS = {
    "full_attention": "full",
    "full": "full",
    "attention": "full",
    "global": "full",
    "global_attention": "full",
    "sliding_attention": "windowed",
    "sliding_window": "windowed",
    "local": "windowed",
    "sliding": "windowed",
    "sliding_window_attention": "windowed",
    "local_attention": "windowed",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "linear": "linear",
    "kda": "linear",
    "gated_deltanet": "linear",
    "mamba": "mamba",
    "mamba2": "mamba",
    "conv": "convolution",
    "short_conv": "convolution",
    "indexed_attention": "indexed",
    "minimax_m3_sparse": "indexed",
    "deepseek_sparse_attention": "indexed",
    "moe": "moe",
    "mlp": "mlp",
    "hybrid": "hybrid",
    "recurrent": "recurrent",
}


def listed_kinds(c: Config, layers: int, *known: str, key: str = "layer_types") -> list[str] | None:
    """The kinds of ``layer_types``; None without that key.  Kinds other than ``known`` are refused by name."""
    given = c.items(key, layers)
    if given is None:
        return None
    found = []
    for layer, name in enumerate(given):
        kind = _KINDS.get(name) if isinstance(name, str) else None
        if kind is None or kind not in known:
            raise c.refuse(
                f"{c.key(key)} calls layer {layer} {name!r}, which family '{c.family}' is not known to have here "
                f"(kinds: {', '.join(known)})"
            )
        found.append(kind)
    return found


#: Context of a model whose config leaves it out: reduced configs do, and class defaults are far below what is published.
_USUAL_CONTEXT = 131072


def window_size(c: Config) -> int | None:
    """Tokens of a sliding window; None where there is none, or where it is as long as the context."""
    if c.get("sliding_window") in (None, 0):
        return None
    return shorter_than_context(c, c.size("sliding_window"))


def shorter_than_context(c: Config, window: int | None) -> int | None:
    """The window, unless it is as long as the context that the model is made for."""
    if window is None:
        return None
    context = c.size("max_position_embeddings") if c.given("max_position_embeddings") else _USUAL_CONTEXT
    return None if window >= context else window


def every(layers: int, step: int, *, full_at: int = -1) -> list[str]:
    """Windows, but for one full layer in every ``step``: the last, or the one at index ``full_at`` of each."""
    return ["full" if layer % step == full_at % step else "windowed" for layer in range(layers)]


def windows(c: Config, layers: int, kinds: list[str]) -> list[int | None]:
    """The window of each layer; None for those that see all."""
    if "windowed" not in kinds:
        window_size(c)
        return [None] * layers
    window = window_size(c)
    if window is None and not c.given("sliding_window") and not c.has("sliding_window"):
        raise c.refuse("has layers with a sliding window, but no 'sliding_window'; give how many tokens they see")
    return [window if kind == "windowed" else None for kind in kinds]


def all_windowed(c: Config, layers: int) -> list[int | None]:
    """A window, where there is one, in every layer, unless ``layer_types`` lists them."""
    listed = listed_kinds(c, layers, "full", "windowed")
    return windows(c, layers, listed) if listed else [window_size(c)] * layers


def no_windows(c: Config, layers: int) -> list[int | None]:
    """Full attention in all layers; a window in the config is refused, since the family has none."""
    listed = listed_kinds(c, layers, "full", "windowed")
    if listed and "windowed" in listed:
        return windows(c, layers, listed)
    if c.given("sliding_window") and window_size(c) is not None and not listed:
        if c.get("use_sliding_window") in (False, None) and "use_sliding_window" in c.values:
            return [None] * layers
        raise c.refuse(
            f"{c.key('sliding_window')} = {c.get('sliding_window')}, but family '{c.family}' is not known to have "
            f"windows; which layers see them is not certain"
        )
    return [None] * layers


def qwen_windows(c: Config, layers: int) -> list[int | None]:
    """Windows from layer ``max_window_layers`` on, where ``use_sliding_window`` asks for them."""
    listed = listed_kinds(c, layers, "full", "windowed")
    first = c.count("max_window_layers", 28)
    c.skip("sliding_window", "use_sliding_window")
    if listed:
        return windows(c, layers, listed)
    if not c.flag("use_sliding_window"):
        return [None] * layers
    return [window_size(c) if layer >= first else None for layer in range(layers)]


def mixture_windows(c: Config, layers: int) -> list[int | None]:
    """Windows, where ``use_sliding_window`` asks for them: in all layers, or, in the second generation of Qwen, in every other
    one below ``max_window_layers``."""
    if c.given("layer_types") or not c.flag("use_sliding_window"):
        return qwen_windows(c, layers)
    first = c.count("max_window_layers", 28)
    seen = [c.family != "qwen2_moe" or (layer % 2 == 0 and layer < first) for layer in range(layers)]
    return [window_size(c) if see else None for see in seen]


def late_windows(c: Config, layers: int) -> list[int | None]:
    """Windows, where there are any, from layer ``max_window_layers`` on."""
    listed = listed_kinds(c, layers, "full", "windowed")
    first = c.count("max_window_layers", layers)
    return windows(c, layers, listed) if listed else [window_size(c) if layer >= first else None for layer in range(layers)]


def listed_windows(c: Config, layers: int) -> list[int | None]:
    """Windows only where ``layer_types`` lists them."""
    c.skip("sliding_window")
    return windows(c, layers, listed_kinds(c, layers, "full", "windowed") or ["full"] * layers)


def patterned(default: int | None, *, full_at: int = -1, key: str = "sliding_window_pattern"):  # type: ignore[no-untyped-def]
    """One full layer in every ``key``, or ``default`` of them, and windows between; a text such as LLLG is read as well."""

    def read(c: Config, layers: int) -> list[int | None]:
        listed = listed_kinds(c, layers, "full", "windowed")
        pattern = c.get(key)
        if isinstance(pattern, str):
            kinds = _spelt(c, key, pattern, layers)
        elif pattern is None and default is None:
            kinds = ["full"] * layers
        else:
            kinds = every(layers, c.size(key, default), full_at=full_at)
        if listed is None and c.get("sliding_window") is None:
            kinds = ["full"] * layers
        return windows(c, layers, listed or kinds)

    return read


def _spelt(c: Config, key: str, pattern: str, layers: int) -> list[str]:
    letters = {"L": "windowed", "G": "full"}
    if not pattern or any(letter not in letters for letter in pattern):
        raise c.refuse(f"{key} = {pattern[:40]!r} has other letters than L (a window) and G (all tokens)")
    return [letters[pattern[layer % len(pattern)]] for layer in range(layers)]
