"""What commands that simulate have in common: the user's options as :class:`RunOptions`, and a sign of life meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from msdsim.cli.arguments import read_inputs
from msdsim.errors import InputError

if TYPE_CHECKING:
    from msdsim.problems import Workload
    from msdsim.report.result import Result
    from msdsim.report.shown import ShownResult
    from msdsim.runs import RunOptions


R = TypeVar("R", bound="Result")


def timing_options(given: Mapping[str, Any]) -> RunOptions:
    """How to time, from the parsed ``--engine``, ``--memory`` and, where a command has it, ``--no-skip``."""
    from msdsim.runs import RunOptions

    options = RunOptions(memory=given["memory"], skip=not given.get("no_skip", False))
    return options if given["engine"] is None else options.but(engine=given["engine"])


def run_options(given: Mapping[str, Any], shape: Any) -> RunOptions:
    """How to run, from all parsed options of ``run`` and ``compare``; ``shape`` is the problem or workload."""
    from msdsim.formats.mx import DEFAULT_RULE

    if given["keep"] and given["outputs"] is None:
        raise InputError("--keep needs a file to write to; add --outputs FILE.npz")
    # Naming the output executes the numbers; the components come on top.
    keep = () if given["outputs"] is None else ("y", *given["keep"])
    inputs, weights = read_inputs(given["inputs"], given["dtypes"]), _weights(given["weights"], shape)
    rule = given["scale_rule"]
    if rule is not None and getattr(shape, "kind", None) not in ("gemm", "grouped_gemm"):
        raise InputError("--scale-rule belongs to the weights of one gemm problem; leave it out")
    return timing_options(given).but(seed=given["seed"], check=given["check"], inputs=inputs, keep=keep, warm=given["warm"],
                                     timeline=given["trace_to"] is not None, weights=weights,
                                     scale_rule=rule or DEFAULT_RULE)


def _weights(spec: str | None, shape: Any) -> Any:
    """The weight that ``--weights`` names; None without it."""
    if spec is None:
        return None
    if getattr(shape, "kind", None) not in ("gemm", "grouped_gemm"):
        raise InputError(f"--weights belongs to a gemm problem, not to {shape if hasattr(shape, 'kind') else 'this one'}; "
                         f"leave it out")
    from msdsim.checkpoints.weights import read_weight

    return read_weight(spec)


def refuse_for_workload(workload: Workload, given: Mapping[str, Any]) -> None:
    """Refuse options that make sense for one problem only."""
    if given["warm"]:
        raise InputError(f"--warm belongs to one problem; the operators of '{workload.name}' find in L2 what those before them "
                         f"have left; leave it out")
    for option in ("inputs", "outputs", "trace_to", "weights"):
        if given[option] is not None:
            raise InputError(f"--{option.removesuffix('_to')} belongs to one problem, and '{workload.name}' has "
                             f"{len(workload.entries)}; give one of them, such as {workload.entries[0].problem}")


def refuse_for_kernel(text: str, shape: Any) -> None:
    """Refuse a dataflow for what is a kernel already; nothing the user says is passed over."""
    from msdsim.ir.kernel import Kernel

    if isinstance(shape, Kernel) and not left_out("dataflow"):
        raise InputError(f"--dataflow belongs to a problem, and '{text}' is a kernel already; leave it out")


def left_out(option: str) -> bool:
    """Whether the user left an option of the running command at its default."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.DEFAULT


@contextmanager
def working(text: str, quiet: bool, engine: str | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal that work is going on, nothing in a pipe; yields what to call with (finished, of how many).

    An engine that must be compiled first says so.
    """
    if quiet or not sys.stderr.isatty():
        _prepare(engine)
        yield lambda finished, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (SpinnerColumn("line"), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        _prepare(engine, lambda: bar.update(task, description="compiling the engine; this happens once"))
        bar.update(task, description=text)
        yield lambda finished, total: bar.update(task, completed=finished, total=total)


def with_causes(result: ShownResult, options: RunOptions) -> ShownResult:
    """The result with what it is bound by: the same kernel on chips that are better in one thing, where it is short enough."""
    from msdsim.explore.whatif import with_causes as ask
    from msdsim.runs import run_changed

    plain = timing_only(options)
    return ask(result, lambda hardware: run_changed(result, hardware, plain))


def with_timeline(result: R, options: RunOptions) -> R:
    """The result with its timeline, where its kernel is short enough to keep one for a page."""
    from msdsim.explore.whatif import MOST_INSTRUCTIONS
    from msdsim.runs import run_changed

    if result.record.timeline is not None or result.record.instructions > MOST_INSTRUCTIONS:
        return result
    again = run_changed(result, result.hardware, timing_only(options).but(timeline=True))
    return replace(result, record=again.record)


def timing_only(options: RunOptions) -> RunOptions:
    """The same options for other kernels and chips: no numbers, no timeline, no tiling."""
    return options.but(check=False, inputs=None, keep=(), timeline=False, tiling=None, weights=None, reference=None)


def _prepare(engine: str | None, tell: Callable[[], None] = lambda: None) -> None:
    """Have an engine's code ready, so that the time of a run is the time of the run."""
    from importlib import import_module

    from msdsim.engine import ENGINES
    from msdsim.runs import DEFAULT_ENGINE

    name = engine or DEFAULT_ENGINE
    if name not in ENGINES:
        return
    module = import_module(ENGINES[name].module)
    if hasattr(module, "warm_up"):
        if not module.is_compiled():
            tell()
        module.warm_up()
