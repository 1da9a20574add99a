"""Reports as HTML: what a notebook shows for a result, and the inside of the pages that ``--html`` writes; what they say comes
from :mod:`msdsim.report.facts`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich.text import Text

from msdsim.report.facts import Fact, PipeShares, PipeTimes, Report
from msdsim.report.labels import LOOKS
from msdsim.report.table import Cell, TextTable

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


def notebook_html(report: Report) -> str:
    """A report as a notebook shows it, with its style."""
    return f'<div class="msdsim">{STYLE}{report_html(report)}</div>'


def titled_tables(heading: str, tables: Sequence[tuple[str, TextTable]]) -> str:
    """Tables under their headings as a notebook shows them, with their style."""
    parts = "".join(f"<h4>{escape(name)}</h4>{table_html(table)}" for name, table in tables)
    return f'<div class="msdsim">{STYLE}<h3>{escape(heading)}</h3>{parts}</div>'


def report_html(report: Report) -> str:
    """Everything a report says, for pages that have their own style."""
    return "".join([
        f"<h3>{escape(str(report.title))}</h3>" if report.title is not None else "",
        table_html(report.table) if report.table is not None else "",
        _facts(report.facts) if report.facts else "",
        _pipes(report.pipes) if report.pipes is not None else "",
        table_html(report.formulas) if report.formulas is not None else "",
        f"<p>{escape(report.verdict)}</p>" if report.verdict else "",
        *(f"<div>skipped <b>{escape(item.dataflow)}</b>: {escape(item.reason)}</div>" for item in report.skipped),
    ])


def _facts(facts: Sequence[Fact]) -> str:
    names = {"plain": "wide", "first": "wide w", "good": "wide", "bad": "wide bad"}
    rows = "".join(f'<tr><th>{escape(fact.name)}</th><td class="{names[fact.tone]}">{escape(fact.text)}</td></tr>'
                   for fact in facts)
    return f"<table>{rows}</table>"


def _pipes(pipes: PipeTimes) -> str:
    """Per kind of pipe a stacked bar of its time; hovering tells the figures."""
    rows = "".join(
        f'<tr><td><b>{escape(row.label)}</b> {escape(row.role)}</td><td class="bars">{_bar(row)}</td>'
        f'<td class="r">{escape(row.busy)}</td><td>{escape(row.waits_for)}</td></tr>' for row in pipes.rows)
    keys = "".join(f'<span class="key" style="background:{look.colour}" title="{escape(look.meaning)}"></span>'
                   f"{look.category.replace('_', ' ')}" for look in pipes.looks)
    return (f"<p>Where the time of the pipes went, mean over {escape(pipes.units)}</p>"
            f'<table><tr><th>pipe</th><th>its time</th><th class="r">busy</th><th>waits most for</th></tr>{rows}</table>'
            f"<div>{keys}</div>")


def _bar(row: PipeShares) -> str:
    pieces = "".join(
        f'<span style="width:{100 * share:.3f}%;background:{look.colour}" title="{look.category}: {100 * share:.1f}%"></span>'
        for look in LOOKS if (share := row.shares[look.category]))
    return f'<div class="bar">{pieces}</div>'


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
