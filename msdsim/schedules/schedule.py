"""A recorded schedule: what was asked for, what happened, and the kernel and chip that it happened with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from msdsim.analysis.lines import line_profile
from msdsim.dataflows.lookup import find_dataflow
from msdsim.dataflows.own import is_file
from msdsim.errors import InputError, MsdsimError
from msdsim.hardware import Hardware, load_hw, override
from msdsim.hardware.hardware import leaves
from msdsim.ir.identity import kernel_hash
from msdsim.ir.kernel import Kernel
from msdsim.ir.params import with_params
from msdsim.ir.parser import parse_kernel, read_kernel
from msdsim.ir.printer import number_lines, print_kernel
from msdsim.problems import KernelFile, Problem, problem_from_json
from msdsim.references import EXAMPLE
from msdsim.report.result import Result
from msdsim.runs import DEFAULT_ENGINE, RunOptions
from msdsim.runs import run as run_problem
from msdsim.tilings import choose_tiling
from msdsim.version import __version__


class StallRow(BaseModel):
    """Cycles that a line waited for one thing: a buffer, signal, tensor or dispatch (``what``) of a pipe or part (``by``)."""

    model_config = ConfigDict(frozen=True)

    category: str
    what: str
    by: str
    cycles: int


class LineRow(BaseModel):
    """One line of the kernel on one pipe: cycles by category, summed over the cores, and what it waited for."""

    model_config = ConfigDict(frozen=True)

    line: int
    pipe: str
    cycles: dict[str, int]
    stalls: tuple[StallRow, ...] = ()


class Schedule(BaseModel):
    """One schedule, schema ``msdsim.schedule/1``.

    ``hw`` is a chip's name, or the path of a chip file relative to the schedule's own.  ``tiling_given`` holds the user's
    values, ``tiling`` all of them.  ``pipes`` are cycles by category, summed over the instances.  The engine is no part of
    it: every engine has to give the same schedule.

    ``warm`` times a second run of the kernel; ``numbers`` are there where the numbers were pinned too.  ``chip``, ``lines`` and
    ``kernel`` (the text, line by line, whose numbers ``lines`` cite) are empty in files of versions that did not record them.
    A hand-written kernel is the problem ``{"kind": "kernel", "name": ...}``, with the path of its ``file`` from the schedule's
    where it has one.
    """

    model_config = ConfigDict(frozen=True)

    schema_name: Literal["msdsim.schedule/1"] = Field(default="msdsim.schedule/1", alias="schema")
    msdsim: str
    problem: dict[str, Any]
    hw: str
    overrides: dict[str, int | float | str]
    chip_sha256: str
    dataflow: str
    memory: str
    warm: bool = False
    tiling_given: dict[str, int]
    tiling: dict[str, int]
    kernel_sha256: str
    cycles: int
    instructions: int
    traffic: dict[str, int]
    pipes: dict[str, dict[str, int]]
    numbers: dict[str, Any] = {}
    chip: dict[str, Any] = {}
    lines: tuple[LineRow, ...] = ()
    kernel: tuple[str, ...] = ()

    @property
    def of_kernel(self) -> bool:
        """Whether it is the schedule of a hand-written kernel."""
        return self.problem.get("kind") == "kernel"

    @property
    def complete(self) -> bool:
        """Whether it holds the kernel's text, which files of older versions lack."""
        return bool(self.kernel)


def chip_hash(hardware: Hardware) -> str:
    """SHA-256 of every number of a chip that a schedule depends on: name, description and energy do not count."""
    return hashlib.sha256(json.dumps(_chip_values(hardware), sort_keys=True).encode()).hexdigest()


def _chip_values(hardware: Hardware) -> dict[str, Any]:
    return hardware.chip.model_dump(mode="json", exclude={"name", "description", "energy"}, exclude_none=True)


def record_schedule(
    problem: Problem | Kernel | KernelFile, hw: str, dataflow: str = "bf16", *, overrides: Mapping[str, object] | None = None,
    tiling: Mapping[str, int] | None = None, memory: str = "bandwidth", engine: str = DEFAULT_ENGINE,
    folder: Path | None = None, warm: bool = False, numbers: bool = False, seed: int = 0, reference: str | None = None,
) -> Schedule:
    """Simulate and record.  A chip file and a kernel's file are looked for from ``folder`` (the present one when None).

    With ``numbers`` those are executed on inputs drawn from ``seed``, checked, and pinned by their hash; a hand-written kernel
    needs a ``reference`` for them (``DATAFLOW:PROBLEM``), and with one they are always pinned.
    """
    hardware = chip_of(hw, overrides or {}, folder)
    options = RunOptions(tiling=tiling, memory=memory, engine=engine, warm=warm)
    if isinstance(problem, Kernel | KernelFile):
        if numbers and reference is None:
            raise InputError("the numbers of a hand-written kernel are held to a reference; add one, such as "
                             f"{EXAMPLE}, or leave out their check")
        shape, text, asked = _kernel_of(problem, folder, tiling or {}, reference is not None)
        if reference is not None:
            options = options.but(check=True, keep=("y",), seed=seed, reference=reference)
        run = run_problem(shape, hardware, "", options)
        return _schedule(run, hw, hardware, "", dict(tiling or {}), text, asked, reference)
    if reference is not None:
        raise InputError(f"a reference belongs to a hand-written kernel; the numbers of {problem} have that of their dataflow")
    if numbers:
        options = options.but(check=True, keep=("y",), seed=seed)
    run = run_problem(problem, hardware, _dataflow_of(dataflow, folder), options)
    return schedule_of_run(run, hw, hardware, dict(tiling or {})).model_copy(
        update={"dataflow": dataflow, "problem": problem.to_json()})


def schedule_of_run(run: Result, hw: str, hardware: Hardware, tiling_given: dict[str, int]) -> Schedule:
    """The schedule of a problem that was run on the chip that is called ``hw``."""
    return _schedule(run, hw, hardware, run.dataflow, tiling_given, print_kernel(number_lines(run.kernel)), dict(run.problem))


def _kernel_of(given: Kernel | KernelFile, folder: Path | None, tiling: Mapping[str, int],
               has_reference: bool) -> tuple[Kernel, str, dict[str, Any]]:
    """A hand-written kernel, its text, and how a schedule names it; what is no param of it belongs to its reference."""
    def own(kernel: Kernel) -> Kernel:
        return with_params(kernel, {key: value for key, value in tiling.items() if not has_reference or key in kernel.params})

    if isinstance(given, Kernel):
        kernel = number_lines(own(given))
        return kernel, print_kernel(kernel), {"kind": "kernel", "name": kernel.name}
    path = _from(folder, str(given.path))
    kernel = own(read_kernel(path))
    return kernel, path.read_text(encoding="utf-8"), {"kind": "kernel", "name": kernel.name, "file": given.path.as_posix()}


def _schedule(run: Result, hw: str, hardware: Hardware, dataflow: str, tiling_given: dict[str, int], text: str,
              problem: dict[str, Any], reference: str | None = None) -> Schedule:
    return Schedule(
        msdsim=__version__, problem=problem, hw=hw, overrides=run.overrides, chip_sha256=chip_hash(hardware),
        dataflow=dataflow, memory=run.memory, warm=run.l2_start == "warm", tiling_given=tiling_given, tiling=dict(run.tiling),
        kernel_sha256=kernel_hash(run.kernel), cycles=run.cycles, instructions=run.record.instructions,
        traffic=run.traffic, pipes=run.stalls, numbers=_numbers(run, reference), chip=leaves(_chip_values(hardware)),
        lines=tuple(LineRow(line=item.line, pipe=item.kind, cycles=dict(item.cycles),
                            stalls=tuple(StallRow(**asdict(stall)) for stall in item.stalls))
                    for item in line_profile(run.record) if item.cycles),
        kernel=tuple(text.splitlines()),
    )


def _numbers(run: Result, reference: str | None) -> dict[str, Any]:
    """What is pinned of a run's numbers: only what is the same on every machine."""
    if run.numerics is None:
        return {}
    outputs = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in sorted(run.arrays.items())}
    held_to = {} if reference is None else {"reference": reference}
    return held_to | {"seed": run.seed, "bit_exact": run.numerics.bit_exact, "outputs_sha256": outputs}


def chip_of(hw: str, overrides: Mapping[str, object], folder: Path | None) -> Hardware:
    """The chip that a schedule in ``folder`` names, with what was changed about it."""
    hardware = load_hw(str(_from(folder, hw)) if hw.endswith(".toml") else hw)
    return override(hardware, overrides) if overrides else hardware


def _dataflow_of(dataflow: str, folder: Path | None) -> str:
    """A dataflow's name, or that of its file from the present folder."""
    return str(_from(folder, dataflow)) if is_file(dataflow) else dataflow


def _from(folder: Path | None, path: str) -> Path:
    """A path that a schedule in ``folder`` names; the folder itself may not be there yet."""
    return ((folder or Path()) / path).resolve()


def _asked(recorded: Schedule) -> Problem | Kernel | KernelFile:
    """What a schedule was recorded of: a kernel without a file is the text that was recorded."""
    if not recorded.of_kernel:
        return problem_from_json(dict(recorded.problem))
    if "file" in recorded.problem:
        return KernelFile(Path(str(recorded.problem["file"])))
    return parse_kernel("\n".join(recorded.kernel) + "\n")


def repeat_schedule(recorded: Schedule, folder: Path, engine: str = DEFAULT_ENGINE,
                    problem: Problem | Kernel | None = None) -> Schedule:
    """What the recorded request gives now, with the tiling that was recorded, whatever would be chosen today.  A hand-written
    kernel's params are those of its text now, but for the ones that were given.

    ``folder`` is where the schedule's file lies, ``problem`` what is run in the place of the recorded one.
    """
    tiling = recorded.tiling_given if recorded.of_kernel else recorded.tiling
    found = record_schedule(
        _asked(recorded) if problem is None else problem, recorded.hw, recorded.dataflow, overrides=recorded.overrides,
        tiling=tiling, memory=recorded.memory, engine=engine, folder=folder, warm=recorded.warm,
        numbers=bool(recorded.numbers), seed=recorded.numbers.get("seed", 0),
        reference=recorded.numbers.get("reference"),
    )
    return found.model_copy(update={"tiling_given": recorded.tiling_given})


def recorded_kernel_now(recorded: Schedule, folder: Path, engine: str = DEFAULT_ENGINE) -> int | None:
    """Cycles that the recorded kernel takes today, on today's chip: what tells a change of the kernel from one of chip or
    engine.  None where it was not recorded or no longer runs."""
    try:
        kernel = parse_kernel("\n".join(recorded.kernel) + "\n", recorded.tiling if recorded.of_kernel else None)
        hardware = chip_of(recorded.hw, recorded.overrides, folder)
        options = RunOptions(memory=recorded.memory, engine=engine, warm=recorded.warm)
        return run_problem(kernel, hardware, "", options).cycles
    except MsdsimError:
        return None


def choice_now(recorded: Schedule, folder: Path) -> dict[str, int]:
    """The tiling that the recorded request would get today, the user's values in place; nothing chooses a kernel's params."""
    if recorded.of_kernel:
        return {}
    problem = problem_from_json(dict(recorded.problem))
    chip = chip_of(recorded.hw, recorded.overrides, folder).chip
    dataflow = find_dataflow(problem, _dataflow_of(recorded.dataflow, folder))
    return asdict(choose_tiling(dataflow, problem, chip, recorded.tiling_given))


def relative_path(path: str, file: str | Path) -> str:
    """A path as a schedule in ``file`` names it: from there."""
    return Path(os.path.relpath(Path(path).resolve(), Path(file).resolve().parent)).as_posix()


def relative_dataflow(dataflow: str, file: str | Path) -> str:
    """A dataflow as a schedule in ``file`` names it: one of a user's file by its path from there."""
    if not is_file(dataflow):
        return dataflow
    path, colon, name = dataflow.partition(":")
    return relative_path(path, file) + colon + name


def relative_hw(hw: str, file: str | Path) -> str:
    """A chip as a schedule in ``file`` names it: a chip file by its path from there."""
    return relative_path(hw, file) if hw.endswith(".toml") else hw
