"""The passes from a problem to what an engine runs, in their order: this list is the whole way, and nobody goes another.  The
last one is for who asks whether the order of a program holds.

Each pass says what it needs and what it gives; what is there already is not worked out again.  So a hand-written kernel enters
after ``build``, and an operator of a workload brings the addresses at which its tensors lie between those of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msdsim.dataflows.base import Dataflow
from msdsim.errors import InvariantError
from msdsim.garbage import uncollected
from msdsim.hardware.chip import Chip
from msdsim.ir.kernel import Kernel
from msdsim.ir.lets import plain
from msdsim.ir.lower import lower
from msdsim.ir.order import OrderCheck, check_order
from msdsim.ir.placement import Placement, placed
from msdsim.ir.program import Program
from msdsim.ir.verify import check_kernel


@dataclass(frozen=True)
class Build:
    """A kernel on its way: what is known about it so far; None where no pass has given it yet."""

    chip: Chip
    dataflow: Dataflow | None = None
    problem: Any = None
    tiling: Any = None
    kernel: Kernel | None = None
    plain: Kernel | None = None
    verified: bool | None = None
    placement: Placement | None = None
    addresses: Mapping[str, int] | None = None
    program: Program | None = None
    order: OrderCheck | None = None


@dataclass(frozen=True)
class Pass:
    """One step: the fields of a :class:`Build` that it needs and the one it gives; ``run`` takes the former as keywords."""

    name: str
    needs: tuple[str, ...]
    gives: str
    description: str
    run: Callable[..., Any]


def _build(dataflow: Dataflow, problem: Any, chip: Chip, tiling: Any) -> Kernel:
    return dataflow.build(problem, chip, tiling)


def _simplify(kernel: Kernel) -> Kernel:
    return plain(kernel)


def _verify(plain: Kernel, chip: Chip) -> bool:
    check_kernel(plain, chip)
    return True


def _place(plain: Kernel, chip: Chip, verified: bool) -> Placement:
    return placed(plain, chip)


def _address(kernel: Kernel) -> Mapping[str, int]:
    return kernel.addresses()


def _lower(plain: Kernel, chip: Chip, addresses: Mapping[str, int], placement: Placement) -> Program:
    return lower(plain, chip, addresses, placement)


PASSES = (
    Pass("build", ("dataflow", "problem", "chip", "tiling"), "kernel",
         "the dataflow's page, written out for these sizes and tiles", _build),
    Pass("simplify", ("kernel",), "plain",
         "names put in and every expression in its simplest form: two spellings of one size are one size", _simplify),
    Pass("verify", ("plain", "chip"), "verified",
         "types, paths, capacity, the range of every slice, signals: what passes can be placed and run", _verify),
    Pass("place", ("plain", "chip", "verified"), "placement",
         "addresses in UB with the fewest bank conflicts, and what those that are left cost", _place),
    Pass("address", ("kernel",), "addresses",
         "addresses of the tensors in GM, one after the other where nobody has given any", _address),
    Pass("lower", ("plain", "chip", "addresses", "placement"), "program",
         "instructions with their pipes, costs and flags", _lower),
    Pass("order", ("program",), "order",
         "that accesses of one place in GM, or in memory that cores share, have an order whatever the times are", check_order),
)


@uncollected()
def run_passes(build: Build, until: str) -> Build:
    """Every pass up to and with the one called ``until`` whose outcome is not there yet; errors are those of the passes."""
    for item in PASSES[: [item.name for item in PASSES].index(until) + 1]:
        if getattr(build, item.gives) is not None:
            continue
        given = {name: getattr(build, name) for name in item.needs}
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise InvariantError(f"pass '{item.name}' needs {', '.join(missing)}, which nothing before it has given")
        build = replace(build, **{item.gives: item.run(**given)})
    return build
