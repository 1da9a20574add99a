"""Sizes that are worked out from others may be written differently and still be equal: the loops around them decide."""

from __future__ import annotations

import numpy as np
import pytest

import msdsim
from msdsim.ir.parser import parse_kernel


@pytest.mark.parametrize("dataflow", ["mxfp8", "msd-mxfp4"])
@pytest.mark.parametrize("k", [1000, 1008, 992])
def test_blocks_of_a_ragged_last_tile(dataflow, k):
    """Of 1000, tiles of 512 leave 488: 16 blocks in either, so that the number of blocks is written without the loop."""
    result = msdsim.simulate(f"gemm:m=20,k={k},n=96", "ascend950pr", dataflow, tiling={"l0_k": 512, "l1_k": 512}, check=True)
    assert result.numerics.bit_exact


def test_a_range_of_less_than_nothing_is_empty():
    """In both engines and in the numbers: what a copy of 8, 4, 0 and -4 rows leaves is what the first two have written."""
    text = """\
kernel k {
  cores 1 x 1
  tensor x: fp32[16, 64] in
  tensor y: fp32[16, 64] out
  aiv {
    buffer b: UB fp32[16, 64] ring 1
    copy b <- x
    for i in 0 .. 4 {
      copy y[i * 4 +: 8 - i * 4, :] <- b[i * 4 +: 8 - i * 4, :]
    }
  }
}
"""
    x = np.arange(1024, dtype=np.float32).reshape(16, 64)
    fast, reference = (msdsim.simulate(parse_kernel(text), "toy", engine=engine, inputs={"x": x}) for engine in ("fast", "reference"))
    assert fast.cycles == reference.cycles
    assert fast.traffic["l2_write_bytes"] == 12 * 256
    assert (fast.arrays["y"][:8] == x[:8]).all()
    assert np.isnan(fast.arrays["y"][8:]).all()
