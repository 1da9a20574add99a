"""``a8w4``: activations quantized to INT8 per row and split exactly into two INT4 nibbles, times INT4 weights."""

from msdsim.dataflows.msd import register_msd
from msdsim.dataflows.msd_context import MsdKind
from msdsim.formats.msd import MSD_INT8

register_msd(MsdKind("a8w4", MSD_INT8.with_passes(1), "int4", nibbles=True),
             "INT8 activations split into two exact INT4 nibbles, INT4 weights, merged on Vector")
