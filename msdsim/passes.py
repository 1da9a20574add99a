"""From a problem to what an engine runs: choose a tiling, build the kernel, verify it, lower it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msdsim.dataflows.base import Dataflow
from msdsim.hardware import Hardware
from msdsim.ir.kernel import Kernel
from msdsim.ir.verify import verify
from msdsim.tilings import choose_tiling


def build_kernel(dataflow: Dataflow, problem: Any, hardware: Hardware,
                 tiling: Mapping[str, int] | None = None) -> tuple[Kernel, Any]:
    """The verified kernel of a dataflow, and the tiling it was built with."""
    tiles = choose_tiling(dataflow, problem, hardware.chip, tiling)
    kernel = dataflow.build(problem, hardware.chip, tiles)
    verify(kernel, hardware.chip)
    return kernel, tiles
