"""What a dataflow is: a way to run a problem on a chip, built as a kernel from a tiling.

A dataflow is a file on any shelf of this package that registers a :class:`Dataflow`; importing the package finds them all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.ir import Kernel
from msdsim.moved import spread_names
from msdsim.registry import Registry

#: Tiling parameters as the user sees them: plain positive integers by name.
TilingValues = Mapping[str, int]


@dataclass(frozen=True)
class Dataflow:
    """One dataflow.

    ``kind`` is the problem kind it runs, ``contract`` the number contract its outputs keep.  ``refuses`` gives the reason why
    a chip or problem cannot be run, or None.  ``build`` makes the kernel for a tiling; ``auto`` chooses the tiling where
    nothing in :mod:`msdsim.tilings` does.  ``restates`` is for a kernel as somebody else runs it: it runs where it is named,
    and is no contender where all dataflows are compared.
    """

    name: str
    kind: str
    contract: str
    description: str
    tiling: type
    refuses: Callable[[Any, Chip], str | None]
    build: Callable[[Any, Chip, Any], Kernel]
    auto: Callable[[Any, Chip], Any] | None = None
    restates: bool = False


DATAFLOWS: Registry[Dataflow] = Registry("dataflow")
__getattr__ = spread_names(__name__)


def register(kind: str, name: str, description: str, tiling: type, refuses: Callable[[Any, Chip], str | None],
             build: Callable[..., Kernel], contract: str | None = None, auto: Callable[[Any, Chip], Any] | None = None) -> None:
    """Register a dataflow; its number ``contract`` has its name unless another is given.  GEMM's has the plain name, the others
    carry their kind."""
    DATAFLOWS.add(name if kind == "gemm" else f"{kind}:{name}",
                  Dataflow(name, kind, contract or name, description, tiling, refuses, build, auto))


class RenamedKey(FutureWarning):
    """A key of a tiling that has another name now."""


def current_keys(tiling: type, given: Mapping[str, int]) -> dict[str, int]:
    """Values of a tiling under the names that its keys have now.  The class's ``RENAMED`` has the old ones, which are read for
    one release, with a :class:`RenamedKey` warning; TilingError where a key is given under both."""
    renamed: Mapping[str, str] = getattr(tiling, "RENAMED", {})
    for old, new in renamed.items():
        if old in given and new in given:
            raise TilingError(f"tiling key '{old}' is '{new}' now, and both are given; leave out '{old}'")
        if old in given:
            warnings.warn(f"tiling key '{old}' is '{new}' now; the old name goes with the next release", RenamedKey,
                          stacklevel=2)
    return {renamed.get(key, key): value for key, value in given.items()}


def require_positive(tiling: Any, *may_be_zero: str) -> None:
    """Every field is a whole number of at least 1, or 0 where it is named."""
    for item in fields(tiling):
        value = getattr(tiling, item.name)
        low = 0 if item.name in may_be_zero else 1
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TilingError(f"tiling {item.name}={str(value)[:40]} is no whole number; give one of at least {low}")
        if value < low:
            raise TilingError(f"tiling {item.name}={value} is below {low}; give at least {low}")


def require_switch(tiling: Any, *keys: str) -> None:
    """Fields that say yes or no are 1 or 0."""
    for key in keys:
        if getattr(tiling, key) > 1:
            raise TilingError(f"tiling {key}={getattr(tiling, key)}: it is a switch; give 1 or 0")


def require_multiple(tiling: Any, key: str, of: int, why: str) -> None:
    """Field ``key`` is a multiple of ``of``."""
    value = getattr(tiling, key)
    if value % of:
        raise TilingError(f"tiling {key}={value} is not a multiple of {of} ({why}); try {max(of, value // of * of)}")


def require_slots(tiling: Any, key: str, chip: Chip, spare: int = 0) -> None:
    """A ring of as many slots (and ``spare`` of them more) has no more signals on their way than the chip counts."""
    value, most = getattr(tiling, key), chip.cross_core.max_outstanding
    if value > most - spare:
        raise TilingError(f"tiling {key}={value} needs more than the {most} outstanding signals of '{chip.name}'; give at most "
                          f"{most - spare}")


def require_path(tiling: Any, key: str, chip: Chip, source: str, destination: str) -> None:
    """A ring that switch ``key`` puts into ``destination`` is written there from ``source``."""
    value = getattr(tiling, key)
    if value and chip.path(source, destination) is None:
        raise TilingError(f"tiling {key}={value}: chip '{chip.name}' has no path {source}->{destination}; give {key}=0")


def require_fits(chip: Chip, space: str, needed: Mapping[str, int]) -> None:
    """Buffers of ``needed`` bytes by name fit into ``space``; the error says which buffers and by how many bytes not."""
    capacity, total = chip.buffers.capacity(space), sum(needed.values())
    if total > capacity:
        parts = " + ".join(f"{name} {size}" for name, size in needed.items())
        raise TilingError(
            f"tiling needs {total} bytes of {space} ({parts}), {total - capacity} more than the {capacity} bytes of "
            f"'{chip.name}'; lower the tile sizes or ring depths"
        )
