"""The choice of tilings: what an expert would start from, for every dataflow; one file for each family of them."""

from msdsim.tilings import attention, bf16, dequant, msd, mxfp8
from msdsim.tilings.base import automatic_tiling, choose_for, choose_tiling

__all__ = ["attention", "automatic_tiling", "bf16", "choose_for", "choose_tiling", "dequant", "msd", "mxfp8"]
