"""The two matmuls of attention on whole heads: bf16, integer or MX products of one KV head.

Each class gives ``logits`` [rows, kv] float32 and, through ``values``, a function that multiplies the softmax weights
of one tile with V.  The order of operations is that of :mod:`msdsim.numerics.references.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from msdsim.formats.msd import MsdSpec, decompose, decompose_unit
from msdsim.formats.number import BF16
from msdsim.formats.rounding import round_to
from msdsim.numerics.attention_operands import values_of
from msdsim.numerics.references.matmul import matmul_float, matmul_int, matmul_mx
from msdsim.problems.shapes import AttentionShape

Values = Callable[[np.ndarray, slice], np.ndarray]


@dataclass(frozen=True)
class Head:
    """One KV head of one batch: the query rows it serves, and its slice of the cache and of the scales."""

    batch: int
    index: int
    q: np.ndarray  # [rows, head_dim] bf16, rows = query heads of the group times q
    k: np.ndarray  # [kv, head_dim]
    v: np.ndarray  # [kv, v_dim]
    k_scale: np.ndarray | None
    v_scale: np.ndarray | None
    visible: np.ndarray  # [rows, kv] or [1, 1] when nothing is masked


def heads_of(problem: AttentionShape, operands: Mapping[str, np.ndarray]) -> Iterator[Head]:
    """The heads of a problem, batch outermost."""
    visible = np.ones((1, 1), bool)
    v, v_scales = values_of(problem, operands)
    group = problem.heads // problem.kv_heads
    if problem.causal:
        last = np.tile(np.arange(problem.q), group) + problem.kv - problem.q
        visible = np.arange(problem.kv) <= last[:, None]
    for b in range(problem.batch):
        for h in range(problem.kv_heads):
            q = operands["q"][b, h * group : (h + 1) * group].reshape(-1, problem.head_dim)
            k_scale, v_scale = (_head_scale(scale, b, h) for scale in (operands.get("k_scale"), v_scales))
            yield Head(b, h, q, operands["k"][b, h], v[b, h], k_scale, v_scale, visible)


def _head_scale(scale: np.ndarray | None, b: int, h: int) -> np.ndarray | None:
    if scale is None:
        return None
    return scale[h] if scale.ndim == 2 else scale[b, h]


class FloatProducts:
    """bf16 products; the cache is bf16, or is made bf16 by one fp32 product and one rounding."""

    def _bf16(self, array: np.ndarray, scale: np.ndarray | None, per_channel: bool) -> np.ndarray:
        if scale is None:
            return array
        return round_to(array.astype(np.float32) * (scale if per_channel else scale[:, None]), BF16)

    def logits(self, head: Head, spec: MsdSpec | None, c: np.float32, per_channel: bool) -> np.ndarray:
        k = self._bf16(head.k, head.k_scale, per_channel)
        return matmul_float(head.q, k.T) * c

    def values(self, head: Head, spec: MsdSpec | None, per_channel: bool) -> Values:
        v = self._bf16(head.v, head.v_scale, per_channel)
        return lambda p, columns: matmul_float(round_to(p, BF16), v[columns])


class ConvertedProducts:
    """bf16 products of the integers of the cache, which bf16 holds; the scales meet Q or the logits, and P or the output."""

    def logits(self, head: Head, spec: MsdSpec | None, c: np.float32, per_channel: bool) -> np.ndarray:
        assert head.k_scale is not None
        q = round_to(head.q.astype(np.float32) * head.k_scale, BF16) if per_channel else head.q
        logits = matmul_float(q, head.k.T) * c
        return logits if per_channel else logits * head.k_scale

    def values(self, head: Head, spec: MsdSpec | None, per_channel: bool) -> Values:
        assert head.v_scale is not None
        v_scale = head.v_scale

        def pv(p: np.ndarray, columns: slice) -> np.ndarray:
            return matmul_float(round_to(p if per_channel else p * v_scale[columns], BF16), head.v[columns])

        return pv


class IntegerProducts:
    """Integer components times an integer cache."""

    @staticmethod
    def _merged(components: tuple[np.ndarray, ...], b: np.ndarray, spec: MsdSpec) -> np.ndarray:
        total = None
        for a, weight in zip(components, spec.pass_weights, strict=True):
            term = matmul_int(a, b).astype(np.float32) * np.float32(weight)
            total = term if total is None else total + term
        assert total is not None
        return total

    def logits(self, head: Head, spec: MsdSpec | None, c: np.float32, per_channel: bool) -> np.ndarray:
        assert spec is not None
        assert head.k_scale is not None
        q = head.q.astype(np.float32)
        if per_channel:
            q = q * head.k_scale
            beyond = ~np.isfinite(q).all(axis=1, keepdims=True)
            if beyond.any():
                # What cannot be decomposed has no logits; who asked for them says where.
                return np.broadcast_to(np.where(beyond, np.float32(np.nan), np.float32(0)), (len(q), len(head.k)))
        parts = decompose(q, spec, "q")
        assert parts.row_scale is not None
        t = self._merged(parts.components, head.k.T, spec) * (parts.row_scale * c)[:, None]
        return t if per_channel else t * head.k_scale

    def values(self, head: Head, spec: MsdSpec | None, per_channel: bool) -> Values:
        assert spec is not None
        assert head.v_scale is not None
        v_scale, factor = head.v_scale, np.float32(1 / spec.first_factor)

        def pv(p: np.ndarray, columns: slice) -> np.ndarray:
            if per_channel:
                return self._merged(decompose_unit(p, spec).components, head.v[columns], spec) * factor
            parts = decompose(p * v_scale[columns], spec, "p")
            assert parts.row_scale is not None
            return self._merged(parts.components, head.v[columns], spec) * parts.row_scale[:, None]

        return pv


class MxProducts:
    """MX components times an MXFP4 cache."""

    @staticmethod
    def _merged(x: np.ndarray, b: np.ndarray, b_scale: np.ndarray, spec: MsdSpec) -> np.ndarray:
        parts, total = decompose(x, spec), None
        for a, scale in zip(parts.components, parts.block_scales, strict=True):
            term = matmul_mx(a, scale, b, b_scale)
            total = term if total is None else total + term
        assert total is not None
        return total

    def logits(self, head: Head, spec: MsdSpec | None, c: np.float32, per_channel: bool) -> np.ndarray:
        assert spec is not None
        assert head.k_scale is not None
        return self._merged(head.q, head.k.T, head.k_scale.T, spec) * c

    def values(self, head: Head, spec: MsdSpec | None, per_channel: bool) -> Values:
        assert spec is not None
        assert head.v_scale is not None
        v_scale = head.v_scale

        def pv(p: np.ndarray, columns: slice) -> np.ndarray:
            blocks = slice(columns.start // 32, -(-columns.stop // 32))
            return self._merged(round_to(p, BF16), head.v[columns], v_scale[blocks], spec)

        return pv


FLOAT, CONVERTED, INTEGER, MX = FloatProducts(), ConvertedProducts(), IntegerProducts(), MxProducts()
