"""4-bit packing: layout, every value, odd counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msdsim.errors import ArrayError
from msdsim.formats import FORMATS, storage_bytes
from msdsim.formats.packing import pack4, unpack4


def test_low_nibble_first():
    np.testing.assert_array_equal(pack4(np.int8([[1, -1, 7]])), [[0xF1, 0x07]])


@settings(deadline=None)
@given(st.lists(st.integers(-8, 7), min_size=1, max_size=33))
def test_int4_round_trip(values):
    array = np.int8(values)
    packed = pack4(array)
    assert packed.nbytes == storage_bytes(len(values), "int4")
    np.testing.assert_array_equal(unpack4(packed, len(values)), array)


def test_fp4_round_trip_of_every_code():
    codes = np.arange(16, dtype=np.uint8)
    values = codes.view(FORMATS["fp4_e2m1"].dtype)
    back = unpack4(pack4(values), 16, FORMATS["fp4_e2m1"])
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back.view(np.uint8), codes)
    np.testing.assert_array_equal(pack4(values), pack4(codes))


@pytest.mark.parametrize(("values", "bad"),
                         [(np.int8([0, 8]), r"value 8 at index \(1,\) is not a 4-bit value \[-8, 7\]"),
                          (np.uint8([16]), r"value 16 at index \(0,\) .* \[0, 15\]")])
def test_values_outside_four_bits(values, bad):
    with pytest.raises(ArrayError, match=bad):
        pack4(values)


def test_wrong_packed_size():
    with pytest.raises(ArrayError, match=r"3 packed 4-bit values need uint8 \[..., 2\], not uint8 \[1\]"):
        unpack4(np.zeros(1, np.uint8), 3)
