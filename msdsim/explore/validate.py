"""Predictions against published measurements of whole kernels on real chips.

A validation file holds rows: a chip, a problem, how it was run and what was measured.  All rows of all files are
predicted with the chip files as they are; nothing can be set for a single row but how its kernel cuts its work, where
the source says it.  Rows that the simulator cannot express are listed with the reason.

What the source timed is handled once, by ``scope`` (:func:`launch_us`): a ``kernel`` is the time inside the cores, a ``task``
has the chip file's launch beside it, and ``unknown``, a benchmark that runs an operator over and over, what is left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.dataflows.lookup import find_dataflow
from msdsim.errors import InputError, MsdsimError
from msdsim.explore.families import FAMILIES, family_of
from msdsim.explore.measurements import PUBLISHED, Measurement, load_measurements
from msdsim.explore.op_summary import is_op_summary, read_op_summary
from msdsim.explore.wording import dataflow_of, spelled_out, tiling_of
from msdsim.hardware import Hardware, load_hw
from msdsim.hardware.hardware import override, scaled
from msdsim.moved import spread_names
from msdsim.report.result import Result
from msdsim.runs import RunOptions, as_problem, build_kernel, run
from msdsim.timeline.record import BUSY, DRAINED, HEAD, WAIT_MEMORY
from msdsim.units import ticks_to_us

#: Dataflows that say of a row that it cannot be run.
_NONE = ("inexpressible", "needs-set")


@dataclass(frozen=True)
class Component:
    """Time of one pipe, averaged over the cores, as published and as predicted."""

    name: str
    measured_us: float
    predicted_us: float

    @property
    def error(self) -> float:
        return self.predicted_us / self.measured_us - 1


@dataclass(frozen=True)
class Prediction:
    """One measurement and what the simulator says; ``reason`` tells why it says nothing."""

    id: str
    chip: str
    problem: str
    dataflow: str
    run_as: str
    scope: str
    source: str
    note: str
    measured_us: float | None
    predicted_us: float | None = None
    kernel_us: float | None = None
    components: tuple[Component, ...] = ()
    informs: tuple[str, ...] = ()
    reason: str = ""
    ambiguous: str = ""

    @property
    def family(self) -> str:
        """What kind of kernel it is, one of :data:`msdsim.explore.families.FAMILIES`."""
        return family_of(self.problem, self.dataflow, self.measured_us)

    @property
    def error(self) -> float | None:
        """Relative error of the prediction, where there are both numbers."""
        if self.measured_us is None or self.predicted_us is None:
            return None
        return self.predicted_us / self.measured_us - 1


@dataclass(frozen=True)
class Ratio:
    """What one row gains over another, as published and as predicted."""

    id: str
    of: str
    to: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Overall:
    """|error| of a number of predictions: how many, the median, the 90th percentile and the worst, and the median of the signed
    errors; zeros for none."""

    predicted: int
    median_error: float
    p90_error: float
    worst_error: float
    signed_median: float = 0.0

    @classmethod
    def of(cls, errors: Iterable[float | None]) -> Overall:
        """From signed errors; None where there is none."""
        signed = np.array([error for error in errors if error is not None])
        if not signed.size:
            return cls(0, 0.0, 0.0, 0.0)
        known = np.abs(signed)
        return cls(known.size, float(np.median(known)), float(np.percentile(known, 90)), float(known.max()),
                   float(np.median(signed)))


@dataclass(frozen=True)
class ValidationReport:
    """All rows of a validation file."""

    file: str
    engine: str
    memory: str
    rows: tuple[Prediction, ...]
    ratios: tuple[Ratio, ...]

    @property
    def certain(self) -> tuple[Prediction, ...]:
        """The rows about which nothing is uncertain."""
        return tuple(row for row in self.rows if not row.ambiguous)

    @property
    def overall(self) -> Overall:
        """|error| over every certain row that has one."""
        return Overall.of(row.error for row in self.certain)

    @property
    def unseen(self) -> Overall:
        """|error| over the certain rows that informed no constant."""
        return Overall.of(row.error for row in self.certain if not row.informs)

    @property
    def ambiguous(self) -> Overall:
        """|error| over the other rows."""
        return Overall.of(row.error for row in self.rows if row.ambiguous)

    def by(self, what: Callable[[Prediction], str]) -> dict[str, Overall]:
        """|error| of the certain rows that have one, by what a row is, in the order in which they come."""
        groups: dict[str, list[float]] = {}
        for row in self.certain:
            if row.error is not None:
                groups.setdefault(what(row), []).append(row.error)
        return {name: Overall.of(errors) for name, errors in groups.items()}

    @property
    def families(self) -> dict[str, Overall]:
        """|error| by family, in the order of :data:`msdsim.explore.families.FAMILIES`."""
        found = self.by(lambda row: row.family)
        return {name: found[name] for name in FAMILIES if name in found}

    def to_json(self) -> dict[str, Any]:
        """Plain data, ``schema: "msdsim.validate/1"``."""
        rows = []
        for row in self.rows:
            parts = [asdict(item) | {"error": item.error} for item in row.components]
            rows.append(asdict(row) | {"error": row.error, "family": row.family, "components": parts})
        return {
            "schema": "msdsim.validate/1", "file": self.file, "engine": self.engine, "memory": self.memory, "rows": rows,
            "ratios": [asdict(item) | {"error": item.error} for item in self.ratios],
            "overall": {"rows": len(self.certain)} | asdict(self.overall),
            "unseen": {"rows": sum(not row.informs for row in self.certain)} | asdict(self.unseen),
            "ambiguous": {"rows": len(self.rows) - len(self.certain)} | asdict(self.ambiguous),
            "families": {name: asdict(errors) for name, errors in self.families.items()},
        }


def validate(file: str | Path = PUBLISHED, *, engine: str = "fast", memory: str = "bandwidth",
             factors: Mapping[str, float] | None = None, long: bool = True,
             hardware: Hardware | None = None) -> ValidationReport:
    """Predict every row of a validation file, a shipped one by name or a user's own by path.

    ``factors`` multiply chip parameters by dotted path on every chip that has them: what a sensitivity study turns.  Without
    ``long`` rows that take minutes are left out.  ``hardware`` takes the place of the chip of its name, or of the one that its
    file extends, and is the chip of a profiler's table (:mod:`msdsim.explore.op_summary`), which names none.
    """
    measurements = [row for row in measured_rows(file, hardware) if long or not row.long]
    instead = _instead_of(hardware, {row.chip for row in measurements})
    rows = [_safely(row, scaled(instead.get(row.chip) or load_hw(row.chip), factors or {}), engine, memory)
            for row in measurements]
    return ValidationReport(str(file), engine, memory, tuple(rows), tuple(_ratios(measurements, rows)))


def measured_rows(file: str | Path, hardware: Hardware | None = None) -> list[Measurement]:
    """The rows of a validation file or of a profiler's table."""
    path = Path(file)
    if not is_op_summary(path):
        return load_measurements(file)
    if hardware is None:
        raise InputError(f"the profiler's table '{path.name}' does not say which chip it is of; name it with --hw")
    return read_op_summary(path, hardware.name, (hardware.chip.cores.aic, hardware.chip.aiv))


def _instead_of(hardware: Hardware | None, chips: set[str]) -> dict[str, Hardware]:
    """The chip of the rows for which ``hardware`` stands: the one of its name, or else the one that its file extends."""
    if hardware is None:
        return {}
    return {hardware.name if hardware.name in chips or hardware.extends is None else hardware.extends: hardware}


def _about(row: Measurement) -> Prediction:
    return Prediction(row.id, row.chip, row.problem, row.dataflow, row.run_as, row.scope, row.source, row.note,
                      row.measured_us, informs=row.informs, ambiguous=row.ambiguous)


def _safely(row: Measurement, hardware: Hardware, engine: str, memory: str) -> Prediction:
    try:
        return predict(row, hardware, engine, memory)
    except MsdsimError as err:
        return replace(_about(row), reason=str(err))


def predict(row: Measurement, hardware: Hardware, engine: str = "fast", memory: str = "bandwidth") -> Prediction:
    """What the simulator says of one row on ``hardware``; MsdsimError where it says nothing."""
    if row.dataflow in _NONE:
        raise InputError(row.note or f"the row's dataflow is '{row.dataflow}'")
    hardware = override(hardware, row.set) if row.set else hardware
    result = _run(row, hardware, RunOptions(engine=engine, memory=memory))
    return replace(_about(row), kernel_us=result.time_us, predicted_us=result.time_us + launch_us(row.scope, result),
                   components=tuple(_components(row, result)))


def launch_us(scope: str, result: Result) -> float:
    """What a measurement of this scope has beside the kernel.

    A task has the whole launch, a kernel what its scalar units set up before the first copy.  A benchmark that repeats an
    operator hides most of the launch, but not that of a kernel on AIC and AIV, whose two halves have to be started together.
    """
    launch, kernel = result.hardware.chip.launch, result.kernel
    if scope == "kernel":
        return launch.setup_us
    return result.launch_us if scope == "task" or (kernel.aic and kernel.aiv) else launch.repeat_us


def _run(row: Measurement, hardware: Hardware, options: RunOptions) -> Result:
    text = row.run_as or spelled_out(row, hardware.chip)
    if text.startswith("micro:"):
        return _in_steady_state(text, hardware, "micro", options)
    if ":" not in text:
        raise InputError(f"'{row.problem}' is no problem the simulator knows; spell it as a problem in 'as'")
    return _in_steady_state(text, hardware, dataflow_of(row, hardware.chip), options.but(tiling=tiling_of(row, hardware.chip)))


#: A kernel that touches so much more than L2 holds finds nothing of its own there when it is timed again.
_BEYOND_L2 = 1.1


def _in_steady_state(text: str, hardware: Hardware, dataflow: str, options: RunOptions) -> Result:
    """A kernel that is larger than L2 as what it is in a measurement, which runs it again and again or after others: it reads
    everything from HBM, and every line that it writes has displaced a written one.  Smaller ones begin with an empty L2, since
    benchmarks clear it, or use fresh data."""
    problem = as_problem(text)
    kernel, _ = build_kernel(find_dataflow(problem, dataflow), problem, hardware, options.tiling)
    touched = sum(tensor.size_bytes for tensor in kernel.tensors if tensor.space == "GM")
    return run(problem, hardware, dataflow, options.but(warm=touched > _BEYOND_L2 * hardware.chip.l2.capacity_bytes))


# Components


def _components(row: Measurement, result: Result) -> list[Component]:
    """Predicted times of the pipes that the source gives: work, heads and waits for memory, averaged over the cores
    that work."""
    return [Component(name, value, found) for name, value in row.components_us.items()
            if (found := _component(name, result)) is not None]


#: Pipes by the name of a component.  Those of the AIVs alone come first; the others are the AIC's where a kernel has one.
_AIV_PIPES = {"vec": "V", "mte3": "MTE3", "aiv_mte2": "MTE2"}
_PIPES = {"mac": "M", "mte1": "MTE1", "mte2": "MTE2", "fix": "FIX", "fix_min": "FIX"}


def _component(name: str, result: Result) -> float | None:
    """Mean time of a pipe, or from the kernel's start to a core's end (``aicore``, ``aiv``); None for what is not there."""
    on_aic = bool(result.kernel.aic) and name not in _AIV_PIPES and name != "aiv"
    if (name == "aicore" and not on_aic) or (not on_aic and not result.kernel.aiv):
        return None
    mine = result.record.units.of_part("AIC" if on_aic else "AIV")
    totals, pipes = result.record.totals, result.record.program.parts[0 if on_aic else 1].pipes
    clock = result.hardware.chip.clock_mhz
    if name in ("aicore", "aiv"):
        # A core is done when its last pipe is.
        busy = ticks_to_us(int(np.mean([result.cycles - totals[u, : len(pipes), DRAINED].min() for u in mine])), clock)
        return busy + result.hardware.chip.launch.setup_us
    pipe = (_PIPES | _AIV_PIPES).get(name)
    if pipe is None or pipe not in pipes:
        return None
    spent = totals[mine, pipes.index(pipe)][:, [BUSY, HEAD, WAIT_MEMORY]].sum(axis=1)
    return ticks_to_us(int(spent.mean()), clock)


# Ratios


def _ratios(measurements: Sequence[Measurement], rows: Sequence[Prediction]) -> list[Ratio]:
    by_id = {row.id: row for row in rows}
    found = []
    for row in measurements:
        here, other = by_id[row.id], by_id.get(row.ratio_to)
        if other is None or here.predicted_us is None or other.predicted_us is None:
            continue
        if row.ratio_only is not None:
            found.append(Ratio(row.id, row.id, other.id, row.ratio_only, here.predicted_us / other.predicted_us))
        elif here.measured_us and other.measured_us:
            found.append(Ratio(row.id, other.id, row.id, other.measured_us / here.measured_us,
                               other.predicted_us / here.predicted_us))
    return found


__getattr__ = spread_names(__name__)
