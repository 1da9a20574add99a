"""Random operands: normal float32 in fixed blocks, each with its own generator, so that threads may draw them."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BLOCK = 1 << 22  # elements per generator: part of what a seed means, so it never changes


def normal(shape: tuple[int, ...], seed: int | tuple[int, int], stream: int) -> np.ndarray:
    """Standard normal float32 of ``shape``; ``stream`` numbers the tensor, so that tensors do not depend on each other.

    The values depend on shape, seed and stream alone, not on the number of threads.
    """
    flat = np.empty(math.prod(shape), np.float32)
    key = (seed, 0) if isinstance(seed, int) else seed

    def draw(block: int) -> None:
        part = flat[block * _BLOCK : (block + 1) * _BLOCK]
        np.random.default_rng((*key, stream, block)).standard_normal(out=part, dtype=np.float32)

    blocks = range(-(-flat.size // _BLOCK))
    if len(blocks) < 2:
        for block in blocks:
            draw(block)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(draw, blocks))
    return flat.reshape(shape)
