"""A few runs that every test of the reports looks at."""

from __future__ import annotations

import pytest

from msdsim.api import compare, simulate

P = "gemm:m=16,k=256,n=192"


@pytest.fixture(scope="session")
def dequant():
    return simulate(P, "toy", "dequant-int8", check=True, timeline=True)


@pytest.fixture(scope="session")
def comparison():
    return compare(P, "toy", ["bf16", "dequant-int8", "msd-int8"], check=True, timeline=True)
