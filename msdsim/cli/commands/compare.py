"""``msdsim compare``: dataflows side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from msdsim.cli.options import (
    engine_options,
    hardware_options,
    jobs_option,
    numbers_options,
    options,
    report_options,
    trace_options,
    warm_option,
)

if TYPE_CHECKING:
    from msdsim.report.shown import ShownComparison, ShownWorkloadComparison


@click.command("compare", short_help="Dataflows side by side, the winner and why.")
@click.argument("problem")
@options(
    hardware_options,
    click.option("--dataflow", "dataflows", metavar="NAME,...|all", default="all", show_default=True,
                 help="Names separated by commas; the first is what the others are measured against."),
    click.option("--tiling", "tilings", metavar="[DATAFLOW:]KEY=VALUE,...", multiple=True,
                 help="A tiling for one dataflow, or for all; FILE.kir:KEY=VALUE sets a kernel's params; repeatable."),
    click.option("--kernel", "kernels", metavar="[DATAFLOW:]FILE.kir", multiple=True,
                 help="A hand-written kernel beside the dataflows; with --check its numbers are DATAFLOW's; repeatable."),
    click.option("--crossing", is_flag=True,
                 help="Also find the rows (m) up to which MSD does not lose to dequantizing, by formula and by simulation."),
    engine_options, warm_option, jobs_option, numbers_options, report_options, trace_options,
)
def command(problem: str, hw: str, changes: tuple[str, ...], dataflows: str, tilings: tuple[str, ...],
            kernels: tuple[str, ...], crossing: bool, **given: Any) -> None:
    """Simulate PROBLEM with several dataflows: time, stalls, traffic and accuracy side by side, the winner and why.

    A dataflow that the problem or the chip rules out is listed with the reason.
    """
    from msdsim.api import compare, compare_workload, dataflows_for, require_check
    from msdsim.cli.arguments import read_dataflows, read_hardware, read_problem, read_tilings, read_trace
    from msdsim.cli.forecast import forewarn
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import refuse_for_workload, run_options, with_causes, working
    from msdsim.errors import InputError
    from msdsim.ir.kernel import Kernel
    from msdsim.problems import Workload

    outputs = Outputs(given["json_to"], given["plot_to"], given["html_to"], given["outputs"], given["trace_to"], given["quiet"])
    outputs.validate()
    traced = read_trace(given)
    shape, hardware = read_problem(problem), read_hardware(hw, changes)
    names = read_dataflows(dataflows)
    chosen = run_options(given, shape)
    if isinstance(shape, Kernel):
        raise InputError(f"'{problem}' is one kernel, and compare runs several dataflows; use run")
    if isinstance(shape, Workload):
        refuse_for_workload(shape, given)
        if kernels:
            raise InputError(f"--kernel belongs to one problem, and '{shape.name}' has {len(shape.entries)}; give one of them, "
                             f"such as {shape.entries[0].problem}")
        kind = shape.entries[0].problem.kind
    else:
        kind = shape.kind
    own = _kernels(kernels)
    shown = [name.rpartition(":")[2] for name in own]
    by_name = read_tilings(tilings, dataflows_for(kind) if names == "all" else list(names), shown)
    if crossing and getattr(shape, "kind", None) != "gemm":
        raise InputError(f"--crossing looks for the rows of one plain matmul, which '{problem}' is not; leave it out")
    if not outputs.quiet:
        problems = [entry.problem for entry in shape.entries] if isinstance(shape, Workload) else [shape]
        forewarn(problems, chosen, len(dataflows_for(kind) if names == "all" else names))
    with working(problem, outputs.quiet, chosen.engine) as progress:
        found: ShownComparison | ShownWorkloadComparison
        if isinstance(shape, Workload):
            found = compare_workload(shape, hardware, names, jobs=given["jobs"], tilings=by_name, progress=progress,
                                     options=chosen)
        else:
            # Threads that share their operands: all cores, unless a number was asked for.
            source = click.get_current_context().get_parameter_source("jobs")
            jobs = 0 if source is click.core.ParameterSource.DEFAULT else given["jobs"]
            found = compare(shape, hardware, names, jobs=jobs, tilings=by_name, kernels=own, progress=progress,
                            options=chosen)
            asked = []
            for run in found.runs:
                asked.append(with_causes(run, chosen))
                progress(len(asked), len(found.runs))
            found = replace(found, runs=asked)
    _report(found, outputs, traced, chosen, _crossings(shape, hardware, chosen, outputs) if crossing else None)
    for result in _results(found):
        require_check(result)


def _kernels(texts: tuple[str, ...]) -> dict[str, Any]:
    """Kernels by the name that they have beside the dataflows, with the dataflow before it where one was given."""
    from pathlib import Path

    from msdsim.errors import InputError
    from msdsim.ir.parser import read_kernel

    found: dict[str, Any] = {}
    for text in texts:
        name, colon, file = text.rpartition(":")
        if not file.endswith(".kir"):
            raise InputError(f"--kernel '{text}' is not [DATAFLOW:]FILE.kir")
        key = f"{name}{colon}{Path(file).name}"
        if key in found:
            raise InputError(f"--kernel names two files '{Path(file).name}'; give one of them another name")
        found[key] = read_kernel(file)
    return found


def _results(found: ShownComparison | ShownWorkloadComparison) -> list[Any]:
    from msdsim.report.shown import ShownComparison

    if isinstance(found, ShownComparison):
        return list(found.runs)
    return [entry.result for run in found.runs for entry in run.runs]


def _crossings(shape: Any, hardware: Any, chosen: Any, outputs: Any) -> list[Any]:
    from msdsim.cli.simulation import timing_only, working
    from msdsim.explore.crossing import crossings

    with working("looking for the crossing", outputs.quiet) as progress:
        return crossings(shape, hardware, progress=progress, options=timing_only(chosen))


def _with_timelines(found: ShownComparison, chosen: Any, quiet: bool) -> list[Any]:
    from msdsim.cli.simulation import with_timeline, working

    runs: list[Any] = []
    with working("recording timelines for the page", quiet) as progress:
        for run in found.runs:
            runs.append(with_timeline(run, chosen))
            progress(len(runs), len(found.runs))
    return runs


def _report(found: ShownComparison | ShownWorkloadComparison, outputs: Any, traced: dict[str, Any],
            chosen: Any, crossings: list[Any] | None) -> None:
    from rich.text import Text

    from msdsim.report import console, html
    from msdsim.report.shown import ShownComparison

    if isinstance(found, ShownComparison):
        outputs.print(lambda terminal: console.print_comparison(terminal, found))
        outputs.write_html(lambda: html.comparison_page(replace(found, runs=_with_timelines(found, chosen, outputs.quiet))))
        outputs.write_arrays({f"{run.dataflow}.{name}": array for run in found.runs for name, array in run.arrays.items()})
        outputs.write_trace(found.to_trace, traced)
    else:
        outputs.print(lambda terminal: console.print_workload_comparison(terminal, found))
        outputs.write_html(lambda: html.workload_comparison_page(found))
    if crossings is not None:
        from msdsim.report.formulas import crossing_table

        outputs.print(lambda terminal: console.emit(terminal, [Text(), *crossing_table(crossings).lines()]))
    outputs.write_json(found.to_json() | ({} if crossings is None else {"crossings": [item.to_json() for item in crossings]}))
    outputs.write_plot(found.plot)
