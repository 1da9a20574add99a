"""``msd-int4``: INT4 components of the activations (factors 7 and 14, three passes) times INT4 weights."""

from msdsim.dataflows.msd import register_msd
from msdsim.dataflows.msd_context import MsdKind
from msdsim.formats.msd import MSD_INT4

register_msd(MsdKind("msd-int4", MSD_INT4, "int4"),
             "BF16 activations split into INT4 components, INT4 weights as they are, merged on Vector")
