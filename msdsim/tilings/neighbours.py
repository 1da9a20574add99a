"""Tilings that are one change away from another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

#: Changing these changes the numbers, not only the schedule.
FIXED = frozenset(("passes",))
#: Numbers below this are counts, of slots or rows, others sizes in steps of a fractal.
SMALL, STEP = 16, 16


def neighbours(tiling: Mapping[str, int], keys: Iterable[str]) -> Iterator[tuple[str, bool, dict[str, int]]]:
    """Each of ``keys`` one or two more or less, or half and double; sizes half, double, and half way there: the key, whether it
    grows, and the tiling."""
    for key in keys:
        value = tiling[key]
        steps = (value - 1, value + 1, value // 2, value * 2, value + 2) if value < SMALL else \
            (value // 2, value * 2, value * 3 // 4 // STEP * STEP, value * 3 // 2 // STEP * STEP)
        for other in dict.fromkeys(steps):
            if key not in FIXED and other != value and other >= min(value, 1):
                yield key, other > value, {**tiling, key: other}
