"""What users type, read into what the library takes; every mistake is an InputError that says what to write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msdsim.errors import InputError, TilingError

if TYPE_CHECKING:
    import numpy as np

    from msdsim.hardware import Hardware
    from msdsim.ir.kernel import Kernel
    from msdsim.problems import Problem, Workload

_INTEGER = re.compile(r"[0-9]{1,18}")


def read_hardware(hw: str, changes: Sequence[str]) -> Hardware:
    """The chip of ``--hw`` with the changes of ``--set``."""
    from msdsim.hardware import load_hw, override

    hardware, values = load_hw(hw), read_changes(changes)
    return override(hardware, values) if values else hardware


def read_changes(changes: Sequence[str]) -> dict[str, object]:
    """Values by dotted path of all ``--set``."""
    from msdsim.hardware import parse_value

    values: dict[str, object] = {}
    for change in changes:
        key, equals, value = (part.strip() for part in change.partition("="))
        if not equals or not key or not value:
            raise InputError(f"--set '{change}' is not KEY=VALUE; write for example --set hbm.bandwidth_gbps=3200")
        if key in values:
            raise InputError(f"--set gives '{key}' twice; remove one")
        values[key] = parse_value(value)
    return values


def read_problem(text: str) -> Problem | Workload | Kernel:
    """The problem, workload or kernel of PROBLEM."""
    from msdsim import runs

    return runs.read_problem(text)


def read_single_problem(text: str, what: str) -> Problem:
    """Like :func:`read_problem` where a workload makes no sense; ``what`` says who asks."""
    from msdsim.ir.kernel import Kernel
    from msdsim.problems import Workload

    problem = read_problem(text)
    if isinstance(problem, Kernel):
        raise InputError(f"{what} takes a problem, and '{text}' is a kernel file; give sizes, such as gemm:m=16,k=4096,n=4096")
    if isinstance(problem, Workload):
        names = ", ".join(entry.name for entry in problem.entries[:4])
        raise InputError(f"{what} takes one problem, and '{text}' is a workload ({names}, ...); give one of its problems, "
                         f"such as {problem.entries[0].problem}")
    return problem


def read_kernel_or_problem(text: str, what: str) -> Problem | Kernel:
    """Like :func:`read_single_problem` where a kernel's file will do."""
    from msdsim.runs import read_kernel

    return read_kernel(text.strip()) if text.strip().endswith(".kir") else read_single_problem(text, what)


def read_tiling(text: str | None) -> dict[str, int] | None:
    """``base_m=128,base_n=256`` as numbers; None for ``auto`` or nothing."""
    if text is None or text.strip() == "auto":
        return None
    values: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key:
            raise TilingError(f"tiling '{item}' is not KEY=VALUE; write for example --tiling base_m=128,base_n=256, or auto")
        if not _INTEGER.fullmatch(value):
            raise TilingError(f"tiling {key}={value!r} is not a whole number of at least 0")
        if key in values:
            raise TilingError(f"tiling gives '{key}' twice; remove one")
        values[key] = int(value)
    if not values:
        raise TilingError("--tiling is empty; write KEY=VALUE,..., or auto")
    return values


def read_tilings(texts: Sequence[str], dataflows: Sequence[str], kernels: Sequence[str] = ()) -> dict[str, Mapping[str, int]]:
    """Tilings by dataflow or kernel from ``NAME:KEY=VALUE,...``; without a name before it a tiling is for every dataflow."""
    found: dict[str, Mapping[str, int]] = {}
    for text in texts:
        name, colon, values = text.partition(":")
        if colon and name not in (*dataflows, *kernels):
            raise TilingError(f"--tiling '{text}' is for '{name}', which is not among the dataflows "
                              f"{'and kernels ' if kernels else ''}({', '.join([*dataflows, *kernels])})")
        tiling = read_tiling(values if colon else text)
        for target in [name] if colon else dataflows:
            if tiling is not None:
                found[target] = {**found.get(target, {}), **tiling}
    return found


def read_dataflows(text: str) -> list[str] | str:
    """``all``, or names separated by commas, each once.

    Items with ``=`` are parts of a mix: those that follow one another are one, until a part of it comes again.
    """
    names: list[str] = []
    parts: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        keys = {part.partition("=")[0].strip() for part in name.split("+")} if "=" in name else set()
        if keys and parts and not keys & parts:
            names[-1] += f"+{name}"
            parts |= keys
        else:
            names.append(name)
            parts = keys
    if not names:
        raise InputError("--dataflow is empty; give names separated by commas, or all")
    return "all" if "all" in names else list(dict.fromkeys(names))


def read_inputs(file: str | None, dtypes: Sequence[str] = ()) -> dict[str, np.ndarray] | None:
    """Arrays of an npz file by name; None without a file.  ``dtypes`` (``[NAME=]DTYPE``) say what arrays without a type are."""
    if file is None:
        if dtypes:
            raise InputError("--dtype says what an array of --inputs is; add --inputs FILE.npz")
        return None
    from msdsim.numerics.raw_arrays import read_npz

    return read_npz(file, dtypes)


_CORES = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


def read_trace(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run its trace shows, from ``--trace-window``, ``--trace-cores`` and ``--trace-flows``."""
    window, cores, flows = given["trace_window"], given["trace_cores"], given["trace_flows"]
    for option, value in (("--trace-window", window), ("--trace-cores", cores), ("--trace-flows", flows or None)):
        if value is not None and given["trace_to"] is None:
            raise InputError(f"{option} says what a trace shows; add --trace FILE.pftrace")
    return {"window_us": None if window is None else _window(window), "cores": None if cores is None else _cores(cores),
            "flows": flows}


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"--trace-window '{text}' is not FROM:TO in microseconds, such as 10:12.5") from None
    if not 0 <= low < high < float("inf"):
        raise InputError(f"--trace-window '{text}' must go from at least 0 to something later")
    return low, high


def _cores(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _CORES.fullmatch(part.strip())
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise InputError(f"--trace-cores '{text}' is not a list of cores, such as 0 or 0,3-5")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)
