"""Automatic tilings end slots and L1 tiles where lines of L2 end, and split a row of x in one tile where it fits."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.units import ceil_div, part_size

#: BF16 elements of a line of L2.
LINE = 256


#: A careful choice for 256 rows of 4096 x 4096 weights, with 512 of K in a slot.
MANY_ROWS = {"base_m": 128, "base_n": 192, "l1_k": 256, "l0_k": 64, "slot_k": 512, "slots": 10, "vector_k": 64, "l1_ring": 2,
             "l0_ring": 2, "l0c_ring": 1, "ub_ring": 2, "direct": 0, "swizzle": 1, "k_parts": 1}
#: The same for 16 rows.
FEW_ROWS = MANY_ROWS | {"base_m": 16, "slots": 4, "vector_k": 24, "l0c_ring": 2}


def cycles(problem: str, dataflow: str, **tiling: int) -> int:
    return msdsim.simulate(problem, "ascend910b1", dataflow, tiling=tiling or None).cycles


def with_changes(problem: str, dataflow: str, chip: str = "ascend910b1", **changes: int) -> tuple[msdsim.Result, msdsim.Result]:
    """The automatic tiling, and the same with only some keys changed."""
    auto = msdsim.simulate(problem, chip, dataflow)
    return auto, msdsim.simulate(problem, chip, dataflow, tiling={**auto.tiling, **changes})


@pytest.mark.parametrize("extra", ["", ",group=128", ",trans_b=1"])
@pytest.mark.parametrize("k", [4096, 8192, 12288])
def test_slots_of_several_tiles_of_rows_end_with_lines(k, extra):
    tiling = msdsim.simulate(f"gemm:m=300,k={k},n=4096{extra}", "ascend910b1", "dequant-int8").tiling
    assert tiling["slot_k"] % LINE == 0
    assert tiling["slot_k"] % tiling["l1_k"] == 0
    assert LINE % tiling["l1_k"] == 0 or tiling["l1_k"] % LINE == 0
    assert tiling["slots"] == ceil_div(part_size(k, tiling["k_parts"]), tiling["slot_k"]) + 2


@pytest.mark.parametrize(("extra", "gain"), [("", 0.8), (",trans_b=1", 0.6)])
def test_slots_that_end_inside_a_line_are_slow(extra, gain):
    """684 of K in a slot, and so six slots, is what an even share of half of the ring gives."""
    problem = "gemm:m=256,k=4096,n=4096" + extra
    inside = MANY_ROWS | {"slot_k": 684, "slots": 8, "vector_k": 16}
    assert cycles(problem, "dequant-int8") < gain * cycles(problem, "dequant-int8", **inside)


@pytest.mark.parametrize(("extra", "vector_k"), [("", 64), pytest.param(
    ",trans_b=1", 24, marks=pytest.mark.xfail(reason="9%: the estimate takes loads of transposed weights for slower than they are"))])
def test_no_slower_than_a_careful_choice(extra, vector_k):
    problem = "gemm:m=256,k=4096,n=4096" + extra
    assert cycles(problem, "dequant-int8") <= 1.03 * cycles(problem, "dequant-int8", **MANY_ROWS | {"vector_k": vector_k})


@pytest.mark.parametrize("problem", ["gemm:m=16,k=8192,n=12288", "gemm:m=16,k=4096,n=4096,group=128"])
def test_short_slots_shorten_the_tail(problem):
    auto, long = with_changes(problem, "dequant-int8", slot_k=512)
    assert auto.cycles < 0.99 * long.cycles


def test_transposed_weights_are_read_by_whole_lines():
    """256 of K are half a line of INT8 weights."""
    problem, halves = "gemm:m=16,k=4096,n=4096,trans_b=1", FEW_ROWS | {"slot_k": 256}
    assert cycles(problem, "dequant-int8") < 0.95 * cycles(problem, "dequant-int8", **halves)


def test_groups_that_never_end_with_lines_get_deep_slots():
    """Groups of 200: slots of 400 would end inside a line more often than those of 800."""
    problem = "grouped_gemm:groups=8,m=300,k=2048,n=2048,group=200"
    assert cycles(problem, "dequant-int8") <= cycles(problem, "dequant-int8", slot_k=400, slots=8)


@pytest.mark.parametrize("chip", ["ascend910b1", "ascend950dt"])
def test_a_row_is_split_in_one_tile_where_one_buffer_of_it_fits(chip):
    """14336 of K fit with one buffer of x, and an AIV has only one row of 16; two tiles would read x twice."""
    whole, halves = with_changes("gemm:m=16,k=14336,n=64", "w8a8", chip, decompose_k=7168)
    assert whole.tiling["decompose_k"] == 14336
    assert halves.traffic["l2_read_bytes"] - whole.traffic["l2_read_bytes"] == 2 * 16 * 14336
    assert whole.cycles < 0.99 * halves.cycles


@pytest.mark.parametrize(("dataflow", "k"), [("w8a8", 14400), ("msd-int8", 10816), ("a8w4", 9408)])
@pytest.mark.parametrize("m", [2, 60])
def test_a_long_row_in_one_tile_is_split_right(dataflow, k, m):
    """About the longest rows with which one buffer of x fits; 60 rows are two for many an AIV."""
    result = msdsim.simulate(f"gemm:m={m},k={k},n=64", "ascend910b1", dataflow, check=True)
    assert result.numerics.bit_exact, result.numerics.first_mismatch
