"""Copies: the path follows from the spaces of source and destination; a path the chip lacks is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from msdsim.formats.number import FORMATS
from msdsim.formats.rounding import round_to
from msdsim.hardware.chip import Chip, Path
from msdsim.hardware.units.mte import FRACTAL_ROW_BYTES, drain_cost, local_copy_cost, port_cost
from msdsim.ir.expr import Const, Expr, tiles_of
from msdsim.ir.kernel import Op, Slice, Tensor
from msdsim.ir.ops.base import Evaluation, OpDef, check_unit_flag, define, require, same_shape
from msdsim.ir.timing import Local, Timing, Transfer

#: The hint that a transfer's lines, where they are not in L2, do not enter it.
BYPASS = "bypass"


def _path(op: Op, chip: Chip) -> Path:
    assert op.out is not None
    source, destination = op.ins[0].space, op.out.space
    path = chip.path(source, destination)
    legal = ", ".join(f"{p.source}->{p.destination}" for p in chip.paths.values())
    require(path is not None, op, f"chip '{chip.name}' has no path {source}->{destination}", f"its paths are {legal}")
    assert path is not None
    return path


def _pipe(op: Op, chip: Chip) -> str:
    return _path(op, chip).pipe


def _path_name(op: Op, chip: Chip) -> str:
    path = _path(op, chip)
    return next(name for name, candidate in chip.paths.items() if candidate is path)


def _gm_offset(item: Slice) -> Expr:
    """Byte offset of the slice's first element inside its tensor."""
    tensor = item.of
    assert isinstance(tensor, Tensor)
    offset: Expr = (item.starts[-1] * item.bits) // 8
    if tensor.layout == "nz":
        # Of a column of fractals whose middle a slice begins with, all that is asked for is from there on.
        columns = tensor.fractal_columns
        offset = item.starts[-1] // columns * tensor.column_bytes + (item.starts[-1] % columns * item.bits) // 8
    if tensor.beside > 1:
        matrix, row, size = item.starts[0], item.starts[1], tensor.strides_bytes[-1]
        group, inside = matrix // tensor.beside, matrix % tensor.beside
        return offset + group * (tensor.strides_bytes[0] * tensor.beside) + inside * size + row * tensor.row_stride_bytes
    for start, stride in zip(item.starts[:-1], tensor.strides_bytes, strict=True):
        offset = offset + start * stride
    return offset


def _gm_rows_ok(op: Op, item: Slice) -> None:
    leading = item.sizes[:-2]
    require(all(size == Const(1) for size in leading), op,
            f"'{item}' takes more than one index of a leading dimension", "copy one matrix of the tensor at a time")


def transfer(op: Op, chip: Chip, gm: Slice, write: bool) -> Transfer:
    """The transfer of a GM slice over the path that ``op`` uses."""
    assert isinstance(gm.of, Tensor)
    nz = gm.of.layout == "nz"
    rows, row_bytes, stride = gm.rows, tiles_of(gm.cols * gm.bits, 8), gm.of.row_stride_bytes
    if nz:
        # Of every column of fractals the rows lie one behind the other.
        within = gm.starts[-1] % gm.of.fractal_columns
        rows, row_bytes = tiles_of(within + gm.cols, gm.of.fractal_columns), gm.rows * FRACTAL_ROW_BYTES
        stride = gm.of.column_bytes
    return Transfer(
        cost=port_cost(_path(op, chip), several_rows=not nz and rows != Const(1), line_bytes=chip.l2.line_bytes),
        path=_path_name(op, chip), write=write, tensor=gm.of.name, offset=_gm_offset(gm), rows=rows, row_bytes=row_bytes,
        stride_bytes=stride, bypass=op.attr("l2", "") == BYPASS,
    )


def _check_l2_hint(op: Op, chip: Chip) -> None:
    """``l2=bypass`` belongs to a copy from or to GM."""
    hint = op.attr("l2", "")
    if hint == "":
        return
    require(hint == BYPASS, op, f"l2={hint} is no way through L2", f"use l2={BYPASS}, or leave it out")
    path = _path(op, chip)
    require("GM" in (path.source, path.destination), op, f"{path.source}->{path.destination} does not pass L2",
            f"leave out l2={BYPASS}")


def _check_copy(op: Op, chip: Chip) -> None:
    out, source = op.out, op.ins[0]
    assert out is not None
    path = _path(op, chip)
    require(path.pipe != "FIX", op, "the results in L0C leave through the fixpipe", "use 'fixpipe'")
    _check_l2_hint(op, chip)
    require(out.fmt == source.fmt, op, f"a copy cannot turn {source.fmt} into {out.fmt}", "use a Vector 'cast'")
    if op.attr("transpose", 0):
        require(out.space in ("L0B", "L0B_MX") and source.space == "L1", op, f"cannot transpose {source.space}->{out.space}",
                "transpose on the way from L1 to L0B")
        require((out.rows, out.cols) == (source.cols, source.rows), op,
                f"shape [{source.rows}, {source.cols}] transposed is not [{out.rows}, {out.cols}]", "swap the sizes")
    else:
        same_shape(op, out, source)
    for item in (out, source):
        if isinstance(item.of, Tensor):
            _gm_rows_ok(op, item)


def _copy_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    out, source = op.out, op.ins[0]
    assert out is not None
    if source.space == "GM":
        return transfer(op, chip, source, write=False)
    if out.space == "GM":
        return transfer(op, chip, out, write=True)
    # The Cube's operand buffers are laid out in fractals of 16 rows x 32 bytes along the reduction axis: for L0B the
    # reduction axis is the slice's row axis.
    sizes = (out.cols, out.rows) if out.space in ("L0B", "L0B_MX") else (out.rows, out.cols)
    return Local(local_copy_cost(_path(op, chip), source.bits), sizes)


def _execute_copy(op: Op, run: Evaluation) -> None:
    source = run.ins[0].reshape(run.ins[0].shape[-2:])
    if op.attr("transpose", 0):
        source = source.T
    run.out[...] = source.reshape(run.out.shape)


define(OpDef("copy", "move a rectangle between memory spaces", 1, True, _check_copy, _pipe, _copy_timing, _execute_copy,
             attrs={"transpose": "int", "l2": "name"}))


_FIXPIPE_CASTS = {"fp32": ("fp32", "bf16", "fp16"), "int32": ("int32",)}


def _check_fixpipe(op: Op, chip: Chip) -> None:
    out, source = op.out, op.ins[0]
    assert out is not None
    check_unit_flag(op)
    require(source.space == "L0C", op, f"the fixpipe reads L0C, not {source.space}", "use 'copy'")
    _check_l2_hint(op, chip)
    _path(op, chip)
    same_shape(op, out, source)
    allowed = _FIXPIPE_CASTS.get(source.fmt, ())
    require(out.fmt in allowed, op, f"the fixpipe cannot turn {source.fmt} into {out.fmt}",
            f"from {source.fmt} it gives {', '.join(allowed) or 'nothing'}")
    if isinstance(out.of, Tensor):
        _gm_rows_ok(op, out)


def _fixpipe_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    out = op.out
    assert out is not None
    if out.space == "GM":
        cost = drain_cost(_path(op, chip), op.ins[0].bits, out.bits, chip.l2.line_bytes)
        return replace(transfer(op, chip, out, write=True), cost=cost)
    return Local(local_copy_cost(_path(op, chip), FORMATS[out.fmt].bits), (out.rows, out.cols))


def _execute_fixpipe(op: Op, run: Evaluation) -> None:
    assert op.out is not None
    source = run.ins[0].reshape(run.out.shape)
    run.out[...] = source if op.out.fmt == op.ins[0].fmt else round_to(np.asarray(source), op.out.fmt)


define(OpDef("fixpipe", "drain an accumulator from L0C, rounding half to even to the output format; 'unit_flag' as for mmad", 1,
             True, _check_fixpipe, _pipe, _fixpipe_timing, _execute_fixpipe, attrs={"l2": "name", "unit_flag": "int"}))
