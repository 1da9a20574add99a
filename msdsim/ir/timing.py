"""How an operation occupies its pipe, as sizes that are still expressions: what the lowering hands to the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from msdsim.hardware.cost import PortCost, UnitCost
from msdsim.ir.expr import Expr


@dataclass(frozen=True)
class Local:
    """Work inside the core on the sizes ``dims``."""

    cost: UnitCost
    dims: tuple[Expr, ...]


@dataclass(frozen=True)
class Transfer:
    """Rows of ``row_bytes`` at ``address``, ``address + stride_bytes`` ... between GM and the core."""

    cost: PortCost
    path: str
    write: bool
    tensor: str
    offset: Expr
    rows: Expr
    row_bytes: Expr
    stride_bytes: int


@dataclass(frozen=True)
class Sync:
    """No work: the operation only waits or signals, in its pipe's order."""


Timing: TypeAlias = Local | Transfer | Sync
