"""Operations on MX data: the Cube's product of blocks with scales, and what Vector does to make and read MX tiles.

An MX tile is two slices: elements (E2M1 or E4M3) and E8M0 scales, one for 32 elements along K.  Operations that no single
Vector instruction performs are written as the chain of instructions that does, each with its cost from the chip file and each
waiting for the one before it; the chain is named beside the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import starmap

import numpy as np

from msdsim.formats.mx import (
    MAX_SCALE_EXPONENT,
    MX_BLOCK,
    MX_MODES,
    SCALE_RULES,
    block_max,
    code_to_exponent,
    expand,
    exponent_to_code,
    scale_exponent,
)
from msdsim.formats.number import E8M0, FORMATS
from msdsim.formats.rounding import decode
from msdsim.hardware.chip import Chip
from msdsim.hardware.cost import UnitCost
from msdsim.hardware.units import cube, vector
from msdsim.ir.expr import Const, Expr, tiles_of
from msdsim.ir.kernel import Op, Slice
from msdsim.ir.ops.base import Evaluation, OpDef, check_unit_flag, define, require, same_sizes
from msdsim.ir.timing import Local, MicroOp, Timing
from msdsim.units import exact

# The Cube


def _mode(op: Op) -> tuple[str, str]:
    return MX_MODES.get(op.ins[0].fmt, op.ins[0].fmt), MX_MODES.get(op.ins[2].fmt, op.ins[2].fmt)


def _check_mmad(op: Op, chip: Chip) -> None:
    out, (a, a_scale, b, b_scale) = op.out, op.ins
    assert out is not None
    check_unit_flag(op)
    for item, space in ((out, "L0C"), (a, "L0A"), (a_scale, "L0A_MX"), (b, "L0B"), (b_scale, "L0B_MX")):
        require(item.space == space, op, f"'{item}' is in {item.space}, the Cube wants it in {space}",
                f"copy it to {space} first")
    rate = chip.cube.rate(*_mode(op))
    modes = ", ".join(f"{r.a} x {r.b}" for r in chip.cube.rates.values() if r.a in MX_MODES.values())
    require(rate is not None, op, f"the Cube of '{chip.name}' cannot multiply {a.fmt} x {b.fmt} with block scales",
            f"its MX modes: {modes or 'none'}")
    require(out.fmt == "fp32", op, f"MX products accumulate in fp32, not {out.fmt}", "declare the accumulator as fp32")
    for item in (a_scale, b_scale):
        require(item.fmt == "e8m0", op, f"the scales '{item}' are {item.fmt}", "give E8M0 scales")
    require((a.rows, a.cols, b.cols) == (out.rows, b.rows, out.cols), op,
            f"[{a.rows}, {a.cols}] x [{b.rows}, {b.cols}] is not [{out.rows}, {out.cols}]", "make the sizes agree")
    blocks = tiles_of(a.cols, MX_BLOCK)
    require(same_sizes((a_scale.rows, a_scale.cols, b_scale.rows, b_scale.cols), (a.rows, blocks, blocks, b.cols)), op,
            f"K of {a.cols} has {blocks} blocks; the scales are [{a_scale.rows}, {a_scale.cols}] and "
            f"[{b_scale.rows}, {b_scale.cols}]", "give one scale per row and block")


def _mmad_timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
    cost = cube.mmad_cost(chip, *_mode(op))
    assert cost is not None
    return Local(cost, (op.ins[0].rows, op.ins[0].cols, op.ins[2].cols), micro_ops=(MicroOp(chip.cube.rate_name(*_mode(op))),))


def _mmad_hazard(op: Op, chip: Chip) -> Expr:
    """As for ``mmad``: accumulating onto the same small tile waits for the previous result."""
    fractals = tiles_of(op.ins[0].rows, chip.cube.fractal_m) * tiles_of(op.ins[2].cols, chip.cube.fractal_n)
    return fractals < chip.cube.hazard_fractals


def _execute_mmad(op: Op, run: Evaluation) -> None:
    if not run.value(op.attr_expr("accumulate", 0)):
        run.out[...] = 0
    a, a_scale, b, b_scale = run.ins
    run.out[...] = run.arithmetic.mmad_mx(a, a_scale, b, b_scale, run.out)


define(OpDef("mmad_mx", "multiply MX tiles (elements and scales of A, then of B); 'accumulate' and 'unit_flag' as for mmad",
             4, True, _check_mmad, lambda op, chip: cube.PIPE, _mmad_timing, _execute_mmad,
             attrs={"accumulate": "expr", "unit_flag": "int"}, accumulates=True, hazard=_mmad_hazard))


# Vector


#: The fields of a :class:`Step`.
_MicroOp = tuple[str, int, float]


def chain_cost(chip: Chip, chain: Sequence[_MicroOp]) -> UnitCost:
    """Cost over (rows, columns) of instructions that each wait for the one before: latencies add up, and only the last of them
    overlaps with what comes next."""
    entries = [(chip.vector.ops[op], bits, share) for op, bits, share in chain]
    width = vector.lanes(chip, max(bits for _, bits, _ in entries))
    cycles = sum(exact(entry.slope_cycles_per_repeat) * exact(share) * width / vector.lanes(chip, bits)
                 for entry, bits, share in entries)
    latencies = [entry.latency_cycles for entry, _, _ in entries]
    return UnitCost(latency=sum(latencies), interval=sum(latencies[:-1]), grains=(1, width), cycles_per_unit=exact(cycles),
                    minimum=sum(entry.min_cycles for entry, _, _ in entries))


def _in_ub(op: Op) -> None:
    for item in (op.out, *op.ins):
        assert item is not None
        require(item.space == "UB", op, f"'{item}' is in {item.space}, Vector works in UB", "copy it to UB first")


def _formats(op: Op, out: str, *ins: str) -> None:
    assert op.out is not None
    for item, fmt in zip((op.out, *op.ins), (out, *ins), strict=True):
        require(item.fmt == fmt, op, f"'{item}' is {item.fmt}, '{op.kind}' wants {fmt} there", "change the format")


def _same(op: Op, a: Slice, b: Slice) -> None:
    require((a.rows, a.cols) == (b.rows, b.cols), op, f"[{a.rows}, {a.cols}] differs from [{b.rows}, {b.cols}]",
            "use equal sizes")


def _blocks(op: Op, elements: Slice, scales: Slice) -> None:
    require(same_sizes((scales.rows, scales.cols), (elements.rows, tiles_of(elements.cols, MX_BLOCK))), op,
            f"[{elements.rows}, {elements.cols}] has [{elements.rows}, {tiles_of(elements.cols, MX_BLOCK)}] blocks, not "
            f"[{scales.rows}, {scales.cols}]", "give one value per row and block of 32")


def _define(kind: str, description: str, inputs: int, check: Callable[[Op, Chip], None], chain: Sequence[_MicroOp],
            execute: Callable[[Op, Evaluation], None], over: int | None = None, attrs: Mapping[str, str] | None = None) -> None:
    """Register a Vector operation made of a ``chain`` over its output, or over input ``over``."""
    def timing(op: Op, chip: Chip, _: Mapping[str, int]) -> Timing:
        item = op.out if over is None else op.ins[over]
        assert item is not None
        return Local(chain_cost(chip, chain), (item.rows, item.cols), micro_ops=tuple(starmap(MicroOp, chain)))

    define(OpDef(kind, description, inputs, True, check, lambda op, chip: vector.PIPE, timing, execute, attrs=attrs or {},
                 hazard=lambda op, chip: Const(1)))


def _each(out: str, source: str) -> Callable[[Op, Chip], None]:
    """The check of an operation that makes a number of format ``out`` of each of format ``source``."""
    def check(op: Op, chip: Chip) -> None:
        _in_ub(op)
        _formats(op, out, source)
        assert op.out is not None
        _same(op, op.out, op.ins[0])

    return check


def _check_block_max(op: Op, chip: Chip) -> None:
    _in_ub(op)
    _formats(op, "fp32", "fp32")
    assert op.out is not None
    _blocks(op, op.ins[0], op.out)


def _execute_block_max(op: Op, run: Evaluation) -> None:
    run.out[...] = block_max(run.ins[0])


# Magnitudes, the maximum of each 32 bytes (8 elements), and of four of those.
_define("block_max", "largest magnitude of each block of 32 along a row", 1, _check_block_max,
        (("abs", 32, 1), ("reduce_max", 32, 1), ("max", 32, 1 / 4)), _execute_block_max, over=0)


def _check_mx_scale(op: Op, chip: Chip) -> None:
    _in_ub(op)
    _formats(op, "e8m0", "fp32")
    assert op.out is not None
    _same(op, op.out, op.ins[0])
    rule, element = op.attr("rule"), op.attr("element")
    require(rule in SCALE_RULES, op, f"unknown MX scale rule '{rule}'", f"one of {', '.join(SCALE_RULES)}")
    require(element in MX_MODES, op, f"'{element}' is no MX element format", f"one of {', '.join(MX_MODES)}")


def _execute_mx_scale(op: Op, run: Evaluation) -> None:
    lowest = op.attr("lowest")
    assert isinstance(lowest, int)
    exponent = scale_exponent(run.ins[0], FORMATS[str(op.attr("element"))], str(op.attr("rule")), lowest - E8M0.bias)
    run.out[...] = exponent_to_code(exponent)


# Integer work on the bits of the maximum: round the significand up into the exponent, shift, bias, clamp, narrow.
_define("mx_scale", "E8M0 scale of blocks from their maximum, by a rule of the MX formats; no code below 'lowest'", 1,
        _check_mx_scale,
        (("adds", 32, 1), ("muls", 32, 1), ("adds", 32, 1), ("maxs", 32, 1), ("mins", 32, 1), ("cast", 32, 1)),
        _execute_mx_scale, attrs={"rule": "name", "element": "name", "lowest": "int"})


def _execute_mx_step(op: Op, run: Evaluation) -> None:
    down = op.attr("down")
    assert isinstance(down, int)
    run.out[...] = exponent_to_code(np.minimum(code_to_exponent(run.ins[0]) - down, MAX_SCALE_EXPONENT))


_define("mx_step", "scales 2^down smaller: the scales of the next pass", 1, _each("e8m0", "e8m0"), (("adds", 16, 1),),
        _execute_mx_step, attrs={"down": "int"})


def _check_scaled(op: Op, chip: Chip) -> None:
    _in_ub(op)
    _formats(op, "fp32", "fp32", "e8m0")
    assert op.out is not None
    _same(op, op.out, op.ins[0])
    _blocks(op, op.ins[0], op.ins[1])


def _scaled(sign: int) -> Callable[[Op, Evaluation], None]:
    def execute(op: Op, run: Evaluation) -> None:
        factor = np.ldexp(np.float32(1), sign * code_to_exponent(run.ins[1]))
        run.out[...] = run.ins[0] * expand(factor, run.ins[0].shape[1])

    return execute


# The power of two is spread over its block, then multiplied.
_define("mx_div", "elements over their block's scale", 2, _check_scaled, (("copy", 32, 1), ("mul", 32, 1)), _scaled(-1))
_define("mx_mul", "elements times their block's scale", 2, _check_scaled, (("copy", 32, 1), ("mul", 32, 1)), _scaled(1))


def _execute_decode_e8m0(op: Op, run: Evaluation) -> None:
    run.out[...] = np.ldexp(np.float32(1), code_to_exponent(run.ins[0]))


# Code to integer (two conversions), shifted into the exponent of FP32; code 0 is a subnormal, hence the maximum.
_define("decode_e8m0", "E8M0 scales as FP32", 1, _each("fp32", "e8m0"),
        (("cast", 16, 1), ("cast", 32, 1), ("muls", 32, 1), ("maxs", 32, 1)), _execute_decode_e8m0)


def _execute_power_of_two(op: Op, run: Evaluation) -> None:
    bits = np.ascontiguousarray(run.ins[0]).view(np.uint32) & np.uint32(0x7F800000)
    run.out[...] = bits.view(np.float32)


# The mask of the exponent's bits, and the bits that it leaves.
_define("power_of_two", "largest power of two that is at most |a|, of normal numbers; zero of smaller ones", 1,
        _each("fp32", "fp32"), (("dup", 32, 1), ("max", 32, 1)), _execute_power_of_two)


def _execute_decode_fp4(op: Op, run: Evaluation) -> None:
    run.out[...] = decode(run.ins[0]).astype(run.out.dtype)


# The code as INT4 to FP16 to INT16; its sign bit; its other bits, shifted to the top of FP16's exponent and significand; both
# together; times 2^14 for the other exponent bias.  Subnormals come out right, since FP16 has them too.
DECODE_FP4: tuple[_MicroOp, ...] = (("cast", 16, 1), ("cast", 16, 1), ("max", 16, 1), ("max", 16, 1), ("muls", 16, 1),
                                ("max", 16, 1), ("muls", 16, 1))
_define("decode_fp4", "E2M1 elements as FP16, for a Vector without that conversion", 1, _each("fp16", "fp4_e2m1"), DECODE_FP4,
        _execute_decode_fp4)
