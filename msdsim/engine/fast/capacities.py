"""Room for what has no small bound of its own."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.tables import PartTable
from msdsim.errors import InputError
from msdsim.ir.expr import Interval
from msdsim.ir.timing import Transfer

#: What one core may keep in flight, before the engine refuses, and how room grows when it was too small.
_MOST_ROOM, _GROWTH = 2**24, 4


@dataclass
class Capacities:
    """Room for what has no small bound of its own; the engine says when one is too small and is run again with more.

    Tokens in a ring, pieces in flight at a port, instructions in a queue; powers of two.
    """

    ring: int = 32
    window: int = 16
    queue: int = 64

    @classmethod
    def of(cls, tables: list[PartTable], chunk: int) -> Capacities:
        """Enough for the tokens that rings begin with and, as far as sizes are known, for what ports may have in flight."""
        initial = max((item.initial for table in tables for item in table.part.semaphores), default=0)
        pieces = max((_most_in_flight(*transfer, chunk) for table in tables for transfer in table.transfers), default=0)
        return cls(ring=max(cls.ring, _power_above(2 * initial)), window=max(cls.window, _power_above(min(pieces, 64))))

    def grow(self, status: int) -> None:
        """Enlarge what was too small."""
        if status == at.RING_FULL:
            self.ring *= _GROWTH
        elif status == at.WINDOW_FULL:
            self.window *= _GROWTH
        else:
            self.queue *= _GROWTH
        if max(self.ring, self.window, self.queue) > _MOST_ROOM:
            raise InputError(f"the kernel keeps more than {_MOST_ROOM} flags, pieces or instructions in flight on one core; "
                             f"lower the queue depths or outstanding_bytes of the chip, or use the engine 'reference'")


def _power_above(count: int) -> int:
    """The smallest power of two above ``count``."""
    return 1 << count.bit_length()


def _most_in_flight(transfer: Transfer, rows: Interval, row_bytes: Interval, chunk: int) -> int:
    """Pieces of a transfer that its window holds at once."""
    if row_bytes.low <= 0 or rows.low <= 0:
        return 0
    segments = 1 if row_bytes.low >= chunk else min(rows.low, chunk // row_bytes.low)
    return transfer.cost.outstanding_bytes // (segments * min(chunk, row_bytes.low)) + 1
