"""``msdsim sweep``: many simulations over problem, chip, dataflow and tiling parameters."""

from __future__ import annotations

import click

from msdsim.cli.options import options, sweep_report_options


@click.command("sweep", short_help="Grid or random sweep over problem and chip parameters, parallel and resumable.")
@click.argument("spec")
@click.option("--out", metavar="DIR", required=True,
              help="Folder of the results; a sweep that stopped goes on from what is there.")
@click.option("--jobs", type=click.IntRange(min=0), default=0, show_default=True, help="Processes; 0 for one a core.")
@click.option("--scheduler", metavar="ADDR", default=None, help="Work on the Dask cluster at this address instead.")
@options(sweep_report_options)
@click.option("--json", "json_to", metavar="FILE|-", help="Write all rows as JSON; - for standard output, then without tables.")
@click.option("--quiet", is_flag=True, help="Print no tables.")
def command(spec: str, out: str, jobs: int, scheduler: str | None, csv_to: str | None, plot_to: str | None,
            kind: str, html_to: str | None, json_to: str | None, quiet: bool) -> None:
    """Run every point of SPEC, a TOML file with the problem, chips, dataflows and parameters to vary.

    A row goes to DIR/results.jsonl when its point is done, and all of them to DIR/results.parquet at the end where pandas is
    installed.  The same command goes on where an earlier one stopped; rows of another chip, problem or version stay in DIR and
    are not used.  docs/sweeps.md describes SPEC.
    """
    from pathlib import Path

    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.sweep import parse_spec, read_spec, run_sweep
    from msdsim.report.sweep import print_sweep, write_files, write_parquet

    outputs = Outputs(json_to=json_to, plot_to=plot_to, html_to=html_to, csv_to=csv_to, quiet=quiet)
    outputs.validate()
    asked = parse_spec(read_spec(spec))
    with working(f"sweeping {spec}", quiet) as progress:
        rows = run_sweep(asked, out, jobs=jobs, scheduler=scheduler, progress=progress,
                         tell=None if quiet else lambda line: click.echo(line, err=True))
    stored = write_parquet(rows, Path(out))
    outputs.print(lambda console: print_sweep(console, rows, asked.names, stored))
    outputs.write_json({"schema": "msdsim.sweep/1", "rows": rows})
    write_files(outputs, rows, Path(spec).stem, kind)
