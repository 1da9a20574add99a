"""The dequantizing dataflows: Vector turns quantized weights into BF16, Cube multiplies them; they meet in a ring of slots.

A slot holds ``slot_k`` of K by ``base_n`` columns; the two AIVs of the group fill it (each takes half of the rows of the stored
weight matrix: of K, or of the columns where the weights are transposed), the AIC multiplies it and hands it back.

On chips without a path from UB to L1 the ring lies in GM, that is in L2 as long as it fits there.  A core group then owns whole
columns of output tiles and keeps a slot until every tile of rows has used it, so that every weight is dequantized once on the
chip.  Where AIVs can write to L1 the ring lies there, and every output tile dequantizes its own weights.

Before: ``y = x W`` with W in BF16.  After, for the weights of a slot on an AIV::

    wq <- GM; w16 <- cast wq; w32 <- cast w16; [w32 += offset]; w32 *= scale; wb <- cast w32; ring <- wb
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube_tiles import CubeChoice, CubeWork, choose_band, choose_cube_tiles, choose_parts, estimate_cycles
from msdsim.dataflows.experts import Expert, Experts
from msdsim.dataflows.gemm import (
    CubeOperands,
    GemmShape,
    Grid,
    Held,
    Loader,
    Operand,
    Place,
    Stream,
    accumulate,
    check_cube_tiling,
    element_bits,
    element_format,
    operand,
    ragged,
    ragged_of,
    refuse_packed,
    refuse_rate,
    refuse_scales,
    register_gemm,
    share_of,
)
from msdsim.dataflows.split_k import FloatParts
from msdsim.errors import TilingError
from msdsim.formats.mx import MX_BLOCK
from msdsim.formats.number import FORMATS as NUMBER_FORMATS
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.vector import lanes
from msdsim.ir.builder import At, Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, minimum
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Kernel, Slice
from msdsim.ir.ops.mx import DECODE_FP4
from msdsim.ir.ops.vector import vector_casts
from msdsim.units import ceil_div, part_size, round_up

FORMATS = ("bf16", "bf16")
#: K of one ring slot in GM when one tile of rows uses it.  The vendor's kernels step K by 512; half of that shortens the tail
#: after the last slot, but of transposed weights it would read half a line of L2 at a time.
_SLOT_K, _SHORT_SLOT_K = 512, 256
#: Bytes of a ring slot in L1: the vendor's kernels have slots of 12 to 16 KiB for each AIV, of a smaller tile.
_SLOT_BYTES = 65536
_SLOTS = 4
#: A group whose largest divisor below a tile's size is a smaller share of it than this is not cut into such parts.
_SMALLEST_PART = 0.25


@dataclass(frozen=True)
class Weights:
    """Weights of a dequantizing dataflow: ``int8`` and ``int4`` with FP32 scales per channel or group, ``fp4_e2m1`` with E8M0
    scales of blocks of 32."""

    fmt: str

    @property
    def mx(self) -> bool:
        return self.fmt == "fp4_e2m1"

    def group(self, problem: GemmShape) -> int | None:
        """K per scale, None for one scale per channel."""
        return MX_BLOCK if self.mx else problem.group


@dataclass(frozen=True)
class DequantTiling:
    """Cube tiles as in ``bf16``; ``slot_k`` of K and ``slots`` of the ring; ``vector_k`` rows of the stored weights in a UB
    tile.

    ``direct`` 1 puts the ring into L1: AIVs write there straight from UB, every tile of rows dequantizes its weights anew, and
    output tiles are taken in bands of ``band`` tiles of rows.  0 puts it into GM, where tiles of rows share the weights.

    ``k_parts`` core groups share the K of a tile (:mod:`~msdsim.dataflows.split_k`).
    """

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    slot_k: int
    slots: int
    vector_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2
    ub_ring: int = 2
    direct: int = 0
    band: int = 1
    k_parts: int = 1


def choose_tiling(problem: GemmShape, chip: Chip, weights: Weights, formats: tuple[str, str] = FORMATS) -> DequantTiling:
    """Cube tiles of ``bf16``.

    Through GM: a ring of four slots, or of the whole K and two more slots where several tiles of rows share the dequantized
    columns; slots and L1 tiles end where lines of L2 do, if they can.  Through L1: a ring of 64 KiB slots, and every tile of
    rows dequantizes anew, where the chip has the path and Vector then still is no slower than the Cube.  UB tiles are the
    largest that fit, all of about one size.
    """
    def choose(parts: int) -> tuple[DequantTiling, float]:
        found = _direct(problem, chip, weights, formats, parts)
        return found if found is not None else _through_gm(problem, chip, weights, formats, parts)

    # Groups of scales never straddle parts of K.
    tile, parts = choose_parts(chip, CubeWork.of(problem, out_bytes=2), choose, weights.group(problem) or 1)
    tile = replace(tile, k_parts=parts)
    return replace(tile, vector_k=Layout(problem, chip, tile, weights, element_bits(formats[1])).largest_tile())


def _direct(problem: GemmShape, chip: Chip, weights: Weights, formats: tuple[str, str],
            parts: int) -> tuple[DequantTiling, float] | None:
    """Tiles for a ring in L1 with K in ``parts``, and the cycles they may take; None where the chip has no path or Vector would
    become the slowest unit by it."""
    if chip.path("UB", "L1") is None:
        return None
    wide = element_bits(formats[1]) // 8
    work = CubeWork.of(problem, out_bytes=2, vector_per_weight=_vector_cycles(chip, weights, formats), ring_in_l1=True,
                       stored_bits=NUMBER_FORMATS[weights.fmt].bits)
    work = work.split(parts) if parts > 1 else work
    c = choose_cube_tiles(chip, formats, work)
    m_tiles, n_tiles = ceil_div(problem.m, c.base_m), ceil_div(problem.n, c.base_n)
    vector = c.base_n * work.vector_per_weight / chip.cores.aiv_per_aic
    rate = chip.cube.rate(*formats)
    assert rate is not None
    cube = ceil_div(c.base_m, 16) * ceil_div(c.base_n, 16) / rate.fractal_k
    if m_tiles > 1 and vector > cube:
        return None
    target = max(16, _SLOT_BYTES // (c.base_n * wide) // 16 * 16)
    while True:
        slot_k = _slot_k(problem, chip, weights, min(target, round_up(work.k, 16)), at_least=False)
        # An L1 tile of A is as deep as a slot, in whole L0 tiles.
        l0_k = max(rate.fractal_k, min(c.l0_k, 1 << (slot_k.bit_length() - 1)))
        l1_k = round_up(slot_k, l0_k)
        # Beside the ring, two tiles of A and, for MX, of the scales of both.
        room = chip.buffers.l1_bytes - 2 * l1_k * (c.base_m * wide + (c.base_m + c.base_n) // MX_BLOCK)
        slots = min(_SLOTS, room // (slot_k * c.base_n * wide))
        if slots >= 2:
            break
        # Shallower slots, as long as they become shallower.
        target //= 2
        if target < 16:
            return None
    stored = NUMBER_FORMATS[weights.fmt].bits / 8
    band = choose_band(m_tiles, n_tiles, chip.cores.aic, (wide * c.base_m * problem.k, stored * c.base_n * problem.k),
                       chip.l2.capacity_bytes)
    tile = DequantTiling(c.base_m, c.base_n, l1_k, l0_k, slot_k, slots, 1, l0c_ring=c.l0c_ring, direct=1, band=band)
    return tile, estimate_cycles(chip, formats, c, work)


def _through_gm(problem: GemmShape, chip: Chip, weights: Weights, formats: tuple[str, str],
                parts: int) -> tuple[DequantTiling, float]:
    """Tiles for a ring in GM with K in ``parts``, and the cycles they may take."""
    work = CubeWork.of(problem, out_bytes=2, own_columns=True, vector_per_weight=_vector_cycles(chip, weights, formats),
                       stored_bits=NUMBER_FORMATS[weights.fmt].bits)
    work = work.split(parts) if parts > 1 else work
    c = choose_cube_tiles(chip, formats, work)
    several = problem.m > c.base_m
    # As shallow as a ring of the whole K allows where slots end with lines of L2, so that the first products begin early.
    # Slots that end inside a line, as some groups of scales have it, cost requests: few of them then.
    most = chip.cross_core.max_outstanding - 2
    line_k = chip.l2.line_bytes * 8 // element_bits(formats[0])
    slot_k = _gm_slot(problem, chip, weights, work.k, _SLOT_K if problem.trans_b else _SHORT_SLOT_K, most, line_k, several)
    if slot_k % line_k:
        slot_k = _gm_slot(problem, chip, weights, work.k, _SLOT_K, most // 2, 1, several)
    slots = ceil_div(work.k, slot_k) + 2 if several else _SLOTS
    tile = DequantTiling(c.base_m, c.base_n, _l1_depth(chip, c, slot_k, formats, line_k), c.l0_k, slot_k, slots, 1,
                         l0c_ring=c.l0c_ring)
    return tile, estimate_cycles(chip, formats, c, work)


def _gm_slot(problem: GemmShape, chip: Chip, weights: Weights, k: int, least: int, most: int, multiple: int,
             several: bool) -> int:
    """K of a slot of a ring in GM: ``least``, or more where ``several`` tiles of rows need all of ``k`` in at most ``most``
    slots; rounded up to a ``multiple``, then to what groups of scales allow."""
    target = round_up(max(least, ceil_div(k, most)) if several else least, multiple)
    return _slot_k(problem, chip, weights, min(target, round_up(k, 16)), at_least=several)


def _l1_depth(chip: Chip, c: CubeChoice, slot_k: int, formats: tuple[str, str], line_k: int) -> int:
    """K of an L1 tile, about that of ``c``: an even part of a slot whose rows of A cross no line (of ``line_k`` elements)
    needlessly, since a slot that ends in a shorter tile, or rows off the lines, cost requests.  That of ``c`` where slots
    themselves end inside a line."""
    if slot_k % line_k:
        return c.l1_k
    per_k = DequantTiling.l1_ring * (c.base_m * element_bits(formats[0]) + c.base_n * element_bits(formats[1])) // 8
    parts = [d for d in range(c.l0_k, chip.buffers.l1_bytes // per_k + 1, c.l0_k)
             if slot_k % d == 0 and (d % line_k == 0 or line_k % d == 0)]
    deep = [d for d in parts if d >= c.l1_k]
    return min(deep) if deep else max(parts, default=c.l1_k)


def _vector_cycles(chip: Chip, weights: Weights, formats: tuple[str, str]) -> float:
    """Vector cycles for each weight, roughly: to 16 bits and to FP32, the product with the scale, the last conversion."""
    ops = [("cast", 16), ("cast", 32), ("cast", 32)]
    if formats[1] == "bf16":
        ops.append(("mul", 32))
    if weights.mx and ("fp4_e2m1", "bf16") not in vector_casts(chip):
        ops += [(op, bits) for op, bits, _ in DECODE_FP4][1:]
    return sum(chip.vector.ops[op].slope_cycles_per_repeat / lanes(chip, bits) for op, bits in ops)


def _slot_k(problem: GemmShape, chip: Chip, weights: Weights, target: int, at_least: bool) -> int:
    """K of a slot, about ``target``.  Where weights are transposed, an AIV takes columns and all K of a slot."""
    parts = 1 if problem.trans_b else chip.cores.aiv_per_aic
    if weights.mx:
        target = round_up(target, parts * MX_BLOCK)
    return parts * _share(ceil_div(target, parts), weights.group(problem), at_least)


def _share(target: int, group: int | None, at_least: bool) -> int:
    """K of a slot that one AIV takes: about ``target``, such that groups of scales do not straddle it."""
    if group is None:
        return target
    if group <= target:
        return (ceil_div(target, group) if at_least else target // group) * group
    if at_least:
        return next(d for d in range(target, group + 1) if group % d == 0)
    part = next(d for d in range(target, 0, -1) if group % d == 0)
    return part if part >= target * _SMALLEST_PART else group


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
        if part < most * _SMALLEST_PART and self.share % self.group == 0:
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


def build(problem: GemmShape, chip: Chip, tile: DequantTiling, weights: Weights) -> Kernel:
    """See the module's text for the dataflow."""
    return DequantKernel(problem, chip, tile, weights, FORMATS, f"dequant_{_short(weights)}").kernel()


class DequantKernel:
    """The kernel under construction.  Its subclasses change what Vector makes of a weight and what A is."""

    def __init__(self, problem: GemmShape, chip: Chip, tile: DequantTiling, weights: Weights, formats: tuple[str, str],
                 name: str) -> None:
        require_positive(tile, "direct")
        self.problem, self.chip, self.tile, self.weights = problem, chip, tile, weights
        self.kinds = CubeOperands(*formats, transpose_b=problem.trans_b)
        self.layout = Layout(problem, chip, tile, weights, element_bits(formats[1]))
        self.layout.check()
        self.cores = chip.cores.aic
        m, k, n = problem.m, problem.k, problem.n
        self.experts = Experts(problem)
        self.grid = Grid(self.experts, n, tile.base_m, tile.base_n, tile.band)
        self.m_tiles, self.n_tiles = self.grid.m_tiles, self.grid.n_tiles
        #: K of a part, and ring slots of it; a shorter last part leaves some of them empty.
        self.part_k = part_size(k, tile.k_parts)
        self.k_parts = ceil_div(k, self.part_k)
        self.k_slots = ceil_div(self.part_k, tile.slot_k)
        self._check_tiling()
        self.kb = kb = KernelBuilder(name, self.cores, chip.cores.aiv_per_aic)
        self.x = operand(kb, problem, "x", "bf16", (m, k), "in", rows_axis=0)
        self.w = operand(kb, problem, "w", weights.fmt, (n, k) if problem.trans_b else (k, n), "in")
        self.scale = self.scale_tensor("scale", "e8m0" if weights.mx else "fp32")
        self.offset = self.scale_tensor("offset", "fp32") if problem.offset else None
        slot = (tile.base_n, tile.slot_k) if problem.trans_b else (tile.slot_k, tile.base_n)
        self.ring = kb.tensor("ring", element_format(formats[1]), (self.cores, tile.slots, *slot), "workspace",
                              "L1" if tile.direct else "GM")
        self.y = operand(kb, problem, "y", "bf16", (m, n), "out", rows_axis=0)
        self.partial = FloatParts(kb, chip, problem, tile.k_parts) if self.k_parts > 1 else None
        kb.signal("full", "aiv_to_aic")
        kb.signal("empty", "aic_to_aiv")
        #: The pipe of the AIC that reads the ring.
        self.reader = "MTE1" if tile.direct else "MTE2"

    def scale_tensor(self, name: str, fmt: str) -> Operand:
        """Scales or offsets of every expert."""
        return operand(self.kb, self.problem, name, fmt, self.scale_shape(), "in")

    def scale_shape(self) -> tuple[int, ...]:
        """A row of columns per group; a column of them where the weights are transposed, as Vector wants it."""
        group, n = self.layout.group, self.problem.n
        groups = 1 if group is None else ceil_div(self.problem.k, group)
        return (groups, n, 1) if self.problem.trans_b else (groups, n)

    def _check_tiling(self) -> None:
        tile, most = self.tile, self.chip.cross_core.max_outstanding
        slot_bytes = tile.slot_k * tile.base_n * element_bits(self.kinds.b) // 8
        if tile.direct and self.chip.path("UB", "L1") is None:
            raise TilingError(f"tiling direct={tile.direct}: chip '{self.chip.name}' has no path UB->L1; give direct=0")
        check_cube_tiling(self.chip, tile, self.kinds, held_b_bytes=tile.slots * slot_bytes if tile.direct else None)
        if self.k_parts > 1 and self.layout.group is not None and self.part_k % self.layout.group:
            raise TilingError(f"tiling k_parts={tile.k_parts} cuts K={self.problem.k} into parts of {self.part_k}, not whole "
                              f"groups of {self.layout.group}; give another number of parts, or 1")
        if tile.slots > most:
            raise TilingError(f"tiling slots={tile.slots} needs more than the {most} outstanding signals of "
                              f"'{self.chip.name}'; give at most {most}")
        if self.m_tiles > 1 and tile.slots < self.k_slots and not tile.direct:
            raise TilingError(
                f"tiling slots={tile.slots} cannot hold the {self.k_slots} slots of K that {self.m_tiles} tiles of rows share; "
                f"raise slots to {self.k_slots} or slot_k to at least {tile.slot_k * ceil_div(self.k_slots, tile.slots)}"
            )

    def kernel(self) -> Kernel:
        """The finished kernel."""
        with self.kb.part("aic"):
            self.consume()
        with self.kb.part("aiv"):
            self.produce()
        return self.kb.build()

    @contextmanager
    def _tiles(self) -> Iterator[tuple[Place, _Turn]]:
        """Loop over this core's output tiles, for a ring in L1: the tile and its turn on the core."""
        kb, parts = self.kb, self.k_parts
        with kb.loop("t", kb.core, self.grid.tiles * parts, self.cores) as t, self.grid.place(kb, t // parts) as place:
            yield place, self._turn(t)

    @contextmanager
    def _columns(self) -> Iterator[tuple[Expert, Expr, _Turn]]:
        """Loop over this core's tiles of columns, for a ring in GM: expert, tile of columns, and its turn on the core."""
        def columns(m: int) -> int:
            return self.n_tiles if m else 0

        kb, experts = self.kb, self.experts
        with (
            kb.loop("nt", kb.core, experts.units(columns) * self.k_parts, self.cores) as column,
            experts.find(kb, column // self.k_parts, columns) as (expert, inside),
        ):
            nt = inside if experts.uneven is None else minimum(self.n_tiles - 1, inside)
            yield expert, nt, self._turn(column)

    def _turn(self, unit: Expr) -> _Turn:
        part = unit % self.k_parts
        return _Turn(unit // self.cores, part, part * self.part_k, ragged(self.problem.k, self.part_k, part))

    def _slot(self, turn: _Turn, c: Expr) -> Expr:
        return (turn.number * self.k_slots + c) % self.tile.slots

    def _depth(self, turn: _Turn, c: Expr) -> Expr:
        """K of slot ``c`` of a part."""
        if self._hollow:
            return share_of(turn.depth, self.tile.slot_k, c)
        return ragged_of(turn.depth, self.tile.slot_k, c)

    @property
    def _hollow(self) -> bool:
        """Whether the last part of K has fewer slots than the others."""
        last = self.problem.k - (self.k_parts - 1) * self.part_k
        return ceil_div(last, self.tile.slot_k) < self.k_slots

    # Cube

    def consume(self) -> None:
        """Multiply every tile of rows with the slots of a tile of columns."""
        kb, tile = self.kb, self.tile
        with kb.loop("s", 0, tile.slots):
            kb.raise_signal("empty", self.reader)
        self.before_multiply()
        if tile.direct:
            with self._tiles() as (place, turn):
                self._multiply(place, turn, Const(1))
        else:
            self._multiply_columns()
        if self.partial is not None:
            kb.raise_signal("summed", "FIX")

    def _multiply_columns(self) -> None:
        """All tiles of rows of a tile of columns, one after the other."""
        kb = self.kb
        with (
            self._columns() as (expert, nt, turn),
            self.grid.row_tiles_before(kb, expert) as before,
            kb.loop("mt", 0, self.grid.row_tiles_of(expert)) as mt,
            self.grid.tile(kb, expert, mt, nt, before) as place,
        ):
            self._multiply(place, turn, mt.equals(self.grid.row_tiles_of(expert) - 1))

    def _multiply(self, place: Place, turn: _Turn, last: Expr) -> None:
        """One output tile: the slots of its columns times a tile of rows, the ``last`` of which hands them back."""
        kb, tile = self.kb, self.tile
        expert, mt, nt, rows, cols = place.expert, place.mt, place.nt, place.rows, place.cols
        acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)
        whole = acc[at(0, rows), at(0, cols)]
        with kb.loop("c", 0, self.k_slots) as c:
            self._once(mt.equals(0), lambda: kb.wait_signal("full", self.reader))
            first = turn.first + c * tile.slot_k
            a = self.activations(place, first)
            b = self._slot_operand(self._slot(turn, c), cols, self.weight_scales(expert, nt, cols, first))
            accumulate(kb, tile, self.kinds, whole, rows, cols, self._depth(turn, c), a, b, before=c)
            self._once(last, lambda: kb.raise_signal("empty", self.reader))
        here = at(place.row, rows), at(nt * tile.base_n, cols)
        into = self.y.at(expert, *here) if self.partial is None else self.partial.sums.at(expert, turn.part, *here)
        kb.op("fixpipe", into, whole)

    def _once(self, condition: Expr, emit: Callable[[], None]) -> None:
        """Emit for the tile of rows that ``condition`` names, and for every one where each has a slot of its own."""
        if self.m_tiles == 1 or self.tile.direct:
            emit()
        else:
            with self.kb.when(condition):
                emit()

    def _slot_operand(self, slot: Expr, cols: Expr, scales: Loader | None) -> Stream | Held:
        """B: a slot of the ring, read where it lies if that is L1."""
        kb, ring, transposed = self.kb, self.ring, self.problem.trans_b

        def of_ring(start: Expr, size: Expr) -> Slice:
            depth, columns = at(start, size), at(0, cols)
            return ring[(kb.core, slot, columns, depth) if transposed else (kb.core, slot, depth, columns)]

        def load(b1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(b1[at(0, cols), at(0, size)] if transposed else b1[at(0, size), at(0, cols)], of_ring(start, size))

        return Held(of_ring, scales) if self.tile.direct else Stream(load, scales)

    # What subclasses change

    def before_multiply(self) -> None:
        """What the AIC waits for before its first tile."""

    def activations(self, place: Place, first: Expr) -> Stream:
        """A: rows of x, for K ranges counted from ``first``."""
        kb, rows = self.kb, at(place.row, place.rows)

        def load(a1: Handle, start: Expr, size: Expr) -> None:
            kb.copy(a1[at(0, place.rows), at(0, size)], self.x.at(place.expert, rows, at(first + start, size)))

        return Stream(load)

    def weight_scales(self, e: Expert, nt: Expr, cols: Expr, first: Expr) -> Loader | None:
        """Loader of the scales that the Cube applies to the weights itself, if it does."""
        return None

    def before_produce(self) -> None:
        """What the AIVs do before the first weights."""

    # Vector

    def produce(self) -> None:
        """Fill the slots of the group's tiles of columns."""
        kb = self.kb
        self.before_produce()
        if self.tile.direct:
            with self._tiles() as (place, turn):
                self._fill(place.expert, place.nt, turn)
        else:
            with self._columns() as (expert, nt, turn):
                self._fill(expert, nt, turn)
        # The last slots come back unused.
        with kb.loop("s", 0, self.tile.slots):
            kb.wait_signal("empty", "MTE3")
        if self.partial is not None:
            self.partial.add_up(self.y)

    def _fill(self, e: Expert, nt: Expr, turn: _Turn) -> None:
        """Dequantize a tile of columns into its slots."""
        kb, tile, lay = self.kb, self.tile, self.layout
        cols = ragged(self.problem.n, tile.base_n, nt)
        scales = self.scales(e, nt, cols)
        if scales is not None and lay.group is None:
            scales.load(Const(0), Const(1))
        with kb.loop("c", 0, self.k_slots) as c:
            depth, first = self._depth(turn, c), turn.first + c * tile.slot_k
            if scales is not None and lay.group is not None and not lay.scales_by_tile:
                scales.load(first, depth)
            mine = share_of(cols if self.problem.trans_b else depth, lay.share, kb.sub)
            kb.wait_signal("empty", "MTE3")
            with self._ub_tiles(mine) as (line, size):
                run = depth if self.problem.trans_b else cols
                here = (at(0, size), at(0, run))
                wq = self._load(e, nt, first, line, here)
                if scales is not None and lay.scales_by_tile:
                    scales.load(first, depth, (line, size))
                wide = self.convert(wq, here, scales, line, size, run)
                kb.copy(self.ring[kb.core, self._slot(turn, c), at(kb.sub * lay.share + line, size), at(0, run)], wide)
            kb.raise_signal("full", "MTE3")

    @contextmanager
    def _ub_tiles(self, mine: Expr) -> Iterator[tuple[Expr, Expr]]:
        """Loop over the UB tiles of ``mine`` lines: first line and number of lines."""
        kb, group, vector_k = self.kb, self.layout.group, self.tile.vector_k
        if not self.layout.whole_groups or group is None:
            with kb.loop("v", 0, ceil_expr(mine, vector_k)) as v:
                yield v * vector_k, ragged_of(mine, vector_k, v)
            return
        with kb.loop("g", 0, ceil_expr(mine, group)) as g:
            lines = ragged_of(mine, group, g)
            with kb.loop("v", 0, ceil_expr(lines, vector_k)) as v:
                yield g * group + v * vector_k, ragged_of(lines, vector_k, v)

    def scales(self, e: Expert, nt: Expr, cols: Expr) -> Scales | None:
        """Scales that Vector applies."""
        return Scales(self, e, nt, cols)

    @property
    def shape(self) -> tuple[int, int]:
        """Lines and weights of a UB tile."""
        return self.tile.vector_k, self.layout.run

    def _load(self, e: Expert, nt: Expr, start: Expr, line: Expr, here: tuple[At, At]) -> Slice:
        """Stored weights of the slot whose K begins at ``start``, from ``line`` of this AIV's share."""
        kb, tile = self.kb, self.tile
        wq = kb.buffer("wq", "UB", self.weights.fmt, self.shape, tile.ub_ring)[here]
        (size, run), first = (item.size for item in here), kb.sub * self.layout.share + line
        if self.problem.trans_b:
            kb.copy(wq, self.w.at(e, at(nt * tile.base_n + first, size), at(start, run)))
        else:
            kb.copy(wq, self.w.at(e, at(start + first, size), at(nt * tile.base_n, run)))
        return wq

    def convert(self, wq: Slice, here: tuple[At, At], scales: Scales | None, line: Expr, size: Expr, run: Expr) -> Slice:
        """Stored weights as the Cube takes them: ``bf16((q + offset) * scale)``."""
        kb, lay = self.kb, self.layout
        w32 = kb.buffer("w32", "UB", "fp32", self.shape)
        self.widen(wq, here, w32[here])
        assert scales is not None
        wf = w32
        if lay.spans == 1:
            scales.apply(w32[here], w32[here], line, run, scales.group_of(line))
        else:
            # Group after group into another buffer, so that no group waits for the one before.
            wf = kb.buffer("wf", "UB", "fp32", self.shape)
            each, lines = lay.group or 1, run if self.problem.trans_b else size
            with kb.loop("j", 0, ceil_expr(lines, each)) as j:
                part = at(j * each, ragged_of(lines, each, j))
                piece = (at(0, size), part) if self.problem.trans_b else (part, at(0, run))
                scales.apply(wf[piece], w32[piece], line, run, scales.group_of(line) + j)
        wb = kb.buffer("wb", "UB", "bf16", self.shape, self.tile.ub_ring)[here]
        kb.op("cast", wb, wf[here], round="rint")
        return wb

    def widen(self, wq: Slice, here: tuple[At, At], w32: Slice) -> None:
        """Stored weights as FP32."""
        kb = self.kb
        if self.weights.mx and ("fp4_e2m1", "bf16") in vector_casts(self.chip):
            wide = kb.buffer("w16", "UB", "bf16", self.shape)[here]
            kb.op("cast", wide, wq)
        else:
            wide = kb.buffer("w16", "UB", "fp16", self.shape)[here]
            kb.op("decode_fp4" if self.weights.mx else "cast", wide, wq)
        kb.op("cast", w32, wide)


@dataclass(frozen=True)
class _Turn:
    """What a core does in one turn: the how manyth it is, the part of K, where it begins and how deep it is."""

    number: Expr
    part: Expr
    first: Expr
    depth: Expr


class Scales:
    """Scales and offsets in UB: those of a tile of columns, or of an AIV's part of a slot where they come in groups.

    Weights [k, n]: row g has those of group g for every column.  Transposed: column g has those of this AIV's columns.
    """

    def __init__(self, kernel: DequantKernel, e: Expert, nt: Expr, cols: Expr) -> None:
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


def _short(weights: Weights) -> str:
    return "mxfp4" if weights.mx else weights.fmt


def _refuse(problem: GemmShape, chip: Chip, weights: Weights) -> str | None:
    name = f"dequant-{_short(weights)}"
    return refuse_rate(chip, FORMATS) or refuse_packed(problem, weights.fmt) or (
        refuse_scales(problem, name) if weights.mx else None)


def register_dequant(fmt: str, description: str) -> None:
    """Register the dequantizing dataflow of weights in ``fmt``."""
    weights = Weights(fmt)
    register_gemm(f"dequant-{_short(weights)}", description, DequantTiling,
                  refuses=lambda problem, chip: _refuse(problem, chip, weights),
                  auto=lambda problem, chip: choose_tiling(problem, chip, weights),
                  build=lambda problem, chip, tile: build(problem, chip, tile, weights))
