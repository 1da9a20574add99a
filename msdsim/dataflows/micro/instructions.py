"""One instruction of Cube and Vector, on operands that are there."""

from __future__ import annotations

from msdsim.dataflows.micro.transfers import filled_l0, one_aiv
from msdsim.hardware.chip import Chip
from msdsim.ir import KernelBuilder
from msdsim.problems.model import Micro
from msdsim.units import round_up

#: Columns of one repeat of fp32.
LANES = 64
_SCALARS = ("adds", "muls", "maxs", "mins", "dup")
_BINARY = ("add", "sub", "mul", "div", "max", "min")
_UNARY = ("abs", "exp", "cast")
INSTRUCTIONS = (*_BINARY, *_SCALARS, *_UNARY, "fold_max", "fold_add", "reduce_max", "reduce_add")


def mmad(kb: KernelBuilder, problem: Micro) -> None:
    """Products into the same accumulator, each starting a new sum; alone, a single one."""
    with kb.part("aic"):
        a0, b0 = filled_l0(kb, problem.fmt, problem.m, problem.k, problem.n)
        acc = kb.buffer("acc", "L0C", "int32" if problem.fmt.startswith("int") else "fp32", (problem.m, problem.n))
        with kb.loop("i", 0, 1 if problem.isolated else problem.count):
            kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])


def vector(kb: KernelBuilder, problem: Micro, chip: Chip) -> None:
    """An instruction on fp32 operands that were filled before; alone, a single one."""
    name, shape = problem.instr, (problem.repeats, LANES)
    x = kb.tensor("x", "fp32", shape, "in")
    with kb.part("aiv"), one_aiv(kb):
        first, second = _side_by_side(problem, chip)
        a, b = kb.buffer("a", "UB", "fp32", shape, address=first), kb.buffer("b", "UB", "fp32", shape, address=second)
        # Filled by MTE2: what Vector itself wrote it would wait for each time.
        kb.copy(a[:, :], x[:, :])
        kb.copy(b[:, :], x[:, :])
        out = kb.buffer("out", "UB", "bf16" if name == "cast" else "fp32", (problem.repeats, 1) if "reduce" in name else shape)
        with kb.loop("i", 0, 1 if problem.isolated else problem.count):
            inputs = {"dup": ()}.get(name, (a[:, :], b[:, :]) if name in _BINARY else (a[:, :],))
            if name in _SCALARS:
                kb.op(name, out[:, :], *inputs, scalar=1.0)
            else:
                kb.op(name, out[:, :], *inputs)


def _side_by_side(problem: Micro, chip: Chip) -> tuple[int | None, int | None]:
    """Where both sources lie: one behind the other, as a simple allocator places them and msKPP's table has it, so that on an
    A2 they share their bank groups; elsewhere wherever they are placed."""
    banks = chip.vector.banks
    if banks is None or banks.interleaved:
        return None, None
    return 0, round_up(problem.repeats * LANES * 4, banks.row_bytes * banks.groups)
