"""Tables and plots of studies: the claims of the paper, and the accuracy of every method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

#: Okabe and Ito's palette, which colour-blind readers can tell apart; a method has one colour in every panel.
_COLOURS = {"msd-int8": "#0072B2", "dequant-int8": "#56B4E9", "msd-int4": "#D55E00", "dequant-int4": "#E69F00",
            "msd-mxfp4": "#009E73", "mxfp8": "#CC79A7"}
_VERDICT_STYLES = {"reproduced": "green", "not": "red", "holds": "yellow"}


def print_claims(console: Console, rows: Sequence[Any]) -> None:
    """One block a claim: what the paper says, what is found here, on which input, and the verdict."""
    for claim, group in groupby(rows, key=lambda row: row.claim):
        console.print(Text(claim, style="bold"))
        for row in group:
            style = _VERDICT_STYLES.get(row.verdict.split()[0], "")
            console.print(Text.assemble("  ", (row.verdict, style)), soft_wrap=True)
            for label, value in (("claim", row.text), ("paper", row.paper), ("here", row.ours), ("on", row.measured_on)):
                _hanging(console, f"    {label:<6} ", value)
        console.print()


def _hanging(console: Console, label: str, value: str) -> None:
    import textwrap

    width = max(40, console.width)
    lines = textwrap.wrap(value, width - len(label), break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        console.print(Text.assemble((label if number == 0 else " " * len(label), "dim"), line), soft_wrap=True)


def accuracy_tables(rows: Sequence[Any]) -> list[tuple[str, TextTable]]:
    """One table an input: relative L2 of FP32 and BF16 outputs, error over bound, effective bits."""
    found = []
    for name, group in groupby(rows, key=lambda row: row.input):
        table = TextTable(["method", "passes", "rel. L2\nfp32 out", "rel. L2\nbf16 out", "max\nerror", "error /\nbound",
                           "effective\nbits"], frozenset(range(1, 7)))
        for row in group:
            bits = "" if row.effective_bits is None else "exact" if math.isinf(row.effective_bits) else \
                f"{row.effective_bits:.2f}"
            table.add(row.method, "" if row.passes is None else str(row.passes), f"{row.relative_l2_fp32:.2e}",
                      f"{row.relative_l2_bf16:.2e}", f"{row.max_abs_error:.2e}",
                      "-" if row.bound_ratio is None else f"{row.bound_ratio:.2f}", bits)
        found.append((f"input: {name}", table))
    return found


def print_accuracy(console: Console, problem: str, rows: Sequence[Any]) -> None:
    """The tables of a study of accuracy."""
    console.print(Text(problem, style="bold"))
    for heading, table in accuracy_tables(rows):
        console.print()
        console.print(Text(heading))
        for line in table.lines():
            console.print(line, soft_wrap=True)


def plot_accuracy(problem: str, rows: Sequence[Any]) -> Figure:
    """Relative error of the FP32 outputs by method and number of passes, a mark for every input."""
    from msdsim.report.plots import MARKERS, SERIES, new_figure

    names = list(dict.fromkeys((row.method, row.passes) for row in rows))
    inputs = list(dict.fromkeys(row.input for row in rows))
    figure = new_figure(9, 2.0 + 0.26 * len(names), f"Error of every method on {problem}")
    axes = figure.subplots()
    floor = min((row.relative_l2_fp32 for row in rows if row.relative_l2_fp32 > 0), default=1e-8)
    for number, name in enumerate(inputs):
        points = [(row.relative_l2_fp32 or floor, names.index((row.method, row.passes))) for row in rows if row.input == name]
        axes.plot(*zip(*points, strict=True), linestyle="", marker=MARKERS[number % len(MARKERS)], label=name,
                  color=SERIES[number % len(SERIES)], markersize=6, markeredgecolor="white", markeredgewidth=0.5)
    labels = [method + (f", {passes} pass{'es' if passes > 1 else ''}" if passes else "") for method, passes in names]
    axes.set_yticks(range(len(names)), labels, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("relative L2 error against float64 on the same quantized weights, FP32 outputs", fontsize=9)
    axes.grid(True, axis="both", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize=8, frameon=False)
    return figure


def plot_claims(series: Any) -> Figure:
    """Error against passes, effective bits by input, and error against K (from :func:`claim_series`)."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    _lines(axes[0], series.l2_by_passes, "passes", "relative L2, FP32 output", "Error falls with every pass (normal input)")
    axes[0].set_xticks(sorted({count for line in series.l2_by_passes.values() for count in line}))
    methods = list(series.bits_by_input)
    inputs = list(next(iter(series.bits_by_input.values())))
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        places = [index + (number - (len(methods) - 1) / 2) * width for index in range(len(inputs))]
        axes[1].bar(places, [series.bits_by_input[method][name] for name in inputs], width, label=method,
                    color=_COLOURS[method.split()[0]])
    axes[1].set_xticks(range(len(inputs)), inputs, rotation=20)
    axes[1].set_ylabel("effective bits of the activations")
    axes[1].set_title("Effective bits depend on the input")
    _legend(axes[1])
    _lines(axes[2], series.l2_by_k, "K", "relative L2, FP32 output", "Error by reduction length (normal input)")
    axes[2].set_xscale("log", base=2)
    return figure


def _lines(axes: Any, lines: Mapping[str, Mapping[int, float]], x: str, y: str, title: str) -> None:
    markers = "osv^D*P"
    for number, (name, points) in enumerate(lines.items()):
        axes.plot(list(points), list(points.values()), marker=markers[number % len(markers)], label=name,
                  color=_COLOURS[name], linestyle="--" if name.startswith("dequant") else "-")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    axes.grid(True, which="major", alpha=0.3)
    _legend(axes)


def _legend(axes: Any) -> None:
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, frameon=False)
