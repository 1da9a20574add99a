"""Kernel IR: one typed description of a kernel that the timing engines and the numeric executor both read."""

from msdsim.ir.builder import KernelBuilder, at
from msdsim.ir.identity import kernel_hash
from msdsim.ir.kernel import Kernel, Op, Slice
from msdsim.ir.ops import OPS
from msdsim.ir.printer import print_kernel

__all__ = ["OPS", "Kernel", "KernelBuilder", "Op", "Slice", "at", "kernel_hash", "print_kernel"]
