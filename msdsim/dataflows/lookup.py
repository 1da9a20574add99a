"""Which dataflows run a kind of problem, and the one of a name among them."""

from __future__ import annotations

from typing import Any

from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.own import from_file, is_file, load_installed
from msdsim.registry import unknown_name


def dataflows_for(kind: str, restated: bool = False) -> list[str]:
    """Names of the dataflows that run a kind of problem, the 16-bit baseline first, then by name; with ``restated`` also those
    that are somebody else's."""
    load_installed()
    names = [entry.name for entry in DATAFLOWS.values() if entry.kind == kind and (restated or not entry.restates)]
    return sorted(names, key=lambda name: (name != "bf16", name))


def find_dataflow(problem: Any, name: str) -> Dataflow:
    """The dataflow called ``name`` for this kind of problem, or that of a user's file (``mine.py``); the error lists the known
    ones."""
    if is_file(name):
        return from_file(name, problem.kind)
    known = dataflows_for(problem.kind, restated=True)
    if len(known) == 1:
        # A microbenchmark is run as it is: there is nothing to choose.
        name = known[0]
    if name not in known:
        raise unknown_name(f"{problem.kind} dataflow", name, known)
    # A name may stand for a dataflow of several kinds: GEMM's has the plain name, the others carry their kind.
    qualified = f"{problem.kind}:{name}"
    return DATAFLOWS[qualified if qualified in DATAFLOWS else name]
