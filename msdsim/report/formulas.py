"""Closed forms beside a simulation: time and HBM traffic by formula, and where the rest of the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msdsim.analysis.closed_form import ClosedForm, closed_form
from msdsim.analysis.phases import lead_pipe, phases
from msdsim.report.labels import megabytes, percent, us
from msdsim.report.table import TextTable

#: A run (:class:`msdsim.report.result.Result`), which has a closed form of its own and so cannot be named here.
Result = Any

#: What the parts of a gap are called; they add up to it.
PARTS = {
    "fill": "fill", "drain": "drain", "synchronisation": "signals of other cores", "not_overlapped": "waits for other pipes",
    "dispatch": "dispatch", "starts": "starts of instructions", "contention": "slower than at peak rates",
}


def formula(run: Result) -> ClosedForm | None:
    """The closed form of a run, None where it has none."""
    from msdsim.problems import problem_from_json

    if run.problem.get("kind") not in ("gemm", "grouped_gemm", "attention"):
        return None
    return closed_form(run.dataflow, problem_from_json(dict(run.problem)), run.hardware.chip, run.tiling)


def gap_us(run: Result, found: ClosedForm) -> dict[str, float]:
    """Simulated less formula time by :data:`PARTS`, in microseconds of the pipe with most to do (mean over its instances).

    Before and after its work are fill and drain (without a timeline what it waits before its first instruction counts as
    waiting); in between it waits for signals, for pipes that have not produced or not released what it needs, and for its
    dispatch.  What is left of the gap is ``contention``: the pipe and the memory behind it take longer than the formula's
    largest terms at peak rates (below 0: work that the formula adds up and the kernel overlaps)."""
    lead, clock = lead_pipe(run.record), float(run.hardware.chip.clock_mhz)
    row = run.stalls[lead]
    spent: Mapping[str, float] = {name: row[name] for name in row if name != "instances"}
    fill, drain = 0.0, float(row["drained"])
    if run.record.timeline is not None:
        by_phase = phases(run.record).cycles[lead]
        spent = by_phase["steady"]
        fill, drain = (float(sum(by_phase[name].values())) for name in ("fill", "drain"))
    scale = 1 / (row["instances"] * clock)
    parts = {"fill": fill, "drain": drain, "synchronisation": spent.get("wait_sync", 0),
             "not_overlapped": spent.get("wait_data", 0) + spent.get("wait_buffer", 0), "dispatch": spent.get("wait_issue", 0),
             "starts": spent.get("head", 0)}
    found_us = {name: value * scale for name, value in parts.items()}
    return found_us | {"contention": run.time_us - found.time_us - sum(found_us.values())}


def formula_json(run: Result) -> dict[str, Any] | None:
    """The closed form with the ratio to it and the gap by part."""
    found = run.closed_form
    if found is None:
        return None
    return found.to_json() | {"ratio": run.time_us / found.time_us if found.time_us else None, "gap_us": gap_us(run, found)}


def formula_facts(run: Result) -> list[tuple[str, str]]:
    """What a report of a run says about its closed form."""
    found = run.closed_form
    if found is None:
        return []
    terms = ", ".join(f"{name} {us(value)}" for name, value in found.terms_us.items())
    facts = [("formula", f"{us(found.time_us)} = {found.formula} with {terms}; simulated {_ratio(run, found)}")]
    if text := gap_text(run, found):
        facts.append(("gap", text))
    facts.append(("by formula", traffic_text(run, found)))
    return facts


def gap_text(run: Result, found: ClosedForm) -> str:
    """The parts of a gap that are worth saying, largest first."""
    parts = sorted(gap_us(run, found).items(), key=lambda item: -abs(item[1]))
    told = [f"{PARTS[name]} {_signed(value)}" for name, value in parts if abs(value) >= 0.01 * run.time_us]
    return f"{_signed(run.time_us - found.time_us)} us: {', '.join(told)}" if told else ""


def traffic_text(run: Result, found: ClosedForm) -> str:
    """HBM traffic by formula beside what was simulated, and what it would be if L2 kept nothing."""
    read, write = run.record.traffic["hbm_read_bytes"], run.record.traffic["hbm_write_bytes"]
    text = f"HBM {megabytes(found.hbm_bytes)} MB, every input once ({megabytes(read + write)} MB simulated)"
    if found.uncached_bytes > 1.05 * found.hbm_bytes:
        text += f"; {megabytes(found.uncached_bytes)} MB if L2 kept nothing between the stages"
    return text


def formulas_table(runs: Sequence[Result]) -> TextTable | None:
    """Dataflows side by side: formula and simulation, and the largest part of the gap."""
    known = [(run, found) for run in runs if (found := run.closed_form) is not None]
    if not known:
        return None
    table = TextTable(["by formula", "us", "sim.\nratio", "bound\nby", "HBM\nMB", "sim.\nMB", "without\nL2",
                       "most of the gap"], right=frozenset({1, 2, 4, 5, 6}), indent=0)
    for run, found in known:
        name, value = max(gap_us(run, found).items(), key=lambda item: item[1])
        most = f"{PARTS[name]} {_signed(value)}" if value >= 0.01 * run.time_us else ""
        table.add(run.dataflow, f"{found.time_us:,.1f}", f"{run.time_us / max(found.time_us, 1e-9):.2f}x", found.binding,
                  megabytes(found.hbm_bytes), megabytes(run.hbm_bytes), megabytes(found.uncached_bytes), most)
    return table


def crossing_table(found: Sequence[Any]) -> TextTable:
    """Crossings (:class:`msdsim.explore.crossing.Crossing`), with the speed-ups on the way."""
    table = TextTable(["rows up to which it does not lose", "by\nformula", "by\nsim.", "against the better of",
                       "simulated speed-up"], frozenset((1, 2)), indent=0)
    for item in found:
        rows = ["all" if rows is None else str(rows) for rows in (item.rows_formula, item.rows_simulated)]
        table.add(item.dataflow, *rows, ", ".join(item.baselines),
                  ", ".join(f"m={m}: {simulated:.2f}x" for m, _, simulated in item.steps))
    return table


def gap_table(run: Result) -> TextTable | None:
    """From the formula's terms to the simulated time, part by part."""
    found = run.closed_form
    if found is None:
        return None
    table = TextTable(["what", "us"], frozenset((1,)))
    for name, value in found.terms_us.items():
        table.add(f"term {name}", f"{value:,.2f}")
    table.add(found.formula, f"{found.time_us:,.2f}", style="bold")
    for name, value in gap_us(run, found).items():
        if abs(value) >= 0.005:
            table.add(f"+ {PARTS[name]}", f"{value:+,.2f}")
    table.add("simulated", f"{run.time_us:,.2f}", style="bold")
    return table


def _ratio(run: Result, found: ClosedForm) -> str:
    ratio = run.time_us / found.time_us if found.time_us else 1.0
    return f"{percent(ratio - 1)} above" if ratio >= 1 else f"{percent(1 - ratio)} below"


def _signed(value: float) -> str:
    return f"{value:+,.1f}" if abs(value) >= 10 else f"{value:+.2f}"
