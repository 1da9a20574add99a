"""``msdsim report``: a finished sweep as a page, a picture, CSV."""

from __future__ import annotations

import click

from msdsim.cli.options import options, sweep_report_options


@click.command("report", short_help="A finished sweep as a page, a picture or CSV.")
@click.argument("folder", metavar="DIR")
@options(sweep_report_options)
@click.option("--quiet", is_flag=True, help="Print no tables.")
def command(folder: str, csv_to: str | None, plot_to: str | None, kind: str, html_to: str | None, quiet: bool) -> None:
    """Show what is in DIR, the folder of a sweep: a table, and the files that are asked for.

    Rows of all specs, chips and versions that were ever swept into DIR are taken, each point's last.
    """
    from pathlib import Path

    from msdsim.cli.outputs import Outputs
    from msdsim.explore.sweep.store import read_rows
    from msdsim.report.sweep import print_sweep, write_files
    from msdsim.report.sweep_plot import varied

    outputs = Outputs(plot_to=plot_to, html_to=html_to, csv_to=csv_to, quiet=quiet)
    outputs.validate()
    rows = read_rows(Path(folder))
    outputs.print(lambda console: print_sweep(console, rows, varied(rows), Path(folder)))
    write_files(outputs, rows, Path(folder).resolve().name, kind)
