"""The picture of an explanation: where the time of every pipe goes, by phase, and what each change of the chip would gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msdsim.report.labels import ordered_pipes, pipe_label, problem_text, us
from msdsim.report.plots import SERIES, category_patches, new_figure, stacked_bar, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_explanation(found: Any) -> Figure:
    """Phases of every pipe above, gains below: single changes, and the way to the fastest chip."""
    result, phases = found.result, found.attribution.phases
    pipes = [kind for kind in ordered_pipes(phases.cycles) if not kind.endswith(".s")]
    rows, gains = len(pipes), max(len(found.what_if), len(found.walk) + 1)
    bound = f"bound by {result.causes[0].resource}" if result.causes else "bound by no single thing"
    what = f"{result.dataflow}, {problem_text(result.problem)} on {result.hardware.name}"
    figure = new_figure(10, 2.6 + 0.34 * rows + 0.3 * gains, f"{what}: {us(result.time_us)}, {bound}")
    above, below = (*figure.subfigures(2, 1, squeeze=False, height_ratios=[0.34 * rows + 1.1, 0.3 * gains + 1.2])[:, 0],)
    _phases(above.subplots(), found, pipes)
    left, right = below.subplots(1, 2)
    _gains(left, found)
    _walk(right, found)
    return figure


def _phases(axes: Axes, found: Any, pipes: list[str]) -> None:
    result, phases = found.result, found.attribution.phases
    clock = float(result.hardware.chip.clock_mhz)
    edge, edges = 0.0, []
    for phase, cycles in phases.mean.items():
        edges.append((phase, edge, edge + cycles / clock))
        edge += cycles / clock
    for row, kind in enumerate(pipes):
        for phase, begin, end in edges:
            spent = phases.cycles[kind][phase]
            total = sum(spent.values())
            if total:
                stacked_bar(axes, row, spent, (end - begin) / total, 0.78, begin)
    for phase, begin, end in edges:
        axes.axvline(end, color="black", linewidth=0.8, linestyle=":")
        if end - begin > 0.05 * edge:
            axes.text((begin + end) / 2, -0.62, phase, ha="center", va="bottom", fontsize=8.5)
    axes.set_yticks(range(len(pipes)), [pipe_label(kind) for kind in pipes], fontsize=9)
    axes.set_ylim(len(pipes) - 0.45, -0.55)
    axes.set_xlim(0, edge)
    axes.set_xlabel("time (us); phases in the mean over the cores, in each what a pipe does in the order of the legend",
                    fontsize=9)
    tidy(axes)
    axes.legend(handles=category_patches(spent for kind in pipes for spent in phases.cycles[kind].values()),
                loc="lower center", bbox_to_anchor=(0.5, 1.07), ncols=8, fontsize=8, frameon=False, handlelength=1.2,
                columnspacing=1.2, handletextpad=0.5)


def _gains(axes: Axes, found: Any) -> None:
    changes = list(found.what_if)
    axes.barh(range(len(changes)), [max(0.0, item.speedup - 1) * 100 for item in changes], color=SERIES[0], height=0.7)
    for row, item in enumerate(changes):
        axes.text(max(0.0, item.speedup - 1) * 100, row, f" {item.speedup:.2f}x", va="center", fontsize=8)
    axes.set_yticks(range(len(changes)), [item.change for item in changes], fontsize=8.5)
    axes.set_ylim(len(changes) - 0.4, -0.6)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.set_xlabel("faster by (%), one change of the chip", fontsize=9)
    tidy(axes)


def _walk(axes: Axes, found: Any) -> None:
    steps = [("as it is", found.result.time_us), *((f"+ {step.change}", step.time_us) for step in found.walk)]
    axes.barh(range(len(steps)), [time for _, time in steps], color=SERIES[2], height=0.7)
    for row, (_, time) in enumerate(steps):
        axes.text(time, row, f" {us(time)}", va="center", fontsize=8)
    axes.set_yticks(range(len(steps)), [name for name, _ in steps], fontsize=8.5)
    axes.set_ylim(max(len(steps), len(found.what_if)) - 0.4, -0.6)
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("time (us), change beside change", fontsize=9)
    tidy(axes)
