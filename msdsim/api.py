"""The Python interface: simulate a problem on a chip and get a result that explains itself.

Wherever a problem is asked for, an inline form, a workload's name, a path (``.toml``, ``.kir``), a problem object, a
:class:`~msdsim.problems.Workload` or a :class:`~msdsim.ir.kernel.Kernel` will do, and for a chip its name, a path or a
:class:`~msdsim.hardware.Hardware`.  Options are the fields of :class:`~msdsim.runs.RunOptions`: as keywords, as one object, or
as an object with some of them changed by keywords.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar, overload

from msdsim.dataflows.lookup import dataflows_for, find_dataflow
from msdsim.errors import ArrayError, InputError, MsdsimError, UnknownNameError
from msdsim.hardware import Hardware
from msdsim.ir.kernel import Kernel
from msdsim.jobs import Progress, run_threads
from msdsim.mixes import choices, offered, parse_mix
from msdsim.problems import Problem, Workload
from msdsim.references import solves
from msdsim.report.result import Skipped
from msdsim.report.shown import ShownComparison, ShownResult, ShownWorkloadComparison, ShownWorkloadResult
from msdsim.runs import (
    DEFAULT_ENGINE,
    RunOptions,
    as_hardware,
    as_problem,
    build_kernel,
    read_problem,
    require_check,
    run,
    shared_numbers,
)
from msdsim.tilings_file import Tilings, read_tilings_file
from msdsim.workload_runs import run_workload

__all__ = ["DEFAULT_ENGINE", "RunOptions", "build_kernel", "compare", "compare_workload", "dataflows_for", "find_dataflow",
           "load_workload", "require_check", "simulate", "simulate_workload"]

F = TypeVar("F", bound=Callable[..., Any])


def _with_options(function: F) -> F:
    """Show the options of a run among a function's keywords, with their defaults, where ``help`` and editors look."""
    shape = signature(function)
    own = [item for item in shape.parameters.values() if item.kind is not Parameter.VAR_KEYWORD]
    added = [item.replace(kind=Parameter.KEYWORD_ONLY) for item in signature(RunOptions).parameters.values()]
    function.__signature__ = shape.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return function


@overload
def simulate(problem: Problem | Kernel, hw: str | Path | Hardware = ..., dataflow: str | None = ..., *, jobs: int = ...,
             progress: Progress | None = ..., tilings: None = ..., options: RunOptions | None = ...,
             **changes: Any) -> ShownResult: ...


@overload
def simulate(problem: Workload, hw: str | Path | Hardware = ..., dataflow: str | None = ..., *, jobs: int = ...,
             progress: Progress | None = ..., tilings: Tilings | str | Path | None = ...,
             options: RunOptions | None = ..., **changes: Any) -> ShownWorkloadResult: ...


# What a text gives is known when it is read: a type checker takes it for the result of one kernel and lets the other pass.
@overload
def simulate(problem: str | Path, hw: str | Path | Hardware = ..., dataflow: str | None = ..., *, jobs: int = ...,
             progress: Progress | None = ..., tilings: Tilings | str | Path | None = ...,
             options: RunOptions | None = ..., **changes: Any) -> ShownResult | Any: ...


@_with_options
def simulate(problem: str | Path | Problem | Workload | Kernel, hw: str | Path | Hardware = "ascend910b1",
             dataflow: str | None = None, *, jobs: int = 1, progress: Progress | None = None,
             tilings: Tilings | str | Path | None = None, options: RunOptions | None = None,
             **changes: Any) -> ShownResult | ShownWorkloadResult:
    """Simulate one kernel, or the operators of a workload one after the other.

    ``problem`` is an inline form such as ``"gemm:m=16,k=8192,n=12288"``, a problem object, a kernel (which needs no dataflow)
    or a workload, each by name, path or as such; ``hw`` a chip's name, path or :class:`Hardware`.  ``dataflow`` is ``bf16``, or
    that of the workload's file, unless given; operators of a workload each in their own way: ``"gemm=w8a8,attention=bf16"``.
    ``jobs``, ``progress`` and ``tilings`` belong to workloads (:func:`simulate_workload`).  Raises
    :class:`~msdsim.errors.InputError` for anything the user can mend.
    """
    chosen, shape = (options or RunOptions()).but(**changes), read_problem(problem)
    if isinstance(shape, Workload):
        return simulate_workload(shape, hw, dataflow, jobs=jobs, progress=progress, tilings=tilings, options=chosen)
    if tilings is not None:
        raise InputError("tilings of operators belong to a workload, and this is one problem; give its own as tiling")
    if isinstance(shape, Kernel) and dataflow:
        raise InputError(f"a dataflow belongs to a problem, and '{shape.name}' is a kernel already; leave it out")
    return run(shape, as_hardware(hw), dataflow or "bf16", chosen)


def load_workload(workload: str | Path | Workload) -> Workload:
    """The workload of a name (``msdsim list workloads``) or a ``.toml`` file; InputError for what is none."""
    found = read_problem(workload)
    if not isinstance(found, Workload):
        raise InputError(f"'{workload}' is one problem, not a workload; give a workload's name or .toml file")
    return found


@overload
def compare(problem: Problem, hw: str | Path | Hardware = ..., dataflows: Sequence[str] | str = ..., *,
            tilings: Mapping[str, Mapping[str, int]] | None = ..., kernels: Mapping[str, Kernel | str | Path] | None = ...,
            jobs: int | None = ..., progress: Progress | None = ..., options: RunOptions | None = ...,
            **changes: Any) -> ShownComparison: ...


@overload
def compare(problem: Workload, hw: str | Path | Hardware = ..., dataflows: Sequence[str] | str = ..., *,
            tilings: Mapping[str, Mapping[str, int]] | None = ..., kernels: Mapping[str, Kernel | str | Path] | None = ...,
            jobs: int | None = ..., progress: Progress | None = ..., options: RunOptions | None = ...,
            **changes: Any) -> ShownWorkloadComparison: ...


@overload
def compare(problem: str | Path, hw: str | Path | Hardware = ..., dataflows: Sequence[str] | str = ..., *,
            tilings: Mapping[str, Mapping[str, int]] | None = ..., kernels: Mapping[str, Kernel | str | Path] | None = ...,
            jobs: int | None = ..., progress: Progress | None = ..., options: RunOptions | None = ...,
            **changes: Any) -> ShownComparison | Any: ...


@_with_options
def compare(problem: str | Path | Problem | Workload, hw: str | Path | Hardware = "ascend910b1",
            dataflows: Sequence[str] | str = "all", *, tilings: Mapping[str, Mapping[str, int]] | None = None,
            kernels: Mapping[str, Kernel | str | Path] | None = None, jobs: int | None = None,
            progress: Progress | None = None, options: RunOptions | None = None,
            **changes: Any) -> ShownComparison | ShownWorkloadComparison:
    """Simulate several dataflows side by side; those that the problem or the chip rules out are listed with the reason.

    ``problem`` and ``hw`` are as in :func:`simulate`; a workload gives what :func:`compare_workload` does.
    A dataflow named explicitly must exist; ``tilings`` are by dataflow (and by kernel: its params), ``progress`` is called with
    (finished, of how many).  ``kernels`` are hand-written ones by the name that they have in the comparison; their tensors must
    be those of a dataflow of this problem (``"msd-int8:mine"`` says of which one), whose contract they are held to with
    ``check``.
    ``jobs`` dataflows are worked on at the same time (0, the default of one problem: one for each core); the results do not
    depend on it.
    """
    shape, hardware = read_problem(problem), as_hardware(hw)
    chosen = (options or RunOptions()).but(**changes)
    if isinstance(shape, Kernel):
        raise InputError(f"kernel '{shape.name}' is one dataflow already; use simulate")
    if isinstance(shape, Workload):
        if kernels:
            raise InputError(f"kernels belong to one problem, and '{shape.name}' has {len(shape.entries)}; give one of them, "
                             f"such as {shape.entries[0].problem}")
        return compare_workload(shape, hardware, dataflows, jobs=jobs or 1, tilings=tilings, progress=progress, options=chosen)
    dataflows = [dataflows] if isinstance(dataflows, str) and dataflows != "all" else dataflows

    def refusal(name: str) -> str | None:
        return find_dataflow(shape, name).refuses(shape, hardware.chip)

    names = dataflows_for(shape.kind) if dataflows == "all" or dataflows == ["all"] else list(dataflows)
    shared = shared_numbers(shape, [name for name in names if refusal(name) is None]) if chosen.executes else None
    runs, skipped = _each(names, refusal, progress, lambda name: run(
        shape, hardware, name, _tiled(chosen, tilings, name), shared), jobs or 0, _asked(chosen, tilings))
    own = [_beside(shape, hardware, name, as_problem(kernel), chosen.but(tiling=(tilings or {}).get(name.rpartition(":")[2])))
           for name, kernel in (kernels or {}).items()]
    return ShownComparison([*runs, *own], skipped)


def _beside(problem: Any, hardware: Hardware, name: str, kernel: Kernel, options: RunOptions) -> ShownResult:
    """A hand-written kernel as one more way to run a problem."""
    wanted, colon, shown = name.partition(":")
    flow = solves(kernel, problem, hardware.chip, wanted if colon else "")
    if options.weights is not None:
        raise InputError(f"weights of a checkpoint bring groups and offsets that the kernel '{name}' does not know; compare it "
                         f"without them")
    if options.executes and not colon:
        raise InputError(f"kernel '{name}' has the tensors of {flow} and maybe others; say whose numbers it computes, such as "
                         f"{flow}:{name}")
    reference = f"{flow}:{problem}" if options.executes else None
    found = run(kernel, hardware, "", options.but(reference=reference))
    return replace(found, dataflow=shown or name, problem=problem.to_json())


@_with_options
def simulate_workload(workload: str | Path | Workload, hw: str | Path | Hardware = "ascend910b1",
                      dataflow: str | None = None, *, jobs: int = 1, progress: Progress | None = None,
                      tilings: Tilings | str | Path | None = None, options: RunOptions | None = None,
                      **changes: Any) -> ShownWorkloadResult:
    """Simulate the entries of a workload one after the other, and weigh each by its count.

    An entry finds in L2 what the ones before it have left; :func:`~msdsim.workload_runs.run_workload` says how a repeated
    layer is run.  ``jobs`` processes execute numbers at the same time (0: one for each core); ``progress`` is called with
    (finished, of how many) entries.
    ``tilings`` are those that a search has found (:func:`msdsim.tune`), as an object or the file of them; its dataflows are
    taken where ``dataflow`` is left out.
    """
    found, hardware, chosen = load_workload(workload), as_hardware(hw), (options or RunOptions()).but(**changes)
    if tilings is None:
        return run_workload(found, hardware, dataflow or found.dataflow or "bf16", chosen, jobs=jobs, progress=progress)
    own = tilings if isinstance(tilings, Tilings) else read_tilings_file(tilings)
    dataflow = dataflow or own.dataflow
    by_entry = own.by_entry(choices(found, parse_mix(dataflow, found), hardware))
    result = run_workload(found, hardware, dataflow, chosen, jobs=jobs, progress=progress, tilings=by_entry)
    return replace(result, notes=(*result.notes, *own.notes(hardware.name, [entry.name for entry in found.entries])))


@_with_options
def compare_workload(workload: str | Path | Workload, hw: str | Path | Hardware = "ascend910b1",
                     dataflows: Sequence[str] | str = "all", *, jobs: int = 1,
                     tilings: Mapping[str, Mapping[str, int]] | None = None, progress: Progress | None = None,
                     options: RunOptions | None = None, **changes: Any) -> ShownWorkloadComparison:
    """Simulate a workload with several dataflows or mixes of them (``gemm=w8a8+attention=bf16``).

    One that cannot run the workload is listed with the reason and, where a mix could, with that; among ``all`` are those of
    any kind of operator.
    """
    workload, hardware, chosen = load_workload(workload), as_hardware(hw), (options or RunOptions()).but(**changes)
    everything = dataflows == "all" or dataflows == ["all"]

    def refusal(name: str) -> str | None:
        offer = offered(workload, name)
        if everything and offer is not None and "bf16" in offer and name != "bf16":
            lacking = next(item.split("=")[0] for item in offer.split(",") if item.endswith("=bf16"))
            return f"there is no {lacking} dataflow of that name; --dataflow {offer.replace(',', '+')} runs the mix"
        try:
            choices(workload, parse_mix(name, workload), hardware)
        except UnknownNameError:
            raise
        except InputError as err:
            if not everything and not any(name in dataflows_for(kind) for kind in kinds) and "=" not in name:
                raise
            return str(err).removeprefix(f"workload '{workload.name}', entry ")
        return None

    kinds = list(dict.fromkeys(entry.problem.kind for entry in workload.entries))
    named = list(dict.fromkeys(name for kind in kinds for name in dataflows_for(kind)))
    asked = named if everything else [dataflows] if isinstance(dataflows, str) else list(dataflows)
    runs, skipped = _each(asked, refusal, progress, lambda name: run_workload(
        workload, hardware, name, _tiled(chosen, tilings, name), jobs=jobs), asked=_asked(chosen, tilings))
    return ShownWorkloadComparison(runs, skipped)


def _tiled(options: RunOptions, tilings: Mapping[str, Mapping[str, int]] | None, name: str) -> RunOptions:
    return options.but(tiling=(tilings or {}).get(name, options.tiling))


def _asked(options: RunOptions, tilings: Mapping[str, Mapping[str, int]] | None) -> Callable[[str], bool]:
    """Whether the user has given a dataflow's tiling."""
    return lambda name: bool((tilings or {}).get(name, options.tiling))


def _each(names: Sequence[str], refusal: Callable[[str], str | None], progress: Progress | None,
          work: Callable[[str], Any], jobs: int = 1,
          asked: Callable[[str], bool] | None = None) -> tuple[list[Any], list[Skipped]]:
    """What the work gives for every dataflow that nothing refuses, and the others with the reason."""
    def outcome(name: str) -> Any:
        reason = refusal(name)
        if reason is not None:
            return Skipped(name, reason)
        try:
            return work(name)
        except UnknownNameError:
            raise
        except MsdsimError as err:
            if asked is not None and asked(name) and not isinstance(err, ArrayError):
                # What the user has asked for by name is refused, not left out.
                raise
            # What one dataflow cannot do is no reason to lose what the others give.
            return Skipped(name, str(err)), err

    runs: list[Any] = []
    skipped: list[Skipped] = []
    failure: MsdsimError | None = None
    for found in run_threads(outcome, names, jobs, progress):
        if isinstance(found, tuple):
            found, error = found
            failure = failure or error
        (skipped if isinstance(found, Skipped) else runs).append(found)
    if failure is not None and not runs:
        raise failure
    return runs, skipped
