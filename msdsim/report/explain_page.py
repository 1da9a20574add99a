"""The page of an explanation."""

from __future__ import annotations

from html import escape
from typing import Any

from msdsim.report.explain import explanation_tables, floor_text
from msdsim.report.explain_plot import plot_explanation
from msdsim.report.facts import title
from msdsim.report.html import page_of, picture
from msdsim.report.notebook import table_html
from msdsim.report.verdict import bound_text


def explanation_page(found: Any) -> str:
    """What binds a run, where its time goes, and what would help, on one page."""
    heading = str(title(found.result))
    sections = [f"<section><h1>{escape(heading)}</h1><p>Bound by {escape(bound_text(found.result.causes or ()))}.</p>"
                f"{picture(plot_explanation(found), 'phases, and gains of every change')}</section>"]
    sections += [f"<section><h2>{escape(name)}</h2>{table_html(table)}</section>" for name, table in explanation_tables(found)]
    sections.append(f"<p>{escape(floor_text(found))}</p>")
    return page_of(heading, "".join(sections), found.to_json())
