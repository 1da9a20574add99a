"""Tables, pictures and pages of searches over tilings."""

from __future__ import annotations

from html import escape
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


def plot_workload_tuning(found: Any) -> Figure:
    """Time of every operator before and after, that with most of it first."""
    from msdsim.report.labels import us
    from msdsim.report.plots import SERIES, new_figure, tidy

    names = [_names(item) for item in found.operators]
    figure = new_figure(9, 1.6 + 0.5 * len(names), f"{found.best.name} on {found.best.runs[0].result.hardware.name}: "
                        f"{us(found.start.time_us)} to {us(found.best.time_us)}, {found.speedup:.2f}x")
    axes = figure.subplots()
    for shift, (what, label, colour, hatch) in enumerate((("before_us", "automatic tilings", SERIES[5], ""),
                                                          ("after_us", "tuned", SERIES[0], "//"))):
        times = [getattr(item, what) for item in found.operators]
        places = [row + 0.38 * (shift - 0.5) for row in range(len(names))]
        axes.barh(places, times, 0.36, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4, label=label)
        for place, time in zip(places, times, strict=True):
            axes.text(time, place, f" {us(time)}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    axes.set_xlabel("time over all runs of the operator in the workload (us)", fontsize=9)
    tidy(axes)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _names(item: Any, most: int = 3) -> str:
    """The operators that are one kernel."""
    names = list(item.names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def workload_tuning_table(found: Any) -> TextTable:
    """An operator a row: before, after, gain, and what the search did."""
    from msdsim.report.labels import percent

    table = TextTable(["operator", "dataflow", "us before", "us after", "gain", "runs", "changed"], frozenset((2, 3, 4, 5)))
    for item in found.operators:
        start, best = item.tuning.start.tiling, item.tuning.best.tiling
        changed = ",".join(f"{key}={value}" for key, value in best.items() if value != start[key])
        said = "-" if not changed else changed if item.kept else f"none: {item.tuning.speedup:.2f}x alone, not in the workload"
        stopped = " (time)" if item.tuning.ended == "time" else ""
        gain = item.before_us / item.after_us if item.after_us else 1.0
        table.add(_names(item), item.dataflow, f"{item.before_us:,.1f}", f"{item.after_us:,.1f}", f"{gain:.2f}x",
                  f"{len(item.tuning.trials)}", said + stopped)
    tuned = sum(item.before_us for item in found.operators)
    rest = found.start.time_us - tuned
    if rest > 1e-9 * found.start.time_us:
        after = found.best.time_us - sum(item.after_us for item in found.operators)
        table.add("not searched", "", f"{rest:,.1f}", f"{after:,.1f}", f"{rest / after:.2f}x" if after else "", "",
                  f"{percent(rest / found.start.time_us)} of the time")
    table.add("total", "", f"{found.start.time_us:,.1f}", f"{found.best.time_us:,.1f}", f"{found.speedup:.2f}x", "", "",
              style="bold")
    return table


def workload_tuning_lines(found: Any, out: str | None = None) -> list[str]:
    """What to know of a search over a workload, in sentences."""
    from msdsim.report.labels import us

    first = found.best.runs[0].result
    lines = [f"{found.best.name} with {found.dataflow} on {first.hardware.name}: {us(found.start.time_us)} -> "
             f"{us(found.best.time_us)} ({found.speedup:.2f}x)"]
    if found.out_of_time:
        lines.append("the time limit stopped searches (time): another machine may find other tilings; a higher --time-limit "
                     "tries more")
    spent = [item for item in found.operators if item.tuning.ended == "budget"]
    if spent:
        lines.append(f"the budget ended {len(spent)} of {len(found.operators)} searches; a higher --budget tries more")
    lines.append(f"use them with: msdsim run WORKLOAD --tilings {out}" if out is not None else
                 "--out FILE.toml writes the tilings for 'msdsim run WORKLOAD --tilings FILE.toml'")
    return lines


def print_workload_tuning(console: Console, found: Any, out: str | None = None) -> None:
    """Every operator before and after, and how to use what was found."""
    first, *rest = workload_tuning_lines(found, out)
    console.print(Text(first, style="bold"), soft_wrap=True)
    for line in workload_tuning_table(found).lines():
        console.print(line, soft_wrap=True)
    for text in rest:
        console.print(Text(text), soft_wrap=True)


def tuning_page(tuning: Any) -> str:
    """A page about the search of one problem."""
    from msdsim.report.html import picture
    from msdsim.report.labels import problem_text
    from msdsim.report.page import Section, page, table

    best, clock = tuning.best, float(tuning.best.hardware.chip.clock_mhz)
    trials = TextTable(["simulation", "change", "time us", "tiling"], frozenset((0, 2)))
    for number, trial in enumerate(tuning.trials, 1):
        trials.add(str(number), trial.change, f"{trial.cycles / clock:,.2f}", _tiling(trial.tiling))
    refused = TextTable(["change", "reason"])
    for item in tuning.refusals:
        refused.add(item.change, item.reason)
    sections = [Section("Search", picture(plot_tuning(tuning), "time of every simulated tiling, and the fastest so far")),
                Section("The way to the best", table(_steps(tuning, len(tuning.trials)), sortable=False)),
                Section("Every simulated tiling", table(trials), folded=True)]
    if tuning.refusals:
        sections.append(Section("Refused", table(refused), folded=True))
    title = f"tuning {best.dataflow}, {problem_text(best.problem)} on {best.hardware.name}"
    return page(title, f"<p>{escape(_summary(tuning))}. {escape(_use(tuning))}.</p>", sections, tuning.to_json())


def workload_tuning_page(found: Any) -> str:
    """A page about the search over a workload."""
    from msdsim.report.charts import amount_bars
    from msdsim.report.html import picture
    from msdsim.report.page import Section, page, table

    first, *rest = workload_tuning_lines(found)
    bars = [bar for item in found.operators for bar in (
        (f"{_names(item)}, automatic", item.before_us, ""),
        (f"{_names(item)}, tuned", item.after_us, f"{item.before_us / item.after_us:.2f}x" if item.after_us else ""))]
    sections = [Section("Operators", table(workload_tuning_table(found))),
                Section("Before and after", amount_bars(bars, "us over all runs of the operator in the workload"))]
    for item in found.operators:
        body = (f"<p>{escape(_summary(item.tuning))}.</p>"
                + table(_steps(item.tuning, len(item.tuning.trials)), sortable=False)
                + picture(plot_tuning(item.tuning), "time of every simulated tiling, and the fastest so far"))
        sections.append(Section(_names(item), body, folded=True))
    lead = "".join(f"<p>{escape(line)}</p>" for line in (first, *rest[:-1]))
    tilings = f'<pre tabindex="0">{escape(found.tilings.to_toml())}</pre>'
    return page(f"tuning {found.best.name}", lead, [*sections, Section("Tilings", tilings, folded=True)], found.to_json())


def _tiling(tiling: Any) -> str:
    return ",".join(f"{key}={value}" for key, value in tiling.items())


def _summary(tuning: Any) -> str:
    start, best = tuning.start, tuning.best
    return (f"{best.dataflow} on {best.hardware.name}: {start.time_us:,.2f} us -> {best.time_us:,.2f} us "
            f"({tuning.speedup:.2f}x) after {len(tuning.trials)} simulations, {tuning.refused} tilings refused")


def _steps(tuning: Any, most: int) -> TextTable:
    """The trials that were faster than all before."""
    table = TextTable(["step", "time us"], frozenset((1,)))
    fastest = None
    steps = []
    for trial in tuning.trials:
        if fastest is None or trial.cycles < fastest:
            fastest = trial.cycles
            steps.append(trial)
    for trial in steps[:1] + steps[1:][-most:]:
        table.add(trial.change, f"{trial.cycles / float(tuning.best.hardware.chip.clock_mhz):,.2f}")
    return table


def _use(tuning: Any) -> str:
    changed = {key: value for key, value in tuning.best.tiling.items() if value != tuning.start.tiling[key]}
    if changed:
        return f"use it with --tiling {_tiling(changed)}"
    return "nothing that could be chosen is faster" if tuning.complete else \
        "the tiling it started from is the best of its neighbourhood"


def print_tuning(console: Console, tuning: Any, _: str | None = None, most: int = 10) -> None:
    """The way to the best tiling, and how to use it."""
    best = tuning.best
    console.print(Text(_summary(tuning), style="bold"), soft_wrap=True)
    for line in _steps(tuning, most).lines():
        console.print(line, soft_wrap=True)
    console.print(Text(_use(tuning)), soft_wrap=True)
    if tuning.ended == "time":
        console.print(Text("the time limit stopped the search; another machine may find another tiling"), soft_wrap=True)
    if best.problem.get("kind") == "kernel":
        for refusal in tuning.refusals[:most]:
            console.print(Text(f"refused {refusal.change}: {refusal.reason}"), soft_wrap=True)
        if best.numerics is None:
            console.print(Text("numbers were not compared; --reference DATAFLOW:PROBLEM refuses candidates with wrong ones"),
                          soft_wrap=True)
