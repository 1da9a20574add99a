"""What all GEMM dataflows have: the tiling of the Cube, and registration for plain and grouped GEMMs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from msdsim.dataflows.base import register
from msdsim.dataflows.cube.limits import refuse_activations, refuse_weights
from msdsim.dataflows.cube.mainloop import CubeTiling
from msdsim.formats.schemes import SCHEMES, Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import Kernel


@dataclass(frozen=True)
class GemmTiling(CubeTiling):
    """Tiles of the Cube; output tiles are taken in bands of ``swizzle`` tiles of rows, and ``k_parts`` cores share the K of one
    (:mod:`~msdsim.dataflows.vector.add_parts`)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"band": "swizzle"}

    swizzle: int = 1
    k_parts: int = 1


def register_gemm(methods: Sequence[str], tiling: type, build: Callable[..., Kernel],
                  refuses: Callable[[Any, Scheme], str | None] = lambda problem, scheme: None, name: str | None = None,
                  description: str | None = None, auto: Callable[[Any, Chip], Any] | None = None) -> list[Scheme]:
    """Register a dataflow for each of some methods, of which it has the number contract, and the name and description where it
    has none of its own.  ``refuses`` says what it rules out beside what the method itself does; ``build`` takes problem, chip,
    tiling and ``scheme``; ``auto`` chooses the tiling where nothing in :mod:`msdsim.tilings` does."""
    schemes = [SCHEMES[method] for method in methods]
    for scheme in schemes:
        def refuses_all(problem: Any, chip: Chip, scheme: Scheme = scheme) -> str | None:
            return refuse_activations(problem, scheme) or refuses(problem, scheme) or refuse_weights(problem, chip, scheme)

        for kind in ("gemm", "grouped_gemm"):
            register(kind, name or scheme.name, description or scheme.description, tiling, refuses_all,
                     partial(build, scheme=scheme), scheme.name, auto)
    return schemes
