"""The sums of a converting GEMM on their way from the Cube to y: their ring, and the scaling by Vector.

Per channel, and per group of K (MX: per block)::

    y = (C [+ row_sum * offset]) * scale
    y = sum over groups of C_g scale_g [+ sum over groups of group_sum offset scale]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.gemm.convert_tiling import ConvertTiling, Packs
from msdsim.dataflows.gemm.merge_shares import MergeShares
from msdsim.dataflows.gemm.weight_ring import Columns, WeightRing
from msdsim.dataflows.ring import Ring
from msdsim.dataflows.vector.add_parts import store
from msdsim.dataflows.vector.row_sums import RowSums
from msdsim.ir import At, Const, Expr, Handle, Slice, at, ragged
from msdsim.units import ceil_div


class SumRing:
    """The ring of sums.  In GM a slot holds a pack of them, in UB each AIV's share of one."""

    def __init__(self, g: WeightRing, tile: ConvertTiling, packs: Packs) -> None:
        self.g, self.packs, self.direct = g, packs, bool(tile.sums_direct)
        self.shares = MergeShares(g.experts, tile.base_m, tile.base_n, g.chip.cores.aiv_per_aic)
        #: Several tiles of rows use the same slots of weights.
        self.several = not tile.direct and g.grid.m_tiles > 1
        # Where experts differ in tiles of rows, sums are not numbered without gaps: a single slot needs no number.
        self.depth = 1 if self.several and g.experts.uneven is not None else tile.sums
        #: Sums of an output tile, and of what a slot holds.
        total = 1 if packs.group is None else ceil_div(g.part_k, packs.group)
        self.per_tile = total if self.direct else packs.count
        if self.direct:
            shape = (g.cores, g.chip.cores.aiv_per_aic, self.depth, self.shares.rows, self.shares.cols)
        else:
            shape = (g.cores, self.depth, packs.groups, tile.base_m, tile.base_n)
        tensor = g.kb.tensor("c", "fp32", shape, "workspace", "UB" if self.direct else "GM")
        pipes = ("FIX", "V" if self.direct else "MTE2")
        self.ring = Ring.between(g.kb, tensor, self.depth, "to_vector", ("product", "merged"), pipes)

    @property
    def ub_bytes(self) -> int:
        """Bytes of UB that the ring takes."""
        return self.depth * self.shares.rows * self.shares.cols * 4 if self.direct else 0

    def _slot(self, columns: Columns, mt: Expr, p: Expr, j: Expr) -> Expr:
        number = columns.turn * self.g.grid.m_tiles + mt if self.several else columns.turn
        return (number * self.per_tile + (p * self.packs.groups + j if self.direct else p)) % self.depth

    def drain(self, columns: Columns, place: OutputTile, p: Expr, j: Expr, acc: Slice) -> None:
        """The AIC's sum of group ``j`` of pack ``p`` into its slot."""
        kb, slot, (rows, cols) = self.g.kb, self._slot(columns, place.mt, p, j), acc.sizes
        if not self.direct:
            kb.op("fixpipe", self.ring.tensor[kb.core, slot, j, :rows, :cols], acc)
            return
        with self.ring.produce():
            for sub in range(self.g.chip.cores.aiv_per_aic):
                row, own_rows, col, own_cols = self.shares.of(rows, cols, Const(sub))
                kb.op("fixpipe", self.ring.tensor[kb.core, sub, slot, :own_rows, :own_cols],
                      Slice(acc.of, (row, col), (own_rows, own_cols)))

    def in_ub(self, share: Share, p: Expr, j: Expr, start: Expr, size: Expr) -> Slice:
        """Some rows of an AIV's share of a sum, in UB."""
        kb, tile, slot = self.g.kb, share.tile, self._slot(share.columns, share.place.mt, p, j)
        if self.direct:
            return self.ring.tensor[kb.core, kb.sub, slot, at(start, size), :share.cols]
        piece = kb.buffer("ci", "UB", "fp32", (tile.merge_m, self.shares.cols), tile.ub_ring)[:size, :share.cols]
        kb.copy(piece, self.ring.tensor[kb.core, slot, j, at(share.row + start, size), at(share.col, share.cols)])
        return piece


class Share:
    """What this AIV scales of an output tile."""

    def __init__(self, ring: SumRing, tile: ConvertTiling, columns: Columns, place: OutputTile) -> None:
        self.tile, self.columns, self.place, self.e = tile, columns, place, place.expert
        self.row, self.rows, self.col, self.cols = ring.shares.of(place.rows, place.cols, ring.g.kb.sub)

    def tensor_rows(self, start: Expr, size: Expr) -> At:
        """Rows of y from ``start`` of the share."""
        return at(self.place.row + self.row + start, size)

    def tensor_cols(self) -> At:
        """Columns of y."""
        return at(self.place.nt * self.tile.base_n + self.col, self.cols)


class Merge:
    """The scaling, on the AIVs."""

    def __init__(self, g: WeightRing, tile: ConvertTiling, packs: Packs, ring: SumRing, row_sums: RowSums | None) -> None:
        self.g, self.kb, self.tile, self.packs, self.ring, self.row_sums = g, g.kb, tile, packs, ring, row_sums
        self.shape = (tile.merge_m, ring.shares.cols)
        self.totals: Handle | None = None
        self.shifts: Handle | None = None

    def declare(self) -> None:
        """Buffers that outlive an output tile, at the beginning of the AIV part: what the groups add up to."""
        if self.packs.group is None:
            return
        whole = self.ring.shares.rows, self.ring.shares.cols
        self.totals = self.kb.buffer("totals", "UB", "fp32", whole)
        if self.row_sums is not None:
            self.shifts = self.kb.buffer("shifts", "UB", "fp32", whole)

    def pack(self, columns: Columns, place: OutputTile, p: Expr) -> None:
        """Pack ``p`` of an output tile; the last one finishes it."""
        kb, ring, share = self.kb, self.ring, Share(self.ring, self.tile, columns, place)
        if self.packs.group is None:
            self._channel(share)
            return
        total = ceil_div(self.g.part_k, self.packs.group)
        first, count = p * self.packs.groups, ragged(total, self.packs.groups, p)
        before = columns.part * total
        scales, offsets = self._per_column(share, before + first, count)
        of_rows = self._per_row(share, self.ring.shares.rows, Const(0), share.rows, before + first, count)
        assert self.totals is not None
        with (
            nullcontext() if ring.direct else ring.ring.consume(), kb.loop("j", 0, count) as j,
            ring.ring.consume() if ring.direct else nullcontext(), self._row_tiles(share) as (start, size),
        ):
            c, there = ring.in_ub(share, p, j, start, size), (at(start, size), at(0, share.cols))
            scale = scales[j, :share.cols]
            self._add_up(first + j, self.totals[there], c, scale)
            if offsets is not None and of_rows is not None and self.shifts is not None:
                u = kb.buffer("u", "UB", "fp32", self.shape)[:size, :share.cols]
                kb.op("mul", u, offsets[j, :share.cols], of_rows[at(start, size), at(j, 1)])
                self._add_up(first + j, self.shifts[there], u, scale)
        with kb.when(p.equals(self.packs.count - 1)), self._row_tiles(share, "rf") as (start, size):
            there = (at(start, size), at(0, share.cols))
            if self.shifts is not None:
                kb.op("add", self.totals[there], self.totals[there], self.shifts[there])
            self._store(share, start, size, self.totals[there])

    def _add_up(self, number: Expr, into: Slice, value: Slice, scale: Slice) -> None:
        """``into += value * scale``; the first of an output tile starts the sum."""
        kb = self.kb
        with kb.when(number.equals(0)):
            kb.op("mul", into, value, scale)
        with kb.when(number > 0):
            kb.op("mul", value, value, scale)
            kb.op("add", into, into, value)

    def _channel(self, share: Share) -> None:
        kb, here = self.kb, at(0, share.cols)
        scales, offsets = self._per_column(share, Const(0), Const(1))
        with self.ring.ring.consume(), self._row_tiles(share) as (start, size):
            c = self.ring.in_ub(share, Const(0), Const(0), start, size)
            of_rows = self._per_row(share, self.tile.merge_m, start, size, Const(0), Const(1))
            if offsets is not None and of_rows is not None:
                u = kb.buffer("u", "UB", "fp32", self.shape)[:size, here]
                kb.op("mul", u, offsets[0, here], of_rows[:size, :1])
                kb.op("add", c, c, u)
            kb.op("mul", c, c, scales[0, here])
            self._store(share, start, size, c)

    @contextmanager
    def _row_tiles(self, share: Share, var: str = "r") -> Iterator[tuple[Expr, Expr]]:
        """Loop over the rows of a share, ``merge_m`` at a time: first row and rows."""
        with self.kb.tiles(var, share.rows, self.tile.merge_m) as r:
            yield r.start, r.size

    def _per_column(self, share: Share, first: Expr, count: Expr) -> tuple[Handle, Handle | None]:
        """Scales and offsets of some groups, for the columns of a share."""
        return load_per_column(self.g, share.e, share.tensor_cols(), (first, count), (self.packs.groups, self.shape[1]))

    def _per_row(self, share: Share, rows: int, start: Expr, size: Expr, first: Expr, count: Expr) -> Handle | None:
        """Sums of rows over some groups."""
        if self.row_sums is None:
            return None
        buffer = self.kb.buffer("of_rows", "UB", "fp32", (rows, self.packs.groups), self.tile.ub_ring)
        self.kb.copy(buffer[:size, :count],
                     self.row_sums.sums.at(share.e, share.tensor_rows(start, size), at(first, count)))
        return buffer

    def _store(self, share: Share, start: Expr, size: Expr, total: Slice) -> None:
        """Round and store finished rows, or add them to what the parts of K add up to."""
        kb, there = self.kb, (share.tensor_rows(start, size), share.tensor_cols())
        if self.g.sums is not None:
            # From a tile of its own, so that the next sums do not wait for the store.
            out = kb.buffer("out", "UB", "fp32", self.shape, self.tile.ub_ring)[:size, :share.cols]
            kb.op("muls", out, total, scalar=1.0)
            kb.copy(self.g.sums.sums.at(share.e, share.columns.part, *there), out)
            return
        store(kb, self.g.problem, self.g.y.at(share.e, *there), total, self.shape, self.tile.ub_ring)


def load_per_column(g: WeightRing, e: Expert, cols: At, groups: tuple[Expr, Expr],
                    shape: tuple[int, int]) -> tuple[Handle, Handle | None]:
    """Scales and offsets in UB, a row for each of some groups of K; those of MX blocks become FP32 there."""
    kb, (first, count) = g.kb, groups

    def bring(name: str, source: Operand, fmt: str) -> Handle:
        buffer = kb.buffer(name, "UB", fmt, shape, g.tile.ub_ring)
        kb.copy(buffer[:count, :cols.size], source.at(e, at(first, count), cols))
        return buffer

    if not g.scheme.mx_weights:
        return bring("scales", g.scale, "fp32"), None if g.offset is None else bring("offsets", g.offset, "fp32")
    codes, scales = bring("codes", g.scale, "e8m0"), kb.buffer("scales", "UB", "fp32", shape)
    here = at(0, count), at(0, cols.size)
    kb.op("decode_e8m0", scales[here], codes[here])
    return scales, None
