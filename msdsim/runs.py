"""One kernel from beginning to end: prepared (built, verified, its numbers executed), timed, and put into a result.

Everything a user can want differently about a run travels as one object, :class:`RunOptions`, from the command line and the
Python interface down to here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.checkpoints.stored import StoredWeight
from msdsim.dataflows.base import Dataflow
from msdsim.dataflows.lookup import find_dataflow
from msdsim.engine import EngineOptions, empty_l2, load_engine
from msdsim.engine.base import ENGINES, MEMORY_MODELS
from msdsim.errors import ArrayError, CheckFailed, Deadlock, InputError, KernelError
from msdsim.formats.mx import DEFAULT_RULE, rule_named
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware import Hardware, load_hw
from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Kernel
from msdsim.ir.lower import lowered_alike
from msdsim.ir.order import CannotFinish
from msdsim.ir.params import with_params
from msdsim.ir.parser import read_kernel
from msdsim.ir.program import Program
from msdsim.numerics.check import Executed, check_numbers, execute_kernel
from msdsim.numerics.raw_arrays import read_npz
from msdsim.numerics.shared import Shared
from msdsim.passes import Build, run_passes
from msdsim.problems import KernelFile, Problem, Workload, parse_problem
from msdsim.references import check_against
from msdsim.registry import unknown_name
from msdsim.report.result import Result
from msdsim.report.shown import ShownResult
from msdsim.tilings import choose, choose_tiling
from msdsim.timeline.record import RunRecord

DEFAULT_ENGINE = "fast"


@dataclass(frozen=True)
class RunOptions:
    """How to run a kernel: take the defaults, change what you care about.

    ``tiling`` are tile sizes and ring depths by name; what is left out is chosen.  ``engine`` and ``memory`` name the timing
    engine and the fidelity of the memory system.  ``check`` also executes the numbers (on ``inputs``, or random ones from
    ``seed``) and compares them bit for bit with the whole-tensor reference; a difference is reported in ``Result.numerics``,
    not raised.  ``keep`` says what ``Result.arrays`` holds: ``"y"``, and with ``"components"`` those of the decomposition and
    their scales.  ``timeline`` keeps every instruction; ``skip`` allows the engine to add repeated periods without simulating
    them, where that is exact.  With ``warm`` the kernel runs twice on the same tensors and the second run is reported: what a
    benchmark measures that repeats one operator.  ``weights`` are those of a checkpoint, read or as ``PATH:TENSOR``; they bring
    their groups and offsets into the problem.  ``scale_rule`` chooses the block scales of values quantized to MXFP4.
    ``reference`` (``"msd-int8:gemm:m=16,k=1024,n=512"``) is what the numbers of a hand-written kernel are held to: the contract
    of a dataflow on a problem.  A kernel's ``tiling`` are its params, and what is none of them is the reference's.
    """

    tiling: Mapping[str, int] | None = None
    engine: str = DEFAULT_ENGINE
    memory: str = "bandwidth"
    check: bool = False
    seed: int = 0
    inputs: Mapping[str, np.ndarray] | None = None
    timeline: bool = False
    skip: bool = True
    keep: tuple[str, ...] = ()
    warm: bool = False
    weights: StoredWeight | str | None = None
    scale_rule: str = DEFAULT_RULE
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown_name("engine", self.engine, list(ENGINES))
        if self.memory not in MEMORY_MODELS:
            raise unknown_name("memory model", self.memory, list(MEMORY_MODELS))
        rule_named(self.scale_rule)

    def but(self, **changes: Any) -> RunOptions:
        """The same options with some changed, ``inputs`` also as the path of an npz file; TypeError for a name that is none."""
        known = [item.name for item in fields(self)]
        for name in changes:
            if name not in known:
                raise TypeError(f"there is no option '{name}' of a run (options: {', '.join(known)})")
        if isinstance(given := changes.get("inputs"), str | Path):
            changes["inputs"] = read_npz(given)
        return replace(self, **changes)

    @property
    def executes(self) -> bool:
        """Whether the numbers are wanted, not only the time."""
        return self.check or bool(self.keep) or self.inputs is not None or self.weights is not None

    def for_engine(self) -> EngineOptions:
        """What of them the engine takes."""
        return EngineOptions(record_timeline=self.timeline, memory=self.memory, skip=self.skip)


#: The defaults of every option.
DEFAULTS = RunOptions()


@dataclass(frozen=True)
class PreparedRun:
    """A kernel that is ready to be timed, with everything of its result but the timing."""

    build: Build
    hardware: Hardware
    options: RunOptions
    problem: Mapping[str, Any]
    dataflow: str
    tiling: Mapping[str, int] = field(default_factory=dict)
    executed: Executed = field(default_factory=lambda: Executed(None, {}))
    weights: str = ""
    chosen: str = ""

    @property
    def kernel(self) -> Kernel:
        """The kernel that is timed."""
        assert self.build.kernel is not None
        return self.build.kernel

    def program(self, addresses: Mapping[str, int] | None = None) -> Program:
        """The kernel lowered, its tensors at these addresses in GM (None: one after the other)."""
        build = self.build if addresses is None else replace(self.build, addresses=addresses, program=None)
        program = build.program or (_known_program(build) if addresses is None else None)
        if program is None:
            program = run_passes(build, "lower").program
            assert program is not None
            if addresses is None:
                _keep(_PROGRAMS, id(program.kernel), program)
        return program

    def result(self, record: RunRecord, wall_s: float, l2_start: str) -> ShownResult:
        """The whole result, with how it went in time."""
        options = self.options
        return ShownResult(problem=self.problem, hardware=self.hardware, dataflow=self.dataflow, engine=options.engine,
                           memory=options.memory, tiling=self.tiling, seed=options.seed, record=record, kernel=self.kernel,
                           wall_s=wall_s, numerics=self.executed.numerics, arrays=self.executed.arrays, l2_start=l2_start,
                           weights=self.weights, chosen=self.chosen)


def run(problem: Problem | Kernel, hardware: Hardware, dataflow: str, options: RunOptions = DEFAULTS,
        shared: Shared | None = None) -> ShownResult:
    """Simulate one problem with one dataflow, or a kernel as it is.  InputError for anything the user can mend.

    ``shared`` has what the numbers of other dataflows on the same problem and options found.
    """
    item = prepare_kernel(problem, hardware, options) if isinstance(problem, Kernel) else \
        prepare(problem, hardware, dataflow, options, shared)
    started = time.perf_counter()
    record = _timed(item)
    wall_s = time.perf_counter() - started
    if isinstance(problem, Kernel) and not options.check:
        _require_end(item)
    return item.result(record, wall_s, "warm" if options.warm else "empty")


def _require_end(item: PreparedRun) -> None:
    """Deadlock for a kernel that ends only because its pipes run ahead of its text, as its numbers and other chips do not."""
    if item.kernel.signals and "_ends" not in item.kernel.__dict__:
        try:
            run_passes(item.build, "order")
        except CannotFinish as err:
            raise Deadlock(str(err)) from None
        except KernelError:
            pass  # accesses without an order are what 'check' asks for
        object.__setattr__(item.kernel, "_ends", True)


def prepare(problem: Any, hardware: Hardware, dataflow: str, options: RunOptions, shared: Shared | None = None) -> PreparedRun:
    """Build the kernel of a problem and execute its numbers, where that is wanted."""
    chosen = find_dataflow(problem, dataflow)
    said = ""
    if options.weights is not None:
        problem, options, said = _with_weights(problem, chosen, options)
        shared = None  # every dataflow has arrays of its own
    reason = chosen.refuses(problem, hardware.chip)
    if reason is not None:
        error = InputError if options.weights is None else ArrayError
        raise error(f"dataflow '{chosen.name}' cannot run {problem} on '{hardware.name}': {reason}")
    build = _built(chosen, problem, hardware, options.tiling)
    item = PreparedRun(build, hardware, options, problem.to_json(), chosen.name, asdict(build.tiling), weights=said,
                       chosen=choose(chosen, problem, hardware.chip, options.tiling).how)
    if not options.executes:
        return item
    from msdsim.numerics.contracts import contract_for

    # Numbers first: what is wrong with the inputs is said before anything long runs.
    contract = contract_for(chosen.kind, chosen.contract).for_tiling(item.tiling).with_scale_rule(options.scale_rule)
    return replace(item, executed=check_numbers(contract, problem, item.kernel, inputs=options.inputs, seed=options.seed,
                                                keep=options.keep, shared=shared))


def shared_numbers(problem: Any, dataflows: Sequence[str]) -> Shared:
    """What the numbers of several dataflows on one problem have in common: nothing yet, but what will be asked for."""
    from msdsim.numerics.contracts import contract_for

    contracts = (contract_for(flow.kind, flow.contract) for flow in (find_dataflow(problem, name) for name in dataflows))
    return Shared([contract.weights_format for contract in contracts])


def _with_weights(problem: Any, dataflow: Dataflow, options: RunOptions) -> tuple[Any, RunOptions, str]:
    """The problem and the inputs with the weights of a checkpoint as this dataflow takes them, and what was done with them."""
    from msdsim.checkpoints.weights import read_weight
    from msdsim.numerics.weights import fit

    name = options.weights if isinstance(options.weights, str) else ""
    stored = read_weight(name) if isinstance(options.weights, str) else options.weights
    assert stored is not None
    weights = SCHEMES[dataflow.contract].weight_name if dataflow.contract in SCHEMES else "bf16"
    fitted = fit(stored, problem, weights, options.inputs, options.seed, name or stored.name)
    return fitted.problem, replace(options, inputs=fitted.inputs), fitted.said


def _built(dataflow: Dataflow, problem: Any, hardware: Hardware, tiling: Mapping[str, int] | None) -> Build:
    chip = hardware.chip
    tiles = choose_tiling(dataflow, problem, chip, tiling)
    # A user's own dataflow may choose what cannot be hashed; the builder refuses it in words.
    key = dataflow, str(problem), repr(tiles)
    build = _BUILT.get(key)
    if build is None or not lowered_alike(build.chip, chip):
        build = run_passes(Build(chip, dataflow, problem, tiles), "place")
    _keep(_BUILT, key, build)
    # What made the kernel stays behind, since a prepared run may travel from one process to another.
    return replace(build, chip=chip, dataflow=None, problem=None)


#: What was built and lowered last, by dataflow, problem and tiling and by the identity of the kernel that a program holds, for
#: chips on which it is the same.
_BUILT: dict[tuple[Dataflow, str, str], Build] = {}
_PROGRAMS: dict[int, Program] = {}


def _keep(known: dict[Any, Any], key: Any, item: Any) -> None:
    """Remember an item as the latest, and forget the oldest."""
    known.pop(key, None)
    known[key] = item
    for old in list(known)[:-_MOST_KEPT]:
        known.pop(old, None)


def _known_program(build: Build) -> Program | None:
    """The program of a kernel that was lowered before, on a chip for which it is the same."""
    program = _PROGRAMS.get(id(build.plain))
    if program is None or not lowered_alike(program.chip, build.chip):
        return None
    return program if program.chip is build.chip else replace(program, chip=build.chip)


def build_kernel(dataflow: Dataflow, problem: Any, hardware: Hardware,
                 tiling: Mapping[str, int] | None = None) -> tuple[Kernel, Any]:
    """The verified kernel of a dataflow, and the tiling it was built with."""
    build = _built(dataflow, problem, hardware, tiling)
    assert build.kernel is not None
    return build.kernel, build.tiling


def prepare_kernel(kernel: Kernel, hardware: Hardware, options: RunOptions) -> PreparedRun:
    """A hand-written kernel: timed like any other; its numbers are executed when its tensors are given.  Its check is that of
    the order of its accesses and, with a ``reference``, of its numbers.  ``options.tiling`` sets its params; what is none of
    them belongs to the dataflow of the reference."""
    given = options.tiling or {}
    of_reference = {key: value for key, value in given.items() if key not in kernel.params} if options.reference else {}
    kernel = with_params(kernel, {key: value for key, value in given.items() if key not in of_reference})
    build = _lowered(kernel, hardware.chip)
    if options.check:
        build = run_passes(build, "order")
    item = PreparedRun(build, hardware, options, {"kind": "kernel", "name": kernel.name}, kernel.name, kernel.params)
    if options.reference is not None:
        return replace(item, executed=check_against(kernel, hardware.chip, options.reference, tiling=of_reference or None,
                                                    inputs=options.inputs, seed=options.seed, keep=options.keep,
                                                    scale_rule=options.scale_rule))
    return item if options.inputs is None else replace(item, executed=execute_kernel(kernel, options.inputs))


#: Kernels that were lowered last, by the identities of kernel and chip: a kernel is often run again and again.
_kept: dict[tuple[int, int], Build] = {}
_MOST_KEPT = 8


def _lowered(kernel: Kernel, chip: Chip) -> Build:
    """Every pass of a hand-written kernel up to its instructions."""
    build = _kept.get((id(kernel), id(chip)))
    if build is None:
        # What is kept holds kernel and chip, so that their identities are not given to others.
        build = run_passes(Build(chip, kernel=kernel), "lower")
        _keep(_kept, (id(kernel), id(chip)), build)
    return build


def run_changed(result: Result, hardware: Hardware, options: RunOptions) -> ShownResult:
    """The kernel of a result once more, on its chip or one that differs in speed alone: it need not be verified again."""
    build, program = Build(hardware.chip, kernel=result.kernel, verified=True), result.record.program
    if lowered_alike(program.chip, hardware.chip) and program.addresses == result.kernel.addresses():
        build = replace(build, addresses=program.addresses, program=replace(program, chip=hardware.chip))
    item = PreparedRun(build, hardware, options, result.problem, result.dataflow, result.tiling)
    started = time.perf_counter()
    record = _timed(item)
    return item.result(record, time.perf_counter() - started, "warm" if options.warm else "empty")


def _timed(item: PreparedRun) -> RunRecord:
    """Time a kernel alone: on an empty L2 or, ``warm``, on what an earlier run of it has left there."""
    chip, options = item.hardware.chip, item.options.for_engine()
    program, simulator = item.program(), load_engine(item.options.engine)
    if not item.options.warm:
        return simulator.run(program, options)
    first = simulator.run(program, replace(options, record_timeline=False), empty_l2(chip))
    return simulator.run(program, options, first.l2)


def read_problem(problem: str | Path | Problem | Workload | Kernel) -> Problem | Workload | Kernel:
    """The problem of an inline form, the workload of a name or file, or the kernel of a ``.kir`` file; objects as they are."""
    if not isinstance(problem, str | Path):
        return problem
    found = parse_problem(str(problem))
    return read_kernel(found.path) if isinstance(found, KernelFile) else found


def as_problem(problem: str | Path | Problem | Workload | Kernel) -> Any:
    """What :func:`run` takes; InputError for a workload."""
    found = read_problem(problem)
    if isinstance(found, Workload):
        raise InputError(f"'{found.name}' is a workload of several problems; give one of them, such as "
                         f"{found.entries[0].problem}")
    return found


def as_hardware(hw: str | Path | Hardware) -> Hardware:
    """A chip given by name, path or as such."""
    return load_hw(hw)


def require_check(result: Result) -> None:
    """Raise CheckFailed unless the result's numbers were bit-exact and inside their bound."""
    numbers = result.numerics
    if numbers is None or numbers.good:
        return
    if not numbers.bit_exact:
        raise CheckFailed(f"{result.dataflow}: {numbers.first_mismatch}")
    raise CheckFailed(f"{result.dataflow}: the error is {numbers.bound_ratio:.3g} times its proven bound; please report this")
