"""Pipeline variants: every one gives the same bits and no race, and does to the time what it is there for."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.analysis.hazards import HazardCheck
from msdsim.errors import TilingError
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.executor import execute
from msdsim.problems import parse_problem

SMALL = {"base_m": 16, "base_n": 32}
GROUPED = "gemm:m=20,k=320,n=70,group=64,offset=1"
STEPS = {"stepwise": 1, "direct": 0, "l1_k": 64, "base_m": 32, "base_n": 32, "merge_m": 2}
VARIANTS = [
    ("bf16", "toy", "gemm:m=90,k=64,n=130", {**SMALL, "swizzle": 2}),
    ("bf16", "toy", "gemm:m=90,k=64,n=130", {**SMALL, "swizzle": 4}),
    ("bf16", "toy", "grouped_gemm:groups=3,m=90,k=64,n=70", {**SMALL, "swizzle": 4}),
    ("dequant-int8", "ascend950pr", "gemm:m=40,k=700,n=130", {"direct": 0, "vector_k": 16, "l1_k": 64, "l0_k": 32}),
    ("dequant-int8", "ascend950pr", "gemm:m=40,k=700,n=130", {"base_m": 16, "direct": 1, "swizzle": 2}),
    ("dequant-int4", "ascend950pr", "gemm:m=40,k=700,n=130,trans_b=1", {"base_m": 16, "direct": 1}),
    ("dequant-mxfp4", "ascend950pr", "gemm:m=40,k=320,n=130", {"base_m": 16, "direct": 1}),
    ("msd-int8", "ascend950pr", "gemm:m=40,k=300,n=130,offset=1", {"direct": 0, "merge_m": 2}),
    ("msd-int8", "ascend950pr", "gemm:m=40,k=300,n=130,offset=1", {"direct": 1, "slots": 1, "base_m": 32, "merge_m": 3}),
    ("msd-int8", "ascend950pr", GROUPED, {"direct": 0, "merge_m": 2}),
    ("msd-mxfp4", "ascend950pr", "gemm:m=40,k=300,n=130", {"direct": 0, "merge_m": 2}),
    ("mxfp8", "ascend950pr", "gemm:m=40,k=300,n=130", {"direct": 1, "base_m": 16, "swizzle": 2}),
    ("msd-int8", "toy", GROUPED, {**STEPS, "preload": 0}),
    ("msd-int8", "toy", GROUPED, {**STEPS, "preload": 1}),
    ("msd-int4", "ascend910b1", GROUPED, {**STEPS, "base_m": 48, "l0_k": 64, "preload": 1, "slots": 3}),
    ("a8w4", "toy", GROUPED + ",trans_b=1", {**STEPS, "l0_k": 64, "preload": 1}),
    ("w8a8", "toy", "grouped_gemm:groups=3,m=20,k=320,n=70,group=32", {**STEPS, "base_m": 16, "preload": 1}),
    ("bf16", "toy", "gemm:m=20,k=300,n=70", {**SMALL, "k_parts": 3}),
    ("bf16", "ascend910b1", "grouped_gemm:groups=3,m=20,k=300,n=70,trans_b=1", {"k_parts": 2}),
    ("bf16", "toy", "gemm:m=13,k=300,n=130", {**SMALL, "a_resident": 1}),
    ("msd-int8", "toy", "gemm:m=20,k=300,n=70,offset=1", {**SMALL, "decompose_k": 128, "k_parts": 3, "merge_m": 2}),
    ("msd-int4", "ascend910b1", "grouped_gemm:groups=3,m=20,k=300,n=70", {"k_parts": 2}),
    ("w8a8", "ascend950pr", "gemm:m=20,k=700,n=70,trans_b=1", {"k_parts": 4, "direct": 0, "merge_m": 4}),
    ("a8w4", "toy", "gemm:m=5,k=300,n=130", {**SMALL, "a_resident": 1, "merge_m": 1}),
    ("dequant-int8", "toy", "gemm:m=20,k=300,n=70,offset=1", {**SMALL, "k_parts": 3}),
    # Several tiles of rows share the slots of a part; the last part has fewer of them.
    ("dequant-int8", "ascend910b1", "gemm:m=40,k=700,n=70", {**SMALL, "k_parts": 3, "slot_k": 128, "slots": 4}),
    ("dequant-int4", "ascend910b1", "gemm:m=20,k=700,n=130,group=64,offset=1", {**SMALL, "k_parts": 2}),
    ("dequant-int4", "ascend950pr", "gemm:m=20,k=700,n=130,group=64,trans_b=1", {**SMALL, "k_parts": 4, "direct": 1}),
    ("dequant-mxfp4", "ascend910b1", "grouped_gemm:rows=20+0+3,k=300,n=70", {"k_parts": 3}),
    # Scales that come with every UB tile, since those of a slot do not fit; tiles that do not divide a group.
    ("dequant-int4", "ascend910b1", "gemm:m=1,k=5120,n=300,group=32,offset=1",
     {"base_n": 256, "l1_k": 64, "l0_k": 32, "slot_k": 5120, "slots": 1, "vector_k": 32, "ub_ring": 1}),
    ("dequant-int4", "ascend910b1", "gemm:m=3,k=5120,n=150,group=32,offset=1,trans_b=1",
     {"base_n": 128, "slot_k": 5120, "slots": 1, "vector_k": 1, "ub_ring": 1}),
    ("dequant-int8", "toy", "gemm:m=3,k=400,n=70,group=122,offset=1", {"slot_k": 244, "vector_k": 50, "base_n": 32}),
    ("dequant-int8", "toy", "gemm:m=3,k=400,n=70,group=122,offset=1", {"slot_k": 122, "vector_k": 9, "base_n": 32}),
    ("mxfp8", "ascend950pr", "gemm:m=20,k=300,n=70", {**SMALL, "k_parts": 2, "direct": 0}),
    ("mxfp8", "ascend950pr", "gemm:m=20,k=700,n=70,trans_b=1", {**SMALL, "k_parts": 3, "direct": 1}),
    ("msd-mxfp4", "ascend950pr", "gemm:m=20,k=300,n=70", {"base_m": 32, "base_n": 32, "k_parts": 3, "direct": 0}),
    ("msd-mxfp4", "ascend950pr", "grouped_gemm:rows=20+0+3,k=700,n=70", {"k_parts": 2, "direct": 0, "passes": 3, "base_m": 48}),
    *(("msd-int8", "toy", "gemm:m=12,k=200,n=40", {"passes": n, "base_m": 16 * n, "base_n": 16, "l0_k": 32, "l1_k": 96, "merge_m": 1})
      for n in (1, 3, 4)),
    ("msd-mxfp4", "ascend950pr", "gemm:m=12,k=200,n=40", {"passes": 3, "base_m": 48, "slots": 1}),
]


@pytest.mark.parametrize(("dataflow", "chip", "shape", "tiling"), VARIANTS)
def test_variant(dataflow, chip, shape, tiling):
    result = msdsim.simulate(shape, chip, dataflow, tiling=tiling, check=True, timeline=True)
    assert result.numerics.bit_exact, result.numerics.first_mismatch
    problem = parse_problem(shape)
    operands = contract_for(problem.kind, dataflow).operands(problem, None, 0)
    execute(result.kernel, operands, observer=HazardCheck(result.record).observe)


def test_preloading_hides_the_split_and_the_merge():
    """The vendor measures 1.31 for steps of one group of 128, on a kernel that takes ten times the HBM time."""
    problem = "gemm:m=1,k=8192,n=12288,group=128"
    basic, preload = (msdsim.simulate(problem, "ascend910b1", "msd-int4", tiling={"stepwise": 1, "l1_k": 128, "preload": preload})
                      for preload in (0, 1))
    assert 1.3 < basic.time_us / preload.time_us < 3
    # 4-bit weights and FP32 scales at what HBM can stream: preloading is bound by that, but for the turns that all cores wait for
    # at the line of components that they read in every step.
    assert preload.time_us < 1.4 * preload.traffic["hbm_read_bytes"] / (1600 * 0.93 * 1000)


def test_straight_to_the_cube_spares_l2_the_weights():
    """On the 950 a dequantized weight need not pass through L2: it would be written and read there in 16 bits."""
    through, straight = (msdsim.simulate("gemm:m=16,k=4096,n=4096", "ascend950pr", "dequant-int8", tiling=tiling)
                         for tiling in ({"direct": 0, "slot_k": 512, "l1_k": 128, "l0_k": 64, "base_n": 128, "vector_k": 64},
                                        {"direct": 1, "k_parts": 1}))
    assert straight.tiling["direct"] == 1
    assert through.traffic["l2_write_bytes"] - straight.traffic["l2_write_bytes"] == 2 * 4096 * 4096
    assert straight.time_us < through.time_us


def test_bands_keep_the_rows_in_l2():
    """8192 x 8192 BF16 activations are as large as the L2 of the 950: column after column of tiles reads them again and again."""
    banded = msdsim.simulate("gemm:m=8192,k=8192,n=4096", "ascend950pr", "bf16")
    columns = msdsim.simulate("gemm:m=8192,k=8192,n=4096", "ascend950pr", "bf16", tiling={**banded.tiling, "swizzle": 32})
    assert banded.tiling["swizzle"] < 32
    assert banded.traffic["hbm_read_bytes"] < 0.5 * columns.traffic["hbm_read_bytes"]
    assert banded.time_us < columns.time_us


@pytest.mark.parametrize(("dataflow", "key"), [("bf16", "k_parts"), ("w8a8", "k_parts")])
def test_few_tiles_share_k(dataflow, key):
    """256 columns are one or two tiles: without a split of K most cores would look on."""
    split, whole = (msdsim.simulate("gemm:m=64,k=7168,n=256", "ascend910b1", dataflow, tiling=tiling) for tiling in (None, {key: 1}))
    assert split.tiling[key] > 1
    assert split.time_us < 0.6 * whole.time_us


@pytest.mark.parametrize(("dataflow", "chip", "shape", "tiling", "message"), [
    ("dequant-int8", "toy", "gemm:m=16,k=64,n=64", {"direct": 1}, "direct=1: chip 'toy' has no path UB->L1; give direct=0"),
    ("msd-int8", "toy", "gemm:m=16,k=64,n=64", {"direct": 1}, "direct=1: chip 'toy' has no path L0C->UB; give direct=0"),
    ("msd-int8", "toy", "gemm:m=16,k=64,n=64", {"stepwise": 1}, "needs a group= of at most l1_k="),
    ("w8a8", "toy", "gemm:m=16,k=64,n=64", {"passes": 2}, "passes=2: 'w8a8' has 1; leave it out"),
    ("dequant-int8", "toy", "gemm:m=16,k=640,n=64,group=64", {"slot_k": 96}, "slot_k=96 cuts groups of 64 along k unevenly"),
    ("msd-int8", "toy", GROUPED, {"l1_k": 96}, "l1_k=96 is not a multiple of 64"),
    ("msd-int8", "toy", GROUPED, {"k_parts": 2}, "k_parts=2 adds up sums through GM"),
    ("bf16", "toy", "gemm:m=64,k=64,n=64", {"a_resident": 1, "base_m": 16}, "a_resident=1 holds one tile of rows in L1"),
])
def test_what_does_not_fit_is_said(dataflow, chip, shape, tiling, message):
    with pytest.raises(TilingError, match=message):
        msdsim.simulate(shape, chip, dataflow, tiling=tiling)
