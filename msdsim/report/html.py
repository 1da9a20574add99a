"""Pages that stand alone: tables, pictures and the JSON of a result in one HTML file, without anything to fetch."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from typing import TYPE_CHECKING, Any

from msdsim.report.facts import Report, comparison_report, run_report, workload_comparison_report, workload_report
from msdsim.report.files import finite
from msdsim.report.notebook import STYLE, report_html
from msdsim.report.plots import plot_bandwidth, plot_comparison, plot_workload, plot_workload_comparison, save
from msdsim.report.result import Comparison, Result, WorkloadComparison, WorkloadResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title>{style}
<style>body{{margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222;background:#fff}}
img{{max-width:100%;height:auto}}
pre{{font-size:12px;overflow-x:auto;background:#f6f6f6;padding:1em}} summary{{cursor:pointer;margin:.8em 0}}
section{{margin:0 0 2.2em}}</style></head>
<body class="msdsim">
{body}
<details><summary>The same as JSON</summary><pre>{document}</pre></details>
</body></html>
"""


def run_page(run: Result) -> str:
    """A page about one run."""
    return _page(run_report(run), _run_section(run), run.to_json())


def comparison_page(found: Comparison) -> str:
    """A page about dataflows side by side, and then each of them."""
    report = comparison_report(found)
    body = _section(report, plot_comparison(found) if found.runs else None, "time by dataflow")
    return _page(report, body + "".join(map(_run_section, found.runs)), found.to_json())


def workload_page(found: WorkloadResult) -> str:
    """A page about a workload."""
    report = workload_report(found)
    return _page(report, _section(report, plot_workload(found), "time by layer"), found.to_json())


def workload_comparison_page(found: WorkloadComparison) -> str:
    """A page about a workload with several dataflows."""
    report = workload_comparison_report(found)
    figure = plot_workload_comparison(found) if found.runs else None
    return _page(report, _section(report, figure, "time by layer and dataflow"), found.to_json())


def _run_section(run: Result) -> str:
    return _section(run_report(run), plot_bandwidth(run), f"bandwidth of {run.dataflow} over time")


def _section(report: Report, figure: Figure | None, alt: str) -> str:
    return f"<section>{report_html(report)}{'' if figure is None else picture(figure, alt)}</section>"


def _data_url(figure: Figure) -> str:
    buffer = io.BytesIO()
    save(figure, buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _page(report: Report, body: str, document: dict[str, Any]) -> str:
    heading = report.title or "nothing ran"
    return page_of(str(heading), body, document)


def page_of(heading: str, body: str, document: dict[str, Any]) -> str:
    """A page of its own with this heading, body and data."""
    return _PAGE.format(title=escape(f"msdsim: {heading}"), style=STYLE, body=body,
                        document=escape(json.dumps(finite(document), indent=2)))


def picture(figure: Figure, alt: str) -> str:
    """A figure inside the page."""
    return f'<p><img alt="{escape(alt)}" src="{_data_url(figure)}"></p>'
