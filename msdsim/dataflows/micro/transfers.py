"""Copies on one core, over each path between two memories, one after the other or each alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from msdsim.ir import Const, Expr, Handle, KernelBuilder, Slice
from msdsim.ir.ops.copies import BYPASS
from msdsim.problems.model import Micro

#: Copies move elements of this format; only their bytes matter.
FMT, FMT_BYTES = "fp16", 2
#: Columns of a 32-byte block of it.
BLOCK = 16


def way(problem: Micro) -> dict[str, str]:
    """The hint of a copy from or to GM."""
    return {"l2": BYPASS} if problem.bypass else {}


def one_aiv(kb: KernelBuilder) -> AbstractContextManager[None]:
    """What only the first AIV does."""
    return kb.when((kb.core + kb.sub).equals(0))


def filled_l0(kb: KernelBuilder, fmt: str, m: int, k: int, n: int) -> tuple[Handle, Handle]:
    """Filled tiles of L0A and L0B."""
    x, w = kb.tensor("x", fmt, (1, m * k), "in"), kb.tensor("w", fmt, (1, k * n), "in")
    a1, b1 = kb.buffer("a1", "L1", fmt, (m, k)), kb.buffer("b1", "L1", fmt, (k, n))
    a0, b0 = kb.buffer("a0", "L0A", fmt, (m, k)), kb.buffer("b0", "L0B", fmt, (k, n))
    kb.copy(a1[0, :k], x[0, :k])
    kb.copy(b1[0, :n], w[0, :n])
    kb.copy(a0[:, :], a1[:, :])
    kb.copy(b0[:, :], b1[:, :])
    return a0, b0


def _shape(problem: Micro) -> tuple[int, int]:
    """Rows and columns of one transfer."""
    return problem.rows, problem.bytes // FMT_BYTES // problem.rows


def _blocks(problem: Micro) -> int:
    """Places in GM that the transfers use: always the same when warm, else a fresh one each."""
    return 1 if problem.warm else problem.count


def _rows(problem: Micro, i: Expr, rows: int) -> slice:
    """Rows of the place of transfer ``i``."""
    first = (Const(0) if problem.warm else i) * rows
    return slice(first, first + rows)


def _gm(kb: KernelBuilder, problem: Micro, name: str, apart: bool = True) -> Callable[[Expr], Slice]:
    """A tensor for the transfers and the place of transfer ``i`` in it.

    Several rows that are to be ``apart`` are taken from a matrix twice as wide, so that they do not lie one behind the other.
    """
    rows, cols = _shape(problem)
    shape = _blocks(problem) * rows, 2 * cols if apart and rows > 1 else cols
    tensor = kb.tensor(name, FMT, shape, "in" if name == "x" else "out")
    return lambda i: tensor[_rows(problem, i, rows), :cols]


def _gm_to_ub(kb: KernelBuilder, problem: Micro) -> None:
    place = _gm(kb, problem, "x")
    with kb.part("aiv"), one_aiv(kb), kb.loop("i", 0, problem.count) as i:
        tile = kb.buffer("tile", "UB", FMT, _shape(problem))
        kb.copy(tile[:, :], place(i), **way(problem))
        if problem.isolated:
            # A reader on another pipe makes the next transfer wait for this one.
            kb.op("muls", tile[0, :BLOCK], tile[0, :BLOCK], scalar=1.0)


def _ub_to_gm(kb: KernelBuilder, problem: Micro) -> None:
    place = _gm(kb, problem, "y")
    with kb.part("aiv"), one_aiv(kb):
        tile = kb.buffer("tile", "UB", FMT, _shape(problem))
        kb.op("dup", tile[:, :], scalar=0.0)
        with kb.loop("i", 0, problem.count) as i:
            kb.copy(place(i), tile[:, :], **way(problem))
            if problem.isolated:
                kb.op("dup", tile[0, :BLOCK], scalar=0.0)


def _gm_to_l1(kb: KernelBuilder, problem: Micro) -> None:
    # Rows on their way into fractals stay rows even where one begins as the other ends.
    place = _gm(kb, problem, "x", apart=False)
    with kb.part("aic"), kb.loop("i", 0, problem.count) as i:
        tile = kb.buffer("tile", "L1", FMT, _shape(problem))
        kb.copy(tile[:, :], place(i), **way(problem))
        if problem.isolated:
            probe = kb.buffer("probe", "L0A", FMT, (1, BLOCK))
            kb.copy(probe[:, :], tile[0, :BLOCK])


def _l1_to_gm(kb: KernelBuilder, problem: Micro) -> None:
    shape = _shape(problem)
    x, place = kb.tensor("x", FMT, shape, "in"), _gm(kb, problem, "y")
    with kb.part("aic"):
        tile = kb.buffer("tile", "L1", FMT, shape)
        kb.copy(tile[:, :], x[:, :])
        with kb.loop("i", 0, problem.count) as i:
            kb.copy(place(i), tile[:, :], **way(problem))


def _gm_to_l0(space: str, kb: KernelBuilder, problem: Micro) -> None:
    """Straight into L0; alone means that a product reads each tile before the next one comes."""
    columns = problem.bytes // FMT_BYTES // 16
    x, one = kb.tensor("x", FMT, (16 * _blocks(problem), columns), "in"), kb.tensor("one", FMT, (16, 16), "in")
    with kb.part("aic"):
        other = kb.buffer("other", "L0B" if space == "L0A" else "L0A", FMT, (16, 16))
        acc = kb.buffer("acc", "L0C", "fp32", (16, 16))
        kb.copy(other[:, :], one[:, :])
        with kb.loop("i", 0, problem.count) as i:
            tile = kb.buffer("tile", space, FMT, (16, columns))
            kb.copy(tile[:, :], x[_rows(problem, i, 16), :])
            if problem.isolated:
                corner = tile[:, :16]
                pair = (corner, other[:, :]) if space == "L0A" else (other[:, :], corner)
                kb.op("mmad", acc[:, :], *pair)


def _l1_to(space: str, kb: KernelBuilder, problem: Micro) -> None:
    elements = problem.bytes // FMT_BYTES
    shape = {"L0A": (16, elements // 16), "L0B": (elements // 16, 16), "BT": (1, elements)}[space]
    x = kb.tensor("x", FMT, (1, elements), "in")
    with kb.part("aic"):
        tile = kb.buffer("tile", "L1", FMT, shape)
        kb.copy(tile[0, :shape[1]], x[0, :shape[1]])
        with kb.loop("i", 0, 1 if problem.isolated else problem.count):
            target = kb.buffer("target", space, FMT, shape)
            kb.copy(target[:, :], tile[:, :])


def _l0c_to_gm(kb: KernelBuilder, problem: Micro) -> None:
    """Accumulators of fp32 as they are."""
    columns = problem.bytes // 4 // 16
    y = kb.tensor("y", "fp32", (_blocks(problem) * 16, columns), "out")
    _drain(kb, problem, columns, lambda i: y[_rows(problem, i, 16), :])


def _l0c_to_l1(kb: KernelBuilder, problem: Micro) -> None:
    """Accumulators as fp16: ``bytes`` are what arrives."""
    columns = problem.bytes // FMT_BYTES // 16
    _drain(kb, problem, columns, lambda i: kb.buffer("tile", "L1", FMT, (16, columns))[:, :])


def _drain(kb: KernelBuilder, problem: Micro, columns: int, target: Callable[[Expr], Slice]) -> None:
    with kb.part("aic"):
        a0, b0 = filled_l0(kb, problem.fmt, 16, 16, columns)
        acc = kb.buffer("acc", "L0C", "fp32", (16, columns))
        kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])
        with kb.loop("i", 0, problem.count) as i:
            kb.op("fixpipe", target(i), acc[:, :])
            if problem.isolated:
                kb.op("mmad", acc[:, :], a0[:, :], b0[:, :])


#: Emits the copies of an operation.
TRANSFERS: dict[str, Callable[[KernelBuilder, Micro], None]] = {
    "copy_gm_ub": _gm_to_ub, "copy_ub_gm": _ub_to_gm, "copy_gm_l1": _gm_to_l1, "copy_l1_gm": _l1_to_gm,
    "copy_gm_l0a": partial(_gm_to_l0, "L0A"), "copy_gm_l0b": partial(_gm_to_l0, "L0B"),
    "copy_l1_l0a": partial(_l1_to, "L0A"), "copy_l1_l0b": partial(_l1_to, "L0B"), "copy_l1_bt": partial(_l1_to, "BT"),
    "copy_l0c_gm": _l0c_to_gm, "copy_l0c_l1": _l0c_to_l1,
}
