"""Chip files: TOML in, a validated :class:`Hardware` out, every mistake named by file and key.

A number stands beside its provenance: ``clock_mhz = { value = 1850, kind = "vendor", source = "..." }``; ``source`` may
be a key of the file's ``[sources]`` table.  A plain number is allowed and has provenance ``unstated``.  ``extends`` names
another chip whose values are taken where the file gives none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msdsim.errors import ChipError
from msdsim.hardware.chip import Chip, Hardware, Provenance
from msdsim.registry import unknown_name
from msdsim.resources import find_file

_FIGURE_KEYS = {"value", "kind", "source"}


def load_hw(name: str) -> Hardware:
    """The chip called ``name`` (shipped) or in the file ``name`` (a path ending in .toml)."""
    return _load(find_file("hwmodels", "chip", name), seen=())


def _load(path: Path, seen: tuple[Path, ...]) -> Hardware:
    if path in seen:
        raise ChipError(f"chip file '{path.name}' extends itself; remove the 'extends' line")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ChipError(f"chip file '{path.name}' is not valid TOML: {err}") from None
    base = raw.pop("extends", None)
    sources = raw.pop("sources", {})
    values: dict[str, Any] = {}
    provenance: dict[str, Provenance] = {}
    if base is not None:
        parent = _load(find_file("hwmodels", "chip", str(base)), (*seen, path))
        values = parent.chip.model_dump()
        provenance = dict(parent.provenance)
    raw.setdefault("name", path.stem)
    _merge(values, _split(raw, "", sources, provenance, path.name))
    return Hardware(_validate(values, f"chip file '{path.name}'"), provenance)


def _split(
    node: Mapping[str, Any], prefix: str, sources: Mapping[str, str], provenance: dict[str, Provenance], file: str
) -> dict[str, Any]:
    """Separate figures into plain values and their provenance."""
    plain: dict[str, Any] = {}
    for key, item in node.items():
        dotted = f"{prefix}{key}"
        if isinstance(item, Mapping) and "value" in item:
            extra = set(item) - _FIGURE_KEYS
            if extra:
                raise ChipError(f"chip file '{file}', key '{dotted}': unknown field {', '.join(sorted(extra))} "
                                f"(a figure has value, kind and source)")
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
        problems = []
        for item in err.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(file)"
            if item["type"] == "missing":
                problems.append(f"key '{key}' is missing")
            elif item["type"] == "extra_forbidden":
                problems.append(f"key '{key}' is not known; check its spelling")
            else:
                problems.append(f"key '{key}' = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
        raise ChipError(f"{where}: {'; '.join(problems)}") from None


def parse_value(text: str) -> object:
    """The value of a ``--set key=value`` argument, read as TOML (a bare word is a string)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def override(hardware: Hardware, changes: Mapping[str, object]) -> Hardware:
    """A copy of ``hardware`` with numbers changed by dotted path; unknown paths and bad values are refused."""
    values = hardware.chip.model_dump()
    provenance = dict(hardware.provenance)
    known = _leaves(values)
    for dotted, value in changes.items():
        *parents, leaf = dotted.split(".")
        target: Any = values
        for part in parents:
            target = target.get(part) if isinstance(target, dict) else None
        if not isinstance(target, dict) or leaf not in target:
            raise unknown_name("chip parameter", dotted, known)
        if isinstance(target[leaf], dict):
            raise ChipError(f"chip parameter '{dotted}' is a table; set one of its keys, for example "
                            f"'{dotted}.{next(iter(target[leaf]))}'")
        target[leaf] = value
        provenance[dotted] = Provenance(kind="override", source="set by the user")
    return Hardware(_validate(values, "override"), provenance)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, item in node.items():
        found += _leaves(item, f"{prefix}{key}.") if isinstance(item, Mapping) else [f"{prefix}{key}"]
    return found
