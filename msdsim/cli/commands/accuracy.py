"""``msdsim accuracy``: how exact every method is on one problem, for several inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from msdsim.cli.options import dtype_option, op_option, options, report_options, scale_rule_option

if TYPE_CHECKING:
    from msdsim.cli.outputs import Outputs


@click.command("accuracy")
@click.argument("problem")
@click.option("--input", "names", metavar="NAME,...", default=None,
              help="Input distributions: uniform, normal, laplace, student-t, outliers; all by default.")
@click.option("--inputs", metavar="FILE.npz", help="Measure on these arrays instead.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of random inputs.")
@options(dtype_option)
@click.option("--weights", metavar="PATH:TENSOR", default=None,
              help="Measure on the weights of a checkpoint: what the format costs and what the method adds; * in the name "
                   "takes every tensor that matches, with its own k and n.  Of a workload MODEL or MODEL:PATTERN: the tensors "
                   "that belong to its operators, one of each kind or those that match.")
@options(op_option, scale_rule_option, report_options)
def command(problem: str, names: str | None, inputs: str | None, seed: int, dtypes: tuple[str, ...], weights: str | None,
            scale_rule: str | None, ops: tuple[str, ...], **given: Any) -> None:
    """Measure the error of dequantization, of MSD with 1, 2 ... passes and of single-pass formats on PROBLEM.

    Errors are against float64 on the same quantized weights or KV cache, with FP32 and with BF16 outputs; with --weights
    against the values that the checkpoint stands for.  Of a workload each distinct reduction is measured once, on some rows and
    columns; without --input on normal activations and on ones with outlier channels.
    """
    from msdsim.cli.arguments import read_inputs, read_problem, read_single_problem
    from msdsim.cli.outputs import Outputs
    from msdsim.cli.simulation import working
    from msdsim.errors import InputError
    from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
    from msdsim.explore.accuracy.measure import accuracy
    from msdsim.formats.mx import DEFAULT_RULE
    from msdsim.problems import Workload
    from msdsim.registry import unknown_name
    from msdsim.report.studies import print_accuracy
    from msdsim.report.workload_accuracy import print_workload_accuracy

    if weights is None and scale_rule is not None:
        raise InputError("--scale-rule of accuracy belongs to --weights; add --weights PATH:TENSOR")
    outputs = Outputs(json_to=given["json_to"], plot_to=given["plot_to"], html_to=given["html_to"], quiet=given["quiet"])
    outputs.validate()
    shape = read_problem(problem)
    whole = isinstance(shape, Workload)
    if not whole:
        shape = read_single_problem(problem, "accuracy")
    chosen = [name.strip() for name in names.split(",")] if names is not None else [] if whole else list(DISTRIBUTIONS)
    for name in chosen:
        if name not in DISTRIBUTIONS:
            raise unknown_name("input distribution", name, list(DISTRIBUTIONS))
    arrays = read_inputs(inputs, dtypes)
    if weights is not None and not whole:
        if given["html_to"] is not None or ops:
            raise InputError("--html and --op with --weights belong to a workload; leave them out, or give a workload")
        _on_checkpoint(shape, weights, chosen, arrays, seed, scale_rule or DEFAULT_RULE, outputs)
        return
    with working(f"measuring {problem}", outputs.quiet) as progress:
        found: Any = accuracy(shape, chosen, inputs=arrays, seed=seed, ops=ops, weights=weights,
                              scale_rule=scale_rule or DEFAULT_RULE, progress=progress if whole else None)
    outputs.print(lambda console: print_workload_accuracy(console, found) if whole else
                  print_accuracy(console, str(shape), found.rows))
    outputs.write_json(found.to_json())
    outputs.write_plot(found.plot)
    outputs.write_html(found.html)


def _on_checkpoint(shape: Any, weights: str, names: list[str], inputs: Any, seed: int, rule: str, outputs: Outputs) -> None:
    """The study of the weights that ``--weights`` names, shown and written."""
    from dataclasses import asdict

    from msdsim.cli.simulation import working
    from msdsim.explore.accuracy.checkpoint_study import checkpoint_study
    from msdsim.report.checkpoint_accuracy import plot_checkpoint_study, print_checkpoint_study

    with working(f"measuring {shape}", outputs.quiet) as progress:
        study = checkpoint_study(shape, weights, names, inputs, seed, rule, progress)
    outputs.print(lambda console: print_checkpoint_study(console, str(shape), study))
    outputs.write_json({
        "schema": "msdsim.accuracy/1", "problem": shape.to_json(), "seed": seed, "scale_rule": rule, "tensors": study.tensors,
        "rows": [asdict(row) for row in study.rows],
        "skipped": [{"tensor": tensor, "method": method, "reason": reason} for tensor, method, reason in study.skipped]})
    outputs.write_plot(lambda: plot_checkpoint_study(study))
