"""GEMM contracts whose Cube multiplies integers: MSD on int8 and int4 weights, W8A8, and A8W4.

Per channel, with components a_i [m, k] of x, C_i = a_i @ q exact in int32, and w_i = fl32(1 / g^(i-1)) (for a8w4 16 and
1); every operation is fp32 with one rounding, in this order:

    t = fp32(C1) ; per further pass, ascending: t = t + fp32(C_i) * w_i
    a8w4: t = t + bias8[n]                        (bias8 = fp32(8 * sum of q over k), prepared offline)
    t = t * row_scale[m]
    with an offset: t = t + rowsum[m] * offset[n] (product rounded, then the sum)
    t = t * scale[n] ;  y = bf16(t), half to even

Per group of k, the row scale stays outside the sum over groups and offsets have their own accumulator, so that the
inner loop reads scale[g] once and multiplies no row vector; groups ascend:

    per group: t = passes (and bias8[g]) as above ; t = t * scale[g, n] ; acc = acc + t      (acc starts as the first t)
               with an offset: u = groupsum[m, g] * offset[g, n] ; u = u * scale[g, n] ; off = off + u   (likewise)
    t = acc * row_scale[m] ; with an offset t = t + off ;  y = bf16(t)

There is one row scale for the whole of k.  Row and group sums are taken over fp32(x) with 64 lanes
(:mod:`msdsim.numerics.vector`).  w8a8 is the one-pass case of msd-int8.  With activations that are given in INT8 (``x=int8``),
a_1 is x and row_scale its ``x_scale``: what is left is exact but for the roundings above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from msdsim.errors import ArrayError, InputError, ProblemError
from msdsim.formats.checks import first_index
from msdsim.formats.msd import MSD_INT8, MSD_NIBBLES, ROW_MAX_LIMIT, MsdSpec, decompose
from msdsim.formats.rounding import round_to
from msdsim.formats.schemes import SCHEMES
from msdsim.numerics.bounds import ETA32, SECOND_ORDER, U32, float64_slack, gamma, with_output
from msdsim.numerics.contract import Arrays, Contract, Seed, register
from msdsim.numerics.matmul import max_safe_k
from msdsim.numerics.operands import activations, gemm_operands, group_slices, logical_weight, per_group
from msdsim.numerics.references.gemm_float import exact_gemm
from msdsim.numerics.references.matmul import matmul_int
from msdsim.numerics.references.reduce import row_sum
from msdsim.numerics.shared import once_of
from msdsim.problems.shapes import GemmShape

# Passes through which every decision of the decomposition is exact for bf16 input (formats.msd).
_ROWS_AT_ONCE = 256
_EXACT_PASSES = {"int8": 3, "int4": 6}


@dataclass(frozen=True)
class IntegerGemm(Contract):
    """Integer components times integer weights.  ``nibbles`` splits the one int8 component into two of int4 (a8w4)."""

    spec: MsdSpec = MSD_INT8
    weights: str = "int8"
    nibbles: bool = False

    def with_passes(self, passes: int) -> IntegerGemm:
        """The same contract with another number of passes; w8a8 and a8w4 are one quantization, so they have none."""
        if not self.name.startswith("msd-"):
            raise InputError(f"'{self.name}' quantizes x once, so it takes no number of passes (got {passes})")
        return replace(self, spec=self.spec.with_passes(passes))

    def with_spec(self, spec: MsdSpec) -> IntegerGemm:
        """The same contract with another decomposition of the same format, the vendor's factors for instance."""
        if self.nibbles or spec.scheme != "row" or spec.target != self.spec.target:
            raise InputError(f"'{self.name}' cannot take the decomposition '{spec.name}'; give one of {self.spec.target} rows")
        return replace(self, spec=spec)

    def for_tiling(self, tiling: Mapping[str, int]) -> IntegerGemm:
        """The contract with the number of passes of a kernel; K in parts changes no bit of integer sums."""
        passes = tiling.get("passes", self.spec.passes)
        return self if self.nibbles or passes == self.spec.passes else self.with_passes(passes)

    @property
    def weights_format(self) -> str:
        return self.weights

    @property
    def component_format(self) -> str:
        """Format of what the Cube multiplies with the weights."""
        return "int4" if self.nibbles else self.spec.target

    def operands(self, problem: GemmShape, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        limit = max_safe_k(self.component_format, self.weights,
                           (MSD_NIBBLES if self.nibbles else self.spec).max_component)
        depth = min(problem.k, problem.group or problem.k)
        if depth > limit:
            raise ProblemError(f"k={depth} can overflow int32 in {self.component_format} x {self.weights} sums; the "
                               f"largest safe k is {limit}: split k or use group=")
        operands = gemm_operands(problem, inputs, seed, self.weights)
        if "x_scale" in operands:
            return operands
        magnitude = np.abs(operands["x"].astype(np.float32))
        if not (magnitude <= ROW_MAX_LIMIT).all():
            index = first_index(magnitude > ROW_MAX_LIMIT)
            raise ArrayError(f"x has {operands['x'][index]} in row {index[0]}, above 2^120, where x * 127 leaves "
                             "float32; scale the activations down")
        if self.nibbles:
            operands["bias8"] = self._bias8(problem, operands)
        return operands

    def _bias8(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        q = logical_weight(problem, operands).q
        sums = [8 * q[part].sum(axis=0, dtype=np.int64) for part in group_slices(problem.k, problem.group)]
        return np.array(sums if problem.group else sums[0]).astype(np.float32)

    def components(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, tuple[float, ...]]:
        """Component arrays [m, k], row_scale float32 [m] and the weights of the passes (1, 1/g, ...)."""
        parts = decompose(x, self.spec)
        assert parts.row_scale is not None
        if not self.nibbles:
            return list(parts.components), parts.row_scale, parts.spec.pass_weights
        split = decompose(parts.components[0], MSD_NIBBLES)
        return list(split.components), parts.row_scale, split.spec.pass_weights

    def reference(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> Arrays:
        x, weight = operands["x"], logical_weight(problem, operands)
        result: Arrays = {}
        pass_weights: tuple[float, ...] = (1.0,)
        if "x_scale" in operands:
            components, row_scale = [x], operands["x_scale"]
        else:
            components, row_scale, pass_weights = self.components(x)
            result = {f"a{i + 1}": a for i, a in enumerate(components)} | {"row_scale": row_scale}
        acc = off = None
        with np.errstate(over="ignore", under="ignore"):
            for g, part in enumerate(group_slices(problem.k, problem.group)):
                sums = matmul_int(np.concatenate([a[:, part] for a in components]), weight.q[part])
                t = self._merge(np.split(sums, len(components)), pass_weights, operands.get("bias8"), g)
                if problem.group is None:
                    t = t * row_scale[:, None]
                if weight.offset is not None:
                    u = np.multiply.outer(row_sum(x[:, part].astype(np.float32)), per_group(weight.offset, g))
                    if problem.group is None:
                        t = t + u
                    else:
                        u = u * weight.scale[g]
                        off = u if off is None else off + u
                t = t * per_group(weight.scale, g)
                acc = t if acc is None else acc + t
            if problem.group is not None:
                acc = acc * row_scale[:, None]
                acc = acc if off is None else acc + off
        assert acc is not None
        return {"y": round_to(acc, problem.out), "y32": acc, **result}

    @staticmethod
    def _merge(sums: list[np.ndarray], pass_weights: tuple[float, ...], bias8: np.ndarray | None, g: int) -> np.ndarray:
        terms = [c.astype(np.float32) * np.float32(w) for c, w in zip(sums, pass_weights, strict=True)]
        if bias8 is not None:
            terms.append(np.broadcast_to(per_group(bias8, g), terms[0].shape))
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def exact(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        return exact_gemm(problem, operands)

    def bound(self, problem: GemmShape, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """Representation: row_max * relative_bound * sum |q| * scale.  Arithmetic: at most passes + 6 roundings
        (+ groups) act on |t| <= row_max * sigma * sum |q| * scale, where sigma sums the pass weights; offsets carry the
        roundings of the row sum (ceil(depth / 64) + 6 additions) and three more; eta terms cover underflow."""
        x, weight = np.abs(activations(operands)), logical_weight(problem, operands)
        groups = group_slices(problem.k, problem.group)
        row_max = x.max(axis=1, keepdims=True)
        f, passes = self.spec.first_factor, self.spec.passes
        represented = 0.0 if "x_scale" in operands else self.spec.relative_bound()
        # a8w4: |16 hi| + |lo| + 8 <= 144 in units of the row scale.
        sigma = 144 / f if self.nibbles else self.spec.headroom * sum(self.spec.pass_weights)
        plain = self.spec.first_factor.is_integer() and self.spec.rounding != "floor"
        inexact = 0.0 if plain and passes <= _EXACT_PASSES[self.spec.target] else 4 * passes * U32
        scales = [np.abs(per_group(weight.scale, g).astype(np.float64)) for g in range(len(groups))]
        scale_sum = np.sum(scales, axis=0)
        q_sums = once_of([operands["w"]], "sums of |q|", lambda: [_abs_sum(weight.q[part]) for part in groups])
        q_sum = sum(total * scale for total, scale in zip(q_sums, scales, strict=True))
        operations = passes + 8 + len(groups)
        error = row_max * q_sum * (represented + inexact + gamma(operations) * sigma)
        magnitude = row_max * q_sum
        if weight.offset is not None:
            depth = -(-max(part.stop - part.start for part in groups) // 64) + 6
            shift = sum(x[:, part].sum(axis=1, keepdims=True) * np.abs(per_group(weight.offset, g)) * scales[g]
                        for g, part in enumerate(groups))
            error = error + gamma(depth + 5 + len(groups)) * shift
            magnitude = magnitude + shift
        error = error + ETA32 * (f * sigma * q_sum + 3 * scale_sum + len(groups) * (3 + row_max / f))
        return with_output(error * SECOND_ORDER + float64_slack(problem.k, magnitude), y64, problem.out)


def _abs_sum(q: np.ndarray) -> np.ndarray:
    """sum over k of |q| (float64 [n]) of int8 values."""
    total = np.zeros(q.shape[1])
    for start in range(0, q.shape[0], _ROWS_AT_ONCE):
        # The byte of |-128| is 128 as an unsigned number, and the sum of 256 of them stays below 2^16.
        total += np.abs(q[start : start + _ROWS_AT_ONCE]).view(np.uint8).sum(axis=0, dtype=np.uint16)
    return total


for _scheme in SCHEMES.values():
    if _scheme.sums == "int32":
        register(IntegerGemm(_scheme.name, _scheme.description, "gemm", _scheme.spec, _scheme.weights, _scheme.nibbles))
