"""Tables of predictions against published measurements, and of micro measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.1%}"


def _microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def print_validation(console: Console, report: Any) -> None:
    """Every row with its error, components, ratios between rows, what could not be expressed, and the overall error."""
    table = TextTable(["row", "chip", "scope", "measured us", "predicted us", "error"], frozenset((3, 4, 5)))
    for row in report.rows:
        if row.reason:
            continue
        table.add(row.id + (" (?)" if row.ambiguous else ""), row.chip, row.scope, _microseconds(row.measured_us),
                  _microseconds(row.predicted_us), _percent(row.error))
        for part in row.components:
            table.add(f"  of it {part.name}", "", "", _microseconds(part.measured_us), _microseconds(part.predicted_us),
                      _percent(part.error), style="dim")
    _show(console, table)
    if report.ratios:
        ratios = TextTable(["ratio", "of", "to", "measured", "predicted", "error"], frozenset((3, 4, 5)))
        for item in report.ratios:
            ratios.add(item.id, item.of, item.to, f"{item.measured:.2f}", f"{item.predicted:.2f}", _percent(item.error))
        _show(console, ratios)
    for row in report.rows:
        if row.reason:
            console.print(Text(f"not expressed: {row.id}: {row.reason}"), soft_wrap=True)
    families = TextTable(["family", "rows", "median |error|", "90th percentile", "signed median"], frozenset(range(1, 5)))
    for name, errors in report.families.items():
        families.add(name, str(errors.predicted), f"{errors.median_error:.1%}", f"{errors.p90_error:.1%}",
                     _percent(errors.signed_median))
    _show(console, families)
    _print_overall(console, f"{report.overall.predicted} of {len(report.certain)} rows predicted", report.overall, "bold")
    if 0 < report.unseen.predicted < report.overall.predicted:
        _print_overall(console, f"{report.unseen.predicted} of them informed no constant of a chip file", report.unseen, "")
    if report.ambiguous.predicted:
        _print_overall(console, f"{report.ambiguous.predicted} other rows, about which something is uncertain",
                       report.ambiguous, "")


def _print_overall(console: Console, of: str, errors: Any, style: str) -> None:
    console.print(Text(f"{of}: median |error| {errors.median_error:.1%}, 90th percentile {errors.p90_error:.1%}, "
                       f"worst {errors.worst_error:.1%}", style=style), soft_wrap=True)


def print_calibration(console: Console, found: Any, out: str) -> None:
    """Every constant before and after, errors in the fitted rows and out of them, and where the chip file is."""
    table = TextTable(["constant", "before", "after", "how well determined"], frozenset((1, 2)))
    for item in found.constants:
        table.add(item.key, f"{item.before:g}", f"{item.after:g}", item.determined)
    _show(console, table)
    if found.folds:
        folds = TextTable(["source left out", "rows", "before", "fitted to the others"], frozenset((1, 2, 3)))
        for fold in found.folds:
            folds.add(fold.group, str(fold.after.predicted), f"{fold.before.median_error:.1%}",
                      f"{fold.after.median_error:.1%}")
        _show(console, folds)
    _print_overall(console, f"{found.rows} rows before", found.before, "")
    _print_overall(console, "fitted", found.fitted, "bold")
    if found.folds:
        _print_overall(console, "each source predicted without its own rows", found.unseen, "bold")
    if found.left_out:
        console.print(Text(f"{len(found.left_out)} rows not used (other chips, ambiguous, inexpressible): "
                           f"{', '.join(found.left_out[:6])}{', ...' if len(found.left_out) > 6 else ''}"), soft_wrap=True)
    console.print(Text(f"written: {out}"), soft_wrap=True)


def print_micro(console: Console, tables: Sequence[Any]) -> None:
    """One block a table: what is measured, published and simulated cycles, errors."""
    for found in tables:
        console.print(Text(f"{found.title}  on {found.chip}", style="bold"), soft_wrap=True)
        table = TextTable([found.size, "published\ncycles", "simulated\ncycles", "error"], frozenset(range(4)))
        for row in found.rows:
            table.add(f"{row.size:,}", f"{row.published:,.1f}", f"{row.simulated:,.1f}", _percent(row.error))
        _show(console, table)


def plot_micro(tables: Sequence[Any]) -> Figure:
    """Every table in a panel: published cycles as marks, simulated ones as a line."""
    import math
    import textwrap

    from matplotlib.ticker import EngFormatter, MaxNLocator

    from msdsim.errors import InputError
    from msdsim.report.plots import SERIES, new_figure

    if not tables:
        raise InputError("there is no published table of this chip, so that there is nothing to plot")
    columns = min(4, len(tables))
    lines = math.ceil(len(tables) / columns)
    figure = new_figure(3.4 * columns, 0.8 + 2.6 * lines, "Single transfers and instructions: published and simulated cycles")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, found in zip(grid.flat, tables, strict=False):
        sizes = [row.size for row in found.rows]
        axes.plot(sizes, [row.simulated for row in found.rows], color=SERIES[0], linewidth=1.3, label="simulated")
        axes.plot(sizes, [row.published for row in found.rows], color=SERIES[1], linestyle="", marker="o", markersize=3,
                  label="published")
        axes.set_title("\n".join(textwrap.wrap(f"{found.title}, {found.chip}", 38)), fontsize=7.5)
        axes.set_xlabel(found.size, fontsize=7.5)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#DDDDDD", linewidth=0.5)
    grid[0, 0].legend(fontsize=7, frameon=False)
    for axes in list(grid.flat)[len(tables):]:
        axes.set_visible(False)
    return figure


def _show(console: Console, table: TextTable) -> None:
    for line in table.lines():
        console.print(line, soft_wrap=True)
    console.print()
