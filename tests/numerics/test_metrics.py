"""Error figures by hand, and the sentence a failed check prints."""

import ml_dtypes
import numpy as np
import pytest

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
