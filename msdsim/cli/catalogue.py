"""What ``msdsim list`` lists: entries as plain data, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.registry import unknown_name

if TYPE_CHECKING:
    from rich.console import Console

Entry = dict[str, Any]


def _selected(kind: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, list(known))
    return list(names) or list(known)


def chips(names: Sequence[str], verbose: bool) -> list[Entry]:
    """Shipped chips (or chip files named by path); verbose: every number with its unit and provenance."""
    from msdsim.hardware import load_hw
    from msdsim.hardware.describe import rows
    from msdsim.resources import shipped_names

    found = []
    for name in names or shipped_names("hwmodels"):
        hardware = load_hw(name)
        chip = hardware.chip
        entry: Entry = {"name": chip.name, "description": chip.description, "aic": chip.cores.aic, "aiv": chip.aiv,
                        "clock_mhz": chip.clock_mhz, "hbm_gbps": chip.hbm.bandwidth_gbps,
                        "cube": [f"{rate.a} x {rate.b}" for rate in chip.cube.rates.values()]}
        if verbose:
            entry["parameters"] = [row._asdict() for row in rows(hardware)]
        found.append(entry)
    return found


def workloads(names: Sequence[str], verbose: bool) -> list[Entry]:
    """Shipped workloads (or workload files named by path); verbose: their problems."""
    from msdsim.cli.arguments import read_problem
    from msdsim.problems import Workload
    from msdsim.resources import shipped_names

    found = []
    for name in names or shipped_names("workloads"):
        workload = read_problem(name)
        if not isinstance(workload, Workload):
            raise unknown_name("workload", name, shipped_names("workloads"))
        entry: Entry = {"name": workload.name, "description": workload.description, "source": workload.source,
                        "batch": workload.batch, "operators": len(workload.entries)}
        if verbose:
            entry["problems"] = [{"name": item.name, "count": item.count, "problem": str(item.problem)}
                                 for item in workload.entries]
        found.append(entry)
    return found


def dataflows(names: Sequence[str], verbose: bool) -> list[Entry]:
    """Registered dataflows; verbose: their tiling keys, with the default where a key has one."""
    from dataclasses import MISSING

    from msdsim.dataflows import DATAFLOWS
    from msdsim.dataflows.own import load_installed

    load_installed()
    known = list(dict.fromkeys(item.name for item in DATAFLOWS.values()))
    chosen = _selected("dataflow", names, known)
    found = []
    for item in DATAFLOWS.values():
        if item.name in chosen:
            entry: Entry = {"name": item.name, "kind": item.kind, "description": item.description}
            if verbose:
                entry["tiling"] = {key.name: None if key.default is MISSING else key.default for key in fields(item.tiling)}
            found.append(entry)
    return found


def formats(names: Sequence[str], verbose: bool) -> list[Entry]:
    """Number formats; verbose: their layout and limits."""
    from msdsim.formats.number import FORMATS

    found = []
    for name in _selected("format", names, list(FORMATS)):
        item = FORMATS[name]
        entry: Entry = {"name": name, "bits": item.bits, "kind": item.kind, "description": item.description}
        if verbose:
            entry |= {"exponent_bits": item.exponent_bits, "mantissa_bits": item.mantissa_bits, "bias": item.bias,
                      "max": item.max_value, "smallest_normal": item.smallest_normal,
                      "smallest_subnormal": item.smallest_subnormal, "dtype": item.dtype_name}
        found.append(entry)
    return found


def families(names: Sequence[str], verbose: bool) -> list[Entry]:
    """Families of models whose config.json is understood, by model_type, and what their class takes by default."""
    from msdsim.models.families import FAMILIES
    from msdsim.models.family import defaults

    found = []
    for name in _selected("family", names, sorted(FAMILIES, key=str.lower)):
        numbers = {key: value for key, value in defaults(name).items() if type(value) is int}
        text = ", ".join(f"{key} {value}" for key, value in list(numbers.items())[:None if verbose else 4])
        found.append({"name": name, "description": text or "no class defaults are known; the config must have all sizes"})
    return found


CATALOGUES: dict[str, Callable[[Sequence[str], bool], list[Entry]]] = {
    "hw": chips, "workloads": workloads, "dataflows": dataflows, "formats": formats,
    "families": families,
}


def show(console: Console, what: str, entries: list[Entry], verbose: bool) -> None:
    """The entries as tables."""
    from msdsim.report.console import emit

    lines: list[Text] = []
    if verbose and what in _SHOW_ONE:
        for index, entry in enumerate(entries):
            lines += [*([Text()] if index else []), *_SHOW_ONE[what](console, entry)]
    else:
        hidden = {"hw": ("cube",), "workloads": ("source",)}.get(what, ())
        lines = _table(console, [{key: value for key, value in entry.items() if key not in hidden} for entry in entries])
    emit(console, lines)


def _show_chip(console: Console, entry: Entry) -> list[Text]:
    rows = [{"parameter": row["key"], "value": f"{row['value']} {row['unit']}".rstrip(), "kind": row["kind"],
             "source": row["source"]} for row in entry["parameters"]]
    return [Text.assemble((entry["name"], "bold"), f"  {entry['description']}"), *_table(console, rows)]


def _show_workload(console: Console, entry: Entry) -> list[Text]:
    return [Text.assemble((entry["name"], "bold"), f"  {entry['description']}"), Text(f"  from {entry['source']}"),
            *_table(console, entry["problems"])]


def _show_dataflow(console: Console, entry: Entry) -> list[Text]:
    keys = " ".join(key if default is None else f"{key}={default}" for key, default in entry["tiling"].items())
    return [Text.assemble((entry["name"], "bold"), f"  {entry['kind']}: {entry['description']}"), Text(f"  tiling: {keys}")]


_SHOW_ONE: dict[str, Callable[[Console, Entry], list[Text]]] = {
    "hw": _show_chip, "workloads": _show_workload, "dataflows": _show_dataflow,
}


def _table(console: Console, entries: list[Entry]) -> list[Text]:
    """Columns by key, a description last, where it may wrap on a terminal (in a pipe a line stays a line)."""
    from msdsim.report.table import TextTable

    keys = sorted(entries[0] if entries else (), key=lambda key: key in ("description", "source"))
    right = frozenset(index for index, key in enumerate(keys)
                      if all(isinstance(entry[key], int | float) or entry[key] is None for entry in entries))
    table = TextTable([key.replace("_", " ") for key in keys], right=right)
    for entry in entries:
        table.add(*(_shown(entry[key]) for key in keys))
    return table.lines(indent=0, width=console.width if console.is_terminal else None)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
