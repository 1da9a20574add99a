"""Error figures, and the comparison bit for bit that a check stands on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from msdsim.formats.checks import first_index


def overflowed(y: np.ndarray) -> int:
    """How many outputs are infinite, or NaN because something before them was."""
    return int(np.count_nonzero(~np.isfinite(y.astype(np.float32))))


def relative_l2(y: np.ndarray, y64: np.ndarray) -> float:
    """||y - y64|| / ||y64|| over the outputs that did not overflow; 0 when both are zero, infinite when only y64 is or when
    every output overflowed."""
    y = y.astype(np.float64)
    finite = np.isfinite(y)
    if not finite.all():
        y, y64 = y[finite], y64[finite]
        if not y.size:
            return np.inf
    difference = np.linalg.norm(y - y64)
    size = np.linalg.norm(y64)
    if size == 0:
        return 0.0 if difference == 0 else np.inf
    return float(difference / size)


def max_abs_error(y: np.ndarray, y64: np.ndarray) -> float:
    """Largest |y - y64| of the outputs that did not overflow; infinite when there is none."""
    with np.errstate(invalid="ignore"):
        error = np.abs(y.astype(np.float64) - y64)
    return float(np.max(error, where=np.isfinite(error), initial=0.0)) if np.isfinite(error).any() else np.inf


def bound_ratio(y: np.ndarray, y64: np.ndarray, bound: np.ndarray) -> float | None:
    """Largest |y - y64| / bound (at most 1 when the bound holds); an error of 0 counts as 0.

    Outputs that overflowed, or may have (an infinite or undefined bound), have no bound; None when there are no others.
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(y.astype(np.float64) - y64)
    error, limit = np.broadcast_arrays(error, bound)
    bounded = np.isfinite(error) & np.isfinite(limit)
    if not bounded.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(~bounded | (error == 0), 0.0, error / limit)
    return float(np.max(ratio))


def effective_bits(x: np.ndarray, x_hat: np.ndarray) -> float:
    """log2(rms(x) / rms(x - x_hat)); say which input it was measured on.  Infinite for an exact x_hat."""
    wide = x.astype(np.float64)
    noise = np.linalg.norm(wide - x_hat)
    return float("inf") if noise == 0 else float(np.log2(np.linalg.norm(wide) / noise))


@dataclass(frozen=True)
class Mismatch:
    """Two tensors that should be equal bit for bit and are not; ``str()`` is the sentence a check prints."""

    name: str
    count: int
    elements: int
    index: tuple[int, ...]
    expected: str
    got: str

    def __str__(self) -> str:
        if not self.elements:
            return f"{self.name}: expected {self.expected}, got {self.got}"
        place = ", ".join(str(i) for i in self.index)
        return (f"{self.name}: {self.count} of {self.elements} elements differ; first at [{place}]: "
                f"expected {self.expected}, got {self.got}")


def compare_bits(expected: np.ndarray, got: np.ndarray, name: str) -> Mismatch | None:
    """None when shape, dtype and every bit agree.

    -0 differs from +0.  Any NaN equals any NaN: which NaN an operation returns is not part of a contract.
    """
    for what, left, right in (("shape", list(expected.shape), list(got.shape)),
                              ("dtype", expected.dtype, got.dtype)):
        if left != right:
            return Mismatch(name, 0, 0, (), f"{what} {left}", f"{what} {right}")
    different = _bits(expected) != _bits(got)
    if expected.dtype.kind not in "iub" and different.any():
        different &= ~(np.isnan(expected) & np.isnan(got))
    count = int(np.count_nonzero(different))
    if not count:
        return None
    index = first_index(different)
    return Mismatch(name, count, expected.size, index, describe(expected[index]), describe(got[index]))


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def describe(value: np.generic) -> str:
    """A value as a decimal, its exact ``numerator * 2^exponent``, and its bits: ``0.1001 (205 * 2^-11, 0x3dcd)``."""
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return str(int(array))
    bits = int(_bits(array.reshape(1))[0])
    digits = 2 * array.dtype.itemsize
    number = float(array)
    if not np.isfinite(number):
        return f"{number} (0x{bits:0{digits}x})"
    exact = Fraction(number)
    numerator, exponent = exact.numerator, 1 - exact.denominator.bit_length()
    while numerator and numerator % 2 == 0:
        numerator, exponent = numerator // 2, exponent + 1
    sign = "-" if number == 0 and np.signbit(number) else ""
    return f"{number!r} ({sign}{numerator} * 2^{exponent if numerator else 0}, 0x{bits:0{digits}x})"
