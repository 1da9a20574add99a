"""Dequantization with groups of scales: what large slots and odd group sizes cost, and that their numbers are right."""

from __future__ import annotations

import pytest

import msdsim


def test_a_slot_whose_scales_do_not_fit_takes_them_tile_by_tile():
    """5120 of K by 256 columns have 160 groups, whose scales and offsets alone are 160 KiB for each AIV."""
    tiling = {"base_n": 256, "slot_k": 5120, "slots": 1, "vector_k": 32, "ub_ring": 1}
    result = msdsim.simulate("gemm:m=1,k=5120,n=6144,group=32,offset=1", "ascend910b1", "dequant-int4", tiling=tiling, check=True)
    assert result.numerics.bit_exact, result.numerics.first_mismatch
    smaller, tiling = "gemm:m=1,k=5120,n=600,group=32,offset=1", {**tiling, "l1_k": 192, "l0_k": 64, "k_parts": 1}
    fast, reference = (msdsim.simulate(smaller, "ascend910b1", "dequant-int4", tiling=tiling, engine=engine)
                       for engine in ("fast", "reference"))
    assert fast.cycles == reference.cycles


@pytest.mark.parametrize("chip", ["ascend910b1", "ascend950pr"])
@pytest.mark.parametrize("group", [998, 502, 250, 77])
def test_odd_groups_are_not_slow(group, chip):
    """998 and 502 are twice a prime: cut into their divisors they would be converted two rows at a time."""
    result = msdsim.simulate(f"gemm:m=16,k=2994,n=512,group={group}", chip, "dequant-int8", tiling={"k_parts": 1}, check=True)
    assert result.numerics.bit_exact, result.numerics.first_mismatch
    even = msdsim.simulate("gemm:m=16,k=2994,n=512,group=256", chip, "dequant-int8", tiling={"k_parts": 1})
    assert result.cycles <= 1.35 * even.cycles
