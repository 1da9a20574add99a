"""A-priori error bound of one head of attention, for operands whose products stay in the normal range of float32.

1. Logits: |s^ - s| <= E, from the representation of Q and K and the fp32 roundings of the product.
2. Weights: an error E in the exponent, the rounding of logits - m (u times the range of the logits, at most 110: beyond
   that a weight vanishes), of exp, and of alpha and its product once per tile move every unnormalised weight by a
   factor within 1 +- eps, 1 + eps = exp(E + 4 u range + (3 tiles + 6) u); the merge of split columns rounds one more
   difference of maxima, and one exp, one product and one sum per part.  The sum l adds its own gamma.
3. Output: sum of weights |v| times what P and V lose relatively, plus what P loses absolutely (its pass bound), and the
   quotient: |y^ - y| <= (numerator error + |y| eps_l) / (1 - eps_l).

That grows beyond all bounds as eps_l comes to 1, which coarse formats reach.  But a weight has the same factor f_j, between 1/F
and F = 1 + eps, in the numerator and in the denominator, so that the result without its other errors is an average A of v:

4. A - y = sum p_j (f_j - c) (v_j - y) / sum p_j f_j for any c: |A - y| <= (F^2 - 1) / 2 * sum p_j |v_j - y|, and the sum is at
   most the root of sum p_j v_j^2 - y^2.  The weights of A and of y differ by at most (F - 1) / (F + 1) in all, one way, so that
   |A - y| is at most that share of the range of v.  With what P, V and l lose by themselves,
   |y^ - y| <= (|A - y| + relative * average |v| + F^2 absolute + |y| gamma_l) / (1 - gamma_l).

Either holds; the smaller one counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdsim.formats.msd import MsdSpec, error_bound
from msdsim.formats.number import BF16
from msdsim.numerics.bounds import SECOND_ORDER, U32, float64_slack, gamma, with_output

_NEGLIGIBLE = 2.0**-100  # underflow: far below any term that matters, far above what it stands for
_LARGEST = 2.0**20  # of the relative error of a weight that is reckoned with: what it multiplies stays far from underflow
_RANGE = 110.0  # exp(-110) is below half the smallest float32


@dataclass(frozen=True)
class HeadBound:
    """One head: stored operands, exact cache values (float64 [kv, head_dim] and [kv, v_dim]), scales, mask, what the softmax is
    scaled by (the square root of ``softmax_dim``), choices."""

    q: np.ndarray
    k: np.ndarray
    k_values: np.ndarray
    v: np.ndarray
    v_values: np.ndarray
    k_scale: np.ndarray | None
    v_scale: np.ndarray | None
    visible: np.ndarray
    softmax_dim: int
    per_channel: bool
    cache: str
    spec: MsdSpec | None
    converted: bool
    kv_tile: int
    kv_splits: int = 1

    @property
    def tiles(self) -> int:
        """KV tiles, and twice the parts of a split KV length: a merge rounds at most as often as two more tiles."""
        return -(-self.k.shape[0] // self.kv_tile) + (2 * self.kv_splits if self.kv_splits > 1 else 0)


def head_bound(h: HeadBound, y64: np.ndarray) -> np.ndarray:
    """Bound of |y - y64| [rows, v_dim]."""
    kv, dim = h.k_values.shape
    tiles = h.tiles
    logits = h.q.astype(np.float64) @ h.k_values.T / np.sqrt(h.softmax_dim)
    logits = np.where(h.visible, logits, -np.inf)
    top = logits.max(axis=1, keepdims=True)
    p = np.exp(logits - top)
    total = p.sum(axis=1, keepdims=True)
    p = p / total
    e = np.where(h.visible, logits_error(h), 0).max(axis=1, keepdims=True)
    span = np.minimum(top - np.min(np.where(h.visible, logits, np.inf), axis=1, keepdims=True) + 2 * e, _RANGE)
    eps = np.expm1(e + (4 if h.kv_splits == 1 else 5) * U32 * span + (3 * tiles + 6) * U32)
    gamma_l = gamma(min(h.kv_tile, kv) // 64 + 7 + 2 * tiles)
    eps_l = (1 + eps) * (1 + gamma_l) - 1
    relative, absolute, most = output_error(h, p, total)
    kept = p @ np.abs(h.v_values)
    numerator = ((1 + eps) * (1 + relative) - 1) * kept + (1 + eps) * absolute + kv * _NEGLIGIBLE
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (numerator + np.abs(y64) * eps_l) / (1 - eps_l) * (1 + 4 * U32) + 4 * U32 * np.abs(y64)
    error = np.where(eps_l < 1, error * SECOND_ORDER, np.inf)
    error = np.minimum(error, average_error(h, p, y64, eps, gamma_l, relative, absolute, most, kept) * SECOND_ORDER)
    return with_output(error + float64_slack(kv + dim + 64, kept), y64)


def average_error(h: HeadBound, p: np.ndarray, y64: np.ndarray, eps: np.ndarray, gamma_l: float, relative: float,
                  absolute: np.ndarray, most: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Point 4 above [rows, v_dim]; ``kept`` is sum p |v|, ``most`` what P loses absolutely whatever its weights."""
    kv = h.v_values.shape[0]
    factor = 1 + np.minimum(eps, _LARGEST)
    low, high = h.v_values.min(axis=0), h.v_values.max(axis=0)
    squares = p @ h.v_values**2
    spread = np.sqrt(np.maximum(squares - y64**2, 0) + 2 * float64_slack(kv + 64, squares))
    moved = np.minimum((factor**2 - 1) / 2 * spread, (factor - 1) / (factor + 1) * (high - low))
    # An average is in the range of v even where the factors are beyond reason.
    moved = np.where(eps > _LARGEST, high - low, moved)
    average = np.minimum(factor**2 * kept, np.abs(h.v_values).max(axis=0))
    lost = relative * average + np.minimum(factor**2 * absolute, most) + kv * _NEGLIGIBLE * factor**2
    return (moved + lost + np.abs(y64) * gamma_l) / (1 - gamma_l) * (1 + 4 * U32) + 4 * U32 * np.abs(y64)


def logits_error(h: HeadBound) -> np.ndarray:
    """E [rows, kv]."""
    dim = h.k_values.shape[1]
    q, k = np.abs(h.q.astype(np.float64)), np.abs(h.k_values)
    if h.spec is None:
        # Scales of channels in Q are rounded as those in the cache are.
        relative = (1 + _scale_error(h, rounded=h.per_channel)) * (1 + gamma(dim + 4)) - 1
        error = relative * (q @ k.T)
    elif h.spec.scheme == "mx":
        lost = error_bound(h.q, h.spec)
        kept = q + 0.3 * lost * 8.0**h.spec.passes
        error = lost @ k.T + gamma(-(-dim // 32) + h.spec.passes + 4) * (kept @ k.T)
    else:
        assert h.k_scale is not None
        passes, scale = h.spec.passes, h.k_scale.astype(np.float64)
        folded = q * scale if h.per_channel else q
        integers = np.abs(h.k.astype(np.float64)).sum(axis=1)
        integers = integers if h.per_channel else integers * scale
        per_unit = h.spec.relative_bound() + 4 * passes * U32 + gamma(passes + 9) * sum(h.spec.pass_weights)
        error = 1.0001 * folded.max(axis=1, keepdims=True) * per_unit * integers + 2 * U32 * (q @ k.T)
    return error / np.sqrt(h.softmax_dim) + _NEGLIGIBLE + float64_slack(dim, q @ k.T)


def output_error(h: HeadBound, p: np.ndarray, total: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """What P and V lose: relative to sum p |v|, and absolutely ([rows, v_dim]); ``p`` is normalised by ``total``.

    Last, the absolute loss for any weights that are not negative and whose largest is 1: a sum over them is at least 1, and
    the maxima of their blocks are together at most that sum.
    """
    kv = h.v_values.shape[0]
    depth, tiles = min(h.kv_tile, kv), h.tiles
    v = np.abs(h.v_values)
    if h.spec is None:
        relative = (1 + _scale_error(h, rounded=False)) * (1 + BF16.unit_roundoff) * (1 + gamma(depth + 3 * tiles)) - 1
        return relative, np.zeros((p.shape[0], 1)), np.zeros((1, 1))
    passes, bound = h.spec.passes, h.spec.relative_bound()
    if h.spec.scheme == "mx":
        starts = np.arange(0, kv, 32)
        alpha = 2 * np.maximum.reduceat(p, starts, axis=1)
        of_blocks = np.add.reduceat(v, starts, axis=0)
        lost = alpha @ of_blocks
        arithmetic = gamma(-(-depth // 32) + passes + 3 * tiles)
        # P is rounded to bf16 before it is split.
        narrow = 1 + BF16.unit_roundoff
        share = (bound + 0.3 * arithmetic) * narrow
        return (1 + arithmetic) * narrow - 1, share * lost, share * 2 * narrow * of_blocks.max(axis=0, keepdims=True)
    assert h.v_scale is not None
    arithmetic = gamma(passes + 10 + 3 * tiles) * sum(h.spec.pass_weights)
    per_unit = bound + 4 * passes * U32 + 2 * arithmetic
    if h.per_channel:
        of_all = v.sum(axis=0, keepdims=True)
        return arithmetic, per_unit * of_all / total, per_unit * of_all
    scale, integers = h.v_scale.astype(np.float64), np.abs(h.v.astype(np.float64)).sum(axis=0, keepdims=True)
    return arithmetic, per_unit * (p * scale).max(axis=1, keepdims=True) * integers, per_unit * scale.max() * integers


def _scale_error(h: HeadBound, rounded: bool) -> float:
    """Relative error of one fp32 product with a scale, and of the rounding to bf16 that follows it: always where the cache
    itself is scaled, where the scales go elsewhere if it is ``rounded``."""
    if h.cache == "bf16":
        return 0.0
    return (1 + BF16.unit_roundoff * (rounded or not h.converted)) * (1 + U32) - 1
