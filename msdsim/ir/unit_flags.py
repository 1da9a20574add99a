"""Unit flags: FIXPIPE drains an accumulator while the Cube still finishes it, and the next sum follows on the drain.

Each block of L0C has a flag that says whether it can be written or read.  A product with the unit flag waits until a block can
be written; the last one of a sum leaves it to be read.  A fixpipe with the unit flag waits until a block can be read, and
leaves it to be written (asc-devkit, ``UnitFlag``: values 2 and 3 of ``unitFlag``; CATLASS sets 3 on the last product of a sum).
In a kernel both carry ``unit_flag=1``; the products of a sum are those before its fixpipe.

Blocks are taken to be the rows of fractals of a tile, in whose order both pipes go; what the hardware's blocks are is not
published beyond their size (512 bytes, cann-samples).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import PortCost
from msdsim.ir.expr import Expr, minimum
from msdsim.ir.kernel import Alloc, Block, Buffer, For, Kernel, Op, When, operations, walk
from msdsim.ir.ops.base import require
from msdsim.ir.timing import Local, Sync, Timing
from msdsim.units import ceil_div

ATTRIBUTE = "unit_flag"


def has_unit_flag(op: Op) -> bool:
    """Whether an operation goes block by block."""
    return op.attr(ATTRIBUTE, 0) == 1


@dataclass(frozen=True)
class _Use:
    """An operation on an accumulator, and how many loops and conditions are between it and the accumulator's block."""

    op: Op
    depth: int


def check_unit_flags(kernel: Kernel) -> None:
    """KernelError where one pipe would use unit flags and the other not, or a slot would be drained more than once."""
    if not any(has_unit_flag(op) for op in operations(kernel.part("aic"))):
        return
    blocks = [kernel.part("aic"), *(item.body for item in walk(kernel.part("aic")) if isinstance(item, For | When))]
    for block in blocks:
        for item in block:
            if isinstance(item, Alloc) and item.buffer.space == "L0C":
                _check_buffer(item.buffer, list(_uses(block, item.buffer, 0)))


def _uses(block: Block, buffer: Buffer, depth: int) -> Iterator[_Use]:
    for statement in block:
        if isinstance(statement, For | When):
            yield from _uses(statement.body, buffer, depth + 1)
        elif isinstance(statement, Op) and any(item is not None and item.of == buffer
                                               for item in (statement.out, *statement.ins)):
            yield _Use(statement, depth)


def _check_buffer(buffer: Buffer, uses: list[_Use]) -> None:
    flagged = [use for use in uses if has_unit_flag(use.op)]
    if not flagged:
        return
    for use in uses:
        require(has_unit_flag(use.op), use.op, f"has no {ATTRIBUTE}, another operation on '{buffer.name}' has",
                f"give {ATTRIBUTE}=1 to all of them or to none")
    drains = [use for use in uses if use.op.kind == "fixpipe"]
    for use in drains[1:]:
        require(False, use.op, f"is the second fixpipe of '{buffer.name}', whose blocks the first one has given back",
                f"drain it with one fixpipe, or leave out {ATTRIBUTE}")
    if not drains or drains[0] is not uses[-1] or len(uses) == 1:
        require(False, flagged[0].op, f"'{buffer.name}' with {ATTRIBUTE} needs products and then one fixpipe that drains them",
                f"write them in this order, or leave out {ATTRIBUTE}")
    require(drains[0].depth == 0, drains[0].op, f"does not stand in the block that declares '{buffer.name}'",
            "declare the accumulator in the block of its fixpipe")


def strip(timing: Timing, chip: Chip) -> tuple[Expr, ...]:
    """The sizes of a row of fractals of a tile that ``timing`` works on; of a transfer its rows."""
    if isinstance(timing, Sync):
        return ()
    if isinstance(timing, Local):
        return minimum(timing.dims[0], chip.cube.fractal_m), *timing.dims[1:]
    return (minimum(timing.rows, chip.cube.fractal_m),)


def drain_cycles(cost: PortCost, rows: int, row_bytes: int) -> int:
    """Cycles of a fixpipe's port for so many rows of a tile, wherever in a line they begin."""
    if rows <= 0 or row_bytes <= 0:
        return 0
    rate = cost.bytes_per_cycle
    return ceil_div(rows * max(cost.granule_bytes, row_bytes) * rate.denominator, rate.numerator)
