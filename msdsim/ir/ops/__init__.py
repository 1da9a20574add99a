"""Operations of the kernel IR, one file a family; importing this package registers them all."""

from msdsim.ir.ops import copies, cube, mx, softmax, sync, vector
from msdsim.ir.ops.base import OPS, Arithmetic, Evaluation, OpDef, define
from msdsim.moved import renamed

__getattr__ = renamed(__name__)

__all__ = ["OPS", "Arithmetic", "Evaluation", "OpDef", "copies", "cube", "define", "mx", "softmax", "sync", "vector"]
