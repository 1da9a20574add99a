"""``msdsim tune``: search tilings and pipeline variants."""

from __future__ import annotations

from typing import Any

import click

from msdsim.cli.options import engine_options, hardware_options, mix_options, op_option, options, report_options

#: Simulations of each search: of one problem, and of every operator of a workload.
_BUDGETS = (200, 60)


@click.command("tune", short_help="Search tilings of a dataflow, of a workload's operators, or the params of a kernel.")
@click.argument("problem")
@options(hardware_options, mix_options,
         click.option("--budget", type=click.IntRange(min=1), default=None, metavar="N",
                      help=f"Most simulations: {_BUDGETS[0]} of one problem, {_BUDGETS[1]} of each operator of a workload."),
         click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), default=None, metavar="SECONDS",
                      help="Begin no simulation after so long; what is found then depends on the machine."),
         op_option,
         click.option("--out", "out_to", metavar="FILE.toml",
                      help="Of a workload: write the tilings, for 'msdsim run WORKLOAD --tilings FILE.toml'."),
         click.option("--reference", metavar="DATAFLOW:PROBLEM",
                      help="Of a .kir file: whose numbers every candidate must compute."),
         engine_options, report_options)
def command(problem: str, hw: str, changes: tuple[str, ...], dataflow: str, tiling: str | None, budget: int | None,
            **given: Any) -> None:
    """Climb from the automatic tiling of a dataflow on PROBLEM, or the one given; every candidate is simulated.

    Of a workload each distinct operator is searched, and the whole is run before and after: an operator that is not faster
    there keeps its tiling.

    Of a .kir file the values of its params are tried ('param base_n = 256 in [64, 128, 256]'), but for those that --tiling
    gives.  A candidate whose accesses have no order, or whose numbers are wrong, is refused.
    """
    from msdsim.cli.arguments import read_hardware, read_problem, read_tiling
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import left_out, refuse_for_kernel, timing_options, working
    from msdsim.explore.tune import tune
    from msdsim.ir.kernel import Kernel
    from msdsim.problems import Workload
    from msdsim.report.tune import print_tuning, print_workload_tuning

    outputs = Outputs(json_to=given["json_to"], plot_to=given["plot_to"], html_to=given["html_to"], quiet=given["quiet"])
    outputs.validate()
    shape, hardware = read_problem(problem), read_hardware(hw, changes)
    refuse_for_kernel(problem, shape)
    whole = isinstance(shape, Workload)
    _refuse(problem, whole, isinstance(shape, Kernel), given)
    chosen = timing_options(given).but(tiling=read_tiling(tiling), reference=given["reference"])
    named = None if isinstance(shape, Kernel) or (whole and left_out("dataflow")) else dataflow
    with working(f"tuning {named or problem}", outputs.quiet, chosen.engine) as progress:
        found: Any = tune(shape, hardware, named, budget or _BUDGETS[whole], ops=given["ops"], time_limit=given["time_limit"],
                          progress=progress, options=chosen)
    outputs.print(lambda console: (print_workload_tuning if whole else print_tuning)(console, found, given["out_to"]))
    if given["out_to"] is not None:
        found.save(given["out_to"])
    outputs.write_json(found.to_json())
    outputs.write_plot(found.plot)
    outputs.write_html(found.html)


def _refuse(problem: str, whole: bool, kernel: bool, given: dict[str, Any]) -> None:
    """Refuse what belongs to another kind of problem, and a file that could not be written."""
    from msdsim.errors import InputError
    from msdsim.report.files import require_writable

    if given["reference"] is not None and not kernel:
        raise InputError(f"--reference belongs to a .kir file, and '{problem}' has that of its dataflow; leave it out")
    for option, value in (("--op", given["ops"]), ("--out", given["out_to"])):
        if value and not whole:
            raise InputError(f"{option} belongs to a workload, and '{problem}' is one problem; leave it out")
    if given["out_to"] is not None:
        require_writable(given["out_to"], "--out", (".toml",))
        if given["out_to"] in (given["json_to"], given["plot_to"], given["html_to"]):
            raise InputError(f"--out and another option both write '{given['out_to']}'; give two names")
