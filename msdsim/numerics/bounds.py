"""A-priori error bounds: gamma_n (Higham, Accuracy and Stability, chapter 3), underflow and output rounding."""

from __future__ import annotations

import numpy as np

from msdsim.formats.number import BF16, FORMATS, FP32

U32 = FP32.unit_roundoff
ETA32 = FP32.smallest_subnormal / 2  # absolute error of a product or quotient that underflows
ETA16 = BF16.smallest_subnormal / 2
SECOND_ORDER = 1 + 2.0**-20  # covers products of the small relative terms that a first-order sum leaves out


def gamma(operations: int, unit: float = U32) -> float:
    """Relative bound of ``operations`` roundings in a row; infinite when they could exceed the value itself."""
    product = operations * unit
    return product / (1 - product) if product < 1 else np.inf


def float64_slack(k: int, magnitude: np.ndarray) -> np.ndarray:
    """Error of the float64 result itself, for a dot product of length ``k`` with sum of magnitudes ``magnitude``."""
    return gamma(k + 4, 2.0**-53) * magnitude


def with_output(error: np.ndarray, y64: np.ndarray, out: str = "bf16") -> np.ndarray:
    """Add the rounding of the result to its format; infinite where the result may overflow it."""
    fmt, size = FORMATS[out], np.abs(y64) + error
    if fmt is FP32:
        # The last operation of the sum has rounded it.
        return np.where(size < fmt.max_value, error, np.inf)
    total = error + fmt.unit_roundoff * size + fmt.smallest_subnormal / 2
    return np.where(size < fmt.max_value, total, np.inf)
