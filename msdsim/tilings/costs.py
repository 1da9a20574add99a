"""What instructions cost on a chip, for columns of sizes at once: the rules of :mod:`msdsim.hardware`, the engines' own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import PortCost, UnitCost
from msdsim.hardware.units.mte import drain_cost, local_copy_cost, port_cost
from msdsim.hardware.units.vector import lanes
from msdsim.tilings.space import Values, ceil
from msdsim.units import bytes_per_tick

#: Vector instructions: name of the cost class and bits of the widest operand.
Ops = Sequence[tuple[str, int]]
#: Where in a line of L2 rows begin that do not begin with it.
PLACES = (0.15, 0.35, 0.6, 0.85)


class Costs:
    """Cycles of instructions on a chip, for columns of sizes."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self._ports: dict[tuple[str, str, bool], PortCost] = {}
        self._copies: dict[tuple[str, str, int], UnitCost] = {}

    @cached_property
    def hbm_rate(self) -> float:
        """Bytes per cycle of HBM."""
        return float(bytes_per_tick(self.chip.hbm.bandwidth_gbps, self.chip.clock_mhz)) * self.chip.hbm.efficiency

    @cached_property
    def l2_read(self) -> float:
        return float(bytes_per_tick(self.chip.l2.read_gbps, self.chip.clock_mhz))

    @cached_property
    def l2_write(self) -> float:
        return float(bytes_per_tick(self.chip.l2.write_gbps, self.chip.clock_mhz))

    def port(self, source: str, destination: str, several_rows: bool = True) -> PortCost:
        """Cost of a transfer to or from GM."""
        key = source, destination, several_rows
        if key not in self._ports:
            self._ports[key] = port_cost(self.chip.need_path(source, destination), several_rows, self.chip.l2.line_bytes)
        return self._ports[key]

    def latency(self, source: str, destination: str, fresh: Values = 0.0, sharing: Values = 1) -> Values:
        """Cycles from the end of a transfer on its pipe until the data is there, a share ``fresh`` of it from HBM; of
        ``sharing`` cores that ask for the same lines together the last one waits for all others."""
        turns = (sharing - 1) * self.chip.l2.same_line_cycles
        return self.chip.need_path(source, destination).latency_cycles + fresh * self.chip.hbm.extra_latency_cycles + turns

    def gm(self, source: str, destination: str, rows: Values, row_bytes: Values, fresh: Values = 0.0,
           grid: Values = 0, pitch: Values = np.inf, several_rows: bool = True,
           sharing: Values = 1) -> tuple[Values, Values]:
        """Cycles that a transfer of ``rows`` to or from GM holds its pipe, a share ``fresh`` of them from HBM, and the bytes of
        L2's bandwidth it takes.  Rows begin at multiples of ``grid`` bytes (0: at lines of L2), ``pitch`` after each other."""
        cost = self.port(source, destination, several_rows and bool(np.max(rows) > 1))
        window = cost.outstanding_bytes / np.maximum(1.0, self.latency(source, destination, fresh, sharing))
        count = rows * port_bytes(cost, row_bytes, grid)
        # A row in flight takes whole slots of the window, unless the next one follows it at once.
        flying = row_bytes if cost.slot_bytes == 1 else ceil(row_bytes, cost.slot_bytes) * cost.slot_bytes
        flying = np.minimum(flying, np.maximum(row_bytes, pitch))
        busy = np.maximum(count / float(cost.bytes_per_cycle), rows * flying / window)
        return cost.interval + np.maximum(busy, cost.minimum), count / float(cost.l2_share)

    def of_line(self, row_bytes: Values) -> Values:
        """Share of loads after each other along a row that find a line of L2 which no one before has brought."""
        return np.minimum(1.0, row_bytes / self.chip.l2.line_bytes)

    def drain(self, rows: Values, cols: Values, bits: int) -> Values:
        """Cycles that a fixpipe of an accumulator to GM holds its pipe, with ``bits`` of an output element."""
        cost = drain_cost(self.chip.need_path("L0C", "GM"), 32, bits, self.chip.l2.line_bytes)
        busy = rows * port_bytes(cost, cols * bits // 8) / float(cost.bytes_per_cycle)
        return cost.interval + np.maximum(busy, cost.minimum)

    def local(self, source: str, destination: str, rows: Values, cols: Values, bits: int) -> Values:
        """Cycles that a copy between on-chip memories holds its pipe (``rows`` and ``cols`` as the destination counts)."""
        key = source, destination, bits
        if key not in self._copies:
            self._copies[key] = local_copy_cost(self.chip.need_path(source, destination), bits)
        cost = self._copies[key]
        return cost.interval + ceil(rows, cost.grains[0]) * ceil(cols, cost.grains[1]) * float(cost.cycles_per_unit)

    def mmad(self, formats: tuple[str, str], m: Values, k: Values, n: Values) -> Values:
        """Cycles of a product, with the wait for its predecessor's sum where that is short."""
        cube = self.chip.cube
        rate = cube.need_rate(*formats)
        tile = ceil(m, cube.fractal_m) * ceil(n, cube.fractal_n)
        work = np.ceil(tile * ceil(k, rate.fractal_k) * float(rate.cycles_per_fractal))
        return work + np.where(tile < cube.hazard_fractals, cube.head_isolated_cycles, cube.head_back_to_back_cycles)

    def overlap(self, op: str = "cast") -> int:
        """Cycles that the end of a chain of Vector instructions spends together with the next one's beginning."""
        return self.chip.vector.ops[op].latency_cycles

    def vector(self, ops: Ops, rows: Values, cols: Values, flat: Values = False) -> Values:
        """Cycles of Vector instructions that each wait for the one before; ``flat`` operands are worked through as one run."""
        total: Values = 0.0
        widths = {bits: lanes(self.chip, bits) for _, bits in ops}
        repeats = {bits: np.where(flat, ceil(rows * cols, width), rows * ceil(cols, width)) for bits, width in widths.items()}
        counts: dict[tuple[str, int], int] = {}
        for op in ops:
            counts[op] = counts.get(op, 0) + 1
        for (name, bits), count in counts.items():
            op_cost = self.chip.vector.ops[name]
            work = np.maximum(op_cost.min_cycles, repeats[bits] * op_cost.slope_cycles_per_repeat)
            total = total + count * (op_cost.latency_cycles + work)
        return total

    def function(self, ops: Ops, rows: Values, cols: Values, flat: Values = False) -> Values:
        """:meth:`vector` of instructions that are a vector function where the chip has them (:mod:`msdsim.ir.vf`): a loop over
        registers that the ports bind, or its one store."""
        vf, vector = self.chip.vector.vf, self.chip.vector
        if vf is None:
            return self.vector(ops, rows, cols, flat)
        work: Values = 0.0
        latency = vf.start_cycles + vf.load_cycles + vf.store_cycles + vf.drain_cycles
        for name, bits in ops:
            width, op = lanes(self.chip, bits), vector.ops[name]
            repeats = np.where(flat, ceil(rows * cols, width), rows * ceil(cols, width))
            work = work + repeats * float(op.port_cycles or 1) / vf.ports
            latency += max(0, op.latency_cycles - vector.ops["copy"].latency_cycles)
        return latency + np.maximum(work, ceil(rows * cols, lanes(self.chip, 32)) / float(vf.stores_per_cycle))


def port_bytes(cost: PortCost, row_bytes: Values, grid: Values = 0) -> Values:
    """:meth:`PortCost.port_bytes` for columns: the mean over the places of a row in a line that ``grid`` allows."""
    line, requests, of_line, of_rest = cost.burst_bytes, *_tables(cost)
    busy = row_bytes
    if requests is not None:
        size = cost.largest_request
        busy = row_bytes // size * max(size, cost.request_bytes) + requests[row_bytes % size]
    if of_line is not None and of_rest is not None:
        step = np.log2(np.gcd(grid, line) if line & (line - 1) == 0 else 1).astype(np.int64)
        busy = busy + row_bytes // line * of_line[step] + of_rest[step, row_bytes % line]
    if cost.block_bytes:
        # So many of the rows begin inside a block and are asked for block by block.
        inside = 1 - np.gcd(grid, cost.block_bytes) / cost.block_bytes
        busy = busy + inside * ((ceil(row_bytes, cost.block_bytes) + 1) * cost.block_port_bytes - busy)
    return np.maximum(cost.granule_bytes, busy)


@lru_cache(maxsize=256)
def _tables(cost: PortCost) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Bytes of port time of a last request by its size; and what a whole line, and what is left of a row, take more where rows
    begin at multiples of 1, 2, 4 ... bytes, in the mean over :data:`PLACES`."""
    requests = None
    if cost.largest_request:
        requests = np.array([_requests(cost, size) for size in range(cost.largest_request)])
    line = cost.burst_bytes
    if cost.split_bytes is None or line == 1:
        return requests, None, None
    steps = 1 << np.arange(line.bit_length())
    steps = np.minimum(steps, line)[:, None, None]
    offsets = np.maximum(1, np.rint(line / steps * np.array(PLACES)[None, :, None])).astype(np.int64) * steps
    sizes = np.arange(line + 1)[None, None, :]
    first = np.minimum(line - offsets, sizes)
    second = sizes - first
    if requests is not None:
        whole = np.array([_requests(cost, size) for size in range(line + 1)])
        more = whole[first] + whole[second] - whole[sizes]
    else:
        granule = cost.granule_bytes
        more = (ceil(first, granule) + ceil(second, granule) - ceil(sizes, granule)) * granule + cost.split_bytes
    # A share of the rows begins with a line all the same.
    mean = np.where(second > 0, more, 0).mean(axis=1) * (1 - steps[:, 0] / line)
    return requests, mean[:, line], mean[:, :line]


def _requests(cost: PortCost, row_bytes: int) -> int:
    """Port bytes of a row in requests of its own, at the beginning of a line."""
    size = cost.largest_request
    total, rest = row_bytes // size * max(size, cost.request_bytes), row_bytes % size
    while size > cost.smallest_request:
        size //= 2
        if rest >= size:
            total += max(size, cost.request_bytes)
            rest -= size
    return total + (max(size, cost.request_bytes) if rest else 0)
