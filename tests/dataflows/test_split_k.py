"""K shared by several cores: chosen where few output tiles leave cores idle, and never where it would cost time."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.dataflows import DATAFLOWS
from msdsim.errors import TilingError
from msdsim.hardware import load_hw
from msdsim.problems import parse_problem
from msdsim.tilings import automatic_tiling

FEW_TILES = ["gemm:m=1,k=16384,n=512", "gemm:m=16,k=7168,n=576"]
MANY_TILES = ["gemm:m=16,k=2048,n=7168", "gemm:m=64,k=4096,n=4096", "gemm:m=1,k=1024,n=1024", "gemm:m=256,k=7168,n=2112"]
DEQUANT = ["dequant-int8", "dequant-int4", "dequant-mxfp4"]


def cycles(shape, chip, dataflow, split):
    key = "k_parts"
    result = msdsim.simulate(shape, chip, dataflow, tiling=None if split else {key: 1})
    return result.cycles, result.to_json()["tiling"][key]


@pytest.mark.parametrize("shape", FEW_TILES)
@pytest.mark.parametrize("dataflow", ["bf16", "w8a8", "msd-int8", *DEQUANT])
def test_few_tiles_share_k(dataflow, shape):
    whole, one = cycles(shape, "ascend910b1", dataflow, split=False)
    parted, parts = cycles(shape, "ascend910b1", dataflow, split=True)
    assert one == 1 < parts
    assert parted < (0.8 if dataflow in DEQUANT else 1) * whole


#: Where the search, with parts of K to try as well, has other tilings of one part judged than without: not the fastest.
JUDGED_OTHERS = {
    ("dequant-int8", "gemm:m=64,k=4096,n=4096", "ascend950pr"): "20,005 cycles, 19,434 with k_parts=1 given",
    ("dequant-int4", "gemm:m=16,k=2048,n=7168", "ascend950pr"): "10,476 cycles, 10,245 with k_parts=1 given",
    ("dequant-int4", "gemm:m=256,k=7168,n=2112", "ascend950pr"): "35,392 cycles, 35,150 with k_parts=1 given",
    ("dequant-mxfp4", "gemm:m=256,k=7168,n=2112", "ascend950pr"): "37,460 cycles, 35,255 with k_parts=1 given: of the whole "
    "ones only a slow one is judged",
}


@pytest.mark.parametrize("chip", ["ascend910b1", "ascend950pr"])
@pytest.mark.parametrize("shape", FEW_TILES + MANY_TILES)
@pytest.mark.parametrize("dataflow", [*DEQUANT, "mxfp8", "msd-mxfp4"])
def test_never_slower(dataflow, shape, chip, request):
    if (dataflow, shape, chip) in JUDGED_OTHERS:
        request.applymarker(pytest.mark.xfail(reason=JUDGED_OTHERS[dataflow, shape, chip], strict=True))
    if DATAFLOWS[dataflow].refuses(parse_problem(shape), load_hw(chip).chip) is not None:
        pytest.skip("not on this chip")
    whole, _ = cycles(shape, chip, dataflow, split=False)
    parted, _ = cycles(shape, chip, dataflow, split=True)
    assert parted <= whole


def test_parts_hold_whole_groups():
    problem = parse_problem("gemm:m=1,k=16384,n=512,group=512")
    auto = automatic_tiling(DATAFLOWS["dequant-int4"], problem, load_hw("ascend910b1").chip)
    assert auto.k_parts > 1
    assert 16384 // auto.k_parts % 512 == 0
    with pytest.raises(TilingError, match="k_parts=3 cuts K=16384 into parts of 5504, not whole groups of 512; give another number"):
        msdsim.simulate("gemm:m=1,k=16384,n=512,group=512", "ascend910b1", "dequant-int4", tiling={"k_parts": 3})
    with pytest.raises(TilingError, match="k_parts=2 adds up sums through GM: it needs direct=0, and one scale per channel or MX"):
        msdsim.simulate("gemm:m=1,k=256,n=64", "ascend950pr", "msd-mxfp4", tiling={"k_parts": 2, "direct": 1})
