"""Conversion of values to a number format: one exact rule for every format, fast paths where a library is exact.

Modes carry the names of the vendor's CAST modes: ``rint`` (half to even), ``round`` (half away from zero) and ``floor``
(toward minus infinity).  The general rule scales by a power of two, rounds to an integer and scales back in float64;
all three steps are exact for float32 and float64 input, so that the only rounding is the intended one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from msdsim.errors import ArrayError, InputError
from msdsim.formats.number import FORMATS, NumberFormat

ROUNDINGS = ("rint", "round", "floor")

# Largest float32/float64 below one half: adding it and truncating rounds half away from zero without the double
# rounding that adding 0.5 suffers just below a tie.
_BELOW_HALF = {np.dtype(np.float32): np.nextafter(np.float32(0.5), np.float32(0)),
               np.dtype(np.float64): np.nextafter(np.float64(0.5), np.float64(0))}


def round_integer(values: np.ndarray, rounding: str = "rint", out: np.ndarray | None = None) -> np.ndarray:
    """Round float32 or float64 ``values`` to integers of the same dtype; signed zeros, NaN and infinities stay."""
    if rounding == "rint":
        return np.rint(values, out=out)
    if rounding == "floor":
        return np.floor(values, out=out)
    if rounding == "round":
        half = np.copysign(_BELOW_HALF[values.dtype], values)
        total = np.add(values, half, out=out)
        return np.trunc(total, out=total)
    raise InputError(f"unknown rounding '{rounding}' (known: {', '.join(ROUNDINGS)})")


def round_to(values: Any, fmt: NumberFormat | str, rounding: str = "rint", saturate: bool = False) -> np.ndarray:
    """Round ``values`` to ``fmt`` and return an array of the format's storage dtype, same shape.

    Overflow without ``saturate``: infinity where the format has one, NaN where it has only that (e4m3fn, e8m0), 6 with
    the sign for fp4 (every code is a number), and an :class:`ArrayError` for integers.  With ``saturate`` finite
    values and infinities go to the nearest finite limit.  NaN stays NaN; fp4 and integers have no NaN and refuse it.
    e8m0 holds positive powers of two only: zero, negative values and infinities give NaN (with ``saturate`` zero and
    tiny values give 2^-127, large values 2^127).  Signed zeros keep their sign in float formats.
    """
    fmt = FORMATS[fmt] if isinstance(fmt, str) else fmt
    array = np.asarray(values)
    if rounding not in ROUNDINGS:
        raise InputError(f"unknown rounding '{rounding}' (known: {', '.join(ROUNDINGS)})")
    if fmt.kind == "int":
        return _to_integer(array, fmt, rounding, saturate)
    if fmt.kind == "float" and rounding == "rint" and array.dtype == np.float32:
        # One correctly rounded cast.  From float64 the library rounds twice (to float32 first), so that stays below.
        return _library_cast(array, fmt, saturate)
    wide = array.astype(np.float64)
    return _to_scale(wide, fmt, rounding, saturate) if fmt.kind == "scale" else _to_float(wide, fmt, rounding, saturate)


def decode(array: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """Values of an array in any storage dtype as float32 or float64."""
    if array.dtype == np.float16 or (array.dtype.itemsize == 1 and array.dtype.kind not in "iu"):
        return by_table(array, np.dtype(dtype))
    return array.astype(dtype)


def by_table(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``array.astype(dtype)`` of storage types of 8 and 16 bits by a table of all their values: some times faster where the
    library casts one value at a time, as it does from and to fp16 and 8-bit floats."""
    return np.take(_values(array.dtype, dtype), array.view(f"u{array.dtype.itemsize}"), mode="clip")


@functools.cache
def _values(source: np.dtype, dtype: np.dtype) -> np.ndarray:
    """All values of a storage type by their bits."""
    with np.errstate(invalid="ignore"):
        return np.arange(256**source.itemsize, dtype=f"u{source.itemsize}").view(source).astype(dtype)


def _first_index(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _to_integer(array: np.ndarray, fmt: NumberFormat, rounding: str, saturate: bool) -> np.ndarray:
    low, high = int(fmt.min_value), int(fmt.max_value)
    if array.dtype.kind in "iub":
        rounded = array
    else:
        if array.dtype not in _BELOW_HALF:
            array = array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32)
        _refuse_nan(array, fmt)
        rounded = round_integer(array, rounding)
        if fmt.bits > 24:  # float32 holds 2^31 but not the limit 2^31 - 1 it must be compared with
            rounded = rounded.astype(np.float64)
    if rounded.size and (rounded.min() < low or rounded.max() > high):
        if not saturate:
            index = _first_index((rounded < low) | (rounded > high))
            raise ArrayError(f"value {array[index]} at index {index} is outside {fmt.name} [{low}, {high}]; "
                             "scale it down or convert with saturation")
        rounded = np.clip(rounded, low, high)
    return rounded.astype(fmt.dtype)


def _refuse_nan(array: np.ndarray, fmt: NumberFormat) -> None:
    nan = np.isnan(array)
    if nan.any():
        raise ArrayError(f"NaN at index {_first_index(nan)} has no {fmt.name} value; remove it before the conversion")


def _library_cast(array: np.ndarray, fmt: NumberFormat, saturate: bool) -> np.ndarray:
    if fmt.specials == "none":
        _refuse_nan(array, fmt)
    if fmt.bits <= 8:
        return _from_table(array, fmt, saturate)
    if saturate:
        array = np.clip(array, np.float32(-fmt.max_value), np.float32(fmt.max_value))
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(fmt.dtype)


@functools.cache
def _codes_of_bf16(fmt: NumberFormat, saturate: bool) -> np.ndarray:
    """Codes (uint8) of all 65536 bf16 patterns."""
    values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    if saturate:
        values = np.clip(values, np.float32(-fmt.max_value), np.float32(fmt.max_value))
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(fmt.dtype).view(np.uint8)


def _from_table(array: np.ndarray, fmt: NumberFormat, saturate: bool) -> np.ndarray:
    """float32 to an 8-bit or smaller format by way of the upper 16 bits, several times faster than the library.

    Ties of these formats have at most five significant bits, so none is a bf16 number whose last bit is set: setting that
    bit wherever the lower 16 bits hold something (a sticky bit) keeps every value on its side of every tie.
    """
    bits = np.ascontiguousarray(array).view(np.uint32)
    sticky = ((bits & np.uint32(0xFFFF)) != 0).view(np.uint8)
    index = (bits >> np.uint32(16)).astype(np.uint16)
    np.bitwise_or(index, sticky, out=index)
    return _codes_of_bf16(fmt, saturate)[index].view(fmt.dtype).reshape(array.shape)


def _quantum(wide: np.ndarray, fmt: NumberFormat) -> np.ndarray:
    """Exponent of the spacing of ``fmt`` at each value (int32)."""
    _, exponent = np.frexp(wide)
    return np.maximum(exponent - 1, fmt.min_exponent) - fmt.mantissa_bits


def _to_float(wide: np.ndarray, fmt: NumberFormat, rounding: str, saturate: bool) -> np.ndarray:
    if fmt.specials == "none":
        _refuse_nan(wide, fmt)
    finite = np.isfinite(wide)
    source = np.where(finite, wide, 0.0)
    quantum = _quantum(source, fmt)
    rounded = np.copysign(np.ldexp(round_integer(np.ldexp(source, -quantum), rounding), quantum), source)
    rounded = np.where(finite, rounded, wide)
    limit = fmt.max_value
    over = np.abs(rounded) > limit
    if saturate or fmt.specials == "none":
        rounded = np.where(over, np.copysign(limit, rounded), rounded)
    else:
        if rounding == "floor":
            # Directed rounding never passes the value: above the limit it stays there, as IEEE 754 asks.
            rounded = np.where(over & finite & (rounded > 0), limit, rounded)
            over &= ~(finite & (rounded > 0))
        beyond = np.inf if fmt.specials == "ieee" else np.nan
        rounded = np.where(over, np.copysign(beyond, rounded), rounded)
    with np.errstate(invalid="ignore"):
        return rounded.astype(np.float32).astype(fmt.dtype)


def _to_scale(wide: np.ndarray, fmt: NumberFormat, rounding: str, saturate: bool) -> np.ndarray:
    low, high = fmt.min_exponent, fmt.max_exponent
    positive = (wide > 0) & np.isfinite(wide)
    exponent = np.frexp(np.where(positive, wide, 1.0))[1] - 1
    fraction = np.ldexp(np.where(positive, wide, 1.0), -exponent)  # [1, 2)
    if rounding != "floor":
        # The tie 1.5 goes up in both modes: away from zero, and to the even significand 2.
        exponent = exponent + (fraction >= 1.5)
    codes = np.maximum(exponent, low) + fmt.bias
    nan_code = 255
    codes = np.where(exponent > high, fmt.max_exponent + fmt.bias if saturate else nan_code, codes)
    if saturate:
        codes = np.where(wide == 0, 0, np.where(np.isposinf(wide), fmt.max_exponent + fmt.bias, codes))
        positive |= (wide == 0) | np.isposinf(wide)
    return np.where(positive, codes, nan_code).astype(np.uint8).view(fmt.dtype)
