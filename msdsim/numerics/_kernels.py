"""Compiled tile kernels.  This module imports numba: import it inside the functions that need it, never at the top.

Plain ``njit`` without fastmath: LLVM neither reassociates sums nor contracts multiply and add, so that every addition
rounds once, in the written order.  The loops run over columns innermost, where lanes are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

STRIP = 64  # columns whose sums are made together
K_BLOCK = 64  # rows of b kept in cache while every row of a passes over them


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no writable place for the cache: compile anew in each process
        return numba.njit(nogil=True)(function)


@_jit
def accumulate_float(a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> None:
    """acc[m, n] += a[m, k] b[k, n], all float32: one rounding per product and per addition, k ascending."""
    m, k = a.shape
    n = b.shape[1]
    for k0 in range(0, k, K_BLOCK):
        k1 = min(k0 + K_BLOCK, k)
        for i in range(m):
            row = acc[i]
            for kk in range(k0, k1):
                value = a[i, kk]
                weights = b[kk]
                for j in range(n):
                    row[j] += value * weights[j]


@_jit
def sum_strips(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """out[m, n] = left[k, m] right[k, n], all float32: one rounding per product and per addition, k ascending from zero.

    A strip of columns is finished before the next one: its sums are at hand while the whole of k passes by.
    """
    k, m = left.shape
    n = right.shape[1]
    acc = np.empty((m, STRIP), np.float32)
    for start in range(0, n, STRIP):
        width = min(STRIP, n - start)
        for i in range(m):
            for j in range(width):
                acc[i, j] = 0
        for kk in range(k):
            weights = right[kk, start : start + width]
            for i in range(m):
                value = left[kk, i]
                sums = acc[i]
                for j in range(width):
                    sums[j] += value * weights[j]
        for i in range(m):
            for j in range(width):
                out[i, start + j] = acc[i, j]


@_jit
def erf(x: np.ndarray) -> np.ndarray:
    """The error function of a float64 matrix; numpy has none."""
    result = np.empty_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            result[i, j] = math.erf(x[i, j])
    return result


@_jit
def accumulate_mx(a: np.ndarray, a_factor: np.ndarray, b: np.ndarray, b_factor: np.ndarray, acc: np.ndarray,
                  block: int) -> None:
    """acc[m, n] (float32) += MX product; ``a``, ``b`` and the block factors (2^exponent) are float64.

    The dot product of a block is exact in float64.  The sum with the accumulator is rounded to odd in float64 (the
    error of the addition is exact, Knuth's two-sum), so that the conversion to float32 is the only rounding.
    """
    m, k = a.shape
    n = b.shape[1]
    total = np.empty(n, np.float64)
    bits = total.view(np.int64)
    for block_index in range(a_factor.shape[1]):
        k0 = block_index * block
        k1 = min(k0 + block, k)
        for i in range(m):
            total[:] = 0.0
            for kk in range(k0, k1):
                value = a[i, kk]
                for j in range(n):
                    total[j] += value * b[kk, j]
            for j in range(n):
                added = total[j] * a_factor[i, block_index] * b_factor[block_index, j]
                start = np.float64(acc[i, j])
                rounded = start + added
                part = rounded - start
                error = (start - (rounded - part)) + (added - part)
                total[j] = rounded
                # An accumulator that has overflowed stays infinite; its error is no number.
                if math.isfinite(rounded) and error != 0.0 and bits[j] & 1 == 0:
                    bits[j] += 1 if (error > 0.0) == (rounded > 0.0) else -1
                acc[i, j] = np.float32(total[j])
