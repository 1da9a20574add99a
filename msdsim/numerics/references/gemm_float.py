"""GEMM contracts whose Cube multiplies bf16: 16-bit weights, and dequantization before the matmul.

bf16       y = bf16(acc), acc fp32 over ascending k of x * w.  With K in parts every part is summed by itself, from zero, and
           the sums are added in fp32, parts ascending.
dequant-*  f = fp32(q); with an offset f = f + offset; f = f * scale; wb = bf16(f), half to even; then as bf16 with wb.
           Offsets and scales are those of the column, or of the column and the group of k.  MXFP4: f = element * 2^e,
           which bf16 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from msdsim.formats.mx import code_to_exponent, expand, rule_named
from msdsim.formats.number import BF16
from msdsim.formats.quantize import QuantizedWeight, rows
from msdsim.formats.rounding import decode, round_to
from msdsim.formats.schemes import SCHEMES
from msdsim.numerics.bounds import ETA16, ETA32, SECOND_ORDER, U32, float64_slack, gamma, with_output
from msdsim.numerics.contract import Arrays, Contract, Seed, register
from msdsim.numerics.matmul import mmad_float
from msdsim.numerics.operands import activations, gemm_operands, logical_weight, weight_part, weight_tiles, weight_values
from msdsim.numerics.references.matmul import matmul_strips
from msdsim.numerics.shared import is_kept, once_of
from msdsim.problems.shapes import GemmShape
from msdsim.units import part_size

_ROWS_AT_ONCE, _COLUMNS_AT_ONCE = 512, 256
#: Elements of a product that is kept for other dataflows.
_LARGEST_SHARED = 1 << 22


def dequantize_bf16(weight: QuantizedWeight) -> np.ndarray:
    """bf16 [k, n] as a Vector unit makes it: fp32 arithmetic, one rounding per operation, bf16 half to even."""
    q, k = weight.q, weight.q.shape[0]
    if q.dtype == BF16.dtype:
        return q
    out = np.empty(q.shape, BF16.dtype)
    if weight.scale.ndim == 2 and weight.scale.dtype != np.float32:
        scale = expand(np.ldexp(np.float32(1), code_to_exponent(weight.scale)), k, axis=0)
    else:
        scale = rows(weight.scale, k, weight.group)
    offset = None if weight.offset is None else rows(weight.offset, k, weight.group)
    for start in range(0, k, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        f = decode(q[part])
        if offset is not None:
            f = f + (offset if offset.shape[0] == 1 else offset[part])
        f = f * (scale if scale.shape[0] == 1 else scale[part])
        out[part] = round_to(f, BF16)
    return out


def exact_gemm(problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
    """y64 [m, n]: x @ (q + offset) * scale in float64."""
    return _product(problem, operands, 0)


def magnitude_of(problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
    """sum over k of |x| |w| in float64 [m, n]."""
    return _product(problem, operands, 1)


def _product(problem: GemmShape, operands: Mapping[str, np.ndarray], which: int) -> np.ndarray:
    x, weight = activations(operands), logical_weight(problem, operands)
    arrays = [operands[name] for name in ("x", "x_scale", "w", "scale", "offset") if name in operands]
    if problem.m * problem.n > _LARGEST_SHARED or not is_kept(*arrays):
        return products(None if which else x, np.abs(x) if which else None, weight)[which]
    return once_of(arrays, "products", lambda: products(x, np.abs(x), weight))[which]


def products(plain: np.ndarray | None, magnitudes: np.ndarray | None,
             weight: QuantizedWeight) -> tuple[np.ndarray, np.ndarray]:
    """``plain @ w`` and ``magnitudes @ |w|`` in float64, in one pass over the weights; empty for what is not asked for."""
    n = weight.q.shape[1]
    y, total = (np.zeros((0 if left is None else left.shape[0], n)) for left in (plain, magnitudes))
    for inside, columns in weight_tiles(weight):
        values = weight_values(weight_part(weight, inside, columns))
        if plain is not None:
            y[:, columns] += plain[:, inside] @ values
        if magnitudes is not None:
            total[:, columns] += magnitudes[:, inside] @ np.abs(values, out=values)
    return y, total


def magnitude_gemm(x: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
    """sum over k of x |w| in float64 [m, n], for ``x`` >= 0 (float64 [m, k])."""
    return products(None, x, weight)[1]


@dataclass(frozen=True)
class FloatGemm(Contract):
    """bf16 x bf16 in fp32, ascending k; ``weights`` is the format in which the weights are stored.

    ``matmul`` is the method of the product; every one gives the same bits.  ``k_parts`` parts of K (cut by
    :func:`~msdsim.units.part_size`) are summed by themselves, then added in ascending order.
    """

    weights: str = "bf16"
    k_parts: int = 1
    weight_rule: str = "ocp-floor"
    matmul: Callable[..., np.ndarray] = field(default=matmul_strips, repr=False)

    @property
    def weights_format(self) -> str:
        return self.weights

    def compiled(self) -> FloatGemm:
        """The same contract by the compiled tile kernel, for long studies."""
        return replace(self, matmul=mmad_float)

    def for_tiling(self, tiling: Mapping[str, int]) -> FloatGemm:
        """The contract with the parts of K of a kernel."""
        return replace(self, k_parts=tiling.get("k_parts", 1))

    def with_scale_rule(self, rule: str) -> FloatGemm:
        """The same contract with another rule for the scales of MXFP4 weights."""
        return replace(self, weight_rule=rule_named(rule))

    def operands(self, problem: GemmShape, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        return gemm_operands(problem, inputs, seed, self.weights, self.weight_rule)

    def reference(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> Arrays:
        x, weight, depth = operands["x"], logical_weight(problem, operands), part_size(problem.k, self.k_parts)
        y32 = np.empty((problem.m, problem.n), np.float32)
        for start in range(0, problem.n, _COLUMNS_AT_ONCE):
            columns = slice(start, min(start + _COLUMNS_AT_ONCE, problem.n))
            wb = dequantize_bf16(weight_part(weight, slice(0, problem.k), columns))
            total = self.matmul(x[:, :depth], wb[:depth])
            for row in range(depth, problem.k, depth):
                total = total + self.matmul(x[:, row : row + depth], wb[row : row + depth])
            y32[:, columns] = total
        return {"y": round_to(y32, problem.out), "y32": y32}

    def exact(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        return exact_gemm(problem, operands)

    def bound(self, problem: GemmShape, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """|wb - w| <= c |w| + eta with c = (1 + 2^-8)(1 + 2^-24)^2 - 1 (one rounding less without an offset; nothing
        for bf16 weights), then gamma_k of the accumulation on sum |x| |wb|, then the output."""
        k, x = problem.k, np.abs(operands["x"].astype(np.float64))
        weight = logical_weight(problem, operands)
        magnitude = magnitude_of(problem, operands)
        x_sum = x.sum(axis=1, keepdims=True)
        convert, convert_eta = 0.0, 0.0
        if self.weights != "bf16":
            convert = (1 + BF16.unit_roundoff) * (1 + U32) ** (1 if weight.offset is None else 2) - 1
            convert_eta = ETA16 + ETA32
        error = (convert * magnitude + convert_eta * x_sum
                 + gamma(k) * ((1 + convert) * magnitude + convert_eta * x_sum + k * ETA32) + k * ETA32)
        error = error * SECOND_ORDER + float64_slack(k, magnitude)
        return with_output(error, y64, problem.out)


for _scheme in SCHEMES.values():
    if _scheme.decomposition is None and not _scheme.scales_sums:
        register(FloatGemm(_scheme.name, _scheme.description, "gemm", _scheme.weight_name))
