"""The tables of the fidelity page as Markdown, so that the page can be made anew from what the simulator says now."""

from __future__ import annotations

from collections.abc import Sequence

from msdsim.explore.micro import MicroTable
from msdsim.explore.sensitivity import Sensitivity
from msdsim.explore.validate import ValidationReport


def micro_markdown(tables: Sequence[MicroTable]) -> str:
    """One line a table: sizes with published and simulated cycles, median and worst error."""
    lines = ["| table | chip | size: published / simulated cycles | median | worst |", "|---|---|---|---|---|"]
    for table in tables:
        cells = ", ".join(f"{row.size}: {row.published:g} / {row.simulated:g}" for row in table.rows)
        mark = "" if table.target else " (simulated source)"
        lines.append(f"| {table.title}{mark} | {table.chip} | {cells} | {table.median_error:.1%} | {table.worst.error:+.1%} |")
    return "\n".join(lines)


def validation_markdown(report: ValidationReport, other: ValidationReport | None = None) -> str:
    """One line a row; ``other`` is the same file in the other fidelity of memory."""
    head = "| kernel | chip | scope | measured us | predicted us | error |"
    lines = [head + (f" {other.memory} |" if other else ""), "|---|---|---|---|---|---|" + ("---|" if other else "")]
    for number, row in enumerate(report.rows):
        measured = "" if row.measured_us is None else f"{row.measured_us:.1f}"
        predicted = row.reason if row.predicted_us is None else f"{row.predicted_us:.1f}"
        error = "" if row.error is None else f"{row.error:+.1%}"
        line = f"| {row.id} | {row.chip} | {row.scope} | {measured} | {predicted} | {error} |"
        if other is not None:
            there = other.rows[number].predicted_us
            line += " |" if there is None else f" {there:.1f} |"
        lines.append(line)
    lines += ["", "| component | measured us | predicted us | error |", "|---|---|---|---|"]
    lines += [f"| {row.id}: {part.name} | {part.measured_us:g} | {part.predicted_us:.1f} | {part.error:+.1%} |"
              for row in report.rows for part in row.components]
    lines += ["", "| ratio | published | predicted | error |", "|---|---|---|---|"]
    lines += [f"| {item.of} : {item.to} | {item.measured:.2f} | {item.predicted:.2f} | {item.error:+.1%} |"
              for item in report.ratios]
    return "\n".join(lines)


def sensitivity_markdown(found: Sequence[Sensitivity], least: float = 0.02) -> str:
    """One line a constant: the rows that move by ``least`` or more, for each factor."""
    factors = list(found[0].changes)
    heads = " | ".join(f"x {factor:g}" for factor in factors)
    lines = [f"| constant | kind | {heads} |", "|---" * (2 + len(factors)) + "|"]
    for item in found:
        cells = []
        for factor in factors:
            moved = sorted(((change, row) for row, change in item.changes[factor].items() if abs(change) >= least),
                           key=lambda pair: -abs(pair[0]))
            cells.append(", ".join(f"{row} {change:+.0%}" for change, row in moved) or "nothing by 2%")
        lines.append(f"| `{item.constant}` | {item.kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
