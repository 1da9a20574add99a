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
from msdsim.schedules.schedule import Schedule


def save_schedule(schedule: Schedule, file: str | Path) -> None:
    """Write a schedule as JSON: one value per line, and one line for each line of the kernel, so that a review shows what
    changed."""
    document = schedule.model_dump(by_alias=True, exclude_defaults=True) | {"schema": schedule.schema_name}
    shown = {name: document[name] for name in schedule.model_dump(by_alias=True) if name in document}
    text = ",\n".join(f"  {json.dumps(name)}: {_value(name, value)}" for name, value in shown.items())
    write_text(file, f"{{\n{text}\n}}\n")


#: Keys whose entries are read one by one, each on a line of its own.
_ROWS = ("lines", "kernel")


def _value(name: str, value: Any) -> str:
    if name == "chip":
        return json.dumps(value)
    if name in _ROWS and value:
        rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
        return f"[\n{rows}\n  ]"
    return json.dumps(value, indent=2).replace("\n", "\n  ")


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
            return '"msdsim.schedule/1"' in text.read(4096)
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


def load_schedule(file: str | Path) -> Schedule:
    """Read a schedule; InputError says what is wrong with a file that is none."""
    path = Path(file)
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"schedule file '{file}' does not exist; record one with 'msdsim schedule record'") from None
    except OSError as err:
        raise InputError(f"schedule file '{file}' cannot be read: {err.strerror}") from None
    except (ValueError, RecursionError) as err:
        raise InputError(f"schedule file '{file}' is not JSON: {str(err)[:200]}") from None
    if not isinstance(document, dict) or document.get("schema") != "msdsim.schedule/1":
        raise InputError(f"schedule file '{file}' is not of schema 'msdsim.schedule/1'; 'msdsim schedule record' writes it")
    try:
        return _with_current_keys(Schedule.model_validate(document))
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "is missing" if first["type"] == "missing" else f"= {first['input']!r}: {first['msg']}"
        raise InputError(f"schedule file '{file}': key '{key}' {problem}; record it again") from None
