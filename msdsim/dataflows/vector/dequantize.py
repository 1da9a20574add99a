"""Stored weights to FP32: the conversions every consumer of quantized weights begins with."""

from __future__ import annotations

from msdsim.hardware.chip import Chip
from msdsim.ir import KernelBuilder, Slice, at
from msdsim.ir.ops.vector import vector_casts


def widen(kb: KernelBuilder, chip: Chip, shape: tuple[int, int], wq: Slice, w32: Slice) -> None:
    """Stored weights ``wq``, [lines, run] of a UB tile of ``shape``, as FP32, by way of 16 bits in a tile of their own."""
    half = "bf16" if (wq.of.fmt, "bf16") in vector_casts(chip) else "fp16"
    to_fp32(kb, wq, kb.buffer("w16", "UB", half, shape)[tuple(at(0, size) for size in wq.sizes)], w32)


def to_fp32(kb: KernelBuilder, wq: Slice, w16: Slice, w32: Slice) -> None:
    """Stored elements as FP32, by way of 16 bits: exact.

    FP4 becomes FP16 by putting its bits together (``decode_fp4``), where Vector has no conversion to BF16.
    """
    decode = wq.of.fmt == "fp4_e2m1" and w16.of.fmt == "fp16"
    kb.op("decode_fp4" if decode else "cast", w16, wq)
    kb.op("cast", w32, w16)
