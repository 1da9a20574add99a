"""The oracle itself: its one rounding against numpy and ml_dtypes."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from rational_oracle import ceil_log2, floor_log2, half_away, nearest


@pytest.mark.parametrize(("fmt", "dtype"), [("fp32", np.float32), ("bf16", ml_dtypes.bfloat16)])
def test_nearest_equals_the_library_cast(fmt, dtype):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(400) * 2.0 ** rng.integers(-152, 120, 400)
    values = values.astype(np.float32) if fmt == "bf16" else values
    ties = (np.arange(100) * 2 + 1) * 2.0**-8 + 1 if fmt == "bf16" else (np.arange(100) * 2 + 1) * 2.0**-24 + 1
    for value in [*values, *ties]:
        assert float(nearest(Fraction(float(value)), fmt)) == float(np.asarray(value).astype(dtype))


def test_small_helpers():
    assert [floor_log2(Fraction(v)) for v in (1, 1.5, 0.5, 0.7, 8)] == [0, 0, -1, -1, 3]
    assert [ceil_log2(Fraction(v)) for v in (1, 1.5, 0.5, 0.7, 8)] == [0, 1, -1, 0, 3]
    assert [half_away(Fraction(n, 2)) for n in (-3, -1, 1, 3, 5)] == [-2, -1, 1, 2, 3]
    assert [float(nearest(Fraction(v), "e2m1")) for v in (0.25, 0.75, 2.5, 5, 7)] == [0, 1, 2, 4, 6]
