"""Vector operations on tiles in UB: elementwise, scalar, conversions and row reductions.

Arithmetic is IEEE-754 in the output's format with one rounding per operation.  A source may be a single row or a single
column, which is then broadcast (the hardware repeats the operand with stride zero).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from msdsim.formats.number import FORMATS
from msdsim.formats.rounding import by_table, decode, round_integer, round_to
from msdsim.hardware.chip import Chip
from msdsim.hardware.units import vector
from msdsim.ir.expr import Const, Expr
from msdsim.ir.kernel import Op, Slice
from msdsim.ir.ops.base import Evaluation, OpDef, define, require
from msdsim.ir.timing import Local, MicroOp, Repeats, Timing

#: Lanes of a folded row: the number of fp32 elements in one repeat.
FOLD_LANES = 64
_ARITHMETIC = ("fp32", "fp16", "int32")


def _pipe(op: Op, chip: Chip) -> str:
    return vector.PIPE


def _hazard(op: Op, chip: Chip) -> Expr:
    return Const(1)


def _in_ub(op: Op) -> None:
    for item in (op.out, *op.ins):
        assert item is not None
        require(item.space == "UB", op, f"'{item}' is in {item.space}, Vector works in UB", "copy it to UB first")


def _fits(item: Slice, out: Slice) -> bool:
    """A source has the output's size, or is one row or one column of it."""
    return item.rows in (out.rows, Const(1)) and item.cols in (out.cols, Const(1))


def _check_elementwise(op: Op, chip: Chip) -> None:
    _in_ub(op)
    out = op.out
    assert out is not None
    require(out.fmt in _ARITHMETIC, op, f"Vector has no arithmetic in {out.fmt}",
            f"cast to one of {', '.join(_ARITHMETIC)}")
    for item in op.ins:
        require(item.fmt == out.fmt, op, f"operand '{item}' is {item.fmt}, the result {out.fmt}", "cast it first")
        require(_fits(item, out), op, f"[{item.rows}, {item.cols}] does not broadcast to [{out.rows}, {out.cols}]",
                "use equal sizes, one row or one column")


def _elementwise_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    out = op.out
    assert out is not None
    items = (out, *op.ins)
    contiguous = all(item.full_width and (item.rows, item.cols) == (out.rows, out.cols) for item in items)
    widest = max(item.bits for item in items)
    cost = vector.vector_cost(chip, op.kind, widest, contiguous)
    whole = tuple(item for item in op.ins if (item.rows, item.cols) == (out.rows, out.cols))
    return Local(cost, (out.rows, out.cols), Repeats(whole, out, vector.lanes(chip, widest)),
                 micro_ops=(MicroOp(op.kind, widest),))


def _elementwise(kind: str, description: str, inputs: int, function: Callable[..., np.ndarray],
                 attrs: Mapping[str, str] | None = None) -> None:
    def execute(op: Op, run: Evaluation) -> None:
        scalars = [run.out.dtype.type(op.attr(name)) for name in (attrs or {})]
        run.out[...] = function(*run.ins, *scalars)

    define(OpDef(kind, description, inputs, True, _check_elementwise, _pipe, _elementwise_timing, execute,
                 attrs=attrs or {}, hazard=_hazard))


def _exp(x: np.ndarray) -> np.ndarray:
    return np.exp(x.astype(np.float64)).astype(x.dtype)


_SCALAR = {"scalar": "float"}
_elementwise("add", "a + b", 2, np.add)
_elementwise("sub", "a - b", 2, np.subtract)
_elementwise("mul", "a * b", 2, np.multiply)
_elementwise("div", "a / b", 2, np.divide)
_elementwise("max", "larger of a and b", 2, np.maximum)
_elementwise("min", "smaller of a and b", 2, np.minimum)
_elementwise("abs", "absolute value", 1, np.abs)
_elementwise("exp", "exponential, rounded once from a double-precision evaluation", 1, _exp)
_elementwise("adds", "a + scalar", 1, np.add, _SCALAR)
_elementwise("muls", "a * scalar", 1, np.multiply, _SCALAR)
_elementwise("maxs", "larger of a and a scalar", 1, np.maximum, _SCALAR)
_elementwise("mins", "smaller of a and a scalar", 1, np.minimum, _SCALAR)


def _check_dup(op: Op, chip: Chip) -> None:
    _in_ub(op)


def _execute_dup(op: Op, run: Evaluation) -> None:
    run.out[...] = run.out.dtype.type(op.attr("scalar"))


define(OpDef("dup", "fill with a scalar", 0, True, _check_dup, _pipe, _elementwise_timing, _execute_dup,
             attrs=_SCALAR, hazard=_hazard))

_ROUNDINGS = ("rint", "round", "floor")
#: Conversions VCONV has: every pair below, both ways where listed.
_CASTS = {
    ("int8", "fp16"), ("int4", "fp16"), ("fp16", "int8"), ("fp16", "int4"), ("fp16", "fp32"), ("fp32", "fp16"),
    ("fp32", "bf16"), ("bf16", "fp32"), ("int32", "fp32"), ("fp32", "int32"), ("fp32", "fp32"),
}


#: ... and on npu arch 3510 also FP4 and FP8 (asc-devkit, asc_bfloat162e2m1x2 and its kin).
_CASTS_3510 = {
    ("fp4_e2m1", "bf16"), ("bf16", "fp4_e2m1"), ("fp32", "fp8_e4m3fn"), ("fp8_e4m3fn", "fp32"),
}


def vector_casts(chip: Chip) -> set[tuple[str, str]]:
    """Conversions that the Vector of ``chip`` has."""
    return _CASTS | _CASTS_3510 if chip.arch == "3510" else _CASTS


#: Conversions that numpy makes exactly, or with its one rounding half to even (int32 to fp32).
_BY_TABLE = {("int8", "fp16"), ("int4", "fp16"), ("fp16", "fp32")}
_NUMPY_CASTS = {("bf16", "fp32"), ("int32", "fp32")}


def _check_cast(op: Op, chip: Chip) -> None:
    _in_ub(op)
    out, source = op.out, op.ins[0]
    assert out is not None
    require((out.rows, out.cols) == (source.rows, source.cols), op, "a cast keeps the shape", "use equal sizes")
    casts = vector_casts(chip)
    legal = sorted(b for a, b in casts if a == source.fmt)
    require((source.fmt, out.fmt) in casts, op, f"Vector cannot convert {source.fmt} to {out.fmt}",
            f"from {source.fmt} it converts to {', '.join(legal) or 'nothing'}")
    rounding = op.attr("round", "rint")
    require(rounding in _ROUNDINGS, op, f"unknown rounding '{rounding}'", f"one of {', '.join(_ROUNDINGS)}")


def _execute_cast(op: Op, run: Evaluation) -> None:
    assert op.out is not None
    rounding = str(op.attr("round", "rint"))
    source = op.ins[0].fmt
    if op.out.fmt == source:
        # VCONV fp32 -> fp32 rounds to an integral value.
        run.out[...] = round_integer(run.ins[0], rounding)
    elif (source, op.out.fmt) in _BY_TABLE:
        run.out[...] = by_table(run.ins[0], run.out.dtype)
    elif (source, op.out.fmt) in _NUMPY_CASTS:
        run.out[...] = run.ins[0]
    else:
        # Floats with an infinity overflow to it: the chip's default mode, and what FIXPIPE does.  Others have nothing beyond
        # their largest value.
        saturate = FORMATS[op.out.fmt].specials != "ieee"
        run.out[...] = round_to(decode(run.ins[0]), op.out.fmt, rounding=rounding, saturate=saturate)


define(OpDef("cast", "convert between formats with a rounding mode (rint, round, floor); beyond the largest value to "
             "infinity where the format has one, else to that value", 1, True, _check_cast,
             _pipe, _elementwise_timing, _execute_cast, attrs={"round": "name"}, hazard=_hazard))


def _check_fold(op: Op, chip: Chip) -> None:
    _in_ub(op)
    out, source = op.out, op.ins[0]
    assert out is not None
    require(out.fmt == source.fmt == "fp32", op, "folding works in fp32", "cast first")
    require((out.rows, out.cols) == (source.rows, Const(FOLD_LANES)), op,
            f"a fold gives [{source.rows}, {FOLD_LANES}], not [{out.rows}, {out.cols}]", "change the output's sizes")


def _fold_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    source = op.ins[0]
    return Local(vector.vector_cost(chip, op.kind, source.bits, contiguous=False), (source.rows, source.cols),
                 micro_ops=(MicroOp(op.kind, source.bits),))


def _fold(kind: str, description: str, function: np.ufunc, neutral: float) -> None:
    def execute(op: Op, run: Evaluation) -> None:
        source, out = run.ins[0], run.out
        if not run.value(op.attr_expr("accumulate", 0)):
            out[...] = neutral
        for start in range(0, source.shape[1], FOLD_LANES):
            piece = source[:, start : start + FOLD_LANES]
            out[:, : piece.shape[1]] = function(out[:, : piece.shape[1]], piece)

    define(OpDef(kind, description, 1, True, _check_fold, _pipe, _fold_timing, execute,
                 attrs={"accumulate": "expr"}, accumulates=True, hazard=_hazard))


_fold("fold_max", "fold a row onto 64 lanes by maximum, blocks of 64 columns in ascending order", np.maximum, -np.inf)
_fold("fold_add", "fold a row onto 64 lanes by addition, blocks of 64 columns in ascending order", np.add, 0.0)


def _check_reduce(op: Op, chip: Chip) -> None:
    _in_ub(op)
    out, source = op.out, op.ins[0]
    assert out is not None
    require(out.fmt == source.fmt == "fp32", op, "reductions work in fp32", "cast first")
    require((out.rows, out.cols, source.cols) == (source.rows, Const(1), Const(FOLD_LANES)), op,
            f"a reduction turns [rows, {FOLD_LANES}] into [rows, 1]", "fold the row first")


def _reduce(kind: str, description: str, function: np.ufunc) -> None:
    def execute(op: Op, run: Evaluation) -> None:
        lanes = run.ins[0]
        half = FOLD_LANES // 2
        while half:
            lanes = function(lanes[:, :half], lanes[:, half : 2 * half])
            half //= 2
        run.out[...] = lanes

    define(OpDef(kind, description, 1, True, _check_reduce, _pipe, _fold_timing, execute, hazard=_hazard))


_reduce("reduce_max", "maximum over the 64 lanes of a row", np.maximum)
_reduce("reduce_add", "sum over the 64 lanes of a row, by pairwise halving (lane i + lane i + half)", np.add)
