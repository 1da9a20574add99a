"""A verdict as text: the line a person wants first, then what changed, the kernel, lines with their cycles, categories last."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from msdsim.report.table import TextTable
from msdsim.schedules.difference import Difference
from msdsim.schedules.verdict import Verdict

_LONGEST_DIFF = 40


def verdict_lines(verdict: Verdict, titles: tuple[str, str] = ("recorded", "now")) -> list[Text]:
    """Everything below the headline."""
    found = [Text(f"  {what}: {how}") for what, how in verdict.changed]
    if verdict.kernel_diff:
        shown = verdict.kernel_diff[:_LONGEST_DIFF]
        found += [Text(), *(Text(f"  {line}") for line in shown)]
        if len(verdict.kernel_diff) > len(shown):
            found.append(Text(f"  ... {len(verdict.kernel_diff) - len(shown)} more lines of the difference (--json has all)"))
    if verdict.lines:
        table = TextTable(("line", "pipe", *titles, "cycles", "statement"), right=frozenset({0, 2, 3, 4}))
        for item in verdict.lines:
            number = item.line_after if item.line_after is not None else f"(was {item.line_before})"
            table.add(str(number), item.pipe, _cycles(item.line_before, item.before), _cycles(item.line_after, item.after),
                      f"{item.after - item.before:+,.0f}", item.text)
        found += [Text(), Text("  cycles of lines, working and waiting, mean of the cores"), *table.lines()]
    if verdict.differences:
        found += [Text(), *difference_table(verdict.differences, titles)]
    return found


def difference_table(differences: Sequence[Difference], titles: tuple[str, str]) -> list[Text]:
    """Differences as a table."""
    table = TextTable(("", *titles, "change"), right=frozenset({1, 2}))
    for item in differences:
        table.add(item.what, item.before, item.after, item.change)
    return table.lines()


def verdict_text(verdict: Verdict) -> str:
    """The whole verdict as plain text, its headline first."""
    return "\n".join([verdict.headline, *(line.plain for line in verdict_lines(verdict))])


def _cycles(line: int | None, cycles: float) -> str:
    return "" if line is None else f"{cycles:,.0f}"
