"""``msd-int8``: Vector splits the BF16 activations into INT8 components, Cube multiplies them with the weights as they are.

Three phases on a core group.  *Split*: every AIV takes rows of x, finds the row maximum and writes the components and the row
scale; then all cores meet at a barrier, behind which the first weight tiles have already been fetched.  *Multiply*: AICs
stack the components of a tile of rows on top of each other, so that weights are read once for all passes; INT32 results
go to a small ring in GM.  *Merge*: the AIVs of the group combine the components, scale and round.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from msdsim.dataflows.base import DATAFLOWS, Dataflow, require_positive
from msdsim.dataflows.gemm import (
    GemmShape,
    accumulate,
    check_cube_tiling,
    choose_cube_tiles,
    ragged,
    ragged_of,
    refuse_group,
    refuse_rate,
)
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, maximum, minimum
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Kernel, Slice
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.units import ceil_div, round_up

FORMATS = ("int8", "int8")
#: First factor and the ratio between passes (msd decomposition of INT8: 127 and 254).
FACTOR, RATIO = 127.0, 254.0
#: int32 holds k products of two int8 numbers up to this k.
MAX_K = (2**31 - 1) // (128 * 128)


@dataclass(frozen=True)
class MsdTiling:
    """Cube tiles over stacked rows; ``passes`` components; ``split_m x split_k`` tile of the split, ``merge_m`` rows of the
    merge, ``slots`` of the INT32 ring, ``prefetch`` weight tiles fetched into L2 before the barrier."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    split_m: int
    split_k: int
    merge_m: int
    passes: int = 2
    slots: int = 2
    prefetch: int = 3
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2
    ub_ring: int = 2


def auto(problem: GemmShape, chip: Chip) -> MsdTiling:
    """Cube tiles over the stacked rows, UB tiles as large as fit."""
    passes = MsdTiling.passes
    step = lcm(chip.cube.fractal_m, passes)
    c = choose_cube_tiles(chip, FORMATS, passes * problem.m, problem.k, problem.n, out_bytes=4, step_m=step)
    ub = chip.buffers.ub_bytes
    split_m = max(1, min(ceil_div(problem.m, chip.aiv), 8))
    row = (ub // split_m - _SPLIT_ROW_BYTES) // _SPLIT_BYTES
    split_k = min(round_up(problem.k, FOLD_LANES), max(1, row // FOLD_LANES) * FOLD_LANES)
    merge_m = (ub - _MERGE_COLUMN_BYTES * c.base_n) // (_merge_bytes(passes) * c.base_n + _MERGE_ROW_BYTES)
    merge_m = max(1, min(merge_m, ceil_div(c.base_m // passes, chip.cores.aiv_per_aic)))
    return MsdTiling(c.base_m, c.base_n, c.l1_k, c.l0_k, split_m, split_k, merge_m, l0c_ring=c.l0c_ring)


#: Bytes of UB per element of a split tile: xb (BF16, ring 2), xf, q, t (FP32), q16, and a8 of two passes.
_SPLIT_BYTES = 2 * 2 + 3 * 4 + 2 + 2
#: ... and per row of it: two rows of lanes and four scalars.
_SPLIT_ROW_BYTES = 2 * 4 * FOLD_LANES + 6 * 32
#: Bytes of UB per row of a merge tile besides its elements, and per column besides them.
_MERGE_ROW_BYTES = 2 * 2 * 4 + 2 * 32
_MERGE_COLUMN_BYTES = 2 * 2 * 4


def _merge_bytes(passes: int) -> int:
    """Bytes of UB per element of a merge tile: components (INT32, ring 2), two FP32 tiles, the result (BF16, ring 2)."""
    return 2 * 4 * passes + 2 * 4 + 2 * 2


def build(problem: GemmShape, chip: Chip, tile: MsdTiling) -> Kernel:
    """See the module's text for the dataflow."""
    require_positive(tile, "prefetch")
    check_cube_tiling(chip, tile, FORMATS)
    if tile.base_m % tile.passes:
        raise TilingError(f"tiling base_m={tile.base_m} does not hold {tile.passes} stacked components; "
                          f"give a multiple of {tile.passes}")
    if tile.slots > chip.cross_core.max_outstanding:
        raise TilingError(f"tiling slots={tile.slots} needs more than the {chip.cross_core.max_outstanding} outstanding "
                          f"signals of '{chip.name}'; give at most {chip.cross_core.max_outstanding}")
    return _Msd(problem, chip, tile).kernel()


class _Msd:
    """The kernel under construction: shapes and tensors that its three phases share."""

    def __init__(self, problem: GemmShape, chip: Chip, tile: MsdTiling) -> None:
        self.problem, self.tile = problem, tile
        self.cores, self.aivs = chip.cores.aic, chip.cores.aiv_per_aic
        self.tile_rows = tile.base_m // tile.passes
        self.m_tiles, self.n_tiles = ceil_div(problem.m, self.tile_rows), ceil_div(problem.n, tile.base_n)
        m, k, n = problem.m, problem.k, problem.n
        self.kb = kb = KernelBuilder("msd_int8", self.cores, self.aivs)
        self.x = kb.tensor("x", "bf16", (m, k), "in")
        self.w = kb.tensor("w", "int8", (n, k) if problem.trans_b else (k, n), "in")
        self.scale = kb.tensor("scale", "fp32", (1, n), "in")
        self.offset = kb.tensor("offset", "fp32", (1, n), "in") if problem.offset else None
        self.components = kb.tensor("a", "int8", (self.m_tiles, tile.passes, self.tile_rows, k), "workspace")
        self.row_scale = kb.tensor("row_scale", "fp32", (m, 1), "workspace")
        self.row_sum = kb.tensor("row_sum", "fp32", (m, 1), "workspace") if problem.offset else None
        self.ring = kb.tensor("c", "int32", (self.cores, tile.slots, tile.base_m, tile.base_n), "workspace")
        self.y = kb.tensor("y", "bf16", (m, n), "out")
        kb.signal("split_done", "barrier")
        kb.signal("product", "aic_to_aiv")
        kb.signal("merged", "aiv_to_aic")
        self.tiles = self.m_tiles * self.n_tiles

    def kernel(self) -> Kernel:
        with self.kb.part("aic"):
            self.multiply()
        with self.kb.part("aiv"):
            self.split()
            self.merge()
        return self.kb.build()

    def place(self, t: Expr) -> tuple[Expr, Expr, Expr, Expr]:
        """Row tile, column tile, rows and columns of output tile ``t``."""
        mt, nt = t % self.m_tiles, t // self.m_tiles
        return (mt, nt, ragged(self.problem.m, self.tile_rows, mt), ragged(self.problem.n, self.tile.base_n, nt))

    def slot(self, t: Expr) -> Expr:
        """Ring slot of output tile ``t``: a core deals with every ``cores``-th tile."""
        return t // self.cores % self.tile.slots

    # Split

    def split(self) -> None:
        """Rows of x to components: ``r = x * 127; a1 = round(r / M); r -= a1 * M; r *= 254; a2 = round(r / M) ...``"""
        kb, tile, m, k = self.kb, self.tile, self.problem.m, self.problem.k
        # A split tile never crosses a tile of rows, so that its components are one rectangle of the stacked layout.
        per_tile = ceil_div(min(self.tile_rows, m), tile.split_m)
        k_tiles = ceil_div(k, tile.split_k)
        with kb.loop("b", kb.core * self.aivs + kb.sub, self.m_tiles * per_tile, self.cores * self.aivs) as b:
            mt, inside = b // per_tile, b % per_tile
            rows = minimum(tile.split_m, ragged(m, self.tile_rows, mt) - inside * tile.split_m)
            row = mt * self.tile_rows + inside * tile.split_m
            if m % self.tile_rows:
                # The last tile of rows may have fewer blocks than the others.
                with kb.when(rows > 0):
                    self._split_rows(mt, inside * tile.split_m, row, rows, k_tiles)
            else:
                self._split_rows(mt, inside * tile.split_m, row, rows, k_tiles)
        kb.raise_signal("split_done", "MTE3")

    def _split_rows(self, mt: Expr, inside: Expr, row: Expr, rows: Expr, k_tiles: int) -> None:
        """Two sweeps over the row block's K, row statistics first; one load serves both when K is a single tile."""
        kb, tile = self.kb, self.tile
        stats = _RowStatistics(self, rows)
        if k_tiles == 1:
            here = (at(0, rows), at(0, self.problem.k))
            xf, q = self._load_x(row, rows, Const(0), here)
            stats.fold(xf, q, Const(0))
            stats.reduce(row)
            self._decompose(mt, inside, rows, Const(0), here, xf, q, stats.top)
            return
        with kb.loop("sweep", 0, 2 * k_tiles) as sweep:
            at_k = sweep % k_tiles
            here = (at(0, rows), at(0, ragged(self.problem.k, tile.split_k, at_k)))
            xf, q = self._load_x(row, rows, at_k, here)
            with kb.when(sweep < k_tiles):
                stats.fold(xf, q, sweep)
            with kb.when(sweep.equals(k_tiles - 1)):
                stats.reduce(row)
            with kb.when(sweep >= k_tiles):
                self._decompose(mt, inside, rows, at_k, here, xf, q, stats.top)

    def _load_x(self, row: Expr, rows: Expr, index: Expr, here: tuple[At, At]) -> tuple[Slice, Slice]:
        """x as FP32 in UB, and a scratch tile of the same shape."""
        kb, tile = self.kb, self.tile
        shape = (tile.split_m, tile.split_k)
        xb = kb.buffer("xb", "UB", "bf16", shape, tile.ub_ring)[here]
        xf = kb.buffer("xf", "UB", "fp32", shape)[here]
        q = kb.buffer("q", "UB", "fp32", shape)[here]
        kb.copy(xb, self.x[at(row, rows), at(index * tile.split_k, ragged(self.problem.k, tile.split_k, index))])
        kb.op("cast", xf, xb)
        return xf, q

    def _decompose(self, mt: Expr, inside: Expr, rows: Expr, index: Expr, here: tuple[At, At], xf: Slice, q: Slice,
                   top: Slice) -> None:
        kb, tile = self.kb, self.tile
        shape = (tile.split_m, tile.split_k)
        t = kb.buffer("t", "UB", "fp32", shape)[here]
        q16 = kb.buffer("q16", "UB", "fp16", shape)[here]
        kb.op("muls", xf, xf, scalar=FACTOR)
        for number in range(tile.passes):
            a8 = kb.buffer(f"a8_{number}", "UB", "int8", shape)[here]
            kb.op("div", q, xf, top)
            kb.op("cast", q, q, round="round")
            kb.op("cast", q16, q, round="rint")
            kb.op("cast", a8, q16, round="rint")
            size = ragged(self.problem.k, tile.split_k, index)
            kb.copy(self.components[mt, number, at(inside, rows), at(index * tile.split_k, size)], a8)
            if number + 1 < tile.passes:
                kb.op("mul", t, q, top)
                kb.op("sub", xf, xf, t)
                kb.op("muls", xf, xf, scalar=RATIO)

    # Multiply

    def multiply(self) -> None:
        """Stacked components times weights, a tile at a time; results to the ring."""
        kb, tile, k = self.kb, self.tile, self.problem.k
        self._prefetch()
        kb.wait_signal("split_done", "MTE2")
        with kb.loop("t", kb.core, self.tiles, self.cores) as t:
            mt, nt, rows, cols = self.place(t)
            stacked = rows * tile.passes
            acc = kb.buffer("acc", "L0C", "int32", (tile.base_m, tile.base_n), tile.l0c_ring)[at(0, stacked), at(0, cols)]

            def load_a(a1: Handle, start: Expr, size: Expr) -> None:
                for number in range(tile.passes):
                    kb.copy(a1[at(rows * number, rows), at(0, size)],
                            self.components[mt, number, at(0, rows), at(start, size)])

            def load_b(b1: Handle, start: Expr, size: Expr) -> None:
                kb.copy(*self._weights(b1, nt, cols, start, size))

            accumulate(kb, tile, FORMATS, acc, stacked, cols, k, load_a, load_b, transpose_b=self.problem.trans_b)
            kb.wait_signal("merged", "FIX")
            kb.op("fixpipe", self.ring[kb.core, self.slot(t), at(0, stacked), at(0, cols)], acc)
            kb.raise_signal("product", "FIX")
        # The last slots come back unused.
        with kb.loop("s", 0, tile.slots):
            kb.wait_signal("merged", "FIX")

    def _weights(self, b1: Handle, nt: Expr, cols: Expr, start: Expr, size: Expr) -> tuple[Slice, Slice]:
        columns = at(nt * self.tile.base_n, cols)
        if self.problem.trans_b:
            return b1[at(0, cols), at(0, size)], self.w[columns, at(start, size)]
        return b1[at(0, size), at(0, cols)], self.w[at(start, size), columns]

    def _prefetch(self) -> None:
        """Fetch the first weight tiles while Vector splits: what is in L2 afterwards is not waited for again."""
        kb, tile = self.kb, self.tile
        tiles = min(tile.prefetch, ceil_div(self.problem.k, tile.l1_k))
        with kb.when(kb.core < self.tiles), kb.loop("f", 0, tiles) as f:
            _, nt, _, cols = self.place(minimum(kb.core, self.tiles - 1))
            shape = (tile.base_n, tile.l1_k) if self.problem.trans_b else (tile.l1_k, tile.base_n)
            warm = kb.buffer("warm", "L1", "int8", shape)
            kb.copy(*self._weights(warm, nt, cols, f * tile.l1_k, ragged(self.problem.k, tile.l1_k, f)))

    # Merge

    def merge(self) -> None:
        """``y = ((C1 + C2 / 254 ...) * row_scale [+ row_sum * offset]) * scale``, each AIV its share of the rows."""
        kb, tile = self.kb, self.tile
        kb.wait_signal("split_done", "MTE2")
        with kb.loop("s", 0, tile.slots):
            kb.raise_signal("merged", "MTE2")
        with kb.loop("t", kb.core, self.tiles, self.cores) as t:
            mt, nt, rows, cols = self.place(t)
            share = ceil_div(min(self.tile_rows, self.problem.m), self.aivs)
            mine = minimum(share, maximum(0, rows - kb.sub * share))
            columns = at(nt * tile.base_n, cols)
            per_column = kb.buffer("per_column", "UB", "fp32", (2, tile.base_n), tile.ub_ring)
            kb.copy(per_column[0, at(0, cols)], self.scale[0, columns])
            if self.offset is not None:
                kb.copy(per_column[1, at(0, cols)], self.offset[0, columns])
            kb.wait_signal("product", "MTE2")
            with kb.loop("r", 0, ceil_expr(mine, tile.merge_m)) as r:
                start = kb.sub * share + r * tile.merge_m
                self._merge_rows(mt, t, rows, start, ragged_of(mine, tile.merge_m, r), cols, columns, per_column)
            kb.raise_signal("merged", "MTE2")

    def _merge_rows(self, mt: Expr, t: Expr, rows: Expr, start: Expr, size: Expr, cols: Expr, columns: At,
                    per_column: Handle) -> None:
        kb, tile = self.kb, self.tile
        here = (at(0, size), at(0, cols))
        row = at(mt * self.tile_rows + start, size)
        shape = (tile.merge_m, tile.base_n)
        # One buffer per kind of load, so that one flag covers all of its pieces.
        per_row = kb.buffer("per_row", "UB", "fp32", (tile.merge_m, 2), tile.ub_ring)
        kb.copy(per_row[at(0, size), 0], self.row_scale[row, 0])
        if self.row_sum is not None:
            kb.copy(per_row[at(0, size), 1], self.row_sum[row, 0])
        ci = kb.buffer("ci", "UB", "int32", (tile.passes * tile.merge_m, tile.base_n), tile.ub_ring)
        pieces = [ci[at(number * tile.merge_m, size), at(0, cols)] for number in range(tile.passes)]
        for number, piece in enumerate(pieces):
            kb.copy(piece, self.ring[kb.core, self.slot(t), at(rows * number + start, size), at(0, cols)])
        total = kb.buffer("total", "UB", "fp32", shape)[here]
        part = kb.buffer("part", "UB", "fp32", shape)[here]
        kb.op("cast", total, pieces[0])
        for number, piece in enumerate(pieces[1:], start=1):
            kb.op("cast", part, piece)
            kb.op("muls", part, part, scalar=RATIO**-number)
            kb.op("add", total, total, part)
        kb.op("mul", total, total, per_row[at(0, size), 0])
        if self.offset is not None:
            kb.op("mul", part, per_column[1, at(0, cols)], per_row[at(0, size), 1])
            kb.op("add", total, total, part)
        kb.op("mul", total, total, per_column[0, at(0, cols)])
        yb = kb.buffer("yb", "UB", "bf16", shape, tile.ub_ring)[here]
        kb.op("cast", yb, total, round="rint")
        kb.copy(self.y[row, columns], yb)


#: Smallest positive FP32 number: rows of zeros are divided by it instead of by zero.
SMALLEST = 2.0**-149


class _RowStatistics:
    """Row maximum and row sum of a block of rows, folded tile by tile."""

    def __init__(self, msd: _Msd, rows: Expr) -> None:
        self.msd, self.rows = msd, rows
        self.lanes, self.top = self._vector("lanes", FOLD_LANES), self._vector("top")
        self.factor = self._vector("factor")
        # What is stored, scale and sum side by side, so that one flag covers both.
        stored = msd.kb.buffer("stored", "UB", "fp32", (msd.tile.split_m, 2))
        self.scale, self.sum = stored[at(0, rows), 0], stored[at(0, rows), 1]
        if msd.row_sum is not None:
            self.sum_lanes = self._vector("sum_lanes", FOLD_LANES)

    def _vector(self, name: str, cols: int = 1) -> Slice:
        buffer = self.msd.kb.buffer(name, "UB", "fp32", (self.msd.tile.split_m, cols))
        return buffer[at(0, self.rows), at(0, cols)]

    def fold(self, xf: Slice, scratch: Slice, index: Expr) -> None:
        """Take in tile ``index`` of the rows."""
        kb = self.msd.kb
        kb.op("abs", scratch, xf)
        kb.op("fold_max", self.lanes, scratch, accumulate=index)
        if self.msd.row_sum is not None:
            kb.op("fold_add", self.sum_lanes, xf, accumulate=index)

    def reduce(self, row: Expr) -> None:
        """Finish and store; ``top`` is then what the rows are divided by."""
        kb = self.msd.kb
        kb.op("reduce_max", self.top, self.lanes)
        kb.op("dup", self.factor, scalar=FACTOR)
        kb.op("div", self.scale, self.top, self.factor)
        kb.copy(self.msd.row_scale[at(row, self.rows), 0], self.scale)
        kb.op("maxs", self.top, self.top, scalar=SMALLEST)
        if self.msd.row_sum is not None:
            kb.op("reduce_add", self.sum, self.sum_lanes)
            kb.copy(self.msd.row_sum[at(row, self.rows), 0], self.sum)


def _refuse(problem: GemmShape, chip: Chip) -> str | None:
    if problem.k > MAX_K:
        return f"k={problem.k} can overflow the INT32 accumulator (at most {MAX_K}); split K or use 'bf16'"
    return refuse_rate(chip, FORMATS) or refuse_group(problem, "msd-int8")


DATAFLOWS.add("msd-int8", Dataflow(
    name="msd-int8", kind="gemm", contract="msd-int8",
    description="BF16 activations split into INT8 components, INT8 weights as they are, merged on Vector",
    tiling=MsdTiling, refuses=_refuse, auto=auto, build=build,
))
