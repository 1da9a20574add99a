"""A picture of predicted against measured times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msdsim.explore.validate import ValidationReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Rows that the parity plot names.
_NAMED = 24


def parity_plot(report: ValidationReport) -> Figure:
    """Predicted against measured time of every row, both axes logarithmic, with the band of 30% around equality."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    known = [row for row in report.certain if row.error is not None]
    figure = Figure(figsize=(10.6, 6.5), layout="constrained")
    axes = figure.add_subplot()
    if not known:
        axes.text(0.5, 0.5, "no row with both a measurement and a prediction", ha="center", transform=axes.transAxes)
        return figure
    measured = np.array([row.measured_us for row in known], float)
    predicted = np.array([row.predicted_us for row in known], float)
    low, high = min(measured.min(), predicted.min()) / 1.6, max(measured.max(), predicted.max()) * 1.6
    line = np.array([low, high])
    axes.fill_between(line, line * 0.7, line * 1.3, color="0.93", label="within 30%")
    axes.fill_between(line, line * 0.9, line * 1.1, color="0.84", label="within 10%")
    axes.plot(line, line, color="0.4", linewidth=1)
    chips = list(dict.fromkeys(row.chip for row in known))
    for number, chip in enumerate(chips):
        mask = np.array([row.chip == chip for row in known])
        axes.scatter(measured[mask], predicted[mask], s=42, marker="os^Dv<>P"[number % 8], label=chip, zorder=3)
    # Names for those that are furthest off only: of a hundred nobody reads them.
    worst = sorted(known, key=lambda row: -abs(row.error or 0))[:_NAMED]
    for number, row in enumerate(worst, start=1):
        axes.annotate(str(number), (row.measured_us or 0, row.predicted_us or 0), fontsize=7, textcoords="offset points",
                      xytext=(5, -8))
    names = [f"{number:2}  {row.id}  {row.error:+.0%}" for number, row in enumerate(worst, start=1)]
    axes.text(1.03, 1, "\n".join(["furthest off:", *names]), transform=axes.transAxes, va="top", fontsize=7.5, linespacing=1.5)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="measured (µs)", ylabel="predicted (µs)",
             title=f"{len(known)} published kernels: median error {report.overall.median_error:.1%}, "
                   f"90th percentile {report.overall.p90_error:.1%}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_aspect("equal")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return figure


def residuals_plot(report: ValidationReport) -> Figure:
    """Error of every certain row by family, and the median of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    names = list(report.families)
    chips = list(dict.fromkeys(row.chip for row in report.certain))
    for number, chip in enumerate(chips):
        rows = [row for row in report.certain if row.chip == chip and row.error is not None]
        # Rows of a family side by side, so that equal errors do not hide each other.
        places = [names.index(row.family) + (index % 7 - 3) * 0.07 for index, row in enumerate(rows)]
        axes.scatter(places, [100 * (row.error or 0) for row in rows], s=26, marker="os^Dv<>P"[number % 8], label=chip,
                     zorder=3)
    for place, name in enumerate(names):
        median = 100 * report.families[name].signed_median
        axes.plot([place - 0.32, place + 0.32], [median, median], color="0.2", linewidth=2)
    axes.axhspan(-10, 10, color="0.9")
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set(ylabel="predicted over measured, less one (%)", title="Residuals by family; bars are medians, the band is 10%")
    axes.set_xticks(range(len(names)), [f"{name}\n({report.families[name].predicted})" for name in names], rotation=30,
                    ha="right", fontsize=8)
    if chips:
        axes.legend(fontsize=8, frameon=False, ncols=3)
    return figure


def components_plot(report: ValidationReport) -> Figure:
    """Measured against predicted times of pipes, by the pipe."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.add_subplot()
    parts = [part for row in report.certain for part in row.components if part.measured_us > 0 and part.predicted_us > 0]
    if not parts:
        axes.text(0.5, 0.5, "no row gives times of its pipes", ha="center", transform=axes.transAxes)
        return figure
    for number, name in enumerate(dict.fromkeys(part.name for part in parts)):
        mine = [part for part in parts if part.name == name]
        axes.scatter([part.measured_us for part in mine], [part.predicted_us for part in mine], s=30,
                     marker="os^Dv<>P"[number % 8], label=name, zorder=3)
    every = [value for part in parts for value in (part.measured_us, part.predicted_us)]
    low, high = min(every) / 1.4, max(every) * 1.4
    axes.fill_between([low, high], [low * 0.9, high * 0.9], [low * 1.1, high * 1.1], color="0.88", label="within 10%")
    axes.plot([low, high], [low, high], color="0.4", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel="measured (µs)",
             ylabel="predicted (µs)", title=f"Times of pipes: {len(parts)} components")
    axes.legend(fontsize=8, frameon=False)
    return figure
