"""Error figures by hand, and the sentence a failed check prints."""

import ml_dtypes
import numpy as np
import pytest

from msdsim.numerics.check import Numerics
from msdsim.numerics.metrics import (
    bound_ratio,
    compare_bits,
    describe,
    effective_bits,
    max_abs_error,
    relative_l2,
)


def test_figures_by_hand():
    y64, y = np.array([3.0, 4.0]), np.float32([3.0, 4.5])
    assert relative_l2(y, y64) == 0.1
    assert max_abs_error(y, y64) == 0.5
    assert bound_ratio(y, y64, np.array([0.0, 1.0])) == 0.5
    assert bound_ratio(y, y64, np.array([0.0, np.inf])) == 0
    assert bound_ratio(y, y64, np.array([1.0, 0.0])) == np.inf
    assert effective_bits(np.float32([4, 0]), np.array([4.0, 0.5])) == 3
    assert effective_bits(y, y.astype(float)) == np.inf
    assert relative_l2(np.zeros(2), np.zeros(2)) == 0
    assert relative_l2(np.ones(2), np.zeros(2)) == np.inf


def test_equal_tensors():
    a = np.float32([[1, np.nan], [-0.0, np.inf]])
    assert compare_bits(a, a.copy(), "y") is None
    b = a.copy()
    b.view(np.uint32)[0, 1] ^= 1  # another NaN
    assert compare_bits(a, b, "y") is None


def test_a_flipped_bit_is_found():
    a = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    b = a.copy()
    b.view(np.uint16)[1, 1] ^= 1
    b.view(np.uint16)[1, 2] ^= 2
    mismatch = compare_bits(a, b, "y")
    assert (mismatch.count, mismatch.elements, mismatch.index) == (2, 6, (1, 1))
    assert str(mismatch) == ("y: 2 of 6 elements differ; first at [1, 1]: expected 4.0 (1 * 2^2, 0x4080), "
                             "got 4.03125 (129 * 2^-5, 0x4081)")


def test_signed_zero_integers_and_shapes():
    assert "expected 0.0 (0 * 2^0, 0x00000000), got -0.0 (-0 * 2^0, 0x80000000)" in str(
        compare_bits(np.float32([0]), np.float32([-0.0]), "y"))
    assert str(compare_bits(np.int8([1, 2]), np.int8([1, 3]), "a1")) == (
        "a1: 1 of 2 elements differ; first at [1]: expected 2, got 3")
    assert str(compare_bits(np.zeros((2, 3)), np.zeros((3, 2)), "y")) == "y: expected shape [2, 3], got shape [3, 2]"
    mismatch = compare_bits(np.zeros(1, np.float32), np.zeros(1), "y")
    assert str(mismatch) == "y: expected dtype float32, got dtype float64"


@pytest.mark.parametrize(("value", "text"), [(np.float32(0.1), "0.10000000149011612 (13421773 * 2^-27, 0x3dcccccd)"),
                                             (np.float32(-96), "-96.0 (-3 * 2^5, 0xc2c00000)"),
                                             (np.float32(np.inf), "inf (0x7f800000)")])
def test_describe(value, text):
    assert describe(value) == text


def test_only_a_nan_equals_a_nan():
    """Either side alone is a difference; so is an infinity, and one of the other sign."""
    nan, inf = np.nan, np.inf
    for expected, got, count in (([nan, 1], [2, 1], 1), ([2, 1], [nan, 1], 1), ([nan, nan], [nan, 3], 1), ([inf, 1], [nan, 1], 1), ([inf], [-inf], 1),
                                 ([inf, nan], [inf, nan], 0)):
        found = compare_bits(np.float32(expected), np.float32(got), "y")
        assert (0 if found is None else found.count) == count, (expected, got)


def test_outputs_without_a_bound_have_no_say():
    y64 = np.array([1.0, 2.0, 3.0])
    assert bound_ratio(np.float32([1.5, 9, 3]), y64, np.array([1.0, np.inf, 1.0])) == 0.5
    assert bound_ratio(np.float32([1.5, 9, 3]), y64, np.array([1.0, np.nan, 1.0])) == 0.5
    assert bound_ratio(np.float32([1.5, np.inf, np.nan]), y64, np.ones(3)) == 0.5
    assert bound_ratio(np.float32([np.inf] * 3), y64, np.ones(3)) is None
    assert bound_ratio(np.float32([1, 2, 3]), y64, np.zeros(3)) == 0, "no error, and none allowed"
    assert bound_ratio(np.float32([1, 2, 5]), y64, np.array([1.0, 1.0, 4.0])) == 0.5


def test_errors_of_what_did_not_overflow():
    y64 = np.array([3.0, 4.0, 100.0])
    assert relative_l2(np.float32([3, 4.5, np.inf]), y64) == 0.1
    assert max_abs_error(np.float32([3, 4.5, np.nan]), y64) == 0.5
    assert relative_l2(np.float32([np.inf] * 3), y64) == max_abs_error(np.float32([np.inf] * 3), y64) == np.inf


def test_bits_are_counted_against_the_input():
    """rms(x) = 4, rms(x - x_hat) = 1/2: 3 bits; the size of x_hat, here 8.5 times as large, has no say."""
    assert effective_bits(np.float32([4, 0]), np.array([4.0, 32.0])) == -3
    assert effective_bits(np.float32([8, 0]), np.array([4.0, 0.0])) == 1


@pytest.mark.parametrize(("bit_exact", "ratio", "good"), [(True, 1.0, True), (True, None, True), (True, 1.0001, False), (False, 0.5, False), (True, np.nan, False)])
def test_a_check_holds_bits_and_bound(bit_exact, ratio, good):
    assert Numerics(bit_exact, 4, 0 if bit_exact else 1, 1e-3, 1e-3, ratio).good is good
