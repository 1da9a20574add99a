"""A GEMM with the fixed core blocks and the two-level K tiles of the vendor's Matmul template."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msdsim.dataflows.cube.mainloop import L0Tiles, drain, through_l0
from msdsim.dataflows.cube.operands import MX_ELEMENTS, CubeOperands, element_format
from msdsim.formats.mx import MX_BLOCK
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, Handle, Kernel, KernelBuilder, Slice, at, maximum, minimum, share_of, tiles_of
from msdsim.problems.model import Micro
from msdsim.units import ceil_div


@dataclass(frozen=True)
class _Operand:
    """A or B: the tensor, its range of rows of A or columns of B in an output tile, at most ``most``, the side of the tensor
    that K lies on, and the scales of MX blocks, [rows or columns, blocks]."""

    kb: KernelBuilder
    tensor: Handle
    along: At
    most: int
    k_last: bool
    ring: int
    scales: Handle | None
    scale_ring: int

    def load(self, name: str, k: At, depth: int) -> Callable[[At], Slice]:
        """A range of K, at most ``depth``, to L1: the place there of a part of it."""
        shape = (self.most, depth) if self.k_last else (depth, self.most)
        tile = self.kb.buffer(name, "L1", self.tensor.of.fmt, shape, self.ring)
        self.kb.copy(self._of(tile, at(0, self.along.size), at(0, k.size)), self._of(self.tensor, self.along, k))
        return lambda inside: self._of(tile, at(0, self.along.size), inside)

    def _of(self, handle: Handle, along: At, k: At) -> Slice:
        return handle[along, k] if self.k_last else handle[k, along]

    def hold_scales(self, name: str) -> Callable[[At], Slice] | None:
        """Block scales of the tile's rows or columns come at once, for all of K."""
        if self.scales is None:
            return None
        blocks = self.scales.of.shape[1]
        held, rows = self.kb.buffer(name, "L1", "e8m0", (self.most, blocks), self.scale_ring), at(0, self.along.size)
        self.kb.copy(held[rows, :], self.scales[self.along, :])
        return lambda of_k: held[rows, of_k]


class Matmul:
    """Core ``c`` owns block ``c % blocks of M`` by ``c // blocks of M``; its tiles go down M first."""

    def __init__(self, problem: Micro, chip: Chip) -> None:
        self.problem = p = problem
        self.kb = kb = KernelBuilder("micro_matmul", chip.cores.aic, chip.cores.aiv_per_aic)
        fmt = element_format(p.fmt)
        self.sums = "int32" if p.fmt.startswith("int") else "fp32"
        self.x = kb.tensor("x", fmt, (p.m, p.k), "in")
        self.w = kb.tensor("w", fmt, (p.n, p.k) if p.trans_b else (p.k, p.n), "in")
        self.x_scales: Handle | None = None
        self.w_scales: Handle | None = None
        if p.fmt in MX_ELEMENTS:
            blocks = ceil_div(p.k, MX_BLOCK)
            self.x_scales = kb.tensor("sx", "e8m0", (p.m, blocks), "in")
            self.w_scales = kb.tensor("sw", "e8m0", (p.n, blocks), "in")
        self.y = kb.tensor("y", "int32" if self.sums == "int32" else p.out, (p.m, p.n), "out")
        self.l0 = L0Tiles(CubeOperands(p.fmt, p.fmt, p.trans_b), p.base_m, p.base_k, p.base_n, p.l0_ring, transpose_scales=True,
                          unit_flag=p.unit_flag)

    def kernel(self) -> Kernel:
        p, kb = self.problem, self.kb
        with kb.part("aic"), self._tiles() as (rows, cols):
            acc = kb.buffer("acc", "L0C", self.sums, (p.base_m, p.base_n))
            a = _Operand(kb, self.x, rows, p.base_m, True, p.l1_ring, self.x_scales, p.scale_ring)
            b = _Operand(kb, self.w, cols, p.base_n, p.trans_b, p.l1_ring, self.w_scales, p.scale_ring)
            whole = acc[: rows.size, : cols.size]
            self._accumulate(whole, a, b)
            if p.unit_flag:
                drain(kb, self.y[rows, cols], whole)
            else:
                kb.op("fixpipe", self.y[rows, cols], whole)
        return kb.build()

    @contextmanager
    def _tiles(self) -> Iterator[tuple[At, At]]:
        """Rows and columns of the output tiles of this core, M in ``passes`` parts."""
        p, kb = self.problem, self.kb
        pass_m = ceil_div(p.m, p.passes)
        single_m, single_n = p.single_m or pass_m, p.single_n or p.n
        blocks_m = ceil_div(pass_m, single_m)
        mi, ni = kb.core % blocks_m, kb.core // blocks_m
        with kb.loop("p", 0, p.passes) as turn:
            my_m = minimum(single_m, maximum(0, share_of(p.m, pass_m, turn) - mi * single_m))
            my_n = share_of(p.n, single_n, ni)
            with kb.loop("nt", 0, tiles_of(my_n, p.base_n)) as nt, kb.loop("mt", 0, tiles_of(my_m, p.base_m)) as mt:
                rows, cols = minimum(p.base_m, my_m - mt * p.base_m), minimum(p.base_n, my_n - nt * p.base_n)
                yield (at(turn * pass_m + mi * single_m + mt * p.base_m, rows),
                       at(ni * single_n + nt * p.base_n, cols))

    def _accumulate(self, acc: Slice, a: _Operand, b: _Operand) -> None:
        """All of K: the operand with the deeper L1 tile is loaded in the outer loop, the other one in the inner::

            for ko:  outer <- max(step_ka, step_kb) * base_k of K
              for ki:  inner <- min(step_ka, step_kb) * base_k of K
                for k0:  acc += a0 b0 over base_k
        """
        p, kb = self.problem, self.kb
        outer_k, inner_k = max(p.step_ka, p.step_kb) * p.base_k, min(p.step_ka, p.step_kb) * p.base_k
        a_outside = p.step_ka >= p.step_kb
        outside, inside = (a, b) if a_outside else (b, a)
        a_scales, b_scales = a.hold_scales("sa1"), b.hold_scales("sb1")
        with kb.loop("ko", 0, ceil_div(p.k, outer_k)) as ko:
            size_o = share_of(p.k, outer_k, ko) if p.k % outer_k else Const(outer_k)
            outer = outside.load("outer", at(ko * outer_k, size_o), outer_k)
            with kb.loop("ki", 0, tiles_of(size_o, inner_k)) as ki:
                size_i = self._rest(size_o, inner_k, ki)
                inner = inside.load("inner", at(ko * outer_k + ki * inner_k, size_i), inner_k)
                with kb.loop("k0", 0, tiles_of(size_i, p.base_k)) as k0:
                    size = self._rest(size_i, p.base_k, k0)
                    tiles = outer(at(ki * inner_k + k0 * p.base_k, size)), inner(at(k0 * p.base_k, size))
                    a1, b1 = tiles if a_outside else reversed(tiles)
                    blocks = at((ko * outer_k + ki * inner_k + k0 * p.base_k) // MX_BLOCK, tiles_of(size, MX_BLOCK))
                    scales = (a_scales(blocks), b_scales(blocks)) if a_scales is not None and b_scales is not None else None
                    through_l0(kb, self.l0, acc, a1, b1, scales, ko + ki + k0)

    def _rest(self, total: Expr, tile: int, index: Expr) -> Expr:
        """Size of tile ``index`` of a range of K."""
        return minimum(tile, total - index * tile) if self.problem.k % tile else Const(tile)
