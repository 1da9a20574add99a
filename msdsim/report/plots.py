"""Pictures of results.  Figures are made without pyplot, so they need no display and leave no global state behind."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from msdsim.report.bandwidth import bandwidth_steps
from msdsim.report.energy import energy_bars
from msdsim.report.labels import (
    LOOKS,
    PIPE_ROLES,
    Look,
    ordered_pipes,
    percent,
    pipe_label,
    problem_text,
    resource_label,
    us,
)
from msdsim.report.labels import (
    figure as figure_text,
)
from msdsim.timeline.record import HBM_READ, HBM_WRITE, L2_READ, L2_WRITE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from msdsim.report.result import Comparison, Result, WorkloadComparison, WorkloadResult

_DPI = 150
#: Decimals of a position in a figure.
_DIGITS = 9
_GREY = "#444444"
#: Colours of the series over time, and of dataflows.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442", "#999999", "#7F5539")


MARKERS = "osv^D*P"


class Picture(Figure):
    """A figure that a notebook shows, whether or not pyplot has been imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        save(self, buffer, "png")
        return buffer.getvalue()


def new_figure(width: float, height: float, title: str) -> Picture:
    """An empty picture of so many inches with its title, wrapped where it is too long for the width."""
    figure = Picture(figsize=(width, height), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, round(width * 10.5), break_long_words=False)), fontsize=11)
    return figure


def save(figure: Figure, to: str | Path | IO[bytes], kind: str = "") -> None:
    """Write a figure; ``kind`` (png, svg, pdf) follows from the name of a file.  The same figure gives the same bytes."""
    kind = kind or Path(str(to)).suffix.lower().lstrip(".")
    # A file that depends on the day it was made cannot be compared with the one before.
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    # Text stays text, to be found, read aloud and edited.
    with matplotlib.rc_context({"svg.hashsalt": "msdsim", "svg.fonttype": "none", "pdf.fonttype": 42}), _settled(figure):
        figure.savefig(to, format=kind, dpi=_DPI, metadata=metadata)


@contextmanager
def _settled(figure: Figure) -> Iterator[None]:
    """The figure with its axes where the layout has put them, rounded: what the solver finds differs in the last bit from time
    to time, and names in an SVG are hashes of it."""
    engine = figure.get_layout_engine()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(side, _DIGITS) for side in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
        axes.set_in_layout(True)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def plot_result(run: Result) -> Figure:
    """Where each pipe's cycles went, and the bandwidth of HBM and L2 over time."""
    pipes = ordered_pipes(run.stalls)
    energy = [1.0] if run.energy is not None else []
    figure = new_figure(9, 4.4 + 0.3 * len(pipes) + 1.2 * len(energy),
                        f"{run.dataflow}, {problem_text(run.problem)} on {run.hardware.name}: {us(run.time_us)}, {_bound(run)}")
    bars, hbm, l2, *rest = figure.subplots(3 + len(energy), 1, height_ratios=[0.3 * len(pipes) + 0.3, 1.5, 1.3, *energy])
    _stall_bars(bars, run, pipes)
    _memories(hbm, l2, run)
    for axes in rest:
        _energy(axes, [run])
    return figure


def _energy(axes: Axes, runs: Sequence[Result]) -> None:
    energy_bars(axes, runs)
    tidy(axes)


def _memories(hbm: Axes, l2: Axes, run: Result) -> None:
    chip = run.hardware.chip
    _bandwidth(hbm, run, "HBM", {"read": HBM_READ, "written": HBM_WRITE}, {"peak": chip.hbm.bandwidth_gbps})
    _bandwidth(l2, run, "L2", {"read": L2_READ, "written": L2_WRITE},
               {"read peak": chip.l2.read_gbps, "write peak": chip.l2.write_gbps})
    l2.set_xlabel("time (us); bytes count when they are served", fontsize=9)
    hbm.sharex(l2)
    hbm.tick_params(labelbottom=False)


def _bound(run: Result) -> str:
    if run.causes:
        return f"bound by {run.causes[0].resource}"
    found = run.bottleneck
    return f"busiest: {resource_label(found.name)} {percent(found.utilization)}"


def _stall_bars(axes: Axes, run: Result, pipes: Sequence[str]) -> None:
    names = [f"{pipe_label(kind)}  ({PIPE_ROLES.get(kind, '')})" for kind in pipes]
    for row, kind in enumerate(pipes):
        stacked_bar(axes, row, run.stalls[kind], 100.0 / (run.stalls[kind]["instances"] * max(1, run.cycles)), 0.78)
    axes.set_yticks(range(len(pipes)), names, fontsize=9)
    axes.set_ylim(len(pipes) - 0.45, -0.55)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the kernel's time (%)", fontsize=9)
    tidy(axes)
    axes.legend(handles=category_patches(run.stalls.values()), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=8,
                fontsize=8, frameon=False, handlelength=1.0, columnspacing=1.2, handletextpad=0.5)


def stacked_bar(axes: Axes, at: float, row: Mapping[str, float], scale: float, height: float, left: float = 0.0) -> float:
    """One stacked bar of the categories of ``row``; where it ends."""
    for look in LOOKS:
        length = row.get(look.category, 0) * scale
        if length > 0:
            axes.barh(at, length, left=left, height=height, **_paint(look))
            left += length
    return left


def category_patches(stalls: Iterable[Mapping[str, int]]) -> list[Patch]:
    """Legend entries of the categories that occur."""
    rows = list(stalls)
    shown: list[Look] = [look for look in LOOKS if any(row.get(look.category) for row in rows)]
    return [Patch(label=look.category.replace("_", " "), **_paint(look)) for look in shown]


def _paint(look: Look) -> dict[str, Any]:
    """Colour and hatch; the hatch has the colour of the edge, which is not drawn beside it."""
    if look.hatch:
        return {"facecolor": look.colour, "hatch": look.hatch, "edgecolor": "#00000066", "linewidth": 0.0}
    return {"facecolor": look.colour, "edgecolor": "white", "linewidth": 0.4}


def _bandwidth(axes: Axes, run: Result, name: str, series: Mapping[str, int], peaks: Mapping[str, float]) -> None:
    """GB/s over time of one memory, with its peaks; equal peaks are one line."""
    edges, rates = bandwidth_steps(run)
    for colour, (label, row) in zip(SERIES, series.items(), strict=False):
        if run.bandwidth.bytes[row].any():
            axes.stairs(rates[row], edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(rates[row], edges, color=colour, linewidth=1.2, label=f"{name} {label}")
    grouped: dict[float, list[str]] = {}
    for label, peak in peaks.items():
        grouped.setdefault(peak, []).append(label)
    for style, (peak, labels) in zip(("--", ":"), grouped.items(), strict=False):
        axes.axhline(peak, color=_GREY, linestyle=style, linewidth=1.0,
                     label=f"{name} {labels[0] if len(labels) == 1 else 'peak'} {peak:,.0f} GB/s")
    axes.set_xlim(0, run.time_us)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel(f"{name} (GB/s)", fontsize=9)
    tidy(axes)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=4, fontsize=8, frameon=False, handlelength=1.5,
                columnspacing=1.2)


def plot_comparison(found: Comparison) -> Figure:
    """Time by dataflow, and what Cube, Vector and the busiest movers did in it."""
    pipes = telling_pipes(found.runs)
    groups = sorted(found.runs, key=lambda run: run.cycles)
    rows = len(pipes) * len(groups)
    height = 1.5 + 0.3 * rows + 0.3 * len(groups)
    energy = [0.9 + 0.35 * len(groups)] if groups and groups[0].energy is not None else []
    title = f"{problem_text(groups[0].problem)} on {groups[0].hardware.name}" if groups else ""
    figure = new_figure(9, height + sum(energy), title)
    axes, *rest = np.atleast_1d(figure.subplots(1 + len(energy), 1, height_ratios=[height - 0.6, *energy]))
    ticks: list[tuple[float, str]] = []
    at, longest = 0.0, max((run.time_us for run in found.runs), default=1.0)
    for run in groups:
        middle = at + (len(pipes) - 1) / 2
        for kind in pipes:
            if kind in run.stalls:
                row = run.stalls[kind]
                stacked_bar(axes, at, row, run.time_us / (row["instances"] * max(1, run.cycles)), 0.86)
            ticks.append((at, pipe_label(kind)))
            at += 1
        axes.text(run.time_us + 0.01 * longest, middle, _beside(run), va="center", fontsize=8.5, linespacing=1.15)
        axes.text(-0.11, middle, run.dataflow, va="center", ha="right", fontsize=10, fontweight="bold",
                  transform=axes.get_yaxis_transform())
        at += 0.7
    axes.set_yticks([tick for tick, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.set_ylim(at - 1.1, -0.6)
    axes.set_xlim(0, longest * 1.32)
    axes.set_xlabel("time (us); each bar is a kind of pipe, mean over its instances", fontsize=9)
    tidy(axes)
    if found.runs:
        axes.legend(handles=category_patches(run.stalls[kind] for run in groups for kind in pipes if kind in run.stalls),
                    loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=8, fontsize=8, frameon=False, handlelength=1.4,
                    columnspacing=1.2, handletextpad=0.5)
    for below in rest:
        _energy(below, groups)
    return figure


def _beside(run: Result) -> str:
    """What stands beside the bars of a run: time, what binds it, and the error where numbers were checked."""
    lines = [us(run.time_us), *textwrap.wrap(_bound(run), 26)]
    if run.numerics is not None:
        lines.append(f"rel. L2 {figure_text(run.numerics.relative_l2)}")
    return "\n".join(lines)


def telling_pipes(runs: Sequence[Result]) -> list[str]:
    """The pipes that tell most of some runs, the same for all: Cube, Vector where it works, and the mover with most to do (slow
    memory included) of every run, in the order of the data's way."""
    chosen: set[str] = set()
    for run in runs:
        taken = {kind: (row["busy"] + row["head"] + row["wait_memory"]) / max(1, row["instances"])
                 for kind, row in run.stalls.items() if not kind.endswith(".s")}
        movers = sorted((kind for kind in taken if kind not in ("aic.m", "aiv.v")), key=lambda kind: -taken[kind])
        chosen |= {kind for kind in ("aic.m", "aiv.v") if taken.get(kind)} | set(movers[:1])
    return ordered_pipes(dict.fromkeys(chosen))


def plot_workload(found: WorkloadResult) -> Figure:
    """Time by kind of layer."""
    return _layers([found], f"{found.name}, {found.dataflow} on {found.runs[0].result.hardware.name}: {us(found.time_us)}")


def plot_workload_comparison(found: WorkloadComparison) -> Figure:
    """Time by kind of layer and dataflow."""
    title = f"{found.runs[0].name} on {found.runs[0].runs[0].result.hardware.name}" if found.runs else ""
    return _layers(found.runs, title)


def _layers(runs: Sequence[WorkloadResult], title: str) -> Figure:
    names = [run.name for run in runs[0].runs] if runs else []
    figure = new_figure(9, 1.6 + (0.22 * max(1, len(runs)) + 0.16) * len(names), title)
    axes = figure.subplots()
    height = 0.8 / max(1, len(runs))
    longest = max((run.count * run.result.time_us for item in runs for run in item.runs), default=1.0)
    for index, item in enumerate(runs):
        spent = [run.count * run.result.time_us for run in item.runs]
        at = [row - 0.4 + height * (index + 0.5) for row in range(len(names))]
        axes.barh(at, spent, height=height * 0.92, color=SERIES[index % len(SERIES)],
                  label=f"{item.dataflow}, {us(item.time_us)}")
        for row, value, run in zip(at, spent, item.runs, strict=True):
            share = percent(value / item.time_us) if item.time_us else ""
            axes.text(value + 0.006 * longest, row, f"{value:,.0f}  {share}  {_bound(run.result)}", va="center", fontsize=7.5)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, longest * 1.4)
    axes.set_xlabel("time over all layers of a kind (us)", fontsize=9)
    tidy(axes)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(runs) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8, frameon=False, handlelength=1.0)
    return figure


def tidy(axes: Axes) -> None:
    """No frame where nothing is read off, light lines where something is."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
