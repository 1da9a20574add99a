"""The page of a finished sweep: pictures, the front, and every row in a table that sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from msdsim.report.page import Section, page, table
from msdsim.report.sweep_charts import CHARTS
from msdsim.report.sweep_plot import cost_of, finished, front, varied
from msdsim.report.table import TextTable

#: Rows that the page's table and its JSON hold.
_MOST_ROWS = 1000
#: Columns beside the parameters, with their titles and formats, where the rows have them.
_COLUMNS = (("time_us", "time us", ",.2f"), ("bottleneck", "busiest", ""), ("hbm_gbps", "HBM GB/s", ",.0f"),
            ("busy.aic.m", "Cube busy", ".0%"), ("busy.aiv.v", "Vector busy", ".0%"),
            ("wait_memory.aic.mte2", "MTE2 waits memory", ".0%"), ("wait_data.aic.m", "Cube waits data", ".0%"),
            ("energy_uj", "energy uJ", ",.1f"), ("relative_l2", "rel. L2", ".2e"))


def sweep_page(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """A page about the rows of a sweep."""
    done, names = finished(rows), varied(rows)
    others = [row for row in rows if row.get("status") != "done"]
    lead = (f"<p>{len(rows):,} points, {len(done):,} of them ran"
            + (f"; varied: {escape(', '.join(names))}" if names else "") + ".</p>")
    sections = []
    # Of different problems none is better than the other.
    alike = len({row["problem"] for row in done}) == 1
    for heading, chart in CHARTS.items():
        if done and (body := chart(done, names)):
            sections.append(Section(heading, body))
    if done and alike:
        cost, label = cost_of(done)
        best = front([row for row in done if row.get(cost) is not None], cost)
        sections.append(Section("The front", f"<p>No other point is faster and has less {escape(label)}.</p>"
                                             f"{table(rows_table(best, names))}"))
    more = f"<p>The first {_MOST_ROWS:,} of {len(done):,}.</p>" if len(done) > _MOST_ROWS else ""
    sections.append(Section("Every point", more + table(rows_table(done[:_MOST_ROWS], names))))
    if others:
        refused = TextTable(["dataflow", *names, "status", "why"])
        for row in others[:_MOST_ROWS]:
            refused.add(str(row["dataflow"]), *(str(row.get(key, "")) for key in names), str(row["status"]), str(row["error"]))
        sections.append(Section("Did not run", table(refused), folded=True))
    return page(f"Sweep {name}", lead, sections, {"schema": "msdsim.sweep/1", "rows": list(rows[:_MOST_ROWS])})


def rows_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> TextTable:
    """Chip, dataflow, parameters and results of rows."""
    columns = [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    titles = ["chip", "dataflow", *names, *(title for _, title, _ in columns)]
    numbers = frozenset(range(2, len(titles))) - {titles.index("busiest") if "busiest" in titles else -1}
    found = TextTable(titles, numbers)
    for row in rows:
        found.add(str(row["hw"]), str(row["dataflow"]), *(str(row.get(name, "")) for name in names),
                  *("" if row.get(key) is None else format(row[key], how) for key, _, how in columns))
    return found
