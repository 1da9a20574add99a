"""The verifier: what must hold before a kernel runs.  Every error names the statement, its line and what would fix it.

Checked: declarations and capacity with all ring slots (:mod:`~msdsim.ir.declarations`); names, operand types and legal paths,
slices inside their tensors and buffers, alignment of 4-bit data, accumulator range, reads of what nothing has written
(:mod:`~msdsim.ir.structure`, :mod:`~msdsim.ir.reach`); signals, their directions and balance (:mod:`~msdsim.ir.signals`).
Races between the pipes of a core cannot be written: the lowering derives every flag from buffer use.  Those in memory that
cores share are for :mod:`~msdsim.ir.order`.

Time is bounded by the text: each statement is looked at once, each expression a fixed number of times, and what ranges cannot
tell is tried for at most :data:`~msdsim.ir.reach.MOST_POINTS` values of loop variables a part and
:data:`~msdsim.ir.signals.MOST_ROWS` for signals, whatever the trip counts are; beyond that a kernel is refused.
"""

from __future__ import annotations

from msdsim.hardware.chip import Chip
from msdsim.ir.declarations import check_declarations, check_flow
from msdsim.ir.kernel import Alloc, Kernel, walk
from msdsim.ir.lets import plain
from msdsim.ir.placement import place
from msdsim.ir.signals import check_signals
from msdsim.ir.structure import PartCheck
from msdsim.ir.unit_flags import check_unit_flags
from msdsim.ir.vf import check_vector_functions


def verify(kernel: Kernel, chip: Chip) -> None:
    """Raise KernelError for the first rule that ``kernel`` breaks on ``chip``, the places of pinned buffers among them."""
    check_kernel(kernel, chip)
    if any(isinstance(item, Alloc) and item.buffer.address is not None for item in walk(plain(kernel).aiv)):
        place(kernel, chip)


def check_kernel(kernel: Kernel, chip: Chip) -> None:
    """:func:`verify` but for pinned buffers, which the placement checks.

    A kernel that has passed on one chip passes on those that differ from it in what no rule looks at.
    """
    kernel = plain(kernel)
    passed: set[str] = kernel.__dict__.setdefault("_passed", set())
    rules = f"{chip.hbm.capacity_bytes} {chip.model_dump_json(exclude=_NO_RULES)}"
    if rules in passed:
        return
    check_declarations(kernel, chip)
    writes = PartCheck(kernel, chip, "aic").check() | PartCheck(kernel, chip, "aiv").check()
    check_flow(kernel, writes)
    check_unit_flags(kernel)
    check_vector_functions(kernel, chip)
    check_signals(kernel)
    passed.add(rules)


#: Parts of a chip that no rule looks at, beside the capacity of HBM, and with the name that messages give.
_NO_RULES = {"name", "description", "hbm", "l2", "clock_mhz", "launch", "energy", "memory"}
