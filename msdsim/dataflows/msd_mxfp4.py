"""``msd-mxfp4``: MXFP4 components of the activations (block scales alpha/4 and alpha/32) times MXFP4 weights."""

from msdsim.dataflows.msd import register_msd
from msdsim.dataflows.msd_context import MsdKind
from msdsim.formats.msd import MSD_MXFP4

register_msd(MsdKind("msd-mxfp4", MSD_MXFP4, "fp4_e2m1"),
             "BF16 activations split into MXFP4 components, MXFP4 weights as they are, added up on Vector")
