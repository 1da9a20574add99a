"""What the GEMM dataflows share: operands with an expert in front, the order of output tiles, and the Cube's main loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from msdsim.dataflows.base import DATAFLOWS, Dataflow, require_fits, require_multiple
from msdsim.dataflows.experts import Expert, Experts, named
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, ExprLike, ceil_div, lift, maximum, minimum
from msdsim.ir.kernel import Kernel, Role, Slice
from msdsim.units import ceil_div as ceil_int


class GemmShape(Protocol):
    """The part of a GEMM problem, plain or grouped, that dataflows read."""

    kind: str
    m: int
    k: int
    n: int
    group: int | None
    offset: bool
    trans_b: bool


class CubeTiling(Protocol):
    """Tile sizes of the Cube's main loop: output rows and columns, K in L1 and in L0, ring depths."""

    @property
    def base_m(self) -> int: ...
    @property
    def base_n(self) -> int: ...
    @property
    def l1_k(self) -> int: ...
    @property
    def l0_k(self) -> int: ...
    @property
    def l1_ring(self) -> int: ...
    @property
    def l0_ring(self) -> int: ...
    @property
    def l0c_ring(self) -> int: ...


#: Formats of the elements of MX operands, whose names in the chip file stand for elements with their block scales.
MX_ELEMENTS = {"mxfp4": "fp4_e2m1", "mxfp8": "fp8_e4m3fn"}


def element_format(fmt: str) -> str:
    """Format of the elements of a Cube operand: MX names stand for elements and scales."""
    return MX_ELEMENTS.get(fmt, fmt)


def element_bits(fmt: str) -> int:
    """Bits of an element of a Cube operand."""
    return FORMATS[element_format(fmt)].bits


def ragged(total: int, tile: int, index: ExprLike) -> Expr:
    """Size of tile ``index`` when ``total`` is cut into tiles of ``tile``: the last may be smaller."""
    if total % tile == 0:
        return Const(tile)
    if total < tile:
        return Const(total)
    return minimum(tile, total - lift(index) * tile)


def ragged_of(total: ExprLike, tile: int, index: ExprLike) -> Expr:
    """Like :func:`ragged` for a total that is itself an expression."""
    total = lift(total)
    if isinstance(total, Const):
        return ragged(total.value, tile, index)
    return minimum(tile, total - lift(index) * tile)


def share_of(total: ExprLike, share: int, index: ExprLike) -> Expr:
    """What unit ``index`` has of ``total`` when each takes ``share`` in turn: the last ones may have less, or nothing."""
    return minimum(share, maximum(0, lift(total) - lift(index) * share))


# Operands


@dataclass(frozen=True)
class Operand:
    """A tensor of a GEMM in GM.  That of a grouped GEMM has the expert as its first dimension, unless the rows of all experts
    lie one after the other along ``rows_axis``."""

    handle: Handle
    grouped: bool
    rows_axis: int | None = None

    def at(self, expert: Expert, *ranges: At | ExprLike) -> Slice:
        """A rectangle of one expert's tensor."""
        if self.rows_axis is not None and expert.first is not None:
            rows = ranges[self.rows_axis]
            assert isinstance(rows, At)
            moved = at(expert.first + rows.start, rows.size)
            ranges = (*ranges[: self.rows_axis], moved, *ranges[self.rows_axis + 1 :])
        return self.handle[(expert.index, *ranges) if self.grouped else ranges]


def operand(kb: KernelBuilder, problem: GemmShape, name: str, fmt: str, shape: tuple[int, ...], role: Role,
            rows_axis: int | None = None) -> Operand:
    """Declare a tensor of every expert; ``shape`` is that of one, ``rows_axis`` the axis of its rows if it has any."""
    experts = Experts(problem)
    if experts.uneven is not None and rows_axis is not None:
        shape = (*shape[:rows_axis], experts.total_rows, *shape[rows_axis + 1 :])
        return Operand(kb.tensor(name, fmt, shape, role), False, rows_axis)
    grouped = problem.kind == "grouped_gemm"
    return Operand(kb.tensor(name, fmt, (experts.count, *shape) if grouped else shape, role), grouped)


# The order of output tiles


@dataclass(frozen=True)
class Place:
    """An output tile: its expert, tile of rows and of columns in it, its first row in the expert's rows, and its size;
    ``row_tile`` counts the tiles of rows of all experts."""

    expert: Expert
    mt: Expr
    nt: Expr
    row: Expr
    rows: Expr
    cols: Expr
    row_tile: Expr


@dataclass(frozen=True)
class Grid:
    """Output tiles of ``base_m`` rows and ``base_n`` columns, dealt to the cores round robin in an order that lets L2 serve
    neighbours.

    Expert after expert; inside one, bands of ``band`` tiles of rows, and in a band column after column of tiles::

        band 2:   0 2 4 6 ...      all rows in one band:   0 3 6 ...
                  1 3 5 7 ...                              1 4 7 ...
                  8 ...                                    2 5 8 ...

    so that a band's rows of A stay in L2 while B passes by.  The last band may be lower.
    """

    experts: Experts
    n: int
    base_m: int
    base_n: int
    band: int

    @property
    def m_tiles(self) -> int:
        """Tiles of rows of the largest expert."""
        return ceil_int(self.experts.rows, self.base_m)

    @property
    def n_tiles(self) -> int:
        return ceil_int(self.n, self.base_n)

    @property
    def row_tiles(self) -> int:
        """Tiles of rows of all experts."""
        return self.experts.units(lambda m: ceil_int(m, self.base_m))

    @property
    def tiles(self) -> int:
        return self.row_tiles * self.n_tiles

    @contextmanager
    def place(self, kb: KernelBuilder, t: Expr) -> Iterator[Place]:
        """Where output tile ``t`` lies; statements inside the ``with`` can use it."""
        with (
            self.experts.find(kb, t, lambda m: ceil_int(m, self.base_m) * self.n_tiles) as (expert, inside),
            self.row_tiles_before(kb, expert) as before,
        ):
            mt, nt = self._even(inside) if self.experts.uneven is None else self._uneven(inside, expert)
            with self.tile(kb, expert, mt, nt, before) as place:
                yield place

    def row_tiles_before(self, kb: KernelBuilder, expert: Expert) -> AbstractContextManager[Expr]:
        """Tiles of rows of the experts before this one."""
        return self.experts.before(kb, expert, lambda m: ceil_int(m, self.base_m))

    def row_tiles_of(self, expert: Expert) -> Expr:
        """Tiles of rows of an expert."""
        return ceil_div(expert.rows, self.base_m)

    @contextmanager
    def tile(self, kb: KernelBuilder, expert: Expert, mt: Expr, nt: Expr, before: Expr) -> Iterator[Place]:
        """An output tile of an expert that has ``before`` tiles of rows before its own."""
        cols = ragged(self.n, self.base_n, nt)
        if expert.first is None:
            rows = ragged_of(expert.rows, self.base_m, mt)
            yield Place(expert, mt, nt, mt * self.base_m, rows, cols, before + mt)
            return
        # Limits that say nothing new, for the verifier.
        most = min(self.base_m, self.experts.rows)
        with named(kb, "tile_rows", minimum(most, maximum(1, expert.rows - mt * self.base_m))) as rows:
            first = minimum(expert.first + mt * self.base_m, self.experts.total_rows - rows)
            row_tile = minimum(before + mt, self.row_tiles - 1)
            yield Place(Expert(expert.index, rows, first), mt, nt, Const(0), rows, cols, row_tile)

    def _even(self, inside: Expr) -> tuple[Expr, Expr]:
        """Tile of rows and tile of columns where every expert has as many."""
        if self.band >= self.m_tiles:
            return inside % self.m_tiles, inside // self.m_tiles
        of_band = self.band * self.n_tiles
        row, column = inside // of_band * self.band + inside % self.band, inside % of_band // self.band
        full = self.m_tiles // self.band
        rest = self.m_tiles - full * self.band
        if rest:
            # In the lower last band tiles count with its own height: choose by a condition that is 0 or 1.
            beyond = inside - full * of_band
            last = inside >= full * of_band
            row = minimum(self.m_tiles - 1, row + last * (full * self.band + beyond % rest - row))
            column = minimum(self.n_tiles - 1, column + last * (beyond // rest - column))
        return row, column

    def _uneven(self, inside: Expr, expert: Expert) -> tuple[Expr, Expr]:
        """The same where the number of tiles of rows depends on the expert: every band has a height of its own."""
        if self.m_tiles == 1:
            return Const(0), minimum(self.n_tiles - 1, inside)
        m_tiles = self.row_tiles_of(expert)
        if self.band >= self.m_tiles:
            return inside % m_tiles, minimum(self.n_tiles - 1, inside // m_tiles)
        of_band = self.band * self.n_tiles
        band = inside // of_band
        height = maximum(1, minimum(self.band, m_tiles - band * self.band))
        row = minimum(m_tiles - 1, band * self.band + inside % of_band % height)
        return row, minimum(self.n_tiles - 1, inside % of_band // height)


# Rows in blocks, for what Vector makes of the activations


@dataclass(frozen=True)
class RowBlock:
    """Some rows of an expert, which lie in one tile of rows: ``row_tile`` counted over all experts, ``inside`` of it the first
    row, ``row`` the first row of the expert, and their number."""

    expert: Expert
    row_tile: Expr
    inside: Expr
    row: Expr
    rows: Expr


@dataclass(frozen=True)
class RowBlocks:
    """Rows of all experts in blocks of ``size``, none of which crosses a tile of ``tile_rows``."""

    experts: Experts
    tile_rows: int
    size: int

    @property
    def _per_tile(self) -> int:
        return ceil_int(min(self.tile_rows, self.experts.rows), self.size)

    def _of(self, m: int) -> int:
        """Blocks of an expert of ``m`` rows; with equal rows also empty ones in its last tile."""
        if self.experts.uneven is None:
            return ceil_int(m, self.tile_rows) * self._per_tile
        full, rest = divmod(m, self.tile_rows)
        return full * self._per_tile + ceil_int(rest, self.size)

    @property
    def count(self) -> int:
        """Blocks of all experts."""
        return self.experts.units(self._of)

    @contextmanager
    def place(self, kb: KernelBuilder, b: Expr) -> Iterator[RowBlock]:
        """Where block ``b`` lies; statements inside the ``with`` can use it."""
        experts, tile_rows = self.experts, self.tile_rows
        if experts.uneven is not None:
            with (
                experts.find(kb, b, self._of) as (expert, number),
                experts.before(kb, expert, lambda m: ceil_int(m, tile_rows)) as before,
            ):
                mt, inside = number // self._per_tile, number % self._per_tile * self.size
                row_tile = minimum(before + mt, experts.units(lambda m: ceil_int(m, tile_rows)) - 1)
                rows = minimum(self.size, ragged_of(expert.rows, tile_rows, mt) - inside)
                yield RowBlock(expert, row_tile, inside, mt * tile_rows + inside, rows)
            return
        m, m_tiles = experts.rows, ceil_int(experts.rows, tile_rows)
        row_tile, inside = b // self._per_tile, b % self._per_tile * self.size
        e, mt = (Const(0), row_tile) if experts.count == 1 else (row_tile // m_tiles, row_tile % m_tiles)
        rows = minimum(self.size, ragged(m, tile_rows, mt) - inside)
        block = RowBlock(Expert(e, Const(m)), row_tile, inside, mt * tile_rows + inside, rows)
        if m % tile_rows:
            # The last tile of rows may have fewer blocks than the others.
            with kb.when(rows > 0):
                yield block
        else:
            yield block


# The main loop

#: Fills an L1 tile for the K range ``start +: size``.
Loader = Callable[[Handle, Expr, Expr], None]


@dataclass(frozen=True)
class Stream:
    """An operand that passes through L1 tile by tile; MX operands bring the scales of their blocks (``start`` and ``size``
    then count blocks of 32)."""

    load: Loader
    load_scales: Loader | None = None


@dataclass(frozen=True)
class Held:
    """An operand that lies in L1 already: ``at`` gives the slice for a K range.  Scales of its blocks may still stream."""

    at: Callable[[Expr, Expr], Slice]
    load_scales: Loader | None = None


@dataclass(frozen=True)
class CubeOperands:
    """Formats of A and B as the chip file names them, and whether B lies in L1 as [columns, K]."""

    a: str
    b: str
    transpose_b: bool = False

    @property
    def mx(self) -> bool:
        return self.a in MX_ELEMENTS


def accumulate(
    kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, acc: Slice, rows: Expr, cols: Expr, extent: ExprLike,
    a: Stream | Held, b: Stream | Held, before: ExprLike = 0,
) -> None:
    """Emit ``acc += A B`` over ``extent`` elements of K.

    Before: one product of [rows, extent] and [extent, cols].  After::

        for k1 in 0 .. ceil(extent / l1_k)
          a1, b1 <- GM (ring l1_ring), unless they are held in L1
          for k0 in 0 .. ceil(size of k1 / l0_k)
            a0 <- a1, b0 <- b1 (ring l0_ring)
            mmad acc <- a0, b0 {accumulate = before + k1 + k0}

    ``before`` is zero where this is the first product of the sum.
    """
    with kb.loop("k1", 0, ceil_div(extent, tile.l1_k)) as k1:
        start, size = k1 * tile.l1_k, ragged_of(extent, tile.l1_k, k1)
        # Weights first: they come from HBM and take longest.
        b1, b1_scales = bring(kb, tile, kinds, "b", cols, b, start, size)
        a1, a1_scales = bring(kb, tile, kinds, "a", rows, a, start, size)
        with kb.loop("k0", 0, ceil_div(size, tile.l0_k)) as k0:
            at_k, size0 = k0 * tile.l0_k, ragged_of(size, tile.l0_k, k0)
            multiply(kb, tile, kinds, acc, rows, cols, at_k, size0, (a1, a1_scales), (b1, b1_scales), before + k1 + k0)


#: An operand in L1 and the scales of its blocks, if it has any.
InL1 = tuple[Held, Held | None]


def multiply(kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, acc: Slice, rows: Expr, cols: Expr, start: Expr,
             size: Expr, a: InL1, b: InL1, accumulated: ExprLike) -> None:
    """One step of K through L0: ``acc += A B`` over ``start +: size`` of operands in L1; ``accumulated`` zero starts anew."""
    a0 = kb.buffer("a0", "L0A", element_format(kinds.a), (tile.base_m, tile.l0_k), tile.l0_ring)[at(0, rows), at(0, size)]
    b0 = kb.buffer("b0", "L0B", element_format(kinds.b), (tile.l0_k, tile.base_n), tile.l0_ring)[at(0, size), at(0, cols)]
    (a1, a1_scales), (b1, b1_scales) = a, b
    kb.copy(a0, a1.at(start, size))
    if kinds.transpose_b:
        kb.copy(b0, b1.at(start, size), transpose=1)
    else:
        kb.copy(b0, b1.at(start, size))
    if a1_scales is None or b1_scales is None:
        kb.op("mmad", acc, a0, b0, accumulate=lift(accumulated))
        return
    blocks, first, count = tile.l0_k // MX_BLOCK, start // MX_BLOCK, ceil_div(size, MX_BLOCK)
    sa0 = kb.buffer("sa0", "L0A_MX", "e8m0", (tile.base_m, blocks), tile.l0_ring)[at(0, rows), at(0, count)]
    sb0 = kb.buffer("sb0", "L0B_MX", "e8m0", (blocks, tile.base_n), tile.l0_ring)[at(0, count), at(0, cols)]
    kb.copy(sa0, a1_scales.at(first, count))
    kb.copy(sb0, b1_scales.at(first, count))
    kb.op("mmad_mx", acc, a0, sa0, b0, sb0, accumulate=lift(accumulated))


def bring(kb: KernelBuilder, tile: CubeTiling, kinds: CubeOperands, name: str, along: Expr, source: Stream | Held,
          start: Expr, size: Expr) -> InL1:
    """The L1 tile of operand ``name`` (``along`` rows of A or columns of B) for a K range: loaded, unless it is held there."""
    extent, fmt = (tile.base_m, kinds.a) if name == "a" else (tile.base_n, kinds.b)
    if isinstance(source, Held):
        held = source

        def data(at_k: Expr, count: Expr) -> Slice:
            return held.at(start + at_k, count)
    else:
        rows_first = name == "a" or kinds.transpose_b
        shape = (extent, tile.l1_k) if rows_first else (tile.l1_k, extent)
        buffer = kb.buffer(f"{name}1", "L1", element_format(fmt), shape, tile.l1_ring)
        source.load(buffer, start, size)

        def data(at_k: Expr, count: Expr) -> Slice:
            return buffer[at(0, along), at(at_k, count)] if rows_first else buffer[at(at_k, count), at(0, along)]

    if source.load_scales is None:
        return Held(data), None
    blocks = tile.l1_k // MX_BLOCK
    # Scales of A lie as [rows, blocks], those of B as [blocks, columns] whatever the layout of B.
    scales = kb.buffer(f"s{name}1", "L1", "e8m0", (extent, blocks) if name == "a" else (blocks, extent), tile.l1_ring)
    source.load_scales(scales, start // MX_BLOCK, ceil_div(size, MX_BLOCK))

    def of_blocks(first: Expr, count: Expr) -> Slice:
        return scales[at(0, along), at(first, count)] if name == "a" else scales[at(first, count), at(0, along)]

    return Held(data), Held(of_blocks)


# Limits


def check_cube_tiling(chip: Chip, tile: CubeTiling, kinds: CubeOperands, held_a_bytes: int | None = None,
                      held_b_bytes: int | None = None, group: int | None = None) -> None:
    """The tiling fits L0A, L0B, L0C and L1 and is made of whole fractals; TilingError says what does not.

    Where every ``group`` of K has a product of its own, an L1 tile holds whole groups of it, or part of one.
    ``held_a_bytes`` and ``held_b_bytes`` are what an operand takes that is held in L1 rather than streamed through it.
    """
    rate = chip.cube.rate(kinds.a, kinds.b)
    assert rate is not None
    bits_a, bits_b = element_bits(kinds.a), element_bits(kinds.b)
    require_multiple(tile, "base_m", chip.cube.fractal_m, "the Cube works in fractals of 16 rows")
    require_multiple(tile, "base_n", chip.cube.fractal_n, "the Cube works in fractals of 16 columns")
    require_multiple(tile, "l0_k", rate.fractal_k, f"a {kinds.a} fractal is {rate.fractal_k} deep")
    if group is not None and group <= tile.l1_k:
        require_multiple(tile, "l1_k", group, f"an L1 tile holds whole groups of {group}, or part of one")
    else:
        require_multiple(tile, "l1_k", tile.l0_k, "an L1 tile is cut into whole L0 tiles")
    require_fits(chip, "L0A", {"a0": tile.l0_ring * tile.base_m * tile.l0_k * bits_a // 8})
    require_fits(chip, "L0B", {"b0": tile.l0_ring * tile.l0_k * tile.base_n * bits_b // 8})
    require_fits(chip, "L0C", {"acc": tile.l0c_ring * tile.base_m * tile.base_n * 4})
    scales = tile.l1_ring * tile.l1_k // MX_BLOCK if kinds.mx else 0
    a1 = tile.l1_ring * tile.base_m * tile.l1_k * bits_a // 8 + scales * tile.base_m
    b1 = tile.l1_ring * tile.l1_k * tile.base_n * bits_b // 8 + scales * tile.base_n
    require_fits(chip, "L1", {"a1": a1 if held_a_bytes is None else held_a_bytes,
                              "b1": b1 if held_b_bytes is None else held_b_bytes})


def refuse_rate(chip: Chip, formats: tuple[str, str]) -> str | None:
    """Why the chip's Cube cannot multiply these formats, or None."""
    if chip.cube.rate(*formats) is None:
        modes = ", ".join(f"{r.a} x {r.b}" for r in chip.cube.rates.values())
        return f"the Cube of '{chip.name}' cannot multiply {formats[0]} x {formats[1]} (it multiplies {modes})"
    return None


def refuse_packed(problem: GemmShape, fmt: str) -> str | None:
    """Why weights of a 4-bit format cannot be stored with these sizes, or None: two of them share a byte along a row."""
    axis, size = ("k", problem.k) if problem.trans_b else ("n", problem.n)
    if FORMATS[fmt].bits < 8 and size % 2:
        return f"{fmt} weights lie two to a byte along {axis}, and {axis}={size} is odd; pad it to {size + 1}"
    if FORMATS[fmt].bits < 8 and problem.trans_b and problem.group is not None and problem.group % 2:
        return f"groups of {problem.group} start in the middle of a byte of packed {fmt}; use an even group"
    return None


def refuse_scales(problem: GemmShape, name: str) -> str | None:
    """Why a dataflow whose weights have blocks of 32 and no offset cannot run a problem with groups or offsets, or None."""
    if problem.group is not None or problem.offset:
        return f"'{name}' weights have MX blocks of 32 along k and no offset; leave out group and offset"
    return None


def k_groups(problem: GemmShape) -> int:
    """Groups of scales along K: one per channel."""
    return 1 if problem.group is None else ceil_int(problem.k, problem.group)


def register_gemm(name: str, description: str, tiling: type, refuses: Callable[[Any, Chip], str | None],
                  auto: Callable[[Any, Chip], Any], build: Callable[[Any, Chip, Any], Kernel]) -> None:
    """Register a dataflow for plain and for grouped GEMMs; its number contract has its name."""
    for kind in ("gemm", "grouped_gemm"):
        DATAFLOWS.add(name if kind == "gemm" else f"{kind}:{name}",
                      Dataflow(name, kind, name, description, tiling, refuses, auto, build))
