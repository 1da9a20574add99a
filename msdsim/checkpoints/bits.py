"""Codes of a few bits packed into bytes or 32-bit words, the lowest bits first, unpacked to one byte each.

Everything works on pieces that stay in cache and writes each element once: a tensor of 100 MB unpacks at the speed of memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from msdsim.errors import InputError

_BYTES_AT_ONCE = 1 << 17
#: Columns of the eight nibbles of a word, lowest first, as AWQ's kernels interleave them.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack_last(packed: np.ndarray, bits: int, count: int, *, middle: int = 0) -> np.ndarray:
    """uint8 codes [..., count] of ``packed`` [..., w] (uint8 or 32-bit words), packed along the last axis; int8 codes - middle
    where there is a ``middle``.

    Codes are dense: where ``bits`` does not divide 32 they straddle words.  InputError where they do not fit.
    """
    raw = np.ascontiguousarray(packed).view(np.uint8)
    if raw.shape[-1] * 8 < count * bits:
        raise InputError(f"{count} values of {bits} bits do not fit {raw.shape[-1]} bytes")
    if bits == 8:
        return _less(raw[..., :count], middle)
    if bits != 4:
        return _less(_any_bits(raw, bits, count), middle)
    flat = raw.reshape(-1)
    out, buffers = np.empty(flat.size, np.uint16), np.empty((2, min(flat.size, _BYTES_AT_ONCE)), np.uint16)
    for start in range(0, flat.size, _BYTES_AT_ONCE):
        piece, target = flat[start : start + _BYTES_AT_ONCE], out[start : start + _BYTES_AT_ONCE]
        low, high = buffers[:, : len(piece)]
        np.copyto(low, piece)
        np.left_shift(low, 4, out=high)
        np.bitwise_or(low, high, out=low)
        np.bitwise_and(low, 0x0F0F, out=low if middle else target)
        if middle:
            np.subtract(low.view(np.int8), np.int8(middle), out=target.view(np.int8))
    return out.view(np.int8 if middle else np.uint8).reshape(*raw.shape[:-1], 2 * raw.shape[-1])[..., :count]


def _less(codes: np.ndarray, middle: int) -> np.ndarray:
    """int8 values codes - middle; the codes as they are without a middle."""
    if not middle:
        return codes
    return (codes ^ np.uint8(128)).view(np.int8) if middle == 128 else codes.view(np.int8) - np.int8(middle)


def _any_bits(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    out = np.empty((*raw.shape[:-1], count), np.uint8)
    rows, results = raw.reshape(-1, raw.shape[-1]), out.reshape(-1, count)
    step = max(1, _BYTES_AT_ONCE // max(1, raw.shape[-1]))
    for start in range(0, len(rows), step):
        single = np.unpackbits(rows[start : start + step], axis=1, bitorder="little")[:, : count * bits]
        results[start : start + step] = np.packbits(single.reshape(-1, count, bits), axis=2, bitorder="little")[..., 0]
    return out


def unpack_first(words: np.ndarray, bits: int, count: int, *, middle: int = 0) -> np.ndarray:
    """uint8 codes [count, n] of 32-bit ``words`` [w, n], packed along the first axis; int8 as in :func:`unpack_last`."""
    if bits not in (2, 4, 8):
        return unpack_last(words.T, bits, count, middle=middle).T
    w, n = words.shape
    if w * 32 < count * bits:
        raise InputError(f"{count} values of {bits} bits do not fit {w} words of 32 bits")
    out = np.empty((w, 32 // bits, n), np.int8 if middle else np.uint8)
    for rows, place, codes in _planes(words, bits, middle):
        out[rows, place] = codes
    return out.reshape(-1, n)[:count]


def unpack_columns(words: np.ndarray, order: tuple[int, ...], *, middle: int = 0) -> np.ndarray:
    """uint8 codes [rows, 8 w] of 32-bit ``words`` [rows, w] whose nibbles, lowest first, are the columns ``order`` of eight;
    int8 as in :func:`unpack_last`."""
    rows, w = words.shape
    out = np.empty((rows, w, 8), np.int8 if middle else np.uint8)
    for part, place, codes in _planes(words, 4, middle):
        out[part, :, order[place]] = codes
    return out.reshape(rows, 8 * w)


def _planes(words: np.ndarray, bits: int, middle: int) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Some rows, a place in a word, and the codes there, for all rows and places."""
    step = max(1, _BYTES_AT_ONCE // max(1, 4 * words.shape[1]))
    for start in range(0, len(words), step):
        rows = slice(start, min(start + step, len(words)))
        piece = np.ascontiguousarray(words[rows]).view(np.uint32)
        for byte in range(4):
            plane = (piece >> np.uint32(8 * byte)).astype(np.uint8)
            for inside in range(8 // bits):
                codes = (plane >> np.uint8(inside * bits)) & np.uint8((1 << bits) - 1)
                yield rows, byte * (8 // bits) + inside, _less(codes, middle)


def signed4(codes: np.ndarray) -> np.ndarray:
    """int8 values of two's complement nibbles (in place where it can)."""
    result = np.ascontiguousarray(codes).view(np.int8)
    result ^= 8
    result -= 8
    return result
