"""What happened: columns and totals that engines write and analysis reads."""

from msdsim.timeline.record import CATEGORIES, TIMELINE_COLUMNS, TRAFFIC, Bandwidth, RunRecord, Units

__all__ = ["CATEGORIES", "TIMELINE_COLUMNS", "TRAFFIC", "Bandwidth", "RunRecord", "Units"]
