"""Chip files: TOML in, a validated :class:`Hardware` out, every mistake named by file and key.

A number stands beside its provenance: ``clock_mhz = { value = 1850, kind = "vendor", source = "..." }``; ``source``
may be a key of the file's ``[sources]`` table.  A plain number is allowed and has provenance ``unstated``.  ``extends``
names another chip (a shipped name, or a path beside the file) whose values are taken where the file gives none.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from msdsim.errors import ChipError, InputError, UnknownNameError
from msdsim.hardware.chip import Chip, Hardware, Provenance
from msdsim.resources import find_file

_FIGURE_KEYS = {"value", "kind", "source"}
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
    "dict_type": "must be a table",
}


def load_hw(name: str) -> Hardware:
    """The chip called ``name`` (shipped) or in the file ``name`` (a path ending in .toml)."""
    return _load(find_file("hwmodels", "chip", name), seen=())


def _load(path: Path, seen: tuple[Path, ...]) -> Hardware:
    where = f"chip file '{path.name}'"
    if path.resolve() in seen:
        raise ChipError(f"{where} extends itself; remove an 'extends' line")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ChipError(f"{where} cannot be read: {err.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ChipError(f"{where} is not valid TOML: {err}") from None
    base = raw.pop("extends", None)
    sources = raw.pop("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise ChipError(f"{where}: key 'sources' must be a table of texts")
    values: dict[str, Any] = {}
    provenance: dict[str, Provenance] = {}
    if base is not None:
        if not isinstance(base, str):
            raise ChipError(f"{where}: key 'extends' = {base!r} must be the name or the path of a chip file")
        parent = _load(_base_file(path, base), (*seen, path.resolve()))
        values = parent.chip.model_dump()
        provenance = dict(parent.provenance)
    raw.setdefault("name", path.stem)
    _merge(values, _split(raw, "", sources, provenance, path.name))
    return Hardware(_validate(values, where), provenance)


def _base_file(path: Path, base: str) -> Path:
    beside = path.parent / base
    if beside.is_file():
        return beside
    try:
        return find_file("hwmodels", "chip", base)
    except InputError as err:
        raise type(err)(f"chip file '{path.name}', key 'extends': {err}") from None


def _split(
    node: Mapping[str, Any], prefix: str, sources: Mapping[str, str], provenance: dict[str, Provenance], file: str
) -> dict[str, Any]:
    """Separate figures into plain values and their provenance."""
    plain: dict[str, Any] = {}
    for key, item in node.items():
        dotted = f"{prefix}{key}"
        if isinstance(item, Mapping) and _is_figure(item):
            extra = sorted(set(item) - _FIGURE_KEYS)
            if extra:
                raise ChipError(f"chip file '{file}', key '{dotted}': unknown field '{extra[0]}' "
                                f"(a figure has value, kind and source)")
            if "value" not in item:
                raise ChipError(f"chip file '{file}', key '{dotted}': a figure with a kind needs a value")
            source = str(item.get("source", ""))
            try:
                provenance[dotted] = Provenance(kind=item.get("kind", "unstated"), source=sources.get(source, source))
            except ValidationError:
                raise ChipError(f"chip file '{file}', key '{dotted}': kind '{item.get('kind')}' is not one of "
                                f"measured, vendor, paper, simulator, inferred, assumed") from None
            plain[key] = item["value"]
        elif isinstance(item, Mapping):
            plain[key] = _split(item, f"{dotted}.", sources, provenance, file)
        else:
            if isinstance(item, int | float) and not isinstance(item, bool):
                provenance[dotted] = Provenance(kind="unstated", source="")
            plain[key] = item
    return plain


def _is_figure(item: Mapping[str, Any]) -> bool:
    """Whether a table is one number with its provenance (a path has a ``source`` too, but never a kind)."""
    return "value" in item or "kind" in item


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, item in new.items():
        if isinstance(item, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], item)
        else:
            into[key] = item


def _validate(values: Mapping[str, Any], where: str) -> Chip:
    try:
        return Chip.model_validate(values)
    except ValidationError as err:
        found = _explain(err.errors())
        more = len(found) - _MOST_FINDINGS
        text = "; ".join(found[:_MOST_FINDINGS]) + (f"; and {more} more" if more > 0 else "")
        raise ChipError(f"{where}: {text}") from None


def _explain(errors: Sequence[ErrorDetails]) -> list[str]:
    """One clause per mistake.  A misspelt key is one mistake, not an unknown key and a missing one."""
    missing = [_dotted(item["loc"]) for item in errors if item["type"] == "missing"]
    misspelt, others = [], []
    for item in errors:
        key = _dotted(item["loc"])
        if item["type"] == "missing":
            continue
        if item["type"] == "sanity":
            others += item["ctx"]["found"]
        elif item["type"] == "extra_forbidden" or item["loc"][-1] == "[key]":
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
    if isinstance(at, type) and issubclass(at, BaseModel):
        return list(at.model_fields)
    return [str(name) for name in get_args(get_args(at)[0])]


def parse_value(text: str) -> object:
    """The value of a ``--set key=value`` argument, read as TOML (a bare word is a string)."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if list(table) == ["value"] else text


def override(hardware: Hardware, changes: Mapping[str, object]) -> Hardware:
    """A copy of ``hardware`` with numbers changed by dotted path; unknown paths and bad values are refused."""
    values = hardware.chip.model_dump()
    provenance = dict(hardware.provenance)
    known = leaves(values)
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        target: Any = values
        for part in parents:
            target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict) or leaf not in target:
            close = difflib.get_close_matches(dotted, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UnknownNameError(f"unknown chip parameter '{dotted}'{hint} ('msdsim list hw --verbose' lists them)")
        if isinstance(target[leaf], dict):
            raise ChipError(f"chip parameter '{dotted}' is a table; set one of its keys, for example "
                            f"'{dotted}.{next(iter(leaves(target[leaf])))}'")
        target[leaf] = value
        provenance[dotted] = Provenance(kind="override", source="set by the user")
    return Hardware(_validate(values, f"chip '{hardware.name}' as set"), provenance)


def leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of a tree of tables by its dotted key, in order."""
    found: dict[str, Any] = {}
    for key, item in node.items():
        found |= leaves(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return found
