"""The schedule of a workload: those of its operators in their order, as each finds L2, and what they weigh together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from msdsim.errors import InputError
from msdsim.mixes import Chosen, Mix, choices, parse_mix
from msdsim.problems import Workload, parse_problem
from msdsim.problems.workload import definition, workload_of
from msdsim.runs import DEFAULT_ENGINE, RunOptions
from msdsim.schedules.difference import Difference
from msdsim.schedules.schedule import Schedule, chip_of, choice_now, schedule_of_run
from msdsim.schedules.verdict import Limits, Verdict, judge
from msdsim.version import __version__
from msdsim.workload_runs import run_workload


class EntrySchedule(BaseModel):
    """The schedule of one operator, on what those before it have left in L2; it runs ``count`` times."""

    model_config = ConfigDict(frozen=True)

    name: str
    count: int
    schedule: Schedule


class WorkloadSchedule(BaseModel):
    """What the operators of a workload did, schema ``msdsim.workload_schedule/1``.

    ``workload`` is its definition as a workload file has it, so that it is repeated as it was, whatever becomes of the file;
    ``dataflow`` one for all or a mix.  ``cycles`` are those of all operators, each weighed by its count.  The schedules of the
    operators go without the numbers of the ``chip``, which stand here once.
    """

    model_config = ConfigDict(frozen=True)

    schema_name: Literal["msdsim.workload_schedule/1"] = Field(default="msdsim.workload_schedule/1", alias="schema")
    msdsim: str
    workload: dict[str, Any]
    hw: str
    overrides: dict[str, int | float | str]
    dataflow: str
    memory: str
    tiling_given: dict[str, int]
    cycles: int
    chip: dict[str, Any]
    entries: Annotated[tuple[EntrySchedule, ...], Field(min_length=1)]

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The schedule of every operator by its name, with the numbers of the chip."""
        return {entry.name: entry.schedule.model_copy(update={"chip": self.chip}) for entry in self.entries}

    @property
    def complete(self) -> bool:
        """Whether it holds the text of every kernel."""
        return all(entry.schedule.complete for entry in self.entries)

    @property
    def numbers(self) -> dict[str, Any]:
        """What was pinned of the numbers of the first operator; empty where none were."""
        return self.entries[0].schedule.numbers


def record_workload(
    workload: Workload, hw: str, dataflow: str = "bf16", *, overrides: Mapping[str, object] | None = None,
    tiling: Mapping[str, int] | None = None, memory: str = "bandwidth", engine: str = DEFAULT_ENGINE,
    folder: Path | None = None, numbers: bool = False, seed: int = 0, like: WorkloadSchedule | None = None,
) -> WorkloadSchedule:
    """Simulate the operators of a workload and record them.  A chip file is looked for from ``folder``.

    Operators that ``like`` has run with the dataflows and tilings that it holds, whatever would be chosen today.
    """
    hardware = chip_of(hw, overrides or {}, folder)
    options = RunOptions(tiling=tiling, memory=memory, engine=engine, check=numbers, keep=("y",) if numbers else (), seed=seed)
    ran = {} if like is None else like.schedules
    fixed = replace(workload, entries=tuple(
        replace(entry, dataflow=ran[entry.name].dataflow) if entry.name in ran else entry for entry in workload.entries))
    mix = dataflow if like is None else _of_the_others(parse_mix(dataflow, workload))
    found = run_workload(fixed, hardware, mix, options, tilings={name: schedule.tiling for name, schedule in ran.items()})
    schedules = [schedule_of_run(run.result, hw, hardware, dict(tiling or {})) for run in found.runs]
    return WorkloadSchedule(
        msdsim=__version__, workload=definition(workload), hw=hw, overrides=found.runs[0].result.overrides, dataflow=dataflow,
        memory=memory, tiling_given=dict(tiling or {}), cycles=found.cycles, chip=schedules[0].chip,
        entries=tuple(EntrySchedule(name=run.name, count=run.count, schedule=schedule.model_copy(update={"chip": {}}))
                      for run, schedule in zip(found.runs, schedules, strict=True)),
    )


def _of_the_others(mix: Mix) -> str:
    """A mix without what it says of operators by their own names, which would overrule what was recorded of them."""
    parts = [f"{kind}={name}" for kind, name in mix.kinds.items()] + ([mix.default] if mix.default else [])
    return ",".join(parts) or "bf16"


def _workload(recorded: WorkloadSchedule) -> Workload:
    found = workload_of(recorded.workload, "workload", "the recorded workload", _problem)
    names = [entry.name for entry in found.entries]
    if names != [entry.name for entry in recorded.entries]:
        raise InputError(f"its workload has the operators {', '.join(names)}, its schedules are of others; record it again")
    return found


def _problem(text: str) -> Any:
    return parse_problem(text)


def repeat_workload(recorded: WorkloadSchedule, folder: Path, engine: str = DEFAULT_ENGINE) -> WorkloadSchedule:
    """What the recorded request gives now, every operator with the dataflow and the tiling that were recorded."""
    return record_workload(
        _workload(recorded), recorded.hw, recorded.dataflow, overrides=recorded.overrides, tiling=recorded.tiling_given,
        memory=recorded.memory, engine=engine, folder=folder, numbers=bool(recorded.numbers),
        seed=recorded.numbers.get("seed", 0), like=recorded)


def changed_choices(recorded: WorkloadSchedule, folder: Path) -> list[Difference]:
    """Where another dataflow or tiling would be chosen for an operator today."""
    hardware = chip_of(recorded.hw, recorded.overrides, folder)
    workload = _workload(recorded)
    found = []
    for choice in choices(workload, parse_mix(recorded.dataflow, workload), hardware):
        found += list(_choice(choice, recorded.schedules[choice.entry.name], folder))
    return found


def _choice(choice: Chosen, recorded: Schedule, folder: Path) -> Iterator[Difference]:
    if choice.dataflow != recorded.dataflow:
        yield Difference(f"{choice.entry.name} dataflow", recorded.dataflow, choice.dataflow)
        return
    now = choice_now(recorded, folder)
    for key in dict.fromkeys([*recorded.tiling, *now]):
        if recorded.tiling.get(key) != now.get(key):
            yield Difference(f"{choice.entry.name} {key}", str(recorded.tiling.get(key)), str(now.get(key)))


@dataclass(frozen=True)
class WorkloadVerdict:
    """A workload's schedule beside the recorded one: what was asked for, the total, and a verdict for every operator that both
    have.  Limits are those of the total; a changed request or changed numbers are forgiven by none."""

    before: WorkloadSchedule
    after: WorkloadSchedule
    limits: Limits
    request: tuple[Difference, ...]
    entries: Mapping[str, Verdict]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.request and all(verdict.same for verdict in self.entries.values())

    @property
    def good(self) -> bool:
        """Whether it is within the limits."""
        if self.limits.exact:
            return self.same
        return not self.request and self.limits.allow(self.before.cycles, self.after.cycles) and \
            all(verdict.as_asked for verdict in self.entries.values())

    @property
    def count(self) -> int:
        """How many values differ."""
        return len(self.request) + sum(len(verdict.differences) for verdict in self.entries.values())

    @property
    def changed(self) -> dict[str, Verdict]:
        """Verdicts that are not the same, those that move the total most first."""
        found = [(name, verdict) for name, verdict in self.entries.items() if not verdict.same]
        return dict(sorted(found, key=lambda item: -abs(self.moved(item[0]))))

    def moved(self, name: str) -> int:
        """Cycles that an operator adds to the total, all its runs together."""
        count = next(entry.count for entry in self.after.entries if entry.name == name)
        return count * (self.entries[name].after.cycles - self.entries[name].before.cycles)

    @property
    def headline(self) -> str:
        """What a person wants to know, in one line."""
        before, after = self.before.cycles, self.after.cycles
        if self.same:
            return f"{after:,} cycles of {len(self.after.entries)} operators, the same schedules"
        total = f"{before:,} -> {after:,} cycles ({100 * (after - before) / before:+.1f}%)" if before != after else \
            f"{after:,} cycles as before"
        if self.request:
            return f"{total}: {self.request[0].what} {self.request[0].before} -> {self.request[0].after}"
        name, verdict = next(iter(self.changed.items()))
        others = len(self.changed) - 1
        rest = f", and {others} other operator{'s' if others > 1 else ''}" if others else ""
        return f"{total}: '{name}' {verdict.headline}{rest}"

    def to_json(self) -> dict[str, Any]:
        """As a verdict of one schedule, with one for every operator that differs."""
        before, after = self.before.cycles, self.after.cycles
        return {
            "status": "same" if self.same else "within" if self.good else "differs", "headline": self.headline,
            "cycles": {"before": before, "after": after, "change": (after - before) / before},
            "limits": self.limits.to_json(), "version": {"before": self.before.msdsim, "after": self.after.msdsim},
            "differences": [item.to_json() for item in self.request],
            "entries": [{"name": name, "moved": self.moved(name)} | verdict.to_json()
                        for name, verdict in self.changed.items()],
        }


def judge_workload(before: WorkloadSchedule, after: WorkloadSchedule, limits: Limits | None = None) -> WorkloadVerdict:
    """Lay the schedule of a workload beside the recorded one."""
    verdicts = {name: judge(schedule, after.schedules[name], limits) for name, schedule in before.schedules.items()
                if name in after.schedules}
    return WorkloadVerdict(before, after, limits or Limits(), tuple(_request(before, after)), verdicts)


def _request(before: WorkloadSchedule, after: WorkloadSchedule) -> Iterator[Difference]:
    for name in ("hw", "dataflow", "memory", "overrides"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield Difference(name, str(old), str(new))
    old, new = ({item["name"]: item for item in schedule.workload["op"]} for schedule in (before, after))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield Difference(f"operator {name}", _operator(old.get(name)), _operator(new.get(name)))
    if list(old) != list(new) and sorted(old) == sorted(new):
        yield Difference("order", ", ".join(old), ", ".join(new))


def _operator(item: Mapping[str, Any] | None) -> str:
    return "(none)" if item is None else " ".join(f"{key}={value}" for key, value in item.items() if key != "name")
