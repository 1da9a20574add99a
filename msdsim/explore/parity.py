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
