"""What a hand-written kernel is held to: the number contract of a dataflow on a problem, its tensors matched by name, format
and shape with those that the dataflow's own kernel has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from msdsim.dataflows.lookup import dataflows_for, find_dataflow
from msdsim.errors import InputError
from msdsim.formats.mx import DEFAULT_RULE
from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Kernel, Tensor
from msdsim.numerics.check import Executed, check_numbers
from msdsim.problems import KernelFile, Problem, Workload, parse_problem
from msdsim.tilings import choose_tiling

if TYPE_CHECKING:
    import numpy as np

EXAMPLE = "msd-int8:gemm:m=16,k=1024,n=512"


def read_reference(text: str) -> tuple[str, Problem]:
    """Dataflow and problem of ``DATAFLOW:PROBLEM``."""
    name, colon, rest = text.partition(":")
    if rest.startswith(("gemm:", "grouped_gemm:", "attention:")) or not name.endswith(".py"):
        form = rest
    else:
        inner, colon, form = rest.partition(":")
        name = f"{name}:{inner}"
    if not colon or not form:
        raise InputError(f"reference '{text}' is not DATAFLOW:PROBLEM; write for example {EXAMPLE}")
    problem = parse_problem(form)
    if isinstance(problem, Workload | KernelFile):
        raise InputError(f"reference '{text}' needs one problem behind the dataflow; write for example {EXAMPLE}")
    return name, problem


def check_against(kernel: Kernel, chip: Chip, reference: str, *, tiling: Mapping[str, int] | None = None,
                  inputs: Mapping[str, np.ndarray] | None = None, seed: int = 0, keep: Sequence[str] = (),
                  scale_rule: str = DEFAULT_RULE) -> Executed:
    """Execute a hand-written kernel and hold its outputs against the contract of ``reference`` (``DATAFLOW:PROBLEM``), with the
    automatic tiling of that dataflow or the one given, where a contract depends on it."""
    from msdsim.numerics.contracts import contract_for

    name, problem = read_reference(reference)
    flow = find_dataflow(problem, name)
    reason = flow.refuses(problem, chip)
    if reason is not None:
        raise InputError(f"reference '{reference}': dataflow '{flow.name}' cannot run this on '{chip.name}': {reason}")
    tiles = choose_tiling(flow, problem, chip, tiling)
    reason = mismatch(kernel, flow.build(problem, chip, tiles))
    if reason is not None:
        raise InputError(f"kernel '{kernel.name}' does not have the tensors of {reference}: {reason}")
    contract = contract_for(flow.kind, flow.contract).for_tiling(asdict(tiles)).with_scale_rule(scale_rule)
    return check_numbers(contract, problem, kernel, inputs=inputs, seed=seed, keep=keep)


def solves(kernel: Kernel, problem: Any, chip: Chip, name: str = "") -> str:
    """The dataflow whose tensors a kernel has (``name``, where one is given); InputError where there is none: such a kernel
    does not solve the problem."""
    reasons = []
    for candidate in [name] if name else dataflows_for(problem.kind):
        flow = find_dataflow(problem, candidate)
        reason = flow.refuses(problem, chip)
        if reason is None:
            reason = mismatch(kernel, flow.build(problem, chip, choose_tiling(flow, problem, chip, None)))
        if reason is None:
            return flow.name
        reasons.append(f"{candidate}: {reason}")
    raise InputError(f"kernel '{kernel.name}' has the tensors of no dataflow of {problem}: {'; '.join(reasons)}")


def mismatch(kernel: Kernel, expected: Kernel) -> str | None:
    """Why the inputs and outputs of a kernel are not those of another; None where they are."""
    own, others = _operands(kernel), _operands(expected)
    for name, tensor in others.items():
        if name not in own:
            return f"it has no tensor {_text(tensor)}"
        if (own[name].fmt, own[name].role, _shape(own[name])) != (tensor.fmt, tensor.role, _shape(tensor)):
            return f"it has {_text(own[name])}, not {_text(tensor)}"
    extra = [tensor for name, tensor in own.items() if name not in others]
    return f"there is no {_text(extra[0])}; make it a workspace or leave it out" if extra else None


def _operands(kernel: Kernel) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in kernel.tensors if tensor.role != "workspace"}


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """Extents but those of 1, which a kernel may write or leave out."""
    return tuple(int(extent) for extent in tensor.shape if int(extent) != 1)


def _text(tensor: Tensor) -> str:
    return f"'{tensor.name}: {tensor.fmt}[{', '.join(str(int(extent)) for extent in tensor.shape)}] {tensor.role}'"
