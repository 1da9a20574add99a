"""A chip from a tree of values: each number checked by its type, all against each other, every mistake named by its key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from msdsim.errors import ChipError
from msdsim.hardware.chip import Chip
from msdsim.hardware.sanity import findings

_MOST_FINDINGS = 4

#: What to say for each kind of mistake pydantic finds; the rest speak for themselves.
_MESSAGES = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_from_float": "must be a whole number",
    "not_a_number": "must be a number",
    "finite_number": "must be finite",
    "literal_error": "must be {expected}",
    "string_type": "must be text",
    "model_type": "must be a table",
    "range_order": "must have low <= value <= high",
    "dict_type": "must be a table",
}


def checked_chip(values: Mapping[str, Any], where: str) -> Chip:
    """The chip of these values; ChipError, which begins with ``where``, lists what is wrong with them."""
    try:
        chip = Chip.model_validate(values)
    except ValidationError as err:
        raise _chip_error(where, _explain(err.errors())) from None
    found = findings(chip)
    if found:
        raise _chip_error(where, found)
    return chip


def _chip_error(where: str, found: Sequence[str]) -> ChipError:
    more = len(found) - _MOST_FINDINGS
    return ChipError(f"{where}: " + "; ".join(found[:_MOST_FINDINGS]) + (f"; and {more} more" if more > 0 else ""))


def _explain(errors: Sequence[ErrorDetails]) -> list[str]:
    """One clause per mistake.  A misspelt key is one mistake, not an unknown key and a missing one."""
    missing = [_dotted(item["loc"]) for item in errors if item["type"] == "missing"]
    misspelt, others = [], []
    for item in errors:
        key = _dotted(item["loc"])
        if item["type"] == "missing":
            continue
        if item["type"] == "extra_forbidden" or item["loc"][-1] == "[key]":
            known = _keys_beside(item["loc"])
            close = difflib.get_close_matches(key.rpartition(".")[2], [name.rpartition(".")[2] for name in known], n=1)
            meant = f"{key.rpartition('.')[0]}.{close[0]}".removeprefix(".") if close else ""
            if meant in missing:
                missing.remove(meant)
            hint = f"; did you mean '{meant}'?" if meant else f" (known here: {', '.join(known)})"
            misspelt.append(f"key '{key}' is not known{hint}")
        else:
            message = _MESSAGES.get(item["type"])
            text = message.format(**item.get("ctx", {})) if message else item["msg"]
            others.append(f"key '{key}' = {_show(item['input'])} {text}")
    return misspelt + [f"key '{key}' is missing" for key in missing] + others


def _dotted(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part != "[key]")


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "a table"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Keys that the table holding ``loc`` may have, found by walking the model's types."""
    parts = [part for part in loc if part != "[key]"][:-1]
    at: Any = Chip
    for part in parts:
        if isinstance(at, type) and issubclass(at, BaseModel):
            at = at.model_fields[str(part)].annotation
        else:
            at = get_args(at)[1]
        if type(None) in get_args(at):  # a table that may be left out
            at = get_args(at)[0]
    if isinstance(at, type) and issubclass(at, BaseModel):
        return list(at.model_fields)
    return [str(name) for name in get_args(get_args(at)[0])]
