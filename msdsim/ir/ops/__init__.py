"""Operations of the kernel IR, one file a family; importing this package registers them all."""

from msdsim.ir.ops import copies, cube, mx, softmax, sync, vector
from msdsim.ir.ops.base import OPS, Arithmetic, Execution, OpDef, define

__all__ = ["OPS", "Arithmetic", "Execution", "OpDef", "copies", "cube", "define", "mx", "softmax", "sync", "vector"]
