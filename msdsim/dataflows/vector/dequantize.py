"""Stored weights to FP32: the conversions every consumer of quantized weights begins with."""

from __future__ import annotations

from msdsim.hardware.chip import Chip
from msdsim.ir.builder import KernelBuilder, at
from msdsim.ir.kernel import Slice
from msdsim.ir.ops.vector import vector_casts


def widen(kb: KernelBuilder, chip: Chip, shape: tuple[int, int], wq: Slice, w32: Slice) -> None:
    """Stored weights ``wq``, [lines, run] of a UB tile of ``shape``, as FP32, by way of 16 bits: exact.

    Where Vector has no conversion from FP4, bits are put together instead (``decode_fp4``).
    """
    stored, here = wq.of.fmt, tuple(at(0, size) for size in wq.sizes)
    by_bf16 = (stored, "bf16") in vector_casts(chip)
    w16 = kb.buffer("w16", "UB", "bf16" if by_bf16 else "fp16", shape)[here]
    kb.op("cast" if by_bf16 or stored != "fp4_e2m1" else "decode_fp4", w16, wq)
    kb.op("cast", w32, w16)
