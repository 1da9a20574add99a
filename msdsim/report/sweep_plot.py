"""Pictures of a sweep: lines over one parameter, heat maps over two, or the front of time against what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from msdsim.errors import InputError
from msdsim.report.plots import MARKERS, SERIES, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
KINDS = ("auto", "lines", "heat", "front")
#: Beyond so many values of a parameter, or cells, no figure stands in a cell.
_MOST_LABELLED = 80
#: What a front sets against time, the first of them that the rows have.
COSTS = (("energy_uj", "energy (uJ)"), ("relative_l2", "relative L2 error"), ("hbm_read_bytes", "bytes read from HBM"))


def finished(rows: Rows) -> list[Mapping[str, Any]]:
    """Rows of points that ran."""
    return [row for row in rows if row.get("status") == "done"]


def varied(rows: Rows) -> list[str]:
    """Parameters that take several values, most values first; the columns of a row up to its results are what was asked for."""
    if not rows:
        return []
    names = list(rows[0])
    asked = names[names.index("dataflow") + 1 : names.index("time_us") if "time_us" in names else len(names)]
    counts = {name: len({row.get(name) for row in rows}) for name in asked if name not in ("memory", "status", "error")}
    return sorted((name for name, count in counts.items() if count > 1), key=lambda name: -counts[name])


def plot_sweep(rows: Rows, kind: str = "auto", title: str = "") -> Figure:
    """A picture of the rows that ran; ``auto`` takes lines for one parameter, heat maps for two, the front for more and for
    texts.  InputError where there is nothing of the kind."""
    done = finished(rows)
    if not done:
        raise InputError("no point of the sweep ran, so that there is nothing to plot")
    names = [name for name in varied(done) if all(isinstance(row.get(name), int | float) for row in done)]
    chosen = kind if kind != "auto" else {0: "front", 1: "lines", 2: "heat"}.get(len(names), "front")
    if chosen == "heat" and kind == "auto" and not _gridded(done, names):
        chosen = "front"
    heading = title or _heading(done)
    if chosen == "lines":
        if not names:
            raise InputError("lines need a parameter with several numbers; take --kind front")
        return _lines(done, names, heading)
    if chosen == "heat":
        if len(names) < 2:
            raise InputError("a heat map needs two parameters with several numbers each; take --kind lines or front")
        return _heat(done, names, heading)
    return _front(done, names, heading)


def _heading(rows: Rows) -> str:
    problems = dict.fromkeys(str(row["problem"]) for row in rows)
    chips = dict.fromkeys(str(row["hw"]) for row in rows)
    what = next(iter(problems))
    if len(problems) > 1:
        what = f"{what.partition(':')[0]} over {', '.join(varied(rows))}"
    return f"{what} on {', '.join(chips)}: {len(rows)} points"


def _gridded(rows: Rows, names: Sequence[str]) -> bool:
    """Whether two parameters are crossed."""
    x, y = ({row[name] for row in rows} for name in names[:2])
    return len({(row[names[0]], row[names[1]]) for row in rows}) >= 0.6 * len(x) * len(y)


def series_of(rows: Rows, without: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by dataflow, chip and the parameters that are not on an axis."""
    several = len({row["hw"] for row in rows}) > 1
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts = [str(row["dataflow"]), *([str(row["hw"])] if several else []), *(f"{name}={row[name]}" for name in without)]
        found.setdefault(", ".join(parts), []).append(row)
    return found


def spread(values: Sequence[float]) -> bool:
    """Whether numbers are better shown over their logarithm."""
    low, high = min(values), max(values)
    return low > 0 and high / low > 12


def _lines(rows: Rows, names: Sequence[str], heading: str) -> Figure:
    name, others = names[0], names[1:]
    figure = new_figure(9, 5, heading)
    axes = figure.subplots()
    series = series_of(rows, others)
    # A dataflow has one colour, other parameters take turns in dashes and marks.
    flows = list(dict.fromkeys((row["dataflow"], row["hw"]) for row in rows))
    kinds = list(dict.fromkeys(tuple(row[other] for other in others) for row in rows))
    for label, own in series.items():
        points = sorted((row[name], row["time_us"]) for row in own)
        kind = kinds.index(tuple(own[0][other] for other in others))
        axes.plot(*zip(*points, strict=True), marker=MARKERS[kind % len(MARKERS)], markersize=4.5, label=label, linewidth=1.4,
                  color=SERIES[flows.index((own[0]["dataflow"], own[0]["hw"])) % len(SERIES)],
                  linestyle=("-", "--", ":", "-.")[kind % 4])
    axes.set_xlabel(name, fontsize=9)
    axes.set_ylabel("time (us)", fontsize=9)
    if spread([row[name] for row in rows]):
        axes.set_xscale("log")
        values = sorted({row[name] for row in rows})
        shown = values[:: math.ceil(len(values) / 10)]
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
        axes.minorticks_off()
    if spread([row["time_us"] for row in rows]):
        axes.set_yscale("log")
    _finish(axes, len(series))
    return figure


def _heat(rows: Rows, names: Sequence[str], heading: str) -> Figure:
    from matplotlib.colors import LogNorm, Normalize

    x_name, y_name = names[:2]
    series = series_of(rows, names[2:])
    if len(series) > 12:
        raise InputError(f"heat maps of {len(series)} dataflows, chips and other parameters are too many for one picture; take "
                         f"--kind lines or front")
    columns = min(3, len(series))
    lines = math.ceil(len(series) / columns)
    figure = new_figure(1.5 + 4.2 * columns, 1.2 + 3.3 * lines, heading)
    grid = figure.subplots(lines, columns, squeeze=False)
    times = [row["time_us"] for row in rows]
    norm = (LogNorm if spread(times) else Normalize)(min(times), max(times))
    xs, ys = (sorted({row[name] for row in rows}) for name in (x_name, y_name))
    image = None
    for axes, (label, own) in zip(grid.flat, series.items(), strict=False):
        cells = np.full((len(ys), len(xs)), np.nan)
        for row in own:
            cells[ys.index(row[y_name]), xs.index(row[x_name])] = row["time_us"]
        image = axes.imshow(cells, origin="lower", aspect="auto", cmap="viridis", norm=norm)
        if cells.size <= _MOST_LABELLED:
            for (line, column), value in np.ndenumerate(cells):
                if not np.isnan(value):
                    axes.text(column, line, f"{value:,.3g}", ha="center", va="center", fontsize=7.5,
                              color="black" if norm(value) > 0.55 else "white")
        step_x, step_y = math.ceil(len(xs) / 8), math.ceil(len(ys) / 12)
        axes.set_xticks(range(0, len(xs), step_x), [f"{value:g}" for value in xs[::step_x]], fontsize=8)
        axes.set_yticks(range(0, len(ys), step_y), [f"{value:g}" for value in ys[::step_y]], fontsize=8)
        axes.set_title(label, fontsize=9.5)
        axes.set_xlabel(x_name, fontsize=9)
        axes.set_ylabel(y_name, fontsize=9)
    for axes in list(grid.flat)[len(series):]:
        axes.set_visible(False)
    assert image is not None
    figure.colorbar(image, ax=grid, label="time (us)", shrink=0.8)
    return figure


def cost_of(rows: Rows) -> tuple[str, str]:
    """What the front sets against time: column and label."""
    return next(((key, label) for key, label in COSTS if any(row.get(key) for row in rows)), COSTS[-1])


def front(rows: Rows, cost: str) -> list[Mapping[str, Any]]:
    """Rows that no other row beats in both time and cost, fastest first."""
    found: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["time_us"], row[cost])):
        if not found or row[cost] < found[-1][cost]:
            found.append(row)
    return found


def _front(rows: Rows, names: Sequence[str], heading: str) -> Figure:
    cost, label = cost_of(rows)
    known = [row for row in rows if row.get(cost) is not None]
    best = front(known, cost)
    figure = new_figure(9, 5.4, heading)
    axes = figure.subplots()
    series = series_of(known, [])
    for number, (name, own) in enumerate(series.items()):
        axes.plot([row["time_us"] for row in own], [row[cost] for row in own], linestyle="", label=name, alpha=0.85,
                  marker=MARKERS[number % len(MARKERS)], color=SERIES[number % len(SERIES)], markersize=5)
    axes.step([row["time_us"] for row in best], [row[cost] for row in best], where="post", color="black", linewidth=1.2,
              label="front")
    for row in best[:6]:
        said = ", ".join(f"{name.rpartition('.')[2]}={row[name]:g}" for name in names[:2])
        axes.annotate(f"{row['dataflow']} {said}".strip(), (row["time_us"], row[cost]), xytext=(5, 6),
                      textcoords="offset points", fontsize=7.5)
    axes.set_xlabel("time (us)", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    if spread([row["time_us"] for row in known]):
        axes.set_xscale("log")
    if spread([row[cost] for row in known if row[cost]] or [1.0]):
        axes.set_yscale("log")
    _finish(axes, len(series) + 1)
    return figure


def _finish(axes: Axes, count: int) -> None:
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    if count <= 24:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
