"""BF16 rows as FP16 over a power of two: how a Cube without mixed operands multiplies BF16 activations by FP16 weights.

With 2^E <= max |x| < 2^(E+1) of a row, and E at least -111::

    power = 2^(E - 15) ;   h = fp16(x / power), half to even

so that the largest magnitude lies in [2^15, 65280], below FP16's 65504.  BF16 has eight significant bits and the least step of
FP16 is 2^-24: elements of at least 2^(E - 32) are exact, smaller ones are off by at most half a step, 2^(E - 40).  Both factors
are normal FP32 numbers, powers of two, so that neither the division nor the product with the sums rounds.  Rows whose maximum
is below 2^-111, rows of zeros among them, take E = -111, and are exact as a whole (BF16 ends at 2^-133 = 2^(E - 22)).
Infinities and NaNs are no operands here, as anywhere; FP16's subnormals are numbers to Vector and Cube.
"""

from __future__ import annotations

import numpy as np

#: Exponent to which the maximum of a row is brought: the largest of FP16.
TOP_EXPONENT = 15
#: The smallest power of two that a maximum counts as.
SMALLEST_TOP = 2.0**-111
#: Elements from this share of the row's power of two are exact; smaller ones are off by at most the other share of it.
EXACT_SHARE, ERROR_SHARE = 2.0**-32, 2.0**-40


def row_powers(x: np.ndarray) -> np.ndarray:
    """2^(E - 15) of the rows of ``x`` [m, k], float32 [m, 1]."""
    _, exponent = np.frexp(np.max(np.abs(x.astype(np.float32)), axis=1, keepdims=True, initial=SMALLEST_TOP))
    return np.ldexp(np.float32(1), exponent - 1 - TOP_EXPONENT)


def halves(x: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Rows of ``x`` over their powers, float16."""
    return (x.astype(np.float32) / powers).astype(np.float16)


def lost(x: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """What magnitudes ``x`` >= 0 (float64) lose at most as FP16."""
    top = powers.astype(np.float64) * 2.0**TOP_EXPONENT
    return np.where((x > 0) & (x < EXACT_SHARE * top), ERROR_SHARE * top, 0.0)
