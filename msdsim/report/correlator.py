"""A page that sets predictions beside measurements: overall, by family, every row with its components, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from msdsim.report.html import picture
from msdsim.report.page import Section, page, table
from msdsim.report.table import TextTable
from msdsim.report.xy_chart import Bands, ChartAxis, Mark, xy_chart

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
    sections = [Section("By family", table(_families(report)))]
    sections.append(Section("Parity", _parity(report)))
    sections += [Section(name.capitalize(), picture(figure, name)) for name, figure in pictures.items()]
    sections.append(Section("Rows", table(_rows(report))))
    return page(f"Predictions against measurements: {report.file}", f"<p>{escape(about)}.</p>", sections, report.to_json())


def _parity(report: Any) -> str:
    """Predicted against measured time of every row by chip, with bands of 10 and 30% around equality."""
    series: dict[str, list[Mark]] = {}
    for row in report.rows:
        if row.error is not None and not row.ambiguous:
            said = f"measured {row.measured_us:,.1f} us, predicted {row.predicted_us:,.1f}, {row.error:+.1%}"
            point = Mark(row.measured_us, row.predicted_us, f"{row.id}\n{row.family}\n{said}")
            series.setdefault(row.chip, []).append(point)
    predicted = ChartAxis("predicted (us); bands 10% and 30% around equality", True)
    return xy_chart(series, ChartAxis("measured (us)", True), predicted,
                    bands=Bands((0.3, 0.1)), label="predicted against measured time")


def _families(report: Any) -> TextTable:
    found = TextTable(["family", "rows", "median |error|", "90th percentile", "signed median"], frozenset(range(1, 5)))
    for name, errors in report.families.items():
        found.add(name, str(errors.predicted), f"{errors.median_error:.1%}", f"{errors.p90_error:.1%}",
                  f"{errors.signed_median:+.1%}")
    return found


def _rows(report: Any) -> TextTable:
    found = TextTable(["row", "chip", "family", "scope", "measured us", "predicted us", "error"], frozenset((4, 5, 6)))
    for row in report.rows:
        if row.reason:
            found.add(row.id, row.chip, row.family, row.scope, "", "", row.reason)
            continue
        found.add(row.id + (" (?)" if row.ambiguous else ""), row.chip, row.family, row.scope, f"{row.measured_us or 0:,.1f}",
                  f"{row.predicted_us:,.1f}", "" if row.error is None else f"{row.error:+.1%}")
        for part in row.components:
            # Named after its row, so that it stays beside it when the table is sorted.
            name = f"{row.id}: of it {part.name}"
            found.add(name, "", "", "", f"{part.measured_us:,.1f}", f"{part.predicted_us:,.1f}",
                      f"{part.error:+.1%}", style="dim")
    return found
