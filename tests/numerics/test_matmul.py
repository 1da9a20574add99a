"""Cube rules: tile kernel = whole-tensor reference = rational arithmetic, any tiling; the int32 limit."""

import importlib
from fractions import Fraction

import ml_dtypes
import numba
import numpy as np
import pytest
from rational_oracle import f32, sum_in_k

from msdsim.errors import ArrayError
from msdsim.formats import FORMATS
from msdsim.formats.mx import quantize_mx
from msdsim.numerics import _kernels
from msdsim.numerics.matmul import max_safe_k, mmad_float, mmad_int, mmad_mx
from msdsim.numerics.references import matmul as reference

BF16, E4M3, FP4 = (FORMATS[n].dtype for n in ("bf16", "fp8_e4m3fn", "fp4_e2m1"))


def wide_range(shape, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 13, shape)).astype(np.float32)


@pytest.mark.parametrize("dtype", [BF16, np.float16, E4M3, ml_dtypes.float8_e5m2])
def test_float_kernel_equals_the_k_loop(dtype):
    scale = np.float32(1 if np.dtype(dtype).itemsize == 2 else 0.01)
    a, b = (wide_range((9, 333), 0) * scale).astype(dtype), (wide_range((333, 700), 1) * scale).astype(dtype)
    got = mmad_float(a, b)
    np.testing.assert_array_equal(got.view(np.uint32), reference.matmul_float(a, b).view(np.uint32))
    backwards = mmad_float(a[:, ::-1], b[::-1])
    assert (got != backwards).any()  # the order is visible in these values


def test_float_kernel_equals_rational_arithmetic():
    a, b = wide_range((3, 40), 2).astype(BF16), wide_range((40, 4), 3).astype(BF16)
    got = mmad_float(a, b)
    for i in range(3):
        for j in range(4):
            exact = sum_in_k([Fraction(float(v)) for v in a[i]], [Fraction(float(v)) for v in b[:, j]])
            assert Fraction(float(got[i, j])) == exact


def test_tiling_changes_no_bit():
    a, b = wide_range((5, 256), 4).astype(BF16), wide_range((256, 37), 5).astype(BF16)
    whole = mmad_float(a, b)
    acc = np.zeros((5, 37), np.float32)
    for k in range(0, 256, 48):
        before = acc.copy()
        new = mmad_float(a[:, k : k + 48], b[k : k + 48], acc)
        np.testing.assert_array_equal(acc, before)  # the accumulator passed in is left alone
        acc = new
    np.testing.assert_array_equal(acc.view(np.uint32), whole.view(np.uint32))
    tiles = np.concatenate([mmad_float(a[1:4], b[:, j : j + 16]) for j in range(0, 37, 16)], axis=1)
    np.testing.assert_array_equal(tiles.view(np.uint32), whole[1:4].view(np.uint32))


def test_threads_change_no_bit():
    a, b = wide_range((16, 1024), 6).astype(BF16), wide_range((1024, 2048), 7).astype(BF16)
    assert a.size * b.shape[1] > 1 << 24
    narrow = np.concatenate([mmad_float(a, b[:, j : j + 512]) for j in range(0, 2048, 512)], axis=1)
    np.testing.assert_array_equal(mmad_float(a, b).view(np.uint32), narrow.view(np.uint32))


@pytest.mark.parametrize("dtype", [E4M3, FP4])
def test_mx_kernel_equals_the_reference_and_tiles(dtype):
    fmt = FORMATS["fp8_e4m3fn" if dtype == E4M3 else "fp4_e2m1"]
    a, a_scale = quantize_mx(wide_range((4, 200), 8), fmt)
    b, b_scale = quantize_mx(wide_range((200, 90), 9), axis=0)
    got = mmad_mx(a, a_scale, b, b_scale)
    np.testing.assert_array_equal(got.view(np.uint32), reference.matmul_mx(a, a_scale, b, b_scale).view(np.uint32))
    acc = None
    for block in range(0, 7, 2):
        k, s = slice(32 * block, 32 * block + 64), slice(block, block + 2)
        acc = mmad_mx(a[:, k], a_scale[:, s], b[k], b_scale[s], acc)
    np.testing.assert_array_equal(got.view(np.uint32), acc.view(np.uint32))


@pytest.mark.parametrize(("start", "far", "expected"),
                         [(1 + 2.0**-23, 0, 1 + 2.0**-22), (1 + 2.0**-23, -1, 1 + 2.0**-23),
                          (1.0, 0, 1.0), (1.0, 1, 1 + 2.0**-23)])
def test_mx_sum_is_rounded_once(start, far, expected):
    """The block adds a tie of the accumulator, 2^-24, and 2^-62 beside it, which a float64 sum would drop."""
    a, b = np.zeros((1, 32), np.float32), np.zeros((32, 1), np.float32)
    a[0, :16], b[:16, 0] = 256, 256  # 16 * 2^16 = 2^20
    a[0, 16], b[16, 0] = 2.0**-9, far * 2.0**-9
    scales = np.uint8([[127 - 44]]).view(FORMATS["e8m0"].dtype), np.uint8([[127]]).view(FORMATS["e8m0"].dtype)
    got = mmad_mx(a.astype(E4M3), scales[0], b.astype(E4M3), scales[1], np.float32([[start]]))
    assert got[0, 0] == np.float32(expected)


def test_add_rounded_once_equals_fractions():
    rng = np.random.default_rng(10)
    acc = (rng.choice([-1, 1], 3000) * rng.integers(1 << 23, 1 << 24, 3000) * 2.0**-23).astype(np.float32)
    # values that land on a float32 tie but for a last bit far below float64's reach
    tie = rng.choice([2.0**-24, -(2.0**-24), 3 * 2.0**-25], 3000)
    value = tie + rng.choice([0, 2.0**-76, -(2.0**-76), 2.0**-70], 3000)
    got = reference.add_rounded_once(acc, value)
    for a, v, g in zip(acc, value, got, strict=True):
        assert Fraction(float(g)) == f32(Fraction(float(a)) + Fraction(float(v)))


def test_integer_kernels_are_exact_where_float32_blas_is_not():
    k = 4096
    a, b = np.full((2, k), 127, np.int8), np.full((k, 3), -128, np.int8)
    b[::2] = 127
    a[0, ::3] = 125
    expected = a.astype(np.int64) @ b.astype(np.int64)
    np.testing.assert_array_equal(mmad_int(a, b), expected)
    np.testing.assert_array_equal(reference.matmul_int(a, b), expected)
    np.testing.assert_array_equal(mmad_int(a[:, 100:], b[100:], mmad_int(a[:, :100], b[:100])), expected)
    assert mmad_int(a, b).dtype == np.int32


@pytest.mark.parametrize(("a", "b", "limit"),
                         [("int8", "int8", 131071), ("int4", "int4", 33554431), ("int8", "int4", 2097151)])
def test_last_safe_k(a, b, limit):
    assert max_safe_k(a, b) == limit == max_safe_k(FORMATS[a], FORMATS[b])


def test_exact_at_the_last_safe_k_and_wrong_above():
    k = max_safe_k("int8", "int8")
    a, b = np.full((1, k + 1), -128, np.int8), np.full((k + 1, 1), -128, np.int8)
    assert mmad_int(a[:, :k], b[:k])[0, 0] == k * 2**14 <= 2**31 - 1
    assert reference.matmul_int(a, b)[0, 0] == 2**31  # what int32 cannot hold
    assert mmad_int(a, b)[0, 0] != 2**31


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    njit = numba.njit

    def refusing(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refusing)
    kernels = importlib.reload(_kernels)
    acc = np.zeros((1, 2), np.float32)
    kernels.accumulate_float(np.ones((1, 3), np.float32), np.ones((3, 2), np.float32), acc)
    monkeypatch.undo()
    importlib.reload(_kernels)
    np.testing.assert_array_equal(acc, [[3, 3]])


def test_shapes_that_do_not_meet():
    with pytest.raises(ArrayError, match=r"matmul of \[2, 3\] and \[4, 5\]"):
        mmad_int(np.zeros((2, 3), np.int8), np.zeros((4, 5), np.int8))
    with pytest.raises(ArrayError, match=r"MX scales have shapes \[1, 1\] and \[1, 1\]; k=33 needs \[1, 2\]"):
        mmad_mx(np.zeros((1, 33), FP4), np.zeros((1, 1), np.uint8), np.zeros((33, 1), FP4), np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 70, 64), (17, 33, 65), (16, 300, 127), (40, 5, 200), (2, 1000, 3)])
def test_strips_sum_as_the_loop_in_numpy_does(m: int, k: int, n: int):
    """Bit for bit, infinities, zeros of both signs and subnormal numbers among the values."""
    random = np.random.default_rng(m)
    special = np.array([0.0, -0.0, np.inf, -np.inf, 1e-42, -1e-42, 3e38], np.float32)
    a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (k, n)))
    for array in (a, b):
        where = random.random(array.shape) < 0.02
        array[where] = random.choice(special, int(where.sum()))
    with np.errstate(all="ignore"):
        left, right = (array.astype(BF16) for array in (a, b))
        expected, got = reference.matmul_float(left, right), reference.matmul_strips(left, right)
    np.testing.assert_array_equal(np.isnan(expected), np.isnan(got))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(expected[numbers].view(np.uint32), got[numbers].view(np.uint32))
