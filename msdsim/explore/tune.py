"""The tuner: a deterministic hill climb over a dataflow's tiling, every candidate simulated.

From the automatic tiling it tries, key by key, the neighbours that a person would try (half, double, the next smaller and
larger step) and moves to the best; it ends when no neighbour is faster or the budget is spent.  Tilings that do not fit the
chip cost nothing but the attempt to build them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msdsim.dataflows.lookup import find_dataflow
from msdsim.errors import InputError
from msdsim.hardware import Hardware
from msdsim.report.result import Result
from msdsim.runs import RunOptions, as_hardware, as_problem, run
from msdsim.tilings.search import shortlist

#: Sizes move in steps of a fractal, small counts (ring depths, slots, passes) in steps of one.
_STEP = 16
_SMALL = 16
#: Rows of the table of tilings that go on at each step of ranking it.
_WIDTH = 64
#: Changing these changes the numbers, not only the schedule.
FIXED = frozenset(("passes",))


@dataclass(frozen=True)
class Trial:
    """One simulated tiling; ``change`` says what it changed of the best before it."""

    change: str
    tiling: Mapping[str, int]
    cycles: int


@dataclass(frozen=True)
class Tuning:
    """What the search found: ``start`` is the run it started from, ``best`` the fastest, ``trials`` all in order."""

    start: Result
    best: Result
    trials: list[Trial]
    refused: int

    @property
    def speedup(self) -> float:
        return self.start.cycles / self.best.cycles

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.tune/1``."""
        return {"schema": "msdsim.tune/1", "start": self.start.to_json(), "best": self.best.to_json(), "speedup": self.speedup,
                "refused": self.refused,
                "trials": [{"change": t.change, "tiling": dict(t.tiling), "cycles": t.cycles} for t in self.trials]}


def tune(problem: Any, hw: str | Hardware, dataflow: str, budget: int = 200, *,
         progress: Callable[[int, int], None] | None = None, options: RunOptions | None = None, **changes: Any) -> Tuning:
    """Search tilings of ``dataflow`` with at most ``budget`` simulations, starting from the automatic one with the values
    of ``options.tiling`` in place; keywords change single options."""
    if budget < 1:
        raise InputError(f"a budget of {budget} simulations is below 1; give at least 1")
    shape, hardware, chosen = as_problem(problem), as_hardware(hw), (options or RunOptions()).but(**changes)
    start = best = run(shape, hardware, dataflow, chosen)
    trials = [Trial("start", start.tiling, start.cycles)]
    seen = {_key(start.tiling)}
    refused = 0
    # What the automatic choice would have had judged with more time; the climb then starts from the best of it.
    table = shortlist(find_dataflow(shape, dataflow), shape, hardware.chip, dict(chosen.tiling or {}), _WIDTH)
    for candidate in table[: budget // 3]:
        if _key(candidate) in seen:
            continue
        seen.add(_key(candidate))
        try:
            found = run(shape, hardware, dataflow, chosen.but(tiling=candidate))
        except InputError:
            refused += 1
            continue
        trials.append(Trial("another of the table", candidate, found.cycles))
        best = min(best, found, key=lambda result: result.cycles)
    improved = True
    while improved and len(trials) < budget:
        improved = False
        around = best
        for change, candidate in neighbours(around.tiling):
            if len(trials) >= budget:
                break
            if _key(candidate) in seen:
                continue
            seen.add(_key(candidate))
            try:
                found = run(shape, hardware, dataflow, chosen.but(tiling=candidate))
            except InputError:
                # Too large for a buffer, not a multiple, too many flags: not a candidate.
                refused += 1
                continue
            trials.append(Trial(change, candidate, found.cycles))
            if progress is not None:
                progress(len(trials), budget)
            if found.cycles < best.cycles:
                best, improved = found, True
    return Tuning(start, best, trials, refused)


def _key(tiling: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(tiling.items()))


def neighbours(tiling: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Tilings one change away, in a fixed order."""
    for key, value in tiling.items():
        if key in FIXED:
            continue
        steps = [value - 1, value + 1, value * 2] if value < _SMALL else \
            [value // 2 // _STEP * _STEP, value - _STEP, value + _STEP, value * 2]
        for other in dict.fromkeys(steps):
            if other != value and other >= 0:
                yield f"{key} {value} -> {other}", {**tiling, key: other}
    # Depth of the reduction in L1 follows its depth in L0 and can only change with it.
    if {"l0_k", "l1_k"} <= set(tiling):
        for factor in (2, 4):
            if tiling["l0_k"] % factor == 0:
                yield (f"l0_k {tiling['l0_k']} -> {tiling['l0_k'] // factor}",
                       {**tiling, "l0_k": tiling["l0_k"] // factor})
        for depth in (1, 2, 4, 8):
            yield f"l1_k {tiling['l1_k']} -> {tiling['l0_k'] * depth}", {**tiling, "l1_k": tiling["l0_k"] * depth}
