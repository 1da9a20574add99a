"""A whole sweep: what is there already, what is still to run, and rows in the order of the points."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from msdsim.errors import InputError
from msdsim.explore.sweep.point import Point, Setting
from msdsim.explore.sweep.spec import Spec, parse_spec
from msdsim.explore.sweep.store import Store
from msdsim.explore.sweep.workers import rows_of
from msdsim.hardware import Hardware, load_hw
from msdsim.hardware.hardware import leaves
from msdsim.ir.kernel import Kernel
from msdsim.ir.printer import print_kernel
from msdsim.jobs import Progress
from msdsim.problems import Problem, Workload
from msdsim.problems.workload import workload_toml
from msdsim.report.frames import frame

if TYPE_CHECKING:
    import pandas as pd

#: How long a sweep works before it says how long it will, and the least worth saying.
_MEASURED_S, _WORTH_SAYING_S = 3.0, 30.0


def run_sweep(spec: Mapping[str, Any] | Spec, out: str | Path | None = None, *, jobs: int = 1, scheduler: str | None = None,
              progress: Progress | None = None, tell: Callable[[str], None] | None = None,
              chips: Mapping[str, Hardware] | None = None) -> list[dict[str, Any]]:
    """Rows of all points, in the order of :func:`~msdsim.explore.sweep.spec.points`.

    With ``out``, a folder, every row is on disk as soon as its point is done (``results.jsonl``), and a sweep that was
    interrupted goes on where it stopped; rows of another chip, problem or version of msdsim in that folder stay and are not
    used.  ``jobs`` processes work at the same time (0: one for each core); ``scheduler`` is the address of a Dask cluster to
    work on instead; ``chips`` are chips of the spec by name that are no files.  ``tell`` hears how many points there are and
    how long they will take.  InputError for a spec that is wrong (before anything runs), a folder in use or full, a cluster
    that is gone.
    """
    setting = Setting.of(spec if isinstance(spec, Spec) else parse_spec(spec), chips)
    total = len(setting.spec)
    with Store(Path(out)) if out is not None else nullcontext() as store:
        done = dict(store.rows) if store is not None else {}
        known = len(done)
        if known:
            done = _of_this_sweep(setting, done)
        clock = _Clock(total, len(done), jobs, tell)
        clock.begin(others=known - len(done))
        if progress is not None:
            progress(len(done), total)
        with closing(rows_of(setting, _fresh(setting, done), jobs, scheduler, total - len(done))) as rows:
            for row in rows:
                done[row["key"]] = row
                if store is not None:
                    store.append(row)
                clock.step(len(done))
                if progress is not None:
                    progress(min(total, len(done)), total)
    return [done[point.key] for point in setting.points()]


def _of_this_sweep(setting: Setting, rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows whose points belong to this sweep."""
    return {point.key: rows[point.key] for point in setting.points() if point.key in rows}


def _fresh(setting: Setting, done: Mapping[str, Any]) -> Iterator[Point]:
    """Points without a row, each once: draws may fall on the same values twice."""
    begun: set[str] = set(done)
    for point in setting.points():
        if point.key not in begun:
            begun.add(point.key)
            yield point


class _Clock:
    """Says how many points there are at once, and how long they will take once that is known."""

    def __init__(self, total: int, done: int, jobs: int, tell: Callable[[str], None] | None) -> None:
        self.total, self.before, self.jobs = total, done, jobs or os.cpu_count() or 1
        self.tell = tell
        self.said = tell is None
        self.started = time.monotonic()

    def begin(self, others: int) -> None:
        if self.tell is None:
            return
        there = f", {self.before:,} of them there already" if self.before else ""
        rest = f"; {others:,} rows of other points, chips or versions in the folder are left as they are" if others else ""
        if there or rest or self.total >= 1000:
            self.tell(f"{self.total:,} points{there}{rest}")

    def step(self, done: int) -> None:
        elapsed = time.monotonic() - self.started
        if self.said or elapsed < _MEASURED_S:
            return
        self.said = True
        left = (self.total - done) * elapsed / max(1, done - self.before)
        if left >= _WORTH_SAYING_S and self.tell is not None:
            self.tell(f"{self.total - done:,} points are left: about {_duration(left)} at the pace of the first "
                      f"{done - self.before:,}")


def _duration(seconds: float) -> str:
    for limit, unit, size in ((120.0, "s", 1), (7200.0, "min", 60), (172_800.0, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} days"


def sweep(problem: str | Path | Problem | Workload | Kernel,
          hw: str | Path | Hardware | Sequence[str | Path | Hardware] = "ascend910b1",
          dataflow: str | Sequence[str] = "bf16", *, parameters: Mapping[str, Any] | None = None,
          samples: int | None = None, seed: int = 0, memory: str = "bandwidth", check: bool = False,
          out: str | Path | None = None, jobs: int = 1, progress: Progress | None = None) -> pd.DataFrame:
    """A sweep as a pandas DataFrame (install ``msdsim[frames]``); arguments are the keys of a spec.

    ``problem`` is an inline form with ``{name}`` for parameters, or a problem, workload or kernel by name, path or as such;
    ``hw`` chips, one or several, by name, path or as such.  Columns are what was asked for and what came of it: times, bytes,
    the share of every category of every kind of pipe, the tiling, and where there are such, errors and energy (docs/sweeps.md).

    >>> import msdsim
    >>> table = msdsim.sweep("gemm:m={m},k=256,n=256", "toy", ["bf16", "msd-int8"], parameters={"m": [1, 16]})
    >>> len(table)
    4
    """
    frame([], "msdsim.sweep")  # refused before anything runs
    chips = _chips([hw] if isinstance(hw, str | Path | Hardware) else hw)
    with TemporaryDirectory(prefix="msdsim-") as temporary:
        folder = Path(temporary) if out is None else Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        spec = _spec(_text(problem, folder), list(chips), dataflow, parameters, memory, check, samples, seed)
        rows = run_sweep(spec, out, jobs=jobs, progress=progress, chips=chips)
    if isinstance(problem, Kernel | Workload):
        rows = [row | {"problem": problem.name} for row in rows]
    return frame(rows)


def _chips(given: Sequence[str | Path | Hardware]) -> dict[str, Hardware]:
    """Chips by what rows call them: names and paths as given, objects by their name and what was changed about them."""
    found: dict[str, Hardware] = {}
    for item in given:
        hardware, name = load_hw(item), str(item)
        if isinstance(item, Hardware):
            changed = [key for key, origin in item.provenance.items() if origin.kind == "override"]
            values = leaves(item.chip.model_dump()) if changed else {}
            name = ", ".join([item.name, *(f"{key}={values[key]}" for key in changed)])
        if name in found:
            raise InputError(f"hw has '{name}' twice; every point runs once")
        found[name] = hardware
    return found


def _text(problem: str | Path | Problem | Workload | Kernel, folder: Path) -> str:
    """A problem as a spec names it; a kernel or workload that is no file becomes one in ``folder``."""
    if isinstance(problem, str | Path):
        return str(problem)
    if isinstance(problem, Kernel):
        path = folder / f"{problem.name}.kir"
        path.write_text(print_kernel(problem), encoding="utf-8")
        return str(path)
    if isinstance(problem, Workload):
        path = folder / f"{problem.name.replace('/', '-').replace(' ', '-')}.toml"
        path.write_text(workload_toml(problem), encoding="utf-8")
        return str(path)
    return str(problem)


def _spec(problem: str, hw: list[str], dataflow: str | Sequence[str], parameters: Mapping[str, Any] | None, memory: str,
          check: bool, samples: int | None, seed: int) -> dict[str, Any]:
    spec: dict[str, Any] = {"problem": problem, "hw": hw,
                            "dataflow": dataflow if isinstance(dataflow, str) else list(dataflow),
                            "memory": memory, "check": check,
                            "parameters": {name: _plain(values) for name, values in (parameters or {}).items()}}
    if samples is not None:
        spec["random"] = {"samples": samples, "seed": seed}
    return spec


def _plain(values: Any) -> Any:
    """Ranges, arrays and tuples as the lists a spec has."""
    if isinstance(values, Mapping | str):
        return values
    try:
        found = values.tolist() if hasattr(values, "tolist") else list(values)
    except TypeError:
        return values
    return [list(item) if isinstance(item, tuple) else item for item in found] if isinstance(found, list) else found
