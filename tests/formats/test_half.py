"""BF16 rows as FP16 over a power of two: what is exact, how much small elements lose, and rows at the ends of the range."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msdsim.formats.half import halves, lost, row_powers
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.metrics import compare_bits
from msdsim.problems import Gemm

BF16 = ml_dtypes.bfloat16


def rows(*values):
    return np.array([values], np.float32).astype(BF16)


@pytest.mark.parametrize(("top", "power"), [
    (1.0, 2.0**-15), (1.9921875, 2.0**-15), (3.0, 2.0**-14), (3.3895314e38, 2.0**112), (2.0**-111, 2.0**-126),
    (2.0**-133, 2.0**-126), (0.0, 2.0**-126),
])
def test_the_maximum_of_a_row_lies_in_the_top_binade_of_fp16(top, power):
    x = rows(top, -top / 2)
    powers = row_powers(x)
    assert powers[0, 0] == power
    h = halves(x, powers)
    assert np.isfinite(h).all()
    assert (h.astype(np.float64) * power == x.astype(np.float64)).all()
    if top >= 2.0**-111:
        assert 2.0**15 <= h[0, 0] <= 65280


def test_elements_are_exact_down_to_32_binades_below_the_maximum_and_then_lose_at_most_40():
    x = rows(1.5, 1.9921875 * 2.0**-32, 1.0078125 * 2.0**-33, 2.0**-40, 2.0**-80)
    powers = row_powers(x)
    off = np.abs(halves(x, powers).astype(np.float64) * powers - x.astype(np.float64))
    assert off[0, :2].tolist() == [0, 0]
    assert (off[0, 2:] > 0).tolist() == [True, True, True]
    assert (off <= lost(np.abs(x.astype(np.float64)), powers)).all()
    assert lost(np.abs(x.astype(np.float64)), powers)[0].tolist() == [0, 0, *3 * [2.0**-40]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 0xFFFF).filter(lambda code: code & 0x7F80 != 0x7F80), min_size=1, max_size=40))
def test_the_loss_is_bounded_for_any_row(codes):
    x = np.array([codes], np.uint16).view(BF16)
    powers = row_powers(x)
    off = np.abs(halves(x, powers).astype(np.float64) * powers.astype(np.float64) - x.astype(np.float64))
    assert (off <= lost(np.abs(x.astype(np.float64)), powers)).all()


@pytest.mark.parametrize("options", [{}, {"offset": True}, {"group": 32}, {"group": 32, "offset": True}], ids=str)
def test_rows_within_32_binades_give_the_bits_of_bf16(options):
    problem = Gemm(m=5, k=96, n=6, **options)
    half, plain = contract_for("gemm", "convert-fp16-int8"), contract_for("gemm", "convert-int8")
    operands = plain.operands(problem, None, 4)
    assert compare_bits(half.reference(problem, operands)["y"], plain.reference(problem, operands)["y"], "y") is None
