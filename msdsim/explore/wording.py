"""How sources describe a kernel in words, spelled out as a problem and a tiling.

The shipped rows say it themselves, in ``as`` and in tiling keys; a user's file may quote its source instead: a copy of a matrix
("copy 12288x12288 fp16 GM->UB, 48 AIV, tile [64,1024]"), a product of two operands of one format ("mxfp8 x mxfp8"), a tiling
("base 128x256x64, no double buffering").  Published INT8 products have their activations in INT8.
"""

from __future__ import annotations

import re

from msdsim.explore.measurements import Measurement
from msdsim.formats.schemes import RESTATED
from msdsim.hardware.chip import Chip
from msdsim.problems import Gemm, parse_inline
from msdsim.units import ceil_div

_COPY = re.compile(r"copy (\d+)x(\d+) fp16 GM->(UB|L1), \d+ AI[CV], tile \[(\d+),\s*(\d+)\]")
_BASE = re.compile(r"base (\d+)x(\d+)x(\d+)")
#: Both operands in one format, as in "mxfp8 x mxfp8".
_PAIR = re.compile(r"(\w+) x \1")


def spelled_out(row: Measurement, chip: Chip) -> str:
    """A copy of a matrix described in words, and a product of two operands of one format, as the microbenchmarks they are."""
    found = _COPY.match(row.problem)
    if found is not None:
        m, n, into, base_m, base_n = found.groups()
        return f"micro:read_matrix,m={m},n={n},into={into.lower()},base_m={base_m},base_n={base_n}"
    if row.dataflow == "w8a8" and row.problem.startswith(("gemm:", "grouped_gemm:")) and "x=" not in row.problem:
        # INT8 operators take activations that others have quantized.
        return f"{row.problem},x=int8"
    pair = _PAIR.fullmatch(row.dataflow)
    if pair is not None and row.problem.startswith("gemm:"):
        return _matmul(row, pair[1], chip)
    return row.problem


def _matmul(row: Measurement, fmt: str, chip: Chip) -> str:
    """A GEMM of two operands of ``fmt`` with the vendor's common blocks: L0 tiles of 256 columns that are 128 B deep, L1 tiles
    of four of them, and one block of the result for each core, as square as the core count allows."""
    problem = parse_inline(row.problem)
    assert isinstance(problem, Gemm)
    found = _BASE.search(row.tiling) if isinstance(row.tiling, str) else None
    bits = 4 if fmt.endswith("4") else 8 if fmt.endswith("8") else 16
    base_m, base_n, base_k = map(int, found.groups()) if found else (128, 256, 1024 // bits)
    grids = [(down, chip.cores.aic // down) for down in range(1, chip.cores.aic + 1)]
    down, across = min(grids, key=lambda grid: _block_cost(problem, grid, (base_m, base_n)))
    single_m, single_n = _block(problem.m, down, base_m), _block(problem.n, across, base_n)
    return (f"micro:matmul,m={problem.m},k={problem.k},n={problem.n},fmt={fmt},base_m={base_m},base_n={base_n},base_k={base_k},"
            f"single_m={single_m},single_n={single_n},step_ka=4,step_kb=4,trans_b=1")


def _block(size: int, parts: int, base: int) -> int:
    """Size of one of ``parts`` blocks, in whole tiles."""
    return ceil_div(ceil_div(size, base), parts) * base


def _block_cost(problem: Gemm, grid: tuple[int, int], base: tuple[int, int]) -> tuple[int, int]:
    """Area of the largest block, then its circumference, which is what it loads."""
    rows, cols = (_block(size, parts, tile) for size, parts, tile in zip((problem.m, problem.n), grid, base, strict=True))
    return rows * cols, rows + cols


#: Most rows of x that the vendor's operator decomposes where the weights have one scale a channel.
_DECOMPOSED_M = 64


def _decomposed(problem: Gemm) -> bool:
    """Whether that operator decomposes the activations instead (its rules for the MSD templates): short M, with groups of 64 or
    128 or a scale a channel."""
    if problem.group is None:
        return problem.m <= _DECOMPOSED_M
    return problem.group in (64, 128) and problem.m <= problem.group // 8


def dataflow_of(row: Measurement, chip: Chip) -> str:
    """The dataflow that a row names.  16 bits are 16 bits to the Cube and to memory.  A weight-only GEMM of an A2 without a
    tiling is taken to be the vendor's operator, since all that are published are."""
    if row.dataflow == "fp16":
        return "bf16"
    restated = next((name for name, method in RESTATED.items() if method == row.dataflow), None)
    if restated is None or row.tiling or chip.arch != "2201" or not row.problem.startswith("gemm:"):
        return row.dataflow
    problem = parse_inline(row.problem)
    return row.dataflow if not isinstance(problem, Gemm) or _decomposed(problem) else restated


def tiling_of(row: Measurement, chip: Chip) -> dict[str, int]:
    """The tiling a row asks for: keys and values, or the words "base MxNxK" and "no double buffering".  Kernels of attention
    read the cache on the AICs alone, as all that are published do.
    """
    if not isinstance(row.tiling, str):
        if row.problem.startswith("attention:") and row.dataflow == "bf16":
            return {"l2_ahead": 0, **row.tiling}
        if row.problem.startswith("gemm:") and row.dataflow in ("bf16", "fp16"):
            return {"k_parts": 1, **row.tiling}
        return dict(row.tiling)
    if row.dataflow != "bf16":
        return {}
    found = _BASE.search(row.tiling)
    tiling = dict(zip(("base_m", "base_n", "l0_k"), map(int, found.groups()), strict=True)) if found else {}
    if "no double buffering" in row.tiling:
        tiling |= {"l1_ring": 1, "l0_ring": 1, "l0c_ring": 1}
    elif found:
        # What is left of L0C decides whether accumulators alternate.
        tiling |= {"l0c_ring": 1}
    return tiling
