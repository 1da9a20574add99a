"""Cube: the matrix unit of an AIC.  Owns pipe M."""

from __future__ import annotations

from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import UnitCost
from msdsim.units import exact

PIPE = "M"


def mmad_cost(chip: Chip, a: str, b: str) -> UnitCost | None:
    """Cost of ``mmad`` over sizes (m, k, n) for operand formats ``a x b``; None when the Cube has no such mode.

    The Cube works in fractals of 16 x fractal_k x 16 and needs a whole one for any part of it.
    """
    rate = chip.cube.rate(a, b)
    if rate is None:
        return None
    cube = chip.cube
    return UnitCost(
        latency=cube.head_isolated_cycles,
        interval=cube.head_back_to_back_cycles,
        grains=(cube.fractal_m, rate.fractal_k, cube.fractal_n),
        cycles_per_unit=exact(rate.cycles_per_fractal),
    )
