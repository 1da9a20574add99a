"""Tables, pictures and pages of the error of every method: on one problem, and on the operators of a workload."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.report.checkpoint_accuracy import plot_checkpoint_study, print_checkpoint_study, skipped_lines, study_tables
from msdsim.report.labels import problem_text
from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

#: Columns of errors that fit beside one another.
_MOST_COLUMNS = 6


def shape_lines(found: Any) -> list[str]:
    """What the columns of the tables stand for."""
    return [f"({number}) {problem_text(item.problem.to_json())}: {', '.join(item.names)}"
            for number, item in enumerate(found.shapes, 1)]


def workload_accuracy_tables(found: Any) -> list[tuple[str, TextTable]]:
    """A table for each input: methods down, distinct shapes across, and the worst of them; relative L2 of FP32 outputs."""
    if found.by_operator is not None:
        return [(f"{operator}, input: {name}", table) for operator, tables in study_tables(found.by_operator)
                for name, table in tables]
    tables = []
    for name in dict.fromkeys(row.input for item in found.shapes for row in item.rows):
        methods = list(dict.fromkeys((row.method, row.passes) for item in found.shapes for row in item.rows))
        for first in range(0, len(found.shapes), _MOST_COLUMNS):
            shapes = found.shapes[first : first + _MOST_COLUMNS]
            titles = [f"({number})" for number in range(first + 1, first + 1 + len(shapes))]
            table = TextTable(["method", "passes", *titles, "worst"], frozenset(range(1, len(titles) + 3)))
            for method, passes in methods:
                errors = [next((row.relative_l2_fp32 for row in item.rows
                                if (row.input, row.method, row.passes) == (name, method, passes)), None) for item in shapes]
                known = [error for error in errors if error is not None]
                if known:
                    table.add(method, "" if passes is None else str(passes),
                              *("-" if error is None else f"{error:.2e}" for error in errors), f"{max(known):.2e}")
            tables.append((f"input: {name}; relative L2 errors of FP32 outputs", table))
    return tables


def print_workload_accuracy(console: Console, found: Any) -> None:
    """The tables of a study over a workload."""
    if found.by_operator is not None:
        print_checkpoint_study(console, f"{found.workload}; root mean squares over the tensors of an operator",
                               found.by_operator)
        return
    console.print(Text(found.workload, style="bold"))
    for text in shape_lines(found):
        console.print(Text(f"  {text}"), soft_wrap=True)
    for heading, table in workload_accuracy_tables(found):
        console.print()
        console.print(Text(heading))
        for line in table.lines():
            console.print(line, soft_wrap=True)


def plot_workload_accuracy(found: Any) -> Figure:
    """Relative error by method, a mark for each distinct shape, a panel for each input; of real weights a panel an operator."""
    from msdsim.report.plots import MARKERS, SERIES, new_figure

    if found.by_operator is not None:
        return plot_checkpoint_study(found.by_operator)
    rows = [row for item in found.shapes for row in item.rows]
    names = list(dict.fromkeys((row.method, row.passes) for row in rows))
    inputs = list(dict.fromkeys(row.input for row in rows))
    figure = new_figure(4.5 + 4.5 * len(inputs), 2.4 + 0.26 * len(names) + 0.2 * len(found.shapes),
                        f"Error of every method on the operators of {found.workload}")
    floor = min((row.relative_l2_fp32 for row in rows if row.relative_l2_fp32 > 0), default=1e-8)
    panels = figure.subplots(1, len(inputs), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, inputs, strict=True):
        for number, item in enumerate(found.shapes):
            points = [(row.relative_l2_fp32 or floor, names.index((row.method, row.passes)))
                      for row in item.rows if row.input == name]
            label = f"{', '.join(item.names[:3])}{' ...' if len(item.names) > 3 else ''}"
            axes.plot(*zip(*points, strict=True), linestyle="", marker=MARKERS[number % len(MARKERS)], markersize=6,
                      color=SERIES[number % len(SERIES)], markeredgecolor="white", markeredgewidth=0.5, label=label)
        axes.set_title(f"input: {name}", fontsize=9)
        axes.set_xscale("log")
        axes.set_xlabel("relative L2 error against float64 on the same\nquantized weights or cache, FP32 outputs", fontsize=9)
        axes.grid(True, axis="both", color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    labels = [method + (f", {passes} pass{'es' if passes > 1 else ''}" if passes else "") for method, passes in names]
    panels[0].set_yticks(range(len(names)), labels, fontsize=9)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def workload_accuracy_page(found: Any) -> str:
    """A page about the errors on the operators of a workload."""
    from msdsim.report.html import picture
    from msdsim.report.page import Section, page, table

    sections = [Section("In one picture", picture(plot_workload_accuracy(found), "relative error of every method"))]
    if found.by_operator is None:
        lead = f"<p>Measured were</p><ul>{''.join(f'<li>{escape(text)}</li>' for text in shape_lines(found))}</ul>"
        sections += [Section(heading.partition(";")[0], f"<p>{escape(heading)}</p>{table(item)}")
                     for heading, item in workload_accuracy_tables(found)]
    else:
        lead = "<p>Relative L2 errors on the model's own weights; root mean squares over the tensors of an operator.</p>"
        for operator, tables in study_tables(found.by_operator):
            body = f"<p>stored as {escape(found.by_operator.tensors[operator])}</p>"
            body += "".join(f"<h3>input: {escape(name)}</h3>{table(item)}" for name, item in tables)
            sections.append(Section(operator, body))
        if found.by_operator.skipped:
            items = "".join(f"<li>{escape(text)}</li>" for text in skipped_lines(found.by_operator))
            sections.append(Section("Not measured", f"<ul>{items}</ul>", folded=True))
    return page(f"accuracy on {found.workload}", lead, sections, found.to_json())


def accuracy_page(found: Any) -> str:
    """A page about the errors on one problem."""
    from msdsim.report.html import picture
    from msdsim.report.page import Section, page, table
    from msdsim.report.studies import accuracy_tables, plot_accuracy

    sections = [Section("In one picture", picture(plot_accuracy(str(found.problem), found.rows), "error of every method"))]
    sections += [Section(heading, table(item)) for heading, item in accuracy_tables(found.rows)]
    lead = "<p>Relative errors against float64 on the same quantized weights or cache.</p>"
    return page(f"accuracy on {found.problem}", lead, sections, found.to_json())
