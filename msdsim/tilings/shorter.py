"""A shorter problem with the same steady state, on which tilings of one that is too long for the engine are judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msdsim.hardware.chip import Chip
from msdsim.problems.model import Attention

#: Query rows that each core keeps, and tokens of the cache: several tiles of either.
_ROWS, _TOKENS = 128, 4096


def shorter(problem: Any, chip: Chip) -> Iterator[Attention]:
    """Ever shorter problems: half of the batch, of the heads with their caches, of queries with the cache, of the heads of a
    long prefill's cache, as long as every core has rows enough.  None of what is not attention."""
    while isinstance(problem, Attention) and problem.batch * problem.heads * problem.q >= 2 * chip.cores.aic * _ROWS:
        if problem.batch % 2 == 0:
            half = {"batch": problem.batch // 2}
        elif problem.kv_heads % 2 == 0:
            half = {"heads": problem.heads // 2, "kv_heads": problem.kv_heads // 2}
        elif problem.q % 2 == 0 and problem.kv % 2 == 0 and problem.kv >= 2 * _TOKENS:
            half = {"q": problem.q // 2, "kv": problem.kv // 2}
        elif problem.q >= _TOKENS and problem.heads % (2 * problem.kv_heads) == 0:
            half = {"heads": problem.heads // 2}
        else:
            return
        problem = problem.model_copy(update=half)
        yield problem
