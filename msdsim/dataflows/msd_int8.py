"""``msd-int8``: INT8 components of the activations (factors 127 and 254) times INT8 weights."""

from msdsim.dataflows.msd import register_msd
from msdsim.dataflows.msd_context import MsdKind
from msdsim.formats.msd import MSD_INT8

register_msd(MsdKind("msd-int8", MSD_INT8, "int8"),
             "BF16 activations split into INT8 components, INT8 weights as they are, merged on Vector")
