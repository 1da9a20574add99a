"""Closed forms: time and HBM traffic of every dataflow by formula, worked out without simulating anything.

The forms follow the latency model of Multi-Scale Dequant (arXiv 2605.13915): a dequantizing GEMM costs
``max(dequant, cube, memory)``, an MSD GEMM ``split + max(cube, memory) + merge``, each term work over rate.  Attention is one
pipeline: ``max(cube, memory, vector)``, where Vector's softmax and conversions share a unit.  Terms count only the work itself
(no instruction heads, no latencies, no ragged waves), at peak rates, so that no simulated time may be below the largest of
them.  docs/closed-forms.md has the formulas with their symbols.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msdsim.analysis import closed_form_attention as attention
from msdsim.formats.mx import MX_ELEMENTS, block_count, element_bits
from msdsim.formats.number import FORMATS
from msdsim.formats.schemes import RESTATED, SCHEMES, Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir.vector_work import Work, cycles_per_element, of_activations, of_products, of_weights
from msdsim.units import bytes_per_tick, ceil_div

#: Dataflows of GEMMs that have a closed form.
CLOSED_FORMS = (*SCHEMES, *RESTATED)


@dataclass(frozen=True)
class ClosedForm:
    """``terms_us`` by name, and how ``formula`` puts them together to ``time_us``; ``hbm_bytes`` is one read of every input,
    ``uncached_bytes`` what HBM would move if L2 kept nothing between the stages, outputs included."""

    formula: str
    terms_us: Mapping[str, float]
    time_us: float
    hbm_bytes: float
    uncached_bytes: float

    @property
    def binding(self) -> str:
        """The largest term."""
        return max(self.terms_us, key=lambda name: self.terms_us[name])

    @property
    def floor_us(self) -> float:
        """What no schedule can beat: the largest single term."""
        return self.terms_us[self.binding]

    def to_json(self) -> dict[str, Any]:
        """Microseconds and bytes."""
        return {"formula": self.formula, "terms_us": dict(self.terms_us), "time_us": self.time_us, "binding": self.binding,
                "hbm_bytes": round(self.hbm_bytes), "uncached_bytes": round(self.uncached_bytes)}


def closed_form(dataflow: str, problem: Any, chip: Chip, tiling: Mapping[str, int] | None = None) -> ClosedForm | None:
    """The closed form of a dataflow on a problem, with the passes and KV tiles of a ``tiling`` where one is given; None where
    there is none (microbenchmarks, dataflows of one's own)."""
    given, dataflow = dict(tiling or {}), RESTATED.get(dataflow, dataflow)
    if problem.kind == "attention":
        if dataflow not in attention.METHODS:
            return None
        terms = attention.terms(dataflow, problem, chip, given)
        formula, time = attention.together(terms)
        return ClosedForm(formula, terms, time, attention.hbm_bytes(dataflow, problem),
                          attention.uncached_bytes(dataflow, problem, given))
    if problem.kind not in ("gemm", "grouped_gemm") or dataflow not in SCHEMES:
        return None
    passes = given.get("passes")
    terms = gemm_terms(dataflow, problem, chip, passes)
    scheme = SCHEMES[dataflow]
    parts = [name for name in ("dequant", "cube", "memory") if name in terms]
    formula = f"max({', '.join(parts)})" if scheme.decomposition is None else f"split + max({', '.join(parts)}) + merge"
    moved = [(_inputs(scheme, problem, m), _uncached(scheme, problem, m, passes), count) for m, count in _rows(problem).items()]
    return ClosedForm(formula, terms, _together(terms), sum(read * count for read, _, count in moved),
                      sum(both * count for _, both, count in moved))


def gemm_terms(dataflow: str, problem: Any, chip: Chip, passes: int | None = None) -> dict[str, float]:
    """Microseconds of each term of a dataflow of :data:`CLOSED_FORMS` on a GEMM, plain or grouped.

    ``memory`` is one read of the activations, the weights and their scales from HBM at its peak.  KeyError for other dataflows.
    """
    scheme = SCHEMES[RESTATED.get(dataflow, dataflow)]
    of_each = [(count, _terms(scheme, problem, m, chip, passes)) for m, count in _rows(problem).items()]
    return {name: sum(count * terms[name] for count, terms in of_each) / float(chip.clock_mhz) for name in of_each[0][1]}


def gemm_time_us(dataflow: str, problem: Any, chip: Chip) -> float:
    """The terms put together as the latency model has them; scaling sums shares Vector with converting weights."""
    return _together(gemm_terms(dataflow, problem, chip))


def floor_us(dataflow: str, problem: Any, chip: Chip) -> float:
    """What no schedule of a GEMM can beat: the largest single term."""
    return max(gemm_terms(dataflow, problem, chip).values())


def _together(terms: Mapping[str, float]) -> float:
    overlapped = max(terms.get(name, 0.0) for name in ("dequant", "cube", "memory"))
    return terms.get("split", 0.0) + overlapped + terms.get("merge", 0.0)


def _rows(problem: Any) -> dict[int, int]:
    """How many matmuls there are of each number of rows; an expert without rows reads no weights."""
    if getattr(problem, "rows", None) is not None:
        return dict(Counter(m for m in problem.rows if m))
    return {problem.m: problem.groups if problem.kind == "grouped_gemm" else 1}


def _terms(scheme: Scheme, problem: Any, m: int, chip: Chip, passes: int | None) -> dict[str, float]:
    """Cycles of each term for one matmul of ``m`` rows."""
    k, n, passes = problem.k, problem.n, passes or scheme.passes
    groups = _groups(scheme, problem)
    terms = {"cube": _cube(chip, scheme.cube, passes * m, k, n), "memory": _memory(chip, _inputs(scheme, problem, m))}
    if scheme.widened is not None:
        terms["dequant"] = _vector(chip, of_weights(scheme, chip, problem.offset), k * n)
    merge = _stored(of_products(scheme, passes, groups, problem.offset), problem)
    if scheme.scales_sums:
        # The same unit, at the same time: weights of the next tile and sums of this one.
        terms["dequant"] += (_vector(chip, merge, m * n)
                             + _vector(chip, of_activations(scheme, 1, problem.offset), m * k))
    if scheme.decomposition is not None:
        terms["split"] = 0.0
        if not scheme.takes(problem.x):
            terms["split"] = _vector(chip, of_activations(scheme, passes, problem.offset), m * k)
        terms["merge"] = _vector(chip, merge, m * n)
    return terms


def _groups(scheme: Scheme, problem: Any) -> int:
    group = scheme.group(problem.group)
    return 1 if group is None else ceil_div(problem.k, group)


def _inputs(scheme: Scheme, problem: Any, m: int) -> float:
    """Bytes of the activations (with an FP32 scale a row where they are INT8, a byte a block where they are MX), the
    weights and their scales, each once."""
    k, n = problem.k, problem.n
    integers = not scheme.mx_weights and scheme.weights != "bf16"
    scales = 4 * _groups(scheme, problem) * n * (1 + int(problem.offset)) if integers else 0
    of_rows = 4 * m if problem.x == "int8" else m * block_count(k) if problem.x in MX_ELEMENTS else 0
    given = element_bits(problem.x) / 8 * m * k + of_rows
    return given + scheme.weight_bits * k * n / 8 + scales


def _uncached(scheme: Scheme, problem: Any, m: int, passes: int | None) -> float:
    """Bytes if nothing stayed in L2: widened weights, components and sums are written and read back."""
    k, n, passes = problem.k, problem.n, passes or scheme.passes
    found = _inputs(scheme, problem, m) + FORMATS[problem.out].bits / 8 * m * n
    if scheme.widened is not None:
        found += 2 * k * n * FORMATS[scheme.widened].bits / 8
    if scheme.scales_sums:
        found += 2 * 4 * m * n + 2 * 2 * m * k * scheme.half
    if scheme.decomposition is not None:
        split = 0 if scheme.takes(problem.x) else 2 * passes * m * k * FORMATS[scheme.component].bits / 8
        found += split + (0 if scheme.mx and passes == 1 else 2 * 4 * passes * m * n)
    return found


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
