"""Weights of checkpoints as the operands of a matmul: how each dataflow takes what a checkpoint stores.

Integers and MXFP4 codes go to a dataflow of their format as they are, with their groups, scales and offsets; one of 16 bits
gets their values; another cannot take them and says why.  Values (BF16, FP8, NVFP4 ...) are quantized by the dataflow's rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.checkpoints.stored import StoredWeight
from msdsim.checkpoints.weights import read_weight
from msdsim.errors import ArrayError, InputError
from msdsim.formats.checks import require_finite
from msdsim.formats.mx import MX_ELEMENTS, dequantize_mx, quantize_mx
from msdsim.formats.number import BF16, FP8_E4M3FN
from msdsim.formats.rounding import round_to
from msdsim.formats.schemes import SCHEMES
from msdsim.numerics.random import normal

_BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Fitted:
    """A problem with the groups and offsets of stored weights, the arrays that go into it, and what was done in a sentence."""

    problem: Any
    inputs: dict[str, np.ndarray]
    said: str


def load_tensor(spec: str) -> np.ndarray:
    """The values of a tensor in float32 (float64 stays float64): in its stored shape, or [n, k] where it is quantized."""
    stored = read_weight(spec)
    return stored.decoded() if not stored.oriented else np.swapaxes(stored.decoded(), -1, -2)


def load_weight(spec: str, k: int, n: int) -> np.ndarray:
    """The values [k, n] of the weight that ``PATH:TENSOR`` names.

    Linear layers are stored [n, k] (output features first), and so is a square tensor taken; a plain tensor of shape [k, n]
    with k != n is used as it is.  ArrayError for any other shape, and for NaN or infinity.
    """
    stored = placed(read_weight(spec), (k, n), spec)
    values = stored.decoded()
    require_finite(values, _name(spec))
    return np.ascontiguousarray(values)


def _name(spec: str) -> str:
    return f"tensor '{spec.rpartition(':')[2][:200]}'"


def placed(stored: StoredWeight, shape: tuple[int, ...], name: str) -> StoredWeight:
    """The weight as ``shape``, [k, n] or [groups, k, n].  ArrayError where it has another."""
    text = _name(name)
    if stored.kind == "float":
        require_finite(stored.decoded(), text)
    axes = "[groups, n, k]" if len(shape) == 3 else "[n, k]"
    if len(stored.shape) != len(shape):
        if len(stored.shape) == 3 and len(shape) == 2:
            raise ArrayError(f"{text} has 3 dimensions (shape {list(stored.shape)}), one matrix for each of "
                             f"{stored.shape[0]} experts; "
                             f"give the problem as grouped_gemm:groups={stored.shape[0]},m=...,k={shape[0]},n={shape[1]}")
        raise ArrayError(f"{text} has {len(stored.shape)} dimensions (shape {list(stored.shape)}); a weight has {len(shape)} "
                         f"here: {axes}")
    swapped = (*shape[:-2], shape[-1], shape[-2])
    if stored.oriented:
        if stored.shape != shape:
            raise ArrayError(f"{text} ({stored.layout}) is [n, k] = {list(stored.shape[:-3:-1])}"
                             f"{f' for {stored.shape[0]} experts' if len(shape) == 3 else ''}; the problem needs {axes} = "
                             f"{list(swapped)}")
        return stored
    if shape == swapped and len(shape) == 3:
        raise ArrayError(f"{text} has shape {list(shape)}, which is [experts, n, k] in some models and [experts, k, n] in "
                         "others, and "
                         "nothing beside it says which; give it as w [groups, k, n] in an npz")
    if stored.shape == swapped:
        return stored.swapped()
    if stored.shape == shape:
        return stored.swapped(keep=True)
    kn = "[groups, k, n]" if len(shape) == 3 else "[k, n]"
    raise ArrayError(f"{text} has shape {list(stored.shape)}; the problem needs {axes} = {list(swapped)} or {kn} = "
                     f"{list(shape)}")


def fit(stored: StoredWeight, problem: Any, weights: str, inputs: Mapping[str, np.ndarray] | None, seed: int,
        name: str = "") -> Fitted:
    """Stored weights as operands of ``problem`` for a dataflow with these ``weights`` (bf16, int8, int4, mxfp8 or mxfp4).

    Activations that ``inputs`` lack are drawn where the weights ask for another order or for factors of them.  ArrayError
    where the dataflow cannot take them, with the reason.
    """
    if getattr(problem, "kind", None) not in ("gemm", "grouped_gemm"):
        raise InputError(f"--weights belongs to a gemm problem, not to "
                         f"{problem if hasattr(problem, 'kind') else 'this one'}; leave it out")
    given = dict(inputs or {})
    if {"w", "q"} & set(given):
        raise InputError("--inputs already has weights (w or q); leave out --weights or take them out of the file")
    experts = (problem.groups,) if problem.kind == "grouped_gemm" else ()
    found = placed(stored, (*experts, problem.k, problem.n), name)
    if found.input_factor is not None:
        x = given["x"] if "x" in given else _drawn(problem, seed)
        given["x"] = round_to(x.astype(np.float32) * found.input_factor, BF16).astype(np.float32)
    if found.kind == "float" and weights == "mxfp8" and (codes := _mxfp8_codes(found.decoded())) is not None:
        return Fitted(problem, given | codes, _said(found, "as they are"))
    if found.kind == "float":
        how = "" if weights == "bf16" else f"values quantized to {weights} by the dataflow's rule"
        return Fitted(problem, given | {"w": found.decoded()}, _said(found, how))
    if weights == "bf16":
        values = found.decoded()
        require_finite(values, _name(name))
        return Fitted(problem, given | {"w": values}, _said(found, "by their values, rounded to BF16"))
    return _as_stored(found, problem, weights, given, seed)


def _mxfp8_codes(values: np.ndarray) -> dict[str, np.ndarray] | None:
    """``q`` and ``scale`` of values [k, n] or [experts, k, n] that MXFP8 holds exactly, None for others.  The smallest scale
    that does not saturate holds whatever another one held."""
    parts = [quantize_mx(one, FP8_E4M3FN, "rceil", axis=0) for one in (values if values.ndim == 3 else values[None])]
    for (q, scale), one in zip(parts, values if values.ndim == 3 else values[None], strict=True):
        if not np.array_equal(dequantize_mx(q, scale, axis=0), one):
            return None
    arrays = [np.stack([part[i].view(np.uint8) for part in parts]) for i in range(2)]
    q, scale = arrays if values.ndim == 3 else (array[0] for array in arrays)
    return {"q": q, "scale": scale}


def _as_stored(found: StoredWeight, problem: Any, weights: str, given: dict[str, np.ndarray], seed: int) -> Fitted:
    assert found.q is not None
    assert found.scale is not None
    if found.kind == "mxfp4":
        if weights != "mxfp4":
            scaled = "" if weights in MX_ELEMENTS else " with FP32 scales"
            takes = [scheme.name for scheme in SCHEMES.values() if scheme.weight_name == "mxfp4"]
            raise ArrayError(f"the weights are stored as MXFP4 ({found.layout}), and this dataflow multiplies "
                             f"{weights}{scaled}; {', '.join(takes)} and bf16 take them")
        arrays = {"q": found.q.view(np.uint8), "scale": found.scale.view(np.uint8)}
        return Fitted(problem, given | arrays, _said(found, "as they are"))
    if weights in MX_ELEMENTS:
        raise ArrayError(f"the weights are stored as INT{found.bits} ({found.layout}), and this dataflow takes "
                         f"{weights.upper()} blocks; "
                         "give their "
                         "values as w in an npz to quantize them anew")
    if found.bits > _BITS[weights]:
        raise ArrayError(f"the weights are stored as INT{found.bits} ({found.layout}), and this dataflow takes {weights}; "
                         "the dataflows of "
                         f"int{found.bits} and bf16 take them as they are")
    if problem.group is not None and problem.group != found.group:
        own = "a scale for each channel" if found.group is None else f"groups of {found.group}"
        raise ArrayError(f"the problem has group={problem.group}, and the weights have {own} ({found.layout}); leave out "
                         "group=")
    offset = found.offset if found.offset is not None or not problem.offset else np.zeros_like(found.scale)
    arrays = {"q": found.q, "scale": found.scale} | ({} if offset is None else {"offset": offset})
    how = ["as they are" if found.bits == _BITS[weights] else f"as they are, in {weights}"]
    if found.order is not None:
        x = given["x"] if "x" in given else _drawn(problem, seed)
        given["x"] = x[..., found.order]
        rows = x.size // problem.k
        how.append(f"rows sorted by group, and the activations in the same order: that gather reads and writes "
                   f"{4 * rows * problem.k:,} bytes before the kernel, which its time leaves out")
    fitted = problem.model_copy(update={"group": found.group, "offset": offset is not None})
    return Fitted(fitted, given | arrays, _said(found, "; ".join(how)))


def _said(found: StoredWeight, how: str) -> str:
    return "; ".join(part for part in (found.layout, how, *found.notes) if part)


def _drawn(problem: Any, seed: int) -> np.ndarray:
    """The activations that a run draws: those of :func:`~msdsim.numerics.operands.gemm_operands`, for every group."""
    if problem.kind == "gemm":
        return normal((problem.m, problem.k), seed, 0)
    rows = problem.rows or (problem.m,) * problem.groups
    parts = [normal((max(1, m), problem.k), (seed, g), 0)[:m] for g, m in enumerate(rows)]
    return np.concatenate(parts) if problem.rows is not None else np.stack(parts)
