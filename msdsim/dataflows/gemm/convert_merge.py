"""The sums of a converting GEMM on their way from the Cube to y: their ring, and the scaling by Vector.

Per channel, and per group of K (MX: per block)::

    y = (C [+ row_sum * offset]) * scale
    y = sum over groups of C_g scale_g [+ sum over groups of group_sum offset scale]

Sums of rows in FP16 meet the power of two of their row: ``C * power``, or ``(sum over groups of C_g scale_g) * power``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msdsim.dataflows.base import require_path, require_positive, require_slots
from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling
from msdsim.dataflows.gemm.sum_ring import Handover, Share, Shares, SumRing, add_up
from msdsim.dataflows.gemm.weight_context import Columns, WeightContext
from msdsim.dataflows.vector.add_parts import store
from msdsim.dataflows.vector.half_rows import HalfRows
from msdsim.dataflows.vector.row_sums import RowSums
from msdsim.errors import TilingError
from msdsim.ir import At, Expr, Handle, KernelBuilder, Slice, at, ragged
from msdsim.units import ceil_div


@dataclass(frozen=True, kw_only=True)
class ConvertTiling(DequantTiling):
    """That of a dequantizing dataflow; ``sums`` slots of the ring in which sums go from the Cube to Vector, which scales
    ``merge_m`` rows of them at a time.  ``sums_direct`` 1 puts that ring into UB, where the chip has the path, 0 into GM."""

    merge_m: int = 1
    sums: int = 2
    sums_direct: int = 0


@dataclass(frozen=True)
class Packs:
    """How K is cut into what the Cube sums up, and into what it hands over at a time (a pack).

    ``group`` is K of one sum (None: all K of a part).  A pack is a slot of weights with whole groups in it, or a group of
    several slots: ``slots`` of weights, ``groups`` of sums, ``count`` packs in a part.
    """

    group: int | None
    slots: int
    groups: int
    count: int

    @classmethod
    def of(cls, ctx: WeightContext) -> Packs:
        """Those of a kernel; TilingError where slots, parts of K and groups do not fit each other."""
        group, slot_k = ctx.scheme.group(ctx.problem.group), ctx.tile.slot_k
        if group is None or group >= ctx.part_k == ctx.problem.k:
            # One group of all K has one sum, scaled like any other.
            return cls(group, ctx.k_slots, 1, 1)
        if slot_k % group and group % slot_k:
            raise TilingError(f"tiling slot_k={slot_k} cuts groups of {group} along k unevenly; give a multiple or a divisor "
                              f"of {group}")
        if ctx.k_parts > 1 and (ctx.part_k * ctx.k_parts != ctx.problem.k or ctx.part_k % max(group, slot_k)):
            raise TilingError(f"tiling k_parts={ctx.tile.k_parts} cuts K={ctx.problem.k} into parts of {ctx.part_k}, not "
                              f"whole groups of {group} and slots of {slot_k}; give another number of parts, or 1")
        slots = max(1, group // slot_k)
        return cls(group, slots, max(1, slot_k // group), ceil_div(ctx.k_slots, slots))


def check_sums(ctx: WeightContext, tile: ConvertTiling) -> None:
    """TilingError for what the ring of sums does not allow."""
    require_positive(tile, "direct", "sums_direct")
    require_slots(tile, "sums", ctx.chip)
    require_path(tile, "sums_direct", ctx.chip, "L0C", "UB")


@dataclass(frozen=True)
class OfRows:
    """What the AIVs make of rows of x: their sums, where offsets need them, and FP16 over a power of two."""

    sums: RowSums | None
    halves: HalfRows | None

    @property
    def any(self) -> bool:
        return self.sums is not None or self.halves is not None

    def emit(self) -> None:
        """Make it; the Cube waits for the FP16 rows."""
        if self.halves is not None:
            self.halves.emit()
        if self.sums is not None:
            self.sums.emit()

    def wait(self, kb: KernelBuilder) -> None:
        """Until all AIVs have made theirs."""
        if self.halves is not None:
            kb.wait_signal("halves", "MTE2")
        if self.sums is not None:
            kb.wait_signal("row_sums", "MTE2")

    def powers(self, ctx: WeightContext, e: Expert, rows: At, most: int) -> Slice | None:
        """Powers of some rows, at most ``most``, in UB."""
        return None if self.halves is None else self.halves.load(e, rows, most, ctx.tile.ub_ring)


class ConvertedSums(SumRing):
    """The ring of sums of a converting GEMM."""

    def __init__(self, ctx: WeightContext, tile: ConvertTiling, packs: Packs) -> None:
        self.ctx, direct = ctx, bool(tile.sums_direct)
        #: Several tiles of rows use the same slots of weights.
        self.several = not tile.direct and ctx.grid.m_tiles > 1
        # Where experts differ in tiles of rows, sums are not numbered without gaps: a single slot needs no number.
        slots = 1 if self.several and ctx.experts.uneven is not None else tile.sums
        #: Sums of an output tile.
        total = 1 if packs.group is None else ceil_div(ctx.part_k, packs.group)
        to = Handover(slots, packs.groups, total if direct else packs.count, direct)
        shares = Shares(ctx.experts, tile.base_m, tile.base_n, ctx.kb.aiv_per_core)
        super().__init__(ctx.kb, shares, "fp32", 1, (tile.base_m, tile.base_n), to)

    def turn(self, columns: Columns, place: OutputTile) -> Expr:
        """The how manyth output tile of its core it is."""
        return columns.turn * self.ctx.grid.m_tiles + place.mt if self.several else columns.turn


class Scaling:
    """The scaling, on the AIVs."""

    def __init__(self, ctx: WeightContext, tile: ConvertTiling, packs: Packs, ring: ConvertedSums, of_rows: OfRows) -> None:
        self.ctx, self.kb, self.tile, self.packs, self.ring, self.of_rows = ctx, ctx.kb, tile, packs, ring, of_rows
        self.shape = (tile.merge_m, ring.shares.cols)
        self.totals: Handle | None = None
        self.shifts: Handle | None = None

    def declare(self) -> None:
        """Buffers that outlive an output tile, at the beginning of the AIV part: what the groups add up to."""
        if self.packs.group is None:
            return
        whole = self.ring.shares.rows, self.ring.shares.cols
        self.totals = self.kb.buffer("totals", "UB", "fp32", whole)
        if self.of_rows.sums is not None:
            self.shifts = self.kb.buffer("shifts", "UB", "fp32", whole)

    def pack(self, columns: Columns, place: OutputTile, p: Expr) -> None:
        """Pack ``p`` of an output tile; the last one finishes it."""
        kb, ring, turn = self.kb, self.ring, self.ring.turn(columns, place)
        share = ring.shares.of(place, kb.sub)
        if self.packs.group is None:
            self._channel(turn, columns, share)
            return
        total = ceil_div(self.ctx.part_k, self.packs.group)
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
            powers = self._powers(share, rows)
            if powers is not None:
                kb.op("mul", sums, sums, powers)
            if self.shifts is not None:
                kb.op("add", sums, sums, self.shifts[rows, : share.cols])
            self._store(columns, share, rows, sums)

    def _channel(self, turn: Expr, columns: Columns, share: Share) -> None:
        kb, once = self.kb, at(0, 1)
        scales, offsets = self._per_column(share, once)
        with self.ring.ring.consume(), kb.tiles("r", share.rows, self.tile.merge_m) as rows:
            [c] = self.ring.in_ub(turn, share, rows, (self.tile.merge_m, self.tile.ub_ring))
            of_rows = self._per_row(share, self.tile.merge_m, rows, once)
            scale_channels(kb, c, scales, offsets, of_rows, self._powers(share, rows), self.shape)
            self._store(columns, share, rows, c)

    def _per_column(self, share: Share, groups: At) -> tuple[Handle, Handle | None]:
        """Scales and offsets of some groups, for the columns of a share."""
        return load_per_column(self.ctx, share.place.expert, share.tensor_cols, groups, (self.packs.groups, self.shape[1]))

    def _per_row(self, share: Share, most: int, rows: At, groups: At) -> Handle | None:
        """Sums of rows, at most ``most``, over some groups."""
        return load_per_row(self.ctx, self.of_rows.sums, share.place.expert, share.tensor_rows(rows), groups,
                            (most, self.packs.groups))

    def _powers(self, share: Share, rows: At) -> Slice | None:
        return self.of_rows.powers(self.ctx, share.place.expert, share.tensor_rows(rows), self.tile.merge_m)

    def _store(self, columns: Columns, share: Share, rows: At, total: Slice) -> None:
        """Round and store finished rows, or add them to what the parts of K add up to."""
        kb, e, there = self.kb, share.place.expert, (share.tensor_rows(rows), share.tensor_cols)
        if self.ctx.sums is not None:
            # From a tile of its own, so that the next sums do not wait for the store.
            out = kb.buffer("out", "UB", "fp32", self.shape, self.tile.ub_ring)[: rows.size, : share.cols]
            kb.op("muls", out, total, scalar=1.0)
            kb.copy(self.ctx.sums.sums.at(e, columns.part, *there), out)
            return
        store(kb, self.ctx.problem, self.ctx.y.at(e, *there), total, self.shape, self.tile.ub_ring)


def load_per_column(ctx: WeightContext, e: Expert, cols: At, groups: At,
                    shape: tuple[int, int]) -> tuple[Handle, Handle | None]:
    """Scales and offsets in UB, a row for each of some groups of K; those of MX blocks become FP32 there."""
    kb = ctx.kb

    def bring(name: str, source: Operand, fmt: str) -> Handle:
        buffer = kb.buffer(name, "UB", fmt, shape, ctx.tile.ub_ring)
        kb.copy(buffer[: groups.size, : cols.size], source.at(e, groups, cols))
        return buffer

    if not ctx.scheme.mx_weights:
        return bring("scales", ctx.scale, "fp32"), None if ctx.offset is None else bring("offsets", ctx.offset, "fp32")
    codes, scales = bring("codes", ctx.scale, "e8m0"), kb.buffer("scales", "UB", "fp32", shape)
    here = at(0, groups.size), at(0, cols.size)
    kb.op("decode_e8m0", scales[here], codes[here])
    return scales, None


def load_per_row(ctx: WeightContext, row_sums: RowSums | None, e: Expert, rows: At, groups: At,
                 shape: tuple[int, int]) -> Handle | None:
    """Sums of rows of x over some groups in UB, a column for each group, where offsets need them."""
    if row_sums is None:
        return None
    buffer = ctx.kb.buffer("of_rows", "UB", "fp32", shape, ctx.tile.ub_ring)
    ctx.kb.copy(buffer[: rows.size, : groups.size], row_sums.sums.at(e, rows, groups))
    return buffer


def scale_channels(kb: KernelBuilder, total: Slice, scales: Handle, offsets: Handle | None, of_rows: Handle | None,
                   powers: Slice | None, shape: tuple[int, int]) -> None:
    """``total = (total [* power] [+ row_sum * offset]) * scale`` with one scale for each column."""
    rows, cols = total.sizes[-2:]
    if powers is not None:
        kb.op("mul", total, total, powers)
    if offsets is not None and of_rows is not None:
        u = kb.buffer("u", "UB", "fp32", shape)[:rows, :cols]
        kb.op("mul", u, offsets[0, :cols], of_rows[:rows, :1])
        kb.op("add", total, total, u)
    kb.op("mul", total, total, scales[0, :cols])


def scale_parts(ctx: WeightContext, made: OfRows) -> Callable[[Slice, Expert, At, At], None]:
    """What scales sums of the parts of K: rows and columns of an expert, with one scale for each column."""

    def scale(total: Slice, e: Expert, rows: At, cols: At) -> None:
        (most, width), once = total.of.shape, at(0, 1)
        scales, offsets = load_per_column(ctx, e, cols, once, (1, width))
        of_rows = load_per_row(ctx, made.sums, e, rows, once, (most, 1))
        scale_channels(ctx.kb, total, scales, offsets, of_rows, made.powers(ctx, e, rows, most), (most, width))

    return scale
