"""Table of a search over tilings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console


def plot_tuning(tuning: Any) -> Figure:
    """Every simulated tiling in the order of the search, and the fastest so far."""
    from msdsim.report.labels import problem_text, us
    from msdsim.report.plots import SERIES, new_figure

    best, clock = tuning.best, float(tuning.best.hardware.chip.clock_mhz)
    times = [trial.cycles / clock for trial in tuning.trials]
    so_far = [min(times[: index + 1]) for index in range(len(times))]
    figure = new_figure(9, 4, f"{best.dataflow}, {problem_text(best.problem)} on {best.hardware.name}: "
                              f"{us(tuning.start.time_us)} to {us(best.time_us)}, {tuning.speedup:.2f}x")
    axes = figure.subplots()
    axes.plot(range(len(times)), times, linestyle="", marker="o", markersize=3.5, color=SERIES[5], label="one tiling")
    axes.step(range(len(times)), so_far, where="post", color=SERIES[0], linewidth=1.6, label="fastest so far")
    axes.set_xlabel("simulation", fontsize=9)
    axes.set_ylabel("time (us)", fontsize=9)
    slowest = max(times)
    if slowest > 3 * so_far[0]:
        axes.set_yscale("log")
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def print_tuning(console: Console, tuning: Any, most: int = 10) -> None:
    """The way to the best tiling, and how to use it."""
    start, best = tuning.start, tuning.best
    console.print(Text(f"{best.dataflow} on {best.hardware.name}: {start.time_us:,.2f} us -> {best.time_us:,.2f} us "
                       f"({tuning.speedup:.2f}x) after {len(tuning.trials)} simulations, {tuning.refused} tilings refused",
                       style="bold"), soft_wrap=True)
    table = TextTable(["step", "time us"], frozenset((1,)))
    fastest = None
    steps = []
    for trial in tuning.trials:
        if fastest is None or trial.cycles < fastest:
            fastest = trial.cycles
            steps.append(trial)
    for trial in steps[:1] + steps[1:][-most:]:
        table.add(trial.change, f"{trial.cycles / float(best.hardware.chip.clock_mhz):,.2f}")
    for line in table.lines():
        console.print(line, soft_wrap=True)
    changed = {key: value for key, value in best.tiling.items() if value != start.tiling[key]}
    if changed:
        keys = ",".join(f"{key}={value}" for key, value in changed.items())
        console.print(Text(f"use it with --tiling {keys}"), soft_wrap=True)
    else:
        console.print(Text("nothing that could be chosen is faster" if tuning.complete else
                           "the tiling it started from is the best of its neighbourhood"))
    if best.problem.get("kind") == "kernel":
        for refusal in tuning.refusals[:most]:
            console.print(Text(f"refused {refusal.change}: {refusal.reason}"), soft_wrap=True)
        if best.numerics is None:
            console.print(Text("numbers were not compared; --reference DATAFLOW:PROBLEM refuses candidates with wrong ones"),
                          soft_wrap=True)
