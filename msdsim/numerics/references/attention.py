"""Attention contracts: online softmax in fp32 over KV tiles in ascending order; the tile size is part of the contract.

Per head, with logits [rows, kv] (below) and tiles t of ``kv_tile`` columns; fp32, one rounding per operation:

    m' = max(m, row max of the tile) ; alpha = exp(m - m') ; p = exp(logits - m')      (m starts at the lowest fp32)
    l = l * alpha + rowsum(p) (64 lanes) ; acc = acc * alpha + PV(p, tile)                (l and acc start at 0)
    y = bf16(acc / l), per channel, msd-int* and convert-*: y = bf16((acc / l) * v_scale[d])

With S = kv_splits > 1, part s holds the tiles [s T / S], ..., [(s + 1) T / S] - 1 of T; each part starts anew, and

    m = max m_s ; w_s = exp(m_s - m) ; l = l_0 w_0 + l_1 w_1 + ... ; acc likewise        (fp32, parts in ascending order)

With c = fl32(1 / sqrt(scale_dim)) (head_dim unless the problem says otherwise), exp correctly rounded, masked logits -inf, and
n passes of the decomposition:

bf16, dequant-*   logits = (q @ k^T) * c ; PV = bf16(p) @ v: bf16 products, fp32 sums over ascending head_dim
                  and kv, from 0 in each tile.
                  dequant: k and v are bf16(fp32(int) * scale).
convert-*         bf16 products as above of the integers of k and v themselves, which bf16 holds exactly.
                  per channel: q' = bf16(fp32(q) * k_scale[d]) in the place of q (exact where the scales are powers of two).
                  per token: logits = ((q @ k^T) * c) * k_scale[j] ; PV = bf16(p * v_scale[j]) @ v.
msd-int8, -int4   per channel: q' = fp32(q) * k_scale[d] is decomposed; logits = t * fl32(row_scale * c), t merging the
                  passes as in GEMM.  PV: p has the fixed row maximum 1 (no reduction); PV = t * fl32(1 / f).
                  per token: q is decomposed; logits = (t * fl32(row_scale * c)) * k_scale[j].
                  PV: p * v_scale[j] is decomposed with its row maximum in the tile; PV = t * row_scale.
msd-mxfp4         q and bf16(p) decomposed in MX blocks along head_dim and kv; logits = (C1 + C2 + ...) * c ;
                  PV = C1 + C2 + ...   (p in bf16 because Vector makes E2M1 from nothing wider)

int8 takes two passes, int4 four (as the vendor does), mxfp4 two.

With shared_kv, v is k[:, :v_dim] as it is stored, and v_scale is k_scale: its first v_dim channels, or the same tokens.  An
mxfp4 cache cannot be shared, since the blocks of k run along head_dim and those of v along kv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from msdsim.errors import ArrayError, InputError
from msdsim.formats.checks import first_index
from msdsim.formats.msd import MSD_INT4, MSD_INT8, MSD_MXFP4, MsdSpec
from msdsim.formats.number import BF16
from msdsim.formats.rounding import round_to
from msdsim.numerics import vector
from msdsim.numerics.attention_operands import attention_operands, exact_cache
from msdsim.numerics.contract import Arrays, Contract, Seed, register
from msdsim.numerics.references.attention_bound import HeadBound, head_bound
from msdsim.numerics.references.attention_products import CONVERTED, FLOAT, INTEGER, MX, Head, heads_of
from msdsim.numerics.references.reduce import row_sum
from msdsim.problems.shapes import AttentionShape

KV_TILE = 512
#: Where the running maximum starts.  It is finite so that a part of the columns in which a row sees nothing is worth 0.
LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class _State:
    """The online softmax after some columns: running maximum and sum [rows, 1], accumulator [rows, v_dim]."""

    top: np.ndarray
    total: np.ndarray
    acc: np.ndarray


def online_softmax(logits: np.ndarray, tile: int, pv: Callable[[np.ndarray, slice], np.ndarray],
                   splits: int = 1) -> np.ndarray:
    """acc / l in float32 [rows, v_dim] as the module says; ``pv(p, columns)`` multiplies a tile with V."""
    columns = [slice(start, start + tile) for start in range(0, logits.shape[1], tile)]
    ends = [split * len(columns) // splits for split in range(splits + 1)]
    states = [_columns_softmax(logits, columns[low:high], pv) for low, high in pairwise(ends) if high > low]
    if len(states) == 1:
        return states[0].acc / states[0].total
    top = np.max([state.top for state in states], axis=0)
    weights = [vector.exp(state.top - top) for state in states]
    total, acc = states[0].total * weights[0], states[0].acc * weights[0]
    for state, weight in zip(states[1:], weights[1:], strict=True):
        total = total + state.total * weight
        acc = acc + state.acc * weight
    return acc / total


def _columns_softmax(logits: np.ndarray, columns: list[slice], pv: Callable[[np.ndarray, slice], np.ndarray]) -> _State:
    tops = np.maximum.accumulate(np.stack([logits[:, c].max(axis=1) for c in columns]), axis=0)
    tops = np.maximum(tops, LOWEST)
    before = np.full(logits.shape[0], LOWEST, np.float32)
    total, acc = np.zeros((logits.shape[0], 1), np.float32), None
    for c, top in zip(columns, tops, strict=True):
        alpha = vector.exp(before - top)[:, None]
        p = vector.exp(logits[:, c] - top[:, None])
        total = total * alpha + row_sum(p)[:, None]
        product = pv(p, c)
        acc = (np.zeros_like(product) if acc is None else acc) * alpha + product
        before = top
    assert acc is not None
    return _State(before[:, None], total, acc)


def _require_finite(logits: np.ndarray, head: Head, problem: AttentionShape) -> None:
    """Refuse logits beyond FP32: a softmax of infinities is no number, in no dataflow."""
    bad = ~np.isfinite(logits) & head.visible
    if bad.any():
        row, token = first_index(bad)
        query_head = head.index * (problem.heads // problem.kv_heads) + row // problem.q
        raise ArrayError(f"the logits overflow FP32 at batch {head.batch}, head {query_head}, query {row % problem.q}, token "
                         f"{token}: q times k there is beyond {np.finfo(np.float32).max:.2g}; scale q or k down")


@dataclass(frozen=True)
class AttentionContract(Contract):
    """Attention with the KV cache in ``cache``; ``spec`` decomposes Q and P, or is None for bf16 products.  ``converted``: the
    products are of the cache's integers, and its scales go elsewhere."""

    cache: str = "bf16"
    spec: MsdSpec | None = None
    converted: bool = False
    kv_tile: int = KV_TILE
    kv_splits: int = 1

    def with_passes(self, passes: int) -> AttentionContract:
        """The same contract with another number of passes."""
        return self if self.spec is None else replace(self, spec=self.spec.with_passes(passes))

    def with_kv_tile(self, kv_tile: int) -> AttentionContract:
        """The same contract with another KV tile (a multiple of 32 for MXFP4, whose blocks run along kv)."""
        step = 32 if self.cache == "mxfp4" else 1
        if kv_tile < 1 or kv_tile % step:
            raise InputError(f"kv_tile={kv_tile} is not a multiple of {step}; give one of at least {step}")
        return replace(self, kv_tile=kv_tile)

    def with_kv_splits(self, kv_splits: int) -> AttentionContract:
        """The same contract with the KV length in parts that are merged at the end."""
        if kv_splits < 1:
            raise InputError(f"kv_splits={kv_splits} is below 1; give the number of parts of the KV length")
        return replace(self, kv_splits=kv_splits)

    def for_tiling(self, tiling: Mapping[str, int]) -> AttentionContract:
        """The contract with the KV tile and the number of parts of a kernel."""
        tiled = self.with_kv_tile(tiling["kv_tile"]) if "kv_tile" in tiling else self
        return tiled.with_kv_splits(tiling["kv_splits"]) if "kv_splits" in tiling else tiled

    def operands(self, problem: AttentionShape, inputs: Mapping[str, np.ndarray] | None = None,
                 seed: Seed = 0) -> Arrays:
        return attention_operands(problem, inputs, seed, self.cache)

    def reference(self, problem: AttentionShape, operands: Mapping[str, np.ndarray]) -> Arrays:
        y = np.empty((problem.batch, problem.kv_heads, problem.heads // problem.kv_heads, problem.q, problem.value_dim),
                     np.float32)
        c = np.float32(1 / np.sqrt(problem.softmax_dim))
        per_channel = problem.scales == "channel"
        for head in heads_of(problem, operands):
            plain = CONVERTED if self.converted else FLOAT
            method = plain if self.spec is None else MX if self.spec.scheme == "mx" else INTEGER
            with np.errstate(under="ignore", over="ignore"):
                logits = method.logits(head, self.spec, c, per_channel)
                _require_finite(logits, head, problem)
                logits = np.where(head.visible, logits, np.float32(-np.inf))
                values = method.values(head, self.spec, per_channel)
                out = online_softmax(logits, self.kv_tile, values, self.kv_splits)
                if per_channel and method in (INTEGER, CONVERTED):
                    out = out * head.v_scale
            y[head.batch, head.index] = out.reshape(y.shape[2:])
        y32 = y.reshape(problem.batch, problem.heads, problem.q, problem.value_dim)
        return {"y": round_to(y32, BF16), "y32": y32}

    def exact(self, problem: AttentionShape, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        k, v = exact_cache(problem, operands)
        y = np.empty((problem.batch, problem.kv_heads, problem.heads // problem.kv_heads, problem.q, problem.value_dim))
        for head in heads_of(problem, operands):
            logits = head.q.astype(np.float64) @ k[head.batch, head.index].T / np.sqrt(problem.softmax_dim)
            logits = np.where(head.visible, logits, -np.inf)
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            out = p @ v[head.batch, head.index] / p.sum(axis=1, keepdims=True)
            y[head.batch, head.index] = out.reshape(y.shape[2:])
        return y.reshape(problem.batch, problem.heads, problem.q, problem.value_dim)

    def bound(self, problem: AttentionShape, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        """See :mod:`msdsim.numerics.references.attention_bound`."""
        k, v = exact_cache(problem, operands)
        grouped = y64.reshape(problem.batch, problem.kv_heads, -1, problem.value_dim)
        result = np.empty_like(grouped)
        for head in heads_of(problem, operands):
            at = (head.batch, head.index)
            case = HeadBound(head.q, head.k, k[at], head.v, v[at], head.k_scale, head.v_scale, head.visible,
                             problem.softmax_dim, problem.scales == "channel", self.cache, self.spec, self.converted,
                             self.kv_tile, self.kv_splits)
            result[at] = head_bound(case, grouped[at])
        return result.reshape(y64.shape)


register(AttentionContract("bf16", "bf16 KV cache, bf16 products", "attention"))
for _cache in ("int8", "int4"):
    register(AttentionContract(f"dequant-{_cache}", f"{_cache} KV cache made bf16 on Vector, then bf16 products",
                               "attention", _cache))
    register(AttentionContract(f"convert-{_cache}", f"{_cache} KV cache only made bf16 on Vector (exact), then bf16 products",
                               "attention", _cache, converted=True))
for _cache, _spec, _text in (("int8", MSD_INT8, "two int8 components"), ("int4", MSD_INT4.with_passes(4),
                             "four int4 components"), ("mxfp4", MSD_MXFP4, "two MXFP4 components")):
    register(AttentionContract(f"msd-{_cache}", f"{_text} of Q and P times the {_cache} KV cache", "attention", _cache,
                               _spec))
