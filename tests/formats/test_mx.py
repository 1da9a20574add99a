"""MX blocks: scale rules against rational arithmetic and gfloat, ragged blocks, zeros, extremes."""

from fractions import Fraction

import gfloat
import gfloat.formats
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msdsim.errors import ArrayError, InputError
from msdsim.formats import FORMATS
from msdsim.formats.mx import block_count, block_max, ceil_log2, dequantize_mx, expand, quantize_mx, scale_exponent

FP4, FP8 = FORMATS["fp4_e2m1"], FORMATS["fp8_e4m3fn"]
RULES = ("alpha", "ocp-floor", "rceil", "even")


def exact_exponent(maximum, fmt, rule):
    """The definition in rational arithmetic: search the power of two."""
    maximum, e = Fraction(float(maximum)), -170
    emax = fmt.max_exponent
    fits = {"alpha": lambda e: maximum <= Fraction(2) ** (e + emax),
            "ocp-floor": lambda e: maximum < Fraction(2) ** (e + emax + 1),
            "rceil": lambda e: maximum <= Fraction(fmt.max_value) * Fraction(2) ** e,
            # Below the middle of the last step of a binade, in the mantissa bits of the element.
            "even": lambda e: maximum < (2 - Fraction(1, 2 ** (fmt.mantissa_bits + 1))) * Fraction(2) ** (e + emax)}[rule]
    while not fits(e):
        e += 1
    return min(max(e, -127), 127)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fmt", [FP4, FP8], ids=["fp4", "fp8"])
def test_scale_exponent_is_the_definition(fmt, rule):
    powers = np.float32(2.0) ** np.arange(-149, 128, 7, dtype=np.float32)
    maxima = np.concatenate([powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(np.inf)),
                             powers[4:-3] * np.float32(6), powers[4:-3] * np.float32(1.75), [np.float32(3.4e38)]])
    maxima = maxima[maxima > 0]
    assert [exact_exponent(m, fmt, rule) for m in maxima] == scale_exponent(maxima, fmt, rule).tolist()


def test_ceil_log2_at_powers():
    np.testing.assert_array_equal(ceil_log2(np.float32([1, 2, 3, 4, 0.5, 0.6, 2.0**-149])), [0, 1, 2, 2, -1, 0, -149])


def test_e2m1_blocks_equal_gfloat_under_the_floor_rule():
    x = (np.random.default_rng(1).standard_normal((40, 32)) * 2.0 ** np.arange(-20, 20)[:, None]).astype(np.float32)
    info = gfloat.formats.format_info_mxfp4_e2m1
    elements, scale = quantize_mx(x, FP4, "ocp-floor")
    for row, got in zip(x, dequantize_mx(elements, scale), strict=True):
        amax_scale = 2.0 ** (np.floor(np.log2(np.abs(row).max())) - 2)
        expected = np.array(list(gfloat.decode_block(info, gfloat.encode_block(info, amax_scale, row / amax_scale))))
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 70)),
              elements=st.floats(-2.0**100, 2.0**100, width=32)), st.sampled_from(RULES))
def test_error_of_each_rule(x, rule):
    """alpha: max lands at or below 4, error alpha/8.  rceil: at or below 6, error max/5 (the tie at 5)."""
    elements, scale = quantize_mx(x, FP4, rule)
    error = np.abs(dequantize_mx(elements, scale) - x)
    maxima = block_max(x).astype(np.float64)
    per_block = {"alpha": np.ldexp(1.0, ceil_log2(maxima)) / 8, "rceil": maxima / 5, "ocp-floor": maxima / 4, "even": maxima / 5}[rule]
    floor = 2.0**-129  # the smallest scale, 2^-127, times half the smallest step
    assert (error <= expand(np.where(maxima > 0, np.maximum(per_block, floor), 0), x.shape[1])).all()
    if rule not in ("ocp-floor", "even"):
        assert (np.abs(elements.astype(np.float32)) <= (4 if rule == "alpha" else 6)).all()


def test_ragged_blocks_and_both_axes():
    x = np.random.default_rng(2).standard_normal((5, 70)).astype(np.float32)
    elements, scale = quantize_mx(x, FP8, "rceil")
    assert elements.shape == (5, 70)
    assert scale.shape == (5, 3) == (5, block_count(70))
    whole, tail = quantize_mx(x[:, :64], FP8, "rceil"), quantize_mx(x[:, 64:], FP8, "rceil")
    np.testing.assert_array_equal(elements.view(np.uint8), np.concatenate([whole[0], tail[0]], axis=1).view(np.uint8))
    columns, column_scale = quantize_mx(x.T, FP8, "rceil", axis=0)
    np.testing.assert_array_equal(columns.view(np.uint8), elements.T.view(np.uint8))
    np.testing.assert_array_equal(column_scale.view(np.uint8), scale.T.view(np.uint8))
    np.testing.assert_array_equal(dequantize_mx(columns, column_scale, axis=0), dequantize_mx(elements, scale).T)


def test_zero_block_and_extremes():
    x = np.zeros((3, 32), np.float32)
    x[1, 0], x[2, 0] = 2.0**-140, 3.38e38
    elements, scale = quantize_mx(x, FP4, "alpha")
    np.testing.assert_array_equal(scale.view(np.uint8)[:, 0], [0, 0, 127 + 126])
    assert not elements[:2].astype(np.float32).any()
    assert elements[2, 0] == 4


def test_bad_input_is_named():
    x = np.zeros((2, 32), np.float32)
    x[1, 3] = np.nan
    with pytest.raises(ArrayError, match="x has nan at row 1, column 3; every value must be finite"):
        quantize_mx(x)
    with pytest.raises(InputError, match=r"unknown MX scale rule 'nearest' \(known: alpha, ocp-floor, rceil, even\)"):
        scale_exponent(np.ones(1, np.float32), FP4, "nearest")
