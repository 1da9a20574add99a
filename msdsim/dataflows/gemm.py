"""What the GEMM dataflows share: the Cube's main loop through L1 and L0, ragged sizes, and the choice of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from msdsim.dataflows.base import require_fits, require_multiple
from msdsim.errors import TilingError
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, ExprLike, ceil_div, lift, minimum
from msdsim.ir.kernel import Slice
from msdsim.units import bytes_per_tick, round_up
from msdsim.units import ceil_div as ceil_int


class GemmShape(Protocol):
    """The part of a GEMM problem that dataflows read."""

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


#: Fills an L1 tile for the K range ``start +: size``.
Loader = Callable[[Handle, Expr, Expr], None]


def accumulate(
    kb: KernelBuilder, tile: CubeTiling, formats: tuple[str, str], acc: Slice, rows: Expr, cols: Expr, extent: ExprLike,
    load_a: Loader, load_b: Loader, before: ExprLike = 0, transpose_b: bool = False,
) -> None:
    """Emit ``acc += A B`` over ``extent`` elements of K.

    Before: one product of [rows, extent] and [extent, cols].  After::

        for k1 in 0 .. ceil(extent / l1_k)
          a1, b1 <- GM (ring l1_ring)
          for k0 in 0 .. ceil(size of k1 / l0_k)
            a0 <- a1, b0 <- b1 (ring l0_ring)
            mmad acc <- a0, b0 {accumulate = before + k1 + k0}

    ``before`` is zero where this is the first product of the sum.  With ``transpose_b`` B lies in L1 as [cols, K].
    """
    fmt_a, fmt_b = formats
    with kb.loop("k1", 0, ceil_div(extent, tile.l1_k)) as k1:
        size1 = ragged_of(extent, tile.l1_k, k1)
        a1 = kb.buffer("a1", "L1", fmt_a, (tile.base_m, tile.l1_k), tile.l1_ring)
        shape_b1 = (tile.base_n, tile.l1_k) if transpose_b else (tile.l1_k, tile.base_n)
        b1 = kb.buffer("b1", "L1", fmt_b, shape_b1, tile.l1_ring)
        load_b(b1, k1 * tile.l1_k, size1)
        load_a(a1, k1 * tile.l1_k, size1)
        with kb.loop("k0", 0, ceil_div(size1, tile.l0_k)) as k0:
            size0 = ragged_of(size1, tile.l0_k, k0)
            a0 = kb.buffer("a0", "L0A", fmt_a, (tile.base_m, tile.l0_k), tile.l0_ring)
            b0 = kb.buffer("b0", "L0B", fmt_b, (tile.l0_k, tile.base_n), tile.l0_ring)
            here = at(k0 * tile.l0_k, size0)
            kb.copy(a0[at(0, rows), at(0, size0)], a1[at(0, rows), here])
            if transpose_b:
                kb.copy(b0[at(0, size0), at(0, cols)], b1[at(0, cols), here], transpose=1)
            else:
                kb.copy(b0[at(0, size0), at(0, cols)], b1[here, at(0, cols)])
            kb.op("mmad", acc, a0[at(0, rows), at(0, size0)], b0[at(0, size0), at(0, cols)],
                  accumulate=before + k1 + k0)


def check_cube_tiling(chip: Chip, tile: CubeTiling, formats: tuple[str, str]) -> None:
    """The tiling fits L0A, L0B, L0C and L1 and is made of whole fractals; TilingError says what does not."""
    rate = chip.cube.rate(*formats)
    assert rate is not None
    bits_a, bits_b = (FORMATS[fmt].bits for fmt in formats)
    require_multiple(tile, "base_m", chip.cube.fractal_m, "the Cube works in fractals of 16 rows")
    require_multiple(tile, "base_n", chip.cube.fractal_n, "the Cube works in fractals of 16 columns")
    require_multiple(tile, "l0_k", rate.fractal_k, f"a {formats[0]} fractal is {rate.fractal_k} deep")
    require_multiple(tile, "l1_k", tile.l0_k, "an L1 tile is cut into whole L0 tiles")
    require_fits(chip, "L0A", {"a0": tile.l0_ring * tile.base_m * tile.l0_k * bits_a // 8})
    require_fits(chip, "L0B", {"b0": tile.l0_ring * tile.l0_k * tile.base_n * bits_b // 8})
    require_fits(chip, "L0C", {"acc": tile.l0c_ring * tile.base_m * tile.base_n * 4})
    require_fits(chip, "L1", {"a1": tile.l1_ring * tile.base_m * tile.l1_k * bits_a // 8,
                              "b1": tile.l1_ring * tile.l1_k * tile.base_n * bits_b // 8})


@dataclass(frozen=True)
class CubeChoice:
    """Tile sizes that :func:`choose_cube_tiles` found."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    l0c_ring: int


def choose_cube_tiles(chip: Chip, formats: tuple[str, str], rows: int, k: int, n: int, out_bytes: int,
                      step_m: int = 16, max_base_m: int = 256, own_columns: bool = False) -> CubeChoice:
    """Tiles that an expert would start from, by the slowest of Cube, L1->L0, GM->L1 and HBM over the waves of tiles.

    ``rows`` are the rows the Cube sees (stacked components included) and ``step_m`` what base_m must be a multiple of;
    ``out_bytes`` is the size of an output element; ``own_columns`` says that a core does all rows of its columns.  Among tiles within 3% of the best the largest, then the squarest wins: long rows and
    few tiles suit the data movers and Vector.
    """
    found: list[tuple[float, CubeChoice]] = []
    for base_m in _sizes(step_m, min(max_base_m, round_up(rows, step_m))):
        for base_n in _sizes(chip.cube.fractal_n, min(512, round_up(n, chip.cube.fractal_n))):
            choice = _deepest(chip, formats, base_m, base_n, k)
            if choice is not None:
                found.append((_estimate(chip, formats, choice, rows, k, n, out_bytes, own_columns), choice))
    if not found:
        raise TilingError(f"chip '{chip.name}' has no room for any {formats[0]} x {formats[1]} tile; enlarge L0 or L1")
    good = min(time for time, _ in found) * 1.03
    return max((choice for time, choice in found if time <= good), key=lambda c: (c.base_m * c.base_n, -(c.base_m + c.base_n)))


def _sizes(step: int, most: int) -> Iterator[int]:
    """Tile sizes worth trying: multiples of the fractal, coarser as they grow."""
    size = step
    while size <= most:
        yield size
        size += step if size < 16 * step else 4 * step
    if most % step == 0 and most > step and (size - most) not in (step, 4 * step):
        yield most


def _deepest(chip: Chip, formats: tuple[str, str], base_m: int, base_n: int, k: int) -> CubeChoice | None:
    """The deepest K tiles that fit double-buffered, and a double-buffered accumulator where there is room."""
    rate = chip.cube.rate(*formats)
    assert rate is not None
    bits_a, bits_b = (FORMATS[fmt].bits for fmt in formats)
    accumulators = chip.buffers.l0c_bytes // (base_m * base_n * 4)
    l0_k = min(chip.buffers.l0a_bytes * 4 // (base_m * bits_a), chip.buffers.l0b_bytes * 4 // (base_n * bits_b), 1024)
    l0_k = _floor_pow2(min(l0_k, round_up(k, rate.fractal_k)) // rate.fractal_k) * rate.fractal_k
    if not accumulators or l0_k < rate.fractal_k:
        return None
    per_k = (base_m * bits_a + base_n * bits_b) / 8
    depth = int(chip.buffers.l1_bytes / 2 / per_k) // l0_k
    # Loads of 64 KiB and more already run at full bandwidth; deeper tiles would only delay the first product.
    depth = min(depth, max(1, int(2**17 / per_k) // l0_k), ceil_int(k, l0_k))
    return CubeChoice(base_m, base_n, depth * l0_k, l0_k, min(2, accumulators)) if depth else None


def _floor_pow2(value: int) -> int:
    return 1 << (value.bit_length() - 1) if value > 0 else 0


def _estimate(chip: Chip, formats: tuple[str, str], tile: CubeChoice, rows: int, k: int, n: int, out_bytes: int,
              own_columns: bool) -> float:
    """Cycles of the busiest core, roughly: waves of tiles times the slowest pipe, and the chip's HBM floor."""
    rate = chip.cube.rate(*formats)
    loads = {(p.source, p.destination): p.bytes_per_cycle for p in chip.paths.values()}
    granule = next(p.granule_bytes for p in chip.paths.values() if (p.source, p.destination) == ("GM", "L1"))
    assert rate is not None
    bytes_a, bytes_b = (FORMATS[fmt].bits / 8 for fmt in formats)
    m_tiles, n_tiles = ceil_int(rows, tile.base_m), ceil_int(n, tile.base_n)
    cores = chip.cores.aic
    waves = m_tiles * ceil_int(n_tiles, cores) if own_columns else ceil_int(m_tiles * n_tiles, cores)
    base_m, base_n = min(tile.base_m, round_up(rows, 16)), min(tile.base_n, round_up(n, 16))
    fractals = base_m / 16 * (base_n / 16) * ceil_int(k, rate.fractal_k)
    cube = fractals * rate.cycles_per_fractal + ceil_int(k, tile.l0_k) * chip.cube.head_back_to_back_cycles
    mte1 = base_m * k * bytes_a / loads["L1", "L0A"] + base_n * k * bytes_b / loads["L1", "L0B"]
    l2_share = float(bytes_per_tick(chip.l2.read_gbps, chip.clock_mhz)) / min(chip.cores.aic, m_tiles * n_tiles)
    # A row of the weight tile costs the port at least a granule.
    mte2 = (base_m * bytes_a + max(granule, base_n * bytes_b)) * k / min(loads["GM", "L1"], l2_share)
    drain = base_m * base_n * out_bytes / loads["L0C", "GM"]
    one = max(cube, mte1, mte2) + (drain if tile.l0c_ring == 1 else 0)
    return max(waves * one, _hbm_cycles(chip, formats, tile, rows, k, n)) + drain


def _hbm_cycles(chip: Chip, formats: tuple[str, str], tile: CubeChoice, rows: int, k: int, n: int) -> float:
    """Cycles to read both operands once; in a last wave of few cores, what their ports can keep in flight limits them."""
    path = next(p for p in chip.paths.values() if (p.source, p.destination) == ("GM", "L1"))
    assert path.outstanding_bytes is not None
    chip_rate = float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz))
    core_rate = min(path.bytes_per_cycle, path.outstanding_bytes / (path.latency_cycles + chip.hbm.extra_latency_cycles))
    tiles = ceil_int(rows, tile.base_m) * ceil_int(n, tile.base_n)
    last = tiles % chip.cores.aic
    bytes_a, bytes_b = (FORMATS[fmt].bits / 8 for fmt in formats)
    total = rows * k * bytes_a + k * n * bytes_b
    return total * ((tiles - last) / chip_rate + last / min(chip_rate, max(1, last) * core_rate)) / tiles


def refuse_rate(chip: Chip, formats: tuple[str, str]) -> str | None:
    """Why the chip's Cube cannot multiply these formats, or None."""
    if chip.cube.rate(*formats) is None:
        modes = ", ".join(f"{r.a} x {r.b}" for r in chip.cube.rates.values())
        return f"the Cube of '{chip.name}' cannot multiply {formats[0]} x {formats[1]} (it multiplies {modes})"
    return None


def refuse_group(problem: GemmShape, name: str) -> str | None:
    """Why a per-channel dataflow cannot run a problem with weight groups, or None."""
    if problem.group is not None:
        return f"'{name}' has per-channel scales only so far; leave out group={problem.group}"
    return None
