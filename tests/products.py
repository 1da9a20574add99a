"""Products of parameters of which the default suite takes diagonals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def diagonals(first: Iterable[Any], second: Iterable[Any], every: int) -> list[Any]:
    """Parameters for every combination of two lists; those off the diagonals are slow.

    Of ``every`` neighbours in a row or in a column one stays in the default suite: each value of a list meets a share of the
    other's, and every value is met.  Tuples become several parameters.
    """
    rows, columns = list(first), list(second)
    return [pytest.param(*_flat((a, b)), marks=() if (i + j) % every == 0 else pytest.mark.slow)
            for i, a in enumerate(rows) for j, b in enumerate(columns)]


def each(check: Callable[..., Any], cases: Iterable[tuple[Any, ...]]) -> None:
    """``check`` every case, passing over those that it skips; as one test, since thousands take long to collect."""
    for case in cases:
        try:
            check(*case)
        except pytest.skip.Exception:
            continue
        except Exception as err:
            err.add_note(f"in case {case}")
            raise


def _flat(value: Any) -> list[Any]:
    return [item for part in value for item in _flat(part)] if isinstance(value, tuple) else [value]
