"""Rules of the numbers that only a case made for them shows."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from msdsim.errors import ArrayError
from msdsim.formats.quantize import quantize_weight
from msdsim.ir import KernelBuilder, at
from msdsim.numerics.bounds import gamma
from msdsim.numerics.executor import execute
from msdsim.numerics.metrics import bound_ratio, compare_bits
from tests.ir.kernels import copy_kernel


def test_nan_equals_only_nan():
    nan, one = (np.array([value], ml_dtypes.bfloat16) for value in (np.nan, 1.0))
    assert compare_bits(nan, nan, "y") is None
    assert compare_bits(nan, -nan, "y") is None
    assert compare_bits(nan, one, "y").count == 1
    assert compare_bits(one, nan, "y").count == 1
    assert compare_bits(np.array([0.0], np.float32), np.array([-0.0], np.float32), "y").count == 1


def test_gamma_is_highams():
    assert gamma(2**22, 2.0**-24) == pytest.approx(0.25 / 0.75)
    assert gamma(1, 2.0**-24) > 2.0**-24
    assert gamma(2**24, 2.0**-24) == np.inf


def test_no_bound_counts_as_none_not_as_zero():
    y, y64 = np.array([1.0, 2.0], np.float32), np.array([1.5, 2.5])
    assert bound_ratio(y, y64, np.array([np.inf, np.inf])) is None
    assert bound_ratio(y, y64, np.array([np.inf, 1.0])) == 0.5
    assert bound_ratio(np.array([np.inf, 2.0], np.float32), y64, np.array([1.0, 1.0])) == 0.5
    assert bound_ratio(y, y64, np.array([np.nan, 0.25])) == 2


def test_scales_are_normal_numbers():
    for offset in (False, True):
        scale = quantize_weight(np.full((4, 2), 1e-44, np.float32), "int8", offset=offset).scale
        assert (scale >= np.finfo(np.float32).tiny).all()


def test_a_slot_is_poisoned_when_it_is_acquired_again():
    """The second turn of the loop reads a slot that only the first has written: its result shows it."""
    kb = KernelBuilder("stale", cores=1, aiv_per_core=1)
    x, y = kb.tensor("x", "fp32", (2, 64), "in"), kb.tensor("y", "fp32", (2, 64), "out")
    with kb.part("aiv"), kb.loop("i", 0, 2) as i:
        tile = kb.buffer("tile", "UB", "fp32", (1, 64), 1)
        with kb.when(1 - i):
            kb.copy(tile[:, :], x[at(i, 1), :])
        kb.copy(y[at(i, 1), :], tile[:, :])
    found = execute(kb.build(), {"x": np.ones((2, 64), np.float32)})["y"]
    assert (found[0] == 1).all()
    assert np.isnan(found[1]).all()


def test_inputs_of_another_size_or_type_are_refused():
    kernel = copy_kernel(rows=2, cols=64)
    assert execute(kernel, {"x": np.ones((128,), np.float32)})["y"].shape == (2, 64)
    for wrong in (np.ones((2, 65), np.float32), np.ones((1, 64), np.float32), np.ones((2, 64), np.float64)):
        with pytest.raises(ArrayError, match=r"tensor 'x' is float.*, the kernel wants float32\[2, 64\]"):
            execute(kernel, {"x": wrong})
    with pytest.raises(ArrayError, match="reads tensor 'x', which was not given"):
        execute(kernel, {})


@pytest.mark.parametrize("k", [2048, 8192])
def test_the_bound_counts_sums_that_float32_does_not_hold(k):
    """Aligned signs make integer sums beyond 2^24; their conversion rounds, and the bound is still above the error."""
    from msdsim.numerics.contracts import contract_for
    from msdsim.problems import Gemm

    rng = np.random.default_rng(0)
    problem = Gemm(m=4, k=k, n=8)
    for name in ("msd-int8", "msd-int4", "w8a8", "a8w4"):
        contract = contract_for("gemm", name)
        operands = contract.operands(problem, {"x": np.abs(rng.standard_normal((4, k))).astype(np.float32) + 1,
                                               "w": np.abs(rng.standard_normal((k, 8))).astype(np.float32)})
        y64 = contract.exact(problem, operands)
        found = contract.reference(problem, operands)
        assert bound_ratio(found["y"], y64, contract.bound(problem, operands, y64)) <= 1
