"""The Cube's stages: ``S = Q K^T`` and ``O = P V`` of a step, one after the other or tile by tile in turns."""

from __future__ import annotations

from msdsim.dataflows.attention.context import Chunk, Context
from msdsim.dataflows.attention.operands import Cache, LoadedQueries
from msdsim.dataflows.attention.rings import ToCube, ToVector
from msdsim.dataflows.attention.work import Step
from msdsim.dataflows.cube.mainloop import L0Tiles, through_l0
from msdsim.dataflows.cube.operands import CubeOperands
from msdsim.ir import At, Const, Expr, Handle, at, maximum, minimum, ragged, tiles_of
from msdsim.units import ceil_div


class Products:
    """What the AIC does in a step: ``cache`` and ``p`` in, ``s`` and ``o`` out."""

    def __init__(self, ctx: Context, cache: Cache, s: ToVector, p: ToCube, o: ToVector) -> None:
        self.ctx, self.kb, self.tile, self.cache = ctx, ctx.kb, ctx.tile, cache
        self.s, self.p, self.o = s, p, o
        m, tile, pv_n = ctx.cube_rows, ctx.tile, min(ctx.tile.pv_n, ctx.out_dim)
        q_k, p_v = CubeOperands(ctx.fmt, ctx.fmt, transpose_b=True), CubeOperands(ctx.fmt, ctx.fmt)
        self.qk = L0Tiles(q_k, m, tile.qk_k, tile.qk_n, tile.l0_ring, transpose_scales=True)
        self.pv = L0Tiles(p_v, m, tile.pv_k, pv_n, tile.l0_ring, "c", "d")

    # S = Q K^T

    def logits(self, step: Step, q: LoadedQueries) -> None:
        """S of a step, K in chunks through L1."""
        self._wait_for_keys()
        if self.ctx.wide_output:
            with self.kb.loop("t", 0, tiles_of(step.cols, self.tile.qk_n)) as t:
                self._logits_tile(step, q, t)
        else:
            self._logits_by_rows_of_k(step, q)
        self.s.filled()

    def _wait_for_keys(self) -> None:
        if self.cache.keys_signal is not None:
            self.kb.wait_signal(self.cache.keys_signal, self.ctx.cube_waits)

    def _logits_by_rows_of_k(self, step: Step, q: LoadedQueries) -> None:
        """K in chunks of ``l1_kv`` whole rows, columns of S in accumulators of ``qk_n``."""
        kb, tile, dim = self.kb, self.tile, self.ctx.dim
        with kb.tiles("c", step.cols, tile.l1_kv) as c:
            k1 = self.cache.keys(step, c, tile.l1_kv, at(0, dim), dim)
            with kb.tiles("b", c.size, tile.qk_n) as b:
                s0 = self._accumulator("s0", self.qk, tile.s_ring)
                self._multiply(self.qk, step, s0, q(step), k1, at(0, dim), b, Const(0))
                self.s.put(step, at(c.start + b.start, b.size), s0)

    def _logits_tile(self, step: Step, q: LoadedQueries, t: Expr) -> None:
        """``qk_n`` columns of S, K coming in chunks of ``l1_k`` columns."""
        tile, dim = self.tile, self.ctx.dim
        cols = ragged(step.cols, tile.qk_n, t)
        s0 = self._accumulator("s0", self.qk, tile.s_ring)
        with self.kb.tiles("h", dim, tile.l1_k) as h:
            k1 = self.cache.keys(step, at(t * tile.qk_n, cols), tile.qk_n, h, min(dim, tile.l1_k))
            self._multiply(self.qk, step, s0, q(step), k1, h, at(0, cols), h.number)
        self.s.put(step, at(t * tile.qk_n, cols), s0)

    # O = P V

    def output(self, step: Step) -> None:
        """O of a step: in one accumulator, or in column tiles for all of which P of the whole step stays in L1."""
        kb = self.kb
        if self.ctx.wide_output:
            self.p.wait()
            p1 = self.p.bring(step, at(0, step.cols), self.ctx.work.kv_tile)
            with kb.loop("n", 0, ceil_div(self.ctx.out_dim, self.tile.pv_n)) as n:
                self._output_tile(step, p1, n)
        else:
            self._output_by_rows_of_v(step)
        self.o.filled()

    def _output_by_rows_of_v(self, step: Step) -> None:
        """V and P in chunks of ``l1_kv`` KV rows; V is fetched before P is waited for, unless Vector makes it."""
        kb, tile, dim = self.kb, self.tile, self.ctx.out_dim
        o0 = self._accumulator("o0", self.pv, tile.o_ring)
        with kb.tiles("c", step.cols, tile.l1_kv) as c:
            if self.cache.early_values:
                v1 = self.cache.values(step, c, tile.l1_kv, at(0, dim), dim)
            with kb.when(c.number.equals(0)):
                self.p.wait()
            if not self.cache.early_values:
                v1 = self.cache.values(step, c, tile.l1_kv, at(0, dim), dim)
            p1 = self.p.bring(step, c, tile.l1_kv)
            self._multiply(self.pv, step, o0, p1, v1, at(0, c.size), at(0, dim), c.number)
        self.o.put(step, at(0, dim), o0)

    def _output_tile(self, step: Step, p1: Chunk, n: Expr) -> None:
        """``pv_n`` columns of O over all KV rows of the step, V coming in chunks of ``l1_v`` rows."""
        tile = self.tile
        cols = at(n * tile.pv_n, ragged(self.ctx.out_dim, tile.pv_n, n))
        o0 = self._accumulator("o0", self.pv, tile.o_ring)
        with self.kb.tiles("c", step.cols, tile.l1_v) as c:
            v1 = self.cache.values(step, c, tile.l1_v, cols, tile.pv_n)
            self._multiply(self.pv, step, o0, p1, v1, c, at(0, cols.size), c.number)
        self.o.put(step, cols, o0)

    # Both by turns

    def interleaved(self, new: Step, q: LoadedQueries) -> None:
        """Tiles of O of the step ``preload`` before and of S of this one by turns; either may be missing.

        Where L1 holds V of a tile of O and K of a tile of S whole, each is loaded while the other kind of tile is made.
        """
        ctx, behind = self.ctx, self.tile.preload
        old = ctx.work.step(ctx.kb.core, maximum(0, new.number - behind))
        new_live, old_live = minimum(new.number < ctx.steps, new.live), minimum(new.number >= behind, old.live)
        kb, tile, kv_tile = self.kb, self.tile, self.ctx.work.kv_tile
        with kb.when(old_live):
            self.p.wait()
        with kb.when(new_live):
            self._wait_for_keys()
        p1 = self.p.bring(old, at(0, old.cols), kv_tile, old_live)
        outputs, most = ceil_div(self.ctx.out_dim, tile.pv_n), ceil_div(kv_tile, tile.qk_n)
        # Where S has more tiles than O, several follow each tile of O.
        each, tiles = ceil_div(most, outputs), tiles_of(new.cols, tile.qk_n)
        with kb.loop("t", 0, outputs) as t:
            with kb.when(old_live):
                self._output_tile(old, p1, t)
                with kb.when(t.equals(outputs - 1)):
                    self.o.filled()
            with kb.when(minimum(new_live, t * each < tiles)):
                if each == 1:
                    self._logits_tile(new, q, t)
                else:
                    with kb.loop("b", t * each, minimum((t + 1) * each, tiles)) as b:
                        self._logits_tile(new, q, b)
        with kb.when(new_live):
            self.s.filled()

    # Through L0

    def _accumulator(self, name: str, tiles: L0Tiles, ring: int) -> Handle:
        return self.kb.buffer(name, "L0C", self.ctx.operands.sums, (tiles.m, tiles.n), ring)

    def _multiply(self, tiles: L0Tiles, step: Step, accumulator: Handle, a: Chunk, b: Chunk, depth: At, cols: At,
                  before: Expr) -> None:
        """``acc += A B``: columns ``depth`` of A, as many rows of B from its first one; ``cols`` of B.

        ``before`` is zero where this is the first product of the sum.
        """
        rows, transpose = at(0, step.rows * self.ctx.passes), tiles.kinds.transpose_b
        acc = accumulator[rows, : cols.size]
        with self.kb.tiles("d" if transpose else "e", depth.size, tiles.k) as d:
            of_a = rows, at(depth.start + d.start, d.size)
            of_b = (cols, d) if transpose else (d, cols)
            scales = (a.scales(*of_a), b.scales(*of_b)) if a.scales is not None and b.scales is not None else None
            through_l0(self.kb, tiles, acc, a.elements(*of_a), b.elements(*of_b), scales, before + d.number)
