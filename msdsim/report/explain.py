"""An explanation as text, for a notebook and as JSON: the critical path, the steady-state circuit, where the time went, and
what a better chip would gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.analysis.critical_path import PathPlace
from msdsim.report.formulas import gap_table, traffic_text
from msdsim.report.labels import percent, pipe_label
from msdsim.report.table import TextTable
from msdsim.report.verdict import bound_text

if TYPE_CHECKING:
    from rich.console import Console

    from msdsim.report.result import Result


def place_text(result: Result, step: PathPlace) -> str:
    """A place on the path as a person reads it: pipe, then the statement and its line."""
    if step.instr < 0:
        return "dispatch by S" if step.pipe else "a signal on its way"
    part = result.record.program.aic if step.part == "aic" else result.record.program.aiv
    instr = part.instructions()[step.instr]
    if instr.op is None:
        return "flags"
    op = instr.op
    operands = [item.of.name for item in (op.out, *op.ins) if item is not None]
    name = f"{op.kind} {operands[0]}" + (f" <- {', '.join(operands[1:])}" if operands[1:] else "") if operands else \
        f"{op.kind} {op.attr('name', '')}"
    return f"{name} (line {op.line})"


def explanation_tables(found: Any, most: int = 8) -> list[tuple[str, TextTable]]:
    """Everything an explanation (:class:`msdsim.explore.explanation.Explanation`) says, as tables under their headings."""
    result = found.result
    tables = [(f"Critical path: what the last of {result.cycles:,} cycles hangs on", _path_table(result, found.path, most))]
    if found.circuit:
        total = sum(step.cycles for step in found.circuit)
        tables.append((f"Steady state: a circuit of {total:,} cycles", _circuit_table(result, found.circuit, 2 * most)))
    lead = pipe_label(found.attribution.phases.lead)
    tables.append((f"Phases: before, while and after {lead}, the pipe with most to do, works", _phases_table(found)))
    closed = gap_table(result)
    if closed is not None:
        tables.append((f"From the closed form to the simulation; {traffic_text(result, result.closed_form)}", closed))
    tables.append(("Who waits for whom, share of the time of the pipes that wait", _waits_table(found, most)))
    tables.append(("Lines of the kernel that take most of a pipe", _lines_table(found, most)))
    tables.append(("What if, with the same schedule", _what_if_table(found)))
    tables.append(("Step by step to the fastest chip, each change beside those before it", _walk_table(found)))
    return tables


def _path_table(result: Result, steps: Sequence[PathPlace], most: int) -> TextTable:
    table = TextTable(["where", "what", "visits", "cycles", "share"], frozenset((2, 3, 4)))
    for step in steps[:most]:
        share = percent(step.cycles / result.cycles)
        table.add(_pipe(step), place_text(result, step), f"{step.visits:,}", f"{step.cycles:,}", share)
    if rest := steps[most:]:
        left = sum(step.cycles for step in rest)
        table.add("", f"{len(rest)} more", f"{sum(step.visits for step in rest):,}", f"{left:,}", percent(left / result.cycles))
    return table


def _circuit_table(result: Result, loop: Sequence[PathPlace], most: int) -> TextTable:
    table = TextTable(["where", "what", "cycles"], frozenset((2,)))
    for step in loop[:most]:
        table.add(_pipe(step), place_text(result, step), f"{step.cycles:,}")
    if len(loop) > most:
        table.add("", f"{len(loop) - most} more steps", "")
    return table


def _phases_table(found: Any) -> TextTable:
    """Per phase its mean over the cores, and what the leading pipe does in it."""
    result, phases = found.result, found.attribution.phases
    clock, lead = float(result.hardware.chip.clock_mhz), phases.cycles[phases.lead]
    table = TextTable(["phase", "us", "share", f"{pipe_label(phases.lead)} works", "it waits for"], frozenset((1, 2, 3)))
    for phase, cycles in phases.mean.items():
        spent = lead[phase]
        total = sum(spent.values())
        waits = sorted(((name, value) for name, value in spent.items() if name.startswith("wait_")), key=lambda item: -item[1])
        table.add(phase, f"{cycles / clock:,.2f}", percent(cycles / max(1, result.cycles)),
                  percent(spent.get("busy", 0) / total) if total else "",
                  ", ".join(f"{name.removeprefix('wait_')} {percent(value / total)}" for name, value in waits[:3]))
    return table


def _waits_table(found: Any, most: int) -> TextTable:
    table = TextTable(["who", "share", "for what", "of whom"], frozenset((1,)))
    pipes, cycles = found.result.stalls, max(1, found.result.cycles)
    waited = [item for item in found.attribution.causes if item.category.startswith("wait_") and not item.pipe.endswith(".s")]
    by_share = sorted(waited, key=lambda item: -item.cycles / pipes[item.pipe]["instances"])
    for item in by_share[:most]:
        table.add(pipe_label(item.pipe), percent(item.cycles / (pipes[item.pipe]["instances"] * cycles)), item.what,
                  pipe_label(item.whom) if item.whom else "")
    return table


def _lines_table(found: Any, most: int) -> TextTable:
    table = TextTable(["line", "pipe", "works", "waits", "statement"], frozenset((0, 2, 3)))
    pipes, cycles = found.result.stalls, max(1, found.result.cycles)
    lines = [item for item in found.attribution.lines if item.line is not None]
    for item in sorted(lines, key=lambda item: -item.works / pipes[item.pipe]["instances"])[:most]:
        own = pipes[item.pipe]["instances"] * cycles
        table.add(str(item.line), item.pipe, percent(item.works / own), percent((item.cycles - item.works) / own), item.text)
    return table


def _what_if_table(found: Any) -> TextTable:
    table = TextTable(["change", "time us", "speed-up", "it works us", "then"], frozenset((1, 2, 3, 4)))
    for item in found.what_if:
        table.add(item.change, f"{item.time_us:,.2f}", f"{item.speedup:.2f}x", f"{item.works_us:,.2f}",
                  f"{item.works_then_us:,.2f}")
    return table


def _walk_table(found: Any) -> TextTable:
    table = TextTable(["change", "time us", "speed-up so far"], frozenset((1, 2)))
    for step in found.walk:
        table.add(step.change, f"{step.time_us:,.2f}", f"{step.speedup:.2f}x")
    return table


def floor_text(found: Any) -> str:
    """What is left where no change helps any more."""
    last = found.walk[-1] if found.walk else None
    floor = f"{last.time_us:,.2f} us, {last.speedup:.2f}x" if last is not None else f"{found.result.time_us:,.2f} us"
    return f"The floor of this schedule: {floor}, where no one change gains 2% any more."


def print_explanation(console: Console, found: Any) -> None:
    """What binds the run, critical path by place, circuit, phases, waits, lines, what-if, and the way to the fastest chip."""
    console.print(Text.assemble(("Bound by ", "bold"), bound_text(found.result.causes or ())), soft_wrap=True)
    for heading, table in explanation_tables(found):
        console.print()
        console.print(Text(heading, style="bold"), soft_wrap=True)
        for line in table.lines():
            console.print(line, soft_wrap=True)
    console.print()
    console.print(Text(floor_text(found)), soft_wrap=True)


def explanation_html(found: Any) -> str:
    """An explanation as a notebook shows it."""
    from msdsim.report.facts import title
    from msdsim.report.notebook import STYLE, table_html

    parts = [f"<h3>{escape(str(title(found.result)))}</h3><p>Bound by {escape(bound_text(found.result.causes or ()))}</p>"]
    parts += [f"<h4>{escape(heading)}</h4>{table_html(table)}" for heading, table in explanation_tables(found)]
    return f'<div class="msdsim">{STYLE}{"".join(parts)}<p>{escape(floor_text(found))}</p></div>'


def _pipe(step: PathPlace) -> str:
    return f"{step.part.upper()} {step.pipe}" if step.pipe else step.part.upper()


def steps_json(result: Result, found: Sequence[PathPlace]) -> list[dict[str, Any]]:
    """Places of a path with their visits and cycles."""
    return [{"pipe": f"{step.part}.{step.pipe}".lower().rstrip("."), "what": place_text(result, step), "visits": step.visits,
             "cycles": step.cycles} for step in found]


def explanation_json(found: Any) -> dict[str, Any]:
    """Schema ``msdsim.explain/1``."""
    return {"schema": "msdsim.explain/1", "run": found.result.to_json(), "critical_path": steps_json(found.result, found.path),
            "circuit": steps_json(found.result, found.circuit), "attribution": found.attribution.to_json(),
            "what_if": [asdict(item) for item in found.what_if], "walk": [asdict(step) for step in found.walk]}
