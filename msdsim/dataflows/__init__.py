"""Dataflows, on shelves: what runs on the Cube, what runs on Vector, and the kernels made of both.

``cube`` and ``vector`` hold stages, ``gemm`` and ``attention`` the dataflows themselves.  A dataflow registers itself;
importing this package imports every module of it, so that a file is found by being there.
"""

import importlib
import pkgutil

from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.moved import spread_names

for _module in sorted(item.name for item in pkgutil.walk_packages(__path__, f"{__name__}.")):
    importlib.import_module(_module)
__getattr__ = spread_names(__name__)

__all__ = ["DATAFLOWS", "Dataflow"]
