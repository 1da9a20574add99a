"""GEMM contracts whose Cube multiplies MX operands: MSD on MXFP4 weights, and single-pass MX activations.

msd-mxfp4  components of x in E2M1 with block scales s1 = alpha/4 and s_{i+1} = s_i/8 (:mod:`msdsim.formats.msd`);
           C_i fp32, one rounding per block of 32, blocks ascending; t = C1, then t = t + C_i ascending; y = bf16(t).
           The scales are part of the operands, so nothing is multiplied afterwards.
mxfp8      x in E4M3 with block scales by ``rceil`` (no saturation), MXFP4 weights; y = bf16(C).
w8a8-mxfp8, w4a4-mxfp4  the same with x and weights in E4M3, or both in E2M1.

Activations that are given in MX (``x=mxfp8``, ``x=mxfp4``) are taken as they are.

With K in parts (cut by :func:`~msdsim.units.part_size`, in whole blocks) each C is the sum of those of the parts, each from
zero over its own blocks, added in fp32, parts ascending.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from msdsim.errors import ProblemError
from msdsim.formats.msd import MSD_MXFP4, MsdSpec, decompose, error_bound
from msdsim.formats.mx import MX_BLOCK, block_count, block_max, expand, quantize_mx, rule_named, scale_exponent
from msdsim.formats.number import FP8_E4M3FN, NumberFormat
from msdsim.formats.quantize import QuantizedWeight
from msdsim.formats.rounding import round_to
from msdsim.formats.schemes import SCHEMES
from msdsim.numerics.bounds import ETA32, SECOND_ORDER, float64_slack, gamma, with_output
from msdsim.numerics.contract import Arrays, Contract, Seed, register
from msdsim.numerics.matmul import mmad_mx
from msdsim.numerics.operands import activations, gemm_operands, logical_weight
from msdsim.numerics.references.gemm_float import exact_gemm, magnitude_gemm
from msdsim.numerics.references.matmul import matmul_mx
from msdsim.problems.shapes import GemmShape
from msdsim.units import part_size


@dataclass(frozen=True)
class _MxGemm(Contract):
    """MX ``weights``; the subclasses say what x becomes.  ``matmul`` is the method of the product: all give the same bits.
    ``k_parts`` parts of K are summed by themselves."""

    matmul: Callable[..., np.ndarray] = field(default=matmul_mx, repr=False)
    k_parts: int = 1
    weight_rule: str = "ocp-floor"
    weights: str = "mxfp4"

    @property
    def weights_format(self) -> str:
        return self.weights

    def compiled(self) -> Self:
        """The same contract by the compiled tile kernel, for long studies."""
        return replace(self, matmul=mmad_mx)

    def for_tiling(self, tiling: Mapping[str, int]) -> Self:
        """The contract with the parts of K of a kernel."""
        return replace(self, k_parts=tiling.get("k_parts", 1))

    def with_scale_rule(self, rule: str) -> Self:
        """The same contract with another rule for the scales of the weights."""
        return replace(self, weight_rule=rule_named(rule))

    def operands(self, problem: GemmShape, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        return gemm_operands(problem, inputs, seed, self.weights, self.weight_rule)

    def _product(self, a: np.ndarray, a_scale: np.ndarray, weight: QuantizedWeight) -> np.ndarray:
        """C [m, n] of a component [m, k] with its scales."""
        k = a.shape[1]
        depth = part_size(k, self.k_parts)
        total = None
        for start in range(0, k, depth):
            inside, blocks = slice(start, start + depth), slice(start // MX_BLOCK, (start + depth) // MX_BLOCK)
            if start + depth >= k:
                blocks = slice(start // MX_BLOCK, None)
            c = self.matmul(a[:, inside], a_scale[:, blocks], weight.q[inside], weight.scale[blocks])
            total = c if total is None else total + c
        assert total is not None
        return total

    def exact(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        return exact_gemm(problem, operands)

    def _bound(self, problem: GemmShape, operands: Mapping[str, np.ndarray], y64: np.ndarray, lost: np.ndarray,
               kept: np.ndarray, passes: int) -> np.ndarray:
        """``lost`` bounds |x - x_hat| and ``kept`` sum |components|, float64 [m, k]; both are carried through |w|, and
        ``kept`` meets one rounding per block and one per further pass."""
        weight = logical_weight(problem, operands)
        blocks = block_count(problem.k)
        m = problem.m
        both = magnitude_gemm(np.concatenate([lost, kept]), weight)
        error = both[:m] + gamma(blocks + passes + passes * (self.k_parts - 1)) * both[m:] + passes * (blocks + 1) * ETA32
        return with_output(error * SECOND_ORDER + float64_slack(problem.k, both[m:] + both[:m]), y64, problem.out)


@dataclass(frozen=True)
class MsdMxGemm(_MxGemm):
    """MXFP4 components times MXFP4 weights."""

    spec: MsdSpec = MSD_MXFP4

    def with_passes(self, passes: int) -> MsdMxGemm:
        """The same contract with another number of passes."""
        return replace(self, spec=self.spec.with_passes(passes))

    def for_tiling(self, tiling: Mapping[str, int]) -> MsdMxGemm:
        """The contract with the number of passes and the parts of K of a kernel."""
        return super().for_tiling(tiling).with_passes(tiling.get("passes", self.spec.passes))

    def reference(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> Arrays:
        weight = logical_weight(problem, operands)
        parts = decompose(operands["x"], self.spec)
        result: Arrays = {}
        total = None
        for i, (a, scale) in enumerate(zip(parts.components, parts.block_scales, strict=True)):
            c = self._product(a, scale, weight)
            total = c if total is None else total + c
            result[f"a{i + 1}"], result[f"a{i + 1}_scale"] = a, scale
        assert total is not None
        return {"y": round_to(total, problem.out), "y32": total, **result}

    def bound(self, problem: GemmShape, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """Representation alpha / 8^n per element.  |a_i| s_i <= |r_(i-1)| + |r_i|, so the components sum to at most
        |x| + 2 (alpha/8 + alpha/64 + ...) <= |x| + 0.3 alpha."""
        x = operands["x"].astype(np.float64)
        lost = error_bound(x, self.spec)
        kept = np.abs(x) + 0.3 * lost * 8.0**self.spec.passes
        return self._bound(problem, operands, y64, lost, kept, self.spec.passes)


@dataclass(frozen=True)
class OnePassMxGemm(_MxGemm):
    """Activations in MX blocks of ``element`` times MX weights."""

    scale_rule: str = "rceil"
    element: NumberFormat = FP8_E4M3FN

    def reference(self, problem: GemmShape, operands: Mapping[str, np.ndarray]) -> Arrays:
        weight = logical_weight(problem, operands)
        given = "x_scale" in operands
        a, scale = ((operands["x"], operands["x_scale"]) if given
                    else quantize_mx(operands["x"], self.element, self.scale_rule))
        y32 = self._product(a, scale, weight)
        return {"y": round_to(y32, problem.out), "y32": y32} | ({} if given else {"a1": a, "a1_scale": scale})

    def bound(self, problem: GemmShape, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """Representation, unless x is given: half a unit in the last place (E4M3 2^-4 |x|, E2M1 2^-2 |x|), or half the smallest
        subnormal times the scale."""
        if "x_scale" in operands:
            x = np.abs(activations(operands))
            return self._bound(problem, operands, y64, np.zeros_like(x), x, 1)
        if self.scale_rule == "ocp-floor":
            raise ProblemError("scale rule 'ocp-floor' saturates and has no such bound; use rceil or alpha")
        x = np.abs(operands["x"].astype(np.float64))
        exponent = scale_exponent(block_max(x), self.element, self.scale_rule)
        smallest = expand(np.ldexp(self.element.smallest_subnormal / 2, exponent), problem.k)
        lost = np.maximum(self.element.unit_roundoff * x, np.where(x > 0, smallest, 0.0))
        return self._bound(problem, operands, y64, lost, x + lost, 1)


register(MsdMxGemm("msd-mxfp4", SCHEMES["msd-mxfp4"].description, "gemm", spec=SCHEMES["msd-mxfp4"].spec))
for _scheme in SCHEMES.values():
    if _scheme.mx and _scheme.spec.passes == 1:
        register(OnePassMxGemm(_scheme.name, _scheme.description, "gemm", weights=_scheme.weight_name,
                               scale_rule=_scheme.spec.scale_rule, element=_scheme.spec.format))
