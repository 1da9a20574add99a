"""Golden schedules: what a kernel did on a chip, recorded, so that a later change of it does not pass unseen."""

from msdsim.schedules.difference import Difference, changed_choice, differences
from msdsim.schedules.schedule import Schedule, choice_now, load_schedule, record_schedule, repeat_schedule, save_schedule

__all__ = [
    "Difference",
    "Schedule",
    "changed_choice",
    "choice_now",
    "differences",
    "load_schedule",
    "record_schedule",
    "repeat_schedule",
    "save_schedule",
]
