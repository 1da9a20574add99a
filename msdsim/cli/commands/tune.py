"""``msdsim tune``: search tilings and pipeline variants."""

from __future__ import annotations

from typing import Any

import click

from msdsim.cli.options import dataflow_options, engine_options, hardware_options, options, report_options


@click.command("tune", short_help="Search tilings and pipeline variants of one dataflow.")
@click.argument("problem")
@options(hardware_options, dataflow_options,
         click.option("--budget", type=click.IntRange(min=1), default=200, show_default=True, help="Most simulations."),
         engine_options, report_options[0], report_options[3])
def command(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, budget: int,
            **given: Any) -> None:
    """Climb from the automatic tiling of a dataflow on PROBLEM, or the one given; every candidate is simulated."""
    from msdsim.cli.arguments import read_hardware, read_single_problem, read_tiling
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import timing_options, working
    from msdsim.explore.tune import tune
    from msdsim.report.tune import print_tuning

    outputs = Outputs(json_to=given["json_to"], quiet=given["quiet"])
    outputs.validate()
    shape, hardware = read_single_problem(problem, "tune"), read_hardware(hw, changes)
    chosen = timing_options(given).but(tiling=read_tiling(tiling))
    with working(f"tuning {dataflow}", outputs.quiet):
        found = tune(shape, hardware, dataflow, budget, options=chosen)
    outputs.print(lambda console: print_tuning(console, found))
    outputs.write_json(found.to_json())
