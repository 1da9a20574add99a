"""The sums of a converting GEMM on their way from the Cube to y: their ring, and the scaling by Vector.

Per channel, and per group of K (MX: per block)::

    y = (C [+ row_sum * offset]) * scale
    y = sum over groups of C_g scale_g [+ sum over groups of group_sum offset scale]
"""

from __future__ import annotations

from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.gemm.convert_tiling import ConvertTiling, Packs
from msdsim.dataflows.gemm.sum_ring import Handover, Share, Shares, SumRing, add_up
from msdsim.dataflows.gemm.weight_ring import Columns, WeightRing
from msdsim.dataflows.vector.add_parts import store
from msdsim.dataflows.vector.row_sums import RowSums
from msdsim.ir import At, Expr, Handle, Slice, at, ragged
from msdsim.units import ceil_div


class ConvertedSums(SumRing):
    """The ring of sums of a converting GEMM."""

    def __init__(self, g: WeightRing, tile: ConvertTiling, packs: Packs) -> None:
        self.g, direct = g, bool(tile.sums_direct)
        #: Several tiles of rows use the same slots of weights.
        self.several = not tile.direct and g.grid.m_tiles > 1
        # Where experts differ in tiles of rows, sums are not numbered without gaps: a single slot needs no number.
        slots = 1 if self.several and g.experts.uneven is not None else tile.sums
        #: Sums of an output tile.
        total = 1 if packs.group is None else ceil_div(g.part_k, packs.group)
        to = Handover(slots, packs.groups, total if direct else packs.count, direct)
        shares = Shares(g.experts, tile.base_m, tile.base_n, g.kb.aiv_per_core)
        super().__init__(g.kb, shares, "fp32", 1, (tile.base_m, tile.base_n), to)

    def turn(self, columns: Columns, place: OutputTile) -> Expr:
        """The how manyth output tile of its core it is."""
        return columns.turn * self.g.grid.m_tiles + place.mt if self.several else columns.turn


class Merge:
    """The scaling, on the AIVs."""

    def __init__(self, g: WeightRing, tile: ConvertTiling, packs: Packs, ring: ConvertedSums, row_sums: RowSums | None) -> None:
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
        kb, ring, turn = self.kb, self.ring, self.ring.turn(columns, place)
        share = ring.shares.of(place, kb.sub)
        if self.packs.group is None:
            self._channel(turn, columns, share)
            return
        total = ceil_div(self.g.part_k, self.packs.group)
        first, count = p * self.packs.groups, ragged(total, self.packs.groups, p)
        groups = at(columns.part * total + first, count)
        scales, offsets = self._per_column(share, groups)
        of_rows = self._per_row(share, ring.shares.rows, at(0, share.rows), groups)
        assert self.totals is not None
        with (
            ring.consume_pack(), kb.loop("j", 0, count) as j, ring.consume_sum(),
            kb.tiles("r", share.rows, self.tile.merge_m) as rows,
        ):
            [c] = ring.in_ub(turn, share, rows, (self.tile.merge_m, self.tile.ub_ring), p, j)
            scale = scales[j, : share.cols]
            add_up(kb, first + j, self.totals[rows, : share.cols], c, scale)
            if offsets is not None and of_rows is not None and self.shifts is not None:
                u = kb.buffer("u", "UB", "fp32", self.shape)[: rows.size, : share.cols]
                kb.op("mul", u, offsets[j, : share.cols], of_rows[rows, at(j, 1)])
                add_up(kb, first + j, self.shifts[rows, : share.cols], u, scale)
        with kb.when(p.equals(self.packs.count - 1)), kb.tiles("rf", share.rows, self.tile.merge_m) as rows:
            sums = self.totals[rows, : share.cols]
            if self.shifts is not None:
                kb.op("add", sums, sums, self.shifts[rows, : share.cols])
            self._store(columns, share, rows, sums)

    def _channel(self, turn: Expr, columns: Columns, share: Share) -> None:
        kb, here, once = self.kb, at(0, share.cols), at(0, 1)
        scales, offsets = self._per_column(share, once)
        with self.ring.ring.consume(), kb.tiles("r", share.rows, self.tile.merge_m) as rows:
            [c] = self.ring.in_ub(turn, share, rows, (self.tile.merge_m, self.tile.ub_ring))
            of_rows = self._per_row(share, self.tile.merge_m, rows, once)
            if offsets is not None and of_rows is not None:
                u = kb.buffer("u", "UB", "fp32", self.shape)[: rows.size, here]
                kb.op("mul", u, offsets[0, here], of_rows[: rows.size, :1])
                kb.op("add", c, c, u)
            kb.op("mul", c, c, scales[0, here])
            self._store(columns, share, rows, c)

    def _per_column(self, share: Share, groups: At) -> tuple[Handle, Handle | None]:
        """Scales and offsets of some groups, for the columns of a share."""
        return load_per_column(self.g, share.place.expert, share.tensor_cols, groups, (self.packs.groups, self.shape[1]))

    def _per_row(self, share: Share, most: int, rows: At, groups: At) -> Handle | None:
        """Sums of rows, at most ``most``, over some groups."""
        if self.row_sums is None:
            return None
        buffer = self.kb.buffer("of_rows", "UB", "fp32", (most, self.packs.groups), self.tile.ub_ring)
        self.kb.copy(buffer[: rows.size, : groups.size],
                     self.row_sums.sums.at(share.place.expert, share.tensor_rows(rows), groups))
        return buffer

    def _store(self, columns: Columns, share: Share, rows: At, total: Slice) -> None:
        """Round and store finished rows, or add them to what the parts of K add up to."""
        kb, e, there = self.kb, share.place.expert, (share.tensor_rows(rows), share.tensor_cols)
        if self.g.sums is not None:
            # From a tile of its own, so that the next sums do not wait for the store.
            out = kb.buffer("out", "UB", "fp32", self.shape, self.tile.ub_ring)[: rows.size, : share.cols]
            kb.op("muls", out, total, scalar=1.0)
            kb.copy(self.g.sums.sums.at(e, columns.part, *there), out)
            return
        store(kb, self.g.problem, self.g.y.at(e, *there), total, self.shape, self.tile.ub_ring)


def load_per_column(g: WeightRing, e: Expert, cols: At, groups: At, shape: tuple[int, int]) -> tuple[Handle, Handle | None]:
    """Scales and offsets in UB, a row for each of some groups of K; those of MX blocks become FP32 there."""
    kb = g.kb

    def bring(name: str, source: Operand, fmt: str) -> Handle:
        buffer = kb.buffer(name, "UB", fmt, shape, g.tile.ub_ring)
        kb.copy(buffer[: groups.size, : cols.size], source.at(e, groups, cols))
        return buffer

    if not g.scheme.mx_weights:
        return bring("scales", g.scale, "fp32"), None if g.offset is None else bring("offsets", g.offset, "fp32")
    codes, scales = bring("codes", g.scale, "e8m0"), kb.buffer("scales", "UB", "fp32", shape)
    here = at(0, groups.size), at(0, cols.size)
    kb.op("decode_e8m0", scales[here], codes[here])
    return scales, None
