"""Files of golden schedules: written so that a review shows what changed, read with one sentence about what is wrong."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msdsim.dataflows import DATAFLOWS
from msdsim.dataflows.base import RenamedKey, current_keys
from msdsim.errors import InputError
from msdsim.report.files import write_text
from msdsim.schedules.golden import AnySchedule
from msdsim.schedules.schedule import Schedule
from msdsim.schedules.workload import WorkloadSchedule


def save_schedule(schedule: AnySchedule, file: str | Path) -> None:
    """Write a schedule as JSON: one value per line, and one line for each line of the kernel, so that a review shows what
    changed."""
    write_text(file, _document(schedule, "") + "\n")


#: Keys whose entries are read one by one, each on a line of its own.
_ROWS = ("lines", "kernel")


def _document(schedule: AnySchedule, margin: str) -> str:
    document = schedule.model_dump(by_alias=True, exclude_defaults=True) | {"schema": schedule.schema_name}
    names = [name for name in schedule.model_dump(by_alias=True) if name in document]
    text = ",\n".join(f"{margin}  {json.dumps(name)}: {_value(schedule, name, document[name], margin)}" for name in names)
    return f"{{\n{text}\n{margin}}}"


def _value(schedule: AnySchedule, name: str, value: Any, margin: str) -> str:
    if isinstance(schedule, WorkloadSchedule) and name == "entries":
        inner = margin + "      "
        rows = [f'{margin}    {{\n{inner}"name": {json.dumps(entry.name)}, "count": {entry.count},\n{inner}"schedule": '
                f"{_document(entry.schedule, inner)}\n{margin}    }}" for entry in schedule.entries]
        return "[\n" + ",\n".join(rows) + f"\n{margin}  ]"
    if name == "chip":
        return json.dumps(value)
    if name in _ROWS and value:
        rows = [f"{margin}    {json.dumps(row)}" for row in value]
        return "[\n" + ",\n".join(rows) + f"\n{margin}  ]"
    return json.dumps(value, indent=2).replace("\n", f"\n{margin}  ")


def schedule_files(paths: Iterable[str]) -> list[str]:
    """The schedule files that some paths name: a folder stands for those in it and in its folders."""
    found: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
            continue
        inside = [str(file) for file in sorted(Path(path).rglob("*.json")) if _is_schedule(file)]
        if not inside:
            raise InputError(f"folder '{path}' holds no schedule files; record one with 'msdsim schedule record'")
        found += inside
    return list(dict.fromkeys(found))


def _is_schedule(file: Path) -> bool:
    """Whether a file says that it is a schedule, whatever state it is in; other JSON files may lie beside them."""
    try:
        with file.open(encoding="utf-8", errors="replace") as text:
            start = text.read(4096)
            return any(f'"{schema}"' in start for schema in _SCHEMAS)
    except OSError:
        return True


def _with_current_keys(schedule: Schedule) -> Schedule:
    """The schedule with the names that keys of its tiling have now, where they had others when it was recorded."""
    names = [name for name in (f"{schedule.problem.get('kind')}:{schedule.dataflow}", schedule.dataflow) if name in DATAFLOWS]
    if not names:
        return schedule
    tiling = DATAFLOWS[names[0]].tiling
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RenamedKey)
        return schedule.model_copy(update={"tiling": current_keys(tiling, schedule.tiling),
                                           "tiling_given": current_keys(tiling, schedule.tiling_given)})


def load_schedule(file: str | Path) -> AnySchedule:
    """Read a schedule, of whatever it is; InputError says what is wrong with a file that is none."""
    path = Path(file)
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"schedule file '{file}' does not exist; record one with 'msdsim schedule record'") from None
    except OSError as err:
        raise InputError(f"schedule file '{file}' cannot be read: {err.strerror}") from None
    except (ValueError, RecursionError) as err:
        raise InputError(f"schedule file '{file}' is not JSON: {str(err)[:200]}") from None
    if not isinstance(document, dict) or document.get("schema") not in list(_SCHEMAS):
        raise InputError(f"schedule file '{file}' is not of schema {' or '.join(map(repr, _SCHEMAS))}; "
                         f"'msdsim schedule record' writes it")
    try:
        found = _SCHEMAS[document["schema"]].model_validate(document)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "is missing" if first["type"] == "missing" else f"= {first['input']!r:.80}: {first['msg']}"
        raise InputError(f"schedule file '{file}': key '{key}' {problem}; record it again") from None
    if isinstance(found, Schedule):
        return _with_current_keys(found)
    entries = [entry.model_copy(update={"schedule": _with_current_keys(entry.schedule)}) for entry in found.entries]
    return found.model_copy(update={"entries": tuple(entries)})


_SCHEMAS: dict[str, type[Schedule] | type[WorkloadSchedule]] = {
    "msdsim.schedule/1": Schedule, "msdsim.workload_schedule/1": WorkloadSchedule}
