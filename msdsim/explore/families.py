"""Families of measured kernels: what kind of kernel a row of a validation file is, since each has an error of its own."""

from __future__ import annotations

from msdsim.errors import MsdsimError
from msdsim.problems import Attention, Gemm, GroupedGemm, Micro, parse_inline

#: A GEMM that takes less is short, in microseconds; one of at most so many rows is a decode GEMM.
SHORT_US, DECODE_ROWS = 100.0, 64
#: Queries of an attention that count as decoding, and those from which a prefill is long.
DECODE_QUERIES, LONG_QUERIES = 16, 32768

FAMILIES = (
    "GEMM from 100 us", "GEMM below 100 us", "decode GEMM", "weight-only GEMM", "grouped GEMM", "MSD", "attention decode",
    "attention prefill", "long prefill", "copy", "other",
)


def family_of(problem: str, dataflow: str, measured_us: float | None) -> str:
    """One of :data:`FAMILIES`, by the problem as it is published, its dataflow and its time."""
    try:
        shape = parse_inline(problem)
    except MsdsimError:
        return "copy" if problem.startswith("copy ") else "other"
    if isinstance(shape, Attention):
        if shape.q <= DECODE_QUERIES:
            return "attention decode"
        return "long prefill" if shape.q >= LONG_QUERIES else "attention prefill"
    if dataflow.startswith("msd"):
        return "MSD"
    if isinstance(shape, Micro):
        return "copy" if shape.op.endswith("_matrix") else "other"
    if isinstance(shape, GroupedGemm):
        return "grouped GEMM"
    assert isinstance(shape, Gemm)
    if dataflow.startswith(("dequant", "vendor")):
        return "weight-only GEMM"
    if shape.m <= DECODE_ROWS:
        return "decode GEMM"
    return "GEMM from 100 us" if measured_us is not None and measured_us >= SHORT_US else "GEMM below 100 us"
