"""The split of an MSD kernel: Vector turns rows of x into components and their row scale."""

from __future__ import annotations

from collections.abc import Callable

from msdsim.dataflows.cube.rows import RowBlock
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.dataflows.vector.components import SMALLEST, decompose, narrow
from msdsim.errors import TilingError
from msdsim.ir import Const, Expr, Slice, at, ragged
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.units import ceil_div


def ring_depth(ctx: MsdContext) -> int:
    """Ring of the tiles of x: no deeper than there are loads for it to run ahead of.  Few rows give every AIV one tile at most,
    and the second buffer's room is better used for more of K, since x is read twice where a row does not fit."""
    tile, alone = ctx.tile, ctx.row_blocks.count <= ctx.chip.aiv and ctx.problem.k <= ctx.tile.decompose_k
    return 1 if alone and not tile.stepwise else tile.ub_ring


class RowSplit:
    """Emits the split into the AIV part."""

    def __init__(self, ctx: MsdContext) -> None:
        self.ctx, self.kb, self.tile = ctx, ctx.kb, ctx.tile
        self.k_tiles = ceil_div(ctx.problem.k, ctx.tile.decompose_k)
        self.ring = ring_depth(ctx)
        group, decompose_k = ctx.group, ctx.tile.decompose_k
        if ctx.row_sum is not None and group is not None and self.k_tiles > 1 and decompose_k % group and group % decompose_k:
            raise TilingError(f"tiling decompose_k={decompose_k} cuts groups of {group} unevenly, whose sums the offsets need; "
                              f"give a multiple or a divisor of {group}")

    def emit(self) -> None:
        """Rows of x to components: ``r = x * f; a1 = round(r / M); r -= a1 * M; r *= g; a2 = round(r / M) ...``

        Stepwise, only the row statistics; the components follow with :meth:`step`.
        """
        self.row_blocks("b", self._rows)

    def step(self, start: Expr, size: Expr, depth: int) -> None:
        """Components of the K range ``start +: size``, at most ``depth``."""
        ctx, kb = self.ctx, self.kb

        def rows_of(block: RowBlock) -> None:
            top = kb.buffer("step_top", "UB", "fp32", (self.tile.decompose_m, 1), self.tile.ub_ring)[: block.rows, 0]
            assert ctx.row_top is not None
            kb.copy(top, ctx.row_top.at(block.expert, at(block.row, block.rows), 0))
            xf, q = self.load_x(block, start, size, depth, "_step")
            self.decompose(block, start, xf, q, top)

        self.row_blocks("bs", rows_of)

    def row_blocks(self, var: str, emit: Callable[[RowBlock], None]) -> None:
        """Deal blocks of ``decompose_m`` rows to the AIVs.  A block never crosses a tile of rows, so that its components are
        one rectangle of the stacked layout."""
        kb, blocks = self.kb, self.ctx.row_blocks
        with kb.each_aiv(var, blocks.count) as b, blocks.place(kb, b) as block:
            emit(block)

    def _rows(self, block: RowBlock) -> None:
        """Two sweeps over the row block's K, row statistics first; one load serves both when K is a single tile."""
        kb, k, k_tiles = self.kb, self.ctx.problem.k, self.k_tiles
        stats = _RowStatistics(self.ctx, block)
        if k_tiles == 1:
            xf, q = self.load_x(block, Const(0), Const(k))
            stats.fold(xf, q, Const(0), Const(k))
            stats.reduce()
            if not self.tile.stepwise:
                self.decompose(block, Const(0), xf, q, stats.top)
            return
        sweeps = 1 if self.tile.stepwise else 2
        with kb.loop("sweep", 0, sweeps * k_tiles) as sweep:
            at_k = sweep % k_tiles
            size = ragged(k, self.tile.decompose_k, at_k)
            xf, q = self.load_x(block, at_k * self.tile.decompose_k, size)
            with kb.when(sweep < k_tiles):
                stats.fold(xf, q, sweep, size)
            with kb.when(sweep.equals(k_tiles - 1)):
                stats.reduce()
            if sweeps == 2:
                with kb.when(sweep >= k_tiles):
                    self.decompose(block, at_k * self.tile.decompose_k, xf, q, stats.top)

    def load_x(self, block: RowBlock, start: Expr, size: Expr, depth: int = 0, suffix: str = "") -> tuple[Slice, Slice]:
        """x as FP32 in UB, and a scratch tile of the same shape; ``depth`` is its K where that is not ``decompose_k``."""
        kb, tile, rows = self.kb, self.tile, block.rows
        shape, here = (tile.decompose_m, depth or tile.decompose_k), (at(0, rows), at(0, size))
        xb = kb.buffer("xb" + suffix, "UB", "bf16", shape, self.ring)[here]
        xf = kb.buffer("xf" + suffix, "UB", "fp32", shape)
        q = kb.buffer("q" + suffix, "UB", "fp32", shape)[here]
        kb.copy(xb, self.ctx.x.at(block.expert, at(block.row, rows), at(start, size)))
        kb.op("cast", xf[here], xb)
        return xf[here], q

    def decompose(self, block: RowBlock, start: Expr, xf: Slice, q: Slice, top: Slice) -> None:
        """Components of the rows in ``xf``, whose K begins at ``start``."""
        ctx, kb, tile, spec = self.ctx, self.kb, self.tile, self.ctx.scheme.spec
        shape, size = (tile.decompose_m, xf.of.shape[1]), xf.sizes[1]
        here = (at(0, block.rows), at(0, size))
        # A single component leaves nothing to a next one.
        t = kb.buffer("t", "UB", "fp32", shape)[here] if tile.passes > 1 else q
        q16 = kb.buffer("q16", "UB", "fp16", shape)[here]
        target = at(block.inside, block.rows), at(start, size)

        def store(number: int, value: Slice) -> None:
            component = kb.buffer(f"a{number}", "UB", ctx.scheme.component, shape)[here]
            narrow(kb, component, q16, value)
            assert ctx.components is not None
            kb.copy(ctx.components[(block.row_tile, number, *target)], component)

        if not ctx.scheme.nibbles:
            decompose(kb, spec, tile.passes, xf, q, top, store, left=t)
            return
        kb.op("muls", xf, xf, scalar=spec.first_factor)
        hi = kb.buffer("hi", "UB", "fp32", shape)[here]
        kb.op("div", q, xf, top)
        kb.op("cast", q, q, round=spec.rounding)
        # q = 16 hi + lo + 8 with hi = floor(q / 16): powers of two and small integers, all exact.
        kb.op("muls", hi, q, scalar=1 / 16)
        kb.op("cast", hi, hi, round="floor")
        store(0, hi)
        kb.op("muls", t, hi, scalar=16.0)
        kb.op("sub", q, q, t)
        kb.op("adds", q, q, scalar=-8.0)
        store(1, q)


class _RowStatistics:
    """Row maximum, and row sums where offsets need them, of a block of rows, folded tile by tile of K."""

    def __init__(self, ctx: MsdContext, block: RowBlock) -> None:
        self.ctx, self.kb, self.block, self.rows = ctx, ctx.kb, block, block.rows
        self.lanes, self.top = self._vector("lanes", FOLD_LANES), self._vector("top")
        self.factor = self._vector("factor")
        # What is stored lies side by side, so that one flag covers all of it.
        groups = ctx.groups if ctx.row_sum is not None else 0
        self.stored = ctx.kb.buffer("stored", "UB", "fp32", (ctx.tile.decompose_m, 1 + groups))
        if ctx.row_sum is not None:
            self.sum_lanes = self._vector("sum_lanes", FOLD_LANES)

    def _vector(self, name: str, cols: int = 1) -> Slice:
        buffer = self.kb.buffer(name, "UB", "fp32", (self.ctx.tile.decompose_m, cols))
        return buffer[: self.rows, :cols]

    def _sum(self, group: Expr) -> Slice:
        return self.stored[: self.rows, at(1 + group, 1)]

    def fold(self, xf: Slice, scratch: Slice, index: Expr, size: Expr) -> None:
        """Take in tile ``index`` of the rows, ``size`` of K."""
        kb, ctx = self.kb, self.ctx
        kb.op("abs", scratch, xf)
        kb.op("fold_max", self.lanes, scratch, accumulate=index)
        if ctx.row_sum is None:
            return
        decompose_k, k = ctx.tile.decompose_k, ctx.problem.k
        if ctx.group is None:
            kb.op("fold_add", self.sum_lanes, xf, accumulate=index)
        elif ctx.group <= decompose_k or decompose_k >= k:
            # Whole groups inside the tile.
            each = min(ctx.group, k)
            with kb.tiles("g", size, each) as g:
                kb.op("fold_add", self.sum_lanes, Slice(xf.of, (Const(0), g.start), (self.rows, g.size)))
                kb.op("reduce_add", self._sum(index * (decompose_k // each) + g.number), self.sum_lanes)
        else:
            tiles = ctx.group // decompose_k
            kb.op("fold_add", self.sum_lanes, xf, accumulate=index % tiles)
            last = (index % tiles).equals(tiles - 1) + index.equals(ceil_div(k, decompose_k) - 1)
            with kb.when(last > 0):
                kb.op("reduce_add", self._sum(index // tiles), self.sum_lanes)

    def reduce(self) -> None:
        """Finish and store; ``top`` is then what the rows are divided by."""
        kb, ctx, e, rows = self.kb, self.ctx, self.block.expert, at(self.block.row, self.rows)
        scale = self.stored[: self.rows, 0]
        kb.op("reduce_max", self.top, self.lanes)
        kb.op("dup", self.factor, scalar=ctx.scheme.spec.first_factor)
        kb.op("div", scale, self.top, self.factor)
        assert ctx.row_scale is not None
        kb.copy(ctx.row_scale.at(e, rows, 0), scale)
        kb.op("maxs", self.top, self.top, scalar=SMALLEST)
        if ctx.row_top is not None:
            kb.copy(ctx.row_top.at(e, rows, 0), self.top)
        if ctx.row_sum is not None:
            if ctx.group is None:
                kb.op("reduce_add", self._sum(Const(0)), self.sum_lanes)
            kb.copy(ctx.row_sum.at(e, rows, at(0, ctx.groups)), self.stored[: self.rows, at(1, ctx.groups)])
