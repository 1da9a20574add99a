"""Tables of single transfers and instructions, measured in the simulator beside the published ones.

The published tables are data (``validation/micro.toml``); a table is a microbenchmark with one size varied, and what
is read off is what the source measured: the time of one operation alone, or from one start to the next back to back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from msdsim.errors import InputError
from msdsim.hardware import Hardware, load_hw
from msdsim.problems import parse_inline
from msdsim.report.result import Result
from msdsim.resources import find_file, read_toml
from msdsim.runs import RunOptions, run

_KEYS = {"id", "title", "chips", "problem", "vary", "scale", "measure", "points", "source", "note", "target"}


@dataclass(frozen=True)
class MicroRow:
    """One size: cycles as published and as simulated."""

    size: int
    published: float
    simulated: float

    @property
    def error(self) -> float:
        """Relative error of the simulated cycles."""
        return self.simulated / self.published - 1


@dataclass(frozen=True)
class MicroTable:
    """One published table and what the simulator makes of it; ``target`` marks measurements of silicon."""

    id: str
    title: str
    chip: str
    size: str
    measure: str
    source: str
    note: str
    target: bool
    rows: tuple[MicroRow, ...]

    @property
    def median_error(self) -> float:
        return median(abs(row.error) for row in self.rows)

    @property
    def worst(self) -> MicroRow:
        return max(self.rows, key=lambda row: abs(row.error))

    def to_json(self) -> dict[str, Any]:
        rows = [asdict(row) | {"error": row.error} for row in self.rows]
        return asdict(self) | {"median_error": self.median_error, "rows": rows}


def load_micro(file: str | Path = "micro") -> list[dict[str, Any]]:
    """The published tables of a file, its sources put in."""
    path = find_file("validation", "validation", str(file))
    raw = read_toml(path, f"validation file '{path.name}'")
    sources = raw.get("sources", {})
    for table in raw.get("table", []):
        unknown = sorted(set(table) - _KEYS)
        if unknown:
            raise InputError(f"validation file '{path.name}', table '{table.get('id')}': unknown key '{unknown[0]}' "
                             f"(keys: {', '.join(sorted(_KEYS))})")
        table["source"] = sources.get(table["source"], table["source"])
    return list(raw.get("table", []))


def micro_tables(hardware: str | Hardware, engine: str = "fast", file: str | Path = "micro") -> list[MicroTable]:
    """Every published table of this chip, measured in the simulator."""
    chip = load_hw(hardware) if isinstance(hardware, str) else hardware
    return [_measure(table, chip, engine) for table in load_micro(file) if chip.name in table["chips"]]


def all_micro_tables(engine: str = "fast", file: str | Path = "micro") -> list[MicroTable]:
    """Every published table on the first chip it is about."""
    return [_measure(table, load_hw(table["chips"][0]), engine) for table in load_micro(file)]


def _measure(table: Mapping[str, Any], hardware: Hardware, engine: str) -> MicroTable:
    rows = []
    for size, cycles in table["points"].items():
        problem = parse_inline(f"{table['problem']},{table['vary']}={int(size) * table.get('scale', 1)}")
        result = run(problem, hardware, "micro", RunOptions(engine=engine, timeline=True))
        rows.append(MicroRow(int(size) * table.get("scale", 1), cycles, measured_cycles(result, table["measure"])))
    return MicroTable(table["id"], table["title"], hardware.name, table["vary"], table["measure"], table["source"],
                      table.get("note", ""), table["target"], tuple(rows))


def measured_cycles(result: Result, measure: str) -> float:
    """Cycles of the operation that a microbenchmark repeats: of its last execution ``alone``, or the mean ``interval``."""
    timeline = result.record.timeline
    assert timeline is not None
    start, end = _executions(result, timeline)
    if measure == "alone":
        return int(end[-1] - start[-1])
    if measure == "interval":
        # The first interval may still wait for the operands.
        return float(start[-1] - start[1]) / (len(start) - 2)
    raise InputError(f"unknown measure '{measure}'; give alone or interval")


def _executions(result: Result, timeline: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the operation under test: the kernel's innermost first one, on the unit that ran it."""
    op = result.problem["op"]
    wanted = {"mmad": "mmad", "vector": result.problem.get("instr", "add"), "copy_l0c_gm": "fixpipe", "copy_l0c_l1": "fixpipe"}
    kind = wanted.get(op, "copy")
    spaces = tuple(op.upper().split("_")[1:]) if op.startswith("copy_") else None
    for part in result.record.program.parts:
        for instr in part.instructions():
            done = instr.op
            if done is None or done.kind != kind or done.out is None:
                continue
            if spaces is not None and (done.ins[0].space, done.out.space) != spaces:
                continue
            if kind == "dup" and done.out.of.name != "out":
                continue
            here = _of(result, timeline, part.name, instr.index)
            if len(here[0]) > 1 or result.problem.get("isolated"):
                return here
    raise InputError(f"'{op}' is not a microbenchmark of one operation")


def _of(result: Result, timeline: Mapping[str, np.ndarray], part: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    units = result.record.units.of_part(part)
    mine = np.isin(timeline["unit"], units) & (timeline["instr"] == index)
    return timeline["start"][mine], timeline["end"][mine]


def median_error(tables: Iterable[MicroTable]) -> float | None:
    """Median of |error| over the rows of the target tables, None where there are none."""
    errors = [abs(row.error) for table in tables if table.target for row in table.rows]
    return median(errors) if errors else None
