"""Golden schedules: what a kernel did on a chip, recorded, so that a later change of it does not pass unseen."""

from msdsim.schedules.difference import Difference, changed_choice, differences
from msdsim.schedules.files import load_schedule, save_schedule, schedule_files
from msdsim.schedules.profile import Profile, lay_beside
from msdsim.schedules.schedule import Schedule, choice_now, record_schedule, recorded_kernel_now, repeat_schedule
from msdsim.schedules.verdict import Limits, Verdict, judge, read_share

__all__ = [
    "Difference",
    "Limits",
    "Profile",
    "Schedule",
    "Verdict",
    "changed_choice",
    "choice_now",
    "differences",
    "judge",
    "lay_beside",
    "load_schedule",
    "read_share",
    "record_schedule",
    "recorded_kernel_now",
    "repeat_schedule",
    "save_schedule",
    "schedule_files",
]
