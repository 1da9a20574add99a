"""A verdict as text: the line a person wants first, then what changed, the kernel, lines with their cycles, categories last."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from msdsim.report.table import TextTable
from msdsim.schedules.difference import Difference
from msdsim.schedules.golden import AnyVerdict
from msdsim.schedules.verdict import Verdict
from msdsim.schedules.workload import WorkloadVerdict

_LONGEST_DIFF = 40
#: Operators of a workload whose differences are shown line by line.
_WHOLE_OPERATORS = 2


def verdict_lines(verdict: AnyVerdict, titles: tuple[str, str] = ("recorded", "now")) -> list[Text]:
    """Everything below the headline."""
    return _of_workload(verdict, titles) if isinstance(verdict, WorkloadVerdict) else _of_one(verdict, titles)


def _of_workload(verdict: WorkloadVerdict, titles: tuple[str, str]) -> list[Text]:
    """What was asked for, every operator that changed in a line, and all about those that moved the total most."""
    found = difference_table(verdict.request, titles) if verdict.request else []
    table = TextTable(("operator", "moves the total by", ""), right=frozenset({1}))
    for name, item in verdict.changed.items():
        table.add(name, f"{verdict.moved(name):+,}", item.headline)
    found += table.lines() if verdict.changed else []
    for name, item in list(verdict.changed.items())[:_WHOLE_OPERATORS]:
        found += [Text(), Text(f"{name}: {item.headline}"), *_of_one(item, titles)]
    left = len(verdict.changed) - _WHOLE_OPERATORS
    return [*found, Text(), Text(f"  {left} more operators differ (--json has all)")] if left > 0 else found


def _of_one(verdict: Verdict, titles: tuple[str, str]) -> list[Text]:
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


def verdict_text(verdict: AnyVerdict) -> str:
    """The whole verdict as plain text, its headline first."""
    return "\n".join([verdict.headline, *(line.plain for line in verdict_lines(verdict))])


def _cycles(line: int | None, cycles: float) -> str:
    return "" if line is None else f"{cycles:,.0f}"
