"""``msdsim validate``: predictions against published measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from msdsim.cli.options import engine_options, options, report_options

if TYPE_CHECKING:
    from msdsim.explore.validate import ValidationReport


@click.command("validate", short_help="Predictions against published measurements, error per row and overall.")
@click.argument("file", default="published")
@click.option("--quick", is_flag=True, help="Leave out the rows that take minutes (prefill of 131,072 tokens).")
@click.option("--hw", metavar="NAME|PATH", default=None,
              help="The chip of a profiler's table, or a file of your own for the rows of the chip of its name.")
@options(engine_options[:2], report_options)
def command(file: str, quick: bool, hw: str | None, engine: str | None, memory: str, json_to: str | None, plot_to: str | None,
            html_to: str | None, quiet: bool) -> None:
    """Predict every row of FILE: a TOML file of measurements (the published ones that ship with msdsim by default), or a
    profiler's op_summary_*.csv or kernel_details.csv of the chip named by --hw."""
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.parity import parity_plot
    from msdsim.explore.validate import validate
    from msdsim.hardware import load_hw
    from msdsim.report.validation import print_validation

    outputs = Outputs(json_to=json_to, plot_to=plot_to, html_to=html_to, quiet=quiet)
    outputs.validate()
    hardware = None if hw is None else load_hw(hw)
    with working(f"validating {file}", quiet, engine):
        report = validate(file, engine=engine or "fast", memory=memory, long=not quick, hardware=hardware)
    outputs.print(lambda console: print_validation(console, report))
    outputs.write_json(report.to_json())
    outputs.write_plot(lambda: parity_plot(report))
    outputs.write_html(lambda: _page(report))


def _page(report: ValidationReport) -> str:
    from msdsim.explore.parity import components_plot, residuals_plot
    from msdsim.report.correlator import correlator_page

    pictures = {"residuals by family": residuals_plot, "times of pipes": components_plot}
    return correlator_page(report, {name: draw(report) for name, draw in pictures.items()})
