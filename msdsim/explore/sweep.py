"""Sweeps: many simulations over problem, chip, dataflow and tiling parameters; parallel, resumable, one row a run.

A spec is a TOML file::

    problem = "gemm:m={m},k=8192,n=12288"      # {name} takes the parameter of that name
    hw = "ascend910b1"                         # one or a list
    dataflow = ["dequant-int8", "msd-int8"]    # one or a list

    [parameters]
    m = [1, 4, 16, 64]                         # a list: every value
    "hbm.bandwidth_gbps" = { low = 800, high = 3200, log = true }   # a range: drawn at random

    [random]                                   # needed with ranges: how many draws, from which seed
    samples = 50
    seed = 0

Parameters with a dot in their name are chip parameters, those that start with ``tiling.`` belong to the tiling, the others
fill in the problem.  Lists are crossed with each other; with ranges, every combination of the lists gets ``samples`` draws.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msdsim.dataflows.lookup import find_dataflow
from msdsim.errors import InputError, MsdsimError
from msdsim.hardware import load_hw
from msdsim.jobs import Progress, run_all
from msdsim.problems import parse_inline
from msdsim.runs import RunOptions, run

if TYPE_CHECKING:
    import pandas as pd

Parameter = "int | float | str"
_KEYS = ("problem", "hw", "dataflow", "parameters", "random")
_RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Range:
    """Values drawn between ``low`` and ``high``; ``log`` draws evenly over the logarithm, ``whole`` gives whole numbers."""

    low: float
    high: float
    log: bool
    whole: bool


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    problem: str
    hw: str
    dataflow: str
    parameters: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> str:
        """Identity of the point in a store: the same point is never simulated twice."""
        return hashlib.sha256(json.dumps([self.problem, self.hw, self.dataflow, self.parameters]).encode()).hexdigest()[:16]


def read_spec(path: str | Path) -> dict[str, Any]:
    """The parsed spec; InputError for what is no spec."""
    try:
        spec = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"sweep spec '{path}' cannot be read ({err.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise InputError(f"sweep spec '{path}' is not valid TOML: {err}") from None
    return spec


def points(spec: Mapping[str, Any]) -> list[Point]:
    """Every point of a spec, in a fixed order; InputError names the key that is wrong."""
    for key in spec:
        if key not in _KEYS:
            raise InputError(f"sweep spec: unknown key '{key}' (keys: {', '.join(_KEYS)})")
    if not isinstance(spec.get("problem"), str):
        raise InputError("sweep spec: 'problem' must be an inline form such as \"gemm:m={m},k=4096,n=4096\"")
    parameters = spec.get("parameters", {})
    lists = {name: values for name, values in parameters.items() if isinstance(values, list)}
    ranges = {name: _range(name, values) for name, values in parameters.items() if not isinstance(values, list)}
    if any(not values for values in lists.values()):
        raise InputError("sweep spec: a parameter has an empty list; give at least one value")
    draws = _draws(ranges, spec.get("random"))
    found = []
    for hw, dataflow in itertools.product(_list(spec, "hw", "ascend910b1"), _list(spec, "dataflow", "bf16")):
        for values in itertools.product(*lists.values()):
            for drawn in draws:
                chosen = dict(zip(lists, values, strict=True)) | drawn
                found.append(Point(_fill(spec["problem"], chosen), hw, dataflow, tuple(chosen.items())))
    return found


def _list(spec: Mapping[str, Any], key: str, default: str) -> list[str]:
    value = spec.get(key, default)
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) for item in values):
        raise InputError(f"sweep spec: '{key}' must be a name or a list of names")
    return values


def _range(name: str, given: object) -> Range:
    if not isinstance(given, dict) or not {"low", "high"} <= set(given) <= {"low", "high", "log", "whole"}:
        raise InputError(f"sweep spec: parameter '{name}' must be a list of values or a range {{ low = .., high = .. }} "
                         f"with optional log and whole")
    low, high, log = given["low"], given["high"], bool(given.get("log", False))
    if not low <= high or (log and low <= 0):
        raise InputError(f"sweep spec: the range of '{name}' runs from {low} to {high}; give low <= high"
                         + (", above 0 for a logarithmic one" if log else ""))
    whole = bool(given.get("whole", isinstance(low, int) and isinstance(high, int)))
    return Range(float(low), float(high), log, whole)


def _draws(ranges: Mapping[str, Range], given: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if not ranges:
        return [{}]
    samples, seed = (given or {}).get("samples"), (given or {}).get("seed", 0)
    if not isinstance(samples, int) or samples < 1:
        raise InputError("sweep spec: ranges need [random] with samples of at least 1")
    import numpy as np

    rng = np.random.default_rng(seed)
    return [{name: _draw(rng.random(), item) for name, item in ranges.items()} for _ in range(samples)]


def _draw(share: float, item: Range) -> int | float:
    if item.log:
        value = item.low * (item.high / item.low) ** share
    else:
        value = item.low + (item.high - item.low) * share
    # Four significant digits: a rate with many decimals would make the engines' exact rationals needlessly large.
    return round(value) if item.whole else float(f"{value:.4g}")


def _fill(problem: str, values: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InputError(f"sweep spec: the problem asks for {{{match[1]}}}, which is no parameter "
                             f"(parameters: {', '.join(values) or 'none'})")
        return str(values[match[1]])

    return re.sub(r"\{([^{}]*)\}", value, problem)


def run_point(point: Point) -> dict[str, Any]:
    """Simulate a point: a flat row.  What a dataflow or chip refuses becomes a row with ``error``, not an exception."""
    row: dict[str, Any] = {"key": point.key, "problem": point.problem, "hw": point.hw, "dataflow": point.dataflow,
                           **dict(point.parameters)}
    try:
        hardware = load_hw(point.hw)
        changes = {name: value for name, value in point.parameters if "." in name and not name.startswith("tiling.")}
        tiling = {name.removeprefix("tiling."): value for name, value in point.parameters if name.startswith("tiling.")}
        result = run(parse_inline(point.problem), hardware.replace(**changes) if changes else hardware, point.dataflow,
                     RunOptions(tiling=tiling or None))
    except MsdsimError as err:
        return row | {"error": str(err)}
    return row | {
        "time_us": result.time_us, "cycles": result.cycles, "bottleneck": result.bottleneck.name,
        "hbm_gbps": result.hbm_gbps, **result.traffic,
        **{f"busy.{pipe}": counts["busy"] / (counts["instances"] * max(1, result.cycles))
           for pipe, counts in result.stalls.items()},
        "error": None,
    }


def run_sweep(spec: Mapping[str, Any], out: str | Path | None = None, *, jobs: int = 1, scheduler: str | None = None,
              progress: Progress | None = None) -> list[dict[str, Any]]:
    """Rows of all points, in the order of :func:`points`.

    With ``out``, a folder, every row is appended to ``results.jsonl`` as soon as it is there, and a sweep that was
    interrupted goes on where it stopped.  ``jobs`` processes work at the same time (0: one for each core); ``scheduler`` is
    the address of a Dask cluster to work on instead.
    """
    todo = points(spec)
    for name in dict.fromkeys(point.dataflow for point in todo):
        find_dataflow(parse_inline(todo[0].problem), name)
    for hw in dict.fromkeys(point.hw for point in todo):
        load_hw(hw)
    store = _Store(Path(out)) if out is not None else None
    done = store.rows if store is not None else {}
    fresh = [point for point in {point.key: point for point in todo}.values() if point.key not in done]
    for batch in _batches(fresh, 64 if jobs == 1 else 512):
        finished = len(todo) - len(fresh) + len(done) - (len(store.rows) if store is not None else 0)
        tell = _shifted(progress, finished, len(todo))
        rows = _dask(batch, scheduler) if scheduler else run_all(run_point, batch, jobs, tell)
        for row in rows:
            done[row["key"]] = row
            if store is not None:
                store.append(row)
    return [done[point.key] for point in todo]


def _batches(items: Sequence[Point], size: int) -> Iterator[Sequence[Point]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda finished, _: progress(min(total, before + finished), total)


def _dask(batch: Sequence[Point], scheduler: str) -> list[dict[str, Any]]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--scheduler needs Dask; install it with: pip install 'msdsim[sweep]'") from None
    try:
        with Client(scheduler, timeout=10) as client:
            return list(client.gather(client.map(run_point, batch)))
    except OSError as err:
        raise InputError(f"no Dask scheduler answers at '{scheduler}' ({err}); start one or leave out --scheduler") from None


class _Store:
    """Rows on disk, one JSON object a line; a line that an interruption cut short is dropped."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(f"--out '{folder}' cannot be a folder ({err.strerror}); give another") from None
        self.path = folder / _RESULTS
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            whole = []
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self.rows[row["key"]] = row
                    whole.append(line)
                except (ValueError, KeyError, TypeError):
                    continue
            self.path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


def sweep(problem: str, hw: str | Sequence[str] = "ascend910b1", dataflow: str | Sequence[str] = "bf16", *,
          parameters: Mapping[str, Any] | None = None, samples: int | None = None, seed: int = 0,
          out: str | Path | None = None, jobs: int = 1, progress: Progress | None = None) -> pd.DataFrame:
    """A sweep as a pandas DataFrame (install ``msdsim[sweep]``); arguments are the keys of a spec.

    >>> import msdsim
    >>> table = msdsim.sweep("gemm:m={m},k=256,n=256", "toy", ["bf16", "msd-int8"], parameters={"m": [1, 16]})
    >>> len(table)
    4
    """
    try:
        import pandas as pd
    except ImportError:
        raise InputError("msdsim.sweep needs pandas; install it with: pip install 'msdsim[sweep]'") from None
    spec: dict[str, Any] = {"problem": problem, "hw": hw if isinstance(hw, str) else list(hw),
                            "dataflow": dataflow if isinstance(dataflow, str) else list(dataflow),
                            "parameters": {name: _as_list(values) for name, values in (parameters or {}).items()}}
    if samples is not None:
        spec["random"] = {"samples": samples, "seed": seed}
    return pd.DataFrame(run_sweep(spec, out, jobs=jobs, progress=progress))


def _as_list(values: Any) -> Any:
    return values if isinstance(values, dict | list) else list(values)


def best_by(rows: Sequence[Mapping[str, Any]], keep: Callable[[Mapping[str, Any]], Any]) -> dict[Any, Mapping[str, Any]]:
    """The fastest row of each group of rows; rows with errors do not count."""
    found: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        group = keep(row)
        if row.get("error") is None and row["time_us"] < found.get(group, {"time_us": math.inf})["time_us"]:
            found[group] = row
    return found
