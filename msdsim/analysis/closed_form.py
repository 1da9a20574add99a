"""Closed-form times of the GEMM dataflows: what each unit must at least do, worked out without simulating anything.

The forms follow the latency model of Multi-Scale Dequant (arXiv 2605.13915): a dequantizing GEMM costs
``max(dequant, cube, memory)``, an MSD GEMM ``split + max(cube, memory) + merge``, each term work over rate.  Terms count only
the work itself (no instruction heads, no latencies, no ragged waves), at peak rates, so that no simulated time may be below
the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msdsim.hardware.chip import Chip
from msdsim.hardware.units.vector import lanes
from msdsim.units import bytes_per_tick, ceil_div

#: Vector instructions per weight of a dequantization: instruction and bits of its widest operand.
_DEQUANT = (("cast", 16), ("cast", 32), ("mul", 32), ("cast", 32))
#: ... per activation of a two-pass split: statistics, then divide, round, narrow twice, residual once.
_SPLIT = (("cast", 32), ("abs", 32), ("fold_max", 32), ("muls", 32), ("div", 32), ("cast", 32), ("cast", 32), ("cast", 16),
          ("mul", 32), ("sub", 32), ("muls", 32), ("div", 32), ("cast", 32), ("cast", 32), ("cast", 16))
#: ... per result of a two-pass merge.
_MERGE = (("cast", 32), ("cast", 32), ("muls", 32), ("add", 32), ("mul", 32), ("mul", 32), ("cast", 32))


def gemm_terms(dataflow: str, problem: Any, chip: Chip) -> dict[str, float]:
    """Microseconds of each term of ``bf16``, ``dequant-int8`` or ``msd-int8`` on a GEMM with sizes m, k, n.

    ``memory`` is one read of the activations and the weights from HBM at its peak.
    """
    m, k, n = problem.m, problem.k, problem.n
    if dataflow == "bf16":
        terms = {"cube": _cube(chip, "bf16", m, k, n), "memory": _memory(chip, 2 * m * k + 2 * k * n)}
    elif dataflow == "dequant-int8":
        terms = {"dequant": _vector(chip, _DEQUANT, k * n), "cube": _cube(chip, "bf16", m, k, n),
                 "memory": _memory(chip, 2 * m * k + k * n)}
    elif dataflow == "msd-int8":
        terms = {"split": _vector(chip, _SPLIT, m * k), "cube": _cube(chip, "int8", 2 * m, k, n),
                 "memory": _memory(chip, 2 * m * k + k * n), "merge": _vector(chip, _MERGE, m * n)}
    else:
        raise KeyError(dataflow)
    return {name: cycles / float(chip.clock_mhz) for name, cycles in terms.items()}


def gemm_time_us(dataflow: str, problem: Any, chip: Chip) -> float:
    """The terms put together as the latency model has them."""
    terms = gemm_terms(dataflow, problem, chip)
    overlapped = max(terms.get(name, 0.0) for name in ("dequant", "cube", "memory"))
    return terms.get("split", 0.0) + overlapped + terms.get("merge", 0.0)


def floor_us(dataflow: str, problem: Any, chip: Chip) -> float:
    """What no schedule can beat: the largest single term."""
    return max(gemm_terms(dataflow, problem, chip).values())


def _cube(chip: Chip, fmt: str, rows: int, k: int, n: int) -> float:
    rate = chip.cube.rate(fmt, fmt)
    assert rate is not None
    fractals = ceil_div(rows, chip.cube.fractal_m) * ceil_div(k, rate.fractal_k) * ceil_div(n, chip.cube.fractal_n)
    return fractals * rate.cycles_per_fractal / chip.cores.aic


def _vector(chip: Chip, ops: Sequence[tuple[str, int]], elements: int) -> float:
    per_element = sum(chip.vector.ops[op].slope_cycles_per_repeat / lanes(chip, bits) for op, bits in ops)
    return elements * per_element / chip.aiv


def _memory(chip: Chip, count: int) -> float:
    return count / float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz))
