"""A few runs that every test of the reports looks at."""

from __future__ import annotations

import pytest

from msdsim.api import compare, simulate

P = "gemm:m=16,k=256,n=192"
#: Fixed, so that what the reports say does not hang on which tiling is chosen.
TILING = {"base_m": 16, "base_n": 96, "l1_k": 128, "l0_k": 16, "slot_k": 256, "slots": 4, "vector_k": 26, "l1_ring": 2, "l0_ring": 2,
          "l0c_ring": 2, "ub_ring": 2, "direct": 0, "swizzle": 1, "k_parts": 1}


@pytest.fixture(scope="session")
def dequant():
    return simulate(P, "toy", "dequant-int8", tiling=TILING, check=True, timeline=True)


@pytest.fixture(scope="session")
def comparison():
    return compare(P, "toy", ["bf16", "dequant-int8", "msd-int8"], check=True, timeline=True)
