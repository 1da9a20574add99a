"""A chip with the provenance of its numbers, and copies of it with numbers changed."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from msdsim.errors import ChipError, UnknownNameError
from msdsim.hardware.checked import checked_chip
from msdsim.hardware.chip import Chip


class Provenance(BaseModel):
    """Where a number comes from: how sure one can be of it, and the published source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["measured", "vendor", "paper", "simulator", "inferred", "assumed", "unstated", "override"]
    source: str


@dataclass(frozen=True)
class Hardware:
    """A chip with the provenance of every number, by dotted path, and the name of the chip that its file extends."""

    chip: Chip
    provenance: Mapping[str, Provenance]
    extends: str | None = None

    @property
    def name(self) -> str:
        return self.chip.name

    def replace(self, **overrides: object) -> Hardware:
        """A copy with numbers changed; keys are dotted paths, with ``__`` for ``.`` where Python needs a name:
        ``replace(hbm__bandwidth_gbps=3200)`` or ``replace(**{"hbm.bandwidth_gbps": 3200})``."""
        return override(self, {key.replace("__", "."): value for key, value in overrides.items()})


def parse_value(text: str) -> object:
    """The value of a ``--set key=value`` argument, read as TOML (a bare word is a string)."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
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
    return replace(hardware, chip=checked_chip(values, f"chip '{hardware.name}' as set"), provenance=provenance)


def scaled(hardware: Hardware, factors: Mapping[str, float]) -> Hardware:
    """A copy with some numbers multiplied: whole numbers stay whole, shares stay at most 1, numbers a chip lacks stay away."""
    known = {key: value for key, value in leaves(hardware.chip.model_dump()).items() if key in factors and value is not None}
    changes: dict[str, object] = {}
    for key, value in known.items():
        new = value * factors[key]
        if key.endswith(("_share", "efficiency")):
            new = min(1.0, new)
        # Few digits: the engines count with exact fractions, an efficiency with that of the rate that it is of.
        digits = 3 if key.endswith("efficiency") else 4
        whole = isinstance(value, int) and not key.endswith(("_gbps", "_us"))
        changes[key] = round(new) if whole else float(f"{new:.{digits}g}")
    return override(hardware, changes) if changes else hardware


def leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of a tree of tables by its dotted key, in order."""
    found: dict[str, Any] = {}
    for key, item in node.items():
        found |= leaves(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return found
