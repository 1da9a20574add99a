"""round_to against ml_dtypes, gfloat and exact rational arithmetic."""

from fractions import Fraction

import gfloat
import numpy as np
import pytest

from msdsim.errors import ArrayError, InputError
from msdsim.formats import FORMATS
from msdsim.formats.rounding import by_table, round_integer, round_to

MODES = {"rint": gfloat.RoundMode.TiesToEven, "round": gfloat.RoundMode.TiesToAway,
         "floor": gfloat.RoundMode.TowardNegative}
SMALL = ("fp8_e4m3fn", "fp8_e5m2", "fp4_e2m1")


def same(got, expected):
    """Equal values, zeros with equal signs, NaN with NaN."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    nan = np.isnan(got) & np.isnan(expected)
    return np.all(((got == expected) & (np.signbit(got) == np.signbit(expected))) | nan)


def hard_values(name):
    """Every value of a format, every midpoint of neighbours, and both with one float32 step either way."""
    codes = np.arange(2 ** FORMATS[name].bits, dtype=np.uint8).view(FORMATS[name].dtype).astype(np.float32)
    finite = np.unique(codes[np.isfinite(codes)])
    top = finite[-1] + (finite[-1] - finite[-2])
    points = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, [top, -top, (top + finite[-1]) / 2],
                             [-(top + finite[-1]) / 2, -0.0, 1e-38, -1e-45, 3e38]]).astype(np.float32)
    near = [np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))]
    return np.concatenate([points, *near])


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_small_formats_on_all_values_and_ties(name, mode, saturate, gfloat_formats):
    values = hard_values(name)
    # fp4 has no way to overflow, which gfloat only grants to saturating conversions.
    clips = saturate or name == "fp4_e2m1"
    expected = gfloat.round_ndarray(gfloat_formats[name], values.astype(np.float64), MODES[mode], clips)
    assert same(round_to(values, name, mode, saturate), expected)
    assert same(round_to(values.astype(np.float64), name, mode, saturate), expected)
    if mode == "rint" and not saturate:
        with np.errstate(over="ignore"):
            assert same(round_to(values.astype(np.float64), name), values.astype(FORMATS[name].dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_million_random_float32_patterns(name, mode, gfloat_formats):
    bits = np.random.default_rng(7).integers(0, 2**32, 10**6, dtype=np.uint32)
    if name == "fp16":  # half of the patterns in the range of fp16, where the rounding is
        bits[::2] = (bits[::2] & 0x83FFFFFF) | np.where(bits[::2] & 0x4000000, 0x40000000, 0x34000000).astype(np.uint32)
    values = bits.view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = gfloat.round_ndarray(gfloat_formats[name], values.astype(np.float64), MODES[mode])
        assert same(round_to(values, name, mode), expected)
        if mode == "rint":
            assert same(round_to(values.astype(np.float64), name), values.astype(FORMATS[name].dtype))


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_small_formats_on_random_float32_patterns(name, saturate):
    """The float32 path is a table over the upper 16 bits with a sticky bit; the library casts all 32."""
    rng = np.random.default_rng(8)
    bits = rng.integers(0, 2**32, 300_000, dtype=np.uint32)
    near = (rng.standard_normal(300_000) * 2.0 ** rng.integers(-18, 17, 300_000)).astype(np.float32)
    values = np.concatenate([bits.view(np.float32), near, near.astype(FORMATS["bf16"].dtype).astype(np.float32)])
    values = values[~np.isnan(values)].reshape(-1, 1)
    limit = np.float32(FORMATS[name].max_value)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (np.clip(values, -limit, limit) if saturate else values).astype(FORMATS[name].dtype)
    np.testing.assert_array_equal(round_to(values, name, saturate=saturate).view(np.uint8), expected.view(np.uint8))
    np.testing.assert_array_equal(round_to(values[::3, 0], name, saturate=saturate).view(np.uint8),
                                  expected[::3, 0].view(np.uint8))


@pytest.mark.parametrize("name", ["bf16", "fp8_e4m3fn", "fp16"])
def test_float64_input_is_rounded_once(name):
    tie = 1 + FORMATS[name].unit_roundoff
    above = np.array([tie + 2.0**-40, tie, tie - 2.0**-40])
    step = 1 + 2 * FORMATS[name].unit_roundoff
    # A cast by way of float32 sees a tie in all three and gives 1.
    np.testing.assert_array_equal(round_to(above, name).astype(float), [step, 1, 1])


def test_rounding_to_an_integer_just_below_one_half():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    values = np.float32([below, -below, 0.5, -0.5, 1.5, 2.5, -2.5, 2**22 + 0.5, 2**23 + 1, 2**25 + 4, np.inf, -0.0])
    expected = [0, -0.0, 1, -1, 2, 3, -3, 2**22 + 1, 2**23 + 1, 2**25 + 4, np.inf, -0.0]
    assert same(round_integer(values, "round"), np.array(expected))


def test_rounding_to_integers_against_fractions():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.standard_normal(300) * 2.0 ** rng.integers(-4, 30, 300), np.arange(-20, 20) / 2])
    for value in values.astype(np.float32):
        exact, low = Fraction(float(value)), Fraction(float(value)) // 1
        half = exact - low - Fraction(1, 2)
        away = low + (half > 0 or (half == 0 and exact > 0))
        even = low + (half > 0 or (half == 0 and low % 2 == 1))
        for mode, expected in (("floor", low), ("round", away), ("rint", even)):
            assert round_integer(np.array([value]), mode)[0] == float(expected), (value, mode)


@pytest.mark.parametrize(("name", "inf"), [("bf16", np.inf), ("fp16", np.inf), ("fp32", np.inf), ("fp8_e5m2", np.inf),
                                           ("fp8_e4m3fn", np.nan)])
def test_infinity_and_nan(name, inf):
    for dtype in (np.float32, np.float64):
        values = np.array([np.inf, -np.inf, np.nan], dtype)
        assert same(round_to(values, name), np.array([inf, -inf, np.nan]))
        top = FORMATS[name].max_value
        assert same(round_to(values, name, saturate=True), np.array([top, -top, np.nan]))


def test_fp4_has_no_infinity_and_refuses_nan():
    assert same(round_to(np.array([np.inf, -np.inf, 5.1, 1e30]), "fp4_e2m1"), np.array([6, -6, 6, 6.0]))
    for dtype in (np.float32, np.float64):
        with pytest.raises(ArrayError, match=r"NaN at index \(1,\) has no fp4_e2m1 value"):
            round_to(np.array([1, np.nan], dtype), "fp4_e2m1")


def test_integers_saturate_on_request_and_are_refused_otherwise():
    values = np.array([-200.0, -128.5, 127.5, 3.5, np.inf])
    np.testing.assert_array_equal(round_to(values, "int8", saturate=True), [-128, -128, 127, 4, 127])
    np.testing.assert_array_equal(round_to(values, "int8", "floor", saturate=True), [-128, -128, 127, 3, 127])
    with pytest.raises(ArrayError, match=r"value -200\.0 at index \(0,\) is outside int8 \[-128, 127\]"):
        round_to(values, "int8")
    with pytest.raises(ArrayError, match=r"value 8 at index \(1,\) is outside int4 \[-8, 7\]"):
        round_to(np.array([7, 8]), "int4")
    with pytest.raises(ArrayError, match="NaN at index"):
        round_to(np.array([np.nan]), "int32", saturate=True)
    np.testing.assert_array_equal(round_to(np.float32([2.0**31, -(2.0**31)]), "int32", saturate=True),
                                  [2**31 - 1, -(2**31)])


def test_e8m0_rounds_to_nearest_power_as_ml_dtypes():
    values = np.float32([1, 1.25, 1.4999999, 1.5, 3, 2.0**-127, 2.0**-140, 2.0**127 * 1.25, 2.0**127 * 1.75, 0, -1,
                         np.inf, np.nan])
    got = round_to(values, "e8m0").view(np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        np.testing.assert_array_equal(got, values.astype(FORMATS["e8m0"].dtype).view(np.uint8))
    floor = round_to(np.array([0, 1.99, 1e300, np.inf]), "e8m0", "floor", saturate=True)
    np.testing.assert_array_equal(floor.view(np.uint8), [0, 127, 254, 254])


def test_unknown_mode_lists_the_modes():
    for values in (np.zeros(1), np.zeros(1, np.float32)):
        with pytest.raises(InputError, match=r"unknown rounding 'trunc' \(known: rint, round, floor\)"):
            round_to(values, "bf16", "trunc")
    with pytest.raises(InputError, match="unknown rounding 'up'"):
        round_integer(np.zeros(1), "up")


@pytest.mark.parametrize(("source", "target"), [("int8", "fp16"), ("int4", "fp16"), ("fp16", "fp32"), ("fp8_e4m3fn", "fp32")])
def test_a_table_casts_as_the_library_does(source, target):
    """Every pattern, also in a slice that is not in one piece."""
    dtype, wanted = FORMATS[source].dtype, FORMATS[target].dtype
    patterns = np.arange(256**dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype).reshape(16, -1)
    for array in (patterns, patterns[1:9, 3:11]):
        with np.errstate(invalid="ignore"):
            expected = array.astype(wanted)
        found = by_table(array, wanted)
        assert found.dtype == wanted
        assert found.shape == array.shape
        assert (found.view(f"u{wanted.itemsize}") == expected.view(f"u{wanted.itemsize}")).all()
