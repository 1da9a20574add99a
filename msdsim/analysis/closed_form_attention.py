"""Closed forms of attention: a pipeline of the Cube (both products), Vector (softmax and conversions) and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msdsim.formats.msd import MSD_INT4, MSD_INT8, MSD_MXFP4
from msdsim.formats.mx import MX_BLOCK, MX_MODES
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.vector_work import AttentionMethod, cycles_per_element
from msdsim.units import bytes_per_tick, ceil_div

#: Methods by dataflow: format of the cache, and the decomposition of Q and P.
METHODS = {
    "bf16": AttentionMethod("bf16", None, 1),
    "dequant-int8": AttentionMethod("int8", None, 1), "dequant-int4": AttentionMethod("int4", None, 1),
    "convert-int8": AttentionMethod("int8", None, 1, converted=True),
    "convert-int4": AttentionMethod("int4", None, 1, converted=True),
    "msd-int8": AttentionMethod("int8", MSD_INT8, MSD_INT8.passes), "msd-int4": AttentionMethod("int4", MSD_INT4, 4),
    "msd-mxfp4": AttentionMethod("fp4_e2m1", MSD_MXFP4, MSD_MXFP4.passes),
}


def terms(dataflow: str, problem: Any, chip: Chip, tiling: Mapping[str, int]) -> dict[str, float]:
    """Microseconds of each term: ``cube``, ``memory``, ``softmax`` (with the accumulation of O over the KV tiles), and
    ``dequant`` of the cache or ``msd``, the splits and merges; ``separate`` where the cache is dequantized ahead of it all."""
    method, clock = METHODS[dataflow], float(chip.clock_mhz)
    token = problem.scales == "token"
    queries, logits = problem.batch * problem.heads * problem.q, _logits(problem)
    steps = max(1, ceil_div(problem.kv, tiling["kv_tile"])) if "kv_tile" in tiling else 1
    outputs = queries * problem.value_dim * _visible(problem)

    def vector(work: Any, elements: float) -> float:
        return elements * cycles_per_element(chip, work) / chip.aiv / clock

    softmax, conversion = method.of_logits(token)
    accumulate, merge = method.of_outputs(token)
    found = {
        "cube": _cube(method, problem, chip) / clock,
        "memory": hbm_bytes(dataflow, problem) / float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz)) / clock,
        "softmax": vector(softmax, logits) + vector(accumulate, outputs * steps)
        + vector((("div", 32), ("cast", 32)), queries * problem.value_dim),
    }
    if method.spec is None and method.cache != "bf16":
        name = "dequant" if tiling.get("fused", 1) else "separate"
        found[name] = vector(method.of_cache(), _cache_elements(problem))
        if method.converted:
            found["softmax"] += vector(method.of_queries(token), queries * problem.head_dim)
    elif method.spec is not None:
        found["msd"] = (vector(method.of_queries(token), queries * problem.head_dim) + vector(conversion, logits)
                        + vector(merge, outputs * steps))
    return found


def together(found: Mapping[str, float]) -> tuple[str, float]:
    """The formula, and its time: one pipeline in which Vector does all of its work on one unit."""
    own = [name for name in ("softmax", "dequant", "msd") if name in found]
    overlapped = max(found["cube"], found["memory"], sum(found[name] for name in own))
    formula = f"max(cube, memory, {' + '.join(own)})"
    if "separate" in found:
        return f"separate + {formula}", found["separate"] + overlapped
    return formula, overlapped


def hbm_bytes(dataflow: str, problem: Any) -> float:
    """Q, the KV cache and its scales, each read once."""
    method = METHODS[dataflow]
    return 2 * problem.batch * problem.heads * problem.q * problem.head_dim + _cache_bytes(method, problem)


def uncached_bytes(dataflow: str, problem: Any, tiling: Mapping[str, int]) -> float:
    """As the MSD paper counts, with M d elements of K or of V: a dequantized cache is written and read back (5 Md for INT8),
    every pass of a decomposition reads the cache for itself (2 Md for two passes of INT8); and the output is written."""
    method, elements = METHODS[dataflow], _cache_elements(problem)
    found = hbm_bytes(dataflow, problem) + 2 * problem.batch * problem.heads * problem.q * problem.value_dim
    if method.spec is not None:
        return found + (method.passes - 1) * elements * FORMATS[method.cache].bits / 8
    return found if method.cache == "bf16" else found + 2 * 2 * elements


def _cache_elements(problem: Any) -> int:
    width = problem.head_dim + (0 if problem.shared_kv else problem.value_dim)
    return int(problem.batch * problem.kv_heads * problem.kv * width)


def _cache_bytes(method: AttentionMethod, problem: Any) -> float:
    elements = _cache_elements(problem)
    found = elements * FORMATS[method.cache].bits / 8
    if method.cache == "bf16":
        return found
    if method.cache == "fp4_e2m1":
        return found + elements / MX_BLOCK
    stored = 1 if problem.shared_kv else 2
    if problem.scales == "token":
        return found + 4 * stored * problem.batch * problem.kv_heads * problem.kv
    return found + 4 * problem.kv_heads * (problem.head_dim + (0 if problem.shared_kv else problem.value_dim))


def _visible(problem: Any) -> float:
    """Share of the (query, token) pairs that the causal mask leaves."""
    if not problem.causal:
        return 1.0
    return (problem.kv - problem.q + (problem.q + 1) / 2) / problem.kv


def _logits(problem: Any) -> float:
    return problem.batch * problem.heads * problem.q * problem.kv * _visible(problem)


def _cube(method: AttentionMethod, problem: Any, chip: Chip) -> float:
    """Cycles of Q K^T and P V of all KV heads, the components stacked along rows."""
    element = "bf16" if method.spec is None else method.spec.target
    rate = chip.cube.rate(MX_MODES.get(element, element), MX_MODES.get(element, element))
    assert rate is not None
    rows = ceil_div(method.passes * problem.heads // problem.kv_heads * problem.q, chip.cube.fractal_m)
    qk = ceil_div(problem.head_dim, rate.fractal_k) * ceil_div(problem.kv, chip.cube.fractal_n)
    pv = ceil_div(problem.kv, rate.fractal_k) * ceil_div(problem.value_dim, chip.cube.fractal_n)
    fractals = problem.batch * problem.kv_heads * rows * (qk + pv) * _visible(problem)
    return fractals * rate.cycles_per_fractal / chip.cores.aic
