"""Who chooses the tiling of a dataflow, and how the user's values take its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from msdsim.dataflows.base import Dataflow, TilingValues
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.registry import Registry

#: Chooses a tiling for a problem on a chip.
Chooser = Callable[[Any, Chip], Any]

#: By kind of problem and name of the dataflow, ``gemm:bf16``.
CHOOSERS: Registry[Chooser] = Registry("choice of a tiling")


def choose_for(name: str, chooser: Chooser, kind: str = "gemm") -> None:
    """``chooser`` gives the automatic tiling of the dataflow ``name``; one of GEMMs serves plain and grouped ones."""
    for each in ("gemm", "grouped_gemm") if kind == "gemm" else (kind,):
        CHOOSERS.add(f"{each}:{name}", chooser)


def automatic_tiling(dataflow: Dataflow, problem: Any, chip: Chip) -> Any:
    """The tiling that nobody had to give."""
    return (dataflow.auto or CHOOSERS[f"{dataflow.kind}:{dataflow.name}"])(problem, chip)


def choose_tiling(dataflow: Dataflow, problem: Any, chip: Chip, overrides: TilingValues | None) -> Any:
    """The dataflow's automatic tiling with the user's values in place; TilingError for unknown keys and bad values."""
    if not overrides:
        return automatic_tiling(dataflow, problem, chip)
    known = [item.name for item in fields(dataflow.tiling)]
    for key, value in overrides.items():
        if key not in known:
            raise TilingError(f"dataflow '{dataflow.name}' has no tiling key '{key}' (keys: {', '.join(known)})")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TilingError(f"tiling {key}={value!r} is not a whole number of at least 0")
    if all(key in overrides for key in known):
        return dataflow.tiling(**overrides)
    return dataflow.tiling(**asdict(automatic_tiling(dataflow, problem, chip)) | dict(overrides))
