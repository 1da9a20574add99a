"""How an operation occupies its pipe, as sizes that are still expressions: what the lowering hands to the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from msdsim.hardware.cost import PortCost, UnitCost
from msdsim.ir.expr import Expr
from msdsim.ir.kernel import Slice


@dataclass(frozen=True)
class Repeats:
    """What the repeats of one Vector instruction read and write in UB, ``lanes`` elements of each at a time.

    Sources that are one row or one column of the result are not named: with a repeat or block stride of zero they are read
    once and then held.
    """

    reads: tuple[Slice, ...]
    write: Slice
    lanes: int


class MicroOp(NamedTuple):
    """One instruction of a unit: the chip file's name of it (an operation of Vector, a rate of the Cube), bits of its widest
    operand, and how many elements it works on for each element of the whole."""

    name: str
    bits: int = 0
    share: float = 1


@dataclass(frozen=True)
class Local:
    """Work inside the core on the sizes ``dims``.

    Vector instructions say in ``repeats`` what they ask of the banks of UB; where those take longer than the unit, the lowering
    puts that into ``cost`` and keeps the unit's own cost in ``without_conflicts``.  ``micro_ops`` are what Cube or Vector do
    for each element of the product of ``dims``; copies have none.
    """

    cost: UnitCost
    dims: tuple[Expr, ...]
    repeats: Repeats | None = None
    without_conflicts: UnitCost | None = None
    micro_ops: tuple[MicroOp, ...] = ()


@dataclass(frozen=True)
class Transfer:
    """Rows of ``row_bytes`` at ``address``, ``address + stride_bytes`` ... between GM and the core.

    With ``bypass``, lines that are not in L2 do not enter it.
    """

    cost: PortCost
    path: str
    write: bool
    tensor: str
    offset: Expr
    rows: Expr
    row_bytes: Expr
    stride_bytes: int
    bypass: bool = False


@dataclass(frozen=True)
class Sync:
    """No work: the operation only waits or signals, in its pipe's order."""


Timing: TypeAlias = Local | Transfer | Sync
