"""Cube number rules on tiles: what one ``mmad`` does to its accumulator, bit by bit.

``mmad_int``    int8 x int8 or int4 x int4: exact int32.
``mmad_float``  bf16, fp16, fp8: every product in fp32 (exact unless it leaves the range), added to the fp32 accumulator
                with one rounding to nearest even per addition, k ascending.
``mmad_mx``     MX operands: the dot product of a block of 32 is exact, scaled by both E8M0 scales and added to the fp32
                accumulator with one rounding, blocks ascending.

Tiling along m and n changes no bit, nor does tiling along k as long as k ascends (MX: in multiples of 32).  The
whole-tensor references in :mod:`msdsim.numerics.references.matmul` compute the same rules in another way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from msdsim.errors import ArrayError
from msdsim.formats.mx import MX_BLOCK, block_count, code_to_exponent
from msdsim.formats.number import FORMATS, NumberFormat
from msdsim.formats.rounding import decode

# 128 * 128 * 1024 = 2^24: partial sums of int8 products stay exact in float32, whatever the order BLAS takes.
EXACT_K = 1024
_COLUMNS_AT_ONCE = 512
_PARALLEL_WORK = 1 << 24  # multiply-adds below which one thread is faster than handing out work


def max_safe_k(fmt_a: NumberFormat | str, fmt_b: NumberFormat | str, max_abs_a: int | None = None) -> int:
    """Largest K for which a sum of K products cannot leave int32: (2^31 - 1) // (|min_a| * |min_b|).

    ``max_abs_a`` is a tighter limit of |a| where one is known: 127 for int8 components of a decomposition.
    """
    a, b = (FORMATS[f] if isinstance(f, str) else f for f in (fmt_a, fmt_b))
    largest = int(abs(a.min_value)) if max_abs_a is None else max_abs_a
    return int(FORMATS["int32"].max_value) // (largest * int(abs(b.min_value)))


def mmad_int(a: np.ndarray, b: np.ndarray, acc: np.ndarray | None = None) -> np.ndarray:
    """acc + a @ b in exact int32; ``a`` [m, k] and ``b`` [k, n] hold int8 (int4) values, ``acc`` int32 [m, n] or none.

    The caller keeps K within :func:`max_safe_k`, accumulator included; the verifier and the contracts refuse more.
    """
    _same_k(a, b)
    result = np.zeros((a.shape[0], b.shape[1]), np.int32) if acc is None else acc.astype(np.int32)

    def columns(start: int, stop: int) -> None:
        for k0 in range(0, a.shape[1], EXACT_K):
            left = a[:, k0 : k0 + EXACT_K].astype(np.float32)
            right = b[k0 : k0 + EXACT_K, start:stop].astype(np.float32)
            result[:, start:stop] += (left @ right).astype(np.int32)

    # BLAS brings its own threads.
    for start in range(0, b.shape[1], 4 * _COLUMNS_AT_ONCE):
        columns(start, min(start + 4 * _COLUMNS_AT_ONCE, b.shape[1]))
    return result


def mmad_float(a: np.ndarray, b: np.ndarray, acc: np.ndarray | None = None) -> np.ndarray:
    """acc + a @ b in fp32, k ascending; ``a`` [m, k] and ``b`` [k, n] in bf16, fp16, fp8 or fp32; float32 [m, n]."""
    from msdsim.numerics._kernels import accumulate_float

    _same_k(a, b)
    left = np.ascontiguousarray(decode(a))
    result = np.zeros((a.shape[0], b.shape[1]), np.float32) if acc is None else acc.astype(np.float32)

    def columns(start: int, stop: int) -> None:
        right = np.ascontiguousarray(decode(b[:, start:stop]))
        part = np.ascontiguousarray(result[:, start:stop])
        accumulate_float(left, right, part)
        result[:, start:stop] = part

    _over_columns(columns, b.shape[1], a.size * b.shape[1])
    return result


def mmad_mx(a: np.ndarray, a_scale: np.ndarray, b: np.ndarray, b_scale: np.ndarray,
            acc: np.ndarray | None = None) -> np.ndarray:
    """acc + a @ b of MX operands in fp32 [m, n]; ``a`` [m, k] fp8 or fp4 with E8M0 ``a_scale`` [m, ceil(k/32)],
    ``b`` [k, n] with ``b_scale`` [ceil(k/32), n] (e8m0 or uint8 codes)."""
    from msdsim.numerics._kernels import accumulate_mx

    _same_k(a, b)
    blocks = block_count(a.shape[1])
    if a_scale.shape != (a.shape[0], blocks) or b_scale.shape != (blocks, b.shape[1]):
        raise ArrayError(f"MX scales have shapes {list(a_scale.shape)} and {list(b_scale.shape)}; k={a.shape[1]} needs "
                         f"[{a.shape[0]}, {blocks}] and [{blocks}, {b.shape[1]}]")
    left, left_factor = decode(a, np.float64), np.ldexp(1.0, code_to_exponent(a_scale))
    right_factor = np.ldexp(1.0, code_to_exponent(b_scale))
    result = np.zeros((a.shape[0], b.shape[1]), np.float32) if acc is None else acc.astype(np.float32)

    def columns(start: int, stop: int) -> None:
        right = np.ascontiguousarray(decode(b[:, start:stop], np.float64))
        part = np.ascontiguousarray(result[:, start:stop])
        accumulate_mx(left, left_factor, right, np.ascontiguousarray(right_factor[:, start:stop]), part, MX_BLOCK)
        result[:, start:stop] = part

    _over_columns(columns, b.shape[1], a.size * b.shape[1])
    return result


def _same_k(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ArrayError(f"matmul of {list(a.shape)} and {list(b.shape)}: the columns of a must be the rows of b")


def _over_columns(columns: Callable[[int, int], None], n: int, work: int) -> None:
    """Run ``columns(start, stop)`` over [0, n); the result does not depend on the split or on the threads."""
    starts = range(0, n, _COLUMNS_AT_ONCE)
    workers = 1 if len(starts) == 1 or work < _PARALLEL_WORK else min(len(starts), os.cpu_count() or 1)
    if workers < 2:
        for start in starts:
            columns(start, min(start + _COLUMNS_AT_ONCE, n))
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda start: columns(start, min(start + _COLUMNS_AT_ONCE, n)), starts))
