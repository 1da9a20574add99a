"""What a dataflow is: a way to run a problem on a chip, built as a kernel from a tiling.

A dataflow is one file in this package that registers a :class:`Dataflow`; importing the package finds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Kernel
from msdsim.registry import Registry

#: Tiling parameters as the user sees them: plain positive integers by name.
TilingValues = Mapping[str, int]


@dataclass(frozen=True)
class Dataflow:
    """One dataflow.

    ``kind`` is the problem kind it runs, ``contract`` the number contract its outputs keep.  ``refuses`` gives the reason why
    a chip or problem cannot be run, or None.  ``auto`` chooses a tiling, ``build`` makes the kernel for a tiling.
    """

    name: str
    kind: str
    contract: str
    description: str
    tiling: type
    refuses: Callable[[Any, Chip], str | None]
    auto: Callable[[Any, Chip], Any]
    build: Callable[[Any, Chip, Any], Kernel]


DATAFLOWS: Registry[Dataflow] = Registry("dataflow")


def choose_tiling(dataflow: Dataflow, problem: Any, chip: Chip, overrides: TilingValues | None) -> Any:
    """The dataflow's automatic tiling with the user's values in place; TilingError for unknown keys and bad values."""
    chosen = dataflow.auto(problem, chip)
    if not overrides:
        return chosen
    known = [item.name for item in fields(dataflow.tiling)]
    for key, value in overrides.items():
        if key not in known:
            raise TilingError(f"dataflow '{dataflow.name}' has no tiling key '{key}' (keys: {', '.join(known)})")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TilingError(f"tiling {key}={value!r} is not a whole number of at least 0")
    values = asdict(chosen) | dict(overrides)
    return dataflow.tiling(**values)


def require_positive(tiling: Any, *may_be_zero: str) -> None:
    """Every field is at least 1, except those named."""
    for item in fields(tiling):
        value = getattr(tiling, item.name)
        low = 0 if item.name in may_be_zero else 1
        if value < low:
            raise TilingError(f"tiling {item.name}={value} is below {low}; give at least {low}")


def require_multiple(tiling: Any, key: str, of: int, why: str) -> None:
    """Field ``key`` is a multiple of ``of``."""
    value = getattr(tiling, key)
    if value % of:
        raise TilingError(f"tiling {key}={value} is not a multiple of {of} ({why}); try {max(of, value // of * of)}")


def require_fits(chip: Chip, space: str, needed: Mapping[str, int]) -> None:
    """Buffers of ``needed`` bytes by name fit into ``space``; the error says which buffers and by how many bytes not."""
    capacity, total = chip.buffers.capacity(space), sum(needed.values())
    if total > capacity:
        parts = " + ".join(f"{name} {size}" for name, size in needed.items())
        raise TilingError(
            f"tiling needs {total} bytes of {space} ({parts}), {total - capacity} more than the {capacity} bytes of "
            f"'{chip.name}'; lower the tile sizes or ring depths"
        )
