"""The common way of ``run`` and ``compare``: options in, keyword arguments of the library out, and a sign of life meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msdsim.cli.arguments import read_inputs
from msdsim.errors import InputError

if TYPE_CHECKING:
    from msdsim.problems import Workload


def simulation_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of :func:`msdsim.simulate` from the parsed options."""
    if given["keep"] and given["outputs"] is None:
        raise InputError("--keep needs a file to write to; add --outputs FILE.npz")
    arguments: dict[str, Any] = {
        "memory": given["memory"],
        "skip": not given["no_skip"],
        "seed": given["seed"],
        "check": given["check"],
        "inputs": read_inputs(given["inputs"]),
        "keep": tuple(given["keep"]),
    }
    if given["engine"] is not None:
        arguments["engine"] = given["engine"]
    if given["outputs"] is not None:
        # Naming the output executes the numbers; the components come on top.
        arguments["keep"] = ("y", *arguments["keep"])
    return arguments


def refuse_for_workload(workload: Workload, given: Mapping[str, Any]) -> None:
    """Refuse options that make sense for one problem only."""
    for option in ("inputs", "outputs", "trace_to"):
        if given[option] is not None:
            raise InputError(f"--{option.removesuffix('_to')} belongs to one problem, and '{workload.name}' has "
                             f"{len(workload.entries)}; give one of them, such as {workload.entries[0].problem}")


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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn("line"), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        _prepare(engine, lambda: bar.update(task, description="compiling the engine; this happens once"))
        bar.update(task, description=text)
        yield lambda finished, total: bar.update(task, completed=finished, total=total)


def _prepare(engine: str | None, tell: Callable[[], None] = lambda: None) -> None:
    """Have an engine's code ready, so that the time of a run is the time of the run."""
    from importlib import import_module

    from msdsim.api import DEFAULT_ENGINE
    from msdsim.engine import ENGINES

    name = engine or DEFAULT_ENGINE
    if name not in ENGINES:
        return
    module = import_module(ENGINES[name].module)
    if hasattr(module, "warm_up"):
        if not module.is_compiled():
            tell()
        module.warm_up()
