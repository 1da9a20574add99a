"""A GEMM problem as the numbers see it."""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Gemm:
    m: int
    k: int
    n: int
    group: int | None = None
    offset: bool = False
    trans_b: bool = False
    kind: str = "gemm"
    x: str = "bf16"
    out: str = "bf16"
    layout: str = "nd"


@pytest.fixture(scope="session")
def gemm() -> type[Gemm]:
    return Gemm
