"""``msdsim tune``: search tilings and pipeline variants."""

from __future__ import annotations

from typing import Any

import click

from msdsim.cli.options import dataflow_options, engine_options, hardware_options, options, report_options


@click.command("tune", short_help="Search tilings of a dataflow, or the params of a kernel.")
@click.argument("problem")
@options(hardware_options, dataflow_options,
         click.option("--budget", type=click.IntRange(min=1), default=200, show_default=True, help="Most simulations."),
         click.option("--reference", metavar="DATAFLOW:PROBLEM",
                      help="Of a .kir file: whose numbers every candidate must compute."),
         engine_options, report_options[:2], report_options[3])
def command(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, budget: int,
            **given: Any) -> None:
    """Climb from the automatic tiling of a dataflow on PROBLEM, or the one given; every candidate is simulated.

    Of a .kir file the values of its params are tried ('param base_n = 256 in [64, 128, 256]'), but for those that --tiling
    gives.  A candidate whose accesses have no order, or whose numbers are wrong, is refused.
    """
    from msdsim.cli.arguments import read_hardware, read_kernel_or_problem, read_tiling
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import refuse_for_kernel, timing_options, working
    from msdsim.errors import InputError
    from msdsim.explore.tune import tune
    from msdsim.ir.kernel import Kernel
    from msdsim.report.tune import print_tuning

    outputs = Outputs(json_to=given["json_to"], plot_to=given["plot_to"], quiet=given["quiet"])
    outputs.validate()
    shape, hardware = read_kernel_or_problem(problem, "tune"), read_hardware(hw, changes)
    refuse_for_kernel(problem, shape)
    if given["reference"] is not None and not isinstance(shape, Kernel):
        raise InputError(f"--reference belongs to a .kir file, and '{problem}' has that of its dataflow; leave it out")
    chosen = timing_options(given).but(tiling=read_tiling(tiling), reference=given["reference"])
    with working(f"tuning {problem if isinstance(shape, Kernel) else dataflow}", outputs.quiet) as progress:
        found = tune(shape, hardware, dataflow, budget, options=chosen, progress=progress)
    outputs.print(lambda console: print_tuning(console, found))
    outputs.write_json(found.to_json())
    outputs.write_plot(found.plot)
