"""The table of families: which function reads a config of which ``model_type``, and with which class defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import resources
from typing import Any

from msdsim.models.config import Config
from msdsim.models.parts import Decoder, Layer, Linear, linear

Build = Callable[[Config], Decoder]

#: Readers by model_type; :mod:`msdsim.models.families` fills it.
FAMILIES: dict[str, Build] = {}


def family(*names: str, **options: Any) -> Callable[[Callable[..., Decoder]], Callable[..., Decoder]]:
    """Enter a reader for several model types; ``options`` are passed to it."""

    def enter(build: Callable[..., Decoder]) -> Callable[..., Decoder]:
        for name in names:
            FAMILIES[name] = partial(build, **options) if options else build
        return build

    return enter


@cache
def _all_defaults() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files("msdsim.models").joinpath("defaults.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def defaults(model_type: str) -> Mapping[str, Any]:
    """What the configuration class of a family takes where a config leaves a key out; empty where none is known."""
    return _all_defaults().get(model_type, {})


def decoder(
    c: Config,
    layers: list[Layer],
    *,
    once: tuple[Linear, ...] = (),
    shared: int = 0,
    prefix: str = "model.layers.{}.",
    notes: tuple[str, ...] = (),
    vocab: int | None = None,
) -> Decoder:
    """The decoder of these layers, with its output head."""
    hidden = c.size("hidden_size")
    return Decoder(
        c.family, hidden, tuple(layers), linear("lm_head", hidden, vocab or c.size("vocab_size")), once, shared, prefix, notes
    )
