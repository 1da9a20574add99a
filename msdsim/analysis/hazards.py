"""The hazard check: an independent proof that a timeline respects every dependence of its kernel.

The lowering places flags by reasoning about blocks; this check knows nothing of flags.  It runs the kernel's operations in
the executor's order, remembers which rectangles of which ring slots and tensors were touched, and demands of the times:
a reader starts after the writer's end, a writer after the readers' and (on another pipe) the earlier writer's end.
Meant for small kernels: cost grows with the square of the accesses to one slot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.errors import CheckFailed
from msdsim.ir.kernel import Op, Vf, walk
from msdsim.ir.unit_flags import has_unit_flag
from msdsim.naming import PIPES
from msdsim.timeline.record import RunRecord


@dataclass(frozen=True)
class _Access:
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    begin: int
    end: int
    unit: int
    pipe: str
    what: str
    unit_flag: bool = False
    #: Number of its vector function, 0: none.
    function: int = 0

    def overlaps(self, other: _Access) -> bool:
        return all(a < b + m and b < a + n for a, n, b, m in zip(self.starts, self.sizes, other.starts, other.sizes,
                                                               strict=True))


class HazardCheck:
    """Feed it the executor's operations in order (:meth:`observe`); it raises CheckFailed at the first violation."""

    def __init__(self, record: RunRecord) -> None:
        assert record.timeline is not None, "the run must have recorded its timeline"
        self.record = record
        self.tensors = {tensor.name: tensor for tensor in record.program.kernel.tensors}
        self.pipe_of = {part.name: {id(instr.op): (instr.pipe, instr.index) for instr in part.instructions() if instr.op}
                        for part in record.program.parts}
        functions = (item.body for item in walk(record.program.kernel.aiv) if isinstance(item, Vf))
        self.functions = {id(op): number for number, body in enumerate(functions, 1) for op in body}
        self.times = _times(record)
        self.next: Mapping[tuple[int, int], list[int]] = defaultdict(lambda: [0])
        self.writes: dict[tuple[object, ...], list[_Access]] = defaultdict(list)
        self.reads: dict[tuple[object, ...], list[_Access]] = defaultdict(list)

    def observe(self, unit: tuple[int, str, int], op: Op, reads: list, write: Any) -> None:
        """One executed operation with the regions it read and wrote."""
        number = self.record.units.unit(unit[0], unit[1], unit[2])
        pipe, index = self.pipe_of[unit[1]][id(op)]
        turn = self.next[number, index]
        begin, end = self.times[number, index][turn[0]]
        turn[0] += 1
        name = self.record.units.pipe_name(number, PIPES[unit[1].upper()].index(pipe))
        what = f"'{op}' (line {op.line}) on {name}"
        for region in reads:
            access = _Access(region.starts, region.sizes, begin, end, number, pipe, what, has_unit_flag(op),
                             self.functions.get(id(op), 0))
            key = self._key(number, region)
            for writer in self.writes[key]:
                # The Cube forwards a running sum to the next product itself; a chip's hazard rule covers small tiles.
                if not (op.kind in ("mmad", "mmad_mx") and region == write and (writer.unit, writer.pipe) == (number, pipe)):
                    self._demand(writer, access, "reads what", "writes")
            self.reads[key].append(access)
        access = _Access(write.starts, write.sizes, begin, end, number, pipe, what, has_unit_flag(op),
                             self.functions.get(id(op), 0))
        key = self._key(number, write)
        for reader in self.reads[key]:
            if (reader.unit, reader.pipe) != (number, pipe):
                self._demand(reader, access, "overwrites what", "still reads")
        for writer in self.writes[key]:
            if (writer.unit, writer.pipe) != (number, pipe):
                self._demand(writer, access, "overwrites what", "still writes")
        # What this write replaces can no longer be read or overwritten too early.
        self.writes[key] = [w for w in self.writes[key] if not _covers(access, w)] + [access]
        self.reads[key] = [r for r in self.reads[key] if not _covers(access, r)]

    def _key(self, unit: int, region: Any) -> tuple[object, ...]:
        return (region.name,) if region.name in self.tensors else (unit, region.name, region.slot)

    def _demand(self, first: _Access, second: _Access, verb: str, other: str) -> None:
        if first.unit_flag and second.unit_flag and (first.pipe, first.unit) != (second.pipe, second.unit):
            # Block by block: neither begins before the other has, nor does a fixpipe end before the product that it drains.
            in_order = second.begin >= first.begin and (first.pipe == "FIX" or second.end >= first.end)
        else:
            # A vector function hands on in registers.
            in_order = second.begin >= first.end or (first.function == second.function != 0 and first.unit == second.unit)
        if first.overlaps(second) and not in_order:
            raise CheckFailed(f"{second.what} starts at cycle {second.begin} and {verb} {first.what} {other} until cycle "
                              f"{first.end}: a flag is missing")


def _covers(outer: _Access, inner: _Access) -> bool:
    return all(a <= b and b + m <= a + n for a, n, b, m in zip(outer.starts, outer.sizes, inner.starts, inner.sizes,
                                                              strict=True))


def _times(record: RunRecord) -> dict[tuple[int, int], np.ndarray]:
    """Start and end of every execution of an instruction on a unit, in order."""
    timeline = record.timeline
    assert timeline is not None
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    order = np.lexsort((timeline["start"], timeline["dispatched"]))
    for row in order:
        key = int(timeline["unit"][row]), int(timeline["instr"][row])
        found[key].append((int(timeline["start"][row]), int(timeline["end"][row])))
    return {key: np.array(times) for key, times in found.items()}
