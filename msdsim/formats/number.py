"""Number formats by name: bits, layout, limits and the numpy dtype that stores them.

A format is described by its layout only (sign, exponent, mantissa, bias, special values); every limit is derived from
it.  Sources: IEEE 754-2019 (fp16, fp32), OCP 8-bit floating point v1.0 (fp8), OCP Microscaling v1.0 (fp4, e8m0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msdsim.registry import Registry

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["float", "int", "scale"]
Specials = Literal["ieee", "nan", "none"]


@dataclass(frozen=True)
class NumberFormat:
    """One number format.

    ``kind`` is ``float``, ``int`` (two's complement) or ``scale`` (unsigned power of two, E8M0).  ``specials`` tells
    what the top codes mean: ``ieee`` (infinities and NaN in the top exponent), ``nan`` (NaN only: the all-ones code)
    or ``none`` (every code is a number).  ``dtype_name`` names the storage dtype: one element per numpy item, so that
    a 4-bit value takes one byte in an array and half a byte in memory (:func:`storage_bytes`).
    """

    name: str
    bits: int
    kind: Kind
    dtype_name: str
    description: str
    exponent_bits: int = 0
    mantissa_bits: int = 0
    bias: int = 0
    specials: Specials = "none"

    @property
    def dtype(self) -> np.dtype:
        """numpy dtype of an array in this format (ml_dtypes for the formats numpy lacks)."""
        import numpy as np

        if hasattr(np, self.dtype_name):
            return np.dtype(getattr(np, self.dtype_name))
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, self.dtype_name))

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number (for ``scale``: of the smallest code)."""
        return -self.bias if self.kind == "scale" else 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite number."""
        top = (1 << self.exponent_bits) - 1 - self.bias
        if self.specials == "ieee":
            return top - 1
        # e8m0 gives its whole top exponent to NaN; e4m3fn gives away one mantissa code only.
        return top - 1 if self.kind == "scale" else top

    @property
    def max_value(self) -> float:
        """Largest finite value."""
        if self.kind == "int":
            return float(2 ** (self.bits - 1) - 1)
        codes = (1 << self.mantissa_bits) - 1
        if self.specials == "nan" and self.kind == "float":
            codes -= 1
        return 2.0**self.max_exponent * (1 + codes / (1 << self.mantissa_bits))

    @property
    def min_value(self) -> float:
        """Most negative finite value (for ``scale``: the smallest positive one)."""
        if self.kind == "int":
            return -float(2 ** (self.bits - 1))
        return self.smallest_normal if self.kind == "scale" else -self.max_value

    @property
    def smallest_normal(self) -> float:
        """Smallest positive normal value (1 for integers)."""
        return 1.0 if self.kind == "int" else 2.0**self.min_exponent

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value (1 for integers; e8m0 has no subnormals)."""
        return 1.0 if self.kind == "int" else 2.0 ** (self.min_exponent - self.mantissa_bits)

    @property
    def unit_roundoff(self) -> float:
        """Largest relative error of rounding to nearest in the normal range: half a unit in the last place."""
        return 0.5 if self.kind == "int" else 2.0 ** -(self.mantissa_bits + 1)

    def storage_bytes(self, count: int) -> int:
        """Bytes that ``count`` elements take in memory, 4-bit elements packed two to a byte."""
        return (count * self.bits + 7) // 8


FORMATS: Registry[NumberFormat] = Registry("format")


def _register(name: str, bits: int, kind: Kind, dtype: str, description: str, layout: tuple[int, int, int] = (0, 0, 0),
              specials: Specials = "none") -> NumberFormat:
    return FORMATS.add(name, NumberFormat(name, bits, kind, dtype, description, *layout, specials))


# layout: exponent bits, mantissa bits, bias
BF16 = _register("bf16", 16, "float", "bfloat16", "bfloat16: fp32 range, 8 bits of precision", (8, 7, 127), "ieee")
FP16 = _register("fp16", 16, "float", "float16", "IEEE half precision", (5, 10, 15), "ieee")
FP32 = _register("fp32", 32, "float", "float32", "IEEE single precision", (8, 23, 127), "ieee")
FP8_E4M3FN = _register("fp8_e4m3fn", 8, "float", "float8_e4m3fn", "OCP fp8, 448 at most, no infinity", (4, 3, 7), "nan")
FP8_E5M2 = _register("fp8_e5m2", 8, "float", "float8_e5m2", "OCP fp8 with infinities", (5, 2, 15), "ieee")
FP4_E2M1 = _register("fp4_e2m1", 4, "float", "float4_e2m1fn", "OCP fp4: 0 0.5 1 1.5 2 3 4 6 with sign", (2, 1, 1))
E8M0 = _register("e8m0", 8, "scale", "float8_e8m0fnu", "OCP MX block scale: 2^-127 to 2^127", (8, 0, 127), "nan")
INT8 = _register("int8", 8, "int", "int8", "8-bit two's complement")
INT4 = _register("int4", 4, "int", "int8", "4-bit two's complement, -8 to 7, one value per byte unpacked")
INT32 = _register("int32", 32, "int", "int32", "32-bit two's complement, the integer accumulator")


def storage_bytes(count: int, fmt: NumberFormat | str) -> int:
    """Bytes that ``count`` elements of ``fmt`` take in memory; an odd count of 4-bit elements takes the whole byte."""
    return (FORMATS[fmt] if isinstance(fmt, str) else fmt).storage_bytes(count)
