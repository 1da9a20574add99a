"""What a Vector instruction asks of the banks of UB, and what that costs where its operands lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product as combinations
from operator import add
from typing import NamedTuple

from msdsim.hardware.chip import Chip
from msdsim.hardware.units.banks import BankModel, Pattern, Steps
from msdsim.ir.expr import Const, Expr, evaluate, free_vars
from msdsim.ir.kernel import Block, Buffer, For, Kernel, Op, Slice, Vf, When, row_bytes
from msdsim.ir.lets import plain
from msdsim.ir.ops import OPS
from msdsim.ir.timing import Local, Repeats
from msdsim.units import ceil_div

#: An operation counts this many times more for each loop around it.
_LOOP_WEIGHT = 8
#: Index variables of a slice's start are tried with these values: phases come back after 16 rows of UB at the latest.
_TRIED_VALUES = range(16)
_BEGIN = (Const(0), Const(0))
#: Of cycles.
NOTHING = Fraction(0)


class Place(NamedTuple):
    """First byte of a buffer in UB, bytes from one slot of its ring to the next, and the number of the block that declares it:
    rings of one block and one depth are always at the same slot."""

    address: int
    stride_bytes: int
    block: int = 0


Places = Mapping[str, Place]


@dataclass(frozen=True)
class Demand:
    """What one Vector instruction asks of the banks: its operands (reads first) by name and ring depth, their byte offsets in a
    slot (a tuple for each combination of index values that makes a difference), and how it goes through them.  ``timing`` is
    what it costs without conflicts."""

    timing: Local
    names: tuple[str, ...]
    rings: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]
    pattern: Pattern
    weight: int = 1

    def cycles(self, model: BankModel, places: Places) -> Fraction:
        """Cycles that the banks need for a repeat; the worst combination of ring slots and index values, where they differ."""
        operands = [places[name] for name in self.names]
        rings = list(dict.fromkeys(zip((where.block for where in operands), self.rings, strict=True)))
        turns = [rings.index((where.block, ring)) for where, ring in zip(operands, self.rings, strict=True)]
        starts = [[where.address + slots[turn] * where.stride_bytes for where, turn in zip(operands, turns, strict=True)]
                  for slots in combinations(*(range(ring) for _, ring in rings))]
        return model.most_cycles(self.pattern, [list(map(add, start, offsets)) for start in starts for offsets in self.offsets])

    def excess(self, model: BankModel, places: Places) -> Fraction:
        """Cycles that the banks need beyond one a repeat, over the whole instruction and as often as it runs."""
        cycles = self.cycles(model, places)
        return (cycles - 1) * (self.weight * self.pattern.count) if cycles > 1 else NOTHING


def demands_of(kernel: Kernel, chip: Chip) -> dict[int, Demand]:
    """What the operations of the AIV part ask of the banks, by ``id`` of the operation; nothing where the chip has no banks."""
    return {} if chip.vector.banks is None else dict(_demands(plain(kernel).aiv, chip, 1))


def _demands(block: Block, chip: Chip, weight: int) -> Iterator[tuple[int, Demand]]:
    for statement in block:
        if isinstance(statement, Vf):
            continue
        if isinstance(statement, For | When):
            yield from _demands(statement.body, chip, weight * (_LOOP_WEIGHT if isinstance(statement, For) else 1))
        elif isinstance(statement, Op):
            timing = OPS[statement.kind].timing(statement, chip, {})
            if isinstance(timing, Local) and timing.repeats is not None:
                demand = _demand(timing, timing.repeats, weight)
                if demand is not None:
                    yield id(statement), demand


def _demand(timing: Local, repeats: Repeats, weight: int) -> Demand | None:
    """None for what is so short that it does not feel its banks."""
    lanes, flat = repeats.lanes, timing.cost.flat
    items = (*repeats.reads, repeats.write)
    rows, cols = _sizes(repeats.write)
    if (rows * cols if flat else cols) <= lanes and (flat or rows == 1) and len(items) <= timing.cost.minimum:
        return None
    width = lanes if flat else min(lanes, cols)
    *reads, write = (Steps(max(1, width * item.bits // 8), 0 if flat else _pitch(item)) for item in items)
    pattern = Pattern(tuple(reads), write, 1 if flat else rows, ceil_div(rows * cols if flat else cols, lanes))
    return Demand(timing, tuple(item.of.name for item in items),
                  tuple(item.of.ring if isinstance(item.of, Buffer) else 1 for item in items), _offsets(items), pattern, weight)


def with_conflicts(demand: Demand, model: BankModel, places: Places) -> Local:
    """The instruction's timing with what its operands' banks need beyond the unit's own cycles."""
    timing, needed = demand.timing, demand.cycles(model, places)
    if needed <= timing.cost.cycles_per_unit or needed * demand.pattern.count <= timing.cost.minimum:
        return timing
    return replace(timing, cost=replace(timing.cost, cycles_per_unit=needed), without_conflicts=timing.cost)


def _sizes(item: Slice) -> tuple[int, int]:
    """Rows and columns of a slice; of a ragged one the most it can have."""
    shape = item.of.shape
    rows = 1
    for size, extent in zip(item.sizes[:-1], shape[:-1], strict=True):
        rows *= size.value if isinstance(size, Const) else extent
    last = item.sizes[-1]
    return rows, last.value if isinstance(last, Const) else shape[-1]


def _pitch(item: Slice) -> int:
    return row_bytes(item.of.shape[-1], item.fmt) if isinstance(item.of, Buffer) else item.of.strides_bytes[-1]


def _offsets(items: Sequence[Slice]) -> tuple[tuple[int, ...], ...]:
    """Byte offsets of the slices in their slots, for each combination of index values that makes a difference."""
    if all(isinstance(item.of, Buffer) and item.starts == _BEGIN for item in items):
        return ((0,) * len(items),)
    offsets = [_offset(item) for item in items]
    names = frozenset().union(*(free_vars(offset) for offset in offsets))
    tried = [dict.fromkeys(names, value) for value in (_TRIED_VALUES if names else (0,))]
    return tuple(dict.fromkeys(tuple(max(0, evaluate(offset, env)) for offset in offsets) for env in tried))


def _offset(item: Slice) -> Expr:
    """Byte offset of a slice in a slot of its buffer, or in a core's part of a workspace."""
    offset: Expr = item.starts[-1] * item.bits // 8
    if isinstance(item.of, Buffer):
        return offset + item.starts[0] * _pitch(item)
    # The first two indices of a workspace in UB are the core and the AIV.
    for start, stride in zip(item.starts[2:-1], item.of.strides_bytes[2:], strict=True):
        offset = offset + start * stride
    return offset
