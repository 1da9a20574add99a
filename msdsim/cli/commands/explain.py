"""``msdsim explain``: what a run waits for in the end, and what would help."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from msdsim.cli.options import dataflow_options, engine_options, hardware_options, options, report_options


@click.command("explain", short_help="Critical path, steady-state circuit, and what a better chip would gain.")
@click.argument("problem")
@options(hardware_options, dataflow_options, engine_options, report_options[0], report_options[3])
def command(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, **given: Any) -> None:
    """Explain the time of PROBLEM with one dataflow: the chain of instructions that its last cycle hangs on, the loop that
    chain runs in its steady state, and the time on chips that are better in one respect."""
    from msdsim.analysis.critical_path import by_place, circuit, critical_path
    from msdsim.api import simulate
    from msdsim.cli.arguments import read_hardware, read_kernel_or_problem, read_tiling
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import refuse_for_kernel, timing_options, working
    from msdsim.explore.whatif import causes, walk, what_if
    from msdsim.report.explain import explanation_json, print_explanation

    outputs = Outputs(json_to=given["json_to"], quiet=given["quiet"])
    outputs.validate()
    shape, hardware = read_kernel_or_problem(problem, "explain"), read_hardware(hw, changes)
    refuse_for_kernel(problem, shape)
    timing = timing_options(given)
    with working(f"explaining {dataflow}", outputs.quiet):
        result = simulate(shape, hardware, dataflow, options=timing, tiling=read_tiling(tiling), timeline=True)
        path = critical_path(result.record)
        # The very same kernel on every changed chip, so that only the chip differs.
        gains = what_if(result, again := lambda changed: simulate(result.kernel, changed, options=timing))
        way = walk(result, again)
    result = replace(result, causes=causes(gains))
    steps, loop = by_place(path), circuit(path)
    outputs.print(lambda console: print_explanation(console, result, steps, loop, gains, way))
    outputs.write_json(explanation_json(result, steps, loop, gains, way))
