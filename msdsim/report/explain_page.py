"""The page of an explanation."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from msdsim.report.charts import amount_bars, bandwidth_curves, pipe_bars
from msdsim.report.explain import explanation_tables, floor_text
from msdsim.report.explain_plot import plot_explanation
from msdsim.report.facts import pipe_times, run_facts, title
from msdsim.report.html import facts, picture
from msdsim.report.kernel_page import kernel_section
from msdsim.report.page import Section, page, table
from msdsim.report.steady import timeline
from msdsim.report.verdict import bound_text


def _short(heading: str) -> str:
    """A heading up to its explanation, for the contents."""
    return re.split("[:;,]", heading)[0]


def explanation_page(found: Any) -> str:
    """What binds a run, where its time goes, and what would help, on one page."""
    result = found.result
    gains = [(item.change, item.time_us,
              f"{item.speedup:.2f}x; it works {item.works_us:,.2f} us, then {item.works_then_us:,.2f}")
             for item in found.what_if]
    lead = f"<p>Bound by {escape(bound_text(result.causes or ()))}. {escape(floor_text(found))}</p>{facts(run_facts(result))}"
    sections = [Section("In one picture", picture(plot_explanation(found), "phases of every pipe, and gains of every change"))]
    sections += [Section(_short(name), f"<p>{escape(name)}</p>{table(item)}") for name, item in explanation_tables(found)]
    sections.append(Section("Time with each change", amount_bars(gains, "us")))
    sections.append(Section("Pipes", pipe_bars(pipe_times(result), result.time_us)))
    sections.append(Section("Bandwidth", bandwidth_curves(result)))
    if shown := timeline(result):
        sections.append(Section("Timeline", shown))
    sections.append(Section("Lines of the kernel", kernel_section(result), folded=True))
    return page(str(title(result)), lead, sections, found.to_json())
