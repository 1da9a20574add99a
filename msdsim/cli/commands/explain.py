"""``msdsim explain``: what a run waits for in the end, and what would help."""

from __future__ import annotations

from typing import Any

import click

from msdsim.cli.options import dataflow_options, engine_options, hardware_options, options, report_options, warm_option


@click.command("explain", short_help="Critical path, where the time went, and what a better chip would gain.")
@click.argument("problem")
@options(hardware_options, dataflow_options, engine_options, warm_option, report_options)
def command(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, **given: Any) -> None:
    """Explain the time of PROBLEM with one dataflow: the chain of instructions that its last cycle hangs on, the loop that
    chain runs in its steady state, where all time went by phase, cause and line, and the time on chips that are better in one
    respect."""
    from msdsim.cli.arguments import read_hardware, read_kernel_or_problem, read_tiling
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import refuse_for_kernel, timing_options, working
    from msdsim.explore.explanation import explain
    from msdsim.report.explain import print_explanation

    outputs = Outputs(given["json_to"], given["plot_to"], given["html_to"], quiet=given["quiet"])
    outputs.validate()
    shape, hardware = read_kernel_or_problem(problem, "explain"), read_hardware(hw, changes)
    refuse_for_kernel(problem, shape)
    timing = timing_options(given).but(tiling=read_tiling(tiling), warm=given["warm"])
    named = None if not hasattr(shape, "kind") else dataflow
    with working(f"explaining {named or problem}", outputs.quiet, timing.engine) as progress:
        found = explain(shape, hardware, named, progress=progress, options=timing)
    outputs.print(lambda console: print_explanation(console, found))
    outputs.write_json(found.to_json())
    outputs.write_plot(found.plot)
    outputs.write_html(found.html)
