"""A page that sets predictions beside measurements: overall, by family, every row with its components, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from msdsim.report.html import page_of, picture
from msdsim.report.notebook import table_html
from msdsim.report.table import TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def correlator_page(report: Any, pictures: Mapping[str, Figure]) -> str:
    """The page about a validation report (:class:`msdsim.explore.validate.ValidationReport`)."""
    overall = report.overall
    about = (f"{overall.predicted} of {len(report.certain)} rows predicted: median |error| {overall.median_error:.1%}, "
             f"90th percentile {overall.p90_error:.1%}, worst {overall.worst_error:.1%}")
    if report.ambiguous.predicted:
        about += (f"; {report.ambiguous.predicted} rows about which something is uncertain, marked (?): median |error| "
                  f"{report.ambiguous.median_error:.1%}")
    sections = [f"<section><h1>Predictions against measurements: {escape(report.file)}</h1><p>{escape(about)}.</p>"
                f"{table_html(_families(report))}</section>"]
    sections += [f"<section><h2>{escape(name.capitalize())}</h2>{picture(figure, name)}</section>"
                 for name, figure in pictures.items()]
    sections.append(f"<section><h2>Rows</h2>{table_html(_rows(report))}</section>")
    return page_of(f"predictions against measurements, {report.file}", "".join(sections), report.to_json())


def _families(report: Any) -> TextTable:
    table = TextTable(["family", "rows", "median |error|", "90th percentile", "signed median"], frozenset(range(1, 5)))
    for name, errors in report.families.items():
        table.add(name, str(errors.predicted), f"{errors.median_error:.1%}", f"{errors.p90_error:.1%}",
                  f"{errors.signed_median:+.1%}")
    return table


def _rows(report: Any) -> TextTable:
    table = TextTable(["row", "chip", "family", "scope", "measured us", "predicted us", "error"], frozenset((4, 5, 6)))
    for row in report.rows:
        if row.reason:
            table.add(row.id, row.chip, row.family, row.scope, "", "", row.reason)
            continue
        table.add(row.id + (" (?)" if row.ambiguous else ""), row.chip, row.family, row.scope, f"{row.measured_us or 0:,.1f}",
                  f"{row.predicted_us:,.1f}", "" if row.error is None else f"{row.error:+.1%}")
        for part in row.components:
            table.add(f"  of it {part.name}", "", "", "", f"{part.measured_us:,.1f}", f"{part.predicted_us:,.1f}",
                      f"{part.error:+.1%}", style="dim")
    return table
