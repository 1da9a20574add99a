"""The Python interface: simulate a problem on a chip and get a result that explains itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from msdsim.dataflows import DATAFLOWS, Dataflow, choose_tiling
from msdsim.engine import EngineOptions, empty_l2, load_engine
from msdsim.engine.base import ENGINES, MEMORY_MODELS
from msdsim.errors import CheckFailed, InputError, MsdsimError
from msdsim.hardware import Hardware, load_hw
from msdsim.ir.gm_plan import GmPlan
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lower
from msdsim.ir.parser import read_kernel
from msdsim.ir.verify import verify
from msdsim.jobs import Progress, run_all
from msdsim.problems import KernelFile, Problem, Workload, parse_problem
from msdsim.problems.workload import Entry
from msdsim.registry import unknown_name
from msdsim.report.result import (
    Comparison,
    Numerics,
    Result,
    Skipped,
    WorkloadComparison,
    WorkloadResult,
    WorkloadRun,
)
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import RunRecord

DEFAULT_ENGINE = "fast"


def simulate(
    problem: str | Problem | Kernel, hw: str | Hardware = "ascend910b1", dataflow: str = "bf16", *,
    tiling: Mapping[str, int] | None = None, engine: str = DEFAULT_ENGINE, memory: str = "bandwidth", check: bool = False,
    seed: int = 0, inputs: Mapping[str, np.ndarray] | None = None, timeline: bool = False, skip: bool = True,
    keep: Sequence[str] = (), warm: bool = False,
) -> Result:
    """Simulate one kernel.

    ``problem`` is an inline form such as ``"gemm:m=16,k=8192,n=12288"`` or a problem object, or a kernel (a ``.kir`` file's
    path or a :class:`Kernel`), which needs no dataflow; ``hw`` a chip's name, path or :class:`Hardware`.  ``check`` also
    executes the numbers (on ``inputs``, or random ones from ``seed``) and compares them bit for bit with the whole-tensor
    reference; a difference is reported in ``Result.numerics``, not raised.  ``timeline`` keeps every instruction; ``skip``
    allows the engine to add repeated periods without simulating them, where that is exact.  With ``warm`` the kernel runs twice
    on the same tensors and the second run is reported: what a benchmark measures that repeats one operator.  Raises
    :class:`~msdsim.errors.InputError` for anything the user can mend.
    """
    hardware = _hardware(hw)
    shape = _problem(problem)
    if isinstance(shape, Kernel):
        return _simulate_kernel(shape, hardware, engine, _options(engine, memory, timeline, skip), check, seed, inputs, warm)
    item = _prepared(shape, hardware, dataflow, tiling=tiling, engine=engine, memory=memory, check=check, seed=seed,
                     inputs=inputs, timeline=timeline, skip=skip, keep=keep)
    started = time.perf_counter()
    record = _run(item.kernel, hardware, engine, item.options, warm)
    return Result(record=record, kernel=item.kernel, wall_s=time.perf_counter() - started,
                  l2_start="warm" if warm else "empty", **item.known)


def _prepared(
    shape: Any, hardware: Hardware, dataflow: str, *, tiling: Mapping[str, int] | None = None, engine: str = DEFAULT_ENGINE,
    memory: str = "bandwidth", check: bool = False, seed: int = 0, inputs: Mapping[str, np.ndarray] | None = None,
    timeline: bool = False, skip: bool = True, keep: Sequence[str] = (),
) -> _Prepared:
    """Build the kernel of a problem and execute its numbers, where that is wanted."""
    chosen = find_dataflow(shape, dataflow)
    reason = chosen.refuses(shape, hardware.chip)
    if reason is not None:
        raise InputError(f"dataflow '{chosen.name}' cannot run {shape} on '{hardware.name}': {reason}")
    kernel, tiles = build_kernel(chosen, shape, hardware, tiling)
    options = _options(engine, memory, timeline, skip)
    # Numbers first: what is wrong with the inputs is said before anything long runs.
    executed = _execute(chosen, shape, kernel, tiles, inputs, seed, keep) if check or keep or inputs is not None else {}
    known = {"problem": shape.to_json(), "hardware": hardware, "dataflow": chosen.name, "engine": engine, "memory": memory}
    return _Prepared(kernel, options, known | {"tiling": asdict(tiles), "seed": seed, **executed})


def _run(kernel: Kernel, hardware: Hardware, engine: str, options: EngineOptions, warm: bool) -> RunRecord:
    """Time a kernel alone: on an empty L2 or, ``warm``, on what an earlier run of it has left there."""
    program, simulator = lower(kernel, hardware.chip), load_engine(engine)
    if not warm:
        return simulator.run(program, options)
    first = simulator.run(program, replace(options, record_timeline=False), empty_l2(hardware.chip))
    return simulator.run(program, options, first.l2)


def _simulate_kernel(kernel: Kernel, hardware: Hardware, engine: str, options: EngineOptions, check: bool, seed: int,
                     inputs: Mapping[str, np.ndarray] | None, warm: bool) -> Result:
    """A hand-written kernel: timed like any other; its numbers are executed when its tensors are given."""
    if check:
        raise InputError(f"kernel '{kernel.name}' has no reference to compare with; leave out the check, and give inputs to "
                         f"have its numbers executed")
    verify(kernel, hardware.chip)
    started = time.perf_counter()
    record = _run(kernel, hardware, engine, options, warm)
    result = Result(problem={"kind": "kernel", "name": kernel.name}, hardware=hardware, dataflow=kernel.name, engine=engine,
                    memory=options.memory, tiling={}, seed=seed, record=record, kernel=kernel,
                    wall_s=time.perf_counter() - started, l2_start="warm" if warm else "empty")
    if inputs is None:
        return result
    from msdsim.numerics.executor import execute

    outputs = execute(kernel, _kernel_inputs(kernel, inputs))
    roles = {tensor.name: tensor.role for tensor in kernel.tensors}
    return replace(result, arrays={name: value.astype(np.float32) for name, value in outputs.items() if roles[name] == "out"})


def _kernel_inputs(kernel: Kernel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays in the tensors' storage formats, rounded half to even where they come wider."""
    from msdsim.formats.number import FORMATS
    from msdsim.formats.rounding import round_to

    return {
        tensor.name: array if array.dtype == FORMATS[tensor.fmt].dtype else round_to(array, tensor.fmt)
        for tensor in kernel.tensors if tensor.role == "in" and (array := inputs.get(tensor.name)) is not None
    }


def build_kernel(dataflow: Dataflow, problem: Any, hardware: Hardware,
                 tiling: Mapping[str, int] | None = None) -> tuple[Kernel, Any]:
    """The verified kernel of a dataflow, and the tiling it was built with."""
    tiles = choose_tiling(dataflow, problem, hardware.chip, tiling)
    kernel = dataflow.build(problem, hardware.chip, tiles)
    verify(kernel, hardware.chip)
    return kernel, tiles


def find_dataflow(problem: Any, name: str) -> Dataflow:
    """The dataflow called ``name`` for this kind of problem; the error lists those there are for it."""
    known = dataflows_for(problem.kind)
    if len(known) == 1:
        # A microbenchmark is run as it is: there is nothing to choose.
        name = known[0]
    if name not in known:
        raise unknown_name(f"{problem.kind} dataflow", name, known)
    # A name may stand for a dataflow of several kinds: that of a GEMM is the plain name, the others carry their kind.
    qualified = f"{problem.kind}:{name}"
    return DATAFLOWS[qualified if qualified in DATAFLOWS else name]


def dataflows_for(kind: str) -> list[str]:
    """Names of the dataflows that run a kind of problem, the 16-bit baseline first."""
    names = [entry.name for entry in DATAFLOWS.values() if entry.kind == kind]
    return sorted(names, key=lambda name: name != "bf16")


def compare(problem: str | Problem, hw: str | Hardware = "ascend910b1", dataflows: Sequence[str] | str = "all", *,
            tilings: Mapping[str, Mapping[str, int]] | None = None, progress: Progress | None = None,
            **options: Any) -> Comparison:
    """Simulate several dataflows side by side; those that the problem or the chip rules out are listed with the reason.

    A dataflow named explicitly must exist; ``tilings`` are by dataflow, ``progress`` is called with (finished, of how many),
    options are those of :func:`simulate`.
    """
    shape, hardware = _problem(problem), _hardware(hw)
    if isinstance(shape, Kernel):
        raise InputError(f"kernel '{shape.name}' is one dataflow already; use simulate")
    names = dataflows_for(shape.kind) if dataflows == "all" or dataflows == ["all"] else list(dataflows)
    runs, skipped = [], []
    for name in names:
        reason = find_dataflow(shape, name).refuses(shape, hardware.chip)
        if reason is not None:
            skipped.append(Skipped(name, reason))
        else:
            runs.append(simulate(shape, hardware, name, tiling=(tilings or {}).get(name), **options))
        if progress is not None:
            progress(len(runs) + len(skipped), len(names))
    return Comparison(runs, skipped)


def simulate_workload(workload: Workload, hw: str | Hardware, dataflow: str, *, jobs: int = 1,
                      progress: Progress | None = None, **options: Any) -> WorkloadResult:
    """Simulate the entries of a workload one after the other, and weigh each by its count.

    An entry finds in L2 what the ones before it have left (:class:`~msdsim.ir.gm_plan.GmPlan` says which tensors are the
    same).  Consecutive entries with the same count are a layer: what runs more than once runs once ahead, with weights of its
    own (the end of it, as far as anything can still be in L2), and is then simulated as it follows itself; every one of its
    runs is taken to cost the same.

    ``jobs`` processes execute numbers at the same time (0: one for each core); ``progress`` is called with (finished, of how
    many) entries.  Options are those of :func:`simulate`, without ``warm``.
    """
    hardware = _hardware(hw)
    first = {str(entry.problem): entry for entry in reversed(workload.entries)}
    tasks = [_Task(workload.name, entry.name, entry.problem, hardware, dataflow, options) for entry in first.values()]

    def done(finished: int, _: int = 0) -> None:
        if progress is not None:
            progress(finished, len(tasks) + len(workload.entries))

    prepared = dict(zip(first, run_all(_prepare, tasks, jobs, done), strict=True))
    reads = {name: sum(tensor.size_bytes for tensor in item.kernel.tensors if tensor.role == "in")
             for name, item in prepared.items()}
    runs = _order(workload, reads, hardware.chip.l2.capacity_bytes)
    plan, state = GmPlan(item.kernel for item in prepared.values()), empty_l2(hardware.chip)
    found: list[WorkloadRun] = []
    for run in runs:
        result, state = _time_entry(workload, run, prepared[str(run.entry.problem)], plan, state)
        if not run.ahead:
            found.append(WorkloadRun(run.entry.name, run.entry.count, result))
            done(len(tasks) + len(found))
    return WorkloadResult(workload.name, found)


@dataclass(frozen=True)
class _Task:
    """One entry of a workload to prepare, in whatever process."""

    workload: str
    entry: str
    problem: Any
    hardware: Hardware
    dataflow: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class _Prepared:
    """An entry as a kernel, with everything of its result but the timing."""

    kernel: Kernel
    options: EngineOptions
    known: Mapping[str, Any]


def _prepare(task: _Task) -> _Prepared:
    try:
        return _prepared(task.problem, task.hardware, task.dataflow, **task.options)
    except MsdsimError as err:
        raise type(err)(f"workload '{task.workload}', entry '{task.entry}': {err}") from None


@dataclass(frozen=True)
class _EntryRun:
    """An entry of a workload in its turn; ``ahead`` only fills L2."""

    entry: Entry
    ahead: bool


#: Times its capacity that has passed through L2 when nothing older can be left in it: LRU, and streams fill all sets alike.
_FLUSHES = 2


def _order(workload: Workload, read_bytes: Mapping[str, int], capacity: int) -> list[_EntryRun]:
    """The entries in their order, the end of a layer that is repeated once ahead: as much of it as can leave anything in L2.

    ``read_bytes`` says, by problem, how much an entry reads through L2.
    """
    runs: list[_EntryRun] = []
    for count, entries in groupby(workload.entries, lambda entry: entry.count):
        layer = list(entries)
        ahead: list[_EntryRun] = []
        passed = 0
        for entry in reversed(layer if count > 1 else []):
            if passed >= _FLUSHES * capacity:
                break
            ahead.insert(0, _EntryRun(entry, True))
            passed += read_bytes[str(entry.problem)]
        runs += [*ahead, *(_EntryRun(entry, False) for entry in layer)]
    return runs


def _time_entry(workload: Workload, run: _EntryRun, item: _Prepared, plan: GmPlan, state: L2State) -> tuple[Result, L2State]:
    """Time an entry on what is in L2; its result, and what it leaves there."""
    chip = item.known["hardware"].chip
    options = replace(item.options, record_timeline=item.options.record_timeline and not run.ahead)
    started = time.perf_counter()
    try:
        record = load_engine(item.known["engine"]).run(lower(item.kernel, chip, plan.place(item.kernel)), options, state)
    except MsdsimError as err:
        raise type(err)(f"workload '{workload.name}', entry '{run.entry.name}': {err}") from None
    assert record.l2 is not None
    # The result does without the state: there is one a kernel, and nobody asks for it again.
    result = Result(record=replace(record, l2=None), kernel=item.kernel, wall_s=time.perf_counter() - started,
                    l2_start="workload", **item.known)
    return result, record.l2


def compare_workload(workload: Workload, hw: str | Hardware, dataflows: Sequence[str] | str = "all", *,
                     tilings: Mapping[str, Mapping[str, int]] | None = None, progress: Progress | None = None,
                     **options: Any) -> WorkloadComparison:
    """Simulate a workload with several dataflows; one that cannot run an entry is listed with the reason."""
    hardware = _hardware(hw)
    kinds = list(dict.fromkeys(entry.problem.kind for entry in workload.entries))
    names = list(dataflows)
    if dataflows == "all" or dataflows == ["all"]:
        names = [name for name in dataflows_for(kinds[0]) if all(name in dataflows_for(kind) for kind in kinds)]
    runs, skipped = [], []
    for name in names:
        reasons = ((entry.name, find_dataflow(entry.problem, name).refuses(entry.problem, hardware.chip))
                   for entry in workload.entries)
        reason = next((f"{entry}: {text}" for entry, text in reasons if text is not None), None)
        if reason is not None:
            skipped.append(Skipped(name, reason))
        else:
            runs.append(simulate_workload(workload, hardware, name, tiling=(tilings or {}).get(name), **options))
        if progress is not None:
            progress(len(runs) + len(skipped), len(names))
    return WorkloadComparison(runs, skipped)


def _problem(problem: str | Problem | Kernel) -> Any:
    if not isinstance(problem, str):
        return problem
    parsed = parse_problem(problem)
    if isinstance(parsed, Workload):
        raise InputError(f"'{problem}' is a workload of several problems; use simulate_workload")
    if isinstance(parsed, KernelFile):
        return read_kernel(parsed.path)
    return parsed


def _hardware(hw: str | Hardware) -> Hardware:
    return load_hw(hw) if isinstance(hw, str) else hw


def _options(engine: str, memory: str, timeline: bool, skip: bool) -> EngineOptions:
    if engine not in ENGINES:
        raise unknown_name("engine", engine, list(ENGINES))
    if memory not in MEMORY_MODELS:
        raise unknown_name("memory model", memory, list(MEMORY_MODELS))
    return EngineOptions(record_timeline=timeline, memory=memory, skip=skip)


def _execute(dataflow: Dataflow, problem: Any, kernel: Kernel, tiles: Any, inputs: Mapping[str, np.ndarray] | None,
             seed: int, keep: Sequence[str]) -> dict[str, Any]:
    """Run the kernel's numbers, hold them against the reference, and measure the error against float64."""
    from msdsim.numerics.contracts import contract_for
    from msdsim.numerics.executor import execute
    from msdsim.numerics.metrics import bound_ratio, compare_bits, max_abs_error, relative_l2

    contract = contract_for(dataflow.kind, dataflow.contract).for_tiling(asdict(tiles))
    operands = contract.operands(problem, inputs, seed)
    outputs = execute(kernel, operands)
    expected = contract.reference(problem, operands)
    mismatches = [found for name in expected if name in outputs
                  if (found := compare_bits(expected[name], outputs[name].reshape(expected[name].shape), name)) is not None]
    exact = contract.exact(problem, operands)
    y = outputs["y"].reshape(exact.shape)
    numerics = Numerics(
        bit_exact=not mismatches,
        elements=y.size,
        mismatches=sum(found.count for found in mismatches),
        relative_l2=relative_l2(y, exact),
        max_abs_error=max_abs_error(y, exact),
        bound_ratio=bound_ratio(y, exact, contract.bound(problem, operands, exact)),
        first_mismatch=str(mismatches[0]) if mismatches else "",
    )
    arrays = {"y": y.astype(np.float32)}
    if "components" in keep:
        arrays |= {name: _plain(value) for name, value in expected.items() if name not in ("y", "y32")}
    return {"numerics": numerics, "arrays": arrays}


def _plain(array: np.ndarray) -> np.ndarray:
    """A component or scale in a plain numpy type: integers as int8, codes of one-byte formats as uint8, the rest float32."""
    if array.dtype.itemsize > 1:
        return array.astype(np.float32)
    return array.astype(np.int8) if array.dtype.kind == "i" or array.dtype.name == "int4" else array.view(np.uint8)


def require_check(result: Result) -> None:
    """Raise CheckFailed unless the result's numbers were bit-exact and inside their bound."""
    numbers = result.numerics
    if numbers is None or (numbers.bit_exact and numbers.bound_ratio <= 1):
        return
    if not numbers.bit_exact:
        raise CheckFailed(f"{result.dataflow}: {numbers.first_mismatch}")
    raise CheckFailed(f"{result.dataflow}: the error is {numbers.bound_ratio:.3g} times its proven bound; please report this")
