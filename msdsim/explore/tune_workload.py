"""The tuner over a workload: each distinct operator searched alone, and what that gains on the whole.

An operator is searched on an empty L2.  What counts is the workload, where it finds in L2 what others have left: all are run
with what was found, and an operator that is not faster there keeps the tiling that it had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msdsim.errors import InputError
from msdsim.hardware import Hardware
from msdsim.mixes import Chosen, choices, is_best, parse_mix
from msdsim.problems import Workload
from msdsim.problems.model import closest
from msdsim.report.frames import frame
from msdsim.report.result import WorkloadResult
from msdsim.runs import RunOptions
from msdsim.tilings_file import OperatorTiling, Tilings
from msdsim.workload_runs import run_workload

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Searches one problem: (problem, chip, dataflow, options, budget, deadline, progress).
Search = Callable[..., Any]


@dataclass(frozen=True)
class TunedOperator:
    """Operators that are one kernel, and their search; ``kept`` is False where what it found is not faster in the workload.
    ``before_us`` and ``after_us`` are over all their runs in the workload."""

    names: tuple[str, ...]
    problem: str
    dataflow: str
    tuning: Any
    kept: bool
    before_us: float
    after_us: float

    @property
    def tiling(self) -> Mapping[str, int]:
        """The tiling to use."""
        run = self.tuning.best if self.kept else self.tuning.start
        return dict(run.tiling)


@dataclass(frozen=True, repr=False)
class WorkloadTuning:
    """A workload before and after, and the search of each distinct operator, that with most of the time first."""

    start: WorkloadResult
    best: WorkloadResult
    operators: tuple[TunedOperator, ...]
    dataflow: str

    @property
    def speedup(self) -> float:
        return self.start.cycles / self.best.cycles

    @property
    def out_of_time(self) -> bool:
        """Whether a search was stopped by the time limit, so that another machine may find another tiling."""
        return any(item.tuning.ended == "time" for item in self.operators)

    @property
    def tilings(self) -> Tilings:
        """What ``run --tilings`` takes, as an object."""
        return Tilings(self.best.name, self.best.runs[0].result.hardware.name, self.dataflow, tuple(
            OperatorTiling(name, item.problem, item.dataflow, item.tiling) for item in self.operators for name in item.names))

    def __repr__(self) -> str:
        return (f"<WorkloadTuning {self.best.name} with {self.dataflow}: {self.start.time_us:.1f} us -> "
                f"{self.best.time_us:.1f} us>")

    def save(self, file: str) -> None:
        """Write the tilings as a file that ``run --tilings`` and ``simulate(tilings=)`` read."""
        from msdsim.report.files import write_text

        write_text(file, self.tilings.to_toml())

    def to_frame(self) -> pd.DataFrame:
        """One row an operator (install ``msdsim[frames]``)."""
        return frame([{**row, **{f"tiling.{key}": value for key, value in row.pop("tiling").items()}}
                      for row in map(_row, self.operators)])

    def plot(self) -> Figure:
        """Time of every operator before and after."""
        from msdsim.report.tune import plot_workload_tuning

        return plot_workload_tuning(self)

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.tune import workload_tuning_page

        return workload_tuning_page(self)

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.tune_workload/1``."""
        return {"schema": "msdsim.tune_workload/1", "name": self.best.name, "dataflow": self.dataflow,
                "hw": self.best.runs[0].result.hardware.name, "speedup": self.speedup, "out_of_time": self.out_of_time,
                "start": self.start.to_json(), "best": self.best.to_json(),
                "operators": [_row(item) for item in self.operators]}


def _row(item: TunedOperator) -> dict[str, Any]:
    return {"names": list(item.names), "problem": item.problem, "dataflow": item.dataflow, "before_us": item.before_us,
            "after_us": item.after_us, "alone_speedup": item.tuning.speedup, "kept": item.kept,
            "simulations": len(item.tuning.trials), "refused": item.tuning.refused, "ended": item.tuning.ended,
            "tiling": dict(item.tiling)}


def tune_workload(workload: Workload, hardware: Hardware, dataflow: str, options: RunOptions, ops: Sequence[str], budget: int,
                  deadline: float, progress: Callable[[int, int], None] | None, search: Search) -> WorkloadTuning:
    """Search each distinct operator of a workload, or those named in ``ops``, with ``budget`` simulations; what is left of the
    time until ``deadline`` is dealt by the time that operators take in the workload."""
    chosen = choices(workload, parse_mix(dataflow, workload), hardware)
    if any(is_best(part.rpartition("=")[2].strip()) for part in dataflow.replace("+", ",").split(",")):
        # Chosen once, for this run and for the file: every later run takes the same.
        dataflow = ",".join(f"{choice.entry.name}={choice.dataflow}" for choice in chosen)
    groups = _distinct(workload, chosen, ops)
    start = run_workload(workload, hardware, dataflow, options)
    spent = {run.name: run.count * run.result.time_us for run in start.runs}
    groups.sort(key=lambda group: -sum(spent[choice.entry.name] for choice in group))
    tunings = _search_all(groups, spent, hardware, options, budget, deadline, progress, search)
    kept = [tuning.best.tiling != tuning.start.tiling for tuning in tunings]
    best = start
    while any(kept):
        tilings = {choice.entry.name: tuning.best.tiling
                   for group, tuning, keep in zip(groups, tunings, kept, strict=True) if keep for choice in group}
        best = run_workload(workload, hardware, dataflow, options, tilings=tilings)
        after = {run.name: run.count * run.result.time_us for run in best.runs}
        worse = [keep and _sum(group, after) > _sum(group, spent) for group, keep in zip(groups, kept, strict=True)]
        if not any(worse) and best.cycles <= start.cycles:
            break
        # Where none is slower itself, one slows down what follows it: only leaving out all is certain to help.
        kept = [keep and any(worse) and not bad for keep, bad in zip(kept, worse, strict=True)]
        best = start
    after = {run.name: run.count * run.result.time_us for run in best.runs}
    return WorkloadTuning(start, best, tuple(
        TunedOperator(tuple(choice.entry.name for choice in group), str(group[0].problem), group[0].dataflow, tuning,
                      keep or tuning.best.tiling == tuning.start.tiling, _sum(group, spent), _sum(group, after))
        for group, tuning, keep in zip(groups, tunings, kept, strict=True)), dataflow)


def _sum(group: Sequence[Chosen], times: Mapping[str, float]) -> float:
    return sum(times[choice.entry.name] for choice in group)


def _distinct(workload: Workload, chosen: Sequence[Chosen], ops: Sequence[str]) -> list[list[Chosen]]:
    names = [entry.name for entry in workload.entries]
    for name in ops:
        if name not in names:
            raise InputError(f"'{name[:200]}' is no operator of '{workload.name}'{closest(name, names)} ({', '.join(names)})")
    groups: dict[tuple[str, str], list[Chosen]] = {}
    for choice in chosen:
        groups.setdefault((str(choice.problem), choice.dataflow), []).append(choice)
    return [group for group in groups.values() if not ops or any(choice.entry.name in ops for choice in group)]


def _search_all(groups: Sequence[Sequence[Chosen]], spent: Mapping[str, float], hardware: Hardware, options: RunOptions,
                budget: int, deadline: float, progress: Callable[[int, int], None] | None, search: Search) -> list[Any]:
    found = []
    for number, group in enumerate(groups):
        left = sum(_sum(other, spent) for other in groups[number:])
        now = time.monotonic()
        share = max(1e-6, _sum(group, spent) / left) if left else 1.0

        def done(finished: int, _: int, before: int = number * budget) -> None:
            if progress is not None:
                progress(before + finished, len(groups) * budget)

        until = now + (deadline - now) * share
        found.append(search(group[0].problem, hardware, group[0].dataflow, options, budget, until, done))
        done(budget, budget)
    return found
