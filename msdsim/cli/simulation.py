"""The common way of ``run`` and ``compare``: options in, keyword arguments of the library out, and a sign of life meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
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
def working(text: str, quiet: bool) -> Iterator[None]:
    """Show on a terminal that work is going on; nothing in a pipe."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text, spinner="line"):
        yield
