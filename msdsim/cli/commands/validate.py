"""``msdsim validate``: predictions against published measurements."""

from __future__ import annotations

import click

from msdsim.cli.options import engine_options, options, report_options


@click.command("validate", short_help="Predictions against published measurements, error per row and overall.")
@click.argument("file", default="published")
@click.option("--quick", is_flag=True, help="Leave out the rows that take minutes (prefill of 131,072 tokens).")
@options(engine_options[:2], report_options[:2], report_options[3])
def command(file: str, quick: bool, engine: str | None, memory: str, json_to: str | None, plot_to: str | None,
            quiet: bool) -> None:
    """Predict every row of FILE, a TOML file of measurements (the published ones that ship with msdsim by default)."""
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.parity import parity_plot
    from msdsim.explore.validate import validate
    from msdsim.report.validation import print_validation

    outputs = Outputs(json_to=json_to, plot_to=plot_to, quiet=quiet)
    outputs.validate()
    with working(f"validating {file}", quiet, engine):
        report = validate(file, engine=engine or "fast", memory=memory, long=not quick)
    outputs.print(lambda console: print_validation(console, report))
    outputs.write_json(report.to_json())
    outputs.write_plot(lambda: parity_plot(report))
