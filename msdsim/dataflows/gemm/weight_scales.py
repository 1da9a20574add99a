"""Scales and offsets of the weights in UB, and the weights scaled with them.

Scales come once for a tile of columns where there is one per channel, else for every slot, or for every UB tile where those of
a slot do not fit beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.cube.operands import Operand
from msdsim.dataflows.gemm.dequant_tiling import SlotLayout
from msdsim.dataflows.gemm.weight_context import Columns, WeightContext
from msdsim.ir import Const, Expr, Handle, KernelBuilder, Slice, at, minimum, share_of, tiles_of


@dataclass(frozen=True)
class LoadedScales:
    """Scales and offsets that lie in UB.

    Weights [k, n]: row g has those of group g for every column.  Transposed: column g has those of this AIV's columns.
    """

    kb: KernelBuilder
    layout: SlotLayout
    scales: Handle
    offsets: Handle | None

    def group_of(self, line: Expr) -> Expr:
        """Group, counted from the first whose scales are in UB, of a UB tile that starts at ``line``."""
        lay = self.layout
        return Const(0) if lay.group is None or lay.transposed or lay.scales_by_tile else line // lay.group

    def apply(self, into: Slice, weights: Slice, line: Expr, run: Expr, group: Expr) -> None:
        """``into = (weights + offset) * scale`` for weights of one group."""
        kb, lay = self.kb, self.layout
        line = Const(0) if lay.scales_by_tile else line
        here = (at(line, weights.sizes[0]), group) if lay.transposed else (group, at(0, run))
        if self.offsets is not None:
            kb.op("add", weights, weights, self.offsets[here])
        kb.op("mul", into, weights, self.scales[here])


class Scales:
    """Scales of a tile of columns; those that serve all slots are loaded at once."""

    def __init__(self, ctx: WeightContext, columns: Columns) -> None:
        self.ctx, self.columns = ctx, columns
        self.of_columns = self._load(Const(0), Const(1)) if ctx.layout.group is None else None

    def for_slot(self, start: Expr, depth: Expr) -> LoadedScales | None:
        """Those of the slot that takes ``depth`` of K from ``start``, unless they come by the tile."""
        return self.of_columns or (None if self.ctx.layout.scales_by_tile else self._load(start, depth))

    def for_tile(self, start: Expr, depth: Expr, line: Expr, size: Expr) -> LoadedScales | None:
        """Those of a UB tile of the slot, ``size`` lines from ``line``, if they come by the tile."""
        return self._load(start, depth, (line, size)) if self.ctx.layout.scales_by_tile else None

    def _load(self, start: Expr, depth: Expr, tile: tuple[Expr, Expr] | None = None) -> LoadedScales:
        """Of the slot's K, what the lines of ``tile`` (None: of this AIV) have."""
        kb, lay, tiling = self.ctx.kb, self.ctx.layout, self.ctx.tile
        ring = 1 if lay.group is None else tiling.ub_ring
        mine = share_of(self.columns.cols if lay.transposed else depth, lay.share, kb.sub)
        line, lines = tile if tile is not None else (Const(0), mine)
        groups = lay.scale_groups if tile is None or lay.transposed else lay.spans
        shape = (tiling.vector_k if tile is not None else lay.share, groups) if lay.transposed else (groups, lay.run)
        first, count = self._groups(start, depth, line, lines)

        def bring(name: str, source: Operand, fmt: str) -> Handle:
            buffer = kb.buffer(name, "UB", fmt, shape, ring)
            self._copy(buffer, source, (first, count), (line, lines))
            return buffer

        if self.ctx.scheme.mx_weights:
            codes = bring("codes", self.ctx.scale, "e8m0")
            scales = kb.buffer("scales", "UB", "fp32", shape)
            here = (at(0, lines), at(0, count)) if lay.transposed else (at(0, count), at(0, self.columns.cols))
            kb.op("decode_e8m0", scales[here], codes[here])
        else:
            scales = bring("scales", self.ctx.scale, "fp32")
        offsets = None if self.ctx.offset is None else bring("offsets", self.ctx.offset, "fp32")
        return LoadedScales(kb, lay, scales, offsets)

    def _groups(self, start: Expr, depth: Expr, line: Expr, lines: Expr) -> tuple[Expr, Expr]:
        """First group of the lines, and how many there are (the last slot may have fewer)."""
        lay = self.ctx.layout
        if lay.group is None:
            return Const(0), Const(1)
        if not lay.transposed:
            start, depth = start + self.ctx.kb.sub * lay.share + line, lines
        return start // lay.group, tiles_of(depth, lay.group)

    def _copy(self, buffer: Handle, source: Operand, groups: tuple[Expr, Expr], of_lines: tuple[Expr, Expr]) -> None:
        kb, lay, (first, count), (line, lines) = self.ctx.kb, self.ctx.layout, groups, of_lines
        expert, cols, start = self.columns.expert, self.columns.cols, self.columns.nt * self.ctx.tile.base_n
        if not lay.transposed:
            kb.copy(buffer[:count, :cols], source.at(expert, at(first, count), at(start, cols)))
            return
        with kb.loop(f"i_{buffer.of.name}", 0, count) as i:
            mine = at(start + kb.sub * lay.share + line, lines)
            # The last part of K may have slots of nothing, whose groups would lie behind the last one.
            group = first + i if self.ctx.tile.k_parts == 1 else minimum(first + i, lay.all_groups - 1)
            kb.copy(buffer[:lines, i], source.at(expert, group, mine, at(0, 1)))
