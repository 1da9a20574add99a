"""Codes of a few bits packed into bytes or 32-bit words, the lowest bits first, unpacked to one byte each.

Everything works on pieces that stay in cache, reads each byte of a file once and writes each element once: a tensor of 100 MB
unpacks at about the speed of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msdsim.errors import InputError

#: Bytes of a piece: it and its temporaries stay in the second-level cache.
PIECE_BYTES = 1 << 16
#: Columns of the eight nibbles of a word, lowest first, as AWQ's kernels interleave them.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Packed:
    """Packed codes in memory or in a file: ``read(first, last)`` gives these elements of the flattened array, which are good
    until the next call."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Packed:
        flat = np.ascontiguousarray(array).reshape(-1)
        return cls(array.shape, array.dtype, lambda first, last: flat[first:last])

    def rows(self, first: int, last: int) -> np.ndarray:
        """Rows [last - first, columns] of the array with all but its last axis flattened."""
        columns = self.shape[-1]
        return self.read(first * columns, last * columns).reshape(last - first, columns)

    def whole(self) -> np.ndarray:
        """A copy of everything."""
        return self.read(0, int(np.prod(self.shape))).reshape(self.shape).copy()


def unpack_last(packed: np.ndarray | Packed, bits: int, count: int, *, middle: int = 0) -> np.ndarray:
    """uint8 codes [..., count] of ``packed`` [..., w] (uint8 or 32-bit words), packed along the last axis; int8 codes - middle
    where there is a ``middle``.

    Codes are dense: where ``bits`` does not divide 32 they straddle words.  InputError where they do not fit.
    """
    source = packed if isinstance(packed, Packed) else Packed.of(packed)
    width = source.shape[-1] * source.dtype.itemsize
    if width * 8 < count * bits:
        raise InputError(f"{count} values of {bits} bits do not fit {width} bytes")
    if bits != 4:
        raw = source.whole().view(np.uint8)
        return _less(raw[..., :count] if bits == 8 else _any_bits(raw, bits, count), middle)
    size, item = int(np.prod(source.shape)) * source.dtype.itemsize, source.dtype.itemsize
    out, shifted = np.empty(size, np.uint16), np.empty(min(size, PIECE_BYTES), np.uint16)
    for start in range(0, size, PIECE_BYTES):
        target = out[start : start + PIECE_BYTES]
        high = shifted[: len(target)]
        np.copyto(target, source.read(start // item, (start + len(target)) // item).view(np.uint8))
        np.left_shift(target, 4, out=high)
        np.bitwise_or(target, high, out=target)
        np.bitwise_and(target, 0x0F0F, out=target)
        if middle:
            np.subtract(target.view(np.int8), np.int8(middle), out=target.view(np.int8))
    return out.view(np.int8 if middle else np.uint8).reshape(*source.shape[:-1], 2 * width)[..., :count]


def _less(codes: np.ndarray, middle: int) -> np.ndarray:
    """int8 values codes - middle, in place; the codes as they are without a middle."""
    if not middle:
        return codes
    found = codes.view(np.int8)
    # Modulo 256 the middle 128 is the int8 -128.
    return np.subtract(found, np.int8(middle if middle < 128 else middle - 256), out=found)


def _any_bits(raw: np.ndarray, bits: int, count: int) -> np.ndarray:
    out = np.empty((*raw.shape[:-1], count), np.uint8)
    rows, results = raw.reshape(-1, raw.shape[-1]), out.reshape(-1, count)
    step = max(1, PIECE_BYTES // max(1, raw.shape[-1]))
    for start in range(0, len(rows), step):
        single = np.unpackbits(rows[start : start + step], axis=1, bitorder="little")[:, : count * bits]
        results[start : start + step] = np.packbits(single.reshape(-1, count, bits), axis=2, bitorder="little")[..., 0]
    return out


def unpack_first(words: np.ndarray | Packed, bits: int, count: int, *, middle: int = 0) -> np.ndarray:
    """uint8 codes [count, n] of 32-bit ``words`` [w, n], packed along the first axis; int8 as in :func:`unpack_last`."""
    source = words if isinstance(words, Packed) else Packed.of(words)
    if bits not in (2, 4, 8):
        return unpack_last(source.whole().T, bits, count, middle=middle).T
    w, n = source.shape
    if w * 32 < count * bits:
        raise InputError(f"{count} values of {bits} bits do not fit {w} words of 32 bits")
    out, mask = np.empty((w, 32 // bits, n), np.uint8), (1 << bits) - 1
    step = max(1, PIECE_BYTES // max(1, 4 * n))
    shifted, plane = np.empty((min(step, w), n), np.uint32), np.empty((min(step, w), n), np.uint8)
    for start in range(0, w, step):
        piece = source.rows(start, min(start + step, w)).view(np.uint32)
        rows = slice(start, start + len(piece))
        for byte in range(4):
            codes, source_words = plane[: len(piece)], piece
            if byte:
                source_words = np.right_shift(piece, np.uint32(8 * byte), out=shifted[: len(piece)])
            np.copyto(codes, source_words, casting="unsafe")
            for inside in range(8 // bits):
                target = out[rows, byte * (8 // bits) + inside]
                np.bitwise_and(np.right_shift(codes, inside * bits, out=target) if inside else codes, mask, out=target)
                _less(target, middle)
    return out.view(np.int8 if middle else np.uint8).reshape(-1, n)[:count]


def unpack_awq(words: np.ndarray | Packed, *, middle: int = 0) -> np.ndarray:
    """uint8 codes [rows, 8 w] of 32-bit ``words`` [rows, w] whose nibbles, lowest first, are the columns ``AWQ_ORDER`` of
    eight; int8 as in :func:`unpack_last`."""
    source = words if isinstance(words, Packed) else Packed.of(words)
    size = int(np.prod(source.shape))
    out, step = np.empty(2 * size, np.uint32), PIECE_BYTES // 4
    straight, crossed = np.empty((2, min(size, step)), np.uint32)
    high = np.empty(2 * min(size, step), np.uint32)
    for start in range(0, size, step):
        piece, target = source.read(start, min(start + step, size)).view(np.uint32), out[2 * start : 2 * (start + step)]
        x, t, shifted = straight[: len(piece)], crossed[: len(piece)], high[: len(target)]
        # Of bytes 0 1 2 3, 1 and 2 change places, so that each half word has the nibbles of columns 0 2 1 3 of its four.
        np.right_shift(piece, np.uint32(8), out=t)
        np.bitwise_xor(t, piece, out=t)
        np.bitwise_and(t, np.uint32(0xFF00), out=t)
        np.bitwise_xor(piece, t, out=x)
        np.left_shift(t, np.uint32(8), out=t)
        np.bitwise_xor(x, t, out=x)
        np.copyto(target, x.view(np.uint16))
        np.left_shift(target, np.uint32(12), out=shifted)
        np.bitwise_or(target, shifted, out=target)
        np.bitwise_and(target, np.uint32(0x0F0F0F0F), out=target)
        _less(target.view(np.uint8), middle)
    return out.view(np.int8 if middle else np.uint8).reshape(*source.shape[:-1], 8 * source.shape[-1])


def signed4(codes: np.ndarray) -> np.ndarray:
    """int8 values of two's complement nibbles (in place where it can)."""
    result = np.ascontiguousarray(codes).view(np.int8)
    result ^= 8
    result -= 8
    return result
