"""Reports for people: one run, dataflows side by side, a workload.  Made to be read on a terminal of 80 columns and more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from msdsim.numerics.check import Numerics
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
from msdsim.report.table import Cell, TextTable, wrap
from msdsim.report.verdict import BOUND, verdict, workload_verdict
from msdsim.report.waits import Wait, stall_share, waits

_WAIT_WIDTH = 28
_BAR_WIDTH = (20, 60)
_FACT_WIDTH = 11


def emit(console: Console, lines: Iterable[Text]) -> None:
    """Print lines as they are; a terminal that is too narrow wraps them itself."""
    for line in lines:
        console.print(line, soft_wrap=True)


# One run


def print_run(console: Console, run: Result) -> None:
    """The whole report of one run."""
    emit(console, [headline(run), *facts(run, console.width), Text(), *pipe_lines(run, console)])


def headline(run: Result) -> Text:
    """What was run: dataflow, problem, chip and what was changed about it."""
    return Text.assemble((run.dataflow, "bold"), "  ", (problem_text(run.problem), "bold"), _on_chip(run))


def _on_chip(run: Result) -> str:
    changes = ", ".join(f"{key}={value}" for key, value in run.overrides.items())
    return f"  on {run.hardware.name}" + (f" with {changes}" if changes else "")


def facts(run: Result, width: int) -> list[Text]:
    """The figures of a run, one per line."""
    chip = run.hardware.chip
    launch = f" (+ {us(chip.launch.head_us)} launch)" if chip.launch.head_us else ""
    rows: list[tuple[str, str, str]] = [
        ("time", f"{us(run.time_us)}{launch}, {run.cycles:,} cycles at {chip.clock_mhz:,g} MHz", "bold"),
        ("bound by", bound_text(run), ""),
        ("HBM", f"{run.hbm_gbps:,.0f} GB/s, {percent(run.hbm_utilization)} of the peak {chip.hbm.bandwidth_gbps:,g} GB/s", ""),
        ("traffic", traffic_text(run.traffic), ""),
    ]
    if run.l2_start == "warm":
        rows.append(("L2", "an earlier run of the kernel has filled it", ""))
    if run.ub_conflict_cycles:
        rows.append(("UB banks", f"{run.ub_conflict_cycles:,} cycles lost to conflicts, summed over the AIVs", ""))
    if run.tiling:
        rows.append(("tiling", tiling_text(run.tiling), ""))
    if run.numerics is not None:
        rows.append(("numbers", numbers_text(run.numerics), "green" if run.numerics.good else "bold red"))
    rows.append(("simulated", simulated_text(run), ""))
    found = []
    for name, text, style in rows:
        for index, part in enumerate(wrap(text, max(30, width - _FACT_WIDTH - 2))):
            label = name if index == 0 else ""
            found.append(Text.assemble("  ", (f"{label:<{_FACT_WIDTH}}", "dim"), (part, style)))
    return found


def bound_text(run: Result) -> str:
    """What binds the run, or that it waits in turns."""
    found = run.bottleneck
    name, share = resource_label(found.name), percent(found.utilization)
    if found.utilization >= BOUND:
        return f"{name}, {share} busy"
    return f"waiting; the busiest resource, {name}, works {share} of the time"


def traffic_text(traffic: Mapping[str, int]) -> str:
    """Megabytes at HBM and L2."""
    return (f"HBM {megabytes(traffic['hbm_read_bytes'])} MB read, {megabytes(traffic['hbm_write_bytes'])} MB written; "
            f"L2 {megabytes(traffic['l2_read_bytes'])} MB read, {megabytes(traffic['l2_write_bytes'])} MB written")


def numbers_text(numbers: Numerics) -> str:
    """The outcome of the check of the numbers."""
    tail = f"relative L2 error {figure(numbers.relative_l2)}, {numbers.bound_ratio:.2f} of the proven bound"
    if numbers.bit_exact:
        return f"bit-exact, {numbers.elements:,} elements; {tail}"
    return f"NOT bit-exact: {numbers.first_mismatch}; {tail}"


def simulated_text(run: Result) -> str:
    """How much was simulated and how long that took."""
    text = f"{run.record.instructions:,} instructions in {run.wall_s:.2f} s, {run.engine} engine"
    if run.record.skipped_iterations:
        text += f" ({run.record.skipped_iterations:,} repeated iterations added instead of simulated)"
    return text


# Where the time of the pipes went


def pipe_lines(run: Result, console: Console) -> list[Text]:
    """Per kind of pipe a stacked bar of its time, the share it worked, and what it waits for most."""
    stalls, longest, plain = run.stalls, waits(run.record), plain_marks(console)
    labels = {kind: Text.assemble((pipe_label(kind), "bold"), " ", (PIPE_ROLES.get(kind, ""), "dim")) for kind in stalls}
    free = console.width - 2 - max(cell_len(label.plain) for label in labels.values()) - _WAIT_WIDTH - 10
    width = max(_BAR_WIDTH[0], min(_BAR_WIDTH[1], free))
    table = TextTable(("pipe", "its time", "busy", "waits most for"), right=frozenset({2}))
    previous = ""
    for kind in ordered_pipes(stalls):
        row, part = stalls[kind], kind.partition(".")[0]
        if previous and part != previous:
            table.add("")
        previous = part
        share = row["busy"] / (row["instances"] * max(1, run.cycles))
        table.add(labels[kind], bar(row, run.cycles, width, plain), percent(share), wait_text(longest[kind]))
    units = " and ".join(f"{row['instances']} {kind.partition('.')[0].upper()}" for kind, row in stalls.items()
                         if kind.endswith(".s"))
    title = Text.assemble(("Where the time of the pipes went", "bold"), (f", mean over {units}", "dim"))
    return [title, *table.lines(), Text(), legend(stalls, plain)]


def bar(row: Mapping[str, int], cycles: int, width: int, plain: bool = False) -> Text:
    """A stacked bar of ``width`` cells."""
    total = row["instances"] * max(1, cycles)
    text = Text()
    for look, cells in zip(LOOKS, cell_counts([row[look.category] / total for look in LOOKS], width), strict=True):
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


def legend(stalls: Mapping[str, Mapping[str, int]], plain: bool) -> Text:
    """The marks of the categories that occur."""
    text, waits_named = Text("  "), False
    for look in LOOKS:
        if not any(row[look.category] for row in stalls.values()):
            continue
        is_wait = look.category.startswith("wait_")
        if is_wait and not waits_named:
            text.append("waits: ", "dim")
            waits_named = True
        text.append(_mark(look, plain), style=look.style)
        text.append(f" {look.category.removeprefix('wait_')}  ")
    text.rstrip()
    return text


def wait_text(found: Sequence[Wait]) -> str:
    """The longest wait of a pipe in a few words."""
    return f"{percent(found[0].share):>4} {found[0].text}" if found and found[0].share >= 0.005 else ""


def plain_marks(console: Console) -> bool:
    """Whether bars must do with ASCII."""
    return not console.encoding.lower().startswith("utf")


def _mark(look: Look, plain: bool) -> str:
    return look.plain_mark if plain else look.mark


# Dataflows side by side


def print_comparison(console: Console, found: Comparison) -> None:
    """Dataflows side by side, the winner with the reason, and what was skipped."""
    lines: list[Text] = []
    if found.runs:
        first = found.runs[0]
        lines += [Text.assemble((problem_text(first.problem), "bold"), _on_chip(first)), Text()]
        lines += [*comparison_table(found).lines(indent=0), Text(), *sentence(verdict(found), console)]
    emit(console, [*lines, *skipped_lines(found.skipped, console)])


def comparison_table(found: Comparison) -> TextTable:
    """One line per dataflow."""
    checked = any(run.numerics is not None for run in found.runs)
    titles = ["dataflow", "time us", "speed\nup", "Cube\nwaits", "HBM\nGB/s", "HBM\nMB"]
    table = TextTable([*titles, "busiest", *(["rel. L2", "bits"] if checked else [])], right=frozenset({1, 2, 3, 4, 5, 7}))
    first = found.runs[0]
    for run in found.runs:
        row = run.stalls.get("aic.m")
        cells: list[Cell] = [
            run.dataflow, f"{run.time_us:,.1f}", f"{first.cycles / max(1, run.cycles):.2f}x",
            percent(stall_share(row, run.cycles)) if row else "", f"{run.hbm_gbps:,.0f}", megabytes(run.hbm_bytes),
            f"{resource_label(run.bottleneck.name)} {percent(run.bottleneck.utilization)}",
        ]
        if checked:
            cells += number_cells(run.numerics)
        table.add(*cells, style="bold green" if run is found.winner and len(found.runs) > 1 else "")
    return table


def number_cells(numbers: Numerics | None) -> list[Cell]:
    """Relative L2 error, and whether the bits agree."""
    if numbers is None:
        return ["", ""]
    return [figure(numbers.relative_l2), "exact" if numbers.bit_exact else f"{numbers.mismatches:,} differ"]


def sentence(text: str, console: Console) -> list[Text]:
    """A sentence, wrapped at the width of a terminal; in a pipe it stays one line."""
    if not text:
        return []
    return [Text(part) for part in (wrap(text, console.width) if console.is_terminal else [text])]


def skipped_lines(skipped: Sequence[Skipped], console: Console) -> list[Text]:
    """Dataflows that did not run, with the reasons."""
    return [line for item in skipped for line in sentence(f"skipped {item.dataflow}: {item.reason}", console)]


# Workloads


def print_workload(console: Console, found: WorkloadResult) -> None:
    """Per kind of layer: one run, how often, and its share of the total."""
    first = found.runs[0].result
    launches = sum(run.count for run in found.runs)
    head = first.hardware.chip.launch.head_us
    emit(console, [
        Text.assemble((first.dataflow, "bold"), "  ", (found.name, "bold"), _on_chip(first)), Text(),
        *workload_table(found).lines(), Text(),
        Text.assemble("  ", (f"total {us(found.time_us)}", "bold"),
                      f" in {launches:,} kernels" + (f" (+ {us(head * launches)} of launches)" if head else ""),
                      f", HBM {megabytes(found.hbm_bytes)} MB"),
    ])


def workload_table(found: WorkloadResult) -> TextTable:
    """One line per entry of the workload."""
    checked = any(run.result.numerics is not None for run in found.runs)
    table = TextTable(["layer", "problem", "us each", "count", "us", "share", "busiest", *(["bits"] if checked else [])],
                      right=frozenset({2, 3, 4, 5}))
    for run in found.runs:
        result, spent = run.result, run.count * run.result.time_us
        sizes = problem_text(result.problem).partition(" ")[2]
        cells: list[Cell] = [run.name, sizes, f"{result.time_us:,.1f}", f"{run.count:,}", f"{spent:,.1f}",
                             percent(spent / found.time_us if found.time_us else 0.0),
                             f"{resource_label(result.bottleneck.name)} {percent(result.bottleneck.utilization)}"]
        if checked:
            cells.append(number_cells(result.numerics)[1])
        table.add(*cells)
    return table


def print_workload_comparison(console: Console, found: WorkloadComparison) -> None:
    """A workload with several dataflows: microseconds per kind of layer, and in total."""
    lines: list[Text] = []
    if found.runs:
        first = found.runs[0]
        lines += [Text.assemble((first.name, "bold"), _on_chip(first.runs[0].result), ", us over all layers of a kind"), Text()]
        lines += [*workload_comparison_table(found).lines(), Text(), *sentence(workload_verdict(found), console)]
    emit(console, [*lines, *skipped_lines(found.skipped, console)])


def workload_comparison_table(found: WorkloadComparison) -> TextTable:
    """One line per entry of the workload, one column per dataflow."""
    first = found.runs[0]
    titles = ["layer", "count", *(item.dataflow for item in found.runs)]
    table = TextTable(titles, right=frozenset(range(1, len(titles))))
    for index, entry in enumerate(first.runs):
        spent = [item.runs[index].count * item.runs[index].result.time_us for item in found.runs]
        best = min(spent)
        table.add(entry.name, f"{entry.count:,}",
                  *(Text(f"{value:,.1f}", style="bold green" if value == best else "") for value in spent))
    table.add("total", "", *(f"{item.time_us:,.1f}" for item in found.runs), style="bold")
    table.add("speed-up", "", *(f"{first.time_us / item.time_us:.2f}x" for item in found.runs))
    return table
