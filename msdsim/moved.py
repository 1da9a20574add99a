"""Modules that have moved: their old names still import for one release, with a DeprecationWarning that gives the new one.

The names are text, so that a lower floor that a module has left does not import the higher one it now belongs to.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: New names by old ones.
MOVED = {
    "msdsim.numerics.accuracy": "msdsim.explore.accuracy.study",
    "msdsim.numerics.claim_series": "msdsim.explore.accuracy.claim_series",
    "msdsim.numerics.claims": "msdsim.explore.accuracy.claims",
    "msdsim.numerics.distributions": "msdsim.explore.accuracy.distributions",
    "msdsim.numerics.models": "msdsim.explore.accuracy.models",
    "msdsim.numerics.sentences": "msdsim.explore.accuracy.sentences",
    "msdsim.numerics.wordpiece": "msdsim.explore.accuracy.wordpiece",
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


def install() -> None:
    """Let old names import; done once, by the package."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
