"""Kernel IR: one typed description of a kernel that the timing engines and the numeric executor both read.

A kernel is written with the names of this package; :class:`KernelBuilder` collects it.
"""

from msdsim.ir.builder import At, Handle, KernelBuilder, Tile, at
from msdsim.ir.expr import Const, Expr, ExprLike, lift, maximum, minimum, ragged, share_of, tiles_of
from msdsim.ir.identity import kernel_hash
from msdsim.ir.kernel import Kernel, Op, Slice
from msdsim.ir.ops import OPS
from msdsim.ir.printer import print_kernel

__all__ = [
    "OPS", "At", "Const", "Expr", "ExprLike", "Handle", "Kernel", "KernelBuilder", "Op", "Slice", "Tile", "at", "kernel_hash",
    "lift", "maximum", "minimum", "print_kernel", "ragged", "share_of", "tiles_of",
]
