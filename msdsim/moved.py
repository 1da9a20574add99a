"""Modules and names that have moved: the old ones still import for one release, with a DeprecationWarning that gives the new.

All of it is text, so that a lower floor that a module has left does not import the higher one it now belongs to.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: New modules by old ones.
MOVED = {
    "msdsim.numerics.problem_types": "msdsim.problems.shapes",
    "msdsim.dataflows.cube_tiles": "msdsim.tilings.cube",
    "msdsim.dataflows.experts": "msdsim.dataflows.cube.experts",
    "msdsim.dataflows.split_k": "msdsim.dataflows.vector.add_parts",
    "msdsim.dataflows.attention.split": "msdsim.dataflows.attention.operands",
    "msdsim.dataflows.gemm.weight_ring": "msdsim.dataflows.gemm.weight_context",
    "msdsim.code_version": "msdsim.version",
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
    "msdsim.ir.printer": ("msdsim.ir.identity", ("kernel_hash",)),
    "msdsim.ir.lets": ("msdsim.ir.tidy", ("tidy",)),
    "msdsim.dataflows.cube.operands": ("msdsim.ir", ("ragged", "share_of")),
    "msdsim.hardware.load": ("msdsim.hardware.hardware", ("leaves", "override", "parse_value")),
}

#: New names by old ones in the modules where they still are.
RENAMED = {
    "msdsim.ir.ops": {"Execution": "Evaluation"},
    "msdsim.models.step": {"Step": "ModelStep"},
    "msdsim.report.result": {"Cause": "BoundBy"},
    "msdsim.report.tracks": {"Shown": "TracedRun"},
}

_CUBE = ("msdsim.dataflows.cube.operands", "msdsim.dataflows.cube.grid", "msdsim.dataflows.cube.rows",
         "msdsim.dataflows.cube.mainloop", "msdsim.dataflows.cube.limits", "msdsim.dataflows.gemm.register")
#: Modules in which the names of an old one are found, where it came apart.
SPREAD: dict[str, tuple[str, ...]] = {
    "msdsim.dataflows": ("msdsim.tilings",),
    "msdsim.dataflows.base": ("msdsim.tilings",),
    "msdsim.dataflows.gemm": _CUBE,
    "msdsim.dataflows.bf16": ("msdsim.dataflows.gemm.bf16", "msdsim.tilings.bf16"),
    "msdsim.dataflows.mxfp8": ("msdsim.dataflows.gemm.mxfp8", "msdsim.tilings.mxfp8"),
    "msdsim.dataflows.dequant": ("msdsim.dataflows.gemm.dequant", "msdsim.dataflows.gemm.dequant_tiling",
                                 "msdsim.tilings.dequant", "msdsim.tilings.dequant_space"),
    "msdsim.dataflows.micro": ("msdsim.dataflows.micro.register", "msdsim.dataflows.micro.transfers",
                               "msdsim.dataflows.micro.instructions"),
    "msdsim.dataflows.msd": ("msdsim.dataflows.gemm.msd", "msdsim.dataflows.gemm.msd_tiling", "msdsim.tilings.msd"),
    "msdsim.dataflows.msd_context": ("msdsim.dataflows.gemm.msd_context", "msdsim.dataflows.gemm.msd_tiling"),
    "msdsim.explore.validate": ("msdsim.explore.sensitivity", "msdsim.explore.parity"),
}


class _OldNames:
    """Asked last, when no file has the name.  Finder and loader without the classes of ``importlib.abc``, which import a third
    of what ``--help`` needs."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED or fullname in SPREAD else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """The module is made as usual."""

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ in SPREAD:
            module.__getattr__ = spread_names(module.__name__)  # type: ignore[method-assign]
            return
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


def renamed(module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module``, in which some names are others now."""
    def find(name: str) -> Any:
        if name not in RENAMED[module]:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        new = RENAMED[module][name]
        warnings.warn(f"'{name}' of '{module}' is '{new}' now; the old name goes with the next release", DeprecationWarning,
                      stacklevel=2)
        return getattr(import_module(module), new)

    return find


def spread_names(module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module``, whose names have gone to several others."""
    def find(name: str) -> Any:
        for new in () if name.startswith("__") else SPREAD[module]:
            found = import_module(new)
            if hasattr(found, name):
                warnings.warn(f"'{name}' of '{module}' is in '{new}' now; the old place goes with the next release",
                              DeprecationWarning, stacklevel=2)
                return getattr(found, name)
        raise AttributeError(f"module '{module}' has no attribute '{name}'")

    return find


def install() -> None:
    """Let old names import; done once, by the package."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
