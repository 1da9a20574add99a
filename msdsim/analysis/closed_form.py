"""Closed-form times of the GEMM dataflows: what each unit must at least do, worked out without simulating anything.

The forms follow the latency model of Multi-Scale Dequant (arXiv 2605.13915): a dequantizing GEMM costs
``max(dequant, cube, memory)``, an MSD GEMM ``split + max(cube, memory) + merge``, each term work over rate.  Terms count only
the work itself (no instruction heads, no latencies, no ragged waves), at peak rates, so that no simulated time may be below
the largest of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msdsim.hardware.chip import Chip
from msdsim.hardware.units.vector import lanes
from msdsim.ir.ops.mx import DECODE_FP4
from msdsim.ir.ops.vector import vector_casts
from msdsim.units import bytes_per_tick, ceil_div

#: Vector instructions: name of the cost class and bits of the widest operand.
_Ops = Sequence[tuple[str, int]]

#: Statistics of a split, and the first product; then what each pass and each step between passes takes.
_SPLIT = (("cast", 32), ("abs", 32), ("fold_max", 32), ("muls", 32))
_PASS = (("div", 32), ("cast", 32), ("cast", 32), ("cast", 16))
_RESIDUAL = (("mul", 32), ("sub", 32), ("muls", 32))
#: The exact split of INT8 into nibbles, beside one quotient and its rounding.
_NIBBLES = (("div", 32), ("cast", 32), ("muls", 32), ("cast", 32), ("muls", 32), ("sub", 32), ("adds", 32),
            *2 * (("cast", 32), ("cast", 16)))
_FURTHER = (("cast", 32), ("muls", 32), ("add", 32))


@dataclass(frozen=True)
class _Form:
    """What a dataflow does: bits of its weights, formats of the Cube, passes, and whether it dequantizes or decomposes."""

    weight_bits: float
    cube: str
    passes: int = 1
    dequant: _Ops = ()
    split: _Ops = ()
    combine: _Ops = ()
    scaled: bool = True


def _integer(weight_bits: int, cube: str, passes: int, nibbles: bool = False) -> _Form:
    split = (*_SPLIT, *_NIBBLES) if nibbles else (*_SPLIT, *passes * _PASS, *(passes - 1) * _RESIDUAL)
    return _Form(weight_bits, cube, passes, split=split, combine=(("cast", 32), *(passes - 1) * _FURTHER))


_DEQUANT = (("cast", 16), ("cast", 32), ("mul", 32), ("cast", 32))
_FORMS = {
    "bf16": _Form(16, "bf16"),
    "dequant-int8": _Form(8, "bf16", dequant=_DEQUANT),
    "dequant-int4": _Form(4, "bf16", dequant=_DEQUANT),
    "msd-int8": _integer(8, "int8", 2),
    "w8a8": _integer(8, "int8", 1),
    "msd-int4": _integer(4, "int4", 3),
    "a8w4": _integer(4, "int4", 2, nibbles=True),
    "dequant-mxfp4": _Form(4.25, "bf16", dequant=_DEQUANT),
    # What Vector does at least: the conversions of weights or activations and, per element, the product with a block's scale.
    "mxfp8": _Form(4.25, "mxfp8", dequant=(("cast", 16), ("cast", 32), ("cast", 32)),
                   split=(("cast", 32), ("mul", 32), ("cast", 32))),
    "msd-mxfp4": _Form(4.25, "mxfp4", 2, split=(("cast", 32), *2 * (("mul", 32), ("cast", 32), ("cast", 16)), ("sub", 32)),
                       combine=(("add", 32),), scaled=False),
}
#: Dataflows that have a closed form.
CLOSED_FORMS = tuple(_FORMS)


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
    form = _FORMS[dataflow]
    k, n = problem.k, problem.n
    groups = 1 if problem.group is None else ceil_div(k, problem.group)
    terms = {"cube": _cube(chip, form.cube, form.passes * m, k, n),
             "memory": _memory(chip, 2 * m * k + form.weight_bits * k * n / 8)}
    if form.dequant:
        dequant = form.dequant
        if dataflow == "dequant-mxfp4" and ("fp4_e2m1", "bf16") not in vector_casts(chip):
            dequant = (*[(op, bits) for op, bits, _ in DECODE_FP4], *dequant[1:])
        terms["dequant"] = _vector(chip, dequant, k * n)
    if form.split:
        terms["split"] = _vector(chip, form.split, m * k)
        # Every group's passes are put together, scaled and added up; then the row scale, and the rounding.
        scale = (("mul", 32),) if form.scaled else ()
        merge = (*groups * (*form.combine, *scale), *(groups - 1) * (("add", 32),), *scale, ("cast", 32))
        terms["merge"] = _vector(chip, merge, m * n) if form.combine else 0.0
    return terms


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


def _vector(chip: Chip, ops: _Ops, elements: int) -> float:
    per_element = sum(chip.vector.ops[op].slope_cycles_per_repeat / lanes(chip, bits) for op, bits in ops)
    return elements * per_element / chip.aiv


def _memory(chip: Chip, count: float) -> float:
    return count / float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz))
