"""GEMM contracts whose weights are only converted: the stored integers and E2M1 elements become bf16 exactly, and scales and
offsets are applied to the fp32 sums of the Cube (mixed-input GEMM libraries: convert, not convert-and-scale).

Per channel, every operation fp32 with one rounding, in this order:

    t = acc over ascending k of x * q (K in parts: each summed by itself from zero, then added, parts ascending)
    with an offset: t = t + rowsum[m] * offset[n]        (product rounded, then the sum)
    t = t * scale[n] ;  y = bf16(t), half to even

Per group of k (MX: per block of 32), groups ascending inside a part of K, parts ascending:

    per group: c = acc over ascending k of the group, from zero ;  c = c * scale[g, n] ;  s = s + c    (s starts as the first c)
               with an offset: u = groupsum[m, g] * offset[g, n] ;  u = u * scale[g, n] ;  o = o + u    (likewise)
    with an offset s = s + o ;  t = sum of s over the parts ;  y = bf16(t)

``convert-fp16-*``: acc and c are sums over h * q, where h = fp16(x / power[m]) (:mod:`msdsim.formats.half`: what is exact, and
how much small elements lose); t = t * power[m] before the offset, s = s * power[m] before o is added.

Row and group sums are taken over fp32(x) with 64 lanes (:mod:`msdsim.numerics.vector`).  What is exact: every conversion of a
weight, since bf16 has eight significant bits; every product x * q, which has at most 16; and of MX every product with a scale,
a power of two, unless it leaves the range of fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from msdsim.formats.half import halves, lost, row_powers
from msdsim.formats.mx import code_to_exponent
from msdsim.formats.number import FP32
from msdsim.formats.quantize import QuantizedWeight
from msdsim.formats.rounding import decode, round_to
from msdsim.formats.schemes import SCHEMES, Scheme
from msdsim.numerics.bounds import ETA32, SECOND_ORDER, float64_slack, gamma, with_output
from msdsim.numerics.contract import Arrays, Contract, Seed, register
from msdsim.numerics.operands import gemm_operands, group_slices, logical_weight, per_group, weight_part
from msdsim.numerics.references.gemm_float import exact_gemm
from msdsim.numerics.references.matmul import matmul_strips
from msdsim.numerics.references.reduce import row_sum
from msdsim.problems.shapes import GemmShape
from msdsim.units import part_size

_ROWS_AT_ONCE, _COLUMNS_AT_ONCE = 512, 256


@dataclass(frozen=True)
class ConvertGemm(Contract):
    """bf16 times weights that are only converted; ``k_parts`` parts of K are cut by :func:`~msdsim.units.part_size`."""

    scheme: Scheme
    k_parts: int = 1

    @property
    def weights_format(self) -> str:
        return self.scheme.weight_name

    def for_tiling(self, tiling: Mapping[str, int]) -> ConvertGemm:
        """The contract with the parts of K of a kernel."""
        return replace(self, k_parts=tiling.get("k_parts", 1))

    def operands(self, problem: GemmShape, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        return gemm_operands(problem, inputs, seed, self.scheme.weight_name)

    def reference(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> Arrays:
        weight, y32 = logical_weight(problem, operands), np.empty((problem.m, problem.n), np.float32)
        for start in range(0, problem.n, _COLUMNS_AT_ONCE):
            columns = slice(start, min(start + _COLUMNS_AT_ONCE, problem.n))
            y32[:, columns] = self._columns(problem, operands["x"], weight_part(weight, slice(0, problem.k), columns))
        return {"y": round_to(y32, problem.out), "y32": y32}

    def _columns(self, problem: GemmShape, x16: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
        """Some columns of the result, before its last rounding."""
        x, scale, total, powers = x16.astype(np.float32), _scale(weight), None, self._powers(x16)
        if self.scheme.half:
            x16 = halves(x16, powers)
        group, depth = self.scheme.group(problem.group), part_size(problem.k, self.k_parts)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for start in range(0, problem.k, depth):
                part = slice(start, min(start + depth, problem.k))
                if group is None:
                    found = matmul_strips(x16[:, part], decode(weight.q[part]))
                else:
                    found = self._of_groups(x16, x, weight, scale, powers, part, group)
                total = found if total is None else total + found
            assert total is not None
            if group is None:
                total = total * powers
                if weight.offset is not None:
                    total = total + np.multiply.outer(row_sum(x), weight.offset)
                total = total * scale
        return total

    def _powers(self, x16: np.ndarray) -> np.ndarray:
        """Powers of two of rows, [m, 1]: 1 where they stay BF16."""
        return row_powers(x16) if self.scheme.half else np.ones((x16.shape[0], 1), np.float32)

    @staticmethod
    def _of_groups(x16: np.ndarray, x: np.ndarray, weight: QuantizedWeight, scale: np.ndarray, powers: np.ndarray,
                   part: slice, group: int) -> np.ndarray:
        """Scaled sums of the groups of a part of K."""
        sums = shifts = None
        for inside in group_slices(part.stop - part.start, group):
            here = slice(part.start + inside.start, part.start + inside.stop)
            g = here.start // group
            c = matmul_strips(x16[:, here], decode(weight.q[here])) * per_group(scale, g)
            sums = c if sums is None else sums + c
            if weight.offset is not None:
                u = np.multiply.outer(row_sum(x[:, here]), per_group(weight.offset, g)) * per_group(scale, g)
                shifts = u if shifts is None else shifts + u
        assert sums is not None
        sums = sums * powers
        return sums if shifts is None else sums + shifts

    def exact(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        return exact_gemm(problem, operands)

    def bound(self, problem: GemmShape, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """Products are exact; an element of a sum then meets at most as many additions as its sum, the groups and the parts of
        K have, and three further roundings (scale, offset, their sum): gamma of that on sum |x| |q| |scale|.  An offset carries
        ceil(depth / 64) + 6 additions of its row sum and five further roundings; eta terms cover products that underflow.
        Elements of FP16 rows lose what :func:`~msdsim.formats.half.lost` says, and products with scales underflow before the
        row's power.  Nothing is claimed where a sum before its scale, or scaled before its power, may leave fp32."""
        x, weight = np.abs(operands["x"].astype(np.float64)), logical_weight(problem, operands)
        powers = self._powers(operands["x"]).astype(np.float64)
        dx = lost(x, powers) if self.scheme.half else np.zeros_like(x)
        group = self.scheme.group(problem.group)
        groups, parts = group_slices(problem.k, group), -(-problem.k // part_size(problem.k, self.k_parts))
        depth = max(part.stop - part.start for part in groups)
        # Stored scales may be negative (Q4_0, AutoRound).
        scale, scaled, largest = np.abs(_scale(weight).astype(np.float64)), np.zeros(y64.shape), np.zeros(y64.shape)
        small = shift = np.zeros(y64.shape)
        for g, part in enumerate(groups):
            plain = _magnitude(x[:, part] + dx[:, part], weight.q[part])
            if dx[:, part].any():
                small = small + _magnitude(dx[:, part], weight.q[part]) * per_group(scale, g)
            scaled = scaled + plain * per_group(scale, g)
            if weight.offset is not None:
                u = np.multiply.outer(x[:, part].sum(axis=1), np.abs(per_group(weight.offset, g).astype(np.float64)))
                shift, plain = shift + u * per_group(scale, g), plain + u
            largest = np.maximum(largest, plain)
        more = (0 if len(groups) == 1 else len(groups)) + parts
        error = gamma(depth + more + 3) * scaled + gamma(-(-depth // 64) + 6 + more + 5) * shift
        error = error + small + ETA32 * (2 * len(groups) + np.sum(np.atleast_2d(scale), axis=0)) * (1 + powers)
        error = with_output(error * SECOND_ORDER + float64_slack(problem.k, scaled + shift), y64, problem.out)
        largest = np.maximum(largest, scaled / powers) if self.scheme.half and group is not None else largest
        return np.where(largest * (1 + gamma(depth + 8)) < FP32.max_value, error, np.inf)


def _scale(weight: QuantizedWeight) -> np.ndarray:
    """Scales as float32, [n] or [groups, n]."""
    if weight.scale.dtype == np.float32:
        return weight.scale
    return np.ldexp(np.float32(1), code_to_exponent(weight.scale))


def _magnitude(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """sum over k of x |q| in float64 [m, n], for ``x`` >= 0."""
    total = np.zeros((x.shape[0], q.shape[1]))
    for start in range(0, q.shape[0], _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        total += x[:, part] @ np.abs(decode(q[part], np.float64))
    return total


for _scheme in SCHEMES.values():
    if _scheme.scales_sums:
        register(ConvertGemm(_scheme.name, _scheme.description, "gemm", _scheme))
