"""One run of a sweep: what identifies it, and its row of results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from msdsim.dataflows.lookup import find_dataflow
from msdsim.errors import InputError, MsdsimError, UnknownNameError
from msdsim.explore.sweep.spec import Spec, parse_spec
from msdsim.hardware import Hardware, load_hw
from msdsim.problems import Workload
from msdsim.report.frames import measures, workload_measures
from msdsim.runs import RunOptions, read_problem, run
from msdsim.version import __version__, code_version
from msdsim.workload_runs import run_workload

#: What became of a point: it ran; a rule of the problem, the chip or the dataflow refused it; something broke.
DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    ``key`` identifies everything its result depends on: problem, dataflow, tiling and chip numbers set, the numbers of the chip
    (not its name), memory model, and the code that computes it.
    """

    key: str
    problem: str
    hw: str
    dataflow: str
    parameters: tuple[tuple[str, Any], ...]

    def row(self) -> dict[str, Any]:
        """The row's first columns: what was asked for."""
        return {"key": self.key, "problem": self.problem, "hw": self.hw, "dataflow": self.dataflow, **dict(self.parameters)}


@dataclass(frozen=True)
class Setting:
    """What the points of a sweep share, with every name looked up: it travels once to each process."""

    spec: Spec
    hardware: Mapping[str, Hardware]
    version: str

    @classmethod
    def of(cls, spec: Spec, chips: Mapping[str, Hardware] | None = None) -> Setting:
        """Look up chips (those that ``chips`` does not have), dataflows and parameters; InputError for a name that does not
        exist, before anything runs."""
        known = chips or {}
        setting = cls(spec, {name: known[name] if name in known else load_hw(name) for name in spec.hw}, code_version())
        _check_problem(spec)
        _check_chip_parameters(setting)
        return setting

    def points(self) -> Iterator[Point]:
        for problem, hw, dataflow, parameters in self.spec.combinations():
            yield Point(self._key(problem, hw, dataflow, parameters), problem, hw, dataflow, tuple(parameters.items()))

    def _key(self, *asked: Any) -> str:
        problem, hw, dataflow, parameters = asked
        text = json.dumps([self.version, problem, self._kernel, self._digests[hw], dataflow, sorted(parameters.items()),
                           self.spec.memory, self.spec.check])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {name: hashlib.sha256(hw.chip.model_dump_json().encode()).hexdigest() for name, hw in self.hardware.items()}

    @cached_property
    def _kernel(self) -> str:
        """Digest of the text of a kernel or workload file, where the problem is one."""
        if not self.spec.problem.endswith((".kir", ".toml")):
            return ""
        return hashlib.sha256(Path(self.spec.problem).read_bytes()).hexdigest()


def points(spec: Mapping[str, Any] | Spec) -> list[Point]:
    """Every point of a spec, in a fixed order; InputError for a spec, chip or name that is wrong."""
    return list(Setting.of(spec if isinstance(spec, Spec) else parse_spec(spec)).points())


def _check_problem(spec: Spec) -> None:
    """The problem's kind, its dataflows and the tiling's keys exist.  Sizes may still be refused, point by point."""
    first = next(spec.combinations())
    tilings = [name.removeprefix("tiling.") for name in spec.names if name.startswith("tiling.")]
    if spec.problem.endswith(".kir"):
        from msdsim.ir.parser import read_kernel

        params = read_kernel(Path(spec.problem)).params
        for name in tilings:
            if name not in params:
                raise InputError(f"sweep spec: nothing uses the parameter 'tiling.{name}' (params of the kernel "
                                 f"'{spec.problem}': {', '.join(params) or 'none'})")
        return
    problem = read_problem(first[0])
    if isinstance(problem, Workload):
        if tilings:
            raise InputError(f"sweep spec: nothing uses the parameter 'tiling.{tilings[0]}', since every operator of the "
                             f"workload '{problem.name}' has a tiling of its own")
        return
    dataflows = [find_dataflow(problem, name) for name in spec.dataflow]
    known = list(dict.fromkeys(item.name for dataflow in dataflows for item in fields(dataflow.tiling)))
    old = {name for dataflow in dataflows for name in getattr(dataflow.tiling, "RENAMED", {})}
    for name in tilings:
        if name not in known and name not in old:
            raise InputError(f"sweep spec: nothing uses the parameter 'tiling.{name}' (keys of "
                             f"{', '.join(item.name for item in dataflows)}: {', '.join(known)})")


def _check_chip_parameters(setting: Setting) -> None:
    """Chip parameters exist on every chip.  Values may still be refused, point by point."""
    names = [name for name in setting.spec.names if "." in name and not name.startswith("tiling.")]
    if not names:
        return
    first = next(setting.spec.combinations())[3]
    for hardware in setting.hardware.values():
        for name in names:
            try:
                hardware.replace(**{name: first[name]})
            except UnknownNameError as err:
                raise InputError(f"sweep spec: {err} on '{hardware.name}'") from None
            except MsdsimError:
                continue  # the name is right; a value that cannot be is the row's own refusal


def run_point(setting: Setting, point: Point) -> dict[str, Any]:
    """Simulate a point: a flat row.  Whatever goes wrong with it is its ``error``, not an exception."""
    row = point.row()
    try:
        result = _simulate(setting, point)
    except MsdsimError as err:
        return row | {"status": REFUSED, "error": str(err)}
    except Exception as err:
        # One point in a thousand that breaks must not cost the others.
        return row | {"status": FAILED, "error": f"{type(err).__name__}: {' '.join(str(err).split())}"[:1000]}
    return row | result | {"status": DONE, "error": None}


def _simulate(setting: Setting, point: Point) -> dict[str, Any]:
    hardware = setting.hardware[point.hw]
    changes = {name: value for name, value in point.parameters if "." in name and not name.startswith("tiling.")}
    tiling = {name.removeprefix("tiling."): value for name, value in point.parameters if name.startswith("tiling.")}
    options = RunOptions(tiling=tiling or None, memory=setting.spec.memory, check=setting.spec.check)
    hardware = hardware.replace(**changes) if changes else hardware
    shape = read_problem(point.problem)
    if isinstance(shape, Workload):
        return workload_measures(run_workload(shape, hardware, point.dataflow, options)) | {"version": __version__}
    return measures(run(shape, hardware, point.dataflow, options)) | {"version": __version__}
