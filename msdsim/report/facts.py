"""What a report says, as data: worked out once from a result, and rendered as text, as a page and in a notebook.

Whatever one of them shows they all show, since none of them looks at the result itself; what is measured, in which unit and in
which words, is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.text import Text

from msdsim.hardware.overruled import overruled
from msdsim.numerics.check import Numerics
from msdsim.report.energy import compared_energy, energy_facts, millijoules
from msdsim.report.formulas import formula_facts, formulas_table
from msdsim.report.labels import (
    LOOKS,
    PIPE_ROLES,
    Look,
    figure,
    megabytes,
    ordered_pipes,
    percent,
    pipe_label,
    problem_text,
    resource_label,
    tiling_text,
    us,
)
from msdsim.report.result import Comparison, Result, Skipped, WorkloadComparison, WorkloadResult
from msdsim.report.table import Cell, TextTable
from msdsim.report.verdict import bound_text, verdict, workload_verdict
from msdsim.report.waits import stall_share, waits


@dataclass(frozen=True)
class Title:
    """What was run: ``subject`` is the dataflow, where there is one, ``what`` the problem or workload, ``where`` the chip and
    what was changed about it."""

    subject: str
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what} {self.where}" if self.subject else f"{self.what} {self.where}"


@dataclass(frozen=True)
class Fact:
    """One figure or statement under its name; ``tone`` says how it is to be taken."""

    name: str
    text: str
    tone: Literal["plain", "first", "good", "bad"] = "plain"


@dataclass(frozen=True)
class PipeShares:
    """The time of one kind of pipe: shares of it by category, which add up to 1, and what it waits for most."""

    kind: str
    label: str
    role: str
    shares: Mapping[str, float]
    waits_for: str

    @property
    def busy(self) -> str:
        """Share of its time that it worked."""
        return percent(self.shares["busy"])


@dataclass(frozen=True)
class PipeTimes:
    """Where the time of the pipes went, in the order of the data's way; ``units`` says over what the shares are means."""

    units: str
    rows: tuple[PipeShares, ...]

    @property
    def looks(self) -> list[Look]:
        """The categories that occur."""
        return [look for look in LOOKS if any(row.shares[look.category] for row in self.rows)]


@dataclass(frozen=True)
class Report:
    """Everything a report says, in the order in which it says it."""

    title: Title | None = None
    table: TextTable | None = None
    facts: tuple[Fact, ...] = ()
    pipes: PipeTimes | None = None
    #: A second table, which stands after the facts.
    formulas: TextTable | None = None
    verdict: str = ""
    skipped: tuple[Skipped, ...] = ()


# One run


def run_report(run: Result) -> Report:
    """The whole report of one run."""
    return Report(title(run), facts=tuple(run_facts(run)), pipes=pipe_times(run))


def title(run: Result, subject: str | None = None, what: str | None = None) -> Title:
    """What was run and on which chip."""
    changes = ", ".join(f"{key}={value}" for key, value in run.overrides.items())
    where = f"on {run.hardware.name}" + (f" with {changes}" if changes else "")
    return Title(run.dataflow if subject is None else subject, problem_text(run.problem) if what is None else what, where)


def run_facts(run: Result) -> list[Fact]:
    """The figures of a run."""
    chip = run.hardware.chip
    launch = f" (+ {us(run.launch_us)} launch)" if run.launch_us else ""
    found = [
        Fact("time", f"{us(run.time_us)}{launch}, {run.cycles:,} cycles at {chip.clock_mhz:,g} MHz", "first"),
        *([Fact("bound by", bound_text(run.causes))] if run.causes is not None else []),
        Fact("busiest", _busiest_text(run)),
        Fact("HBM", f"{run.hbm_gbps:,.0f} GB/s, {percent(run.hbm_utilization)} of the peak {chip.hbm.bandwidth_gbps:,g} GB/s"),
        Fact("traffic", _traffic(run.traffic)),
        *(Fact(name, text) for name, text in formula_facts(run)),
        *(Fact(name, text) for name, text in energy_facts(run.energy)),
        *conditions(run),
    ]
    if run.ub_conflict_cycles:
        found.append(Fact("UB banks", f"{run.ub_conflict_cycles:,} cycles lost to conflicts, summed over the AIVs"))
    if run.tiling:
        found.append(Fact("tiling", tiling_text(run.tiling)))
        if run.chosen:
            found.append(Fact("chosen", run.chosen))
    if run.weights:
        found.append(Fact("weights", run.weights))
    if run.numerics is not None:
        found.append(Fact("numbers", _numbers(run.numerics), "good" if run.numerics.good else "bad"))
    return [*found, Fact("simulated", _simulated(run))]


#: What was in L2 when the kernel began, where that is worth saying.
_L2_STARTS = {"warm": "an earlier run of the kernel has filled it",
              "workload": "every operator finds in it what those before it have left"}


#: How a KV cache of several heads lies in GM.
_LAYOUTS = {"bsnd": "all heads of a token side by side, as in the pages of serving stacks (kv_layout=bsnd)",
            "bnsd": "all tokens of a head one after the other (kv_layout=bnsd)"}


def conditions(run: Result) -> list[Fact]:
    """Under which conditions a run was timed, where they are not the usual ones."""
    found = []
    if run.problem.get("kind") == "attention" and run.problem["kv_heads"] > 1:
        page = run.problem.get("page")
        found.append(Fact("KV cache", _LAYOUTS[str(run.problem.get("kv_layout", "bsnd"))]
                          + (f", in pages of {page} tokens that follow each other" if page else "")))
    if run.l2_start in _L2_STARTS:
        found.append(Fact("L2", _L2_STARTS[run.l2_start]))
    if run.energy is None and run.hardware.chip.energy is not None:
        found.append(Fact("note", "no energy: the chip's file has none in energy.mac_pj for a rate of the Cube that is used"))
    found += [Fact("note", text) for text in overruled(run.hardware.chip, run.overrides)]
    if run.memory != "bandwidth":
        found.append(Fact("memory", f"simulated at the fidelity '{run.memory}'"))
    return found


def _busiest_text(run: Result) -> str:
    """The resource that works most of the time, which need not be what binds the run."""
    return f"{resource_label(run.bottleneck.name)}, {percent(run.bottleneck.utilization)} of the time"


def _traffic(traffic: Mapping[str, int]) -> str:
    """Megabytes at HBM and L2."""
    return (f"HBM {megabytes(traffic['hbm_read_bytes'])} MB read, {megabytes(traffic['hbm_write_bytes'])} MB written; "
            f"L2 {megabytes(traffic['l2_read_bytes'])} MB read, {megabytes(traffic['l2_write_bytes'])} MB written")


def _numbers(numbers: Numerics) -> str:
    """The outcome of the check of the numbers."""
    tail = _errors(numbers)
    if numbers.bit_exact:
        return f"bit-exact, {numbers.elements:,} elements; {tail}"
    return f"NOT bit-exact: {numbers.first_mismatch}; {tail}"


def _errors(numbers: Numerics) -> str:
    """Error and bound of what did not overflow, and how much did."""
    over = f"{numbers.overflowed:,} of {numbers.elements:,} outputs overflow BF16" if numbers.overflowed else ""
    if numbers.overflowed == numbers.elements:
        return f"{over}, so there is no error to give"
    bound = "no proven bound" if numbers.bound_ratio is None else \
        f"{numbers.bound_ratio:.2f} of the proven bound"
    text = f"relative L2 error {figure(numbers.relative_l2)}, {bound}"
    return f"{over}; of the others {text}" if over else text


def _simulated(run: Result) -> str:
    """How much was simulated and how long that took."""
    text = f"{run.record.instructions:,} instructions in {run.wall_s:.2f} s, {run.engine} engine"
    if run.record.skipped_iterations:
        text += f" ({run.record.skipped_iterations:,} repeated iterations added instead of simulated)"
    return text


def pipe_times(run: Result) -> PipeTimes:
    """Where the time of the pipes went."""
    stalls, longest = run.stalls, waits(run.record)
    units = " and ".join(f"{row['instances']} {kind.partition('.')[0].upper()}" for kind, row in stalls.items()
                         if kind.endswith(".s"))
    rows = []
    for kind in ordered_pipes(stalls):
        total = stalls[kind]["instances"] * max(1, run.cycles)
        most = longest[kind][0] if longest[kind] and longest[kind][0].share >= 0.005 else None
        rows.append(PipeShares(kind, pipe_label(kind), PIPE_ROLES.get(kind, ""),
                             {look.category: stalls[kind][look.category] / total for look in LOOKS},
                             f"{percent(most.share)} {most.text}" if most is not None else ""))
    return PipeTimes(units, tuple(rows))


# Dataflows side by side


def comparison_report(found: Comparison) -> Report:
    """Dataflows side by side, the winner with the reason, and what was skipped."""
    if not found.runs:
        return Report(skipped=tuple(found.skipped))
    first = found.runs[0]
    energy = [Fact(name, text) for name, text in compared_energy(found.runs, found.winner)]
    return Report(title(first, subject=""), _comparison_table(found), (*conditions(first), *energy),
                  formulas=formulas_table(found.runs), verdict=verdict(found),
                  skipped=tuple(found.skipped))


def _comparison_table(found: Comparison) -> TextTable:
    """One line per dataflow."""
    checked = any(run.numerics is not None for run in found.runs)
    first = found.runs[0]
    energy = any(run.energy is not None for run in found.runs)
    titles = ["dataflow", "time us", "speed\nup", "Cube\nwaits", "HBM\nGB/s", *(["mJ"] if energy else [])]
    table = TextTable([*titles, "busiest", *(["rel. L2", "bits"] if checked else [])],
                      right=frozenset({*range(1, len(titles)), len(titles) + 1}), indent=0)
    for run in found.runs:
        row = run.stalls.get("aic.m")
        cells: list[Cell] = [
            run.dataflow, f"{run.time_us:,.1f}", f"{first.cycles / max(1, run.cycles):.2f}x",
            percent(stall_share(row, run.cycles)) if row else "", f"{run.hbm_gbps:,.0f}",
            *([millijoules(run.energy)] if energy else []), _busiest(run),
        ]
        if checked:
            cells += _number_cells(run.numerics)
        table.add(*cells, style="bold green" if run is found.winner and len(found.runs) > 1 else "")
    return table


def _busiest(run: Result) -> str:
    return f"{resource_label(run.bottleneck.name)} {percent(run.bottleneck.utilization)}"


def _number_cells(numbers: Numerics | None) -> list[Cell]:
    """Relative L2 error, and whether the bits agree."""
    if numbers is None:
        return ["", ""]
    error = "overflow" if numbers.overflowed else figure(numbers.relative_l2)
    return [error, "exact" if numbers.bit_exact else f"{numbers.mismatches:,} differ"]


# Workloads


def workload_report(found: WorkloadResult) -> Report:
    """Per kind of layer: one run, how often, and its share of the total."""
    first = found.runs[0].result
    launches = sum(run.count for run in found.runs)
    head = sum(run.count * run.result.launch_us for run in found.runs)
    total = (f"{us(found.time_us)} in {launches:,} kernels" + (f" (+ {us(head)} of launches)" if head else "")
             + f", HBM {megabytes(found.hbm_bytes)} MB")
    notes = [Fact("note", text) for text in [*_choice_notes(found), *found.notes]]
    energy = [Fact(name, text) for name, text in energy_facts(found.energy)]
    return Report(title(first, subject=found.dataflow, what=found.name), _workload_table(found),
                  (*conditions(first), *notes, *energy, Fact("total", total, "first")))


def _choice_notes(found: WorkloadResult) -> list[str]:
    """Entries that ran with another dataflow than asked for: those with one reason in one sentence."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for run in found.runs:
        if run.note:
            by_reason.setdefault((run.result.dataflow, run.note), []).append(run.name)
    return [f"{dataflow} for {', '.join(names)}: {reason}" for (dataflow, reason), names in by_reason.items()]


def _workload_table(found: WorkloadResult) -> TextTable:
    """One line per entry of the workload."""
    checked = any(run.result.numerics is not None for run in found.runs)
    table = TextTable(["layer", "problem", "us each", "count", "us", "share", "busiest", *(["dataflow"] if found.mixed else []),
                       *(["bits"] if checked else [])], right=frozenset({2, 3, 4, 5}))
    for run in found.runs:
        result, spent = run.result, run.count * run.result.time_us
        sizes = problem_text(result.problem).partition(" ")[2]
        cells: list[Cell] = [run.name, sizes, f"{result.time_us:,.1f}", f"{run.count:,}", f"{spent:,.1f}",
                             percent(spent / found.time_us if found.time_us else 0.0), _busiest(result)]
        if found.mixed:
            cells.append(result.dataflow)
        if checked:
            cells.append(_number_cells(result.numerics)[1])
        table.add(*cells)
    return table


def workload_comparison_report(found: WorkloadComparison) -> Report:
    """A workload with several dataflows: microseconds per kind of layer, and in total."""
    if not found.runs:
        return Report(skipped=tuple(found.skipped))
    first = found.runs[0]
    result = first.runs[0].result
    head = title(result, subject="", what=first.name)
    return Report(replace(head, where=f"{head.where}, us over all layers of a kind"), _workload_comparison_table(found.runs),
                  (*conditions(result), *_comparison_notes(found.runs),
                   *(Fact(name, text) for name, text in compared_energy(found.runs, found.winner))),
                  verdict=workload_verdict(found), skipped=tuple(found.skipped))


def _comparison_notes(runs: Sequence[WorkloadResult]) -> list[Fact]:
    """What must be known about single runs, each note once."""
    notes = [f"{item.dataflow}: {text}" for item in runs for text in (*_choice_notes(item), *item.notes)]
    return [Fact("note", note) for note in dict.fromkeys(notes)]


def _workload_comparison_table(runs: Sequence[WorkloadResult]) -> TextTable:
    """One line per entry of the workload, one column per dataflow."""
    first = runs[0]
    titles = ["layer", "count", *(item.dataflow for item in runs)]
    table = TextTable(titles, right=frozenset(range(1, len(titles))))
    for index, entry in enumerate(first.runs):
        spent = [item.runs[index].count * item.runs[index].result.time_us for item in runs]
        best = min(spent)
        table.add(entry.name, f"{entry.count:,}",
                  *(Text(f"{value:,.1f}", style="bold green" if value == best else "") for value in spent))
    table.add("total", "", *(f"{item.time_us:,.1f}" for item in runs), style="bold")
    if first.energy is not None:
        table.add("energy mJ", "", *(millijoules(item.energy) for item in runs))
    table.add("speed-up", "", *(f"{first.time_us / item.time_us:.2f}x" for item in runs))
    return table
