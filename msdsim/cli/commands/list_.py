"""``msdsim list``: the chips, workloads, dataflows, formats and families of models there are."""

from __future__ import annotations

from typing import Any

import click


@click.command("list", short_help="Chips, workloads, dataflows, formats and families of models there are.")
@click.argument("what", type=click.Choice(["hw", "workloads", "dataflows", "formats", "families"]),
                metavar="hw|workloads|dataflows|formats|families")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--verbose", is_flag=True, help="A chip's numbers with their sources, a workload's problems, tiling keys.")
@click.option("--json", "json_to", metavar="FILE|-", help="Write the list as JSON; - for standard output, then without tables.")
def command(what: str, names: tuple[str, ...], verbose: bool, json_to: str | None) -> None:
    """List what there is; with names only these."""
    from msdsim.cli import catalogue
    from msdsim.cli.outputs import Outputs

    outputs = Outputs(json_to=json_to)
    outputs.validate()
    entries: list[dict[str, Any]] = catalogue.CATALOGUES[what](names, verbose)
    outputs.print(lambda console: catalogue.show(console, what, entries, verbose))
    outputs.write_json({"schema": "msdsim.list/1", what: entries})
