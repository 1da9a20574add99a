"""Codes of a few bits packed into bytes or 32-bit words, the lowest bits first, unpacked to one byte each.

Everything works on pieces that stay in cache and writes each element once: a tensor of 100 MB unpacks at the speed of memory.
"""

from __future__ import annotations

import numpy as np

from msdsim.errors import InputError

_BYTES_AT_ONCE = 1 << 17
#: Columns of the eight nibbles of a word, lowest first, as AWQ's kernels interleave them.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack_last(packed: np.ndarray, bits: int, count: int, *, high_first: bool = False) -> np.ndarray:
    """uint8 codes [..., count] of ``packed`` [..., w] (uint8 or 32-bit words), packed along the last axis.

    Codes are dense: where ``bits`` does not divide 32 they straddle words.  InputError where they do not fit.
    """
    raw = np.ascontiguousarray(packed).view(np.uint8)
    if raw.shape[-1] * 8 < count * bits:
        raise InputError(f"{count} values of {bits} bits do not fit {raw.shape[-1]} bytes")
    if bits == 8:
        return raw[..., :count]
    if bits != 4:
        return _any_bits(raw, bits, count)
    flat = raw.reshape(-1)
    out = np.empty(flat.size, np.uint16)
    for start in range(0, flat.size, _BYTES_AT_ONCE):
        piece = flat[start : start + _BYTES_AT_ONCE].astype(np.uint16)
        spread = (piece >> 4) | (piece << 8) if high_first else piece | (piece << 4)
        np.bitwise_and(spread, 0x0F0F, out=out[start : start + _BYTES_AT_ONCE])
    return out.view(np.uint8).reshape(*raw.shape[:-1], 2 * raw.shape[-1])[..., :count]


def _any_bits(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    out = np.empty((*raw.shape[:-1], count), np.uint8)
    rows, results = raw.reshape(-1, raw.shape[-1]), out.reshape(-1, count)
    step = max(1, _BYTES_AT_ONCE // max(1, raw.shape[-1]))
    for start in range(0, len(rows), step):
        single = np.unpackbits(rows[start : start + step], axis=1, bitorder="little")[:, : count * bits]
        results[start : start + step] = np.packbits(single.reshape(-1, count, bits), axis=2, bitorder="little")[..., 0]
    return out


def unpack_first(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """uint8 codes [count, n] of 32-bit ``words`` [w, n], packed along the first axis."""
    if bits not in (2, 4, 8):
        return unpack_last(words.T, bits, count).T
    w, n = words.shape
    if w * 32 < count * bits:
        raise InputError(f"{count} values of {bits} bits do not fit {w} words of 32 bits")
    out = np.empty((w, 32 // bits, n), np.uint8)
    _planes(words.view(np.uint32), bits, lambda rows, place, codes: out[rows, place].__setitem__(..., codes))
    return out.reshape(-1, n)[:count]


def unpack_columns(words: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """uint8 codes [rows, 8 w] of 32-bit ``words`` [rows, w] whose nibbles, lowest first, are the columns ``order`` of eight."""
    rows, w = words.shape
    out = np.empty((rows, w, 8), np.uint8)
    _planes(words.view(np.uint32), 4, lambda part, place, codes: out[part, :, order[place]].__setitem__(..., codes))
    return out.reshape(rows, 8 * w)


def _planes(words: np.ndarray, bits: int, put: object) -> None:
    """Call ``put(rows, place, codes)`` for every place in a word, piece by piece of the rows."""
    per_byte, mask = 8 // bits, np.uint32(int.from_bytes(bytes([(1 << bits) - 1] * 4), "little"))
    step = max(1, _BYTES_AT_ONCE // max(1, 4 * words.shape[1]))
    for start in range(0, len(words), step):
        rows = slice(start, min(start + step, len(words)))
        piece = np.ascontiguousarray(words[rows])
        for shift in range(per_byte):
            codes = ((piece >> np.uint32(shift * bits)) & mask).view(np.uint8).reshape(*piece.shape, 4)
            for byte in range(4):
                put(rows, byte * per_byte + shift, codes[..., byte])  # type: ignore[operator]


def signed4(codes: np.ndarray) -> np.ndarray:
    """int8 values of two's complement nibbles (in place where it can)."""
    result = np.ascontiguousarray(codes).view(np.int8)
    result ^= 8
    result -= 8
    return result


def centred(codes: np.ndarray, bits: int) -> np.ndarray:
    """int8 values u - 2^(bits-1) of unsigned codes u, in place where the codes own their memory."""
    middle = 1 << (bits - 1)
    if bits == 8:
        return (codes ^ np.uint8(128)).view(np.int8)
    result = codes.view(np.int8)
    result -= np.int8(middle)
    return result
