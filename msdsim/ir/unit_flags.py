"""Unit flags: FIXPIPE drains an accumulator while the Cube still finishes it, and the next sum follows on the drain.

Each block of L0C has a flag that says whether it can be written or read.  A product with the unit flag waits until a block can
be written; the last one of a sum leaves it to be read.  A fixpipe with the unit flag waits until a block can be read, and
leaves it to be written (asc-devkit, ``UnitFlag``: values 2 and 3 of ``unitFlag``; CATLASS sets 3 on the last product of a sum).
In a kernel both carry ``unit_flag=1``; which product is the last follows from the loops around it.

Blocks are taken to be the rows of fractals of a tile, in whose order both pipes go; what the hardware's blocks are is not
published beyond their size (512 bytes, cann-samples).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import PortCost
from msdsim.ir.expr import Const, Expr, Var, binary, minimum, product
from msdsim.ir.kernel import Alloc, Block, Buffer, For, Kernel, Op, When
from msdsim.ir.lets import part_ranges
from msdsim.ir.ops.base import require
from msdsim.ir.ranges import Ranges, lower_bound
from msdsim.ir.timing import Local, Timing, Transfer
from msdsim.units import ceil_div

ATTRIBUTE = "unit_flag"


def has_unit_flag(op: Op) -> bool:
    """Whether an operation goes block by block."""
    return op.attr(ATTRIBUTE, 0) == 1


@dataclass(frozen=True)
class _Use:
    """An operation on an accumulator, with the loops and conditions between it and the accumulator's block."""

    op: Op
    path: tuple[For | When, ...]
    ranges: Ranges


def check_unit_flags(kernel: Kernel) -> None:
    """KernelError where unit flags would not tell the last product of a sum, or one pipe would use them and the other not."""
    _check_block(kernel.part("aic"), part_ranges(kernel, "aic"))


def _check_block(block: Block, ranges: Ranges) -> None:
    for statement in block:
        if isinstance(statement, Alloc) and statement.buffer.space == "L0C":
            _check_buffer(statement.buffer, list(_uses(block, statement.buffer, (), ranges)))
        elif isinstance(statement, For | When):
            _check_block(statement.body, _inside(statement, ranges))


def _inside(statement: For | When, ranges: Ranges) -> Ranges:
    if isinstance(statement, When):
        return ranges.where(statement.condition)
    return ranges.inside(statement.var, statement.low, statement.high, statement.step)


def _uses(block: Block, buffer: Buffer, path: tuple[For | When, ...], ranges: Ranges) -> Iterator[_Use]:
    for statement in block:
        if isinstance(statement, For | When):
            yield from _uses(statement.body, buffer, (*path, statement), _inside(statement, ranges))
        elif isinstance(statement, Op) and any(item is not None and item.of == buffer
                                               for item in (statement.out, *statement.ins)):
            yield _Use(statement, path, ranges)


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
    require(not drains[0].path, drains[0].op, f"does not stand in the block that declares '{buffer.name}'",
            "declare the accumulator in the block of its fixpipe")
    last, ranges = uses[-2], drains[0].ranges
    for item in last.path:
        certain = isinstance(item, For) and (ranges.dead or lower_bound(item.high - item.low, ranges) >= 1)
        require(certain, last.op, f"completes '{buffer.name}' and may not run, as it stands in '{_head(item)}'",
                f"let the last product of a sum run always, or leave out {ATTRIBUTE}")
        ranges = _inside(item, ranges)


def _head(item: For | When) -> str:
    return f"for {item.var} in {item.low} .. {item.high}" if isinstance(item, For) else f"when {item.condition}"


def last_time(loops: list[tuple[str, Expr, Expr, int]]) -> Expr:
    """1 in the last iteration of all loops (variable, low, high, step), else 0."""
    return product(*(binary(">=", Var(var) + step, high) for var, _, high, step in loops))


def strip(timing: Timing, chip: Chip) -> tuple[Expr, ...]:
    """The sizes of a row of fractals of a tile that ``timing`` works on; of a transfer its rows."""
    if isinstance(timing, Local):
        return minimum(timing.dims[0], chip.cube.fractal_m), *timing.dims[1:]
    assert isinstance(timing, Transfer)
    return (minimum(timing.rows, chip.cube.fractal_m),)


def drain_cycles(cost: PortCost, rows: int, row_bytes: int) -> int:
    """Cycles of a fixpipe's port for so many rows of a tile, wherever in a line they begin."""
    if rows <= 0 or row_bytes <= 0:
        return 0
    rate = cost.bytes_per_cycle
    return ceil_div(rows * max(cost.granule_bytes, row_bytes) * rate.denominator, rate.numerator)


#: Completes no sum.
NEVER = Const(0)
