"""The choice of the Cube's tiles: what an expert would start from, by the slowest of Cube, L1->L0, GM->L1 and HBM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Protocol, TypeVar

from msdsim.dataflows.cube.experts import Experts
from msdsim.dataflows.cube.operands import element_bits
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.mte import port_cost
from msdsim.units import bytes_per_tick, ceil_div, part_size, round_up

#: How much of the faster units' time shows beside the slowest: they overlap, but each tile passes through them in turn.  Of 0,
#: 0.1, 0.25 and 0.4 the one that makes the layers of three models fastest, over two chips and six dataflows.
_SHOWING = 0.4

#: HBM that takes more than this share of all cores to keep busy needs every core there is (950DT: 0.87; 910B, 950PR below 0.5).
_NEARLY_ALL = 0.75


@dataclass(frozen=True)
class CubeChoice:
    """Tile sizes that :func:`choose_cube_tiles` found."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    l0c_ring: int


@dataclass(frozen=True)
class CubeWork:
    """What is to be multiplied: ``rows`` the Cube sees (stacked components included) by K by ``n``, for each of ``experts``;
    where these have rows of their own, ``counts`` holds them and ``rows`` is the most.

    ``step_m`` is what base_m must be a multiple of, ``out_bytes`` the size of an output element.  ``own_columns`` says that a
    core does all rows of its columns, ``k_quantum`` that an L0 tile is at most that deep (the K group of scales),
    ``max_tile`` that an output tile has at most so many elements.

    Where Vector makes B, ``vector_per_weight`` are the cycles that a weight takes, ``stored_bits`` what it has in HBM, and
    ``ring_in_l1`` says that the Cube finds it in L1 rather than in L2.
    """

    rows: int
    k: int
    n: int
    out_bytes: int
    experts: int = 1
    counts: tuple[int, ...] = ()
    step_m: int = 16
    max_base_m: int = 256
    own_columns: bool = False
    k_quantum: int | None = None
    max_tile: int | None = None
    vector_per_weight: float = 0.0
    stored_bits: int | None = None
    ring_in_l1: bool = False

    @classmethod
    def of(cls, problem: Any, out_bytes: int, passes: int = 1, **options: Any) -> CubeWork:
        """The work of a GEMM, plain or grouped, whose rows are stacked ``passes`` times."""
        experts = Experts(problem)
        counts = () if experts.uneven is None else tuple(passes * m for m in experts.uneven if m)
        count = experts.count if experts.uneven is None else len(counts)
        return cls(passes * experts.rows, problem.k, problem.n, out_bytes, count, counts, **options)

    def split(self, parts: int) -> CubeWork:
        """The same work with K in ``parts`` parts, each of which gives FP32 sums."""
        return replace(self, k=part_size(self.k, parts), experts=self.experts * parts, counts=self.counts * parts, out_bytes=4)

    @property
    def total_rows(self) -> int:
        """Rows of all experts."""
        return sum(self.counts) if self.counts else self.experts * self.rows

    def row_tiles(self, base_m: int) -> int:
        """Tiles of rows of all experts."""
        if self.counts:
            return sum(ceil_div(count, base_m) for count in self.counts)
        return self.experts * ceil_div(self.rows, base_m)


#: Parts of K worth trying.
_PARTS = (2, 3, 4, 6, 8)
#: What follows a split, in cycles: the last sums on their way to L2, their load, the additions, the store.  Then what a split
#: must gain, and what every part beyond the second adds: workspace, barrier and loads of the sums, which the estimate knows
#: roughly.  Of 1500 to 4000, 0.75 to 0.9, and 0.01 and 0.02 those that gain most over 320 shapes (three chips, three dataflows,
#: m of 1 to 64, weights of 1 to 90 million) while hardly one becomes slower.
_REDUCE_CYCLES = 2500
_GAIN, _PER_PART = 0.85, 0.02


class TileSize(Protocol):
    """What a split needs to know of tiles."""

    @property
    def base_m(self) -> int: ...
    @property
    def base_n(self) -> int: ...


Tile = TypeVar("Tile", bound=TileSize)


def choose_split_k(chip: Chip, formats: tuple[str, str], work: CubeWork) -> tuple[CubeChoice, int]:
    """Tiles, and how many cores share a tile's K: more than one where too few tiles would leave cores idle."""
    def choose(parts: int) -> tuple[CubeChoice, float]:
        part = work.split(parts) if parts > 1 else work
        tile = choose_cube_tiles(chip, formats, part)
        return tile, estimate_cycles(chip, formats, tile, part)

    return choose_parts(chip, work, choose)


def choose_parts(chip: Chip, work: CubeWork, choose: Callable[[int], tuple[Tile, float]],
                 quantum: int = 1) -> tuple[Tile, int]:
    """Tiles, and the number of parts of K, each a multiple of ``quantum`` deep.  ``choose`` gives the tiles for a number of
    parts and an estimate of the cycles to the sums of the parts."""
    best, whole = choose(1)
    parts, least = 1, whole * _GAIN
    for candidate in _PARTS:
        depth = part_size(work.k, candidate)
        if ceil_div(work.k, depth) != candidate or depth < 512 or depth % quantum:
            continue
        tile, time = choose(candidate)
        time = (time + _reduce_cycles(chip, work, tile, candidate)) * (1 + _PER_PART * (candidate - 2))
        if time < least:
            best, parts, least = tile, candidate, time
    return best, parts


def _reduce_cycles(chip: Chip, work: CubeWork, tile: TileSize, parts: int) -> float:
    """Cycles from the last sum of a part to the result: the AIVs of the tiles read the sums back, after all cores have met."""
    tiles = work.row_tiles(tile.base_m) * ceil_div(work.n, tile.base_n)
    port = chip.path("GM", "UB")
    assert port is not None
    ports = min(tiles, chip.cores.aic) * chip.cores.aiv_per_aic * port.bytes_per_cycle
    back = parts * work.total_rows * work.n * 4 / min(ports, float(bytes_per_tick(chip.l2.read_gbps, chip.clock_mhz)))
    return back + chip.cross_core.barrier_latency_cycles + _REDUCE_CYCLES


def choose_cube_tiles(chip: Chip, formats: tuple[str, str], work: CubeWork) -> CubeChoice:
    """Tiles for ``work``.  Among tiles within 3% of the best the largest, then the squarest wins: long rows and few tiles suit
    the data movers and Vector.  Before that come those with the most cores where HBM needs nearly all of them."""
    found: list[tuple[float, CubeChoice]] = []
    for base_m in _sizes(work.step_m, min(work.max_base_m, round_up(work.rows, work.step_m))):
        # Where Vector makes the weights, long rows of them are whole repeats of it.
        fine = 16 if work.stored_bits is not None else 32
        for base_n in _sizes(chip.cube.fractal_n, min(512, round_up(work.n, chip.cube.fractal_n)), fine):
            if work.max_tile is not None and base_m * base_n > max(work.max_tile, 16 * work.step_m):
                continue
            choice = _deepest(chip, formats, base_m, base_n, work)
            if choice is not None:
                found.append((estimate_cycles(chip, formats, choice, work), choice))
    if not found:
        raise TilingError(f"chip '{chip.name}' has no room for any {formats[0]} x {formats[1]} tile; enlarge L0 or L1")
    good = min(time for time, _ in found) * 1.03
    few = min(work.row_tiles(c.base_m) for _, c in found)

    def rank(c: CubeChoice) -> tuple[int, int, int]:
        # Cores that read come first where HBM needs nearly all of them, for the only wave of a single row of tiles.
        readers = work.row_tiles(c.base_m) * ceil_div(work.n, c.base_n)
        counts = work.experts == 1 and work.row_tiles(c.base_m) == few and readers <= chip.cores.aic
        needed = _hbm_rate(chip) > _NEARLY_ALL * chip.cores.aic * _miss_rate(chip)
        return readers if counts and needed else 0, c.base_m * c.base_n, -(c.base_m + c.base_n)

    return max((choice for time, choice in found if time <= good), key=rank)


def _sizes(step: int, most: int, fine: int = 16) -> Iterator[int]:
    """Tile sizes worth trying: multiples of the fractal, coarser beyond ``fine`` of them."""
    size = step
    while size <= most:
        yield size
        size += step if size < fine * step else 4 * step
    if most % step == 0 and most > step and (size - most) not in (step, 4 * step):
        yield most


def _deepest(chip: Chip, formats: tuple[str, str], base_m: int, base_n: int, work: CubeWork) -> CubeChoice | None:
    """The deepest K tiles that fit double-buffered, and a double-buffered accumulator where there is room."""
    rate = chip.cube.rate(*formats)
    assert rate is not None
    bits_a, bits_b = (element_bits(fmt) for fmt in formats)
    accumulators = chip.buffers.l0c_bytes // (base_m * base_n * 4)
    l0_k = min(chip.buffers.l0a_bytes * 4 // (base_m * bits_a), chip.buffers.l0b_bytes * 4 // (base_n * bits_b), 1024)
    l0_k = min(l0_k, round_up(work.k, rate.fractal_k), round_up(work.k_quantum or l0_k, rate.fractal_k))
    l0_k = _floor_pow2(l0_k // rate.fractal_k) * rate.fractal_k
    if not accumulators or l0_k < rate.fractal_k:
        return None
    per_k = (base_m * bits_a + base_n * bits_b) / 8
    depth = int(chip.buffers.l1_bytes / 2 / per_k) // l0_k
    # Loads of 64 KiB and more already run at full bandwidth, and so do rows of 512 B where the activations are a good part of
    # them; deeper tiles would only delay the first product.
    whole_rows = ceil_div(512, max(1, l0_k * bits_a // 8)) if 4 * base_m * bits_a >= base_n * bits_b else 1
    depth = min(depth, max(1, int(2**17 / per_k) // l0_k, whole_rows), ceil_div(work.k, l0_k))
    return CubeChoice(base_m, base_n, depth * l0_k, l0_k, min(2, accumulators)) if depth else None


def _floor_pow2(value: int) -> int:
    return 1 << (value.bit_length() - 1) if value > 0 else 0


def estimate_cycles(chip: Chip, formats: tuple[str, str], tile: CubeChoice, work: CubeWork) -> float:
    """Cycles of the busiest core, roughly: waves of tiles times the slowest pipe, and the chip's HBM floor."""
    rate = chip.cube.rate(*formats)
    loads = {(p.source, p.destination): p.bytes_per_cycle for p in chip.paths.values()}
    path = chip.path("GM", "L1")
    assert rate is not None
    assert path is not None
    port = port_cost(path, several_rows=True)
    bytes_a, bytes_b = (element_bits(fmt) / 8 for fmt in formats)
    n_tiles = work.experts * ceil_div(work.n, tile.base_n)
    tiles = work.row_tiles(tile.base_m) * ceil_div(work.n, tile.base_n)
    # Tiles of rows of an expert, on average.
    m_tiles = tiles / n_tiles
    cores = chip.cores.aic
    waves = m_tiles * ceil_div(n_tiles, cores) if work.own_columns else ceil_div(tiles, cores)
    rows = work.rows if not work.counts else ceil_div(work.total_rows, work.row_tiles(tile.base_m))
    base_m, base_n = min(tile.base_m, round_up(rows, 16)), min(tile.base_n, round_up(work.n, 16))
    fractals = base_m / 16 * (base_n / 16) * ceil_div(work.k, rate.fractal_k)
    cube = fractals * rate.cycles_per_fractal + ceil_div(work.k, tile.l0_k) * chip.cube.head_back_to_back_cycles
    mte1 = base_m * work.k * bytes_a / loads["L1", "L0A"] + base_n * work.k * bytes_b / loads["L1", "L0B"]
    l2_share = float(bytes_per_tick(chip.l2.read_gbps, chip.clock_mhz)) / min(cores, tiles)
    # Rows are cut into requests: short and odd ones cost the port, and L2, more than their bytes.
    row_a, row_b = port.port_bytes(int(tile.l1_k * bytes_a)), port.port_bytes(ceil(base_n * bytes_b))
    hit = min(float(port.bytes_per_cycle), l2_share * float(port.l2_share))
    miss = min(hit, _miss_rate(chip))
    # Every wave brings new columns of B, unless it takes several waves to go down the rows; rows of A come in the first.
    new_b, new_a = min(1.0, cores / m_tiles), 1 / waves
    if work.stored_bits is not None:
        new_b = 0.0
    if work.ring_in_l1:
        row_b = 0
    mte2 = work.k * (row_b * (new_b / miss + (1 - new_b) / hit)
                     + base_m * row_a / tile.l1_k * (new_a / miss + (1 - new_a) / hit))
    drain = base_m * base_n * work.out_bytes / loads["L0C", "GM"]
    one = max(cube, mte1, mte2) + (drain if tile.l0c_ring == 1 else 0)
    vector = base_n * work.k * work.vector_per_weight / chip.cores.aiv_per_aic
    # A core that owns columns prepares their weights once, whatever its rows.
    prepared = (ceil_div(n_tiles, cores) if work.own_columns else waves) * vector
    units = (waves * one, prepared, _hbm_cycles(chip, formats, tile, work))
    return max(units) + _SHOWING * (sum(units) - max(units)) + drain


def _miss_rate(chip: Chip) -> float:
    """Bytes per cycle that one core reads of what is not in L2 yet: what its port keeps in flight, over the latency."""
    path = chip.path("GM", "L1")
    assert path is not None
    assert path.outstanding_bytes is not None
    return min(path.bytes_per_cycle, path.outstanding_bytes / max(1, path.latency_cycles + chip.hbm.extra_latency_cycles))


def _hbm_rate(chip: Chip) -> float:
    """Bytes per cycle that HBM delivers to all cores."""
    return float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz)) * chip.hbm.efficiency


def _hbm_cycles(chip: Chip, formats: tuple[str, str], tile: CubeChoice, work: CubeWork) -> float:
    """Cycles to read both operands once; in a last wave of few cores, what their ports can keep in flight limits them."""
    chip_rate = _hbm_rate(chip)
    core_rate = _miss_rate(chip)
    tiles = work.row_tiles(tile.base_m) * ceil_div(work.n, tile.base_n)
    last = tiles % chip.cores.aic
    bytes_a, bytes_b = element_bits(formats[0]) / 8, (work.stored_bits or element_bits(formats[1])) / 8
    total = work.total_rows * work.k * bytes_a + work.experts * work.k * work.n * bytes_b
    return total * ((tiles - last) / chip_rate + last / min(chip_rate, max(1, last) * core_rate)) / tiles


def choose_band(m_tiles: int, n_tiles: int, cores: int, tile_bytes: tuple[float, float], l2_bytes: int) -> int:
    """Height of the bands of output tiles (:class:`~msdsim.dataflows.cube.grid.Grid`) that makes HBM read least.

    ``tile_bytes`` are the bytes of all K of a tile of rows of A and of a tile of columns of B.  A band of height h keeps its
    rows of A in L2 while the columns of B pass by once, so that B is read once per band; a band that L2 cannot hold is read
    anew for every wave of columns.
    """
    a, b = tile_bytes

    def read(height: int) -> float:
        width = ceil_div(cores, height)
        bands = ceil_div(m_tiles, height)
        everything = m_tiles * a + n_tiles * b
        if everything <= 0.9 * l2_bytes:
            return everything
        # Two waves of B: the one in use and what L2 has not yet let go.
        held = height * a + 2 * width * b <= 0.9 * l2_bytes
        b_held = bands == 1 or n_tiles * b + height * a <= 0.9 * l2_bytes
        return m_tiles * a * (1 if held else ceil_div(n_tiles, width)) + n_tiles * b * (1 if b_held else bands)

    def first_time(height: int) -> float:
        """Bytes that a core waits for HBM for, alone or with those that ask for the same: A of each band, B of each wave."""
        return ceil_div(m_tiles, height) * a + ceil_div(n_tiles, ceil_div(cores, height)) * b

    return min(range(1, m_tiles + 1), key=lambda height: (round(read(height)), first_time(height), -height))
