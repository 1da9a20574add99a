"""What an instruction costs, in a form both engines read: heads, and work that grows with the operand sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from msdsim.units import ceil_div


@dataclass(frozen=True)
class UnitCost:
    """Cost of an instruction that stays inside a core.

    Started at cycle ``s`` on sizes ``dims``, the instruction completes at ``s + latency + work`` and the pipe takes the next
    one from ``s + interval + work``.  ``work = max(minimum, ceil(cycles_per_unit * units))`` with ``units`` the product of
    ``ceil(dim / grain)``, or, for ``flat`` costs, the ceiling of the whole product of sizes over the first grain.
    """

    latency: int
    interval: int
    grains: tuple[int, ...]
    cycles_per_unit: Fraction
    minimum: int = 0
    flat: bool = False

    def work(self, dims: Sequence[int]) -> int:
        """Cycles of work on these sizes; zero when any size is zero."""
        units = 1
        for dim, grain in zip(dims, self.grains, strict=True):
            units *= dim if self.flat else ceil_div(dim, grain)
        if units <= 0:
            return 0
        if self.flat:
            units = ceil_div(units, self.grains[0])
        return max(self.minimum, ceil_div(units * self.cycles_per_unit.numerator, self.cycles_per_unit.denominator))


@dataclass(frozen=True)
class PortCost:
    """Cost of a transfer to or from GM as seen from the core's port (the memory system adds the rest).

    A row segment of ``b`` bytes occupies the port for ``port_bytes(b, address) / bytes_per_cycle`` cycles, and L2 for as long
    as ``l2_bytes(port_bytes(b, address))`` take it; a transfer holds its pipe for at least ``minimum`` cycles.  With
    ``largest_request`` a segment is cut into requests of powers of two of bytes.

    A segment is asked for in bursts of ``burst_bytes`` (a line of L2).  Where ``split_bytes`` is given, a burst that crosses
    from one line to the next is two: each with requests of its own or, on a plain path, rounded up to granules and
    ``split_bytes`` more for the second.  Where ``block_bytes`` is given, a row that begins inside a block is asked for block
    by block, each in the time of ``block_port_bytes``.

    ``outstanding_bytes`` is a window of slots of ``slot_bytes``: a row segment in flight takes whole ones, however short it is.
    """

    latency: int
    interval: int
    bytes_per_cycle: Fraction
    granule_bytes: int
    outstanding_bytes: int
    minimum: int = 0
    smallest_request: int = 0
    largest_request: int = 0
    request_bytes: int = 0
    l2_share: Fraction = Fraction(1)
    burst_bytes: int = 1
    split_bytes: int | None = None
    slot_bytes: int = 1
    block_bytes: int = 0
    block_port_bytes: int = 0

    def window_bytes(self, row_bytes: int, stride_bytes: int) -> int:
        """Bytes of the window that a row takes while it is in flight: whole slots, unless the next row shares its last one."""
        return min(ceil_div(row_bytes, self.slot_bytes) * self.slot_bytes, max(row_bytes, stride_bytes))

    def port_bytes(self, row_bytes: int, address: int = 0) -> int:
        """Bytes of port time of one row segment that begins at ``address``."""
        offset = address % self.burst_bytes
        if self.block_bytes and offset % self.block_bytes:
            blocks = ceil_div(offset % self.block_bytes + row_bytes, self.block_bytes)
            return max(self.granule_bytes, blocks * self.block_port_bytes)
        busy = self._requests(row_bytes) if self.largest_request else row_bytes
        if offset and self.split_bytes is not None:
            whole, rest = divmod(row_bytes, self.burst_bytes)
            busy += whole * self._split(self.burst_bytes, offset) + self._split(rest, offset)
        return max(self.granule_bytes, busy)

    def _split(self, count: int, offset: int) -> int:
        """What a burst of ``count`` bytes at ``offset`` in a line takes more than at the line's beginning."""
        first, second = self.burst_bytes - offset, count - (self.burst_bytes - offset)
        assert self.split_bytes is not None
        if second <= 0:
            return 0
        if self.largest_request:
            return self._requests(first) + self._requests(second) - self._requests(count)
        granule = self.granule_bytes
        more = ceil_div(first, granule) + ceil_div(second, granule) - ceil_div(count, granule)
        return more * granule + self.split_bytes

    def l2_bytes(self, port_bytes: int) -> int:
        """Bytes of the L2's read bandwidth that a piece takes."""
        return ceil_div(port_bytes * self.l2_share.denominator, self.l2_share.numerator)

    def _requests(self, row_bytes: int) -> int:
        """The largest requests first, then one for each smaller power of two, the last padded to the smallest."""
        size = self.largest_request
        total = row_bytes // size * max(size, self.request_bytes)
        rest = row_bytes % size
        while size > self.smallest_request:
            size //= 2
            if rest >= size:
                total += max(size, self.request_bytes)
                rest -= size
        return total + (max(size, self.request_bytes) if rest else 0)
