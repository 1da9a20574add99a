"""Sizes that are worked out from others may be written differently and still be equal: the loops around them decide."""

from __future__ import annotations

import pytest

import msdsim


@pytest.mark.parametrize("dataflow", ["mxfp8", "msd-mxfp4"])
@pytest.mark.parametrize("k", [1000, 1008, 992])
def test_blocks_of_a_ragged_last_tile(dataflow, k):
    """Of 1000, tiles of 512 leave 488: 16 blocks in either, so that the number of blocks is written without the loop."""
    result = msdsim.simulate(f"gemm:m=20,k={k},n=96", "ascend950pr", dataflow, tiling={"l0_k": 512, "l1_k": 512}, check=True)
    assert result.numerics.bit_exact
