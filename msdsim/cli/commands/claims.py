"""``msdsim claims``: the MSD paper's claims, each with what is found here and the input it holds for."""

from __future__ import annotations

import click

from msdsim.cli.options import options, report_options


@click.command("claims")
@click.option("--hw", metavar="NAME|PATH", default="ascend910b1", show_default=True, help="Chip of the claims about time.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random inputs.")
@options(*(option for option in report_options[:2]), report_options[3])
def command(hw: str, seed: int, json_to: str | None, plot_to: str | None, quiet: bool) -> None:
    """Check every claim of the Multi-Scale Dequant paper (arXiv 2605.13915) by computing and simulating it."""
    from dataclasses import asdict

    from msdsim.cli.arguments import read_hardware
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.accuracy.claim_series import claim_series
    from msdsim.explore.accuracy.claims import claims
    from msdsim.explore.claims import timing_claims
    from msdsim.report.studies import plot_claims, print_claims

    outputs = Outputs(json_to=json_to, plot_to=plot_to, quiet=quiet)
    outputs.validate()
    hardware = read_hardware(hw, ())
    with working("checking the claims", quiet):
        rows = claims(timing=timing_claims(hardware), seed=seed)
    outputs.print(lambda console: print_claims(console, rows))
    outputs.write_json({"schema": "msdsim.claims/1", "hw": hardware.name, "seed": seed,
                        "claims": [asdict(row) for row in rows]})
    outputs.write_plot(lambda: plot_claims(claim_series(seed)))
