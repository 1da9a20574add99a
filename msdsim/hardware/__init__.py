"""Chips as data: the validated chip model, chip files with provenance, and the cost rules of each unit."""

from msdsim.hardware.chip import Chip, Hardware, Provenance
from msdsim.hardware.load import load_hw, override, parse_value

__all__ = ["Chip", "Hardware", "Provenance", "load_hw", "override", "parse_value"]
