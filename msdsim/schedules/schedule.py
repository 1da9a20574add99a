"""A recorded schedule: what was asked for, what happened, and marks that tell whether kernel or chip were others then."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msdsim.dataflows.lookup import find_dataflow
from msdsim.errors import InputError
from msdsim.hardware import Hardware, load_hw, override
from msdsim.ir.identity import kernel_hash
from msdsim.problems import Problem, problem_from_json
from msdsim.report.files import write_text
from msdsim.runs import DEFAULT_ENGINE, RunOptions
from msdsim.runs import run as run_problem
from msdsim.tilings import choose_tiling


class Schedule(BaseModel):
    """One schedule, schema ``msdsim.schedule/1``.

    ``hw`` is a chip's name, or the path of a chip file relative to the schedule's own.  ``tiling_given`` holds the user's
    values, ``tiling`` all of them.  ``pipes`` are cycles by category, summed over the instances.  The engine is no part of
    it: every engine has to give the same schedule.
    """

    model_config = ConfigDict(frozen=True)

    schema_name: Literal["msdsim.schedule/1"] = Field(default="msdsim.schedule/1", alias="schema")
    msdsim: str
    problem: dict[str, int | str | bool]
    hw: str
    overrides: dict[str, int | float | str]
    chip_sha256: str
    dataflow: str
    memory: str
    tiling_given: dict[str, int]
    tiling: dict[str, int]
    kernel_sha256: str
    cycles: int
    instructions: int
    traffic: dict[str, int]
    pipes: dict[str, dict[str, int]]


def chip_hash(hardware: Hardware) -> str:
    """SHA-256 of every number of a chip; its name and description do not count."""
    values = hardware.chip.model_dump(mode="json", exclude={"name", "description"}, exclude_none=True)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def record_schedule(
    problem: Problem, hw: str, dataflow: str, *, overrides: Mapping[str, object] | None = None,
    tiling: Mapping[str, int] | None = None, memory: str = "bandwidth", engine: str = DEFAULT_ENGINE,
    folder: Path | None = None,
) -> Schedule:
    """Simulate and record.  A chip file is looked for from ``folder`` (the present one when None)."""
    hardware = _chip_of(hw, overrides or {}, folder)
    run = run_problem(problem, hardware, dataflow, RunOptions(tiling=tiling, memory=memory, engine=engine))
    return Schedule(
        msdsim=_version(), problem=problem.to_json(), hw=hw, overrides=run.overrides, chip_sha256=chip_hash(hardware),
        dataflow=dataflow, memory=memory, tiling_given=dict(tiling or {}), tiling=dict(run.tiling),
        kernel_sha256=kernel_hash(run.kernel), cycles=run.cycles, instructions=run.record.instructions,
        traffic=run.traffic, pipes=run.stalls,
    )


def _chip_of(hw: str, overrides: Mapping[str, object], folder: Path | None) -> Hardware:
    hardware = load_hw(str((folder or Path()) / hw) if hw.endswith(".toml") else hw)
    return override(hardware, overrides) if overrides else hardware


def _version() -> str:
    """Version of the installed msdsim; a source tree that is not installed has none."""
    try:
        return version("msdsim")
    except PackageNotFoundError:
        return "unknown"


def repeat_schedule(recorded: Schedule, folder: Path, engine: str = DEFAULT_ENGINE) -> Schedule:
    """What the recorded request gives now, with the tiling that was recorded, whatever would be chosen today; ``folder`` is
    where the schedule's file lies."""
    found = record_schedule(
        problem_from_json(dict(recorded.problem)), recorded.hw, recorded.dataflow, overrides=recorded.overrides,
        tiling=recorded.tiling, memory=recorded.memory, engine=engine, folder=folder,
    )
    return found.model_copy(update={"tiling_given": recorded.tiling_given})


def choice_now(recorded: Schedule, folder: Path) -> dict[str, int]:
    """The tiling that the recorded request would get today, the user's values in place."""
    problem = problem_from_json(dict(recorded.problem))
    chip = _chip_of(recorded.hw, recorded.overrides, folder).chip
    return asdict(choose_tiling(find_dataflow(problem, recorded.dataflow), problem, chip, recorded.tiling_given))


def relative_hw(hw: str, file: str | Path) -> str:
    """A chip as a schedule in ``file`` names it: a chip file by its path from there."""
    if not hw.endswith(".toml"):
        return hw
    return Path(os.path.relpath(Path(hw).resolve(), Path(file).resolve().parent)).as_posix()


def save_schedule(schedule: Schedule, file: str | Path) -> None:
    """Write a schedule as JSON, one value per line, so that a review shows what changed."""
    write_text(file, json.dumps(schedule.model_dump(by_alias=True), indent=2) + "\n")


def load_schedule(file: str | Path) -> Schedule:
    """Read a schedule; InputError says what is wrong with a file that is none."""
    path = Path(file)
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"schedule file '{file}' does not exist; record one with 'msdsim schedule record'") from None
    except OSError as err:
        raise InputError(f"schedule file '{file}' cannot be read: {err.strerror}") from None
    except ValueError as err:
        raise InputError(f"schedule file '{file}' is not JSON: {err}") from None
    if not isinstance(document, dict) or document.get("schema") != "msdsim.schedule/1":
        raise InputError(f"schedule file '{file}' is not of schema 'msdsim.schedule/1'; 'msdsim schedule record' writes it")
    try:
        return Schedule.model_validate(document)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "is missing" if first["type"] == "missing" else f"= {first['input']!r}: {first['msg']}"
        raise InputError(f"schedule file '{file}': key '{key}' {problem}; record it again") from None
