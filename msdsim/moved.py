"""Modules and names that have moved: the old ones still import for one release, with a DeprecationWarning that gives the new.

All of it is text, so that a lower floor that a module has left does not import the higher one it now belongs to.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: New modules by old ones.
MOVED = {
    "msdsim.numerics.accuracy": "msdsim.explore.accuracy.study",
    "msdsim.numerics.claim_series": "msdsim.explore.accuracy.claim_series",
    "msdsim.numerics.claims": "msdsim.explore.accuracy.claims",
    "msdsim.numerics.distributions": "msdsim.explore.accuracy.distributions",
    "msdsim.numerics.models": "msdsim.explore.accuracy.models",
    "msdsim.numerics.sentences": "msdsim.explore.accuracy.sentences",
    "msdsim.numerics.wordpiece": "msdsim.explore.accuracy.wordpiece",
}

#: New modules by old ones, and the names in them that have moved there.
MOVED_NAMES = {
    "msdsim.hardware.chip": ("msdsim.hardware.hardware", ("Hardware", "Provenance")),
    "msdsim.hardware.load": ("msdsim.hardware.hardware", ("leaves", "override", "parse_value")),
}


class _OldNames(MetaPathFinder, Loader):
    """Asked last, when no file has the name."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, MOVED[module.__name__]
        warnings.warn(f"module '{old}' is '{new}' now; the old name goes with the next release", DeprecationWarning,
                      stacklevel=2)
        sys.modules[old] = import_module(new)


def old_names(module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module``, which answers for the names that have left it."""
    new, names = MOVED_NAMES[module]

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        warnings.warn(f"'{name}' of '{module}' is in '{new}' now; the old place goes with the next release", DeprecationWarning,
                      stacklevel=2)
        return getattr(import_module(new), name)

    return find


def install() -> None:
    """Let old names import; done once, by the package."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
