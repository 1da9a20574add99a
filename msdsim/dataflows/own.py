"""Dataflows of users, outside of this package: in a file that is named in the place of a dataflow, or in an installed package
that declares the entry-point group ``msdsim.dataflows`` (each entry point a module that registers dataflows when imported)."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.errors import InputError, MsdsimError
from msdsim.registry import unknown_name

GROUP = "msdsim.dataflows"


def is_file(name: str) -> bool:
    """Whether a dataflow is named by its file: ``mine.py``, or ``mine.py:NAME`` for one of several in it."""
    return name.partition(".py:")[0].endswith(".py") or ".py:" in name


def from_file(name: str, kind: str) -> Dataflow:
    """The dataflow of a file for a kind of problem; InputError where there is none, or several and no name."""
    path, _, wanted = name.partition(":") if ".py:" in name else (name, "", "")
    found = _registered(str(Path(path).resolve()))
    fitting = {item.name: item for item in found if item.kind == kind}
    if not fitting:
        raise InputError(f"dataflow file '{path}' registers no {kind} dataflow (it registers: "
                         f"{', '.join(f'{item.name} for {item.kind}' for item in found) or 'none'})")
    if wanted:
        if wanted not in fitting:
            raise unknown_name(f"{kind} dataflow of '{path}'", wanted, list(fitting))
        return fitting[wanted]
    if len(fitting) > 1:
        raise InputError(f"dataflow file '{path}' registers several {kind} dataflows ({', '.join(fitting)}); name one: "
                         f"{path}:{next(iter(fitting))}")
    return next(iter(fitting.values()))


@cache
def _registered(resolved: str) -> tuple[Dataflow, ...]:
    """What a file registers; it is run once in a process."""
    shown = Path(resolved).name
    if not Path(resolved).is_file():
        raise InputError(f"dataflow file '{shown}' does not exist; give a Python file that registers a Dataflow")

    def load() -> None:
        # Under a name of its own, so that a file called gemm.py is no other module, and its classes can be pickled.
        name = f"msdsim_own_{abs(hash(resolved))}_{Path(resolved).stem}"
        spec = spec_from_file_location(name, resolved)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise

    return _added(load, f"dataflow file '{shown}'", resolved)


@cache
def load_installed() -> tuple[Dataflow, ...]:
    """What installed packages register; one that cannot be imported is an InputError that names it."""
    found: tuple[Dataflow, ...] = ()
    for point in entry_points(group=GROUP):
        found += _added(point.load, f"entry point '{point.name}' of group {GROUP} ({point.value})", "")
    return found


def _added(load: Callable[[], object], what: str, file: str) -> tuple[Dataflow, ...]:
    """The dataflows that are registered by ``load``; whatever fails in it is one sentence."""
    before = set(DATAFLOWS)
    try:
        load()
    except MsdsimError:
        raise
    except Exception as err:
        lines = [frame.lineno for frame in traceback.extract_tb(err.__traceback__) if file and frame.filename == file]
        line = err.lineno if isinstance(err, SyntaxError) else lines[-1] if lines else None
        where = f", line {line}" if line else ""
        raise InputError(f"{what}{where}: {type(err).__name__}: {err}") from None
    return tuple(entry for key, entry in DATAFLOWS.items() if key not in before)
