"""``msdsim micro``: micro measurements made in the simulator beside the published ones."""

from __future__ import annotations

import click

from msdsim.cli.options import engine_options, options, report_options


@click.command("micro", short_help="Copies and instructions measured in the simulator, beside published cycles.")
@click.option("--hw", metavar="NAME|PATH", default=None, help="Only the tables of this chip; all chips by default.")
@options(engine_options[0], report_options[:2], report_options[3])
def command(hw: str | None, engine: str | None, json_to: str | None, plot_to: str | None, quiet: bool) -> None:
    """Measure single transfers, Cube and Vector instructions in the simulator and hold them against published tables."""
    from msdsim.cli.arguments import read_hardware
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.micro import all_micro_tables, median_error, micro_tables
    from msdsim.report.validation import plot_micro, print_micro

    outputs = Outputs(json_to=json_to, plot_to=plot_to, quiet=quiet)
    outputs.validate()
    hardware = None if hw is None else read_hardware(hw, ())
    with working("measuring", quiet, engine):
        tables = all_micro_tables(engine or "fast") if hardware is None else micro_tables(hardware, engine or "fast")
    outputs.print(lambda console: print_micro(console, tables))
    outputs.write_json({"schema": "msdsim.micro/1", "tables": [table.to_json() for table in tables],
                        "median_error": median_error(tables)})
    outputs.write_plot(lambda: plot_micro(tables))
