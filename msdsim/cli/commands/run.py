"""``msdsim run``: one simulation, or every layer of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from msdsim.cli.options import (
    engine_options,
    hardware_options,
    jobs_option,
    mix_options,
    numbers_options,
    options,
    report_options,
    tilings_option,
    trace_options,
    warm_option,
)

if TYPE_CHECKING:
    from msdsim.cli.outputs import Outputs
    from msdsim.hardware import Hardware
    from msdsim.ir.kernel import Kernel
    from msdsim.problems import Problem, Workload
    from msdsim.runs import RunOptions


@click.command("run", short_help="One dataflow: time, what bounds it, what every pipe waits for.")
@click.argument("problem")
@options(
    hardware_options,
    mix_options,
    tilings_option,
    click.option("--reference", metavar="DATAFLOW:PROBLEM",
                 help="With --check of a .kir file: the dataflow and problem whose numbers it computes."),
    click.option("--lines", is_flag=True,
                 help="Also list every line of the kernel: executions, cycles, bytes, L2 hit rate, what it waits for."),
    engine_options, warm_option, jobs_option, numbers_options, report_options, trace_options,
)
def command(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, **given: Any) -> None:
    """Simulate PROBLEM with one dataflow: time, what bounds it, and what every pipe waits for.

    With --check also execute the numbers and compare them bit for bit; a difference leaves with exit code 1.  A hand-written
    kernel is checked for accesses of one place that nothing orders.
    """
    from msdsim.cli.arguments import read_hardware, read_problem, read_tiling, read_trace
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import left_out, refuse_for_workload, run_options
    from msdsim.problems import Workload

    outputs = Outputs(given["json_to"], given["plot_to"], given["html_to"], given["outputs"], given["trace_to"], given["quiet"])
    outputs.validate()
    traced = read_trace(given)
    shape, hardware = read_problem(problem), read_hardware(hw, changes)
    chosen = run_options(given, shape).but(tiling=read_tiling(tiling), reference=given["reference"])
    _refuse_for_kernel(problem, shape, chosen)
    if isinstance(shape, Workload):
        refuse_for_workload(shape, given)
        if given["lines"]:
            from msdsim.errors import InputError

            raise InputError(f"--lines belongs to one problem, and '{shape.name}' has {len(shape.entries)}; give one of them, "
                             f"such as {shape.entries[0].problem}")
        named = None if left_out("dataflow") else dataflow
        _run_workload(shape, hardware, named, chosen, given["jobs"], given["tilings"], outputs)
    else:
        if given["tilings"] is not None:
            from msdsim.errors import InputError

            raise InputError(f"--tilings belongs to a workload, and '{problem}' is one problem; give its own with --tiling")
        _run_problem(shape, hardware, dataflow, chosen, outputs, given["lines"], traced)


def _refuse_for_kernel(text: str, shape: Any, chosen: RunOptions) -> None:
    """A kernel has no dataflow, and only a kernel has a reference; nothing the user says is passed over."""
    from msdsim.cli.simulation import left_out
    from msdsim.errors import InputError
    from msdsim.ir.kernel import Kernel

    if not isinstance(shape, Kernel):
        if chosen.reference is not None:
            raise InputError(f"--reference belongs to a .kir file, and '{text}' has that of its dataflow; leave it out")
        return
    if not left_out("dataflow"):
        raise InputError(f"--dataflow belongs to a problem, and '{text}' is a kernel already; leave it out "
                         f"(--check --reference DATAFLOW:PROBLEM holds its numbers to a dataflow's)")
    if chosen.reference is not None and not chosen.check:
        raise InputError("--reference says what --check compares with; add --check")


def _run_problem(problem: Problem | Kernel, hardware: Hardware, dataflow: str, chosen: RunOptions, outputs: Outputs,
                 lines: bool, traced: dict[str, Any]) -> None:
    from msdsim.api import require_check, simulate
    from msdsim.cli.forecast import forewarn
    from msdsim.cli.simulation import with_causes, with_timeline, working
    from msdsim.ir.declarations import notes
    from msdsim.ir.kernel import Kernel
    from msdsim.ir.lets import plain

    if not isinstance(problem, Kernel) and not outputs.quiet:
        forewarn([problem], chosen)
    with working(dataflow, outputs.quiet, chosen.engine):
        named = None if isinstance(problem, Kernel) else dataflow
        result = with_causes(simulate(problem, hardware, named, options=chosen), chosen)
    outputs.print(lambda console: _console().print_run(console, result))
    for note in notes(plain(problem)) if isinstance(problem, Kernel) and not outputs.quiet else ():
        click.echo(f"note: {note}", err=True)
    if chosen.check and isinstance(problem, Kernel) and not outputs.quiet:
        numbers = f"its numbers are held to {chosen.reference}" if chosen.reference else \
            "a hand-written kernel's numbers have no reference (--reference gives one)"
        click.echo(f"  check      all accesses of one place are ordered; {numbers}")
    if lines:
        from msdsim.report.lines import lines_table

        outputs.print(lambda console: _console().emit(console, ["", *lines_table(result.record)]))
    outputs.write_json(result.to_json() | ({"lines": [line.to_json() for line in result.lines]} if lines else {}))
    outputs.write_arrays(result.arrays)
    outputs.write_plot(result.plot)
    outputs.write_html(lambda: _html().run_page(with_timeline(result, chosen)))
    outputs.write_trace(result.to_trace, traced)
    require_check(result)


def _run_workload(workload: Workload, hardware: Hardware, dataflow: str | None, chosen: RunOptions, jobs: int,
                  tilings: str | None, outputs: Outputs) -> None:
    from msdsim.api import require_check, simulate_workload
    from msdsim.cli.forecast import forewarn
    from msdsim.cli.simulation import working

    if not outputs.quiet:
        forewarn([entry.problem for entry in workload.entries], chosen)
    with working(workload.name, outputs.quiet, chosen.engine) as progress:
        result = simulate_workload(workload, hardware, dataflow, jobs=jobs, progress=progress, tilings=tilings, options=chosen)
    outputs.print(lambda console: _console().print_workload(console, result))
    outputs.write_json(result.to_json())
    outputs.write_plot(result.plot)
    outputs.write_html(lambda: _html().workload_page(result))
    for run in result.runs:
        require_check(run.result)


def _console() -> Any:
    from msdsim.report import console

    return console


def _html() -> Any:
    from msdsim.report import html

    return html
