"""Weight quantizers: error bounds, groups with a ragged end, offsets, columns that are zero or constant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msdsim.errors import ArrayError
from msdsim.formats.quantize import group_count, quantize_weight, rows

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 5)), elements=FLOATS)


@settings(max_examples=80, deadline=None)
@given(WEIGHTS, st.sampled_from(["int8", "int4"]), st.sampled_from([None, 1, 7, 32]), st.booleans())
def test_error_is_at_most_half_a_step(w, fmt, group, offset):
    weight = quantize_weight(w, fmt, group, offset)
    k, n = w.shape
    assert weight.scale.shape == ((n,) if group is None else (group_count(k, group), n))
    assert weight.scale.dtype == np.float32
    assert (weight.offset is None) == (not offset)
    low, high = (-8, 7) if fmt == "int4" else (-128, 127)
    assert weight.q.min() >= (low if offset else -high)
    assert weight.q.max() <= high
    # With an offset the zero point itself is rounded, which can cost another half step at the ends of the range.
    steps = 1.001 if offset else 0.5001
    tolerance = steps * rows(weight.scale, k, group).astype(np.float64) + 1e-6 * np.abs(w)
    assert (np.abs(weight.values() - w) <= tolerance).all()


def test_symmetric_int8_by_hand():
    weight = quantize_weight(np.float32([[127, 0], [-63.5, 0], [1.5, 0]]), "int8")
    np.testing.assert_array_equal(weight.scale, [1, 1])
    np.testing.assert_array_equal(weight.q, [[127, 0], [-64, 0], [2, 0]])  # rint: half to even


def test_ragged_last_group_has_its_own_scale():
    w = np.float32([[1], [2], [3], [100]])
    np.testing.assert_array_equal(quantize_weight(w, "int4", 3).scale, np.float32([[3], [100]]) / np.float32(7))


def test_constant_and_zero_columns_are_exact():
    w = np.float32([[5, -3, 0]] * 4)
    for fmt in ("int8", "int4"):
        np.testing.assert_allclose(quantize_weight(w, fmt, offset=True).values(), w)
        np.testing.assert_allclose(quantize_weight(w, fmt).values(), w)


def test_mxfp4_weights_take_blocks_along_k():
    w = np.random.default_rng(0).standard_normal((70, 3)).astype(np.float32)
    weight = quantize_weight(w, "mxfp4")
    assert weight.q.shape == (70, 3)
    assert weight.scale.shape == (3, 3)
    assert np.abs(weight.values() - w).max() <= np.abs(w).max() / 4


@pytest.mark.parametrize(("w", "kwargs", "message"), [
    (np.zeros((0, 3), np.float32), {}, r"w is empty \(shape \[0, 3\]\)"),
    (np.zeros(3, np.float32), {}, "w has 1 dimensions, a weight has two"),
    (np.float32([[1, np.inf]]), {}, "w has inf at row 0, column 1"),
    (np.ones((4, 2), np.float32), {"group": 2}, "mxfp4 has its own blocks of 32"),
])
def test_bad_weights(w, kwargs, message):
    with pytest.raises(ArrayError, match=message):
        quantize_weight(w, "mxfp4" if kwargs else "int8", **kwargs)


@pytest.mark.parametrize(("fmt", "steps"), [("int8", 255), ("int4", 15)])
def test_a_column_that_spans_more_than_fp32_holds(fmt, steps):
    """3e38 - (-3e38) overflows; its scale, a 255th or 15th of it, does not."""
    w = np.array([[3e38, 1.0], [-3e38, -1.0], [1e38, 0.0]], np.float32)
    found = quantize_weight(w, fmt, offset=True)
    assert np.isfinite(found.scale).all()
    assert found.scale[0] == pytest.approx(6e38 / steps, rel=1e-6)
    assert (np.abs(found.values() - w) <= 0.51 * found.scale).all()


@pytest.mark.parametrize("value", [-0.3, 0.7, 0.0, -2.5e38])
@pytest.mark.parametrize("fmt", ["int8", "int4"])
def test_a_constant_column_is_its_scale(fmt, value):
    """q = 0 with an offset of 1 or -1: the value itself, exactly, whatever its sign."""
    found = quantize_weight(np.full((4, 2), value, np.float32), fmt, offset=True)
    assert not found.q.any()
    assert (found.offset == np.sign(value)).all()
    assert (found.scale == (abs(np.float32(value)) or 1)).all()


def test_codes_of_an_offset_fill_the_range():
    """0 to 255 over 256 codes: scale 1, the lowest code -128 stands for 0, so the offset is 128."""
    found = quantize_weight(np.array([[0.0], [255.0], [100.0]], np.float32), "int8", offset=True)
    assert (found.scale[0], found.offset[0], found.q[:, 0].tolist()) == (1.0, 128.0, [-128, 127, -28])
    lower = quantize_weight(np.array([[-10.0], [5.0]], np.float32), "int4", offset=True)
    assert (lower.scale[0], lower.offset[0], lower.q[:, 0].tolist()) == (1.0, -2.0, [-8, 7])
