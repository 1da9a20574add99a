"""Every GEMM contract in rational arithmetic, element by element: slow, small, and sharing no code with msdsim.

Values are ``fractions.Fraction``; the one way back to a format is :func:`nearest`, which searches nothing and calls no
library.  The sign of zero is not modelled.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

# significand bits, smallest exponent of a normal number, largest finite value
LAYOUT = {"fp32": (24, -126, (2 - Fraction(1, 2**23)) * 2**127), "bf16": (8, -126, (2 - Fraction(1, 2**7)) * 2**127),
          "fp16": (11, -14, Fraction(65504)), "e4m3": (4, -6, Fraction(448)), "e2m1": (2, 0, Fraction(6))}
SATURATES = {"e4m3", "e2m1"}


def floor_log2(value: Fraction) -> int:
    """Largest e with 2^e <= value, for value > 0."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def ceil_log2(value: Fraction) -> int:
    """Smallest e with value <= 2^e."""
    e = floor_log2(value)
    return e if Fraction(2) ** e == value else e + 1


def nearest(value: Fraction, fmt: str) -> Fraction:
    """Round half to even to a format; overflow saturates in the MX element formats and fails otherwise."""
    if value == 0:
        return value
    bits, low, limit = LAYOUT[fmt]
    step = Fraction(2) ** (max(floor_log2(abs(value)), low) - bits + 1)
    whole, rest = divmod(abs(value) / step, 1)
    whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    rounded = whole * step
    if rounded > limit:
        assert fmt in SATURATES, f"{float(value)} overflows {fmt}"
        rounded = limit
    return rounded if value > 0 else -rounded


def f32(value: Fraction) -> Fraction:
    return nearest(value, "fp32")


def half_away(value: Fraction) -> int:
    whole = int((abs(value) + Fraction(1, 2)) // 1)
    return whole if value >= 0 else -whole


def fractions(array: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(v)) for v in row] for row in np.atleast_2d(array)]


def groups(k: int, group: int | None) -> list[range]:
    return [range(s, min(s + (group or k), k)) for s in range(0, k, group or k)]


def sum_in_k(x: list[Fraction], w: list[Fraction]) -> Fraction:
    acc = Fraction(0)
    for a, b in zip(x, w, strict=True):
        acc = f32(acc + f32(a * b))
    return acc


def lane_sum(values: list[Fraction]) -> Fraction:
    lanes = [Fraction(0)] * 64
    for i, v in enumerate(values):
        lanes[i % 64] = f32(lanes[i % 64] + v)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [f32(lanes[i] + lanes[i + half]) for i in range(half)]
    return lanes[0]


class Operands:
    """Operands of a small problem as fractions, weights as columns."""

    def __init__(self, problem, operands):
        self.problem = problem
        self.x = fractions(operands["x"])
        self.x_scale = fractions(operands["x_scale"]) if "x_scale" in operands else None
        self.k, self.n = problem.k, problem.n
        w = operands["w"].T if problem.trans_b else operands["w"]
        self.w = [list(c) for c in zip(*fractions(w), strict=True)]
        self.is_mx = "scale" in operands and operands["scale"].dtype.itemsize == 1
        self.scale = fractions(operands["scale"]) if "scale" in operands else None
        self.offset = fractions(operands["offset"]) if "offset" in operands else None
        self.groups = groups(self.k, 32 if self.is_mx else problem.group)

    def dequantized(self, n: int) -> list[Fraction]:
        """Column n of the weights as a Vector unit makes them bf16."""
        if self.scale is None:
            return self.w[n]
        column = []
        for g, part in enumerate(self.groups):
            for k in part:
                f = self.w[n][k]
                if self.offset is not None:
                    f = f32(f + self.offset[g][n])
                column.append(nearest(f32(f * self.scale[g][n]), "bf16"))
        return column


def float_gemm(problem, operands):
    o = Operands(problem, operands)
    columns = [o.dequantized(n) for n in range(o.n)]
    return [[nearest(sum_in_k(x, w), "bf16") for w in columns] for x in o.x]


def convert_gemm(half=False):
    """Weights as they are stored, sums of groups scaled; with ``half`` rows of x in FP16 over a power of two."""
    def power_of(x):
        top, power = max(abs(v) for v in x), Fraction(2) ** -111
        while 2 * power <= top:
            power *= 2
        return power / 2**15

    def gemm(problem, operands):
        o, result = Operands(problem, operands), []
        per_channel = problem.group is None and not o.is_mx
        for x in o.x:
            power = power_of(x) if half else 1
            on_cube, row = [nearest(v / power, "fp16") for v in x] if half else x, []
            for n in range(o.n):
                total = shift = None
                for g, part in enumerate(o.groups):
                    c = sum_in_k([on_cube[k] for k in part], [o.w[n][k] for k in part])
                    u = None if o.offset is None else f32(lane_sum([x[k] for k in part]) * o.offset[g][n])
                    if per_channel:
                        c = f32(c * power)
                        total = f32((c if u is None else f32(c + u)) * o.scale[g][n])
                        continue
                    c = f32(c * o.scale[g][n])
                    total = c if total is None else f32(total + c)
                    if u is not None:
                        u = f32(u * o.scale[g][n])
                        shift = u if shift is None else f32(shift + u)
                total = total if per_channel else f32(total * power)
                row.append(nearest(total if shift is None else f32(total + shift), "bf16"))
            result.append(row)
        return result

    return gemm


def integer_components(row, f, g, passes):
    m = max(abs(v) for v in row) or Fraction(1)
    rest, result = [v * f for v in row], []
    for i in range(passes):
        rest = [r * g for r in rest] if i else rest
        digits = [half_away(r / m) for r in rest]
        rest = [r - a * m for r, a in zip(rest, digits, strict=True)]
        result.append(digits)
    return result, f32(m / f)


def fp32_components(row, f, g, passes, rounding=half_away, headroom=1.0, maximum=None):
    """The decomposition with every operation rounded to fp32: what it is where an operation is not exact."""
    f, g, headroom = (Fraction(float(np.float32(v))) for v in (f, g, headroom))
    m = f32((max(abs(v) for v in row) if maximum is None else maximum) * headroom)
    divisor = m or Fraction(1)
    rest, result = [f32(v * f) for v in row], []
    for i in range(passes):
        rest = [f32(r * g) for r in rest] if i else rest
        digits = [rounding(f32(r / divisor)) for r in rest]
        rest = [f32(r - f32(a * divisor)) for r, a in zip(rest, digits, strict=True)]
        result.append(digits)
    return result, f32(m / f)


def integer_gemm(f, g, passes, nibbles=False, components_of=integer_components):
    """``components_of(row, f, g, passes)`` gives the components of a row and its scale."""
    factors = [Fraction(1 / float(g) ** i) for i in range(passes)]
    weights = [Fraction(16), Fraction(1)] if nibbles else [nearest(factor, "fp32") for factor in factors]

    def element(o, row, components, row_scale, n):
        q, acc, off = o.w[n], None, None
        for gi, part in enumerate(o.groups):
            terms = [f32(f32(sum(a[k] * q[k] for k in part)) * w) for a, w in zip(components, weights, strict=True)]
            if nibbles:
                terms.append(f32(8 * sum(q[k] for k in part)))
            t = terms[0]
            for term in terms[1:]:
                t = f32(t + term)
            scale = o.scale[gi][n]
            shift = None if o.offset is None else f32(lane_sum([row[k] for k in part]) * o.offset[gi][n])
            if o.problem.group is None:
                t = f32(t * row_scale)
                t = t if shift is None else f32(t + shift)
                return nearest(f32(t * scale), "bf16")
            t = f32(t * scale)
            acc = t if acc is None else f32(acc + t)
            if shift is not None:
                shift = f32(shift * scale)
                off = shift if off is None else f32(off + shift)
        t = f32(acc * row_scale)
        return nearest(t if off is None else f32(t + off), "bf16")

    def gemm(problem, operands):
        o, result = Operands(problem, operands), []
        for row in o.x:
            components, row_scale = components_of(row, f, g, passes)
            if nibbles:
                components = [[v // 16 for v in components[0]], [v % 16 - 8 for v in components[0]]]
            result.append([element(o, row, components, row_scale, n) for n in range(o.n)])
        return result

    return gemm


def mx_alpha_components(row, passes):
    """E2M1 values and block scales of each pass, alpha rule."""
    parts = groups(len(row), 32)
    maxima = [max(abs(row[k]) for k in part) for part in parts]
    lowest = -127 + 3 * (passes - 1)
    exponents = [max(ceil_log2(m) - 2, lowest) if m else lowest for m in maxima]
    rest, result = list(row), []
    for i in range(passes):
        scales = [Fraction(2) ** (e - 3 * i) for e in exponents]
        values = [nearest(rest[k] / scales[k // 32], "e2m1") for k in range(len(row))]
        rest = [r - v * scales[k // 32] for k, (r, v) in enumerate(zip(rest, values, strict=True))]
        result.append((values, scales))
    return result


def mx_components(row, element="e4m3"):
    """Values and block scales, smallest power of two that does not saturate."""
    scales = []
    for part in groups(len(row), 32):
        maximum = max(abs(row[k]) for k in part)
        scales.append(Fraction(2) ** max(ceil_log2(maximum / LAYOUT[element][2]), -127) if maximum else Fraction(2) ** -127)
    return [([nearest(v / scales[k // 32], element) for k, v in enumerate(row)], scales)]


def mx_gemm(components_of):
    def gemm(problem, operands):
        o, result = Operands(problem, operands), []
        for m, row in enumerate(o.x):
            line = []
            for n in range(o.n):
                total = None
                for values, scales in components_of(row) if o.x_scale is None else [(row, o.x_scale[m])]:
                    acc = Fraction(0)
                    for g, part in enumerate(o.groups):
                        dot = sum(values[k] * o.w[n][k] for k in part)
                        acc = f32(acc + dot * scales[g] * o.scale[g][n])
                    total = acc if total is None else f32(total + acc)
                line.append(nearest(total, "bf16"))
            result.append(line)
        return result

    return gemm


GEMM_ORACLES = {
    "convert-fp16-int8": convert_gemm(half=True), "convert-fp16-int4": convert_gemm(half=True),
    "convert-int8": convert_gemm(), "convert-int4": convert_gemm(), "convert-mxfp4": convert_gemm(),
    "bf16": float_gemm,
    "dequant-int8": float_gemm,
    "dequant-int4": float_gemm,
    "dequant-mxfp4": float_gemm,
    "msd-int8": integer_gemm(127, 254, 2),
    "w8a8": integer_gemm(127, 254, 1),
    "msd-int4": integer_gemm(7, 14, 3),
    "a8w4": integer_gemm(127, 254, 1, nibbles=True),
    "msd-mxfp4": mx_gemm(lambda row: mx_alpha_components(row, 2)),
    "mxfp8": mx_gemm(mx_components),
    "w8a8-mxfp8": mx_gemm(mx_components),
    "w4a4-mxfp4": mx_gemm(lambda row: mx_components(row, "e2m1")),
}
