"""What a run would gain if one thing of the chip were better: each question answered by simulating the changed chip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msdsim.hardware import Hardware
from msdsim.jobs import Progress
from msdsim.report.result import Result

_TWICE = 2


@dataclass(frozen=True)
class WhatIf:
    """A change of the chip, and the time with it."""

    change: str
    time_us: float
    speedup: float


def _paths(hardware: Hardware, gm: bool) -> dict[str, object]:
    changes: dict[str, object] = {}
    for name, path in hardware.chip.paths.items():
        if ("GM" in (path.source, path.destination)) == gm:
            changes[f"paths.{name}.bytes_per_cycle"] = path.bytes_per_cycle * _TWICE
            if gm and path.outstanding_bytes is not None:
                changes[f"paths.{name}.outstanding_bytes"] = path.outstanding_bytes * _TWICE
    return changes


def _latencies(hardware: Hardware) -> dict[str, object]:
    changes: dict[str, object] = {f"paths.{name}.latency_cycles": 0 for name in hardware.chip.paths}
    changes |= {f"vector.ops.{name}.latency_cycles": 0 for name in hardware.chip.vector.ops}
    return changes | {"cube.head_isolated_cycles": hardware.chip.cube.head_back_to_back_cycles, "hbm.extra_latency_cycles": 0}


#: Label and the parameters it changes; rates double, latencies and costs vanish.
CHANGES: dict[str, Callable[[Hardware], dict[str, object]]] = {
    "HBM twice as fast": lambda hw: {"hbm.bandwidth_gbps": hw.chip.hbm.bandwidth_gbps * _TWICE},
    "L2 twice as fast": lambda hw: {"l2.read_gbps": hw.chip.l2.read_gbps * _TWICE,
                                    "l2.write_gbps": hw.chip.l2.write_gbps * _TWICE},
    "L2 twice as large": lambda hw: {"l2.capacity_bytes": hw.chip.l2.capacity_bytes * _TWICE},
    "GM ports twice as wide": lambda hw: _paths(hw, gm=True),
    "local paths twice as wide": lambda hw: _paths(hw, gm=False),
    "Cube twice as fast": lambda hw: {f"cube.rates.{name}.cycles_per_fractal": rate.cycles_per_fractal / _TWICE
                                      for name, rate in hw.chip.cube.rates.items()},
    "Vector twice as fast": lambda hw: {f"vector.ops.{name}.slope_cycles_per_repeat": op.slope_cycles_per_repeat / _TWICE
                                        for name, op in hw.chip.vector.ops.items()},
    "no latencies": _latencies,
    "signals and barriers free": lambda hw: {"cross_core.signal_latency_cycles": 0, "cross_core.barrier_latency_cycles": 0},
    "dispatch and flags free": lambda hw: {"dispatch.issue_cycles": 0, "dispatch.flag_cycles": 0},
}


def what_if(result: Result, simulate: Callable[[Hardware], Result], progress: Progress | None = None) -> list[WhatIf]:
    """Every change of :data:`CHANGES` applied to the chip of ``result``, the schedule kept as it is; best first.

    ``simulate`` runs the same kernel on a changed chip.
    """
    found = []
    for number, (label, changes) in enumerate(CHANGES.items(), start=1):
        changed = simulate(result.hardware.replace(**changes(result.hardware)))
        found.append(WhatIf(label, changed.time_us, result.time_us / changed.time_us))
        if progress is not None:
            progress(number, len(CHANGES))
    return sorted(found, key=lambda item: item.time_us)
