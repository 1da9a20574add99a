"""Table and plot of the accuracy of every method on the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

_MOST_PANELS = 12


def print_checkpoint_study(console: Console, problem: str, study: Any) -> None:
    """For each tensor how it is stored, and a table for each input: what the format costs, what the method adds."""
    console.print(Text(problem, style="bold"))
    for tensor, tables in study_tables(study):
        console.print()
        console.print(Text(tensor, style="bold"), soft_wrap=True)
        console.print(Text(f"  stored as {study.tensors[tensor]}"), soft_wrap=True)
        for name, table in tables:
            console.print(Text(f"  input: {name}; relative L2 errors"))
            for line in table.lines():
                console.print(line, soft_wrap=True)
    if study.skipped:
        console.print()
    for text in skipped_lines(study):
        console.print(Text(f"  {text}"), soft_wrap=True)


def study_tables(study: Any) -> list[tuple[str, list[tuple[str, TextTable]]]]:
    """For each tensor a table for each input."""
    found = []
    for tensor, rows in groupby(study.rows, key=lambda row: row.tensor):
        tables = []
        for name, own in groupby(rows, key=lambda row: row.input):
            table = TextTable(["method", "passes", "format\ncosts", "method\nadds", "together\nbf16 out"],
                              frozenset(range(1, 5)))
            for row in own:
                table.add(row.method, "" if row.passes is None else str(row.passes), _error(row.format_l2),
                          _error(row.added_l2), _error(row.total_l2))
            tables.append((name, table))
        found.append((tensor, tables))
    return found


def skipped_lines(study: Any) -> list[str]:
    """What was not measured, those with one reason in one sentence."""
    together: dict[tuple[str, str], list[str]] = {}
    for tensor, method, reason in study.skipped:
        together.setdefault((tensor, reason), []).append(method)
    return [f"not measured on {tensor}: {', '.join(methods)}: {reason}" for (tensor, reason), methods in together.items()]


def _error(value: float) -> str:
    return "none" if value == 0 else f"{value:.2e}"


def plot_checkpoint_study(study: Any) -> Figure:
    """A panel for each tensor: bars of what the format costs and what the method adds, for the first input."""
    import matplotlib.pyplot as plt

    tensors = list(dict.fromkeys(row.tensor for row in study.rows))[:_MOST_PANELS]
    columns = min(2, max(1, len(tensors)))
    figure, axes = plt.subplots(-(-max(1, len(tensors)) // columns), columns, layout="constrained", squeeze=False,
                                figsize=(8.5 * columns, 4.6 * -(-max(1, len(tensors)) // columns)))
    for place, tensor in zip(axes.flat, tensors, strict=False):
        rows = [row for row in study.rows if row.tensor == tensor]
        _panel(place, tensor, [row for row in rows if row.input == rows[0].input])
    for place in list(axes.flat)[len(tensors) :]:
        place.axis("off")
    return figure


def _panel(axes: Any, tensor: str, rows: Sequence[Any]) -> None:
    labels = [row.method if row.passes is None else f"{row.method} x{row.passes}" for row in rows]
    smallest = min((v for row in rows for v in (row.format_l2, row.added_l2) if v > 0), default=1e-6)
    for shift, (what, colour) in enumerate((("format_l2", "#E69F00"), ("added_l2", "#0072B2"))):
        places = [index + 0.4 * (shift - 0.5) for index in range(len(rows))]
        axes.bar(places, [getattr(row, what) for row in rows], 0.4, color=colour,
                 label=("the weight format costs", "the method adds (FP32 output)")[shift])
        for x, row in zip(places, rows, strict=True):
            if getattr(row, what) == 0:
                axes.text(x, smallest * 0.6, "0", ha="center", va="bottom", fontsize=7)
    axes.set_yscale("log")
    axes.set_ylim(bottom=smallest * 0.5)
    axes.set_xticks(range(len(rows)), labels, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("relative L2 error")
    axes.set_title(f"{tensor if len(tensor) < 70 else '...' + tensor[-66:]}\ninput: {rows[0].input}", fontsize=9)
    axes.grid(True, axis="y", alpha=0.3)
    axes.legend(fontsize=8)
