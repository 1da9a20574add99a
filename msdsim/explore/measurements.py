"""Validation files: rows of published measurements, each with the chip, the problem, how it was run and what was measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from msdsim.errors import InputError, MsdsimError
from msdsim.problems import Attention, GroupedGemm, parse_inline
from msdsim.resources import find_file, read_toml, shipped_names

#: The shipped file of published kernels.
PUBLISHED = "published"
#: Numbers of the chip that a note says to set.
_SET = re.compile(r"--set ([a-z0-9_.]+)=([0-9.]*[0-9])")

#: What a clock has shown.
Measured = Annotated[FiniteFloat, Field(gt=0)]


class Measurement(BaseModel):
    """One row of a validation file, as it is written there.

    ``informs`` names the constants of chip files that were inferred with this row's help; a row without is a test of them all.
    ``set`` changes numbers of the chip (a kernel on one core), ``ambiguous`` says what is uncertain about a row, which is then
    reported apart, and ``long`` marks one that takes minutes to simulate.  Further times of the same source (``time_us_...``)
    may stand beside and are not used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    chip: str
    problem: str
    dataflow: str = ""
    run_as: str = ""
    tiling: str | dict[str, int] = field(default_factory=dict)
    time_us: Measured | None = None
    tflops: Measured | None = None
    scope: Literal["task", "kernel", "unknown"] = "unknown"
    components_us: dict[str, Measured] = field(default_factory=dict)
    source: str
    note: str = ""
    ratio_to: str = ""
    ratio_only: Measured | None = None
    informs: tuple[str, ...] = ()
    set: dict[str, FiniteFloat | str] = field(default_factory=dict)
    ambiguous: str = ""
    long: bool = False

    @property
    def measured_us(self) -> float | None:
        """The time that was measured, or that the rate in TFLOPS stands for; None where there is neither."""
        return self.time_us if self.time_us is not None else _time_of(self)


def load_measurements(file: str | Path = PUBLISHED) -> list[Measurement]:
    """The rows of a validation file, its sources put in.

    A row that has the id of a shipped row and does not say how the published kernel cuts its work takes it from there, and
    whether only its ratio to another row means anything.
    """
    path = find_file("validation", "validation", str(file))
    where = f"validation file '{path.name}'"
    raw = read_toml(path, where)
    if not isinstance(raw.get("row"), list):
        raise InputError(f"{where} has no rows; add a [[row]] with id, chip, problem, dataflow, time_us, scope and source")
    shipped = {} if Path(path).stem == PUBLISHED and str(file) in shipped_names("validation") else {
        row.id: row for row in load_measurements()}
    sources = raw.get("sources", {})
    if not isinstance(sources, dict):
        raise InputError(f"{where}: 'sources' is {str(sources)[:40]}; give a table of sources by name")
    found: dict[str, Measurement] = {}
    for index, item in enumerate(raw["row"], start=1):
        row = _row_of(item, sources, f"{where}, row {index}")
        if row.id in found:
            raise InputError(f"{where}, row {index}: there is a row '{row.id}' before it; give every row an id of its own")
        same = shipped.get(row.id)
        found[row.id] = row if same is None or row.run_as else _spelled_out(row, same)
    for index, (item, name) in enumerate(zip(raw["row"], found, strict=True), start=1):
        if (to := item.get("ratio_to")) and to not in found:
            raise InputError(f"{where}, row {index} '{name}': ratio_to = '{to[:40]}' names no row")
    return list(found.values())


def _row_of(item: Any, sources: Mapping[str, Any], where: str) -> Measurement:
    if not isinstance(item, dict):
        raise InputError(f"{where} is {str(item)[:40]}; write it as [[row]] with its keys")
    values = {"run_as" if key == "as" else key: value for key, value in item.items() if not key.startswith("time_us_")}
    source = values.get("source", "")
    if isinstance(source, str):
        values["source"] = sources.get(source, source)
    _understand_note(values)
    try:
        return Measurement(**values)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"]).replace("run_as", "as")
        name = str(item.get("id", ""))[:40]
        raise InputError(f"{where} '{name}': key '{key}': {first['msg'].lower()}") from None


def _understand_note(values: dict[str, Any]) -> None:
    """What a collector of rows puts into the note: that something is uncertain, and numbers of the chip to set."""
    note = str(values.get("note", ""))
    _, doubt, uncertain = note.partition("AMBIGUOUS:")
    if doubt and not values.get("ambiguous"):
        values["ambiguous"] = uncertain.partition(";")[0].strip() or "not said why"
    changes = _SET.findall(note)
    if changes and "set" not in values:
        values["set"] = {key: float(number) if "." in number else int(number) for key, number in changes}


def _spelled_out(row: Measurement, same: Measurement) -> Measurement:
    """``row`` with what the shipped row of the same id says about how it was run."""
    known = same.model_dump(include={"problem", "dataflow", "run_as", "tiling", "ratio_to", "ratio_only", "informs", "set",
                                     "ambiguous", "long"})
    if same.time_us is None and same.tflops is None:
        known |= {"time_us": None, "tflops": None}
    return row.model_copy(update=known)


def _time_of(row: Measurement) -> float | None:
    """Time that a rate in TFLOPS stands for; a multiply and an add are two operations."""
    if row.tflops is None:
        return None
    try:
        problem = parse_inline(row.problem if ":" in row.problem else row.run_as)
    except MsdsimError:
        return None
    if isinstance(problem, Attention):
        # Half of a causal square is left out, by convention of those who print the rate.
        pairs = problem.batch * problem.heads * problem.q * problem.kv / (2 if problem.causal else 1)
        return 2 * pairs * (problem.head_dim + problem.value_dim) / row.tflops / 1e6
    rows = problem.total_rows if isinstance(problem, GroupedGemm) else problem.m
    return 2 * rows * problem.k * problem.n / row.tflops / 1e6
