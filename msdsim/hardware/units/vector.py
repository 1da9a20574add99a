"""Vector: the SIMD unit of an AIV.  Owns pipe V."""

from __future__ import annotations

from msdsim.errors import KernelError
from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import UnitCost
from msdsim.units import exact

PIPE = "V"


def lanes(chip: Chip, widest_bits: int) -> int:
    """Elements of one repeat: ``repeat_bytes`` of the widest operand."""
    return chip.vector.repeat_bytes * 8 // widest_bits


def vector_cost(chip: Chip, op: str, widest_bits: int, contiguous: bool) -> UnitCost:
    """Cost of Vector instruction ``op`` over sizes (rows, columns).

    A contiguous operand is worked through as one run of elements; otherwise every row starts a new repeat.
    """
    if op not in chip.vector.ops:
        raise KernelError(f"chip '{chip.name}' has no Vector instruction '{op}' (it has {', '.join(chip.vector.ops)})")
    entry = chip.vector.ops[op]
    width = lanes(chip, widest_bits)
    return UnitCost(
        latency=entry.latency_cycles,
        interval=0,
        grains=(width, 1) if contiguous else (1, width),
        cycles_per_unit=exact(entry.slope_cycles_per_repeat),
        minimum=entry.min_cycles,
        flat=contiguous,
    )
