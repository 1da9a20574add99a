"""Results as rows of plain values, and rows as pandas DataFrames.

One function says what the columns of a run are; sweeps, frames and CSV files are made of it, so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from msdsim.errors import InputError
from msdsim.report.lines import kernel_lines
from msdsim.report.waits import waits
from msdsim.timeline.record import CATEGORIES

if TYPE_CHECKING:
    import pandas as pd

    from msdsim.report.result import Comparison, Result, WorkloadComparison, WorkloadResult

#: Keys of a run's JSON that columns of their own stand for; whatever else it holds becomes ``key.inner`` columns.
_NAMED = frozenset((
    "schema", "problem", "hw", "dataflow", "engine", "memory", "tiling", "seed", "cycles", "clock_mhz", "time_us", "launch_us",
    "instructions", "traffic", "bandwidth", "pipes", "bottleneck", "wall_s", "skipped_iterations", "l2_start",
    "l2_read_hit_rate", "ub_conflict_cycles", "bound_by", "weights", "overrides", "skip_reason", "numerics", "chosen", "lines",
    "energy"))
_NUMBERS = ("bit_exact", "relative_l2", "max_abs_error", "bound_ratio", "overflowed")
#: What :meth:`Result.to_frame` can be asked for.
TABLES = ("run", "pipes", "waits", "lines", "timeline")


def inline_text(problem: Mapping[str, Any]) -> str:
    """A problem's JSON as its inline form; a hand-written kernel by its name."""
    if problem.get("kind") == "kernel":
        return str(problem["name"])
    from msdsim.problems import problem_from_json

    return str(problem_from_json(dict(problem)))


def run_row(run: Result) -> dict[str, Any]:
    """A run as one flat row: what was asked for, then what came of it (:func:`measures`)."""
    return {"problem": inline_text(run.problem), "hw": run.hardware.name, "dataflow": run.dataflow, "engine": run.engine,
            "memory": run.memory, "l2_start": run.l2_start, "seed": run.seed, **run.overrides, **measures(run)}


def measures(run: Result) -> dict[str, Any]:
    """What came of a run: times (us), bytes, errors where numbers were checked, the tiling, the share of every category of
    every kind of pipe (0 to 1; those of a pipe add up to 1), and what else the JSON of the run holds."""
    document = run.to_json()
    found: dict[str, Any] = {
        "time_us": run.time_us, "cycles": run.cycles, "launch_us": document["launch_us"], "bottleneck": run.bottleneck.name,
        "hbm_gbps": run.hbm_gbps, "hbm_utilization": run.hbm_utilization, **run.traffic,
        "l2_read_hit_rate": run.l2_read_hit_rate, "instructions": document["instructions"],
    }
    if run.causes is not None:
        found["bound_by"] = run.causes[0].resource if run.causes else "no single thing"
    if run.numerics is not None:
        found |= {name: getattr(run.numerics, name) for name in _NUMBERS}
    if run.energy is not None:
        total = run.energy.total
        found |= {"energy_uj": total.middle, "energy_uj.low": total.low, "energy_uj.high": total.high,
                  "power_w": run.energy.power_w.middle,
                  **{f"energy_uj.{unit}": value.middle for unit, value in run.energy.by_unit.items()}}
    found |= {f"tiling.{name}": value for name, value in run.tiling.items()}
    for pipe, row in run.stalls.items():
        cycles = row["instances"] * max(1, run.cycles)
        found |= {f"{cause}.{pipe}": row[cause] / cycles for cause in CATEGORIES}
    for key, value in document.items():
        if key not in _NAMED:
            found |= _flat(key, value)
    return found


def workload_measures(found: WorkloadResult) -> dict[str, Any]:
    """What came of a whole workload: the totals over its entries and their counts."""
    measured: dict[str, Any] = {"time_us": found.time_us, "cycles": found.cycles,
                                "bottleneck": max(found.runs, key=lambda run: run.count * run.result.cycles).name,
                                "hbm_gbps": found.hbm_bytes / found.time_us / 1000 if found.time_us else 0.0, **found.traffic}
    if found.energy is not None:
        total = found.energy.total
        measured |= {"energy_uj": total.middle, "energy_uj.low": total.low, "energy_uj.high": total.high}
    return measured


def _flat(key: str, value: Any) -> dict[str, Any]:
    """A nested value as columns; lists stay out."""
    if isinstance(value, Mapping):
        return {name: item for inner, deep in value.items() for name, item in _flat(f"{key}.{inner}", deep).items()}
    return {} if isinstance(value, list | tuple) else {key: value}


def run_rows(run: Result, what: str = "run") -> list[dict[str, Any]]:
    """Rows of one of :data:`TABLES`."""
    if what == "run":
        return [run_row(run)]
    if what == "pipes":
        return [{"pipe": pipe, **row} for pipe, row in run.stalls.items()]
    if what == "waits":
        return [asdict(wait) for found in waits(run.record).values() for wait in found]
    if what == "lines":
        return [{name: value for name, value in line.to_json().items() if not isinstance(value, list | dict)}
                | {category: line.profile.cycles.get(category, 0) for category in CATEGORIES if category != "drained"}
                for line in kernel_lines(run.record)]
    raise InputError(f"there is no table '{what}' of a run (tables: {', '.join(TABLES)})")


def comparison_rows(found: Comparison) -> list[dict[str, Any]]:
    """One row a dataflow; ``speedup`` is against the first."""
    first = found.runs[0] if found.runs else None
    return [run_row(run) | {"speedup": first.cycles / max(1, run.cycles) if first else 1.0, "winner": run is found.winner}
            for run in found.runs]


def workload_rows(found: WorkloadResult) -> list[dict[str, Any]]:
    """One row an entry: its name, how often it runs, the time of all of that, and the row of one run."""
    return [{"workload": found.name, "asked": found.dataflow, "name": run.name, "count": run.count,
             "total_us": run.count * run.result.time_us,
             "share": run.count * run.result.time_us / found.time_us if found.time_us else 0.0, **run_row(run.result)}
            for run in found.runs]


def workload_comparison_rows(found: WorkloadComparison) -> list[dict[str, Any]]:
    """The rows of every dataflow one after the other; ``asked`` tells them apart."""
    return [row for run in found.runs for row in workload_rows(run)]


def run_frame(run: Result, what: str = "run") -> pd.DataFrame:
    """One of :data:`TABLES` as a DataFrame."""
    return frame(run.timeline if what == "timeline" else run_rows(run, what))


def frame(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any], what: str = "to_frame") -> pd.DataFrame:
    """Rows, or columns by name, as a DataFrame; InputError where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        raise InputError(f"{what} needs pandas; install it with: pip install 'msdsim[frames]'") from None
    return pd.DataFrame(rows)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under the columns of all of them; what a row lacks is empty."""
    import csv
    import io

    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
