"""Arrays that npz files hold as raw bytes, in the types that ml_dtypes writes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from msdsim.cli.arguments import read_inputs
from msdsim.errors import ArrayError, InputError
from msdsim.runs import RunOptions


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return str(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "float4_e2m1fn"])
def test_types_of_ml_dtypes_come_back(dtype, tmp_path):
    low = 0 if dtype == "uint4" else -6
    x = np.array([[low, 0, 1, 2], [3, 4, 6, low]], np.float32).astype(getattr(ml_dtypes, dtype))
    # numpy writes float8_e5m2 as <f1, which it does not read itself: its bytes serve.
    stored = x.view(np.uint8) if dtype == "float8_e5m2" else x
    found = read_inputs(saved(tmp_path, x=stored, other=np.ones(3, np.float32)), [f"x={dtype}"])
    np.testing.assert_array_equal(found["x"].astype(np.float32), x.astype(np.float32))
    np.testing.assert_array_equal(found["other"], 1)


def test_two_raw_bytes_are_bfloat16(tmp_path):
    x = np.float32([1.5, -3]).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(read_inputs(saved(tmp_path, x=x))["x"], np.float32([1.5, -3]))


@pytest.mark.parametrize(("stated", "message"), [
    ([], "x has dtype |V1"), (["y=int4"], "unknown array of --dtype 'y'"), (["x=int5"], "unknown dtype 'int5'"), (["x=bfloat16"], "of 1 bytes"),
    (["float8_e4m3fn", "w=bfloat16"], "of 4 bytes"),
])
def test_what_is_not_said_or_does_not_fit(stated, message, tmp_path):
    file = saved(tmp_path, x=np.float32([1, 2]).astype(ml_dtypes.float8_e4m3fn), w=np.ones(2, np.float32))
    with pytest.raises(InputError) as found:
        read_inputs(file, stated)
    assert message in str(found.value)


def test_options_of_a_run_take_the_path_of_a_file(tmp_path):
    file = saved(tmp_path, x=np.float32([[1.5, -3]]))
    np.testing.assert_array_equal(RunOptions().but(inputs=file).inputs["x"], np.float32([[1.5, -3]]))
    with pytest.raises(ArrayError, match="does not exist; give an"):
        RunOptions().but(inputs=tmp_path / "none.npz")
