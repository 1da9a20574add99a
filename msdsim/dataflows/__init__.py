"""Dataflows: one file each; importing this package registers every one of them."""

import importlib
import pkgutil

from msdsim.dataflows.base import DATAFLOWS, Dataflow, choose_tiling

for _module in sorted(item.name for item in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["DATAFLOWS", "Dataflow", "choose_tiling"]
