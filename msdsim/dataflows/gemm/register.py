"""Registration of GEMM dataflows: every one of them runs plain and grouped GEMMs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.cube.limits import refuse_activations
from msdsim.formats.schemes import Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Kernel


def register_gemm(scheme: Scheme, tiling: type, refuses: Callable[[Any, Chip], str | None],
                  build: Callable[[Any, Chip, Any], Kernel]) -> None:
    """Register the dataflow of a method for plain and for grouped GEMMs; its number contract has its name."""
    def refuses_all(problem: Any, chip: Chip) -> str | None:
        return refuse_activations(problem, scheme) or refuses(problem, chip)

    for kind in ("gemm", "grouped_gemm"):
        DATAFLOWS.add(scheme.name if kind == "gemm" else f"{kind}:{scheme.name}",
                      Dataflow(scheme.name, kind, scheme.name, scheme.description, tiling, refuses_all, build))
