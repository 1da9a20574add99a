"""Chips as data: the validated chip model, chip files with provenance, and the cost rules of each unit."""

from msdsim.hardware.chip import Chip
from msdsim.hardware.hardware import Hardware, Provenance, override, parse_value
from msdsim.hardware.load import load_hw

__all__ = ["Chip", "Hardware", "Provenance", "load_hw", "override", "parse_value"]
