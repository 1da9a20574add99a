"""Golden schedules: what a kernel did on a chip, recorded, so that a later change of it does not pass unseen."""

from msdsim.schedules.difference import Difference, changed_choice, differences
from msdsim.schedules.files import load_schedule, save_schedule, schedule_files
from msdsim.schedules.golden import AnySchedule, AnyVerdict, choices_today, compare, hold, record
from msdsim.schedules.profile import Profile, lay_beside
from msdsim.schedules.schedule import Schedule, choice_now, record_schedule, recorded_kernel_now, repeat_schedule
from msdsim.schedules.verdict import Limits, Verdict, judge, read_share
from msdsim.schedules.workload import (
    WorkloadSchedule,
    WorkloadVerdict,
    changed_choices,
    judge_workload,
    record_workload,
    repeat_workload,
)

__all__ = [
    "AnySchedule",
    "AnyVerdict",
    "Difference",
    "Limits",
    "Profile",
    "Schedule",
    "Verdict",
    "WorkloadSchedule",
    "WorkloadVerdict",
    "changed_choice",
    "changed_choices",
    "choice_now",
    "choices_today",
    "compare",
    "differences",
    "hold",
    "judge",
    "judge_workload",
    "lay_beside",
    "load_schedule",
    "read_share",
    "record",
    "record_schedule",
    "record_workload",
    "recorded_kernel_now",
    "repeat_schedule",
    "repeat_workload",
    "save_schedule",
    "schedule_files",
]
