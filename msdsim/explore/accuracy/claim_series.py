"""The series behind the plot of the claims table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msdsim.explore.accuracy.claims import bits
from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
from msdsim.explore.accuracy.study import accuracy_study
from msdsim.problems.model import Gemm


@dataclass(frozen=True)
class ClaimSeries:
    """What the claims' plot draws: relative L2 (fp32 output, normal input) by method and passes, effective bits by method
    and distribution, relative L2 by method and reduction length k."""

    l2_by_passes: dict[str, dict[int, float]]
    bits_by_input: dict[str, dict[str, float]]
    l2_by_k: dict[str, dict[int, float]]


def claim_series(seed: int = 0, m: int = 16, n: int = 256, all_k: Sequence[int] = (512, 2048, 8192)) -> ClaimSeries:
    """Measure the three series."""
    passes = [("msd-int8", (1, 2, 3)), ("msd-int4", (1, 2, 3, 4)), ("msd-mxfp4", (1, 2, 3))]
    by_passes: dict[str, dict[int, float]] = {}
    for row in accuracy_study(Gemm(m=m, k=4096, n=n), ["normal"], seed=seed, methods=passes):
        assert row.passes is not None
        by_passes.setdefault(row.method, {})[row.passes] = row.relative_l2_fp32
    by_input = {f"{method} x{count}" if count else method: {name: bits(method, count, name, seed) for name in DISTRIBUTIONS}
                for method, count in (("msd-int8", 2), ("msd-int4", 3), ("msd-mxfp4", 2), ("mxfp8", None))}
    by_k: dict[str, dict[int, float]] = {}
    compared = [("dequant-int8", ()), ("msd-int8", (2,)), ("dequant-int4", ()), ("msd-int4", (3,)), ("msd-mxfp4", (2,)),
                ("mxfp8", ())]
    for k in all_k:
        for row in accuracy_study(Gemm(m=m, k=k, n=n), ["normal"], seed=seed, methods=compared):
            by_k.setdefault(row.method, {})[k] = row.relative_l2_fp32
    return ClaimSeries(by_passes, by_input, by_k)
