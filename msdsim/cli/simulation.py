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


def simulation_arguments(given: Mapping[str, Any], shape: Any) -> dict[str, Any]:
    """Keyword arguments of :func:`msdsim.simulate` from the parsed options; ``shape`` is the problem or workload."""
    if given["keep"] and given["outputs"] is None:
        raise InputError("--keep needs a file to write to; add --outputs FILE.npz")
    arguments: dict[str, Any] = {
        "memory": given["memory"],
        "skip": not given["no_skip"],
        "seed": given["seed"],
        "check": given["check"],
        "inputs": _with_weights(read_inputs(given["inputs"]), given["weights"], shape),
        "keep": tuple(given["keep"]),
    }
    if given["warm"]:
        arguments["warm"] = True
    if given["engine"] is not None:
        arguments["engine"] = given["engine"]
    if given["outputs"] is not None:
        # Naming the output executes the numbers; the components come on top.
        arguments["keep"] = ("y", *arguments["keep"])
    return arguments


def _with_weights(inputs: dict[str, Any] | None, weights: str | None, shape: Any) -> dict[str, Any] | None:
    """Input arrays with the weights that ``--weights`` names."""
    if weights is None:
        return inputs
    if getattr(shape, "kind", None) != "gemm":
        raise InputError(f"--weights belongs to a gemm problem, not to {shape if hasattr(shape, 'kind') else 'this one'}; "
                         f"leave it out")
    if inputs is not None and {"w", "q"} & set(inputs):
        raise InputError("--inputs already has weights (w or q); leave out --weights or take them out of the file")
    from msdsim.numerics.weights import load_weight

    return (inputs or {}) | {"w": load_weight(weights, shape.k, shape.n)}


def refuse_for_workload(workload: Workload, given: Mapping[str, Any]) -> None:
    """Refuse options that make sense for one problem only."""
    if given["warm"]:
        raise InputError(f"--warm belongs to one problem; the operators of '{workload.name}' find in L2 what those before them "
                         f"have left; leave it out")
    for option in ("inputs", "outputs", "trace_to", "weights"):
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
