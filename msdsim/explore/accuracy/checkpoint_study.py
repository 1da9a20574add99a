"""Accuracy of every method on the weights of a checkpoint: what the format costs, and what the method adds.

The truth is the float64 product of the activations with the values that the checkpoint stands for.  A method that takes the
weights as they are stored costs nothing by its format; one that quantizes values anew, or rounds them to BF16, does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msdsim.checkpoints.stored import StoredWeight
from msdsim.checkpoints.weights import matching_names, read_one, read_weight, split_spec
from msdsim.errors import ArrayError, InputError
from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
from msdsim.explore.accuracy.study import GEMM_METHODS
from msdsim.formats.mx import DEFAULT_RULE
from msdsim.formats.number import BF16
from msdsim.formats.rounding import round_to
from msdsim.formats.schemes import SCHEMES
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.metrics import relative_l2
from msdsim.numerics.weights import fit, placed


@dataclass(frozen=True)
class WeightRow:
    """One method on one tensor and one input: relative L2 errors of the products.

    ``format_l2`` is what the weights of the method cost (float64 product with them against that with the stored values),
    ``added_l2`` what its arithmetic adds on the same weights (FP32 output), ``total_l2`` both with the BF16 output.
    """

    tensor: str
    input: str
    method: str
    passes: int | None
    format_l2: float
    added_l2: float
    total_l2: float
    taken: str


@dataclass(frozen=True)
class WeightStudy:
    """Rows of all methods, how each tensor is stored, and what could not be measured with the reason."""

    rows: list[WeightRow]
    tensors: dict[str, str]
    skipped: list[tuple[str, str, str]]


def checkpoint_study(problem: Any, spec: str, distributions: Iterable[str] | None = None,
                     inputs: Mapping[str, np.ndarray] | None = None, seed: int = 0, scale_rule: str = DEFAULT_RULE,
                     progress: Callable[[int, int], None] | None = None) -> WeightStudy:
    """Every method on the weights that ``PATH:TENSOR`` names, or on every tensor that a name with ``*`` matches.

    ``problem`` is a gemm, or a grouped_gemm for experts in one tensor; where ``*`` matches several tensors, ``k`` and ``n`` are
    those of each.  Activations are drawn by ``distributions``, or are ``x`` of ``inputs``.
    """
    if problem.kind not in ("gemm", "grouped_gemm"):
        raise InputError(f"--weights belongs to a gemm problem, not to {problem}; leave it out")
    if inputs is not None and "x" not in inputs:
        raise ArrayError("the inputs lack 'x', the activations; leave out --inputs to draw them")
    path, name = split_spec(spec)
    names = matching_names(path, name) if problem.kind == "gemm" else [name]
    study = WeightStudy([], {}, [])
    for number, one in enumerate(names):
        try:
            stored = read_weight(spec) if problem.kind != "gemm" else replace(read_one(path, one), name=one)
            own = problem if len(names) == 1 else _sized(problem, stored)
            stored = placed(stored, _shape(own), one)
        except InputError as err:
            if len(names) == 1:
                raise
            study.skipped.append((one, "all methods", str(err)))
            continue
        measure_tensor(study, own, stored, one, list(distributions or DISTRIBUTIONS), inputs, seed, scale_rule)
        if progress is not None:
            progress(number + 1, len(names))
    if not study.rows:
        raise ArrayError(study.skipped[0][2])
    return study


def _sized(problem: Any, stored: StoredWeight) -> Any:
    if len(stored.shape) != 2:
        raise ArrayError(f"tensor '{stored.name[:200]}' has shape {list(stored.shape)}; several tensors by * are matrices")
    k, n = stored.shape if stored.oriented else stored.shape[::-1]
    return problem.model_copy(update={"k": k, "n": n})


def _shape(problem: Any) -> tuple[int, ...]:
    return (*((problem.groups,) if problem.kind == "grouped_gemm" else ()), problem.k, problem.n)


def measure_tensor(study: WeightStudy, problem: Any, stored: StoredWeight, name: str, distributions: list[str],
                    inputs: Mapping[str, np.ndarray] | None, seed: int, scale_rule: str) -> None:
    """Put every method on one weight into ``study``; ``stored`` is placed as ``problem`` has it."""
    study.tensors[name] = str(stored)
    values = stored.decoded().astype(np.float64)
    drawn = _activations(problem, distributions, inputs, seed)
    truths = {key: _product(problem, x if stored.input_factor is None else x * stored.input_factor, values)
              for key, x in drawn.items()}
    found: dict[str, list[WeightRow]] = {key: [] for key in drawn}
    for method, all_passes in GEMM_METHODS:
        contract = contract_for(problem.kind, method).with_scale_rule(scale_rule).compiled()
        weights: dict[str, np.ndarray] = {}
        try:
            for key, x in drawn.items():
                moved = stored.order is not None or stored.input_factor is not None
                if moved or not weights:
                    fitted = fit(stored, problem, SCHEMES[method].weight_name, {"x": x}, seed, name)
                    operands = contract.operands(fitted.problem, fitted.inputs, seed)
                    weights = {rest: array for rest, array in operands.items() if rest != "x"}
                operands = operands if moved else {**weights, "x": round_to(x, BF16)}
                exact = contract.exact(fitted.problem, operands)
                cost = relative_l2(exact, truths[key])
                for passes in all_passes or (None,):
                    used = contract if passes is None else contract.with_passes(passes)
                    result = used.reference(fitted.problem, operands)
                    found[key].append(WeightRow(name, key, method, passes, cost, relative_l2(result["y32"], exact),
                                                relative_l2(result["y"], truths[key]), fitted.said))
        except InputError as err:
            study.skipped.append((name, method, str(err)))
    study.rows.extend(row for rows in found.values() for row in rows)


def _activations(problem: Any, distributions: list[str], inputs: Mapping[str, np.ndarray] | None,
                 seed: int) -> dict[str, np.ndarray]:
    rows: tuple[int, ...] = (problem.m,)
    if problem.kind == "grouped_gemm":
        rows = (problem.groups, problem.m) if problem.rows is None else (sum(problem.rows),)
    if inputs is not None:
        x = np.asarray(inputs["x"])
        if x.shape != (*rows, problem.k):
            raise ArrayError(f"x has shape {list(x.shape)}, the problem needs {[*rows, problem.k]}")
        return {"given arrays": round_to(x, BF16).astype(np.float32)}
    return {key: round_to(DISTRIBUTIONS[key].draw(np.random.default_rng(seed), (*rows, problem.k)), BF16).astype(np.float32)
            for key in distributions}


def _product(problem: Any, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    if getattr(problem, "rows", None) is None:
        return x @ values
    ends = np.cumsum(problem.rows)
    return np.concatenate([x[end - m : end] @ w for end, m, w in zip(ends, problem.rows, values, strict=True)])
