"""The Multi-Scale Dequant decomposition: a 16-bit activation as a sum of low-precision components.

One decomposition with options.  Integers, per row with M = max|x| (``headroom`` * max|x| for one vendor variant), all
in float32 and in exactly this order:

    r = x * f ;  a1 = round(r / M) ;  r = r - a1 * M
    per further pass:  r = r * g ;  a_i = round(r / M) ;  r = r - a_i * M

    x ~= (M / f) * (a1 + a2 / g + a3 / g^2 + ...),  f = 127, g = 254 (int8) or f = 7, g = 14 (int4)

With g = 2 f every pass leaves |r| <= M/2, hence |a_i| <= f and an error of at most M / g^n after n passes.

Exactness (bf16 input, plain factors).  x has 8 significant bits, f has 7 (3 for int4), and g = 2 f adds as many per
pass, so r is a multiple of 2^(e_x + passes - 1) below f*M: it fits 24 bits through two int8 passes and four int4
passes, and every product and difference is exact.  The division is correctly rounded and half-integers t are
representable; r - t*M is a non-zero multiple of the same unit unless r/M = t exactly, so |r/M - t| exceeds half a unit
in the last place of t and no rounded quotient falls on a tie by accident: every decision is the exact one.  Further
passes do round, yet an exhaustive comparison with integer arithmetic over all significands and exponent distances
(tests/formats/test_msd.py) finds no decision changed through three int8 and six int4 passes; the fourth int8 pass
changes 0.015% of them, which lengthens the error by up to 0.3% of its bound.

MXFP4, per block of 32 with alpha = 2^ceil(log2 max|x|): scales s1 = alpha/4, s_{i+1} = s_i/8, a_i = x/s_i rounded half
to even in E2M1; everything is a power of two, hence exact; the error is at most alpha / 8^n.  Source of the factors:
the vendor's open operators; of the bounds: the MSD paper, P3 and P4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msdsim.errors import ArrayError, InputError
from msdsim.formats.checks import first_index, require_finite, require_not_empty
from msdsim.formats.mx import (
    MIN_SCALE_EXPONENT,
    SCALE_RULES,
    block_count,
    block_max,
    ceil_log2,
    dequantize_mx,
    expand,
    exponent_to_code,
    in_blocks,
    scale_exponent,
)
from msdsim.formats.number import FORMATS, FP4_E2M1, NumberFormat
from msdsim.formats.rounding import ROUNDINGS, decode, round_integer, round_to
from msdsim.registry import Registry

ROW_MAX_LIMIT = 2.0**120  # r = x * 127 stays below the largest float32, with room for g * r
_ELEMENTS_AT_ONCE = 1 << 16  # rows are taken in blocks of about this many elements, so that temporaries stay in cache


@dataclass(frozen=True)
class MsdSpec:
    """One decomposition.

    ``scheme`` is ``row`` (integers, scale per row), ``mx`` (fp4 blocks of 32) or ``nibbles`` (exact split of int8 in
    two int4).  ``rounding`` is one of rint, round, floor.  ``headroom`` multiplies the row maximum.  ``scale_rule`` is
    the MX rule of :mod:`msdsim.formats.mx`; the bound alpha/8^n holds for ``alpha`` only.
    """

    name: str
    scheme: str
    target: str
    passes: int
    first_factor: float = 1.0
    next_factor: float = 1.0
    rounding: str = "round"
    headroom: float = 1.0
    scale_rule: str = "alpha"
    description: str = ""

    @property
    def format(self) -> NumberFormat:
        """Format of the components."""
        return FORMATS[self.target]

    def with_passes(self, passes: int) -> MsdSpec:
        """The same decomposition with another number of passes."""
        if passes < 1:
            raise InputError(f"passes={passes} is below 1; a decomposition has at least one pass")
        if self.scheme == "nibbles" and passes != 2:
            raise InputError(f"passes={passes}: the exact split of int8 has two nibbles, no other number of passes")
        return replace(self, passes=passes)

    def with_rounding(self, rounding: str) -> MsdSpec:
        """The same decomposition with another rounding (rint, round or floor)."""
        if rounding not in ROUNDINGS:
            raise InputError(f"unknown rounding '{rounding}' (known: {', '.join(ROUNDINGS)})")
        return replace(self, rounding=rounding)

    def with_scale_rule(self, rule: str) -> MsdSpec:
        """The same decomposition with another MX block scale rule (alpha, ocp-floor or rceil)."""
        if rule not in SCALE_RULES:
            raise InputError(f"unknown MX scale rule '{rule}' (known: {', '.join(SCALE_RULES)})")
        return replace(self, scale_rule=rule)

    @property
    def pass_weights(self) -> tuple[float, ...]:
        """Weight of each component in the sum, in units of the row scale (mx: of the first block scale)."""
        if self.scheme == "nibbles":
            return (16.0, 1.0)
        step = 8.0 if self.scheme == "mx" else self.next_factor
        return tuple(1.0 / step**i for i in range(self.passes))

    @property
    def max_component(self) -> int:
        """Largest |a| a component can hold."""
        if self.scheme == "nibbles" or self.rounding == "floor":
            return -int(self.format.min_value)
        return int(self.format.max_value)

    @property
    def constant(self) -> float:
        """What is added to the sum of components: 8 for nibbles, whose low part is stored as lo - 8."""
        return 8.0 if self.scheme == "nibbles" else 0.0

    def relative_bound(self) -> float:
        """Bound of |x - x_hat| over the row maximum (mx: over alpha) in exact arithmetic."""
        if self.scheme == "nibbles":
            return 0.0
        if self.scheme == "mx":
            if self.scale_rule != "alpha":
                raise InputError(f"scale rule '{self.scale_rule}' has no bound alpha/8^n; use 'alpha'")
            return 8.0**-self.passes
        step = self.first_factor * self.next_factor ** (self.passes - 1)
        return self.headroom / step * (1.0 if self.rounding == "floor" else 0.5)


MSD_SPECS: Registry[MsdSpec] = Registry("decomposition")


def _register(spec: MsdSpec) -> MsdSpec:
    return MSD_SPECS.add(spec.name, spec)


MSD_INT8 = _register(MsdSpec("int8", "row", "int8", 2, 127.0, 254.0, description="int8, factors 127 and 254"))
MSD_INT4 = _register(MsdSpec("int4", "row", "int4", 3, 7.0, 14.0, description="int4, factors 7 and 14"))
MSD_MXFP4 = _register(MsdSpec("mxfp4", "mx", "fp4_e2m1", 2, rounding="rint",
                              description="MXFP4 components, block scales alpha/4 and alpha/32"))
_register(MsdSpec("int8-vendor", "row", "int8", 2, 127.499, 254.998, description="int8, factors 127.499 and 254.998"))
_register(MsdSpec("int4-vendor", "row", "int4", 3, 7.49, 14.98, description="int4, factors 7.49 and 14.98"))
_register(MsdSpec("int8-floor", "row", "int8", 2, 128.0, 128.0, "floor", 1.001,
                  description="int8 digits by floor, 128 and 128, row maximum times 1.001"))
MSD_NIBBLES = _register(MsdSpec("nibbles", "nibbles", "int4", 2, rounding="floor",
                                description="int8 = 16 hi + lo + 8, exact, for int4 weights"))


@dataclass(frozen=True)
class Decomposition:
    """Components of an activation [m, k].

    ``components``: one array [m, k] per pass, int8 (int4 values one per byte) or fp4.  ``row_max`` and ``row_scale``:
    float32 [m], row_scale = fl32(row_max * headroom / f), 0 for a row of zeros (nibbles: 1; mx: absent).
    ``block_scales``: for mx, one E8M0 array [m, ceil(k/32)] per pass.
    """

    spec: MsdSpec
    components: tuple[np.ndarray, ...]
    row_max: np.ndarray | None = None
    row_scale: np.ndarray | None = None
    block_scales: tuple[np.ndarray, ...] = ()

    def stacked(self) -> np.ndarray:
        """[A1; A2; ...] stacked along rows, [passes * m, k]: one matmul that reads the weights once."""
        return np.concatenate(self.components, axis=0)


def decompose(x: np.ndarray, spec: MsdSpec, name: str = "x") -> Decomposition:
    """Decompose ``x`` [m, k] (bf16, fp16 or fp32; int8 for nibbles); NaN and infinities name the row."""
    x = np.asarray(x)
    if x.ndim != 2:
        raise ArrayError(f"{name} has {x.ndim} dimensions, an activation has two: [m, k]")
    require_not_empty(x, name)
    if spec.scheme == "nibbles":
        return _nibbles(x, spec, name)
    return _mx(x, spec, name) if spec.scheme == "mx" else _rows(x, spec, name)


def decompose_unit(x: np.ndarray, spec: MsdSpec) -> Decomposition:
    """Decompose ``x`` [m, k] in [0, 1] under the fixed row maximum 1: softmax weights need no reduction.

    r / 1 is r, so that all that is left are the products and the roundings; row_max is 1 and row_scale fl32(1 / f).
    """
    r = np.asarray(x).astype(np.float32)
    components = tuple(np.empty(r.shape, np.int8) for _ in range(spec.passes))
    maxima = np.ones(r.shape[0], np.float32)
    _row_block(r, np.empty_like(r), maxima[:, None], spec, list(components))
    return Decomposition(spec, components, maxima, row_scale(maxima, spec))


def row_scale(row_max: np.ndarray, spec: MsdSpec) -> np.ndarray:
    """s1 = fl32(M / f) [m], M times the headroom of the spec; 0 for a row of zeros."""
    return np.where(row_max > 0, _divisor(row_max, spec), np.float32(0)) / np.float32(spec.first_factor)


def _divisor(row_max: np.ndarray, spec: MsdSpec) -> np.ndarray:
    scaled = row_max if spec.headroom == 1.0 else row_max * np.float32(spec.headroom)
    return np.where(row_max > 0, scaled, np.float32(1)).astype(np.float32)


def _rows(x: np.ndarray, spec: MsdSpec, name: str) -> Decomposition:
    m, k = x.shape
    components = tuple(np.empty((m, k), np.int8) for _ in range(spec.passes))
    maxima = np.empty(m, np.float32)
    step = max(1, _ELEMENTS_AT_ONCE // k)
    scratch = np.empty((2, min(step, m), k), np.float32)
    for start in range(0, m, step):
        stop = min(start + step, m)
        r, q = scratch[0, : stop - start], scratch[1, : stop - start]
        np.copyto(r, x[start:stop], casting="unsafe")
        maxima[start:stop] = np.max(np.abs(r, out=q), axis=1)
        if not (maxima[start:stop] <= ROW_MAX_LIMIT).all():
            _refuse_row(x, name)
        divisor = _divisor(maxima[start:stop], spec)[:, None]
        _row_block(r, q, divisor, spec, [c[start:stop] for c in components])
    return Decomposition(spec, components, maxima, row_scale(maxima, spec))


def _row_block(r: np.ndarray, q: np.ndarray, divisor: np.ndarray, spec: MsdSpec, out: list[np.ndarray]) -> None:
    low, high = spec.format.min_value if spec.rounding == "floor" else -spec.format.max_value, spec.format.max_value
    np.multiply(r, np.float32(spec.first_factor), out=r)
    for i, component in enumerate(out):
        if i:
            np.multiply(r, np.float32(spec.next_factor), out=r)
        np.divide(r, divisor, out=q)
        round_integer(q, spec.rounding, out=q)
        np.clip(q, low, high, out=q)
        np.copyto(component, q, casting="unsafe")
        if i + 1 < spec.passes:
            np.multiply(q, divisor, out=q)
            np.subtract(r, q, out=r)


def _refuse_row(x: np.ndarray, name: str) -> None:
    require_finite(x, name)
    index = first_index(np.abs(x.astype(np.float32)) > ROW_MAX_LIMIT)
    raise ArrayError(f"{name} has {x[index]} in row {index[0]}, above 2^120, where x * 127 leaves float32; "
                     "scale the activations down")


def _mx(x: np.ndarray, spec: MsdSpec, name: str) -> Decomposition:
    m, k = x.shape
    # The first scale leaves room below it for the scales of the later passes (three exponents each).
    lowest = MIN_SCALE_EXPONENT + 3 * (spec.passes - 1)
    components = tuple(np.empty((m, k), FP4_E2M1.dtype) for _ in range(spec.passes))
    exponents = np.empty((m, block_count(k)), np.int32)
    step = max(1, _ELEMENTS_AT_ONCE // k)
    for rows in (slice(start, start + step) for start in range(0, m, step)):
        rest = in_blocks(x[rows].astype(np.float32), axis=-1)
        maxima = np.abs(rest).max(axis=2)
        if not np.isfinite(maxima).all():
            require_finite(x.astype(np.float32), name)
        exponent = scale_exponent(maxima, FP4_E2M1, spec.scale_rule, lowest)
        exponents[rows] = exponent
        for i, component in enumerate(components):
            e = exponent[:, :, None] - 3 * i
            a = round_to(rest * np.ldexp(np.float32(1), -e), FP4_E2M1, spec.rounding, saturate=True)
            component[rows] = a.reshape(len(a), -1)[:, :k]
            rest = rest - decode(a) * np.ldexp(np.float32(1), e)
    return Decomposition(spec, components, block_scales=tuple(exponent_to_code(exponents - 3 * i)
                                                              for i in range(spec.passes)))


def _nibbles(x: np.ndarray, spec: MsdSpec, name: str) -> Decomposition:
    if x.dtype != np.int8:
        raise ArrayError(f"{name} has dtype {x.dtype}, the exact split in nibbles takes int8; quantize it first")
    return Decomposition(spec, (x >> 4, (x & 15) - np.int8(8)), row_scale=np.ones(x.shape[0], np.float32))


def reconstruct(parts: Decomposition) -> np.ndarray:
    """x_hat (float64 [m, k]) with the scale M/f in float64 rather than its float32 rounding."""
    spec = parts.spec
    total = np.full(parts.components[0].shape, spec.constant)
    if spec.scheme == "mx":
        for a, scale in zip(parts.components, parts.block_scales, strict=True):
            total += dequantize_mx(a, scale)
        return total
    for a, weight in zip(parts.components, spec.pass_weights, strict=True):
        total += a.astype(np.float64) * weight
    if parts.row_max is None:
        return total
    return total * (_divisor(parts.row_max, spec).astype(np.float64) / spec.first_factor)[:, None]


def error_bound(x: np.ndarray, spec: MsdSpec) -> np.ndarray:
    """Bound of |x - x_hat| in exact arithmetic, float64: per row [m, 1], or per element [m, k] for mx.

    MX blocks whose alpha is below 4 * 2^(3 (n-1) - 127) use that floor: E8M0 has no smaller scale.
    """
    if spec.scheme == "nibbles":
        return np.zeros((x.shape[0], 1))
    magnitude = np.abs(x.astype(np.float64))
    if spec.scheme == "row":
        return magnitude.max(axis=1, keepdims=True) * spec.relative_bound()
    maxima = block_max(magnitude)
    lowest = MIN_SCALE_EXPONENT + 3 * (spec.passes - 1) + 2
    alpha = np.ldexp(1.0, np.where(maxima > 0, np.maximum(ceil_log2(maxima), lowest), lowest))
    return expand(np.where(maxima > 0, alpha, 0.0), x.shape[1]) * spec.relative_bound()
