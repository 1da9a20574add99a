"""Chip files: TOML in, a validated :class:`Hardware` out, every mistake named by file and key.

A number stands beside its provenance: ``clock_mhz = { value = 1850, kind = "vendor", source = "..." }``; ``source``
may be a key of the file's ``[sources]`` table.  A plain number is allowed and has provenance ``unstated``.  ``extends``
names another chip (a shipped name, or a path beside the file) whose values are taken where the file gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msdsim import moved
from msdsim.errors import ChipError, InputError
from msdsim.hardware.checked import checked_chip
from msdsim.hardware.energy import CORNERS
from msdsim.hardware.hardware import Hardware, Provenance
from msdsim.resources import find_file, toml_table

_FIGURE_KEYS = {"value", "kind", "source"}


def load_hw(name: str | Path | Hardware) -> Hardware:
    """The chip called ``name`` (``msdsim list hw``) or in the file ``name`` (a path ending in .toml); a chip is itself.

    :meth:`Hardware.replace` makes a copy with numbers changed; InputError for what is no chip.
    """
    if isinstance(name, Hardware):
        return name
    path = find_file("hwmodels", "chip", str(name)).absolute()
    if path in _known:
        texts, hardware = _known[path]
        if all(_text_or_none(file) == text for file, text in texts.items()):
            return hardware
    read: dict[Path, str] = {}
    hardware = _load(path, (), read)
    _known[path] = read, hardware
    return hardware


#: Chips by file, with the texts that they were read from: parsing takes a hundred times as long as reading.
_known: dict[Path, tuple[dict[Path, str], Hardware]] = {}


def _text_or_none(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _load(path: Path, seen: tuple[Path, ...], read: dict[Path, str]) -> Hardware:
    """The chip in a file; ``read`` takes the texts of the files it comes from."""
    where = f"chip file '{path.name}'"
    if path.resolve() in seen:
        raise ChipError(f"{where} extends itself; remove an 'extends' line")
    try:
        read[path] = path.read_text(encoding="utf-8")
    except OSError as err:
        raise ChipError(f"{where} cannot be read: {err.strerror}") from None
    except UnicodeDecodeError as err:
        raise ChipError(f"{where} is not valid TOML: {err}") from None
    raw = toml_table(read[path], where, ChipError)
    base = raw.pop("extends", None)
    sources = raw.pop("sources", {})
    if not isinstance(sources, dict) or not all(isinstance(text, str) for text in sources.values()):
        raise ChipError(f"{where}: key 'sources' must be a table of texts")
    values: dict[str, Any] = {}
    provenance: dict[str, Provenance] = {}
    if base is not None:
        if not isinstance(base, str):
            raise ChipError(f"{where}: key 'extends' = {base!r} must be the name or the path of a chip file")
        parent = _load(_base_file(path, base), (*seen, path.resolve()), read)
        values = parent.chip.model_dump()
        provenance = dict(parent.provenance)
    parent_name = parent.name if base is not None else None
    raw.setdefault("name", path.stem)
    _merge(values, _split(raw, "", sources, provenance, path.name))
    return Hardware(checked_chip(values, where), provenance, parent_name)


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
        if isinstance(item, Mapping) and not _is_figure(item):
            plain[key] = _split(item, f"{dotted}.", sources, provenance, file)
            continue
        origin = Provenance(kind="unstated", source="")
        plain[key] = item
        if isinstance(item, Mapping):
            origin, plain[key] = _figure(item, sources, f"chip file '{file}', key '{dotted}'", _is_range(dotted))
        elif not isinstance(item, int | float) or isinstance(item, bool):
            continue
        if _is_range(dotted):
            if not isinstance(plain[key], dict):
                plain[key] = dict.fromkeys(CORNERS, plain[key])
            provenance |= {f"{dotted}.{corner}": origin for corner in CORNERS}
        else:
            provenance[dotted] = origin
    return plain


def _figure(item: Mapping[str, Any], sources: Mapping[str, str], where: str, ranges: bool) -> tuple[Provenance, Any]:
    """Provenance and value of a figure; the value of one with ``low`` and ``high`` is a range."""
    ends = {"low", "high"} & set(item) if ranges else set()
    extra = sorted(set(item) - _FIGURE_KEYS - ends)
    if extra:
        raise ChipError(f"{where}: unknown field '{extra[0]}' (a figure has value, kind and source"
                        f"{', and here low and high' if ranges else ''})")
    if "value" not in item:
        raise ChipError(f"{where}: a figure with a kind needs a value")
    if len(ends) == 1:
        raise ChipError(f"{where}: a range has both low and high beside its value")
    source = str(item.get("source", ""))
    try:
        origin = Provenance(kind=item.get("kind", "unstated"), source=sources.get(source, source))
    except ValidationError:
        raise ChipError(f"{where}: kind '{item.get('kind')}' is not one of "
                        f"measured, vendor, paper, simulator, inferred, assumed") from None
    return origin, {"low": item["low"], "middle": item["value"], "high": item["high"]} if ends else item["value"]


def _is_range(dotted: str) -> bool:
    """Whether a number may be one: those of energy are, but for the chip's limit."""
    return dotted.startswith("energy.") and dotted != "energy.limit_w"


def _is_figure(item: Mapping[str, Any]) -> bool:
    """Whether a table is one number with its provenance (a path has a ``source`` too, but never a kind)."""
    return "value" in item or "kind" in item


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, item in new.items():
        if isinstance(item, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], item)
        else:
            into[key] = item


__getattr__ = moved.old_names(__name__)
