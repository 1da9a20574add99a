"""msdsim: cycle-level simulation of quantized matmul and attention on NPUs with decoupled Cube and Vector units.

>>> import msdsim
>>> result = msdsim.simulate("gemm:m=16,k=1024,n=1024", hw="ascend910b1", dataflow="msd-int8")
>>> result.bottleneck.name
'hbm'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msdsim import moved
from msdsim.version import __version__

if TYPE_CHECKING:
    from msdsim.api import compare as compare
    from msdsim.api import compare_workload as compare_workload
    from msdsim.api import load_workload as load_workload
    from msdsim.api import simulate as simulate
    from msdsim.api import simulate_workload as simulate_workload
    from msdsim.explore.accuracy.measure import accuracy as accuracy
    from msdsim.explore.explanation import explain as explain
    from msdsim.explore.import_model import import_model as import_model
    from msdsim.explore.sweep import sweep as sweep
    from msdsim.explore.tune import tune as tune
    from msdsim.hardware import load_hw as load_hw
    from msdsim.runs import RunOptions as RunOptions


#: Public names and the modules they live in (a module itself: nothing); loaded when first used, so that ``import msdsim`` stays
#: fast.
_PUBLIC = {
    "RunOptions": "msdsim.runs",
    "accuracy": "msdsim.explore.accuracy.measure",
    "compare": "msdsim.api",
    "compare_workload": "msdsim.api",
    "explain": "msdsim.explore.explanation",
    "import_model": "msdsim.explore.import_model",
    "load_hw": "msdsim.hardware",
    "load_workload": "msdsim.api",
    "schedules": "",
    "simulate": "msdsim.api",
    "simulate_workload": "msdsim.api",
    "sweep": "msdsim.explore.sweep",
    "tune": "msdsim.explore.tune",
}
__all__ = [  # noqa: F822, RUF100
    "RunOptions", "__version__", "accuracy", "compare", "compare_workload", "explain", "import_model", "load_hw",
    "load_workload", "schedules", "simulate", "simulate_workload", "sweep", "tune",
]


moved.install()


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name) if _PUBLIC[name] else import_module(f"msdsim.{name}")
    raise AttributeError(f"module 'msdsim' has no attribute '{name}'")
