"""Pages about runs, comparisons and workloads; what they say comes from :mod:`msdsim.report.facts`."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from msdsim.report.charts import amount_bars, bandwidth_curves, flow_bars, pipe_bars
from msdsim.report.facts import Fact, Report, comparison_report, run_report, workload_comparison_report, workload_report
from msdsim.report.kernel_page import kernel_section
from msdsim.report.labels import percent, us
from msdsim.report.page import Section, page, table
from msdsim.report.plots import save, telling_pipes
from msdsim.report.result import Comparison, Result, WorkloadComparison, WorkloadResult
from msdsim.report.steady import timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_page(run: Result) -> str:
    """A page about one run."""
    report = run_report(run)
    sections = [*_run_sections(run, report), Section("Lines of the kernel", kernel_section(run))]
    return page(str(report.title), facts(report.facts), sections, run.to_json())


def comparison_page(found: Comparison) -> str:
    """A page about dataflows side by side, and then each of them, fastest first."""
    report = comparison_report(found)
    sections = [Section("Side by side", _summary(report))]
    if found.runs:
        sections.append(Section("Time by dataflow", flow_bars(found.runs, telling_pipes(found.runs))))
    if report.formulas is not None:
        sections.append(Section("By formula", table(report.formulas)))
    for run in sorted(found.runs, key=lambda run: run.cycles):
        one = run_report(run)
        body = f"<p>{escape(str(one.title))}</p>{facts(one.facts)}" + "".join(part.body for part in _run_sections(run, one))
        sections.append(Section(run.dataflow, body, folded=run is not found.winner))
    return page(str(report.title or "nothing ran"), _lead(report), sections, found.to_json())


def workload_page(found: WorkloadResult) -> str:
    """A page about a workload."""
    report = workload_report(found)
    spent = [run.count * run.result.time_us for run in found.runs]
    rows = [(run.name, time, f"{percent(time / max(found.time_us, 1e-9))}; {_cause(run.result)}")
            for run, time in zip(found.runs, spent, strict=True)]
    sections = [Section("Layers", _summary(report)),
                Section("Time by layer", amount_bars(rows, "us over all layers of a kind"))]
    sections += [Section(run.name, _one(run.result), folded=True) for run in found.runs]
    return page(str(report.title), _lead(report), sections, found.to_json())


def workload_comparison_page(found: WorkloadComparison) -> str:
    """A page about a workload with several dataflows."""
    report = workload_comparison_report(found)
    sections = [Section("Side by side", _summary(report))]
    if found.runs:
        totals = [(run.dataflow, run.time_us, us(run.time_us)) for run in sorted(found.runs, key=lambda run: run.cycles)]
        sections.append(Section("Time by dataflow", amount_bars(totals, "us in total")))
        layers = "".join(f"<h3>{escape(entry.name)}</h3>" + amount_bars(
            [(item.dataflow, item.runs[at].count * item.runs[at].result.time_us, _cause(item.runs[at].result))
             for item in found.runs], "us over all layers of a kind") for at, entry in enumerate(found.runs[0].runs))
        sections.append(Section("Time by layer and dataflow", layers))
    return page(str(report.title or "nothing ran"), _lead(report), sections, found.to_json())


def _cause(run: Result) -> str:
    """What a run is bound by, where that is known, or its busiest resource."""
    from msdsim.report.verdict import binding

    return binding(run)


def _one(run: Result) -> str:
    report = run_report(run)
    return facts(report.facts) + "".join(part.body for part in _run_sections(run, report))


def _run_sections(run: Result, report: Report) -> list[Section]:
    sections = [Section("Pipes", pipe_bars(report.pipes, run.time_us) if report.pipes is not None else ""),
                Section("Bandwidth", bandwidth_curves(run))]
    if shown := timeline(run):
        sections.append(Section("Timeline", shown))
    return sections


def _lead(report: Report) -> str:
    return f"<p>{escape(report.verdict)}</p>" if report.verdict else ""


def _summary(report: Report) -> str:
    """Table, facts, and what was skipped."""
    skipped = "".join(f"<p>skipped <b>{escape(item.dataflow)}</b>: {escape(item.reason)}</p>" for item in report.skipped)
    return (table(report.table) if report.table is not None else "") + facts(report.facts) + skipped


def facts(found: Sequence[Fact]) -> str:
    """Figures under their names."""
    if not found:
        return ""
    tones = {"plain": "wide", "first": "wide w", "good": "wide good", "bad": "wide bad"}
    rows = "".join(f'<tr><th scope="row">{escape(fact.name)}</th><td class="{tones[fact.tone]}">{escape(fact.text)}</td></tr>'
                   for fact in found)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def picture(figure: Figure, alt: str) -> str:
    """A figure inside the page; where the page is narrow it keeps a size that can be read, and scrolls."""
    buffer = io.BytesIO()
    save(figure, buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<div class="scroll" tabindex="0"><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></div>'
