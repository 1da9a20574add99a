"""Whole-tensor matmul references, each by another technique than the tile kernel of the same rule.

Integers by float64 BLAS (exact to 2^53), MX by float64 sums per block, which are exact, and a rounding that settles ties by the
sign of the addition's error.  Floats are summed in strips of columns whose accumulators stay in registers' reach: compiled, but
whole in k where the kernel's method goes by its tiles, and by other code; the loop in plain numpy (:func:`matmul_float`) says
the same more slowly and is what tests hold both against.  Columns are taken in slices to bound memory.
"""

from __future__ import annotations

import numpy as np

from msdsim.formats.mx import MX_BLOCK, code_to_exponent
from msdsim.formats.rounding import decode

_LOOP_ROWS = 16
_INT_ROWS, _INT_COLUMNS = 256, 512  # of b in float64: 1 MB
_LOOP_BYTES = 64 * 1024  # accumulator slice of the k-loop: stays in the second-level cache
_MX_COLUMNS = 1024  # float64 accumulators of an MX block: 128 KB


def matmul_int(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [m, k] @ b [k, n] of int8 values, exact, as int64 [m, n]."""
    wide = a.astype(np.float64)
    result = np.empty((a.shape[0], b.shape[1]), np.int64)
    for start in range(0, b.shape[1], _INT_COLUMNS):
        columns = slice(start, start + _INT_COLUMNS)
        total = np.zeros((a.shape[0], b[:, columns].shape[1]))
        for row in range(0, b.shape[0], _INT_ROWS):
            inside = slice(row, row + _INT_ROWS)
            total += wide[:, inside] @ b[inside, columns].astype(np.float64)
        result[:, columns] = total
    return result


def matmul_float(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [m, k] @ b [k, n] in float32 with one rounding per addition, k ascending from zero."""
    m, n = a.shape[0], b.shape[1]
    result = np.zeros((m, n), np.float32)
    rows = min(m, _LOOP_ROWS)
    step = max(16, _LOOP_BYTES // (4 * rows))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, n, step):
            right = b[:, start : start + step].astype(np.float32)
            for row in range(0, m, rows):
                left = np.ascontiguousarray(a[row : row + rows].astype(np.float32).T)[:, :, None]
                acc = np.zeros((left.shape[1], right.shape[1]), np.float32)
                product = np.empty_like(acc)
                for k in range(right.shape[0]):
                    np.multiply(left[k], right[k], out=product)
                    np.add(acc, product, out=acc)
                result[row : row + rows, start : start + step] = acc
    return result


def matmul_strips(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """:func:`matmul_float`, compiled."""
    from msdsim.numerics._kernels import sum_strips

    result = np.empty((a.shape[0], b.shape[1]), np.float32)
    sum_strips(np.ascontiguousarray(decode(a).T), np.ascontiguousarray(decode(b)), result)
    return result


def matmul_mx(a: np.ndarray, a_scale: np.ndarray, b: np.ndarray, b_scale: np.ndarray) -> np.ndarray:
    """a [m, k] @ b [k, n] of MX operands with their E8M0 scales, float32: one rounding per block, blocks ascending."""
    a_factor, b_factor = (np.ldexp(1.0, code_to_exponent(scale)) for scale in (a_scale, b_scale))
    m, n = a.shape[0], b.shape[1]
    result = np.zeros((m, n), np.float32)
    for rows in (slice(start, start + _LOOP_ROWS) for start in range(0, m, _LOOP_ROWS)):
        left = np.ascontiguousarray(decode(a[rows], np.float64).T)[:, :, None]
        for columns in (slice(start, start + _MX_COLUMNS) for start in range(0, n, _MX_COLUMNS)):
            right = decode(b[:, columns], np.float64)
            acc = result[rows, columns]
            for block, k in enumerate(range(0, a.shape[1], MX_BLOCK)):
                dot = np.zeros(acc.shape)
                for i in range(k, min(k + MX_BLOCK, a.shape[1])):
                    dot += left[i] * right[i]
                acc = add_rounded_once(acc, dot * a_factor[rows, block, None] * b_factor[block, columns])
            result[rows, columns] = acc
    return result


def add_rounded_once(acc: np.ndarray, value: np.ndarray) -> np.ndarray:
    """fl32(acc + value) of float32 ``acc`` and float64 ``value``, rounded once from the exact sum."""
    start = acc.astype(np.float64)
    wide = start + value
    low = np.where(np.abs(start) < np.abs(value), start, value)
    high = np.where(np.abs(start) < np.abs(value), value, start)
    error = low - (wide - high)  # exact: Dekker's fast two-sum
    with np.errstate(over="ignore"):
        nearest = wide.astype(np.float32)
    beyond = wide - nearest.astype(np.float64)
    with np.errstate(invalid="ignore"):
        other = np.nextafter(nearest, np.where(beyond > 0, np.float32(np.inf), np.float32(-np.inf)))
        # A float64 sum that looks like a tie was not one when the addition itself dropped something beyond it.
        tie = (beyond != 0) & (np.abs(other.astype(np.float64) - nearest) == 2 * np.abs(beyond))
    return np.where(tie & (error * beyond > 0), other, nearest)
