"""Limits of every format against ml_dtypes and gfloat, which derive them on their own."""

import subprocess
import sys

import gfloat
import ml_dtypes
import numpy as np
import pytest

from msdsim.errors import UnknownNameError
from msdsim.formats import FORMATS, storage_bytes


def test_names_are_the_published_ones():
    assert list(FORMATS) == ["bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e5m2", "fp4_e2m1", "e8m0", "int8", "int4",
                             "int32"]
    assert all(fmt.name == name and fmt.description for name, fmt in FORMATS.items())


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32", "fp8_e4m3fn", "fp8_e5m2", "fp4_e2m1", "e8m0"])
def test_float_limits(name, gfloat_formats):
    fmt, other = FORMATS[name], gfloat_formats[name]
    assert fmt.bits == other.bits
    assert fmt.max_value == other.max
    assert fmt.smallest_subnormal == other.smallest
    if name != "e8m0":
        info = ml_dtypes.finfo(fmt.dtype)
        assert fmt.max_value == float(info.max)
        assert fmt.smallest_normal == float(info.smallest_normal)
        assert fmt.unit_roundoff == 2.0 ** -(info.nmant + 1)


@pytest.mark.parametrize(("name", "low", "high"),
                         [("int8", -128, 127), ("int4", -8, 7), ("int32", -(2**31), 2**31 - 1)])
def test_integer_limits(name, low, high):
    assert (FORMATS[name].min_value, FORMATS[name].max_value) == (low, high)


@pytest.mark.parametrize(("name", "count", "size"), [("int4", 7, 4), ("int4", 8, 4), ("fp4_e2m1", 1, 1), ("bf16", 3, 6),
                                                     ("e8m0", 5, 5), ("int32", 2, 8)])
def test_storage_bytes(name, count, size):
    assert storage_bytes(count, name) == size == storage_bytes(count, FORMATS[name])
    assert FORMATS[name].dtype.itemsize * 8 == max(8, FORMATS[name].bits)


def test_unknown_format_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown format 'bf17'; did you mean 'bf16'\? \(known: bf16, fp16"):
        FORMATS["bf17"]


def test_listing_formats_imports_no_numpy():
    code = "import sys, msdsim.formats as f; list(f.FORMATS.values()); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_code_of_small_formats_decodes_as_in_gfloat(gfloat_formats):
    for name in ("fp8_e4m3fn", "fp8_e5m2", "fp4_e2m1", "e8m0"):
        codes = np.arange(2 ** FORMATS[name].bits, dtype=np.uint8)
        with np.errstate(invalid="ignore"):
            ours = codes.view(FORMATS[name].dtype).astype(np.float64)
        theirs = np.array([gfloat.decode_float(gfloat_formats[name], int(c)).fval for c in codes])
        np.testing.assert_array_equal(ours, theirs)
