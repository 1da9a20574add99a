"""The multiplication of an MSD kernel: Cube multiplies stacked components with the weights as they are."""

from __future__ import annotations

from functools import partial

from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.mainloop import Held, Stream, accumulate, bring, drain, multiply_groups
from msdsim.dataflows.cube.operands import element_bits
from msdsim.dataflows.cube.streams import StoredWeights, hold_rows
from msdsim.dataflows.gemm.msd_context import MsdContext
from msdsim.formats.mx import MX_BLOCK
from msdsim.ir import Const, Expr, Handle, Slice, at, minimum, ragged, tiles_of
from msdsim.units import ceil_div, round_up


class Multiply:
    """The stages of the AIC."""

    def __init__(self, ctx: MsdContext) -> None:
        self.ctx, self.kb, self.tile = ctx, ctx.kb, ctx.tile
        self.weights = StoredWeights(ctx.kb, ctx.w, ctx.tile.base_n, ctx.problem.trans_b)

    def prologue(self) -> None:
        """Before the first tile: fetch weights while Vector splits.  Cores without tiles only meet the others."""
        ctx, kb = self.ctx, self.kb
        if ctx.given:
            return
        self.prefetch()
        if not self.tile.a_resident:
            with kb.when(kb.core >= ctx.grid.tiles * ctx.k_parts):
                ctx.wait_for_split()

    def hold(self) -> Held:
        """All K of the only tile of rows, loaded once."""
        ctx, m, k = self.ctx, self.ctx.problem.m, self.ctx.problem.k
        ctx.wait_for_split()
        return hold_rows(self.kb, self.tile, ctx.scheme.component, (m, k), round_up(k, 2),
                         lambda number, depth: ctx.rows_of_a(None, number, at(0, m), depth), ctx.passes)

    def tile_product(self, t: Expr, place: OutputTile, held: Held | None) -> Slice:
        """All K of an output tile; A where it lies if it is ``held`` in L1."""
        acc = self._accumulator(place)
        a, b = self._operands(place, Const(0), t - self.kb.core)
        accumulate(self.kb, self.tile, self.ctx.kinds, acc, self.ctx.problem.k, held or a, b, unit_flag=not self.tile.direct)
        return acc

    def part_product(self, unit: Expr, place: OutputTile) -> None:
        """A part of K of an output tile, neighbouring parts on neighbouring cores, to a place of its own."""
        ctx, t, part = self.ctx, unit // self.ctx.k_parts, unit % self.ctx.k_parts
        acc = self._accumulator(place)
        a, b = self._operands(place, part * ctx.part_k, unit - self.kb.core)
        accumulate(self.kb, self.tile, ctx.kinds, acc, ragged(ctx.problem.k, ctx.part_k, part), a, b, unit_flag=True)
        rows, cols = acc.sizes
        drain(self.kb, ctx.parts[t, part, :rows, :cols], acc)

    def _accumulator(self, place: OutputTile) -> Slice:
        tile = self.tile
        acc = self.kb.buffer("acc", "L0C", self.ctx.scheme.sums, (tile.base_m, tile.base_n), tile.l0c_ring)
        return acc[: place.rows * tile.passes, : place.cols]

    def _operands(self, place: OutputTile, first: Expr, turn: Expr) -> tuple[Stream, Stream]:
        """Loaders of both operands of a tile for K ranges counted from ``first``; ``turn`` is zero for what this core
        multiplies first."""
        ctx, kb, tile = self.ctx, self.kb, self.tile
        rows, cols = place.rows, place.cols

        def load_a(a1: Handle, start: Expr, size: Expr) -> None:
            if not (tile.stepwise or ctx.given):
                # The first components of the core; weights, which come before them, do not wait for the split.
                with kb.when((turn + start).equals(0)):
                    ctx.wait_for_split()
            for number in range(ctx.passes):
                kb.copy(a1[at(rows * number, rows), :size],
                        ctx.rows_of_a(place, number, at(0, rows), at(first + start, size)))

        b = self.weights.stream(place, first)
        if ctx.block_scales is None:
            return Stream(load_a), b
        block = first // MX_BLOCK
        a_scales, row_tile, columns = ctx.block_scales, place.row_tile, at(place.nt * tile.base_n, cols)

        def load_a_scales(sa1: Handle, start: Expr, count: Expr) -> None:
            blocks = at(block + start, count)
            for number in range(ctx.passes):
                kb.copy(sa1[at(rows * number, rows), :count], a_scales[row_tile, number, :rows, blocks])

        def load_b_scales(sb1: Handle, start: Expr, count: Expr) -> None:
            kb.copy(sb1[:count, :cols], ctx.scale.at(place.expert, at(block + start, count), columns))

        return Stream(load_a, load_a_scales), Stream(b.load, load_b_scales)

    def pack(self, t: Expr, place: OutputTile, p: Expr) -> None:
        """The products of the groups of one ring slot, each a sum of its own::

            group fits an L1 tile:  a1, b1 <- pack of groups;  for j: acc <- group j through L0; ring[j] <- acc
            longer group:           acc <- group through L1 and L0; ring <- acc
        """
        ctx, kb, tile, k = self.ctx, self.kb, self.tile, self.ctx.problem.k
        assert ctx.group is not None
        a, b = self._operands(place, p * ctx.pack_k, t - kb.core + p)
        if ctx.group > tile.l1_k:
            acc = self._accumulator(place)
            accumulate(kb, tile, ctx.kinds, acc, ragged(k, ctx.group, p), a, b, unit_flag=not tile.direct)
            ctx.ring.drain(ctx.turn(t), place, acc, p)
            return
        rows, cols = place.rows, place.cols
        depth = at(0, ragged(k, ctx.pack_k, p))
        b1 = bring(kb, tile, ctx.kinds, "b", cols, b, depth)
        if tile.stepwise:
            # Weights do not wait for the split.
            with kb.when(t.equals(kb.core)):
                kb.wait_signal("split_done", "MTE2")
        a1 = bring(kb, tile, ctx.kinds, "a", rows * ctx.passes, a, depth)
        multiply_groups(kb, tile, ctx.kinds, ctx.group, depth.size, a1, b1, partial(self._accumulator, place),
                        lambda j, acc: ctx.ring.drain(ctx.turn(t), place, acc, p, j), unit_flag=not tile.direct)

    def prefetch(self) -> None:
        """Fetch weight tiles while Vector splits: what is in L2 afterwards is not waited for again.

        The first tile needs no fetching, since its load itself does not wait for the split (unless that of A comes first).
        """
        ctx, kb, tile, units = self.ctx, self.kb, self.tile, self.ctx.grid.tiles * self.ctx.k_parts
        depth = self._warm_depth()
        pieces = tile.l1_k // depth if depth else 0
        first = 0 if tile.a_resident else pieces
        last = min(first + pieces * tile.prefetch, ceil_div(ctx.part_k, depth)) if depth else 0
        if last <= first:
            return
        unit = minimum(kb.core, units - 1)
        part = unit % ctx.k_parts
        k = ragged(ctx.problem.k, ctx.part_k, part)
        with (
            kb.when(kb.core < units), kb.loop("f", first, minimum(last, tiles_of(k, depth))) as f,
            ctx.grid.place(kb, unit // ctx.k_parts) as place,
        ):
            shape = (tile.base_n, depth) if ctx.problem.trans_b else (depth, tile.base_n)
            warm = kb.buffer("warm", "L1", ctx.scheme.weights, shape)
            self.weights.copy(warm, place, at(part * ctx.part_k + f * depth, ragged(k, depth, f)))

    def _warm_depth(self) -> int:
        """K of the pieces in which weights are fetched: the largest even part of an L1 tile that L1 has room for, or 0."""
        chip, tile, kinds = self.ctx.chip, self.tile, self.ctx.kinds
        bits_a, bits_b = element_bits(kinds.a), element_bits(kinds.b)
        per_k = tile.base_m * bits_a / 8 + tile.base_n * bits_b / 8
        if kinds.mx:
            per_k += (tile.base_m + tile.base_n) / MX_BLOCK
        room = chip.buffers.l1_bytes - tile.l1_ring * tile.l1_k * per_k
        if tile.a_resident:
            room -= tile.base_m * self.ctx.problem.k * bits_a / 8
        fits = [d for d in range(2, tile.l1_k + 1, 2) if tile.l1_k % d == 0 and d * tile.base_n * bits_b / 8 <= room]
        return fits[-1] if fits else 0
