"""A chip as rows for people: every value with its unit and where it comes from."""

from __future__ import annotations

import re
from typing import NamedTuple

from msdsim.hardware.hardware import Hardware, leaves

#: Units by the ending of a key; the first match counts.
_UNITS = (
    ("_pj", "pJ"),
    ("_w", "W"),
    ("bytes_per_cycle", "B/cycle"),
    ("cycles_per_fractal", "cycles/fractal"),
    ("cycles_per_repeat", "cycles/repeat"),
    ("_bytes", "B"),
    ("_cycles", "cycles"),
    ("_gbps", "GB/s"),
    ("_mhz", "MHz"),
    ("_us", "us"),
)


class Row(NamedTuple):
    """One value of a chip; ``unit``, ``kind`` and ``source`` are empty where there is none (names, formats, pipes)."""

    key: str
    value: int | float | str
    unit: str
    kind: str
    source: str


def unit_of(key: str) -> str:
    """Unit of the value under a dotted key, told by the key's ending; empty for counts, shares and names."""
    key = re.sub(r"(_pj|_w)\..*", r"\1", key)  # in energy: what it is of, and the corner of the range, stand behind
    return next((unit for ending, unit in _UNITS if key.endswith(ending)), "")


def rows(hardware: Hardware) -> list[Row]:
    """Every value of the chip in the order of the chip model, without its name and description."""
    found = []
    for key, value in leaves(hardware.chip.model_dump(exclude={"name", "description"})).items():
        if value is None:
            continue
        origin = hardware.provenance.get(key)
        found.append(Row(key, value, unit_of(key), origin.kind if origin else "", origin.source if origin else ""))
    return found
