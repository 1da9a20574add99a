"""The microbenchmarks as a dataflow: which kernel an operation is, and what a chip must have for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.cube.operands import MX_ELEMENTS
from msdsim.dataflows.micro.instructions import INSTRUCTIONS, mmad, vector
from msdsim.dataflows.micro.matmul import Matmul
from msdsim.dataflows.micro.matrices import read_matrix, through_ub
from msdsim.dataflows.micro.msd_groups import MsdGroups
from msdsim.dataflows.micro.transfers import BLOCK, FMT_BYTES, TRANSFERS
from msdsim.formats.mx import MX_BLOCK
from msdsim.hardware.chip import Chip
from msdsim.ir import Kernel, KernelBuilder
from msdsim.problems.model import Micro
from msdsim.units import ceil_div


@dataclass(frozen=True)
class MicroTiling:
    """A microbenchmark's sizes are its problem: there is nothing to tile."""


#: Kernels of their own; all other operations are emitted into one.
_KERNELS: dict[str, Callable[[Micro, Chip], Kernel]] = {
    "read_matrix": read_matrix,
    "matmul": lambda problem, chip: Matmul(problem, chip).kernel(),
    "msd_groups": lambda problem, chip: MsdGroups(problem, chip).kernel(),
    "duplicate_matrix": partial(through_ub, sources=1), "add_matrix": partial(through_ub, sources=2),
}


def build(problem: Micro, chip: Chip, _: MicroTiling) -> Kernel:
    """The kernel of a microbenchmark."""
    if problem.op in _KERNELS:
        return _KERNELS[problem.op](problem, chip)
    kb = KernelBuilder(f"micro_{problem.op}", 1, chip.cores.aiv_per_aic)
    if problem.op == "vector":
        vector(kb, problem, chip)
    elif problem.op == "mmad":
        mmad(kb, problem)
    else:
        TRANSFERS[problem.op](kb, problem)
    return kb.build()


def refuses(problem: Micro, chip: Chip) -> str | None:
    """Why a microbenchmark cannot run on a chip, or None."""
    if problem.op == "vector" and problem.instr not in INSTRUCTIONS:
        return f"instr={problem.instr} is not one of {', '.join(INSTRUCTIONS)}"
    if problem.fmt in MX_ELEMENTS and (problem.op != "matmul" or problem.k % MX_BLOCK or problem.base_k % MX_BLOCK):
        return f"fmt={problem.fmt} is for matmul with k and base_k in whole blocks of {MX_BLOCK}"
    if problem.op in ("mmad", "matmul") and chip.cube.rate(problem.fmt, problem.fmt) is None:
        return f"its Cube cannot multiply {problem.fmt} x {problem.fmt}"
    if problem.op in TRANSFERS:
        return _refuses_transfer(problem, chip)
    return _refuses_matmul(problem, chip) if problem.op == "matmul" else None


def _refuses_transfer(problem: Micro, chip: Chip) -> str | None:
    source, destination = problem.op.upper().split("_")[1:]
    if chip.path(source, destination) is None:
        return f"it has no path {source}->{destination}"
    if problem.bytes % (2 * problem.rows * FMT_BYTES * BLOCK):
        return f"bytes={problem.bytes} is not a multiple of {2 * FMT_BYTES * BLOCK} for each of {problem.rows} rows"
    return None


def _refuses_matmul(problem: Micro, chip: Chip) -> str | None:
    deep, shallow = max(problem.step_ka, problem.step_kb), min(problem.step_ka, problem.step_kb)
    if deep % shallow:
        return f"step_ka={problem.step_ka} and step_kb={problem.step_kb} do not divide one another"
    single_m, single_n = problem.single_m or problem.m, problem.single_n or problem.n
    blocks = ceil_div(ceil_div(problem.m, problem.passes), single_m) * ceil_div(problem.n, single_n)
    if blocks > chip.cores.aic:
        return f"{blocks} blocks of single_m x single_n need more than its {chip.cores.aic} cores"
    return None


DATAFLOWS.add("micro", Dataflow(
    name="micro", kind="micro", contract="micro",
    description="microbenchmarks of single instructions, copies and fixed GEMM kernels",
    tiling=MicroTiling, refuses=refuses, auto=lambda problem, chip: MicroTiling(), build=build,
))
