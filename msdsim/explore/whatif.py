"""What a run would gain if one thing of the chip were better: each question answered by simulating the changed chip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from msdsim.analysis.bottleneck import utilizations
from msdsim.analysis.counting import executions
from msdsim.errors import MsdsimError
from msdsim.hardware import Hardware
from msdsim.jobs import Progress
from msdsim.report.result import BoundBy, Result

R = TypeVar("R", bound=Result)

_TWICE = 2
#: A change that gains less than this binds nothing.
_NOTICEABLE = 1.02
#: Kernels of more instructions are explained when it is asked for, not with every run.
MOST_INSTRUCTIONS = 300_000


@dataclass(frozen=True)
class WhatIf:
    """A change of the chip, and the time with it."""

    change: str
    time_us: float
    speedup: float
    #: Microseconds that the unit it names is at work (for latencies, signals and flags: that they take), before and with it.
    works_us: float = 0.0
    works_then_us: float = 0.0


@dataclass(frozen=True)
class WalkStep:
    """One more change of the chip: the time with all changes so far, and how much faster than the chip as it is that is."""

    change: str
    time_us: float
    speedup: float


#: What of a path says how wide it is: rates and windows double, the time of a row or a request halves.
_WIDTHS = {"bytes_per_cycle": _TWICE, "accumulator_bytes_per_cycle": _TWICE, "outstanding_bytes": _TWICE,
           "row_cycles": 1 / _TWICE, "request_cycles": 1 / _TWICE, "split_request_cycles": 1 / _TWICE}


def path_widths(hardware: Hardware, gm: bool, factor: float = 1) -> dict[str, object]:
    """Everything that makes the paths to and from GM (or the local ones) ``factor`` x twice as wide, by dotted path."""
    changes: dict[str, object] = {}
    for name, path in hardware.chip.paths.items():
        if ("GM" not in (path.source, path.destination)) == gm:
            continue
        tables = {f"paths.{name}": path, **({f"paths.{name}.nd2nz": path.nd2nz} if path.nd2nz is not None else {})}
        for key, table in tables.items():
            for field, change in _WIDTHS.items():
                value = getattr(table, field, None)
                if value is not None:
                    whole = field == "outstanding_bytes"
                    changed = value * change * (factor if change > 1 else 1 / factor)
                    changes[f"{key}.{field}"] = max(1, round(changed)) if whole else changed
    return changes


def _wider_vector(hardware: Hardware) -> dict[str, object]:
    """Repeats of twice as many bytes, out of twice as many groups of banks.  Half the cycles a repeat would change nothing: the
    banks serve no more than one repeat a cycle."""
    vector = hardware.chip.vector
    changes: dict[str, object] = {"vector.repeat_bytes": vector.repeat_bytes * _TWICE}
    return changes if vector.banks is None else changes | {"vector.banks.groups": vector.banks.groups * _TWICE}


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
    "GM ports twice as wide": lambda hw: path_widths(hw, gm=True),
    "local paths twice as wide": lambda hw: path_widths(hw, gm=False),
    "Cube twice as fast": lambda hw: {f"cube.rates.{name}.cycles_per_fractal": rate.cycles_per_fractal / _TWICE
                                      for name, rate in hw.chip.cube.rates.items()},
    "Vector twice as fast": lambda hw: _wider_vector(hw),
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
        found.append(WhatIf(label, changed.time_us, result.time_us / changed.time_us, works_us(result, label),
                            works_us(changed, label)))
        if progress is not None:
            progress(number, len(CHANGES))
    return sorted(found, key=lambda item: item.time_us)


#: What a change says of the chip: the resource whose doubling, or the cost whose absence, it is.
RESOURCES = {
    "HBM twice as fast": "HBM", "L2 twice as fast": "L2", "L2 twice as large": "the size of L2",
    "GM ports twice as wide": "the cores' ports to L2", "local paths twice as wide": "paths between the buffers",
    "Cube twice as fast": "Cube", "Vector twice as fast": "Vector", "no latencies": "latencies",
    "signals and barriers free": "signals and barriers", "dispatch and flags free": "dispatch and flags",
}


#: Kinds of pipes that a change makes shorter, and the category in which it does.
_WORKS = {
    "GM ports twice as wide": (("aic.mte2", "aiv.mte2", "aiv.mte3"), "busy"),
    "local paths twice as wide": (("aic.mte1", "aic.fix"), "busy"),
    "Cube twice as fast": (("aic.m",), "busy"), "Vector twice as fast": (("aiv.v",), "busy"),
    "no latencies": (None, "head"),
    "dispatch and flags free": (("aic.s", "aiv.s"), "busy"),
}
_MEMORIES = {"HBM twice as fast": ("hbm",), "L2 twice as fast": ("l2.read", "l2.write")}


def works_us(result: Result, change: str) -> float:
    """How long what a change names is at work in a run, us: memories by their bytes over their rate, pipes in the mean over
    their instances; for the size of L2, how long HBM serves reads that miss."""
    if change == "L2 twice as large":
        return result.traffic["hbm_read_bytes"] / result.hardware.chip.hbm.bandwidth_gbps / 1000
    if change in _MEMORIES:
        shares = utilizations(result.record)
        return max(shares[name] for name in _MEMORIES[change]) * result.time_us
    if change == "signals and barriers free":
        return _signals_us(result)
    kinds, category = _WORKS[change]
    rows = [row for kind, row in result.stalls.items() if (kind in kinds if kinds else not kind.endswith(".s"))]
    instances = sum(row["instances"] for row in rows)
    return sum(row[category] for row in rows) / max(1, instances * result.cycles) * result.time_us


def _signals_us(result: Result) -> float:
    """How long signals are on their way, us, in the mean over the cores."""
    program, cross = result.record.program, result.hardware.chip.cross_core
    cycles = 0
    for part in program.parts:
        counts = executions(program, part).tolist()
        for instr in part.instructions():
            if instr.op is not None and instr.signal is not None and instr.signal[0] == "signal":
                barrier = program.kernel.signals[instr.signal[1]].kind == "barrier"
                latency = cross.barrier_latency_cycles if barrier else cross.signal_latency_cycles
                cycles += counts[instr.index] * latency
    return cycles / max(1, program.kernel.cores) / float(result.hardware.chip.clock_mhz)


def causes(found: Sequence[WhatIf]) -> tuple[BoundBy, ...]:
    """What a run is bound by: the changes that make it noticeably faster, best first; empty where no single one does."""
    return tuple(BoundBy(RESOURCES[item.change], item.change, item.speedup) for item in found if item.speedup >= _NOTICEABLE)


def with_causes(result: R, simulate: Callable[[Hardware], Result]) -> R:
    """``result`` with what it is bound by, where its kernel is short enough to be asked ten times."""
    if result.record.instructions > MOST_INSTRUCTIONS or not result.cycles:
        return result
    return replace(result, causes=causes(what_if(result, simulate)))


def walk(result: Result, simulate: Callable[[Hardware], Result]) -> list[WalkStep]:
    """The way to the fastest chip, one change after the other: each step the change that helps most beside those before.

    Ends when nothing gains two percent any more; what is left then is the floor of this schedule.
    """
    hardware, now = result.hardware, result.time_us
    steps: list[WalkStep] = []
    left = dict(CHANGES)
    while left:
        tried = {}
        for label, changes in left.items():
            try:
                changed = hardware.replace(**changes(hardware))
                tried[label] = (simulate(changed).time_us, changed)
            except MsdsimError:
                continue  # a chip that cannot be, or that this kernel does not fit
        if not tried:
            break
        label = min(tried, key=lambda name: tried[name][0])
        time_us, changed = tried[label]
        if now / time_us < _NOTICEABLE:
            break
        hardware, now = changed, time_us
        steps.append(WalkStep(label, now, result.time_us / now))
        del left[label]
    return steps
