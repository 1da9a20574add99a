"""Workloads: named lists of problems with counts, such as the linear layers of one decode step, in TOML files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdsim.errors import ProblemError
from msdsim.problems.model import Problem, closest, problem_from_json
from msdsim.resources import find_file, read_toml, toml_text

_KEYS = {"name": str, "description": str, "source": str, "batch": int, "dataflow": str, "op": list}
_ENTRY_KEYS = {"name": str, "count": int, "problem": str | dict, "weights": str, "experts": int, "dataflow": str}
_ENTRY_NEEDS = ("name", "count", "problem")
#: Formats in which a model's weights are published.
WEIGHT_FORMATS = ("bf16", "int8", "int4", "mxfp4", "fp8_e4m3", "mxfp8_e4m3", "nvfp4", "nf4", "fp4", "int2", "int3",
                  "int5", "int6")


@dataclass(frozen=True)
class Entry:
    """One kind of operator in a workload: it runs ``count`` times.

    ``weights`` is the format in which the model's weights are published (None: not stated), ``experts`` how many experts a
    layer holds where fewer get rows, and ``dataflow`` how the entry is run whatever the workload is run with.
    """

    name: str
    count: int
    problem: Problem
    weights: str | None = None
    experts: int | None = None
    dataflow: str | None = None


@dataclass(frozen=True)
class Workload:
    """Operators of a model's step; ``batch`` is the number of sequences it was written for (None: not stated)."""

    name: str
    description: str
    source: str
    batch: int | None
    entries: tuple[Entry, ...]
    #: How it is run where nobody says otherwise: a dataflow, or one for each kind of operator.
    dataflow: str | None = None


def load_workload(name: str, parse: Callable[[str], Problem]) -> Workload:
    """The workload called ``name`` (shipped) or in the file ``name``; ``parse`` reads an inline problem."""
    path = find_file("workloads", "workload", name)
    where = f"workload file '{path.name}'"
    return workload_of(read_toml(path, where, ProblemError), Path(path).stem, where, parse)


def workload_of(raw: dict[str, Any], name: str, where: str, parse: Callable[[str], Problem]) -> Workload:
    """The workload of a parsed file; ``name`` is its name where it gives none, ``where`` how errors call it."""
    _check_keys(raw, _KEYS, ("description", "source", "op"), where)
    batch = raw.get("batch")
    if batch is not None and batch < 1:
        raise ProblemError(f"{where}: key 'batch' = {batch} must be at least 1")
    if not raw["op"]:
        raise ProblemError(f"{where} has no operators; add an [[op]] with name, count and problem")
    entries = tuple(_entry(item, index, where, parse) for index, item in enumerate(raw["op"], start=1))
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise ProblemError(f"{where} has two operators called '{entry.name}'; rename one")
        seen.add(entry.name)
    return Workload(raw.get("name", name), raw["description"], raw["source"], batch, entries, raw.get("dataflow"))


def definition(workload: Workload) -> dict[str, Any]:
    """What a file says that gives this workload, as :func:`workload_of` reads it; what is not stated is not there."""
    def said(item: Workload | Entry, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(item, name) for name in names if getattr(item, name) is not None}

    entries = [said(entry, ("name", "count")) | {"problem": str(entry.problem)}
               | said(entry, ("weights", "experts", "dataflow")) for entry in workload.entries]
    return said(workload, ("name", "description", "source", "batch", "dataflow")) | {"op": entries}


def workload_toml(workload: Workload) -> str:
    """The text of a file that gives this workload."""
    def lines(table: Mapping[str, Any]) -> list[str]:
        return [f"{name} = {toml_text(value) if isinstance(value, str) else value}" for name, value in table.items()]

    table = definition(workload)
    operators = table.pop("op")
    return "\n".join([*lines(table), *(line for item in operators for line in ("", "[[op]]", *lines(item)))]) + "\n"


def _entry(item: object, index: int, where: str, parse: Callable[[str], Problem]) -> Entry:
    if not isinstance(item, dict):
        raise ProblemError(f"{where}, operator {index} must be a table [[op]] with name, count and problem")
    where = f"{where}, operator {index}" + (f" '{item['name']}'" if isinstance(item.get("name"), str) else "")
    _check_keys(item, _ENTRY_KEYS, _ENTRY_NEEDS, where)
    if item.get("weights", "bf16") not in WEIGHT_FORMATS:
        close = closest(item["weights"], list(WEIGHT_FORMATS))
        raise ProblemError(f"{where}: key 'weights' = {item['weights']!r} is no format{close} (formats: "
                           f"{', '.join(WEIGHT_FORMATS)})")
    if item["count"] < 1:
        raise ProblemError(f"{where}: key 'count' = {item['count']} must be at least 1")
    try:
        given = item["problem"]
        problem = parse(given) if isinstance(given, str) else problem_from_json(given)
    except ProblemError as err:
        raise ProblemError(f"{where}: {err}") from None
    experts = item.get("experts")
    if experts is not None and experts < getattr(problem, "groups", 1):
        raise ProblemError(f"{where}: key 'experts' = {experts} is below the {getattr(problem, 'groups', 1)} that get rows")
    return Entry(item["name"], item["count"], problem, item.get("weights"), experts, item.get("dataflow"))


def _check_keys(table: dict[str, Any], known: Mapping[str, Any], needed: tuple[str, ...], where: str) -> None:
    words = {str: "text", int: "a whole number", list: "a list of [[op]] tables", str | dict: "an inline form or a table"}
    for key, value in table.items():
        if key not in known:
            raise ProblemError(f"{where}: unknown key {key!r}{closest(key, list(known))} (keys: {', '.join(known)})")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise ProblemError(f"{where}: key '{key}' = {value!r} must be {words[known[key]]}")
    for key in needed:
        if key not in table:
            raise ProblemError(f"{where}: key '{key}' is missing (keys: {', '.join(known)})")
