"""Every attention contract in rational arithmetic; exp in 60 decimal digits."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
from rational_oracle import f32, fp32_components, fractions, lane_sum, mx_alpha_components, nearest, sum_in_k

MINUS_INFINITY = None  # what a masked logit and the first running maximum are


def exp32(value: Fraction | None) -> Fraction:
    if value is MINUS_INFINITY:
        return Fraction(0)
    decimal = Decimal(value.numerator) / Decimal(value.denominator)  # a float32: exact in 60 digits or nearly so
    return f32(Fraction(decimal.exp(Context(prec=60))))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


class Integer:
    def __init__(self, f, g, passes):
        self.f, self.g, self.passes = f, g, passes
        self.weights = [nearest(Fraction(1, g**i), "fp32") for i in range(passes)]

    def merged(self, components, column):
        total = None
        for a, w in zip(components, self.weights, strict=True):
            term = f32(f32(dot(a, column)) * w)
            total = term if total is None else f32(total + term)
        return total

    def logits(self, q, k, k_scale, c, channel):
        row = [f32(v * s) for v, s in zip(q, k_scale, strict=True)] if channel else q
        components, row_scale = fp32_components(row, self.f, self.g, self.passes)
        factor = f32(row_scale * c)
        logits = [f32(self.merged(components, column) * factor) for column in k]
        return logits if channel else [f32(t * s) for t, s in zip(logits, k_scale, strict=True)]

    def values(self, p, v, v_scale, channel):
        """PV of a tile; v is [tile][head_dim]."""
        if channel:
            components, factor = fp32_components(p, self.f, self.g, self.passes, maximum=Fraction(1))
        else:
            row = [f32(a * s) for a, s in zip(p, v_scale, strict=True)]
            components, factor = fp32_components(row, self.f, self.g, self.passes)
        return [f32(self.merged(components, column) * factor) for column in zip(*v, strict=True)]


class Float:
    def _bf16(self, rows, scale, channel):
        if scale is None:
            return rows
        return [[nearest(f32(v * (scale[d] if channel else scale[j])), "bf16") for d, v in enumerate(row)]
                for j, row in enumerate(rows)]

    def logits(self, q, k, k_scale, c, channel):
        return [f32(sum_in_k(q, column) * c) for column in self._bf16(k, k_scale, channel)]

    def values(self, p, v, v_scale, channel):
        weights = [nearest(a, "bf16") for a in p]
        return [sum_in_k(weights, column) for column in zip(*self._bf16(v, v_scale, channel), strict=True)]


class Converted:
    """The cache's integers; scales of channels in Q and at the end, of tokens in the logits and in P."""

    def logits(self, q, k, k_scale, c, channel):
        row = [nearest(f32(v * s), "bf16") for v, s in zip(q, k_scale, strict=True)] if channel else q
        logits = [f32(sum_in_k(row, column) * c) for column in k]
        return logits if channel else [f32(t * s) for t, s in zip(logits, k_scale, strict=True)]

    def values(self, p, v, v_scale, channel):
        weights = [nearest(a if channel else f32(a * s), "bf16")
                   for a, s in zip(p, [None] * len(p) if channel else v_scale, strict=True)]
        return [sum_in_k(weights, column) for column in zip(*v, strict=True)]


class Mx:
    def _product(self, row, column, scale_of):
        total = None
        for values, scales in mx_alpha_components(row, 2):
            acc = Fraction(0)
            for block, scale in enumerate(scales):
                part = slice(32 * block, 32 * block + 32)
                acc = f32(acc + dot(values[part], column[part]) * scale * scale_of(block))
            total = acc if total is None else f32(total + acc)
        return total

    def logits(self, q, k, k_scale, c, channel):
        return [f32(self._product(q, row, lambda b, j=j: k_scale[j][b]) * c) for j, row in enumerate(k)]

    def values(self, p, v, v_scale, channel):
        columns, weights = zip(*v, strict=True), [nearest(a, "bf16") for a in p]
        return [self._product(weights, column, lambda b, d=d: v_scale[b][d]) for d, column in enumerate(columns)]


def attention(method, kv_tile):
    """Oracle of one contract: (problem, operands) -> nested lists [batch][heads][q][head_dim]."""
    step = 32 if isinstance(method, Mx) else 1

    def run(problem, operands):
        channel, group = problem.scales == "channel", problem.heads // problem.kv_heads
        c = Fraction(float(np.float32(1 / np.sqrt(problem.scale_dim or problem.head_dim))))
        width = problem.v_dim or problem.head_dim

        def scale(name, b, h):
            array = operands.get(name)
            if array is None:
                return None
            array = array[h] if array.ndim == 2 else array[b, h]
            return fractions(array) if array.ndim == 2 else fractions(array)[0]

        result = []
        for b in range(problem.batch):
            heads = []
            for head in range(problem.heads):
                h = head // group
                k, k_scale = fractions(operands["k"][b, h]), scale("k_scale", b, h)
                if problem.shared_kv:
                    v, v_scale = [row[:width] for row in k], k_scale[:width] if channel and k_scale else k_scale
                else:
                    v, v_scale = fractions(operands["v"][b, h]), scale("v_scale", b, h)
                lines = []
                for i, q in enumerate(fractions(operands["q"][b, head])):
                    logits = method.logits(q, k, k_scale, c, channel)
                    last = i + problem.kv - problem.q if problem.causal else problem.kv
                    logits = [s if j <= last else MINUS_INFINITY for j, s in enumerate(logits)]
                    lines.append(softmax(method, logits, v, v_scale, channel))
                heads.append(lines)
            result.append(heads)
        return result

    def softmax(method, logits, v, v_scale, channel):
        top, total, acc = MINUS_INFINITY, Fraction(0), None
        for start in range(0, len(logits), kv_tile):
            part = slice(start, start + kv_tile)
            seen = [s for s in logits[part] if s is not MINUS_INFINITY] + ([] if top is None else [top])
            new = max(seen)
            alpha = exp32(MINUS_INFINITY if top is None else f32(top - new))
            p = [exp32(MINUS_INFINITY if s is None else f32(s - new)) for s in logits[part]]
            total = f32(f32(total * alpha) + lane_sum(p))
            whole = v_scale is None or (channel and not isinstance(method, Mx))
            scales = v_scale if whole else v_scale[start // step :][:kv_tile]
            product = method.values(p, v[part], scales, channel)
            before = acc or [Fraction(0)] * len(product)
            acc = [f32(f32(a * alpha) + x) for a, x in zip(before, product, strict=True)]
            top = new
        out = [f32(a / total) for a in acc]
        if channel and isinstance(method, Integer | Converted):
            out = [f32(a * s) for a, s in zip(out, v_scale, strict=True)]
        return [nearest(a, "bf16") for a in out]

    return run


METHODS = {"bf16": Float(), "dequant-int8": Float(), "dequant-int4": Float(), "convert-int8": Converted(),
           "convert-int4": Converted(), "msd-int8": Integer(127, 254, 2),
           "msd-int4": Integer(7, 14, 4), "msd-mxfp4": Mx()}
