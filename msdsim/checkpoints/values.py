"""Values in float32 of weights that are stored as codes and scales, in one rounding each.

Everything works on pieces that stay in cache and writes each value once, along the axis that the codes lie on in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msdsim.checkpoints.bits import PIECE_BYTES

#: FP32 holds whole numbers up to here, so that a code with its offset is exact.
_EXACT = 2**23


@dataclass(frozen=True)
class ScaledCodes:
    """FP8 ``codes`` [experts, n, k] times ``scale`` [experts or 1, rows of blocks, blocks] of ``block`` = (rows, columns)."""

    codes: np.ndarray
    scale: np.ndarray
    block: tuple[int, int]

    @cached_property
    def values(self) -> np.ndarray:
        """float32 [experts, n, k]; NaN and infinities of the codes stay what they are."""
        experts, n, k = self.codes.shape
        out, most = np.empty(self.codes.shape, np.float32), max(1, PIECE_BYTES // k)
        table = np.arange(256, dtype=np.uint8).view(self.codes.dtype).astype(np.float32)
        codes, found = self.codes.view(np.uint8), out
        if k % 2 == 0 and codes.size > table.size**2 and codes.flags.c_contiguous:
            # Two codes a look-up: half as many of them, which is what the time goes to.
            pairs = np.arange(table.size**2, dtype=np.uint16).view(np.uint8)
            codes, found, table = codes.view(np.uint16), out.view(np.uint64), table[pairs].view(np.uint64)
        for expert in range(experts):
            blocks = self.scale[expert if len(self.scale) > 1 else 0]
            start = 0
            while start < n:
                # A piece lies within one row of blocks, or has a row of scales for each of its own.
                rows = self.block[0]
                stop = min(start + most, n, n if rows == 1 else start - start % rows + rows)
                own = blocks[start:stop] if rows == 1 else blocks[start // rows][None]
                piece = out[expert, start:stop]
                np.take(table, codes[expert, start:stop], out=found[expert, start:stop], mode="clip")
                _scale(piece, own, self.block[1])
                start = stop
        return out


def _scale(values: np.ndarray, scale: np.ndarray, columns: int) -> None:
    """``values`` [rows, k] times ``scale`` [rows or 1, blocks of ``columns``], in place."""
    if scale.shape[1] == 1:
        values *= scale
    elif values.shape[1] % columns:
        values *= np.repeat(scale, columns, axis=1)[:, : values.shape[1]]
    else:
        parts = values.reshape(len(values), -1, columns)
        parts *= scale[:, :, None]


def integer_values(q: np.ndarray, scale: np.ndarray, offset: np.ndarray | None, group: int | None) -> np.ndarray:
    """float32 [k, n] of (``q`` + ``offset``) * ``scale``: int8 [k, n]; [n] or [ceil(k/group), n]."""
    k, n = q.shape
    rows = np.atleast_2d(scale).astype(np.float32, copy=False)
    plus = None if offset is None else np.atleast_2d(offset)
    size = k if len(rows) == 1 else group or k
    exact = plus is None or bool((np.rint(plus) == plus).all() and (np.abs(plus) < _EXACT).all())
    number = np.dtype(np.float32 if exact else np.float64)
    plus = None if plus is None else plus.astype(number)
    if not (q.flags.c_contiguous or q.T.flags.c_contiguous):
        q = np.ascontiguousarray(q)
    out = np.empty_like(q, np.float32)
    if q.flags.c_contiguous:
        step = max(1, PIECE_BYTES // max(1, n))
        for group_number, start in enumerate(range(0, k, size)):
            own, added = rows[group_number], None if plus is None else plus[group_number]
            for first in range(start, min(start + size, k), step):
                part = slice(first, min(first + step, start + size, k))
                _put(out[part], q[part], own, added, number)
        return out
    step = max(1, PIECE_BYTES // max(1, k))
    for first in range(0, n, step):
        part = slice(first, min(first + step, n))
        shape = (part.stop - first, k) if k % size else (part.stop - first, k // size, size)

        def along(per_group: np.ndarray, part: slice = part) -> np.ndarray:
            own = per_group.T[part]
            return np.repeat(own, size, axis=1)[:, :k] if k % size else own[:, :, None]

        _put(out.T[part].reshape(shape), q.T[part].reshape(shape), along(rows), None if plus is None else along(plus), number)
    return out


def _put(out: np.ndarray, q: np.ndarray, scale: np.ndarray, offset: np.ndarray | None, number: np.dtype) -> None:
    """``out`` = (q + offset) * scale; in FP64 where an offset is no whole number."""
    if number == np.float64:
        assert offset is not None
        out[...] = (q.astype(np.float64) + offset) * scale
        return
    np.copyto(out, q)
    if offset is not None:
        out += offset
    out *= scale


def mx_values(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 [k, n] of E2M1 elements [k, n] times E8M0 scales [ceil(k/32), n]."""
    k, n = q.shape
    table = np.arange(256, dtype=np.uint8).view(q.dtype).astype(np.float32)
    factors = np.ldexp(np.float32(1), scale.view(np.uint8).astype(np.int32) - 127).astype(np.float32)
    out = np.empty_like(q, np.float32)
    if q.flags.c_contiguous:
        for block in range(-(-k // 32)):
            part = slice(32 * block, min(32 * block + 32, k))
            np.take(table, q[part].view(np.uint8), out=out[part], mode="clip")
            out[part] *= factors[block]
        return out
    turned, step = out.T, max(1, PIECE_BYTES // max(1, k))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        np.take(table, q.T[rows].view(np.uint8), out=turned[rows], mode="clip")
        _scale(turned[rows], factors.T[rows], 32)
    return out
