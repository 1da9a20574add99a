"""Reports on a terminal of 80 columns and more, or in a pipe; what they say comes from :mod:`msdsim.report.facts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from msdsim.report.facts import (
    Fact,
    PipeTimes,
    Report,
    Title,
    comparison_report,
    run_report,
    workload_comparison_report,
    workload_report,
)
from msdsim.report.labels import LOOKS, Look
from msdsim.report.result import Comparison, Result, Skipped, WorkloadComparison, WorkloadResult
from msdsim.report.table import TextTable, wrap

_WAIT_WIDTH = 28
_BAR_WIDTH = (20, 60)
_FACT_WIDTH = 11
_TONES = {"plain": "", "first": "bold", "good": "green", "bad": "bold red"}


def emit(console: Console, lines: Iterable[Text]) -> None:
    """Print lines as they are; a terminal that is too narrow wraps them itself."""
    for line in lines:
        console.print(line, soft_wrap=True)


def print_run(console: Console, run: Result) -> None:
    """One run: its figures, and where the time of the pipes went."""
    print_report(console, run_report(run))


def print_comparison(console: Console, found: Comparison) -> None:
    """Dataflows side by side."""
    print_report(console, comparison_report(found))


def print_workload(console: Console, found: WorkloadResult) -> None:
    """A workload's layers and total."""
    print_report(console, workload_report(found))


def print_workload_comparison(console: Console, found: WorkloadComparison) -> None:
    """A workload with several dataflows."""
    print_report(console, workload_comparison_report(found))


def print_report(console: Console, report: Report) -> None:
    """Everything a report says; its parts are set apart by an empty line."""
    title = [_title(report.title)] if report.title is not None else []
    facts = fact_lines(report.facts, console.width)
    # Facts belong to what they are about: a run, or the table above them.
    heads = [[*title, *facts]] if report.table is None else [title, [*report.table.lines()], facts]
    parts = [
        *heads,
        pipe_lines(report.pipes, console) if report.pipes is not None else [],
        report.formulas.lines() if report.formulas is not None else [],
        [*_sentence(report.verdict, console), *_skipped(report.skipped, console)],
    ]
    for number, lines in enumerate(part for part in parts if part):
        emit(console, [*([Text()] if number else []), *lines])


def _title(title: Title) -> Text:
    subject = Text(title.subject, "bold") + Text("  ") if title.subject else Text()
    return Text.assemble(subject, (title.what, "bold"), f"  {title.where}")


def fact_lines(facts: Sequence[Fact], width: int) -> list[Text]:
    """One line for each fact, wrapped at the width."""
    found = []
    for fact in facts:
        for index, part in enumerate(wrap(fact.text, max(30, width - _FACT_WIDTH - 2))):
            label = fact.name if index == 0 else ""
            found.append(Text.assemble("  ", (f"{label:<{_FACT_WIDTH}}", "dim"), (part, _TONES[fact.tone])))
    return found


# Where the time of the pipes went


def pipe_lines(pipes: PipeTimes, console: Console) -> list[Text]:
    """Per kind of pipe a stacked bar of its time, the share it worked, and what it waits for most."""
    plain = plain_marks(console)
    labels = [Text.assemble((row.label, "bold"), " ", (row.role, "dim")) for row in pipes.rows]
    free = console.width - 2 - max(cell_len(label.plain) for label in labels) - _WAIT_WIDTH - 10
    width = max(_BAR_WIDTH[0], min(_BAR_WIDTH[1], free))
    table = TextTable(("pipe", "its time", "busy", "waits most for"), right=frozenset({2}))
    previous = ""
    for label, row in zip(labels, pipes.rows, strict=True):
        side = row.kind.partition(".")[0]
        if previous and side != previous:
            table.add("")
        previous = side
        share, _, cause = row.waits_for.partition(" ")
        table.add(label, bar(row.shares, width, plain), row.busy, f"{share:>4} {cause}".rstrip())
    title = Text.assemble(("Where the time of the pipes went", "bold"), (f", mean over {pipes.units}", "dim"))
    return [title, *table.lines(), Text(), _legend(pipes.looks, plain)]


def bar(shares: Mapping[str, float], width: int, plain: bool = False) -> Text:
    """A stacked bar of ``width`` cells."""
    text = Text()
    for look, cells in zip(LOOKS, cell_counts([shares[look.category] for look in LOOKS], width), strict=True):
        text.append(_mark(look, plain) * cells, style=look.style)
    return text


def cell_counts(shares: Sequence[float], width: int) -> list[int]:
    """Whole cells for shares that add up to 1, by largest remainder, so that they add up to ``width``."""
    exact = [share * width for share in shares]
    cells = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: cells[index] - exact[index])
    for index in by_remainder[: width - sum(cells)]:
        cells[index] += 1
    return cells


def _legend(looks: Sequence[Look], plain: bool) -> Text:
    """The marks of the categories that occur."""
    text, waits_named = Text("  "), False
    for look in looks:
        is_wait = look.category.startswith("wait_")
        if is_wait and not waits_named:
            text.append("waits: ", "dim")
            waits_named = True
        text.append(_mark(look, plain), style=look.style)
        text.append(f" {look.category.removeprefix('wait_')}  ")
    text.rstrip()
    return text


def plain_marks(console: Console) -> bool:
    """Whether bars must do with ASCII."""
    return not console.encoding.lower().startswith("utf")


def _mark(look: Look, plain: bool) -> str:
    return look.plain_mark if plain else look.mark


# Sentences


def _sentence(text: str, console: Console) -> list[Text]:
    """A sentence, wrapped at the width of a terminal; in a pipe it stays one line."""
    if not text:
        return []
    return [Text(part) for part in (wrap(text, console.width) if console.is_terminal else [text])]


def _skipped(skipped: Sequence[Skipped], console: Console) -> list[Text]:
    """Dataflows that did not run, with the reasons."""
    return [line for item in skipped for line in _sentence(f"skipped {item.dataflow}: {item.reason}", console)]
