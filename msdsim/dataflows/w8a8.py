"""``w8a8``: activations quantized to INT8 per row: Multi-Scale Dequant with a single pass."""

from msdsim.dataflows.msd import register_msd
from msdsim.dataflows.msd_context import MsdKind
from msdsim.formats.msd import MSD_INT8

register_msd(MsdKind("w8a8", MSD_INT8.with_passes(1), "int8"),
             "activations quantized to INT8 per row on Vector, one INT8 Cube pass, scaled on Vector")
