"""The Python interface: simulate a problem on a chip and get a result that explains itself.

Options are the fields of :class:`~msdsim.runs.RunOptions`: as keywords, as one object, or as an object with some of them
changed by keywords.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from typing import Any, TypeVar

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
from msdsim.runs import DEFAULT_ENGINE, RunOptions, as_hardware, as_problem, build_kernel, require_check, run, shared_numbers
from msdsim.workload_runs import run_workload

__all__ = ["DEFAULT_ENGINE", "RunOptions", "build_kernel", "compare", "compare_workload", "dataflows_for", "find_dataflow",
           "require_check", "simulate", "simulate_workload"]

F = TypeVar("F", bound=Callable[..., Any])


def _with_options(function: F) -> F:
    """Show the options of a run among a function's keywords, with their defaults, where ``help`` and editors look."""
    shape = signature(function)
    own = [item for item in shape.parameters.values() if item.kind is not Parameter.VAR_KEYWORD]
    added = [item.replace(kind=Parameter.KEYWORD_ONLY) for item in signature(RunOptions).parameters.values()]
    function.__signature__ = shape.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return function


@_with_options
def simulate(problem: str | Problem | Kernel, hw: str | Hardware = "ascend910b1", dataflow: str = "bf16", *,
             options: RunOptions | None = None, **changes: Any) -> ShownResult:
    """Simulate one kernel.

    ``problem`` is an inline form such as ``"gemm:m=16,k=8192,n=12288"`` or a problem object, or a kernel (a ``.kir`` file's
    path or a :class:`Kernel`), which needs no dataflow; ``hw`` a chip's name, path or :class:`Hardware`.  Raises
    :class:`~msdsim.errors.InputError` for anything the user can mend.
    """
    chosen = (options or RunOptions()).but(**changes)
    return run(as_problem(problem), as_hardware(hw), dataflow, chosen)


@_with_options
def compare(problem: str | Problem, hw: str | Hardware = "ascend910b1", dataflows: Sequence[str] | str = "all", *,
            tilings: Mapping[str, Mapping[str, int]] | None = None, kernels: Mapping[str, Kernel] | None = None, jobs: int = 0,
            progress: Progress | None = None, options: RunOptions | None = None, **changes: Any) -> ShownComparison:
    """Simulate several dataflows side by side; those that the problem or the chip rules out are listed with the reason.

    A dataflow named explicitly must exist; ``tilings`` are by dataflow (and by kernel: its params), ``progress`` is called with
    (finished, of how many).  ``kernels`` are hand-written ones by the name that they have in the comparison; their tensors must
    be those of a dataflow of this problem (``"msd-int8:mine"`` says of which one), whose contract they are held to with
    ``check``.
    ``jobs`` dataflows are worked on at the same time (0: one for each core); the results do not depend on it.
    """
    shape, hardware = as_problem(problem), as_hardware(hw)
    chosen = (options or RunOptions()).but(**changes)
    if isinstance(shape, Kernel):
        raise InputError(f"kernel '{shape.name}' is one dataflow already; use simulate")

    def refusal(name: str) -> str | None:
        return find_dataflow(shape, name).refuses(shape, hardware.chip)

    names = dataflows_for(shape.kind) if dataflows == "all" or dataflows == ["all"] else list(dataflows)
    shared = shared_numbers(shape, [name for name in names if refusal(name) is None]) if chosen.executes else None
    runs, skipped = _each(names, refusal, progress, lambda name: run(
        shape, hardware, name, _tiled(chosen, tilings, name), shared), jobs, _asked(chosen, tilings))
    own = [_beside(shape, hardware, name, kernel, chosen.but(tiling=(tilings or {}).get(name.rpartition(":")[2])))
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
def simulate_workload(workload: Workload, hw: str | Hardware, dataflow: str, *, jobs: int = 1, progress: Progress | None = None,
                      options: RunOptions | None = None, **changes: Any) -> ShownWorkloadResult:
    """Simulate the entries of a workload one after the other, and weigh each by its count.

    An entry finds in L2 what the ones before it have left; :func:`~msdsim.workload_runs.run_workload` says how a repeated
    layer is run.  ``jobs`` processes execute numbers at the same time (0: one for each core); ``progress`` is called with
    (finished, of how many) entries.
    """
    return run_workload(workload, as_hardware(hw), dataflow, (options or RunOptions()).but(**changes), jobs=jobs,
                        progress=progress)


@_with_options
def compare_workload(workload: Workload, hw: str | Hardware, dataflows: Sequence[str] | str = "all", *, jobs: int = 1,
                     tilings: Mapping[str, Mapping[str, int]] | None = None, progress: Progress | None = None,
                     options: RunOptions | None = None, **changes: Any) -> ShownWorkloadComparison:
    """Simulate a workload with several dataflows or mixes of them (``gemm=w8a8+attention=bf16``).

    One that cannot run the workload is listed with the reason and, where a mix could, with that; among ``all`` are those of
    any kind of operator.
    """
    hardware, chosen = as_hardware(hw), (options or RunOptions()).but(**changes)
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
    runs, skipped = _each(named if everything else list(dataflows), refusal, progress, lambda name: run_workload(
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
