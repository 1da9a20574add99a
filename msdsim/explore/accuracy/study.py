"""Accuracy of every method on one problem, for several inputs: whole-tensor contracts against float64.

Errors are relative to the float64 result on the same quantized weights (or KV cache), so that they show what a method
adds, not what the weight format costs.  fp32 and bf16 outputs are separate columns: rounding the output to bf16 costs
about 1.7e-3 and hides most differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
from msdsim.formats.msd import MSD_INT4, MSD_INT8, MSD_MXFP4, MsdSpec, decompose, reconstruct
from msdsim.formats.mx import dequantize_mx, quantize_mx
from msdsim.formats.number import BF16, FP8_E4M3FN
from msdsim.formats.rounding import round_to
from msdsim.numerics.contract import Contract
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.metrics import bound_ratio, effective_bits, max_abs_error, relative_l2

GEMM_METHODS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("bf16", ()), ("dequant-int8", ()), ("msd-int8", (1, 2, 3)), ("dequant-int4", ()), ("msd-int4", (1, 2, 3, 4)),
    ("a8w4", ()), ("dequant-mxfp4", ()), ("msd-mxfp4", (1, 2, 3)), ("mxfp8", ()),
)
ATTENTION_METHODS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("bf16", ()), ("dequant-int8", ()), ("msd-int8", (1, 2, 3)), ("dequant-int4", ()), ("msd-int4", (1, 2, 3, 4)),
    ("msd-mxfp4", (1, 2, 3)),
)
_MX_METHODS = ("dequant-mxfp4", "msd-mxfp4", "mxfp8")
_SPECS = {"msd-int8": MSD_INT8, "msd-int4": MSD_INT4, "msd-mxfp4": MSD_MXFP4, "a8w4": MSD_INT8.with_passes(1)}


@dataclass(frozen=True)
class AccuracyRow:
    """One method on one input: a name of :data:`DISTRIBUTIONS`, or ``given arrays``.

    ``passes`` is None where nothing is decomposed; ``effective_bits`` is that of the activations of a GEMM as the method
    represents them (None: exact, or attention).  The errors without a format in their name are those of the bf16 output.
    """

    input: str
    method: str
    passes: int | None
    relative_l2_fp32: float
    relative_l2_bf16: float
    max_abs_error: float
    bound_ratio: float | None  #: None where no output has a bound
    effective_bits: float | None


def accuracy_study(problem: Any, distributions: Iterable[str] | None = None,
                   inputs: Mapping[str, np.ndarray] | None = None, seed: int = 0,
                   methods: Iterable[tuple[str, tuple[int, ...]]] | None = None,
                   progress: Callable[[str], None] | None = None) -> list[AccuracyRow]:
    """Every method that ``problem`` (gemm, grouped_gemm or attention) allows, on every distribution, or on ``inputs`` alone.

    In a GEMM the distribution is that of x (w is normal); in attention it is that of q, k and v, where the outlier
    channels sit in k and v.  ``progress`` is called with a line before each measurement.
    """
    known = ATTENTION_METHODS if problem.kind == "attention" else GEMM_METHODS
    no_mx = problem.shared_kv if problem.kind == "attention" else problem.group is not None or problem.offset
    chosen = [(m, p) for m, p in (known if methods is None else methods) if not (no_mx and m in _MX_METHODS)]
    names = {} if inputs is None else {"given arrays": dict(inputs)}
    if inputs is None:
        names = dict(_draw(problem, DISTRIBUTIONS if distributions is None else distributions, seed))
    rows: dict[str, list[AccuracyRow]] = {name: [] for name in names}
    for method, all_passes in chosen:
        contract = contract_for(problem.kind, method).compiled()
        weights: dict[str, np.ndarray] = {}
        for name, arrays in names.items():
            # The weights of a GEMM are the same under every input: quantize them once.
            operands = {**weights, "x": round_to(arrays["x"], BF16)} if weights else contract.operands(problem, arrays, seed)
            if problem.kind != "attention" and inputs is None:
                weights = {key: array for key, array in operands.items() if key != "x"}
            for passes in all_passes or (None,):
                if progress:
                    progress(f"{name}: {method}" + (f", {passes} passes" if passes else ""))
                used = contract if passes is None else contract.with_passes(passes)
                rows[name].append(_measure(problem, name, used, passes, operands))
    return [row for group in rows.values() for row in group]


def _draw(problem: Any, distributions: Iterable[str], seed: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    for name in distributions:
        entry = DISTRIBUTIONS[name]
        rng = np.random.default_rng(seed)
        if problem.kind == "attention":
            q = (problem.batch, problem.heads, problem.q, problem.head_dim)
            kv = (problem.batch, problem.kv_heads, problem.kv)
            plain = DISTRIBUTIONS["normal"] if name == "outliers" else entry
            arrays = {"q": plain.draw(rng, q), "k": entry.draw(rng, (*kv, problem.head_dim))}
            yield name, arrays if problem.shared_kv else {**arrays, "v": entry.draw(rng, (*kv, problem.value_dim))}
        else:
            rows: tuple[int, ...] = (problem.m,)
            if problem.kind == "grouped_gemm":
                rows = (problem.groups, problem.m) if problem.rows is None else (sum(problem.rows),)
            yield name, {"x": entry.draw(rng, (*rows, problem.k))}


def _measure(problem: Any, name: str, contract: Contract, passes: int | None,
             operands: Mapping[str, np.ndarray]) -> AccuracyRow:
    result, y64 = contract.reference(problem, operands), contract.exact(problem, operands)
    bits = None
    if "x" in operands:
        x = operands["x"].reshape(-1, problem.k)
        x_hat = represented(x, contract.name, passes)
        bits = None if x_hat is None else effective_bits(x, x_hat)
    ratio = bound_ratio(result["y"], y64, contract.bound(problem, operands, y64))
    return AccuracyRow(name, contract.name, passes, relative_l2(result["y32"], y64), relative_l2(result["y"], y64),
                       max_abs_error(result["y"], y64), ratio, bits)


def represented(x: np.ndarray, method: str, passes: int | None = None) -> np.ndarray | None:
    """x as ``method`` represents it (float64 [m, k]); None where activations stay bf16."""
    if method == "mxfp8":
        return dequantize_mx(*quantize_mx(x, FP8_E4M3FN, "rceil"))
    spec: MsdSpec | None = _SPECS.get(method)
    if spec is None:
        return None
    return reconstruct(decompose(x, spec if passes is None else spec.with_passes(passes)))

