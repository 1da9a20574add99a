"""``msdsim accuracy``: how exact every method is on one problem, for several inputs."""

from __future__ import annotations

import click

from msdsim.cli.options import options, report_options


@click.command("accuracy")
@click.argument("problem")
@click.option("--input", "names", metavar="NAME,...", default=None,
              help="Input distributions: uniform, normal, laplace, student-t, outliers; all by default.")
@click.option("--inputs", metavar="FILE.npz", help="Measure on these arrays instead.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random inputs.")
@options(report_options[0], report_options[3])
def command(problem: str, names: str | None, inputs: str | None, seed: int, json_to: str | None, quiet: bool) -> None:
    """Measure the error of dequantization, of MSD with 1, 2 ... passes and of single-pass formats on PROBLEM.

    Errors are against float64 on the same quantized weights or KV cache, with FP32 and with BF16 outputs.
    """
    from dataclasses import asdict

    from msdsim.cli.arguments import read_inputs, read_single_problem
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
    from msdsim.explore.accuracy.study import accuracy_study
    from msdsim.registry import unknown_name
    from msdsim.report.studies import print_accuracy

    outputs = Outputs(json_to=json_to, quiet=quiet)
    outputs.validate()
    shape = read_single_problem(problem, "accuracy")
    chosen = list(DISTRIBUTIONS) if names is None else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in DISTRIBUTIONS:
            raise unknown_name("input distribution", name, list(DISTRIBUTIONS))
    with working(f"measuring {problem}", quiet):
        rows = accuracy_study(shape, chosen, read_inputs(inputs), seed)
    outputs.print(lambda console: print_accuracy(console, str(shape), rows))
    outputs.write_json({"schema": "msdsim.accuracy/1", "problem": shape.to_json(), "seed": seed,
                        "rows": [asdict(row) for row in rows]})
