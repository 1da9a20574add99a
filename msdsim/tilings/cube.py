"""The Cube's tiles and its main loop: what the GEMM dataflows share of their space and of what they state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.dataflows.vector.add_parts import NOTHING_RESERVED, Reserved, adding_tile
from msdsim.formats.mx import MX_BLOCK, element_bits
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.mte import FRACTAL_ROW_BYTES
from msdsim.tilings.costs import Costs, Ops
from msdsim.tilings.estimate import Phase
from msdsim.tilings.space import Space, Values, ceil, even_parts, up
from msdsim.units import ceil_div, part_size, round_up

#: Waves of tiles over the cores that a choice of columns aims at, and plain numbers of columns.
WAVES = (1, 2, 3, 4, 6)
#: Waves from which the last one hardly counts.
FEW_WAVES = 12
COLUMNS = (64, 96, 128, 192, 256, 512)
#: Rows of a tile that are tried, in fractals and as parts of all rows, and the most.
ROW_FRACTALS, ROW_PARTS, MOST_ROWS = (1, 2, 4, 8, 16, 32), range(1, 9), 512
#: Parts of K that core groups may share, and the least K of a part.
PARTS, SHORTEST_PART = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16), 128
#: K of a tile in L1; the first is where the search begins.
L1_DEPTHS = (256, 64, 128, 512, 1024)
#: Bands of tiles of rows besides all of them.
BANDS = (1, 2, 4)
#: Share of L2 that what is to stay there may take: its sets fill unevenly.
KEPT = 0.9


@dataclass(frozen=True)
class Product:
    """What the Cube multiplies: for every expert its rows (stacked components included) by ``k`` by ``n``."""

    formats: tuple[str, str]
    counts: tuple[int, ...]
    k: int
    n: int
    out_bytes: int
    trans_b: bool
    nz: bool = False

    @classmethod
    def of(cls, problem: Any, formats: tuple[str, str], out_bytes: int, passes: int = 1) -> Product:
        """That of a GEMM, plain or grouped, whose rows are stacked ``passes`` times."""
        counts = getattr(problem, "rows", None)
        if counts is None:
            counts = (problem.m,) * (problem.groups if problem.kind == "grouped_gemm" else 1)
        return cls(formats, tuple(passes * rows for rows in counts if rows), problem.k, problem.n, out_bytes, problem.trans_b,
                   problem.layout == "nz")

    @property
    def rows(self) -> int:
        """Rows of the largest expert."""
        return max(self.counts)

    @property
    def total_rows(self) -> int:
        return sum(self.counts)

    @property
    def bits(self) -> tuple[int, int]:
        """Of an element of A and of B."""
        return element_bits(self.formats[0]), element_bits(self.formats[1])

    @property
    def scale_bytes(self) -> float:
        """Bytes of block scales beside each element of a row or column."""
        return 1 / MX_BLOCK if self.formats[0].startswith("mx") else 0.0

    def units(self, rows: Values) -> Values:
        """Tiles of ``rows`` rows of all experts."""
        return sum(self.counts.count(of) * ceil(of, rows) for of in dict.fromkeys(self.counts))

    def tiles(self, s: Space) -> Values:
        """Output tiles."""
        return self.units(s.base_m) * ceil(self.n, s.base_n)

    def l1_bytes(self, s: Space, b_in_l1: Values = True) -> Values:
        """Bytes of L1 for each element of K: a tile of A, and one of B unless Vector brings it."""
        bits_a, bits_b = self.bits
        return s.base_m * (bits_a / 8 + self.scale_bytes) + s.base_n * (b_in_l1 * bits_b / 8 + self.scale_bytes)


def parts_of(k: int, quantum: int = 1) -> list[int]:
    """Numbers of parts of K, each a multiple of ``quantum`` deep."""
    depths = {parts: part_size(k, parts) for parts in PARTS}
    return [1, *(parts for parts, depth in depths.items()
                 if ceil_div(k, depth) == parts and depth >= SHORTEST_PART and depth % quantum == 0)]


def depth_of(k: int, parts: Values) -> Values:
    """:func:`~msdsim.units.part_size` for columns."""
    return np.minimum(k, up(ceil(k, parts), 64))


def units_of(s: Space, product: Product) -> Values:
    """Parts of output tiles; of the parts of K none is empty."""
    return product.tiles(s) * ceil(product.k, depth_of(product.k, s.k_parts))


def add_rows(s: Space, product: Product, step: int) -> None:
    """``base_m``: multiples of ``step`` that cut the rows evenly, and powers of two of them."""
    most = round_up(min(product.rows, MOST_ROWS), step)
    sizes = even_parts(product.rows, step, most, ROW_PARTS) + [step * i for i in ROW_FRACTALS if step * i <= most]
    s.options("base_m", *sorted(set(sizes) or {step}, reverse=True))


def add_columns(s: Space, chip: Chip, product: Product, units: Values) -> None:
    """``base_n``: as many columns as fill the cores once, twice ..., when there are ``units`` for each tile of columns; and
    plain sizes.  The accumulators, two where there is room, fit L0C."""
    step, cores = chip.cube.fractal_n, chip.cores.aic
    most = round_up(min(product.n, 1024), step)
    if (s.k_parts == 1).any():
        # Parts of K fill the last of a few waves; where even the widest tiles make many, they cost sums and gain nothing.
        widest = np.minimum(most, chip.buffers.l0c_bytes // (4 * s.base_m))
        some = (s.k_parts == 1) | (units // s.k_parts * (product.n // widest) < FEW_WAVES * cores)
        s.keep(some)
        units = units[some]
    waves = [up(ceil(product.n, np.maximum(1, cores * wave // units)), step) for wave in WAVES]
    s.options("base_n", *[np.minimum(size, most) for size in (step, *(round_up(size, step) for size in COLUMNS), *waves)])
    s.keep(s.base_m * s.base_n * 4 <= chip.buffers.l0c_bytes)
    s.set(l0c_ring=np.minimum(2, chip.buffers.l0c_bytes // (s.base_m * s.base_n * 4)))
    s.keep(s.l0c_ring * s.base_m * s.base_n * 4 <= chip.buffers.l0c_bytes)


def _deepest_l0(s: Space, chip: Chip, product: Product, ring: Values) -> Values:
    """The deepest tile in L0, in fractals."""
    bits_a, bits_b = product.bits
    room = np.minimum(chip.buffers.l0a_bytes * 8 // (ring * s.base_m * bits_a),
                      chip.buffers.l0b_bytes * 8 // (ring * s.base_n * bits_b))
    if product.scale_bytes:
        room = np.minimum(room, np.minimum(chip.buffers.l0a_mx_bytes // (ring * s.base_m),
                                           chip.buffers.l0b_mx_bytes // (ring * s.base_n)) * MX_BLOCK)
    return np.minimum(room, 1024) // chip.cube.need_rate(*product.formats).fractal_k


def add_l0(s: Space, chip: Chip, product: Product, k: Values, several: bool) -> None:
    """``l0_k``, at most ``k`` deep, and ``l0_ring``: the deepest power of two, or also others."""
    deep = chip.cube.need_rate(*product.formats).fractal_k
    # A single slot only where two have no room.
    s.set(l0_ring=np.where(_deepest_l0(s, chip, product, 2) >= 1, 2, 1))
    fractals = np.minimum(_deepest_l0(s, chip, product, s.l0_ring), ceil(k, deep))
    power = 1 << np.floor(np.log2(np.maximum(fractals, 1))).astype(np.int64)
    choices = (power, np.maximum(1, power // 2), np.minimum(power, 4), np.minimum(power, 2), np.maximum(1, fractals))
    s.options("l0_k", *[choice * deep for choice in (choices if several else choices[:1])])
    s.keep(_deepest_l0(s, chip, product, s.l0_ring) * deep >= s.l0_k)


def add_l1(s: Space, chip: Chip, product: Product, k: Callable[[], Values], several: bool) -> None:
    """``l1_k``, whole tiles in L0 and about ``k()`` at most, and ``l1_ring``: what fits L1."""
    most = np.maximum(1, (chip.buffers.l1_bytes // (2 * product.l1_bytes(s))).astype(np.int64) // s.l0_k)
    depths = L1_DEPTHS if several else L1_DEPTHS[:1]
    s.options("l1_k", *[np.minimum(most, ceil(np.minimum(depth, k()), s.l0_k)) * s.l0_k for depth in depths])
    s.options("l1_ring", *((2, 3) if several else (2,)))
    _single_where_it_must(s, chip, product)


def add_l1_of_groups(s: Space, chip: Chip, product: Product, group: int, several: bool) -> None:
    """:func:`add_l1` where every ``group`` of K has a product of its own: a tile in L1 holds whole groups or is a part of
    one."""
    most = (chip.buffers.l1_bytes // (2 * product.l1_bytes(s))).astype(np.int64)
    part = np.minimum(most, group - 1) // s.l0_k * s.l0_k
    s.options("l1_k", *[np.where(most >= group, np.minimum(most // group, max(1, depth // group)) * group, part)
                        for depth in (L1_DEPTHS if several else L1_DEPTHS[:1])])
    s.keep(s.l1_k >= 1)
    s.set(l1_ring=2)
    _single_where_it_must(s, chip, product)


def _single_where_it_must(s: Space, chip: Chip, product: Product) -> None:
    """A ring of one where L1 has no room for two of the smallest tiles."""
    def fits(ring: Values) -> Values:
        return ring * s.l1_k * product.l1_bytes(s) <= chip.buffers.l1_bytes

    s.set(l1_ring=np.where(fits(s.l1_ring), s.l1_ring, 1))
    s.keep(fits(s.l1_ring))


def add_bands(s: Space, product: Product, several: bool) -> None:
    """``swizzle``: tiles of rows that are taken together."""
    m_tiles = ceil(product.rows, s.base_m)
    s.options("swizzle", m_tiles, *(np.minimum(m_tiles, band) for band in (BANDS if several else ())))


@dataclass(frozen=True)
class Traffic:
    """Bytes of A and B that come from HBM, and the share of a core's reads of each that finds nothing in L2."""

    a_bytes: Values
    b_bytes: Values
    fresh_a: Values
    fresh_b: Values


def traffic(chip: Chip, product: Product, s: Space, bytes_a: float, bytes_b: float, parts: Values = 1) -> Traffic:
    """A band keeps its rows of A in L2 while the columns of B pass by once, so that B is read once for each band; what L2
    cannot hold is read anew."""
    k, cores, room = product.k, chip.cores.aic, KEPT * chip.l2.capacity_bytes
    m_tiles, n_tiles = ceil(product.rows, s.base_m), ceil(product.n, s.base_n)
    band = np.minimum(s.swizzle, m_tiles)
    a, b = s.base_m * k * bytes_a, s.base_n * k * bytes_b
    width, bands = ceil(cores, band), ceil(m_tiles, band)
    all_a, all_b = product.total_rows * k * bytes_a, len(product.counts) * product.n * k * bytes_b
    fits = m_tiles * a + n_tiles * b <= room
    reads_a = np.where(fits | (band * a + 2 * width * b <= room), 1, ceil(n_tiles, width))
    reads_b = np.where(fits | (bands == 1) | (n_tiles * b + band * a <= room), 1, bands)
    # Cores that ask for the same together all wait for it: along a band, and with tiles of rows of it or of several bands.
    fresh_a = np.minimum(1.0, reads_a / np.maximum(1, band * n_tiles * parts / cores))
    together = np.minimum(np.maximum(band, cores / (n_tiles * parts)), np.minimum(m_tiles, np.maximum(1, cores / parts)))
    fresh_b = np.minimum(1.0, reads_b * together / m_tiles)
    return Traffic(reads_a * all_a, reads_b * all_b, fresh_a, fresh_b)


@dataclass
class MainLoop:
    """Cycles of an output tile (or a part of it along K) by pipe, in ``steps`` tiles in L1 and ``inner`` in L0; the latency of
    its loads; the bytes of L2's bandwidth that they take; and whether a drain overlaps the products before and after it."""

    steps: Values
    inner: Values
    mte2: Values
    mte1: Values
    cube: Values
    drain: Values
    latency: Values
    l2_bytes: Values
    unit_flags: Values | bool = True

    def turn(self, drains: Values | int, path: Values) -> Values:
        """Cycles from one use of an accumulator to the next, of ``drains`` a tile; ``path`` is the latency on the way there and
        back where a drain begins behind the last product."""
        inside, drain = self.inside / drains, self.drain / drains
        overlapped = np.maximum(0.0, inside - 2 * self.inside / self.inner) + drain
        return np.where(self.unit_flags, overlapped, inside + drain + path)

    @property
    def inside(self) -> Values:
        """Cycles inside the core."""
        return np.maximum(self.mte1, self.cube)

    def where(self, rows: Values, other: MainLoop) -> MainLoop:
        """This loop for some candidates, another one for the rest."""
        return MainLoop(*(np.where(rows, mine, theirs) for mine, theirs in
                          zip(vars(self).values(), vars(other).values(), strict=True)))


def load_b(costs: Costs, product: Product, s: Space, depth: Values, fresh: Values,
           b_pitch: tuple[Values, Values] | None = None) -> tuple[Values, Values]:
    """Cycles of the load of ``depth`` of K of B into L1, a share ``fresh`` of it from HBM, and bytes of L2's bandwidth."""
    (_, bits), line, cols = product.bits, costs.chip.l2.line_bytes, np.minimum(s.base_n, product.n)
    pitch_n, pitch_k = b_pitch or (product.n, product.k)
    lines, along, pitch = (cols, depth, pitch_k) if product.trans_b else (depth, cols, pitch_n)
    width, pitch, nz = along * bits // 8, pitch * bits // 8, product.nz and b_pitch is None
    if nz:
        # Columns of fractals, each one piece.
        lines, width, pitch = ceil(width, FRACTAL_ROW_BYTES), lines * FRACTAL_ROW_BYTES, 0
    grid = np.gcd(np.gcd(width, pitch), line)
    if product.trans_b and not nz:
        fresh = fresh * costs.of_line(width)
    return costs.gm("GM", "L1", lines, width, fresh, grid, np.inf if nz else pitch, several_rows=not nz)


def main_loop(costs: Costs, product: Product, s: Space, k: Values, flow: Traffic, *, b_streams: bool = True, passes: int = 1,
              chunk: Values | None = None, b_pitch: tuple[Values, Values] | None = None,
              scale_k: Values | None = None) -> MainLoop:
    """An output tile over ``k`` elements of K, ``chunk`` of them at a time, A coming in a rectangle for each of ``passes``.

    ``b_pitch`` are the columns and K of what holds B in GM (default: all of them); ``b_streams`` false says that B lies in L1;
    scales of MX blocks come for ``scale_k`` of K at a time (default: a tile in L1).
    """
    bits_a, bits_b = product.bits
    rows, cols = np.minimum(s.base_m, product.rows), np.minimum(s.base_n, product.n)
    piece = k if chunk is None else np.minimum(chunk, k)
    depth = np.minimum(s.l1_k, piece)
    steps = ceil(k, piece) * ceil(piece, depth)
    l0_k = np.minimum(s.l0_k, depth)
    inner = steps * ceil(depth, l0_k)
    # Of the last tile of a piece only a part is there.
    share = k / (steps * depth)
    width_a = depth * bits_a // 8
    fresh_a = flow.fresh_a * costs.of_line(width_a)
    mte2, l2 = costs.gm("GM", "L1", ceil(rows, passes), width_a, fresh_a, np.gcd(width_a, product.k * bits_a // 8),
                       product.k * bits_a // 8)
    mte2, l2 = passes * mte2, passes * l2
    if b_streams:
        load, more = load_b(costs, product, s, depth, flow.fresh_b, b_pitch)
        mte2, l2 = mte2 + load, l2 + more
    if product.scale_bytes:
        held = depth if scale_k is None else np.minimum(scale_k, piece)
        blocks = ceil(held, MX_BLOCK)
        scales = passes * costs.gm("GM", "L1", ceil(rows, passes), blocks)[0] + costs.gm("GM", "L1", blocks, cols)[0]
        mte2 = mte2 + scales * (depth / held)
    mte1 = costs.local("L1", "L0A", rows, l0_k, bits_a) + costs.local("L1", "L0B", cols, l0_k, bits_b)
    if product.scale_bytes:
        blocks = ceil(l0_k, MX_BLOCK)
        mte1 = mte1 + costs.local("L1", "L0A_MX", rows, blocks, 8) + costs.local("L1", "L0B_MX", cols, blocks, 8)
    mmad = costs.mmad(product.formats, rows, l0_k, cols)
    drain = costs.drain(rows, cols, 8 * product.out_bytes)
    latency = costs.latency("GM", "L1", np.maximum(fresh_a, flow.fresh_b) if b_streams else fresh_a)
    return MainLoop(steps, inner, mte2 * steps * share, mte1 * inner * share, mmad * inner * share, drain, latency,
                    l2 * steps * share)


def state_main_loop(phase: Phase, s: Space, loop: MainLoop, tiles: Values, units: Values) -> None:
    """``tiles`` output tiles after each other on the busiest core, of ``units`` on the chip."""
    costs = phase.costs
    phase.pipe("MTE2", loop.mte2 / loop.steps, loop.steps * tiles)
    phase.pipe("MTE1", loop.mte1 / loop.inner, loop.inner * tiles, loop.mte1 / loop.steps)
    phase.pipe("M", loop.cube / loop.inner, loop.inner * tiles, loop.cube / loop.steps)
    phase.pipe("FIX", loop.drain, tiles)
    phase.l2_read_bytes = phase.l2_read_bytes + loop.l2_bytes * units
    to_l0 = costs.latency("L1", "L0A") + costs.latency("L1", "L0B")
    head, out = costs.chip.cube.head_isolated_cycles, costs.latency("L0C", "GM")
    one, load = (loop.mte1 + loop.cube) / loop.inner + to_l0 + head, loop.mte2 / loop.steps + loop.latency
    phase.ring(one, s.l0_ring, loop.inner * tiles)
    phase.ring(load + loop.inside / loop.steps + to_l0, s.l1_ring, loop.steps * tiles)
    phase.ring(loop.turn(1, to_l0 + head + out), s.l0c_ring, tiles)
    # A tile in L1, all of its products, and the result on its way out.
    phase.once(load + to_l0 + head + np.maximum(loop.inside / loop.steps, one) + loop.drain + out)


def add_parts(costs: Costs, product: Product, parts: Values, count: int, beside: Reserved = NOTHING_RESERVED,
              scaling: Ops = ()) -> Phase:
    """Vector adds the sums of the parts of K, after all cores have met (:mod:`msdsim.dataflows.vector.add_parts`), and then
    does ``scaling`` to them."""
    chip, n = costs.chip, product.n
    kinds, which = np.unique(np.broadcast_to(parts, (count,)), return_inverse=True)
    tiles = [adding_tile(chip, product.counts, n, int(kind), beside=beside) for kind in kinds]
    rows, cols = np.array(tiles)[which.reshape(-1)].T
    each = ceil(product.units(rows) * ceil(n, cols), chip.aiv)
    load = parts * costs.gm("GM", "UB", rows, cols * 4)[0]
    adding = (parts - 1) * costs.vector([("add", 32)], rows, cols) + costs.vector([*scaling, ("cast", 32)], rows, cols)
    store, _ = costs.gm("UB", "GM", rows, cols * 2)
    phase = Phase(costs, count)
    phase.pipe("AIV.MTE2", load, each)
    phase.pipe("AIV.V", adding, each)
    phase.pipe("AIV.MTE3", store, each)
    phase.l2_read_bytes = parts * product.total_rows * n * 4.0
    slowest = np.maximum(np.maximum(load, adding), store)
    phase.once(load + adding + store - slowest + costs.latency("GM", "UB") + costs.latency("UB", "GM"))
    phase.once(chip.cross_core.barrier_latency_cycles + costs.latency("L0C", "GM"))
    phase.only(parts > 1)
    return phase
