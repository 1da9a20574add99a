"""4-bit packing: two elements to a byte along the last axis, low nibble first."""

from __future__ import annotations

import numpy as np

from msdsim.errors import ArrayError
from msdsim.formats.number import FP4_E2M1, INT4, NumberFormat


def pack4(values: np.ndarray) -> np.ndarray:
    """Pack 4-bit ``values`` [..., n] to uint8 [..., ceil(n/2)].

    Takes int8 holding -8..7 (int4), uint8 holding codes 0..15, or float4_e2m1fn.  An odd ``n`` leaves the high nibble
    of the last byte zero.
    """
    if values.dtype == FP4_E2M1.dtype:
        values = values.view(np.uint8)
    low, high = (-8, 7) if values.dtype.kind == "i" else (0, 15)
    outside = (values < low) | (values > high)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ArrayError(f"value {values[index]} at index {index} is not a 4-bit value [{low}, {high}]; "
                         "quantize it to int4 or fp4 before packing")
    nibbles = values.astype(np.uint8) & 15
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros((*nibbles.shape[:-1], 1), np.uint8)], axis=-1)
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)


def unpack4(packed: np.ndarray, count: int, fmt: NumberFormat = INT4) -> np.ndarray:
    """Unpack uint8 [..., ceil(count/2)] to [..., count] in the storage dtype of ``fmt`` (int4: int8, fp4: fp4)."""
    if packed.dtype != np.uint8 or packed.shape[-1] != (count + 1) // 2:
        raise ArrayError(f"{count} packed 4-bit values need uint8 [..., {(count + 1) // 2}], "
                         f"not {packed.dtype} {list(packed.shape)}")
    nibbles = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.uint8)
    nibbles[..., 0::2] = packed & 15
    nibbles[..., 1::2] = packed >> 4
    nibbles = nibbles[..., :count]
    if fmt.kind == "int":
        return (nibbles.astype(np.int8) ^ 8) - np.int8(8)
    return np.ascontiguousarray(nibbles).view(fmt.dtype)
