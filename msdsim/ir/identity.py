"""When two kernels are the same, however they are spelled."""

from __future__ import annotations

import hashlib

from msdsim.ir.kernel import Kernel
from msdsim.ir.lets import plain
from msdsim.ir.printer import full_text


def kernel_hash(kernel: Kernel) -> str:
    """SHA-256 of the kernel with its names put in, every expression in its simplest form and every range written out, the
    identity that golden schedules record: how a kernel is spelled does not matter."""
    return hashlib.sha256(full_text(plain(kernel)).encode()).hexdigest()
