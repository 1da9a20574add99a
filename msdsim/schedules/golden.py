"""Golden schedules of whatever was asked for: a problem, a hand-written kernel, or the operators of a workload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msdsim.errors import InputError
from msdsim.ir.kernel import Kernel
from msdsim.problems import KernelFile, Problem, Workload
from msdsim.runs import DEFAULT_ENGINE
from msdsim.schedules.difference import Difference, changed_choice
from msdsim.schedules.schedule import Schedule, choice_now, record_schedule, recorded_kernel_now, repeat_schedule
from msdsim.schedules.verdict import Limits, Verdict, judge
from msdsim.schedules.workload import (
    WorkloadSchedule,
    WorkloadVerdict,
    changed_choices,
    judge_workload,
    record_workload,
    repeat_workload,
)

AnySchedule = Schedule | WorkloadSchedule
AnyVerdict = Verdict | WorkloadVerdict


def record(asked: Problem | Kernel | KernelFile | Workload, hw: str, dataflow: str = "bf16", *, warm: bool = False,
           reference: str | None = None, **options: Any) -> AnySchedule:
    """Simulate and record what was asked for; the options are those of :func:`record_schedule`."""
    if not isinstance(asked, Workload):
        return record_schedule(asked, hw, dataflow, warm=warm, reference=reference, **options)
    if warm:
        raise InputError(f"warm belongs to one problem; the operators of '{asked.name}' find in L2 what those before them have "
                         f"left; leave it out")
    if reference is not None:
        raise InputError(f"a reference belongs to a hand-written kernel; the operators of '{asked.name}' have those of their "
                         f"dataflows; leave it out")
    return record_workload(asked, hw, dataflow, **options)


def choices_today(recorded: AnySchedule, folder: Path) -> Sequence[Difference]:
    """Where another tiling or dataflow would be chosen today for the request of a schedule in ``folder``."""
    if isinstance(recorded, WorkloadSchedule):
        return changed_choices(recorded, folder)
    return [] if recorded.of_kernel else changed_choice(recorded, choice_now(recorded, folder))


def hold(recorded: AnySchedule, folder: Path, limits: Limits | None = None,
         engine: str = DEFAULT_ENGINE) -> tuple[AnyVerdict, Sequence[Difference]]:
    """What the request of a schedule in ``folder`` gives now beside what was recorded, and where another tiling or dataflow
    would be chosen today.  InputError, or an error of the request, where it can no longer be repeated."""
    now = repeat_workload(recorded, folder, engine) if isinstance(recorded, WorkloadSchedule) else \
        repeat_schedule(recorded, folder, engine)
    return compare(recorded, now, limits, folder, engine), choices_today(recorded, folder)


def compare(before: AnySchedule, after: AnySchedule, limits: Limits | None = None, folder: Path | None = None,
            engine: str = DEFAULT_ENGINE) -> AnyVerdict:
    """Two schedules side by side; InputError where one is that of a workload and the other is not.  Where they are of two
    kernels, and the earlier one lies in ``folder``, its kernel runs again: that tells the kernel's share of the change."""
    if isinstance(before, WorkloadSchedule) and isinstance(after, WorkloadSchedule):
        return judge_workload(before, after, limits)
    if isinstance(before, Schedule) and isinstance(after, Schedule):
        if folder is None or before.kernel_sha256 == after.kernel_sha256:
            return judge(before, after, limits)
        return judge(before, after, limits, recorded_kernel_now(before, folder, engine))
    raise InputError("one of the two is the schedule of a workload and the other is not; give two of a kind")


def single(schedule: AnySchedule, what: str) -> Schedule:
    """A schedule that is none of a workload; ``what`` says who asks."""
    if isinstance(schedule, Schedule):
        return schedule
    names = ", ".join(entry.name for entry in schedule.entries[:4])
    raise InputError(f"{what} takes the schedule of one kernel, and this one is of a workload ({names}, ...)")
