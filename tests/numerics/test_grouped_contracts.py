"""Grouped GEMM is the GEMM contract, group by group."""

import numpy as np
import pytest

from msdsim.errors import ArrayError, UnknownNameError
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.metrics import bound_ratio, compare_bits
from msdsim.problems.model import Gemm, GroupedGemm


@pytest.mark.parametrize("name", ["bf16", "dequant-int8", "msd-int8", "msd-mxfp4"])
def test_each_group_is_a_gemm(name):
    shape, single = GroupedGemm(groups=3, m=2, k=40, n=5), Gemm(m=2, k=40, n=5)
    contract, inner = contract_for("grouped_gemm", name), contract_for("gemm", name)
    operands = contract.operands(shape, None, 4)
    result, y64 = contract.reference(shape, operands), contract.exact(shape, operands)
    assert bound_ratio(result["y"], y64, contract.bound(shape, operands, y64)) <= 1
    for g in range(3):
        part = {key: array[g] for key, array in operands.items()}
        assert compare_bits(inner.reference(single, part)["y"], result["y"][g], "y") is None
    assert not np.array_equal(operands["x"][0], operands["x"][1])


@pytest.mark.parametrize("name", ["bf16", "dequant-int8", "msd-int8", "msd-mxfp4"])
def test_groups_with_rows_of_their_own(name):
    rows = (3, 0, 1, 4)
    shape = GroupedGemm(rows=rows, k=40, n=5)
    contract, inner = contract_for("grouped_gemm", name), contract_for("gemm", name)
    operands = contract.operands(shape, None, 4)
    assert operands["x"].shape == (8, 40)
    assert len(operands["w"]) == 4
    result, y64 = contract.reference(shape, operands), contract.exact(shape, operands)
    assert bound_ratio(result["y"], y64, contract.bound(shape, operands, y64)) <= 1
    start = 0
    for g, m in enumerate(rows):
        if m:
            single = Gemm(m=m, k=40, n=5)
            part = {key: operands[key][start : start + m] if key == "x" else operands[key][g] for key in operands}
            # Each group draws what it draws in a problem of its own.
            assert compare_bits(inner.operands(single, None, (4, g))["x"], part["x"], "x") is None
            assert compare_bits(inner.reference(single, part)["y"], result["y"][start : start + m], "y") is None
            assert np.array_equal(inner.exact(single, part), y64[start : start + m])
        start += m


def test_input_of_another_shape():
    shape, contract = GroupedGemm(rows=(1, 2), k=4, n=2), contract_for("grouped_gemm", "bf16")
    with pytest.raises(ArrayError, match=r"x has shape \[2, 1, 4\], the problem needs \[3, 4\]"):
        contract.operands(shape, {"x": np.zeros((2, 1, 4))})
    with pytest.raises(ArrayError, match=r"w has shape \[1, 4, 2\], the problem needs 2 groups along the first axis"):
        contract.operands(shape, {"w": np.zeros((1, 4, 2))})
    x = np.zeros((3, 4))
    x[1, 2] = np.nan
    with pytest.raises(ArrayError, match="group 1: x has nan at row 0, column 2"):
        contract.operands(shape, {"x": x})


def test_passes_and_bad_input():
    shape = GroupedGemm(groups=2, m=1, k=4, n=2)
    contract = contract_for("grouped_gemm", "msd-int8").with_passes(3)
    assert "a3" in contract.reference(shape, contract.operands(shape))
    with pytest.raises(ArrayError, match=r"x has shape \[1, 1, 4\], the problem needs 2 groups along the first axis"):
        contract.operands(shape, {"x": np.zeros((1, 1, 4))})
    x = np.zeros((2, 1, 4))
    x[1, 0, 2] = np.nan
    with pytest.raises(ArrayError, match="group 1: x has nan at row 0, column 2"):
        contract.operands(shape, {"x": x})
    with pytest.raises(UnknownNameError, match=r"unknown contract 'msd-int7'; did you mean 'msd-int4'|'msd-int8'"):
        contract_for("grouped_gemm", "msd-int7")
