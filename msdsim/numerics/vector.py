"""Vector number rules on tiles: reductions with a stated tree, and exp rounded once.

Elementwise fp32 operations are IEEE-754 with one rounding each, which is what numpy float32 does; only what has a
freedom is written down here.
"""

from __future__ import annotations

from decimal import Context, Decimal

import numpy as np

LANES = 64  # fp32 elements of one 256-byte Vector repeat
_MARGIN = 2.0**-50  # relative error granted to the float64 exp: eight units in its last place


def lane_sums(x: np.ndarray, lanes: np.ndarray | None = None) -> np.ndarray:
    """Add the blocks of 64 columns of ``x`` [m, k], ascending, to 64 lane accumulators (float32 [m, 64]).

    A ragged last block is padded with zeros, so a row may come in tiles if all but the last are multiples of 64.
    """
    total = np.zeros((x.shape[0], LANES), np.float32) if lanes is None else lanes.astype(np.float32)
    for start in range(0, x.shape[1], LANES):
        block = x[:, start : start + LANES].astype(np.float32)
        total[:, : block.shape[1]] += block
    return total


def fold_lanes(lanes: np.ndarray) -> np.ndarray:
    """Sum the 64 lanes by halving: lane i + lane i + 32, then 16, 8, 4, 2, 1; float32 [m]."""
    total = lanes
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    return total[:, 0]


def row_sum(x: np.ndarray) -> np.ndarray:
    """Row sums of ``x`` [m, k] in float32 [m]: 64 lanes, blocks ascending, then halving."""
    return fold_lanes(lane_sums(x))


def exp(x: np.ndarray) -> np.ndarray:
    """Correctly rounded float32 exp.

    numpy's float64 exp is good to a unit or two in its last place; where even eight units leave two float32 candidates
    (about one value in 10^6) the exponential is taken again in 40 decimal digits, so that no platform decides a bit.
    """
    source = np.asarray(x, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        wide = np.exp(source.astype(np.float64))
        low, high = (wide * (1 - _MARGIN)).astype(np.float32), (wide * (1 + _MARGIN)).astype(np.float32)
        result = wide.astype(np.float32)
    for index in np.argwhere((low != high) & np.isfinite(source)):
        where = tuple(index)
        result[where] = _nearest_float32(Decimal(float(source[where])).exp(Context(prec=40)), low[where], high[where])
    return result


def _nearest_float32(value: Decimal, low: np.float32, high: np.float32) -> np.float32:
    middle = (Decimal(float(low)) + Decimal(float(high))) / 2 if np.isfinite(high) else Decimal(2.0**128 - 2.0**103)
    return low if value < middle else high
