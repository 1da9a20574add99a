"""The weights of a slot as an AIV walks over them, and their scales in UB."""

from __future__ import annotations

from typing import Any

from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.operands import GemmShape, Operand, share_of
from msdsim.dataflows.gemm.dequant_tiling import SMALLEST_PART, DequantTiling, Weights
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS as NUMBER_FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, at
from msdsim.ir.expr import Const, Expr
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Slice
from msdsim.units import ceil_div, round_up


class Layout:
    """How the weights of a slot lie in GM and how an AIV walks over them: ``lines`` rows of ``run`` consecutive weights.

    Weights [k, n]: a line is one k, a run the columns of the tile.  Transposed weights [n, k]: a line is one column, a run
    the K of the slot.
    """

    def __init__(self, problem: GemmShape, chip: Chip, tile: DequantTiling, weights: Weights, wide_bits: int = 16) -> None:
        self.problem, self.chip, self.tile, self.weights, self.wide_bits = problem, chip, tile, weights, wide_bits
        self.transposed = problem.trans_b
        self.group = weights.group(problem)
        lines, self.run = (tile.base_n, tile.slot_k) if self.transposed else (tile.slot_k, tile.base_n)
        #: Lines of a slot that one AIV takes.
        self.share = ceil_div(lines, chip.cores.aiv_per_aic)

    @property
    def k_extent(self) -> int:
        """K of what one AIV takes of a slot."""
        return self.tile.slot_k if self.transposed else self.share

    @property
    def scale_groups(self) -> int:
        """Rows of scales that one AIV needs for its part of a slot."""
        return 1 if self.group is None else ceil_div(self.k_extent, self.group)

    @property
    def whole_groups(self) -> bool:
        """Whether UB tiles go through one group after the other, since they do not divide it."""
        if self.group is None or self.transposed:
            return False
        return self.share % self.group == 0 and self.tile.vector_k < self.group and self.group % self.tile.vector_k != 0

    @property
    def scales_by_tile(self) -> bool:
        """Whether scales come with every UB tile, since those of a slot do not fit beside it."""
        lines = min(self.tile.vector_k, self.share)
        fits = self.bytes_per_weight(self.spans > 1) * lines * self.run + self.scale_bytes() <= self.chip.buffers.ub_bytes
        return self.group is not None and not fits

    @property
    def spans(self) -> int:
        """Groups of scales inside one UB tile."""
        if self.group is None:
            return 1
        return ceil_div(self.tile.slot_k if self.transposed else self.tile.vector_k, self.group)

    def bytes_per_weight(self, several: bool) -> float:
        """UB bytes: the stored weight and the result in rings, FP16 and FP32 between them, FP32 twice where a tile has
        ``several`` groups, which are scaled one by one."""
        stored = NUMBER_FORMATS[self.weights.fmt].bits
        return self.tile.ub_ring * (stored + self.wide_bits) / 8 + 2 + 4 + (4 if several else 0)

    def scale_bytes(self) -> int:
        """UB bytes of the scales of a slot (FP32, offsets, and E8M0 before its conversion)."""
        rings = 1 if self.group is None else self.tile.ub_ring
        each = 4 * (2 if self.problem.offset else 1) * rings + (rings + 4 if self.weights.mx else 0)
        count = self.scale_groups * (self.share if self.transposed else self.run)
        return each * count + 64

    def largest_tile(self) -> int:
        """Lines of the UB tile: the most that fit, evened out over the share, in or over whole groups."""
        room = self.chip.buffers.ub_bytes - self.scale_bytes()
        several = self.group is not None and (not self.transposed or self.scale_groups > 1)
        most = max(1, min(int(room / (self.bytes_per_weight(several) * self.run)), self.share))
        if self.group is not None and not self.transposed and most < self.group:
            # A tile of one group is smaller in memory, so that it may have more lines.
            most = max(1, min(int(room / (self.bytes_per_weight(False) * self.run)), self.share, self.group))
        even = ceil_div(self.share, ceil_div(self.share, most))
        if self.group is None or self.transposed or self.group % self.share == 0:
            return even
        if most >= self.group:
            return min(round_up(even, self.group), most // self.group * self.group)
        part = next(d for d in range(most, 0, -1) if self.group % d == 0)
        if part < most * SMALLEST_PART and self.share % self.group == 0:
            return ceil_div(self.group, ceil_div(self.group, most))
        return part

    def check(self) -> None:
        """TilingError where groups of scales would straddle a slot's share or a UB tile."""
        if self.group is None:
            return
        parts = 1 if self.transposed else self.chip.cores.aiv_per_aic
        self._check("slot_k", self.k_extent, parts, self.group)
        if not self.transposed and not self.whole_groups and self.group % self.share:
            self._check("vector_k", self.tile.vector_k, 1, self.group)

    def _check(self, name: str, size: int, parts: int, group: int) -> None:
        if size % group and group % size:
            below = next(d for d in range(min(size, group), 0, -1) if group % d == 0)
            raise TilingError(f"tiling {name}={getattr(self.tile, name)} cuts groups of {group} along k unevenly; give a "
                              f"multiple of {parts * group}, or {parts * below}")


class Scales:
    """Scales and offsets in UB: those of a tile of columns, or of an AIV's part of a slot where they come in groups.

    Weights [k, n]: row g has those of group g for every column.  Transposed: column g has those of this AIV's columns.
    """

    def __init__(self, kernel: Any, e: Expert, nt: Expr, cols: Expr) -> None:
        self.kernel, self.e, self.nt, self.cols = kernel, e, nt, cols

    def load(self, start: Expr, depth: Expr, tile: tuple[Expr, Expr] | None = None) -> None:
        """Bring the scales of the slot that takes ``depth`` of K from ``start``, or only of a UB tile of it, given by its first
        line and its lines; one scale per channel serves all slots."""
        kernel, kb, lay = self.kernel, self.kernel.kb, self.kernel.layout
        ring = 1 if lay.group is None else kernel.tile.ub_ring
        mine = share_of(self.cols if lay.transposed else depth, lay.share, kb.sub)
        #: Lines whose scales are in UB, counted from those of this AIV.
        self.line, self.lines = tile if tile is not None else (Const(0), mine)
        groups = lay.scale_groups if tile is None or lay.transposed else lay.spans
        shape = (kernel.tile.vector_k if tile is not None else lay.share, groups) if lay.transposed else (groups, lay.run)
        first, count = self._groups(start, depth)
        if kernel.weights.mx:
            codes = kb.buffer("codes", "UB", "e8m0", shape, ring)
            self._copy(codes, kernel.scale, first, count)
            self.scales = kb.buffer("scales", "UB", "fp32", shape)
            here = (at(0, self.lines), at(0, count)) if lay.transposed else (at(0, count), at(0, self.cols))
            kb.op("decode_e8m0", self.scales[here], codes[here])
        else:
            self.scales = kb.buffer("scales", "UB", "fp32", shape, ring)
            self._copy(self.scales, kernel.scale, first, count)
        self.offsets = None
        if kernel.offset is not None:
            self.offsets = kb.buffer("offsets", "UB", "fp32", shape, ring)
            self._copy(self.offsets, kernel.offset, first, count)

    def _groups(self, start: Expr, depth: Expr) -> tuple[Expr, Expr]:
        """First group of this AIV's part of a slot, or of the tile, and how many there are (the last slot may have fewer)."""
        kernel, lay = self.kernel, self.kernel.layout
        if lay.group is None:
            return Const(0), Const(1)
        if not lay.transposed:
            start = start + kernel.kb.sub * lay.share + self.line
            depth = self.lines
        return start // lay.group, ceil_expr(depth, lay.group)

    def _copy(self, buffer: Handle, source: Operand, first: Expr, count: Expr) -> None:
        kernel, kb, lay = self.kernel, self.kernel.kb, self.kernel.layout
        start = self.nt * kernel.tile.base_n
        if not lay.transposed:
            kb.copy(buffer[at(0, count), at(0, self.cols)], source.at(self.e, at(first, count), at(start, self.cols)))
            return
        mine, start = self.lines, start + kb.sub * lay.share + self.line
        with kb.loop(f"i_{buffer.of.name}", 0, count) as i:
            kb.copy(buffer[at(0, mine), i], source.at(self.e, first + i, at(start, mine), at(0, 1)))

    def group_of(self, line: Expr) -> Expr:
        """Group, counted from the first whose scales are in UB, of a UB tile that starts at ``line``."""
        lay = self.kernel.layout
        return Const(0) if lay.group is None or lay.transposed or lay.scales_by_tile else line // lay.group

    def apply(self, into: Slice, weights: Slice, line: Expr, run: Expr, group: Expr) -> None:
        """``into = (weights + offset) * scale`` for weights of one group."""
        kb, lay = self.kernel.kb, self.kernel.layout
        line = Const(0) if lay.scales_by_tile else line
        here = (at(line, weights.sizes[0]), group) if lay.transposed else (group, at(0, run))
        if self.offsets is not None:
            kb.op("add", weights, weights, self.offsets[here])
        kb.op("mul", into, weights, self.scales[here])
