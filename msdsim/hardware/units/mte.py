"""MTE: the data movers.  MTE1 fills the Cube's operand buffers, MTE2 reads GM, MTE3 writes GM, FIX drains L0C."""

from __future__ import annotations

from fractions import Fraction

from msdsim.hardware.chip import Path
from msdsim.hardware.cost import PortCost, UnitCost
from msdsim.units import exact

#: Bytes of one row of a fractal, and rows of a fractal: L0A, L0B and L0C are filled and drained in whole fractals.
FRACTAL_ROW_BYTES = 32
FRACTAL_ROWS = 16


def local_copy_cost(path: Path, bits: int) -> UnitCost:
    """Cost of a copy between on-chip buffers over sizes (rows, columns) of ``bits``-bit elements.

    Copies to L0A and L0B move fractals of 16 rows x 32 bytes; other local copies move rows of whole 32-byte blocks.
    """
    rows = FRACTAL_ROWS if path.destination in ("L0A", "L0B") else 1
    return UnitCost(
        latency=path.interval_cycles + path.latency_cycles,
        interval=path.interval_cycles,
        grains=(rows, FRACTAL_ROW_BYTES * 8 // bits),
        cycles_per_unit=Fraction(rows * FRACTAL_ROW_BYTES) / exact(path.bytes_per_cycle),
    )


def port_cost(path: Path) -> PortCost:
    """Cost of a transfer on a path that ends or begins in GM."""
    assert path.outstanding_bytes is not None
    return PortCost(
        latency=path.latency_cycles,
        interval=path.interval_cycles,
        bytes_per_cycle=exact(path.bytes_per_cycle),
        granule_bytes=path.granule_bytes,
        outstanding_bytes=path.outstanding_bytes,
    )
