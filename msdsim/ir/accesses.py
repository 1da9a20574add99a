"""Which places of tensors a program's instructions touch, and what touched a place before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msdsim.ir.expr import Binary, Const, Expr, compiled, source
from msdsim.ir.kernel import Slice, Tensor
from msdsim.ir.ops import OPS
from msdsim.ir.program import Instr

#: An access that lies in more buckets of its tensor than this is compared with every other one.
_MOST_BUCKETS = 8

Env = dict[str, int]


@dataclass(frozen=True)
class Access:
    """A rectangle of a tensor that an instruction touched: its pipe's entry in the clocks and the count there."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    write: bool
    pipe: int
    count: int
    instr: Instr

    def overlaps(self, other: Access) -> bool:
        return all(a < d and c < b for a, b, c, d in zip(self.begin, self.end, other.begin, other.end, strict=True))

    def covers(self, other: Access) -> bool:
        return all(a <= c and d <= b for a, b, c, d in zip(self.begin, self.end, other.begin, other.end, strict=True))


class History:
    """The accesses of a tensor that a later one may meet, by where they lie."""

    def __init__(self, tensor: Tensor, grains: Sequence[int]) -> None:
        self.tensor, self.grains = tensor, grains
        self.buckets: dict[tuple[int, ...], list[Access]] = defaultdict(list)
        self.wide: list[Access] = []

    def places(self, access: Access) -> list[list[Access]]:
        """The lists in which what overlaps ``access`` may stand; those it stands in itself come first, ``wide`` last."""
        spans = [range(a // g, (b - 1) // g + 1) for a, b, g in zip(access.begin, access.end, self.grains, strict=True)]
        keys: list[tuple[int, ...]] = [()]
        for span in spans:
            keys = [(*key, index) for key in keys for index in span]
            if len(keys) > _MOST_BUCKETS:
                return [*self.buckets.values(), self.wide]
        return [*(self.buckets[key] for key in keys), self.wide]

    def add(self, access: Access, places: list[list[Access]]) -> None:
        if len(places) > _MOST_BUCKETS + 1 or places[0] is self.wide:
            places[-1].append(access)
        else:
            for place in places[:-1]:
                place.append(access)


def accesses_of(instr: Instr) -> list[tuple[Tensor, bool, Slice]]:
    """What an instruction touches of tensors that the kernel itself writes: the tensor, whether it writes, and where."""
    op = instr.op
    if op is None:
        return []
    found = [(item.of, False, item) for item in op.ins if isinstance(item.of, Tensor) and item.of.role != "in"]
    if op.out is not None and isinstance(op.out.of, Tensor):
        if OPS[op.kind].accumulates:
            found.append((op.out.of, False, op.out))
        found.append((op.out.of, True, op.out))
    return found


def place_of(item: Slice) -> Callable[[Env], Any]:
    return compiled("(" + "".join(f"{source(expr)}, " for expr in (*item.starts, *item.sizes)) + ")")


def grains_of(tensor: Tensor, items: Sequence[Slice]) -> list[int]:
    """Along each dimension, the largest size that accesses have: an access then lies in one or two buckets."""
    return [max((size.value if isinstance(size := item.sizes[axis], Const) else extent for item in items), default=1) or 1
            for axis, extent in enumerate(tensor.shape)]


def moduli_of(expr: Expr) -> Iterator[int]:
    if isinstance(expr, Binary):
        if expr.op == "%" and isinstance(expr.right, Const) and expr.right.value <= 64:
            yield expr.right.value
        yield from moduli_of(expr.left)
        yield from moduli_of(expr.right)
