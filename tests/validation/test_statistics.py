"""The figures that validation sums up with, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from msdsim.explore.validate import Overall


def test_median_percentile_and_sign():
    found = Overall.of([-0.01, 0.02, -0.03, 0.04, -0.05, 0.06, -0.07, 0.08, -0.09, 1.0, None])
    magnitudes = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 1.0]
    assert found.p90_error == pytest.approx(np.percentile(magnitudes, 90))
    assert found.p90_error == pytest.approx(0.181)
    assert found.p90_error != pytest.approx(np.median(magnitudes))
