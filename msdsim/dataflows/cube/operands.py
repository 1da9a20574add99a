"""Operands of a GEMM: tensors with an expert in front, and their formats on the Cube."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.formats.mx import MX_ELEMENTS as MX_ELEMENTS
from msdsim.formats.mx import element_bits as element_bits
from msdsim.formats.mx import element_format as element_format
from msdsim.formats.schemes import Scheme
from msdsim.ir import At, ExprLike, Handle, KernelBuilder, Slice, at
from msdsim.ir.kernel import Layout, Role
from msdsim.moved import old_names
from msdsim.problems.shapes import GemmShape as GemmShape
from msdsim.units import ceil_div

__getattr__ = old_names(__name__)


@dataclass(frozen=True)
class CubeOperands:
    """Formats of A and B as the chip file names them, and whether B lies in L1 as [columns, K]."""

    a: str
    b: str
    transpose_b: bool = False

    @property
    def mx(self) -> bool:
        return self.a in MX_ELEMENTS


@dataclass(frozen=True)
class Operand:
    """A tensor of a GEMM in GM.  That of a grouped GEMM has the expert as its first dimension, unless the rows of all experts
    lie one after the other along ``rows_axis``."""

    handle: Handle
    grouped: bool
    rows_axis: int | None = None

    def at(self, expert: Expert, *ranges: At | ExprLike) -> Slice:
        """A rectangle of one expert's tensor."""
        if self.rows_axis is not None and expert.first is not None:
            rows = ranges[self.rows_axis]
            assert isinstance(rows, At)
            moved = at(expert.first + rows.start, rows.size)
            ranges = (*ranges[: self.rows_axis], moved, *ranges[self.rows_axis + 1 :])
        return self.handle[(expert.index, *ranges) if self.grouped else ranges]


def operand(kb: KernelBuilder, problem: GemmShape, name: str, fmt: str, shape: tuple[int, ...], role: Role,
            rows_axis: int | None = None) -> Operand:
    """Declare a tensor of every expert; ``shape`` is that of one, ``rows_axis`` the axis of its rows if it has any.  Weights,
    ``w``, lie as the problem says."""
    layout: Layout = "nz" if name == "w" and problem.layout == "nz" else "nd"
    experts = Experts(problem)
    if experts.uneven is not None and rows_axis is not None:
        shape = (*shape[:rows_axis], experts.total_rows, *shape[rows_axis + 1 :])
        return Operand(kb.tensor(name, fmt, shape, role), False, rows_axis)
    grouped = problem.kind == "grouped_gemm"
    return Operand(kb.tensor(name, fmt, (experts.count, *shape) if grouped else shape, role, layout=layout), grouped)


def inputs(kb: KernelBuilder, problem: GemmShape, scheme: Scheme) -> tuple[Operand, Operand]:
    """Declare ``x`` [m, k], and ``w`` [k, n], or [n, k] with ``trans_b``, as a method stores it."""
    shape = (problem.n, problem.k) if problem.trans_b else (problem.k, problem.n)
    x = operand(kb, problem, "x", element_format(problem.x), (problem.m, problem.k), "in", rows_axis=0)
    return x, operand(kb, problem, "w", scheme.weights, shape, "in")


def scales(kb: KernelBuilder, problem: GemmShape, scheme: Scheme) -> tuple[Operand, Operand | None]:
    """Declare the scales of quantized weights, and their offsets where the problem has them: a row of columns for each group of
    K; a column, [groups, n, 1], where Vector scales transposed weights, so that each lies beside its line."""
    groups = ceil_div(problem.k, scheme.group(problem.group) or problem.k)
    shape = (groups, problem.n, 1) if problem.trans_b and scheme.scales_weights else (groups, problem.n)
    scale = operand(kb, problem, "scale", "e8m0" if scheme.mx_weights else "fp32", shape, "in")
    return scale, operand(kb, problem, "offset", "fp32", shape, "in") if problem.offset else None


def output(kb: KernelBuilder, problem: GemmShape) -> Operand:
    """Declare ``y`` [m, n]."""
    return operand(kb, problem, "y", problem.out, (problem.m, problem.n), "out", rows_axis=0)


def k_groups(problem: GemmShape) -> int:
    """Groups of scales along K: one per channel."""
    return 1 if problem.group is None else ceil_div(problem.k, problem.group)
