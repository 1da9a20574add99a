"""Inputs that accuracy figures are measured on.  Every figure names one of these beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msdsim.registry import Registry

OUTLIER_CHANNELS = 8
OUTLIER_FACTOR = 30


@dataclass(frozen=True)
class Distribution:
    """``draw(rng, shape)`` gives float32; the last axis holds the channels."""

    name: str
    description: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    # A power of two as the limit: block maxima fill the binade, as in the published 6.6 bits.
    return rng.random(shape, dtype=np.float32) * 4 - 2


def _laplace(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.laplace(0, 0.5**0.5, shape).astype(np.float32)


def _student(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_t(4, shape) * 0.5**0.5).astype(np.float32)


def _outliers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = _normal(rng, shape)
    channels = rng.choice(shape[-1], min(OUTLIER_CHANNELS, shape[-1]), replace=False)
    x[..., channels] *= OUTLIER_FACTOR
    return x


DISTRIBUTIONS: Registry[Distribution] = Registry("input distribution")
for _entry in (Distribution("uniform", "uniform on [-2, 2]", _uniform),
               Distribution("normal", "normal", _normal),
               Distribution("laplace", "Laplace", _laplace),
               Distribution("student-t", "Student-t with 4 degrees of freedom", _student),
               Distribution("outliers", f"normal, {OUTLIER_CHANNELS} channels x{OUTLIER_FACTOR}", _outliers)):
    DISTRIBUTIONS.add(_entry.name, _entry)
