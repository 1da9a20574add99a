"""Activations that are given quantized: what their codes are, and what is said of other arrays."""

import numpy as np
import pytest

from msdsim.errors import ArrayError
from msdsim.numerics.operands import gemm_operands
from msdsim.problems import parse_problem

SCALES = {"int8": np.ones(4, np.float32), "mxfp8": np.full((4, 2), 127, np.uint8), "mxfp4": np.full((4, 2), 127, np.uint8)}


@pytest.mark.parametrize("fmt", SCALES)
def test_scales_need_codes(fmt):
    problem = parse_problem(f"gemm:m=4,k=64,n=32,x={fmt}")
    weights = "int8" if fmt == "int8" else fmt
    given = {"x_scale": SCALES[fmt]}
    with pytest.raises(ArrayError, match=r"needs the quantized activations 'x' .* beside it"):
        gemm_operands(problem, given, 0, weights)
    with pytest.raises(ArrayError, match=r"as integers .*, and these are real numbers \(float32\); give their bytes"):
        gemm_operands(problem, given | {"x": np.ones((4, 64), np.float32)}, 0, weights)
    codes = gemm_operands(problem, given | {"x": np.ones((4, 64), np.uint8)}, 0, weights)
    assert codes["x"].shape == (4, 64)


def test_range_of_codes_speaks_of_no_weights():
    given = {"x": np.full((4, 64), 300), "x_scale": SCALES["mxfp8"]}
    with pytest.raises(ArrayError, match=r"x has 300 at row 0, column 0, .*; quantize to that range$"):
        gemm_operands(parse_problem("gemm:m=4,k=64,n=32,x=mxfp8"), given, 0, "mxfp8")
