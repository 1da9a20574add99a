"""Whole-tensor matmul references, each by another technique than the tile kernel of the same rule.

Integers by float64 BLAS (exact to 2^53), floats by a numpy loop over k, MX by one exact float64 BLAS product per block
and a rounding that settles ties by the sign of the addition's error.  Columns are taken in slices to bound memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from msdsim.formats.mx import MX_BLOCK, code_to_exponent
from msdsim.formats.rounding import decode

_LOOP_BYTES = 128 * 1024  # accumulator slice of the k-loop: stays in the second-level cache
_SLICE_ELEMENTS = 1 << 23  # float64 elements of a weight slice


def column_slices(k: int, n: int) -> Iterator[slice]:
    """Slices of the columns of a [k, n] weight, each of about 64 MB in float64."""
    step = max(1, _SLICE_ELEMENTS // k)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def matmul_int(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [m, k] @ b [k, n] of int8 values, exact, as int64 [m, n]."""
    wide = a.astype(np.float64)
    result = np.empty((a.shape[0], b.shape[1]), np.int64)
    for columns in column_slices(*b.shape):
        result[:, columns] = wide @ b[:, columns].astype(np.float64)
    return result


def matmul_float(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [m, k] @ b [k, n] in float32 with one rounding per addition, k ascending from zero."""
    left = np.ascontiguousarray(a.astype(np.float32).T)[:, :, None]
    m, n = a.shape[0], b.shape[1]
    step = max(16, _LOOP_BYTES // (4 * m))
    result = np.zeros((m, n), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, n, step):
            right = b[:, start : start + step].astype(np.float32)
            acc = np.zeros((m, right.shape[1]), np.float32)
            product = np.empty_like(acc)
            for k in range(right.shape[0]):
                np.multiply(left[k], right[k], out=product)
                np.add(acc, product, out=acc)
            result[:, start : start + step] = acc
    return result


def matmul_mx(a: np.ndarray, a_scale: np.ndarray, b: np.ndarray, b_scale: np.ndarray) -> np.ndarray:
    """a [m, k] @ b [k, n] of MX operands with their E8M0 scales, float32: one rounding per block, blocks ascending."""
    a_exponent, b_exponent = code_to_exponent(a_scale), code_to_exponent(b_scale)
    acc = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for block, k in enumerate(range(0, a.shape[1], MX_BLOCK)):
        dot = decode(a[:, k : k + MX_BLOCK], np.float64) @ decode(b[k : k + MX_BLOCK], np.float64)
        acc = add_rounded_once(acc, np.ldexp(dot, a_exponent[:, block, None] + b_exponent[block]))
    return acc


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
