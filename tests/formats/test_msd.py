"""The decomposition: bounds attacked, tightness, exactness of every decision, variants, bad input."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msdsim.errors import ArrayError, InputError
from msdsim.formats.msd import (
    MSD_INT4,
    MSD_INT8,
    MSD_MXFP4,
    MSD_NIBBLES,
    MSD_SPECS,
    decompose,
    error_bound,
    reconstruct,
)
from msdsim.formats.mx import ceil_log2

BF16 = ml_dtypes.bfloat16


def bf16_rows(rows):
    return np.array(rows, np.float32).astype(BF16)


def exact_components(row, f, g, passes):
    """The decomposition of one row in rational arithmetic, half away from zero."""
    values = [Fraction(float(v)) for v in row]
    m = max(abs(v) for v in values) or Fraction(1)
    rest, result = [v * f for v in values], []
    for i in range(passes):
        rest = [r * g for r in rest] if i else rest
        digits = [(abs(r) / m + Fraction(1, 2)) // 1 * (1 if r >= 0 else -1) for r in rest]
        rest = [r - a * m for r, a in zip(rest, digits, strict=True)]
        result.append([int(a) for a in digits])
    return result


def integer_decisions(x, m, f, g, passes):
    """Exact components of x / m for integers x, m >= 0 (int64 arithmetic, half away from zero)."""
    rest, result = x * f, []
    for i in range(passes):
        rest = rest * g if i else rest
        a = (2 * np.abs(rest) + m) // (2 * m) * np.sign(rest)
        rest = rest - a * m
        result.append(a)
    return result


def every_pair(distances):
    """x and M over all significands of bf16 and exponent distances: x = X 2^-d, as integers x, M = Mi 2^d."""
    significand = np.arange(128, 256, dtype=np.int64)
    x, m, d = np.meshgrid(significand, significand, np.array(distances), indexing="ij")
    keep = x <= m << d
    return x[keep], (m << d)[keep], d[keep]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("spec", "passes", "distances"), [(MSD_INT8, 2, range(18)), (MSD_INT8, 3, range(26)),
                                                           (MSD_INT4, 3, range(14)), (MSD_INT4, 6, range(26))])
def test_every_decision_is_exact_for_bf16(spec, passes, distances, sign):
    """Exhaustive: the components depend on the significands of x and M and on their distance only."""
    x, m, d = every_pair(distances)
    rows = np.stack([m, sign * x], axis=1).astype(np.float64) * 2.0 ** -d[:, None]
    expected = integer_decisions(x, m, int(spec.first_factor), int(spec.next_factor), passes)
    parts = decompose(rows.astype(BF16), spec.with_passes(passes))
    for a, want in zip(parts.components, expected, strict=True):
        np.testing.assert_array_equal(a[:, 1], sign * want)


def test_fourth_int8_pass_is_inexact_as_stated():
    x, m, d = every_pair(range(30))
    rows = (np.stack([m, x], axis=1).astype(np.float64) * 2.0 ** -d[:, None]).astype(BF16)
    spec = MSD_INT8.with_passes(4)
    parts = decompose(rows, spec)
    expected = integer_decisions(x, m, 127, 254, 4)
    wrong = np.mean(parts.components[3][:, 1] != expected[3])
    assert 0 < wrong < 2e-4
    ratio = np.abs(reconstruct(parts) - rows.astype(np.float64)) / error_bound(rows, spec)
    assert 1.001 < ratio.max() < 1.003


ANY_BF16 = arrays(np.uint16, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.integers(0, 0xFFFF))
INTEGER_CASES = [(MSD_INT8, n) for n in (1, 2)] + [(MSD_INT4, n) for n in (1, 2, 3, 4)]


@settings(max_examples=150, deadline=None)
@given(ANY_BF16, st.sampled_from(INTEGER_CASES))
@example(np.uint16([[0x0001, 0x0000, 0x8001, 0x0002]]), (MSD_INT8, 2))  # subnormals
@example(np.uint16([[0x3F80] * 8]), (MSD_INT8, 2))  # all equal
@example(np.uint16([[0x7B80, 0x3F80, 0x0001]]), (MSD_INT8, 2))  # one huge element
@example(np.uint16([[0x0000, 0x8000]]), (MSD_INT8, 2))  # zero row
def test_integer_bound_holds_for_any_bit_pattern(bits, case):
    spec, passes = case
    spec = spec.with_passes(passes)
    x = bits.view(BF16)
    x = np.where(np.abs(x.astype(np.float32)) <= 2.0**120, x, np.zeros(1, BF16))
    parts = decompose(x, spec)
    f, g = int(spec.first_factor), int(spec.next_factor)
    for i, row in enumerate(x):
        exact = exact_components(row, f, g, passes)
        assert [a[i].tolist() for a in parts.components] == exact
        m = max(abs(Fraction(float(v))) for v in row)
        for j, value in enumerate(row):
            hat = m / f * sum(Fraction(exact[p][j], g**p) for p in range(passes))
            assert abs(Fraction(float(value)) - hat) <= m / Fraction(g) ** passes


@pytest.mark.parametrize("passes", [1, 2, 3])
@settings(max_examples=60, deadline=None)
@given(bits=ANY_BF16)
def test_mxfp4_bound_holds_for_any_bit_pattern(passes, bits):
    spec = MSD_MXFP4.with_passes(passes)
    x = bits.view(BF16)
    x = np.where(np.isfinite(x.astype(np.float32)), x, np.zeros(1, BF16))
    error = np.abs(reconstruct(decompose(x, spec)) - x.astype(np.float64))
    assert (error <= error_bound(x, spec)).all()
    alpha = np.exp2(ceil_log2(np.abs(x.astype(np.float64)).max()))
    if alpha >= 2.0**-110:  # E8M0 has no smaller scales than 2^-127
        assert error.max() <= alpha / 8.0**passes


@pytest.mark.parametrize(("spec", "passes"),
                         [*INTEGER_CASES, (MSD_INT8, 3), (MSD_MXFP4, 1), (MSD_MXFP4, 2), (MSD_MXFP4, 3)])
def test_bound_is_reached(spec, passes):
    """Some float32 input comes within 1% of the bound: values half-way between neighbours of the last pass."""
    spec = spec.with_passes(passes)
    if spec.scheme == "mx":
        ties = np.concatenate([np.arange(1, 2 * 8**passes) / 8.0**passes / 2, [1]])
    else:
        step = 1 / (spec.first_factor * spec.next_factor ** (passes - 1))
        ties = np.concatenate([(np.arange(500) + 0.5) * step, [1]])
    x = ties.astype(np.float32)[None, :]
    ratio = (np.abs(reconstruct(decompose(x, spec)) - x.astype(np.float64)) / error_bound(x, spec)).max()
    assert 0.99 <= ratio <= 1.001


@pytest.mark.parametrize("name", [n for n, s in MSD_SPECS.items() if s.scheme == "row"])
def test_variants_keep_their_bound_and_range(name):
    """The vendor's factors are not exact in float32: half a permille of slack."""
    spec = MSD_SPECS[name]
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((50, 300)) * 2.0 ** rng.integers(-8, 8, (50, 1))).astype(np.float32).astype(BF16)
    parts = decompose(x, spec)
    error = np.abs(reconstruct(parts) - x.astype(np.float64))
    assert (error <= error_bound(x, spec) * 1.0005).all()
    assert error.max() > 0.5 * error_bound(x, spec).min()
    limit = 8 if spec.target == "int4" else 128
    for a in parts.components:
        assert a.min() >= -limit
        assert a.max() < limit


def test_vendor_factors_differ_from_the_plain_ones():
    x = bf16_rows([[1, 0.3, 0.7, -0.11]])
    plain, vendor = (decompose(x, MSD_SPECS[name]) for name in ("int8", "int8-vendor"))
    assert plain.row_scale[0] == np.float32(1) / np.float32(127)
    assert vendor.row_scale[0] == np.float32(1) / np.float32(127.499)
    assert any((p != v).any() for p, v in zip(plain.components, vendor.components, strict=True))


def test_floor_digits_by_hand():
    parts = decompose(np.float32([[-1.0, 0.5]]), MSD_SPECS["int8-floor"])
    # 128 / 1.001 = 127.872: -127.872 -> -128, 63.936 -> 63; the rests times 128 are digits 0..127.
    assert [a[0].tolist() for a in parts.components] == [[-128, 63], [16, 119]]


def test_nibbles_are_exact_for_every_int8():
    x = np.arange(-128, 128).astype(np.int8)[None, :]
    parts = decompose(x, MSD_NIBBLES)
    np.testing.assert_array_equal(reconstruct(parts), x)
    for a in parts.components:
        assert a.min() == -8
        assert a.max() == 7
    with pytest.raises(ArrayError, match="x has dtype float32, the exact split in nibbles takes int8"):
        decompose(np.ones((1, 2), np.float32), MSD_NIBBLES)


def test_rounding_of_a_tie_is_the_spec_s():
    x = np.float32([[127, 0.5, -0.5, 1.5]])  # x * 127 / 127 is the value itself
    expected = {"round": [127, 1, -1, 2], "rint": [127, 0, 0, 2], "floor": [127, 0, -1, 1]}
    for rounding, digits in expected.items():
        spec = MSD_INT8.with_passes(1).with_rounding(rounding)
        assert decompose(x, spec).components[0][0].tolist() == digits


def test_zero_rows_and_blocks_give_zeros():
    x = np.zeros((2, 70), np.float32)
    x[1, 40] = -3
    parts = decompose(x, MSD_INT8)
    assert parts.row_max.tolist() == [0, 3]
    assert not any(a[0].any() for a in parts.components)
    assert (reconstruct(parts)[0] == 0).all()
    mx = decompose(x, MSD_MXFP4)
    assert mx.block_scales[1].view(np.uint8).tolist() == [[0, 0, 0], [0, 127 + 2 - 5, 0]]
    assert mx.block_scales[0].shape == (2, 3)


def test_stacked_rows_in_pass_order():
    parts = decompose(np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32), MSD_INT8)
    np.testing.assert_array_equal(parts.stacked()[:3], parts.components[0])
    np.testing.assert_array_equal(parts.stacked()[3:], parts.components[1])


def test_large_matrix_equals_row_by_row():
    x = np.random.default_rng(0).standard_normal((9, 20000)).astype(np.float32)
    whole = decompose(x, MSD_INT8)
    for i in range(9):
        single = decompose(x[i : i + 1], MSD_INT8)
        for a, b in zip(whole.components, single.components, strict=True):
            np.testing.assert_array_equal(a[i], b[0])


@pytest.mark.parametrize(("spec", "x", "message"), [
    (MSD_INT8, [[1, 2], [3, np.nan]], "activations has nan at row 1, column 1"),
    (MSD_MXFP4, [[1, 2], [-np.inf, 0]], "activations has -inf at row 1, column 0"),
    (MSD_INT8, [[1, 2], [3, 2.0**121]], r"activations has 2.65\S* in row 1, above 2\^120"),
    (MSD_INT8, [1, 2], "activations has 1 dimensions"),
    (MSD_INT8, np.zeros((3, 0)), r"activations is empty \(shape \[3, 0\]\)"),
])
def test_bad_activations(spec, x, message):
    with pytest.raises(ArrayError, match=message):
        decompose(np.array(x, np.float32), spec, "activations")


def test_bad_specs():
    with pytest.raises(InputError, match="passes=0 is below 1"):
        MSD_INT8.with_passes(0)
    with pytest.raises(InputError, match="passes=3: the exact split of int8 has two nibbles"):
        MSD_NIBBLES.with_passes(3)
    with pytest.raises(InputError, match=r"unknown rounding 'up' \(known: rint, round, floor\)"):
        MSD_INT8.with_rounding("up")
    with pytest.raises(InputError, match=r"scale rule 'rceil' has no bound alpha/8\^n"):
        MSD_MXFP4.with_scale_rule("rceil").relative_bound()
