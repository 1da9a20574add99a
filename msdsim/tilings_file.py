"""Files of tilings: what a search over a workload's operators has found, and what a run of the workload reads again.

```toml
schema = "msdsim.tilings/1"
workload = "qwen3-14b-decode"
hw = "ascend910b1"
dataflow = "gemm=msd-int8,attention=bf16"

[[op]]
name = "qkv_proj"
problem = "gemm:m=16,k=5120,n=7168"
dataflow = "msd-int8"
tiling = { base_m = 16, base_n = 256 }
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdsim.errors import TilingError
from msdsim.mixes import Chosen
from msdsim.problems.model import closest
from msdsim.resources import read_toml, shortened, toml_text

SCHEMA = "msdsim.tilings/1"
_KEYS = {"schema": str, "workload": str, "hw": str, "dataflow": str, "op": list}
_OP_KEYS = {"name": str, "problem": str, "dataflow": str, "tiling": dict}


@dataclass(frozen=True)
class OperatorTiling:
    """The tiling of one operator, and what it was found for: a problem as its dataflow takes it."""

    name: str
    problem: str
    dataflow: str
    tiling: Mapping[str, int]


@dataclass(frozen=True)
class Tilings:
    """Tilings of operators of a workload, with the chip and the dataflow (or mix) that they were found with."""

    workload: str
    hw: str
    dataflow: str
    ops: tuple[OperatorTiling, ...]
    where: str = "these tilings"

    def to_toml(self) -> str:
        """The file's text."""
        head = [f"# Tilings of {toml_text(self.workload)}; use them with: msdsim run WORKLOAD --tilings THIS-FILE",
                f"schema = {toml_text(SCHEMA)}", f"workload = {toml_text(self.workload)}", f"hw = {toml_text(self.hw)}",
                f"dataflow = {toml_text(self.dataflow)}"]
        for op in self.ops:
            values = ", ".join(f"{key} = {int(value)}" for key, value in op.tiling.items())
            head += ["", "[[op]]", f"name = {toml_text(op.name)}", f"problem = {toml_text(op.problem)}",
                     f"dataflow = {toml_text(op.dataflow)}", f"tiling = {{ {values} }}"]
        return "\n".join(head) + "\n"

    def by_entry(self, chosen: Sequence[Chosen]) -> dict[str, Mapping[str, int]]:
        """Tilings by the names of entries.  TilingError where one was found for another operator than runs now."""
        now = {choice.entry.name: choice for choice in chosen}
        found: dict[str, Mapping[str, int]] = {}
        for op in self.ops:
            if op.name not in now:
                raise TilingError(f"{self.where} has a tiling of '{shortened(op.name)}', which is no operator of the workload; "
                                  f"remove it there, or tune this workload{closest(op.name, list(now))}")
            problem, dataflow = str(now[op.name].problem), now[op.name].dataflow
            if (op.problem, op.dataflow) != (problem, dataflow):
                raise TilingError(f"{self.where} has a tiling of '{op.name}' for {shortened(op.problem)} with "
                                  f"{shortened(op.dataflow)}, and here it is {problem} with {dataflow}; tune this workload, or "
                                  f"remove it there")
            found[op.name] = op.tiling
        return found

    def notes(self, hw: str, names: Iterable[str]) -> tuple[str, ...]:
        """What a reader of a result must know: tilings of another chip, operators that have none here."""
        found = []
        if self.hw != hw:
            found.append(f"{self.where} was found for {self.hw}, not for {hw}")
        own = {op.name for op in self.ops}
        others = [name for name in names if name not in own]
        if others:
            found.append(f"{self.where} has no tiling of {', '.join(others)}: chosen as without it")
        return tuple(found)


def read_tilings_file(file: str | Path) -> Tilings:
    """The tilings of a file; TilingError for whatever is none."""
    path = Path(file)
    where = f"tilings file '{shortened(path.name)}'"
    raw = read_toml(path, where, TilingError)
    _check(raw, _KEYS, where)
    if raw["schema"] != SCHEMA:
        raise TilingError(f"{where}: schema = {shortened(raw['schema'])!r} is not {SCHEMA!r}; 'msdsim tune WORKLOAD "
                          f"--out FILE' writes one")
    ops = tuple(_operator(item, number, where) for number, item in enumerate(raw["op"], 1))
    names = [op.name for op in ops]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TilingError(f"{where} has two tilings of '{shortened(twice)}'; remove one")
    return Tilings(raw["workload"], raw["hw"], raw["dataflow"], ops, where)


def _operator(item: Any, number: int, where: str) -> OperatorTiling:
    where = f"{where}, op {number}"
    if not isinstance(item, dict):
        raise TilingError(f"{where} is not a table; write [[op]] before each")
    _check(item, _OP_KEYS, where)
    for key, value in item["tiling"].items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TilingError(f"{where}: tiling {shortened(key)} = {shortened(repr(value))} is not a whole number of at "
                              f"least 0")
    return OperatorTiling(item["name"], item["problem"], item["dataflow"], item["tiling"])


def _check(table: Mapping[str, Any], known: Mapping[str, type], where: str) -> None:
    words: dict[Any, str] = {str: "text", list: "a list of [[op]] tables", dict: "a table of whole numbers"}
    for key, value in table.items():
        if key not in known:
            raise TilingError(f"{where}: unknown key {shortened(key)!r}{closest(key, list(known))} (keys: {', '.join(known)})")
        if not isinstance(value, known[key]):
            raise TilingError(f"{where}: key '{key}' = {shortened(repr(value))} must be {words[known[key]]}")
    for key in known:
        if key not in table:
            raise TilingError(f"{where}: key '{key}' is missing (keys: {', '.join(known)})")
