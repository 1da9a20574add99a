"""GM operands of a GEMM: taken from the user's arrays or generated, validated, quantized, in storage dtypes.

Tensor names are those of the kernels: ``x`` bf16 [m, k], int8 with ``x_scale`` float32 [m], or fp8 or fp4 with ``x_scale`` E8M0
[m, ceil(k/32)]; ``w`` [k, n] ([n, k] with trans_b) in bf16, int8 (int4 values one per byte), fp8 or fp4; ``scale`` float32
[n] or [groups, n] (MX: E8M0 [ceil(k/32), n]); ``offset`` float32 like ``scale``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from msdsim.errors import ArrayError, MsdsimError, ProblemError
from msdsim.formats.checks import first_index, place, require_finite, require_range, require_shape
from msdsim.formats.msd import MSD_INT8, decompose
from msdsim.formats.mx import MX_BLOCK, MX_ELEMENTS, block_count, dequantize_mx, quantize_mx
from msdsim.formats.number import BF16, E8M0, FORMATS, NumberFormat
from msdsim.formats.quantize import QuantizedWeight, group_count, quantize_weight, rows
from msdsim.formats.rounding import decode, round_to
from msdsim.numerics.contract import Seed
from msdsim.numerics.random import normal
from msdsim.numerics.shared import keep, once, weights_wanted
from msdsim.problems.shapes import GemmShape

_TILE_ROWS, _TILE_COLUMNS = 256, 512
GEMM_ARRAYS = ("x", "x_scale", "w", "q", "scale", "offset")


def gemm_operands(problem: GemmShape, inputs: Mapping[str, np.ndarray] | None, seed: Seed,
                  weights: str, scale_rule: str = "ocp-floor") -> dict[str, np.ndarray]:
    """Operands of one GEMM with ``weights`` in bf16, int8, int4, mxfp8 or mxfp4 (block scales by ``scale_rule``).

    ``inputs`` as in the Arrays section of the interface: ``x``, and ``w`` or ``q`` with ``scale`` (and ``offset``).
    What is missing is drawn from ``seed`` (:mod:`msdsim.numerics.random`): x normal, w normal / sqrt(k), the same for
    every ``weights`` and whatever else is given.
    """
    if weights in MX_ELEMENTS and (problem.group is not None or problem.offset):
        raise ProblemError(f"{weights} weights have blocks of 32 along k and no offset; leave out group= and offset=")
    given = {name: np.asarray(array) for name, array in (inputs or {}).items()}
    unknown = [name for name in given if name not in GEMM_ARRAYS]
    if unknown:
        raise ArrayError(f"unknown array '{unknown[0]}' in the inputs (known: {', '.join(GEMM_ARRAYS)})")
    of = (str(problem), seed, id(inputs))
    if problem.x == "int8":
        operands = dict(once(("x int8", *of), lambda: _int8_rows(given, problem, seed)))
    elif problem.x in MX_ELEMENTS:
        operands = dict(once(("x", problem.x, *of), lambda: _mx_rows(given, problem, seed)))
    else:
        if "x_scale" in given:
            raise ArrayError("'x_scale' belongs to activations that are given quantized; add x=int8 to the problem, or x=mxfp8 "
                             "or x=mxfp4")
        operands = {"x": once(("x", *of), lambda: _activation(
            given["x"] if "x" in given else normal((problem.m, problem.k), seed, 0), problem))}
    weight = once(("given", weights, *of), lambda: _given_weight(given, problem, weights))
    if weight is None:
        weight = _float_weight(given, problem, weights, seed, scale_rule, of)
    operands["w"] = once(("w", weights, *of), lambda: np.ascontiguousarray(weight.q.T)) if problem.trans_b else weight.q
    if weights != "bf16":
        operands["scale"] = weight.scale
    if weight.offset is not None and weights != "bf16":
        operands["offset"] = weight.offset
    keep(*operands.values())
    return operands


def _activation(x: np.ndarray, problem: GemmShape) -> np.ndarray:
    require_shape(x, (problem.m, problem.k), "x")
    _require_numbers(x, "x")
    require_finite(x, "x")
    rounded = round_to(x, BF16)
    if not np.isfinite(rounded).all():
        bad = ~np.isfinite(rounded)
        raise ArrayError(f"x has {x[first_index(bad)]} at {place(bad)}, above the largest bf16 {BF16.max_value:.4g}; "
                         "scale the activations down")
    return rounded


def _int8_rows(given: Mapping[str, np.ndarray], problem: GemmShape, seed: Seed) -> dict[str, np.ndarray]:
    """``x`` int8 with its ``x_scale`` float32 [m], as they are given; real numbers are quantized as ``w8a8`` would."""
    x = given.get("x")
    if x is None or x.dtype.kind not in "iu":
        if "x_scale" in given:
            raise _without_codes(x, "int8")
        drawn = normal((problem.m, problem.k), seed, 0) if x is None else x
        parts = decompose(_activation(drawn, problem), MSD_INT8.with_passes(1))
        assert parts.row_scale is not None
        return {"x": parts.components[0], "x_scale": parts.row_scale}
    require_shape(x, (problem.m, problem.k), "x")
    require_range(x, -128, 127, "x", "int8")
    if "x_scale" not in given:
        raise ArrayError("quantized activations 'x' need their 'x_scale', one number a row, which the inputs lack")
    scale = given["x_scale"]
    require_shape(scale, (problem.m,), "x_scale")
    _require_numbers(scale, "x_scale")
    require_finite(scale.astype(np.float32), "x_scale")
    return {"x": np.ascontiguousarray(x, np.int8), "x_scale": np.ascontiguousarray(scale, np.float32)}


def _without_codes(x: np.ndarray | None, codes: str) -> ArrayError:
    """The error for an ``x_scale`` whose ``x`` is missing, or is real numbers."""
    if x is None:
        return ArrayError(f"'x_scale' needs the quantized activations 'x' ({codes}) beside it")
    return ArrayError(f"'x_scale' needs the quantized activations 'x' as integers ({codes}), and these are real numbers "
                      f"({x.dtype}); give their bytes without --dtype, or leave 'x_scale' out")


def _mx_rows(given: Mapping[str, np.ndarray], problem: GemmShape, seed: Seed) -> dict[str, np.ndarray]:
    """``x`` in the elements of an MX format with its ``x_scale`` E8M0 [m, blocks], as they are given in codes; real numbers are
    quantized as the dataflows of this format would."""
    x, fmt = given.get("x"), FORMATS[MX_ELEMENTS[problem.x]]
    if x is None or x.dtype.kind not in "iu":
        if "x_scale" in given:
            raise _without_codes(x, f"codes of {fmt.name}, uint8")
        drawn = normal((problem.m, problem.k), seed, 0) if x is None else x
        elements, scale = quantize_mx(_activation(drawn, problem), fmt, "rceil")
        return {"x": elements, "x_scale": scale}
    require_shape(x, (problem.m, problem.k), "x")
    if "x_scale" not in given:
        raise ArrayError("quantized activations 'x' need their 'x_scale', an E8M0 code (uint8) for each block of 32, which the "
                         "inputs lack")
    scale = given["x_scale"]
    if scale.dtype not in (np.uint8, E8M0.dtype):
        raise ArrayError(f"x_scale has dtype {scale.dtype}; x={problem.x} needs uint8 E8M0 codes")
    require_shape(scale, (problem.m, block_count(problem.k)), "x_scale")
    return {"x": _mx_codes(x, fmt, "x"), "x_scale": _scale_codes(scale, "x_scale")}


def _mx_codes(codes: np.ndarray, fmt: NumberFormat, name: str) -> np.ndarray:
    """Elements of MX blocks by their codes, as they are stored."""
    require_range(codes, 0, (1 << fmt.bits) - 1, name, f"the {fmt.name.rpartition('_')[2].upper().removesuffix('FN')} codes")
    elements = np.ascontiguousarray(codes, np.uint8).view(fmt.dtype)
    if fmt.specials != "none" and (bad := ~np.isfinite(decode(elements))).any():
        raise ArrayError(f"{name} has the {fmt.name} NaN code {codes[first_index(bad)]} at {place(bad)}; give numbers")
    return elements


def _scale_codes(scale: np.ndarray, name: str) -> np.ndarray:
    codes = scale.view(np.uint8)
    if (codes == 255).any():
        raise ArrayError(f"{name} has the E8M0 NaN code 255 at {place(codes == 255)}; codes are 0 to 254")
    return np.ascontiguousarray(codes).view(E8M0.dtype)


def activations(operands: Mapping[str, np.ndarray]) -> np.ndarray:
    """The activations as they are given, float64 [m, k]."""
    x = operands["x"].astype(np.float64)
    if "x_scale" in operands and operands["x_scale"].dtype == E8M0.dtype:
        return dequantize_mx(operands["x"], operands["x_scale"])
    return x * operands["x_scale"][:, None].astype(np.float64) if "x_scale" in operands else x


def _require_numbers(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "fiu" and array.dtype not in [f.dtype for f in FORMATS.values()]:
        raise ArrayError(f"{name} has dtype {array.dtype}; give real numbers, float32 for instance")


def _float_weight(given: Mapping[str, np.ndarray], problem: GemmShape, weights: str, seed: Seed, scale_rule: str,
                  of: tuple[object, ...]) -> QuantizedWeight:
    """The weights in one format; in all that are shared at once, since they are as many bytes in float32 as in the others."""
    def make() -> dict[str, QuantizedWeight | MsdsimError]:
        w = _drawn_weight(given, problem, seed)
        found: dict[str, QuantizedWeight | MsdsimError] = {}
        for fmt in weights_wanted(weights):
            try:
                found[fmt] = _quantized(w, problem, fmt, scale_rule)
            except MsdsimError as err:
                # What is wrong with one format is said to who asks for it.
                found[fmt] = err
        return found

    weight = once(("weights", scale_rule, *of), make)[weights]
    if isinstance(weight, MsdsimError):
        raise weight
    return weight


def _drawn_weight(given: Mapping[str, np.ndarray], problem: GemmShape, seed: Seed) -> np.ndarray:
    shape = (problem.k, problem.n)
    if "w" in given:
        w = given["w"]
        require_shape(w, shape, "w")
        _require_numbers(w, "w")
    else:
        w = normal(shape, seed, 1)
        w *= np.float32(problem.k**-0.5)
    require_finite(w, "w")
    return w


def _quantized(w: np.ndarray, problem: GemmShape, weights: str, scale_rule: str) -> QuantizedWeight:
    if weights == "bf16":
        return _bf16_weight(w)
    return quantize_weight(w, weights, None if weights in MX_ELEMENTS else problem.group, problem.offset, rule=scale_rule)


def _bf16_weight(w: np.ndarray) -> QuantizedWeight:
    rounded = round_to(w, BF16)
    if not np.isfinite(rounded).all():
        bad = ~np.isfinite(rounded)
        raise ArrayError(f"w has {w[first_index(bad)]} at {place(bad)}, above the largest bf16 {BF16.max_value:.4g}; "
                         "scale the weights down")
    return QuantizedWeight(rounded, np.ones(w.shape[1], np.float32))


def _given_weight(given: Mapping[str, np.ndarray], problem: GemmShape, weights: str) -> QuantizedWeight | None:
    """Weights that the user has quantized already; None when there is no ``q``."""
    if "q" not in given:
        for name in ("scale", "offset"):
            if name in given:
                raise ArrayError(f"'{name}' belongs to quantized weights 'q', which the inputs lack; add 'q'")
        return None
    if "w" in given:
        raise ArrayError("the inputs hold both 'w' and 'q'; give float weights or quantized ones, not both")
    if "scale" not in given:
        raise ArrayError("quantized weights 'q' need their 'scale', which the inputs lack")
    q, scale = given["q"], given["scale"]
    require_shape(q, (problem.k, problem.n), "q")
    if q.dtype.kind not in "iu":
        raise ArrayError(f"q has dtype {q.dtype}; quantized weights are integers (int8)")
    is_mx = scale.dtype == np.uint8 or scale.dtype == E8M0.dtype
    if is_mx != (weights in MX_ELEMENTS) and weights != "bf16":
        raise ArrayError(f"scale has dtype {scale.dtype}; {weights} weights need "
                         f"{'uint8 E8M0 codes' if weights in MX_ELEMENTS else 'float32'}")
    if is_mx:
        # The codes of weights whose values are asked for are those of MXFP4.
        weight = _given_mx(q, scale, problem, FORMATS[MX_ELEMENTS.get(weights, "fp4_e2m1")])
    else:
        weight = _given_integers(q, scale, given.get("offset"), problem, weights)
    return _bf16_weight(weight.values()) if weights == "bf16" else weight


def _given_mx(q: np.ndarray, scale: np.ndarray, problem: GemmShape, fmt: NumberFormat) -> QuantizedWeight:
    elements = _mx_codes(q, fmt, "q")
    require_shape(scale, (block_count(problem.k), problem.n), "scale")
    return QuantizedWeight(elements, _scale_codes(scale, "scale"))


def _given_integers(q: np.ndarray, scale: np.ndarray, offset: np.ndarray | None, problem: GemmShape,
                    weights: str) -> QuantizedWeight:
    fmt = FORMATS["int8" if weights == "bf16" else weights]
    require_range(q, int(fmt.min_value), int(fmt.max_value), "q", fmt.name)
    shape = (problem.n,) if problem.group is None else (group_count(problem.k, problem.group), problem.n)
    _require_numbers(scale, "scale")
    require_shape(scale, shape, "scale")
    scale = scale.astype(np.float32)
    require_finite(scale, "scale")
    if (offset is not None) != problem.offset:
        raise ArrayError("the inputs hold an 'offset'; add offset=1 to the problem" if offset is not None
                         else "the problem has offset=1, but the inputs lack 'offset'; add it or drop offset=1")
    if offset is not None:
        _require_numbers(offset, "offset")
        require_shape(offset, shape, "offset")
        offset = offset.astype(np.float32)
        require_finite(offset, "offset")
    return QuantizedWeight(np.ascontiguousarray(q, np.int8), np.ascontiguousarray(scale), offset, problem.group)


def logical_weight(problem: GemmShape, operands: Mapping[str, np.ndarray]) -> QuantizedWeight:
    """The weight operand as [k, n], whatever its layout in GM (a view)."""
    w = operands["w"].T if problem.trans_b else operands["w"]
    return QuantizedWeight(w, operands.get("scale", np.ones(1, np.float32)), operands.get("offset"), problem.group)


def weight_part(weight: QuantizedWeight, inside: slice, columns: slice) -> QuantizedWeight:
    """Some rows and columns of a weight (views).  The rows begin with a group or an MX block."""
    group = MX_BLOCK if weight.scale.dtype == E8M0.dtype else weight.group

    def of(per_group: np.ndarray) -> np.ndarray:
        if group is None or per_group.ndim == 1:
            return per_group[..., columns]
        return per_group[inside.start // group : -(-inside.stop // group), columns]

    return QuantizedWeight(weight.q[inside, columns], of(weight.scale), None if weight.offset is None else of(weight.offset),
                           weight.group)


def weight_tiles(weight: QuantizedWeight) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the parts of a weight whose values stay in the second-level cache."""
    k, n = weight.q.shape
    step = 1 if weight.group is None else weight.group
    depth = max(step, _TILE_ROWS // step * step)
    return ((slice(row, min(row + depth, k)), slice(column, min(column + _TILE_COLUMNS, n)))
            for column in range(0, n, _TILE_COLUMNS) for row in range(0, k, depth))


def weight_values(weight: QuantizedWeight) -> np.ndarray:
    """Exact values (float64) of a weight."""
    return weight.q.astype(np.float64) if weight.q.dtype == BF16.dtype else weight.values()


def group_slices(k: int, group: int | None) -> list[slice]:
    """The groups along k as slices, the last one possibly shorter; one slice per channel."""
    size = group or k
    return [slice(start, min(start + size, k)) for start in range(0, k, size)]


def per_group(values: np.ndarray, index: int) -> np.ndarray:
    """Row ``index`` of [groups, n], or the one row [n] there is."""
    return values[index] if values.ndim == 2 else values


__all__ = ["activations", "gemm_operands", "group_slices", "logical_weight", "per_group", "rows", "weight_part", "weight_tiles",
           "weight_values"]
