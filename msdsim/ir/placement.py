"""Where buffers lie in the Unified Buffer, and what that costs Vector in bank conflicts.

Buffers are placed in the order of their declaration where their operations meet fewest bank conflicts with what already lies
there: in the first gap, at the beginning or the middle of a round of all bank groups, else behind everything or where the next
bank of each group begins.  Slots of a ring are padded to the same phase where that helps.  A place is taken only if the buffers
still to come find room, so what fits without padding fits.  Where conflicts are left, other orders are tried.  What conflicts
cannot reach is aligned to the chip's unit only.  A kernel can pin a buffer to an address of its own.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

from msdsim.errors import KernelError
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.banks import bank_model
from msdsim.ir.bank_demand import NOTHING, Demand, Place, Places, demands_of, with_conflicts
from msdsim.ir.kernel import (
    Alloc,
    Block,
    Buffer,
    For,
    Kernel,
    Statement,
    When,
    ends_phase,
    operations,
    walk,
)
from msdsim.ir.lets import plain
from msdsim.ir.printer import statement_text
from msdsim.ir.timing import Local
from msdsim.units import round_up

#: Orders of placing that are tried at most where conflicts are left.
_MOST_ORDERS = 40
#: Conflicts of a smaller share of all repeats are not worth another order.
_NEGLIGIBLE = Fraction(1, 1000)




def place(kernel: Kernel, chip: Chip, demands: Mapping[int, Demand] | None = None) -> Places:
    """Where the UB buffers and UB workspaces of a kernel lie in each AIV; KernelError where a pinned address cannot be.

    ``demands`` are those of :func:`demands_of`, for who has them already.
    """
    kernel = plain(kernel)
    found: dict[str, Place] = {}
    at = 0
    for tensor in kernel.tensors:
        if tensor.space == "UB":
            found[tensor.name] = Place(at, 0)
            at += round_up(tensor.bytes_per_core, chip.alignment.ub_bytes)
    if demands is None:
        demands = demands_of(kernel, chip)
    # One kernel on chips that differ in what no place depends on has the same places.
    asked = tuple((demand.names, demand.rings, demand.offsets, demand.pattern, demand.weight)
                  for demand in dict.fromkeys(demands.values()))
    key = chip.vector.banks, chip.alignment.ub_bytes, chip.buffers.ub_bytes, asked
    known: dict[object, Places] = kernel.__dict__.setdefault("_places", {})
    if key not in known:
        blocks = dict(_blocks(kernel.aiv, count(1)))
        for allocs in buffer_phases(kernel, kernel.aiv):
            _Phase(chip, allocs, at, found, list(demands.values()), blocks).run()
        known[key] = found
    return known[key]


@dataclass(frozen=True)
class Placement:
    """Where the buffers in UB lie, by name, and what that makes the Vector operations cost: those that the banks have a say in,
    by their number among the operations of the AIV part."""

    places: Places
    costs: Mapping[int, Local]


def placed(kernel: Kernel, chip: Chip) -> Placement:
    """The placement of a verified kernel; KernelError where a pinned address cannot be."""
    kernel = plain(kernel)
    demands = demands_of(kernel, chip)
    places = place(kernel, chip, demands)
    if chip.vector.banks is None:
        return Placement(places, {})
    model = bank_model(chip.vector.banks)
    return Placement(places, {number: with_conflicts(demands[id(op)], model, places)
                              for number, op in enumerate(operations(kernel.aiv)) if id(op) in demands})


def _blocks(block: Block, numbers: Iterator[int]) -> Iterator[tuple[str, int]]:
    """Number of the block that declares each buffer."""
    own = next(numbers)
    for statement in block:
        if isinstance(statement, Alloc):
            yield statement.buffer.name, own
        elif isinstance(statement, For | When):
            yield from _blocks(statement.body, numbers)


def buffer_phases(kernel: Kernel, block: Block) -> list[list[Alloc]]:
    """Declarations of a part by phase; a phase ends at a wait for a barrier, and the next one uses the same memory again."""
    found: list[list[Alloc]] = [[]]
    for statement in block:
        if ends_phase(kernel, statement):
            found.append([])
        found[-1] += [item for item in walk((statement,)) if isinstance(item, Alloc)]
    return found


# The allocator


class _Phase:
    """Places the buffers of one phase; ``found`` holds what lies there already and takes the new places."""

    def __init__(self, chip: Chip, allocs: Sequence[Alloc], begin: int, found: dict[str, Place],
                 demands: Sequence[Demand], blocks: Mapping[str, int]) -> None:
        self.chip, self.allocs, self.begin, self.found, self.blocks = chip, allocs, begin, found, blocks
        self.model = None if chip.vector.banks is None else bank_model(chip.vector.banks)
        self.unit, self.capacity = chip.alignment.ub_bytes, chip.buffers.ub_bytes
        self.taken: list[tuple[int, int, str]] = [(0, begin, "a workspace")] if begin else []
        here = {alloc.buffer.name for alloc in allocs}
        self.demands = [demand for demand in dict.fromkeys(demands) if here & set(demand.names)]
        self.touching: dict[str, list[Demand]] = defaultdict(list)
        self.known: dict[tuple[object, ...], Fraction] = {}
        self.left: dict[Demand, Fraction] = {}
        self.fixed: tuple[list[tuple[int, int, str]], dict[str, Place]] = [], {}
        for demand in self.demands:
            for name in set(demand.names):
                self.touching[name].append(demand)
        #: Bytes of a slot, and of all of a buffer with its slots side by side.
        self.compact = {alloc.buffer.name: round_up(alloc.buffer.slot_bytes, self.unit) for alloc in allocs}
        self.sizes = {alloc.buffer.name: alloc.buffer.ring * self.compact[alloc.buffer.name] for alloc in allocs}
        self.pinned = any(alloc.buffer.address is not None for alloc in allocs)

    def run(self) -> None:
        for alloc in self.allocs:
            if alloc.buffer.address is not None:
                self._pin(alloc)
        order = [alloc for alloc in self.allocs if alloc.buffer.space == "UB" and alloc.buffer.address is None]
        self.fixed = list(self.taken), dict(self.found)
        fewest = self._place(order)
        best = dict(self.found)
        tries = iter(range(_MOST_ORDERS))
        enough = _NEGLIGIBLE * sum(demand.weight * demand.pattern.count for demand in self.demands)
        while fewest > enough:
            # One buffer after the other is placed first or last, as long as that makes it better.
            for changed in list(self._neighbours(order)):
                if next(tries, None) is None:
                    fewest = Fraction(0)
                    break
                conflicts = self._place(changed, fewest)
                if conflicts < fewest:
                    order, fewest, best = changed, conflicts, dict(self.found)
                    break
            else:
                break
        self.found.clear()
        self.found.update(best)

    def _place(self, order: Sequence[Alloc], enough: Fraction | None = None) -> Fraction:
        """Place the buffers in this order; the conflicts that are left.  Ends where there are as many as is ``enough``: those
        of buffers still to come can only be added."""
        self.taken = list(self.fixed[0])
        self.found.clear()
        self.found.update(self.fixed[1])
        total = NOTHING
        for index, alloc in enumerate(order):
            where, conflicts = self._best(alloc, [later.buffer for later in order[index + 1 :]])
            self._take(alloc.buffer, where)
            total += conflicts
            if enough is not None and total >= enough:
                return total
        self.left = {demand: excess for demand in self.demands if (excess := self._excess(demand, self.found))}
        return sum(self.left.values(), start=NOTHING)

    def _neighbours(self, order: Sequence[Alloc]) -> Iterator[list[Alloc]]:
        """The order with one buffer moved to the front or to the end, those in conflict first."""
        names = {name for demand in self.left for name in demand.names}
        for alloc in sorted(order, key=lambda alloc: alloc.buffer.name not in names):
            if self.touching[alloc.buffer.name]:
                rest = [other for other in order if other is not alloc]
                yield [alloc, *rest]
                yield [*rest, alloc]

    def _pin(self, alloc: Alloc) -> None:
        buffer = alloc.buffer
        assert buffer.address is not None
        begin, end = buffer.address, buffer.address + self.sizes[buffer.name]
        if begin % self.unit:
            raise _fail(alloc, f"address {begin:#x} is no multiple of {self.unit} bytes",
                        f"use {begin // self.unit * self.unit:#x} or {round_up(begin, self.unit):#x}")
        if end > self.capacity:
            raise _fail(alloc, f"it ends at {end:#x}, the UB of '{self.chip.name}' at {self.capacity:#x}",
                        "lower the address or the size")
        for low, high, name in self.taken:
            if begin < high and low < end:
                raise _fail(alloc, f"{begin:#x} .. {end:#x} overlaps {name} at {low:#x} .. {high:#x}", "move one of them")
        self._take(buffer, Place(begin, self.compact[buffer.name], self.blocks[buffer.name]))

    def _take(self, buffer: Buffer, where: Place) -> None:
        self.taken.append((where.address, where.address + self._extent(buffer, where), f"'{buffer.name}'"))
        self.taken.sort()
        self.found[buffer.name] = where

    def _best(self, alloc: Alloc, later: Sequence[Buffer]) -> tuple[Place, Fraction]:
        """The first place with the fewest conflicts that leaves room for the buffers still to come, and those conflicts."""
        buffer, size = alloc.buffer, self.sizes[alloc.buffer.name]
        plain = _fit(self.taken, self.begin, size)
        if self.pinned and plain + size > self.capacity:
            raise _fail(alloc, f"between the pinned buffers no {size} bytes of UB are left in one piece",
                        "move the pinned buffers together")
        best = Place(plain, self.compact[buffer.name], self.blocks[buffer.name])
        if not self.touching[buffer.name]:
            return best, NOTHING
        fewest: Fraction | None = None
        for where in self._candidates(buffer, plain):
            conflicts = self._conflicts(buffer, where, fewest)
            if (fewest is None or conflicts < fewest) and self._fits(buffer, where, later):
                best, fewest = where, conflicts
                if not fewest:
                    break
        return best, self._conflicts(buffer, best) if fewest is None else fewest

    def _candidates(self, buffer: Buffer, plain: int) -> Iterator[Place]:
        """At the half rounds from the first gap, from behind everything, and from where the next banks begin."""
        assert self.model is not None
        rounds, compact = self.model.round_bytes, self.compact[buffer.name]
        half = round_up(rounds // 2, self.unit)
        begins = [plain, max((high for _, high, _ in self.taken), default=self.begin)]
        if not self.model.banks.interleaved:
            begins += range(round_up(self.begin, self.model.region_bytes), self.capacity, self.model.region_bytes)
        for begin in dict.fromkeys(round_up(begin, half) for begin in begins):
            for start in (begin, begin + half):
                for stride in sorted({compact, round_up(compact, rounds)} if buffer.ring > 1 else {compact}):
                    yield Place(start, stride, self.blocks[buffer.name])

    def _fits(self, buffer: Buffer, where: Place, later: Sequence[Buffer]) -> bool:
        """Whether a place is free and the later buffers still find theirs, one after the other in the first gap."""
        size = self._extent(buffer, where)
        if where.address + size > self.capacity or _fit(self.taken, where.address, size) != where.address:
            return False
        taken = sorted([*self.taken, (where.address, where.address + size, "")])
        for other in later:
            size = self.sizes[other.name]
            at = _fit(taken, self.begin, size)
            if at + size > self.capacity:
                return False
            insort(taken, (at, at + size, ""))
        return True

    def _extent(self, buffer: Buffer, where: Place) -> int:
        """Bytes from a buffer's first byte to behind its last slot."""
        return (buffer.ring - 1) * where.stride_bytes + self.compact[buffer.name]

    def _conflicts(self, buffer: Buffer, where: Place, enough: Fraction | None = None) -> Fraction:
        """Cycles that the banks need beyond one a repeat, over the operations whose operands all have their place; or as many
        as is ``enough``."""
        total = NOTHING
        self.found[buffer.name] = where
        for demand in self.touching[buffer.name]:
            excess = self._excess(demand, self.found)
            if excess:
                total += excess
                if enough is not None and total >= enough:
                    break
        del self.found[buffer.name]
        return total

    def _excess(self, demand: Demand, places: Places) -> Fraction:
        """What a demand costs; nothing while one of its operands has no place yet."""
        if self.model is None:
            return NOTHING
        operands = tuple([places.get(name) for name in demand.names])
        if None in operands:
            return NOTHING
        key = id(demand), operands
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = demand.excess(self.model, places)
        return found


def _fit(taken: Sequence[tuple[int, int, str]], at: int, size: int) -> int:
    """The first address from ``at`` on where ``size`` bytes run into nothing; ``taken`` is in ascending order."""
    for low, high, _ in taken:
        if at < high and low < at + size:
            at = high
    return at


def _fail(statement: Statement, problem: str, remedy: str) -> KernelError:
    where = f"line {statement.line}: " if statement.line else ""
    return KernelError(f"{where}'{statement_text(statement)}': {problem}; {remedy}")
