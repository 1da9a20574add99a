"""Which dataflows are at least as accurate as another: their errors, measured on one small problem of the same kind.

The error of a dataflow is that of its result against the product of the weights as they are published and the activations as
they are given: what the format of the weights costs, and what the method adds.  Weights that are published as integers or
MXFP4 lie on a grid of theirs, which the dataflows of that format read without a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from msdsim.errors import MsdsimError
from msdsim.formats.mx import MX_ELEMENTS, dequantize_mx, quantize_mx
from msdsim.formats.number import FORMATS
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.metrics import relative_l2
from msdsim.problems.model import Attention, Gemm

#: Errors of one sample differ by chance: what is so much worse at most counts as equally accurate.
_CHANCE = 1.02
_M, _K, _N = 16, 1024, 128
_GRIDS = {"int8": 127, "int4": 7}
_MX = {"mxfp4": "mxfp4", "mxfp8_e4m3": "mxfp8"}


def accurate_enough(problem: Any, published: str | None, reference: str, names: Sequence[str]) -> list[str]:
    """Those of ``names`` whose error is at most that of ``reference``; ``published`` is the format of the problem's weights."""
    group = getattr(problem, "group", None)
    kind = "attention" if problem.kind == "attention" else "gemm"
    limit = _error(kind, reference, published, group)
    if limit is None:
        return [reference]
    return [name for name in names if (error := _error(kind, name, published, group)) is not None and error <= limit * _CHANCE]


@cache
def _error(kind: str, name: str, published: str | None, group: int | None) -> float | None:
    """Relative error of a dataflow; None where it cannot run the sample."""
    problem: Any
    rng = np.random.default_rng(0)
    plain: Any
    if kind == "attention":
        problem = plain = Attention(batch=1, heads=4, kv_heads=1, head_dim=128, q=1, kv=1024)
        inputs = {"q": rng.standard_normal((1, 4, 1, 128)), "k": rng.standard_normal((1, 1, 1024, 128)),
                  "v": rng.standard_normal((1, 1, 1024, 128))}
    else:
        fits = group if group is not None and name != "bf16" and "mx" not in name else None
        problem, plain = Gemm(m=_M, k=_K, n=_N, group=fits), Gemm(m=_M, k=_K, n=_N)
        inputs = {"x": rng.standard_normal((_M, _K)), "w": _on_grid(rng.standard_normal((_K, _N)), published, group)}
    arrays = {key: value.astype(np.float32) for key, value in inputs.items()}
    try:
        contract, truth = contract_for(kind, name), contract_for(kind, "bf16")
        y = contract.reference(problem, contract.operands(problem, arrays))["y"]
        return float(relative_l2(y, truth.exact(plain, truth.operands(plain, arrays))))
    except MsdsimError:
        return None


def _on_grid(w: np.ndarray, published: str | None, group: int | None) -> np.ndarray:
    """Weights on the grid of their published format, whose points BF16 holds."""
    if published in _GRIDS:
        parts = w.reshape(-1, group or w.shape[0], w.shape[1]) if w.shape[0] % (group or w.shape[0]) == 0 else w[None]
        # A power of two, so that a product of scale and integer is exact in BF16.
        scale = 2.0 ** np.ceil(np.log2(np.abs(parts).max(axis=1, keepdims=True) / _GRIDS[published]))
        codes = np.clip(np.rint(parts / scale), -_GRIDS[published], _GRIDS[published])
        # Scales come from the largest magnitude: with the largest code in every group they come out as they are.
        codes[:, 0] = _GRIDS[published]
        return np.asarray((codes * scale).reshape(w.shape))
    if published in _MX:
        return dequantize_mx(*quantize_mx(w, FORMATS[MX_ELEMENTS[_MX[published]]], axis=0), axis=0)
    return w
