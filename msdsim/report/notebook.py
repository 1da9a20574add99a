"""Results as HTML: what a notebook shows for a result, and the parts of the pages that ``--html`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich.text import Text

from msdsim.report.console import (
    bound_text,
    comparison_table,
    numbers_text,
    simulated_text,
    traffic_text,
    wait_text,
    workload_comparison_table,
    workload_table,
)
from msdsim.report.labels import (
    LOOKS,
    PIPE_ROLES,
    megabytes,
    ordered_pipes,
    percent,
    pipe_label,
    problem_text,
    tiling_text,
    us,
)
from msdsim.report.result import Comparison, Result, Skipped, WorkloadComparison, WorkloadResult
from msdsim.report.table import Cell, TextTable
from msdsim.report.verdict import verdict, workload_verdict
from msdsim.report.waits import waits

#: Colours come from the page around it, except for those of the bars, so that it also reads on a dark page.
STYLE = """<style>
.msdsim{font:13px/1.45 system-ui,sans-serif;max-width:60rem}
.msdsim h3{font-size:15px;margin:.2em 0 .5em}
.msdsim table{border-collapse:collapse;margin:.4em 0}
.msdsim td,.msdsim th{padding:.12em .9em .12em 0;text-align:left;white-space:nowrap;border:0;background:none}
.msdsim th{font-weight:normal;opacity:.65}
.msdsim .r{text-align:right}
.msdsim .w{font-weight:bold}
.msdsim .wide{white-space:normal}
.msdsim .bars{min-width:27rem}
.msdsim .bar{display:flex;width:26rem;height:1em;border-radius:2px;overflow:hidden}
.msdsim .key{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 .9em;border-radius:2px;vertical-align:-1px}
.msdsim .bad{color:#D55E00;font-weight:bold}
</style>"""


def result_html(run: Result) -> str:
    """One run: figures, and a stall bar per kind of pipe."""
    return f'<div class="msdsim">{STYLE}{run_parts(run)}</div>'


def comparison_html(found: Comparison) -> str:
    """Dataflows side by side with the winner and why."""
    return f'<div class="msdsim">{STYLE}{comparison_parts(found)}</div>'


def workload_html(found: WorkloadResult) -> str:
    """A workload's layers and total."""
    return f'<div class="msdsim">{STYLE}{workload_parts(found)}</div>'


def workload_comparison_html(found: WorkloadComparison) -> str:
    """A workload with several dataflows."""
    return f'<div class="msdsim">{STYLE}{workload_comparison_parts(found)}</div>'


def run_parts(run: Result) -> str:
    """The inside of :func:`result_html`, for pages that have their own style."""
    chip = run.hardware.chip
    rows = [
        ("time", f"<b>{escape(us(run.time_us))}</b>, {run.cycles:,} cycles at {chip.clock_mhz:,g} MHz"
                 + (f" (+ {escape(us(chip.launch.head_us))} launch)" if chip.launch.head_us else "")),
        ("bound by", escape(bound_text(run))),
        ("HBM", f"{run.hbm_gbps:,.0f} GB/s, {percent(run.hbm_utilization)} of the peak {chip.hbm.bandwidth_gbps:,g} GB/s"),
        ("traffic", escape(traffic_text(run.traffic))),
    ]
    if run.tiling:
        rows.append(("tiling", escape(tiling_text(run.tiling))))
    if run.numerics is not None:
        text = escape(numbers_text(run.numerics))
        rows.append(("numbers", text if run.numerics.bit_exact else f'<span class="bad">{text}</span>'))
    rows.append(("simulated", escape(simulated_text(run))))
    facts = "".join(f'<tr><th>{name}</th><td class="wide">{text}</td></tr>' for name, text in rows)
    return f"<h3>{escape(title(run))}</h3><table>{facts}</table>{stall_bars(run)}"


def title(run: Result) -> str:
    """Dataflow, problem, chip, and what was changed about it."""
    return f"{run.dataflow}: {place(run)}"


def place(run: Result) -> str:
    """Problem and chip."""
    changes = ", ".join(f"{key}={value}" for key, value in run.overrides.items())
    return f"{problem_text(run.problem)} on {run.hardware.name}" + (f" with {changes}" if changes else "")


def stall_bars(run: Result) -> str:
    """Per kind of pipe a stacked bar of its time; hovering tells the figures."""
    longest = waits(run.record)
    rows = []
    for kind in ordered_pipes(run.stalls):
        row = run.stalls[kind]
        total = row["instances"] * max(1, run.cycles)
        pieces = "".join(
            f'<span style="width:{100 * row[look.category] / total:.3f}%;background:{look.colour}" '
            f'title="{look.category}: {100 * row[look.category] / total:.1f}%"></span>'
            for look in LOOKS if row[look.category]
        )
        rows.append(f'<tr><td><b>{pipe_label(kind)}</b> {escape(PIPE_ROLES.get(kind, ""))}</td>'
                    f'<td class="bars"><div class="bar">{pieces}</div></td><td class="r">{percent(row["busy"] / total)}</td>'
                    f"<td>{escape(wait_text(longest[kind]).strip())}</td></tr>")
    keys = "".join(f'<span class="key" style="background:{look.colour}" title="{escape(look.meaning)}"></span>'
                   f"{look.category.replace('_', ' ')}" for look in LOOKS)
    return (f'<table><tr><th>pipe</th><th>its time</th><th class="r">busy</th><th>waits most for</th></tr>{"".join(rows)}'
            f"</table><div>{keys}</div>")


def comparison_parts(found: Comparison) -> str:
    """The inside of :func:`comparison_html`."""
    parts = []
    if found.runs:
        parts = [f"<h3>{escape(place(found.runs[0]))}</h3>", table_html(comparison_table(found)),
                 f"<p>{escape(verdict(found))}</p>"]
    return "".join([*parts, _skipped(found.skipped)])


def workload_parts(found: WorkloadResult) -> str:
    """The inside of :func:`workload_html`."""
    return (f"<h3>{escape(found.name)}, {escape(found.dataflow)} on {escape(found.runs[0].result.hardware.name)}</h3>"
            f"{table_html(workload_table(found))}<p><b>total {us(found.time_us)}</b>, HBM {megabytes(found.hbm_bytes)} MB</p>")


def workload_comparison_parts(found: WorkloadComparison) -> str:
    """The inside of :func:`workload_comparison_html`."""
    parts = []
    if found.runs:
        first = found.runs[0]
        parts = [f"<h3>{escape(first.name)} on {escape(first.runs[0].result.hardware.name)}, us over all layers of a kind</h3>",
                 table_html(workload_comparison_table(found)), f"<p>{escape(workload_verdict(found))}</p>"]
    return "".join([*parts, _skipped(found.skipped)])


def _skipped(skipped: Sequence[Skipped]) -> str:
    return "".join(f"<div>skipped <b>{escape(item.dataflow)}</b>: {escape(item.reason)}</div>" for item in skipped)


def table_html(table: TextTable) -> str:
    """A text table as HTML; a styled row or cell is one to notice."""
    def cells(tag: str, row: Sequence[Cell], style: str) -> str:
        found = []
        for column, cell in enumerate(row):
            text, bold = (cell.plain, bool(cell.style)) if isinstance(cell, Text) else (cell, False)
            names = [name for name, on in (("r", column in table.right), ("w", bold or bool(style))) if on]
            found.append(f'<{tag} class="{" ".join(names)}">{escape(text)}</{tag}>')
        return f"<tr>{''.join(found)}</tr>"

    head = cells("th", [item.replace("\n", " ") for item in table.titles], "")
    return f"<table>{head}{''.join(cells('td', row, style) for row, style in table.rows)}</table>"
