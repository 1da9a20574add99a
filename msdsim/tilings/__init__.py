"""The choice of tilings: every dataflow states its candidates and what they cost, one search ranks and judges them."""

from typing import Any

from msdsim.dataflows.base import Dataflow
from msdsim.hardware.chip import Chip
from msdsim.tilings import attention, attention_dequant, bf16, convert, dequant, msd, mx, mxfp8
from msdsim.tilings.search import Choice, choose, choose_tiling


def automatic_tiling(dataflow: Dataflow, problem: Any, chip: Chip) -> Any:
    """The tiling that nobody had to give."""
    return choose_tiling(dataflow, problem, chip)


__all__ = ["Choice", "attention", "attention_dequant", "automatic_tiling", "bf16", "choose", "choose_tiling", "convert",
           "dequant", "msd", "mx", "mxfp8"]
