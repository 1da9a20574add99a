"""Vector operations of attention: the causal mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msdsim.hardware.chip import Chip
from msdsim.hardware.units import vector
from msdsim.ir.expr import Const, Expr
from msdsim.ir.kernel import Op
from msdsim.ir.ops.base import Evaluation, OpDef, define, require, same_shape
from msdsim.ir.timing import Local, MicroOp, Repeats, Timing


def _pipe(op: Op, chip: Chip) -> str:
    return vector.PIPE


def _hazard(op: Op, chip: Chip) -> Expr:
    return Const(1)


def _check_mask(op: Op, chip: Chip) -> None:
    out, source = op.out, op.ins[0]
    assert out is not None
    for item in (out, source):
        require(item.space == "UB", op, f"'{item}' is in {item.space}, Vector works in UB", "copy it to UB first")
        require(item.fmt == "fp32", op, f"'{item}' is {item.fmt}, logits are fp32", "cast it first")
    same_shape(op, out, source)
    period = op.attr("period")
    require(isinstance(period, int) and period >= 1, op, f"period {period} is below 1", "give the number of query positions")


def _mask_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    """One ``select`` over the tile, row by row; its bit mask is a constant triangle that the kernel keeps."""
    out = op.out
    assert out is not None
    return Local(vector.vector_cost(chip, "select", out.bits, contiguous=False), (out.rows, out.cols),
                 Repeats(op.ins, out, vector.lanes(chip, out.bits)), micro_ops=(MicroOp("select", out.bits),))


def _execute_mask(op: Op, run: Evaluation) -> None:
    row, column = run.value(op.attr_expr("row", 0)), run.value(op.attr_expr("column", 0))
    rows, cols = run.out.shape[-2:]
    period, offset = op.attr("period"), op.attr("offset")
    assert isinstance(period, int)
    assert isinstance(offset, int)
    last_seen = (row + np.arange(rows)) % period + offset
    visible = column + np.arange(cols) <= last_seen[:, None]
    run.out[...] = np.where(visible, run.ins[0], np.float32(-np.inf))


define(OpDef(
    "mask_causal", "-inf where 'column' + j is beyond the query position ('row' + i) % 'period' + 'offset'", 1, True,
    _check_mask, _pipe, _mask_timing, _execute_mask,
    attrs={"row": "expr", "column": "expr", "period": "int", "offset": "int"}, hazard=_hazard,
))
