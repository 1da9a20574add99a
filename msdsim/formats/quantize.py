"""Weight quantizers: int8 and int4 per channel or per group along k, with or without an offset, MXFP4 and MXFP8.

Convention of the vendor's operators: weight value = (q + offset) * scale, with ``scale`` (and ``offset``) float32 [n]
per channel, or [ceil(k/group), n] per group.  A group that does not divide k is allowed: the last group is shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdsim.errors import ArrayError
from msdsim.formats.checks import require_finite, require_not_empty
from msdsim.formats.mx import MX_ELEMENTS, dequantize_mx, quantize_mx
from msdsim.formats.number import E8M0, FORMATS

_ROWS_AT_ONCE = 256  # rows of w handled at a time, so that temporaries stay in cache


def group_count(k: int, group: int | None) -> int:
    """Scales along k: ceil(k / group), or 1 per channel."""
    return 1 if group is None else -(-k // group)


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight matrix [k, n]: ``q`` int8 [k, n], or fp4 or fp8 with E8M0 ``scale`` [ceil(k/32), n]."""

    q: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None = None
    group: int | None = None

    def values(self) -> np.ndarray:
        """Exact weight values (float64 [k, n])."""
        if self.scale.dtype == E8M0.dtype:
            return dequantize_mx(self.q, self.scale, axis=0)
        result = self.q.astype(np.float64)
        if self.offset is not None:
            result += rows(self.offset.astype(np.float64), self.q.shape[0], self.group)
        return result * rows(self.scale.astype(np.float64), self.q.shape[0], self.group)


def rows(per_group: np.ndarray, k: int, group: int | None) -> np.ndarray:
    """Expand [n] or [groups, n] to something that broadcasts against [k, n]."""
    if per_group.ndim == 1:
        return per_group[None, :]
    assert group is not None
    return np.repeat(per_group, group, axis=0)[:k]


def quantize_weight(w: np.ndarray, fmt: str, group: int | None = None, offset: bool = False,
                    name: str = "w", rule: str = "ocp-floor") -> QuantizedWeight:
    """Quantize float ``w`` [k, n] to ``fmt`` (``int8``, ``int4``, ``mxfp4`` or ``mxfp8``).

    Symmetric: scale = max|w| / qmax (127 or 7), q = rint(w / scale), so that the error is at most scale/2.  With an
    offset: scale = (max - min) / (2^bits - 1), offset an integer, q in the whole two's complement range.  MX takes
    neither group nor offset: its blocks are 32 along k and its scales follow ``rule`` of :mod:`msdsim.formats.mx`.
    """
    w = np.asarray(w)
    if w.ndim != 2:
        raise ArrayError(f"{name} has {w.ndim} dimensions, a weight has two: [k, n]")
    require_not_empty(w, name)
    w = w.astype(np.float32, copy=False)
    require_finite(w, name)
    if fmt in MX_ELEMENTS:
        if group is not None or offset:
            raise ArrayError(f"{name}: {fmt} has its own blocks of 32 and no offset; leave out group and offset")
        return QuantizedWeight(*quantize_mx(w, FORMATS[MX_ELEMENTS[fmt]], rule, axis=0, name=name))
    number = FORMATS[fmt]
    k = w.shape[0]
    starts = np.arange(0, k, group or k)
    if offset:
        scale, shift = _asymmetric(w, starts, number.bits)
    else:
        scale, shift = _symmetric(w, starts, number.max_value), None
    q = np.empty(w.shape, np.int8)
    for start in range(0, k, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, k)
        which = np.arange(start, stop) // (group or k)
        which = which[:1] if which[0] == which[-1] else which
        block = w[start:stop] / scale[which]
        if shift is not None:
            block -= shift[which]
        np.rint(block, out=block)
        q[start:stop] = np.clip(block, number.min_value, number.max_value, out=block)
    if group is None:
        scale, shift = scale[0], None if shift is None else shift[0]
    return QuantizedWeight(q, scale, shift, group)


def _extremes(w: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest weight of each group and column, [groups, n]."""
    groups = np.split(w, starts[1:])
    return np.stack([g.max(axis=0) for g in groups]), np.stack([g.min(axis=0) for g in groups])


def _symmetric(w: np.ndarray, starts: np.ndarray, limit: float) -> np.ndarray:
    high, low = _extremes(w, starts)
    return _usable(np.maximum(np.abs(high), np.abs(low)) / np.float32(limit))


def _asymmetric(w: np.ndarray, starts: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    high, low = _extremes(w, starts)
    steps = np.float32(2**bits - 1)
    with np.errstate(over="ignore"):
        span = (high - low) / steps
    # A column may span more than FP32 holds.
    span = np.where(np.isfinite(span), span, high / steps - low / steps)
    # A constant column has no span: its value is the scale, q is 0 and the offset 1 or -1.  The lowest code with an offset of
    # 129 would be the same value, but its products cancel only where nothing is rounded.
    constant = span <= 0
    scale = _usable(np.where(constant, np.abs(high), span))
    return scale, np.where(constant, np.sign(high), np.rint(low / scale) + np.float32(2 ** (bits - 1)))


def _usable(scale: np.ndarray) -> np.ndarray:
    """A column of zeros gets scale 1 (any scale serves); scales stay normal numbers, so that 1/scale is finite."""
    return np.where(scale > 0, np.maximum(scale, np.finfo(np.float32).tiny), 1).astype(np.float32)
