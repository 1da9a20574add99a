"""Options that several commands share, as decorators; what they mean is read in :mod:`msdsim.cli.arguments`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Seed(click.IntRange):
    """A whole number of at least 0."""

    name = "whole number"

    def __init__(self) -> None:
        super().__init__(min=0)


hardware_options = (
    click.option("--hw", metavar="NAME|PATH", default="ascend910b1", show_default=True,
                 help="The chip: a name ('msdsim list hw') or a .toml file."),
    click.option("--set", "changes", metavar="KEY=VALUE", multiple=True,
                 help="Change one number of the chip by its dotted path, such as hbm.bandwidth_gbps=3200; repeatable."),
)
dataflow_options = (
    click.option("--dataflow", metavar="NAME", default="bf16", show_default=True,
                 help="How to run it ('msdsim list dataflows')."),
    click.option("--tiling", metavar="KEY=VALUE,...", help="Tile sizes and ring depths; what is left out is chosen (auto)."),
)
#: The same, where the operators of a workload may be run each in its own way.
mix_options = (
    click.option("--dataflow", metavar="NAME|MIX", default="bf16", show_default=True,
                 help="How to run it ('msdsim list dataflows'); a workload by kind or name of operator, such as "
                      "gemm=w8a8,attention=bf16,lm_head=bf16; best:NAME takes the fastest of those as accurate as NAME."),
    dataflow_options[1],
)
engine_options = (
    click.option("--engine", metavar="NAME", default=None, help="fast (the default) or reference."),
    click.option("--memory", metavar="NAME", default="bandwidth", show_default=True, help="Fidelity of the memory system."),
    click.option("--no-skip", is_flag=True, help="Simulate repeated iterations one by one; the result is the same."),
)
warm_option = click.option("--warm", is_flag=True,
                           help="Run the kernel twice and time the second run, which finds in L2 what the first left.")
jobs_option = click.option("--jobs", type=click.IntRange(min=0), default=1, show_default=True,
                           help="Processes that execute the numbers of a workload's layers; 0 for one a core.")
op_option = click.option("--op", "ops", metavar="NAME", multiple=True,
                         help="Of a workload: this operator alone; repeatable.")
tilings_option = click.option("--tilings", metavar="FILE.toml", default=None,
                              help="Of a workload: tilings by operator, as 'msdsim tune WORKLOAD --out FILE.toml' writes them.")
dtype_option = click.option("--dtype", "dtypes", metavar="[NAME=]DTYPE", multiple=True,
                            help="What an array of --inputs without a type is, such as bfloat16 or x=float8_e4m3fn; "
                                 "repeatable.")
scale_rule_option = click.option("--scale-rule", metavar="RULE", default=None,
                                 help="Block scales of values quantized to MXFP4: floor (the default, OCP), rceil, ceil, even "
                                      "or alpha.")
numbers_options = (
    click.option("--seed", type=Seed(), metavar="N", default=0, show_default=True, help="Seed of random inputs."),
    click.option("--inputs", metavar="FILE.npz", help="Input arrays; what they lack is drawn from the seed."),
    dtype_option,
    click.option("--weights", metavar="PATH:TENSOR", default=None,
                 help="Weights of the matmul from a checkpoint (safetensors file, index or folder, GGUF, ONNX): quantized "
                      "ones as "
                      "they are, values by the dataflow's rule; * in the name takes the experts that match."),
    scale_rule_option,
    click.option("--outputs", metavar="FILE.npz", help="Write the outputs of the executed kernel (y as float32)."),
    click.option("--keep", metavar="components", type=click.Choice(["components"]), multiple=True,
                 help="With --outputs: also the components of the decomposition and their scales."),
    click.option("--check", is_flag=True, help="Execute the numbers and compare them bit for bit with the reference."),
)
report_options = (
    click.option("--json", "json_to", metavar="FILE|-",
                 help="Write the result as JSON; - for standard output, then without tables."),
    click.option("--plot", "plot_to", metavar="FILE.png",
                 help="Write the stall bars and bandwidth as a picture (.png, .svg, .pdf)."),
    click.option("--html", "html_to", metavar="FILE", help="Write a self-contained page with tables and plot."),
    click.option("--quiet", is_flag=True, help="Print no tables."),
)
trace_options = (
    click.option("--trace", "trace_to", metavar="FILE.pftrace|FILE.json",
                 help="Write every instruction as a trace: .pftrace for ui.perfetto.dev, .json for MindStudio Insight."),
    click.option("--trace-window", metavar="FROM:TO", help="With --trace: only these microseconds of the run."),
    click.option("--trace-cores", metavar="0,3-5", help="With --trace: only these cores (an AIC with its AIVs)."),
    click.option("--trace-flows", is_flag=True, help="With --trace: arrows from what was waited for to what waited."),
)


#: Files of a sweep.
sweep_report_options = (
    click.option("--csv", "csv_to", metavar="FILE.csv", help="Write all rows as CSV."),
    click.option("--plot", "plot_to", metavar="FILE.png", help="Write a picture (.png, .svg, .pdf)."),
    click.option("--kind", type=click.Choice(["auto", "lines", "heat", "front"]), default="auto", show_default=True,
                 help="What --plot shows: lines over one parameter, heat maps over two, or the Pareto front of time against "
                      "energy, error or traffic."),
    click.option("--html", "html_to", metavar="FILE", help="Write a self-contained page with pictures and every row."),
)


def options(*groups: Callable[[F], F] | tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """Several options, or groups of them, as one decorator; help lists them in the order given."""
    flat = [item for group in groups for item in (group if isinstance(group, tuple) else (group,))]

    def decorate(function: F) -> F:
        for option in reversed(flat):
            function = option(function)
        return function

    return decorate
