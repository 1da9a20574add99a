"""Tables of an explanation: the critical path, the steady-state circuit, and what a better chip would gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from msdsim.analysis.critical_path import Step
from msdsim.report.table import TextTable
from msdsim.report.verdict import bound_text

if TYPE_CHECKING:
    from rich.console import Console

    from msdsim.report.result import Result


def place_text(result: Result, step: Step) -> str:
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


def print_explanation(console: Console, result: Result, steps: Sequence[Step], loop: Sequence[Step],
                      changes: Sequence[Any], way: Sequence[Any], most: int = 8) -> None:
    """What binds the run, critical path by place, circuit, what-if, and the way to the fastest chip."""
    console.print(Text.assemble(("Bound by ", "bold"), bound_text(result.causes or ())), soft_wrap=True)
    console.print()
    console.print(Text(f"Critical path: what the last of {result.cycles:,} cycles hangs on", style="bold"))
    table = TextTable(["where", "what", "visits", "cycles", "share"], frozenset((2, 3, 4)))
    for step in steps[:most]:
        share = f"{step.cycles / result.cycles:.0%}"
        table.add(_pipe(step), place_text(result, step), f"{step.visits:,}", f"{step.cycles:,}", share)
    rest = steps[most:]
    if rest:
        left = sum(step.cycles for step in rest)
        table.add("", f"{len(rest)} more", f"{sum(step.visits for step in rest):,}", f"{left:,}", f"{left / result.cycles:.0%}")
    _show(console, table)
    if loop:
        console.print(Text(f"Steady state: a circuit of {sum(step.cycles for step in loop):,} cycles", style="bold"))
        table = TextTable(["where", "what", "cycles"], frozenset((2,)))
        for step in loop[: 2 * most]:
            table.add(_pipe(step), place_text(result, step), f"{step.cycles:,}")
        if len(loop) > 2 * most:
            table.add("", f"{len(loop) - 2 * most} more steps", "")
        _show(console, table)
    console.print(Text("What if, with the same schedule", style="bold"))
    table = TextTable(["change", "time us", "speed-up"], frozenset((1, 2)))
    for item in changes:
        table.add(item.change, f"{item.time_us:,.2f}", f"{item.speedup:.2f}x")
    _show(console, table)
    console.print(Text("Step by step to the fastest chip, each change beside those before it", style="bold"))
    table = TextTable(["change", "time us", "speed-up so far"], frozenset((1, 2)))
    for step in way:
        table.add(step.change, f"{step.time_us:,.2f}", f"{step.speedup:.2f}x")
    _show(console, table)
    floor = f"{way[-1].time_us:,.2f} us, {way[-1].speedup:.2f}x" if way else f"{result.time_us:,.2f} us"
    console.print(Text(f"The floor of this schedule: {floor}, where no one change gains 2% any more."), soft_wrap=True)


def _pipe(step: Step) -> str:
    return f"{step.part.upper()} {step.pipe}" if step.pipe else step.part.upper()


def _show(console: Console, table: TextTable) -> None:
    for line in table.lines():
        console.print(line, soft_wrap=True)
    console.print()


def explanation_json(result: Result, steps: Sequence[Step], loop: Sequence[Step], changes: Sequence[Any],
                     way: Sequence[Any]) -> dict[str, Any]:
    """Schema ``msdsim.explain/1``."""

    def rows(found: Sequence[Step]) -> list[dict[str, Any]]:
        return [{"pipe": f"{step.part}.{step.pipe}".lower().rstrip("."), "what": place_text(result, step),
                 "visits": step.visits, "cycles": step.cycles} for step in found]

    return {"schema": "msdsim.explain/1", "run": result.to_json(), "critical_path": rows(steps), "circuit": rows(loop),
            "what_if": [{"change": item.change, "time_us": item.time_us, "speedup": item.speedup} for item in changes],
            "walk": [{"change": step.change, "time_us": step.time_us, "speedup": step.speedup} for step in way]}
