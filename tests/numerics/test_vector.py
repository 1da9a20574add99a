"""Vector rules: the row sum's tree in two methods and in fractions, exp rounded correctly."""

from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pytest
from rational_oracle import lane_sum, nearest

from msdsim.numerics import vector
from msdsim.numerics.references import reduce


@pytest.mark.parametrize("k", [1, 63, 64, 65, 200, 1024])
def test_row_sum_three_ways(k):
    rng = np.random.default_rng(k)
    x = (rng.standard_normal((3, k)) * 2.0 ** rng.integers(-8, 9, (3, k))).astype(np.float32)
    got = vector.row_sum(x)
    np.testing.assert_array_equal(got, reduce.row_sum(x))
    assert [Fraction(float(v)) for v in got] == [lane_sum([Fraction(float(v)) for v in row]) for row in x]


def test_row_sum_in_tiles_and_its_order():
    x = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    lanes = None
    for start in range(0, 300, 128):
        lanes = vector.lane_sums(x[:, start : start + 128], lanes)
    np.testing.assert_array_equal(vector.fold_lanes(lanes), vector.row_sum(x))
    # lane 0 takes columns 0 and 64 first: 2^24 + 1 loses the 1, which -2^24 in lane 32 then cannot bring back.
    row = np.zeros((1, 128), np.float32)
    row[0, 0], row[0, 64], row[0, 32] = 2.0**24, 1, -(2.0**24)
    assert vector.row_sum(row)[0] == 0


def test_row_sum_of_negative_zeros_starts_from_plus_zero():
    x = np.full((1, 64), -0.0, np.float32)
    assert not np.signbit(vector.row_sum(x)[0])
    assert not np.signbit(reduce.row_sum(x)[0])


def test_exp_is_correctly_rounded():
    x = np.concatenate([np.linspace(-103, 88, 1500), [0, -0.0, 1e-8, -1e-8]]).astype(np.float32)
    for value, got in zip(x, vector.exp(x), strict=True):
        exact = Fraction(Decimal(float(value)).exp(Context(prec=60)))
        assert Fraction(float(got)) == nearest(exact, "fp32")
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(vector.exp(np.float32([-np.inf, np.inf, 200, -200])), [0, np.inf, np.inf, 0])
    assert np.isnan(vector.exp(np.float32([np.nan]))[0])


def test_exp_settles_near_ties_in_decimal(monkeypatch):
    """With a float64 exp that is wrong by many units the result must still be right: the margin catches it."""
    x = np.linspace(-3, 3, 50).astype(np.float32)
    expected = vector.exp(x)
    real = np.exp
    off = (real(x.astype(float)) * (1 + 2.0**-27)).astype(np.float32)
    assert (off != expected).any()  # the wrong exp alone would show
    monkeypatch.setattr(vector, "_MARGIN", 2.0**-26)
    monkeypatch.setattr(np, "exp", lambda v: real(v) * (1 + 2.0**-27))
    np.testing.assert_array_equal(vector.exp(x), expected)
