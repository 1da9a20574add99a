"""The tuner: a deterministic hill climb over a dataflow's tiling, every candidate simulated.

From the automatic tiling it tries, key by key, the neighbours that a person would try (half, double, the next smaller and
larger step) and moves to the best; it ends when no neighbour is faster or the budget is spent.  Tilings that do not fit the
chip cost nothing but the attempt to build them.

Of a hand-written kernel the values of its params are searched: all of them where the budget allows it, else by the same climb.
A candidate counts only if the order of its accesses holds and, with a reference, its numbers are right: a race, or a tile left
out, is fast.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msdsim.dataflows.lookup import find_dataflow
from msdsim.errors import CheckFailed, Deadlock, InputError, KernelError
from msdsim.explore.tune_workload import tune_workload
from msdsim.hardware import Hardware
from msdsim.ir.kernel import Kernel
from msdsim.problems import Problem, Workload
from msdsim.report.frames import frame
from msdsim.report.result import Result
from msdsim.runs import RunOptions, as_hardware, read_problem, require_check, run
from msdsim.tilings.search import shortlist

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

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
class Refusal:
    """A tiling that was no candidate, and why."""

    change: str
    tiling: Mapping[str, int]
    reason: str


@dataclass(frozen=True, repr=False)
class Tuning:
    """What the search found: ``start`` is the run it started from, ``best`` the fastest, ``trials`` all in order, ``refusals``
    what could not run.  ``complete`` says that nothing was left to try, ``ended`` why the search stopped: ``budget``, ``time``,
    or empty where it had come to its end."""

    start: Result
    best: Result
    trials: list[Trial]
    refusals: list[Refusal]
    complete: bool = False
    ended: str = ""

    @property
    def speedup(self) -> float:
        return self.start.cycles / self.best.cycles

    @property
    def refused(self) -> int:
        """How many tilings were no candidates."""
        return len(self.refusals)

    def __repr__(self) -> str:
        times = f"{self.start.time_us:.1f} us -> {self.best.time_us:.1f} us"
        return f"<Tuning {self.best.dataflow} on {self.best.hardware.name}: {times} in {len(self.trials)} simulations>"

    def to_frame(self) -> pd.DataFrame:
        """One row a simulated tiling, in the order of the search (install ``msdsim[frames]``)."""
        clock = float(self.best.hardware.chip.clock_mhz)
        return frame([{"change": trial.change, "cycles": trial.cycles, "time_us": trial.cycles / clock,
                       **{f"tiling.{key}": value for key, value in trial.tiling.items()}} for trial in self.trials])

    def plot(self) -> Figure:
        """Every simulated tiling in the order of the search, and the fastest so far."""
        from msdsim.report.tune import plot_tuning

        return plot_tuning(self)

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.tune import tuning_page

        return tuning_page(self)

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.tune/1``."""
        return {"schema": "msdsim.tune/1", "start": self.start.to_json(), "best": self.best.to_json(), "speedup": self.speedup,
                "refused": self.refused, "complete": self.complete, "ended": self.ended,
                "trials": [{"change": t.change, "tiling": dict(t.tiling), "cycles": t.cycles} for t in self.trials],
                "refusals": [{"change": r.change, "tiling": dict(r.tiling), "reason": r.reason} for r in self.refusals]}


class _Search:
    """What was tried so far, each tiling once; at most ``budget`` simulations, none begun after ``deadline`` (of
    ``time.monotonic``)."""

    def __init__(self, simulate: Callable[[Mapping[str, int]], Result], start: Result, budget: int, deadline: float,
                 progress: Callable[[int, int], None] | None) -> None:
        self.simulate, self.start, self.best, self.budget, self.progress = simulate, start, start, budget, progress
        self.deadline = deadline
        self.trials = [Trial("start", start.tiling, start.cycles)]
        self.refusals: list[Refusal] = []
        self.seen = {_key(start.tiling)}

    @property
    def ended(self) -> str:
        """What forbids another simulation; empty where nothing does."""
        return "budget" if len(self.trials) >= self.budget else "time" if time.monotonic() >= self.deadline else ""

    def attempt(self, change: str, tiling: Mapping[str, int]) -> None:
        """Simulate a tiling that was not seen before, while there is budget and time; too large for a buffer, not a multiple,
        too many flags: not a candidate."""
        if _key(tiling) in self.seen or self.ended:
            return
        self.seen.add(_key(tiling))
        try:
            found = self.simulate(tiling)
        except (InputError, CheckFailed) as err:
            self.refusals.append(Refusal(change, tiling, str(err)))
            return
        self.trials.append(Trial(change, tiling, found.cycles))
        if self.progress is not None:
            self.progress(len(self.trials), self.budget)
        if found.cycles < self.best.cycles:
            self.best = found

    def climb(self, around: Callable[[Mapping[str, int]], Iterator[tuple[str, dict[str, int]]]]) -> None:
        """Move to the best neighbour until none is faster, or budget or time is spent."""
        before = None
        while self.best is not before and not self.ended:
            before = self.best
            for change, candidate in around(before.tiling):
                self.attempt(change, candidate)

    def found(self, complete: bool = False) -> Tuning:
        return Tuning(self.start, self.best, self.trials, self.refusals, complete, "" if complete else self.ended)


def tune(problem: str | Path | Problem | Workload | Kernel, hw: str | Path | Hardware = "ascend910b1",
         dataflow: str | None = None, budget: int = 200, *, ops: Sequence[str] = (), time_limit: float | None = None,
         progress: Callable[[int, int], None] | None = None, options: RunOptions | None = None,
         **changes: Any) -> Tuning | Any:
    """Search tilings of ``dataflow`` (``bf16``, or what a workload's file says), or the params of a kernel, with at most
    ``budget`` simulations, starting from the automatic tiling with the values of ``options.tiling`` in place; keywords change
    single options.

    Of a workload, which gives a :class:`~msdsim.explore.tune_workload.WorkloadTuning`, each distinct operator is searched with
    ``budget`` simulations, those named in ``ops`` alone where there are any; ``dataflow`` may be a mix.  No simulation begins
    after ``time_limit`` seconds, which makes what is found depend on the machine (None: no limit)."""
    if budget < 1:
        raise InputError(f"a budget of {budget} simulations is below 1; give at least 1")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"a time limit of {time_limit:g} s is no time; give more than 0")
    shape, hardware, chosen = read_problem(problem), as_hardware(hw), (options or RunOptions()).but(**changes)
    deadline = time.monotonic() + (math.inf if time_limit is None else time_limit)
    if isinstance(shape, Workload):
        return tune_workload(shape, hardware, dataflow or shape.dataflow or "bf16", chosen, ops, budget, deadline, progress,
                             _tune_problem)
    if ops:
        raise InputError(f"operators ({', '.join(ops)[:200]}) are those of a workload, and this is one problem; leave them out")
    if isinstance(shape, Kernel):
        return _tune_kernel(shape, hardware, chosen, budget, deadline, progress)
    return _tune_problem(shape, hardware, dataflow or "bf16", chosen, budget, deadline, progress)


def _tune_problem(shape: Any, hardware: Hardware, dataflow: str, options: RunOptions, budget: int, deadline: float,
                  progress: Callable[[int, int], None] | None) -> Tuning:
    search = _Search(lambda tiling: run(shape, hardware, dataflow, options.but(tiling=tiling)),
                     run(shape, hardware, dataflow, options), budget, deadline, progress)
    # What the automatic choice would have had judged with more time; the climb then starts from the best of it.
    table = shortlist(find_dataflow(shape, dataflow), shape, hardware.chip, dict(options.tiling or {}), _WIDTH)
    for candidate in table[: budget // 3]:
        search.attempt("another of the table", candidate)
    search.climb(neighbours)
    return search.found()


def _tune_kernel(kernel: Kernel, hardware: Hardware, options: RunOptions, budget: int, deadline: float,
                 progress: Callable[[int, int], None] | None) -> Tuning:
    """Search the params of a kernel that ``options.tiling`` leaves open."""
    given = dict(options.tiling or {})
    choices = {let.name: let.choices for let in kernel.lets if let.choices and let.name not in given}
    if not choices:
        raise InputError(f"kernel '{kernel.name}' leaves nothing open to tune; 'param NAME = N in [N, ...]' in its text says "
                         f"what may be chosen")

    def simulate(tiling: Mapping[str, int]) -> Result:
        try:
            found = run(kernel, hardware, "", options.but(tiling={**given, **tiling}, check=True))
        except Deadlock as err:
            raise KernelError(str(err)) from None
        require_check(found)
        return found

    def around(tiling: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
        for name, values in choices.items():
            for value in values:
                yield f"{name} {tiling[name]} -> {value}", {**tiling, name: value}

    search = _Search(simulate, simulate({}), budget, deadline, progress)
    complete = math.prod(map(len, choices.values())) <= budget
    if complete:
        for values in itertools.product(*choices.values()):
            tiling = {**search.start.tiling, **dict(zip(choices, values, strict=True))}
            search.attempt(",".join(f"{name}={tiling[name]}" for name in choices), tiling)
    else:
        search.climb(around)
    return search.found(complete and search.ended != "time")


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
