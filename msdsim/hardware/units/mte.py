"""MTE: the data movers.  MTE1 fills the Cube's operand buffers, MTE2 reads GM, MTE3 writes GM, FIX drains L0C."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

from msdsim.hardware.chip import Nd2nz, Path
from msdsim.hardware.cost import PortCost, UnitCost
from msdsim.units import exact

#: Bytes of one row of a fractal, and rows of a fractal: L0A, L0B and L0C are filled and drained in whole fractals.
FRACTAL_ROW_BYTES = 32
FRACTAL_ROWS = 16
#: A fractal of MX scales: 16 rows of two scales (asc-devkit, asc_copy_l12l0a_mx).
SCALE_FRACTAL_COLUMNS = 2


def local_copy_cost(path: Path, bits: int) -> UnitCost:
    """Cost of a copy between on-chip buffers over sizes (rows, columns) of ``bits``-bit elements.

    Copies to L0A and L0B move fractals of 16 rows x 32 bytes, those of MX scales fractals of 16 rows x 2 scales; other local
    copies move rows of whole 32-byte blocks.
    """
    if path.destination in ("L0A_MX", "L0B_MX"):
        return UnitCost(
            latency=path.interval_cycles + path.latency_cycles,
            interval=path.interval_cycles,
            grains=(FRACTAL_ROWS, SCALE_FRACTAL_COLUMNS),
            cycles_per_unit=Fraction(FRACTAL_ROWS * SCALE_FRACTAL_COLUMNS * bits, 8) / exact(path.bytes_per_cycle),
        )
    rows = FRACTAL_ROWS if path.destination in ("L0A", "L0B") else 1
    return UnitCost(
        latency=path.interval_cycles + path.latency_cycles,
        interval=path.interval_cycles,
        grains=(rows, FRACTAL_ROW_BYTES * 8 // bits),
        cycles_per_unit=Fraction(rows * FRACTAL_ROW_BYTES) / exact(path.bytes_per_cycle),
    )


def port_cost(path: Path, several_rows: bool, line_bytes: int = 1) -> PortCost:
    """Cost of a transfer on a path that ends or begins in GM; one of several rows into L1 re-orders them into fractals.

    ``line_bytes`` is the line of L2, which a burst should not leave.
    """
    assert path.outstanding_bytes is not None
    if several_rows and path.nd2nz is not None:
        return _nd2nz_cost(path, path.nd2nz, line_bytes)
    return PortCost(
        latency=path.latency_cycles,
        interval=path.interval_cycles,
        bytes_per_cycle=exact(path.bytes_per_cycle),
        granule_bytes=path.granule_bytes,
        outstanding_bytes=path.outstanding_bytes,
        minimum=path.minimum_cycles or 0,
        burst_bytes=line_bytes,
        split_bytes=_split_bytes(path, exact(path.bytes_per_cycle)),
        slot_bytes=path.slot_bytes or 1,
    )


def drain_cost(path: Path, accumulator_bits: int, output_bits: int, line_bytes: int) -> PortCost:
    """Cost of a fixpipe from L0C to GM: rows of the accumulator take their time, whatever is left of them on the way out."""
    cost = port_cost(path, several_rows=False, line_bytes=line_bytes)
    if path.accumulator_bytes_per_cycle is None:
        return cost
    rate = min(cost.bytes_per_cycle, exact(path.accumulator_bytes_per_cycle) * output_bits / accumulator_bits)
    row = ceil(exact(path.row_cycles or 0) * rate)
    return replace(cost, bytes_per_cycle=rate, granule_bytes=max(row, cost.granule_bytes),
                   split_bytes=_split_bytes(path, rate))


def _nd2nz_cost(path: Path, nd2nz: Nd2nz, line_bytes: int) -> PortCost:
    assert path.outstanding_bytes is not None
    rate = exact(nd2nz.bytes_per_cycle)
    return PortCost(
        latency=path.latency_cycles,
        interval=path.interval_cycles,
        bytes_per_cycle=rate,
        granule_bytes=ceil(exact(nd2nz.row_cycles) * rate),
        outstanding_bytes=nd2nz.outstanding_bytes or path.outstanding_bytes,
        minimum=path.minimum_cycles or 0,
        smallest_request=nd2nz.smallest_request_bytes,
        largest_request=nd2nz.largest_request_bytes,
        request_bytes=ceil(exact(nd2nz.request_cycles) * rate),
        l2_share=exact(nd2nz.l2_share),
        block_bytes=nd2nz.unaligned_block_bytes or 0,
        block_port_bytes=ceil(exact(nd2nz.unaligned_block_cycles or 0) * rate),
        burst_bytes=line_bytes,
        split_bytes=_split_bytes(path, rate),
        slot_bytes=path.slot_bytes or 1,
    )


def _split_bytes(path: Path, rate: Fraction) -> int | None:
    return None if path.split_request_cycles is None else ceil(exact(path.split_request_cycles) * rate)
