"""Closed-form times of the GEMM dataflows: what each unit must at least do, worked out without simulating anything.

The forms follow the latency model of Multi-Scale Dequant (arXiv 2605.13915): a dequantizing GEMM costs
``max(dequant, cube, memory)``, an MSD GEMM ``split + max(cube, memory) + merge``, each term work over rate.  Terms count only
the work itself (no instruction heads, no latencies, no ragged waves), at peak rates, so that no simulated time may be below
the largest of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import SCHEMES
from msdsim.hardware.chip import Chip
from msdsim.ir.vector_work import Work, cycles_per_element, of_activations, of_products, of_weights
from msdsim.units import bytes_per_tick, ceil_div

#: Dataflows that have a closed form.
CLOSED_FORMS = tuple(SCHEMES)


def gemm_terms(dataflow: str, problem: Any, chip: Chip) -> dict[str, float]:
    """Microseconds of each term of a dataflow of :data:`CLOSED_FORMS` on a GEMM, plain or grouped.

    ``memory`` is one read of the activations and the weights from HBM at its peak.  KeyError for other dataflows.
    """
    rows = {problem.m: problem.groups if problem.kind == "grouped_gemm" else 1}
    if getattr(problem, "rows", None) is not None:
        # An expert without rows reads no weights.
        rows = Counter(m for m in problem.rows if m)
    of_each = [(count, _terms(dataflow, problem, m, chip)) for m, count in rows.items()]
    return {name: sum(count * terms[name] for count, terms in of_each) / float(chip.clock_mhz) for name in of_each[0][1]}


def _terms(dataflow: str, problem: Any, m: int, chip: Chip) -> dict[str, float]:
    """Cycles of each term for one matmul of ``m`` rows."""
    scheme = SCHEMES[dataflow]
    k, n = problem.k, problem.n
    group = scheme.group(problem.group)
    groups = 1 if group is None else ceil_div(k, group)
    terms = {"cube": _cube(chip, scheme.cube, scheme.passes * m, k, n),
             "memory": _memory(chip, FORMATS[problem.x].bits / 8 * m * k + scheme.weight_bits * k * n / 8)}
    if scheme.widened is not None:
        terms["dequant"] = _vector(chip, of_weights(scheme, chip, problem.offset), k * n)
    if scheme.scales_sums:
        # The same unit, at the same time: weights of the next tile and sums of this one.
        terms["dequant"] += (_vector(chip, _stored(of_products(scheme, 1, groups, problem.offset), problem), m * n)
                             + _vector(chip, of_activations(scheme, 1, problem.offset), m * k))
    if scheme.decomposition is not None:
        terms["split"] = 0.0
        if not scheme.takes(problem.x):
            terms["split"] = _vector(chip, of_activations(scheme, scheme.passes, problem.offset), m * k)
        terms["merge"] = _vector(chip, _stored(of_products(scheme, scheme.passes, groups, problem.offset), problem), m * n)
    return terms


def gemm_time_us(dataflow: str, problem: Any, chip: Chip) -> float:
    """The terms put together as the latency model has them; scaling sums shares Vector with converting weights."""
    terms = gemm_terms(dataflow, problem, chip)
    overlapped = max(terms.get(name, 0.0) for name in ("dequant", "cube", "memory"))
    return terms.get("split", 0.0) + overlapped + terms.get("merge", 0.0)


def floor_us(dataflow: str, problem: Any, chip: Chip) -> float:
    """What no schedule can beat: the largest single term."""
    return max(gemm_terms(dataflow, problem, chip).values())


def _cube(chip: Chip, formats: tuple[str, str], rows: int, k: int, n: int) -> float:
    rate = chip.cube.rate(*formats)
    assert rate is not None
    fractals = ceil_div(rows, chip.cube.fractal_m) * ceil_div(k, rate.fractal_k) * ceil_div(n, chip.cube.fractal_n)
    return fractals * rate.cycles_per_fractal / chip.cores.aic


def _vector(chip: Chip, work: Work, elements: int) -> float:
    return elements * cycles_per_element(chip, work) / chip.aiv


def _stored(work: Work, problem: Any) -> Work:
    """FP32 results are stored as they are, without the conversion that comes last."""
    return tuple(work[:-1]) if work and problem.out == "fp32" else work


def _memory(chip: Chip, count: float) -> float:
    return count / float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz))
