"""Tilings of attention: the parameters, what they must satisfy, and an expert's first choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from msdsim.dataflows.attention.work import AttentionShape, Work
from msdsim.dataflows.base import require_fits, require_multiple, require_positive
from msdsim.dataflows.gemm import element_bits
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.mte import port_cost
from msdsim.units import bytes_per_tick, ceil_div, round_up

#: Rows of stacked operands that one Cube tile takes: 128 is what the vendor's kernels use.
CUBE_ROWS = 128
#: KV tiles worth trying, the largest first: long tiles pay the fixed cost of a step less often.
KV_TILES = (2048, 1024, 512, 256, 128, 64)
#: Longest KV tile where the Cube tile is full: P and S of a longer one only fill the rings.
FULL_KV_TILE = 512
#: Bytes of one read that only fills L2.
FETCH_BYTES = 16384
#: Bytes of a load that already runs at full bandwidth.
LOAD_BYTES = 32768


@dataclass(frozen=True)
class AttentionTiling:
    """``rows`` query rows and ``kv_tile`` KV columns of a step; ``kv_splits`` parts of the KV length; ``preload`` steps that
    Q K^T runs ahead of P V; ``l1_kv`` KV rows of an L1 chunk; ``qk_n x qk_k`` and ``pv_k`` tiles in L0B; ``vec_m`` rows of a UB
    tile; ring depths of K, V and P in L1, of L0, the accumulators of S and O, UB, and Q in L1; ``l2_ahead`` steps that the
    AIVs read the cache into L2 ahead of their softmax (0: they do not); ``direct`` 1 keeps S and O in UB and P in L1 instead of
    in GM."""

    rows: int
    kv_tile: int
    kv_splits: int
    l1_kv: int
    qk_n: int
    qk_k: int
    pv_k: int
    vec_m: int
    preload: int = 2
    l1_ring: int = 2
    l0_ring: int = 2
    s_ring: int = 2
    o_ring: int = 1
    ub_ring: int = 2
    q_ring: int = 1
    l2_ahead: int = 0
    direct: int = 0


@dataclass(frozen=True)
class Needs:
    """What a dataflow keeps on chip: formats and passes of the Cube, and UB bytes of a tiling."""

    fmt: str
    passes: int
    #: UB bytes for (AIV rows of a row tile, vec_m, kv_tile, head_dim, slots of S and O in UB or 0).
    ub_bytes: Callable[[int, int, int, int, int], int]
    #: Vector instructions that go over all logits of a step.
    vector_ops: tuple[str, ...]
    #: Bits of an element of the cache, and Vector instructions over every such element (all 32 bits wide).
    cache_bits: int
    cache_ops: tuple[str, ...] = ()
    #: Whether K and V come from a ring that may lie in L1.
    cache_in_l1: bool = False


def arriving_bytes(passes: int, share: int, vec_m: int, cols: int, slots: int) -> int:
    """UB bytes of S and O (4 bytes an element, ``cols`` columns together): ``slots`` of them whole, or tiles loaded twice."""
    return 4 * passes * cols * (slots * share if slots else 2 * vec_m)


def choose(problem: AttentionShape, chip: Chip, needs: Needs) -> AttentionTiling:
    """Rows: as many heads of the group, or positions, as a Cube tile takes.  KV tile: the longest for which Vector still has
    its rows in UB.  Splits and KV tile together: the shortest estimated time."""
    found: list[tuple[float, AttentionTiling]] = []
    for rows, kv_tile, direct in _step_choices(problem, chip, needs):
        tile = _fit(problem, chip, needs, rows, kv_tile, direct, 2) or _fit(problem, chip, needs, rows, kv_tile, direct, 1)
        if tile is None:
            continue
        for splits in _split_choices(problem, chip, tile):
            candidate = replace(tile, kv_splits=splits)
            found.append((_estimate(problem, chip, needs, candidate), candidate))
    if not found:
        raise TilingError(f"chip '{chip.name}' has no room for attention with head_dim={problem.head_dim}; "
                          f"enlarge L0, L1 or UB")
    best = min(time for time, _ in found)
    return next(tile for time, tile in found if time <= best * 1.01)


def has_direct_paths(chip: Chip) -> bool:
    """Whether Cube and Vector reach each other's memories without GM."""
    return chip.path("L0C", "UB") is not None and chip.path("UB", "L1") is not None


def _step_choices(problem: AttentionShape, chip: Chip, needs: Needs) -> Iterator[tuple[int, int, bool]]:
    """Rows, KV tile and whether rings lie on chip, those an expert would rather have first."""
    for direct in (True, False) if has_direct_paths(chip) else (False,):
        for rows in _row_choices(problem, needs):
            for kv_tile in KV_TILES:
                full = rows * needs.passes > CUBE_ROWS // 4
                if kv_tile <= max(64, round_up(problem.kv, 64)) and not (full and kv_tile > FULL_KV_TILE):
                    yield rows, kv_tile, direct


def _row_choices(problem: AttentionShape, needs: Needs) -> Iterator[int]:
    most = CUBE_ROWS // needs.passes
    group = problem.heads // problem.kv_heads
    rows = min(most, group * problem.q)
    while rows >= 1:
        yield rows
        if rows * needs.passes <= 16:
            return
        rows = ceil_div(rows, 2)


def _fit(problem: AttentionShape, chip: Chip, needs: Needs, rows: int, kv_tile: int, direct: bool,
         l0_ring: int) -> AttentionTiling | None:
    """The deepest L0 and L1 tiles and the tallest UB tile that fit, or None."""
    work = Work(problem, chip.cores.aic, rows, kv_tile)
    dim, rate = problem.head_dim, chip.cube.rate(needs.fmt, needs.fmt)
    assert rate is not None
    cube_rows = round_up(needs.passes * work.base_rows, chip.cube.fractal_m)
    bits, deep = element_bits(needs.fmt), rate.fractal_k
    wide = round_up(dim, 16)
    # L0A and L0B: half for either product.
    def depth(space: int, across: int) -> int:
        return space // (2 * l0_ring) * 8 // (across * bits) // deep * deep

    most = depth(chip.buffers.l0a_bytes, cube_rows)
    pv_k = min(most, max(deep, depth(chip.buffers.l0b_bytes, wide)), round_up(kv_tile, deep))
    left = chip.buffers.l0b_bytes // l0_ring - pv_k * wide * bits // 8
    qk_k = min(most, round_up(dim, deep))
    if pv_k < deep or qk_k < deep or left <= 0:
        return None
    # L0C: O once, the rest for two tiles of S.
    spare = chip.buffers.l0c_bytes - cube_rows * wide * 4
    qk_n = min(spare // (8 * cube_rows), 256, kv_tile) // 16 * 16
    while qk_n >= 16 and qk_k >= deep and left * 8 // (qk_k * bits) // 16 * 16 < qk_n:
        if qk_n > 64 or qk_k == deep:
            qk_n -= 16
        else:
            qk_k = max(deep, qk_k // 2 // deep * deep)
    if qk_n < 16:
        return None
    # Rings on chip are dear, and what passes through them arrives sooner.
    preload = 1 if direct else AttentionTiling.preload
    slots = preload + 1 if direct else 0
    l1 = _L1(chip.buffers.l1_bytes, cube_rows * work.row_tiles_per_item, cube_rows, kv_tile, dim, bits, slots,
             needs.cache_in_l1)
    l1_kv = l1.chunk()
    vec_m = _vec_rows(chip, needs, ceil_div(work.base_rows, chip.cores.aiv_per_aic), kv_tile, dim, slots)
    if not l1_kv or not vec_m:
        return None
    ring = 3 if l1.fits(l1_kv, 3, 1) else 2
    o_ring = 2 if chip.buffers.l0c_bytes >= cube_rows * (2 * wide + 2 * qk_n) * 4 else 1
    return AttentionTiling(rows, kv_tile, 1, l1_kv, qk_n, qk_k, pv_k, vec_m, preload, l1_ring=ring, l0_ring=l0_ring,
                           o_ring=o_ring, q_ring=2 if l1.fits(l1_kv, ring, 2) else 1, direct=int(direct))


@dataclass(frozen=True)
class _L1:
    """What L1 has to hold: Q of an item, chunks of K, V and P, or ``slots`` whole tiles of what Vector brings."""

    room: int
    q_rows: int
    cube_rows: int
    kv_tile: int
    dim: int
    bits: int
    slots: int
    cache_in_l1: bool

    def fits(self, l1_kv: int, ring: int, q_ring: int) -> bool:
        p = self.slots * self.kv_tile if self.slots else ring * l1_kv
        cache = self.slots * self.kv_tile if self.slots and self.cache_in_l1 else ring * l1_kv
        elements = q_ring * self.q_rows * self.dim + self.cube_rows * p + 2 * cache * self.dim
        # A sixteenth more, which is what the block scales of MX operands take.
        return elements * self.bits * 17 // 128 + 128 <= self.room

    def chunk(self) -> int:
        """KV rows of a chunk: a power-of-two part of the tile, no larger than a full-bandwidth load; 0 if none fits."""
        chunk = self.kv_tile
        while chunk > 32 and (chunk * self.dim * self.bits > 8 * LOAD_BYTES or not self.fits(chunk, 2, 1)):
            chunk //= 2
        return chunk if self.fits(chunk, 2, 1) else 0


def _vec_rows(chip: Chip, needs: Needs, share: int, kv_tile: int, dim: int, slots: int) -> int:
    """Rows of a UB tile: all of an AIV's, or the most that fit; 0 if none do."""
    for rows in range(min(share, 64), 0, -1):
        if needs.ub_bytes(share, rows, kv_tile, dim, slots) <= chip.buffers.ub_bytes:
            return ceil_div(share, ceil_div(share, rows))
    return 0


def _split_choices(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Iterator[int]:
    """1, and for one row tile per head whatever keeps more cores busy."""
    yield 1
    work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile)
    if work.q_tiles > 1:
        return
    # More parts than fill the chip twice only add to the merge.
    yield from range(2, min(work.tiles, ceil_div(2 * chip.cores.aic, work.items)) + 1)


def _estimate(problem: AttentionShape, chip: Chip, needs: Needs, tile: AttentionTiling) -> float:
    """Cycles, roughly: HBM's time for the cache, or the busiest core's steps by their slowest unit; the fill; the merge."""
    work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile, tile.kv_splits)
    dim, kv, bits = problem.head_dim, min(tile.kv_tile, problem.kv), element_bits(needs.fmt)
    rate = chip.cube.rate(needs.fmt, needs.fmt)
    path = next(p for p in chip.paths.values() if (p.source, p.destination) == ("GM", "L1"))
    assert rate is not None
    rows = needs.passes * work.base_rows
    cores = min(chip.cores.aic, work.items)
    cube = 2 * ceil_div(rows, 16) * ceil_div(kv, 16) * ceil_div(dim, rate.fractal_k) * rate.cycles_per_fractal
    share = ceil_div(work.base_rows, chip.cores.aiv_per_aic)
    ops = chip.vector.ops
    per_logit = sum(ops[name].slope_cycles_per_repeat for name in needs.vector_ops) / 64
    chain = sum(ops[name].latency_cycles for name in (*needs.vector_ops, *ROW_OPS))
    per_value = sum(ops[name].slope_cycles_per_repeat for name in needs.cache_ops) / 64
    vector = share * kv * per_logit + chain * ceil_div(share, tile.vec_m) + 2 * kv * dim * per_value / chip.cores.aiv_per_aic
    # Rows of the cache are turned into fractals on their way, which costs by the row.
    cost = port_cost(path, several_rows=True)
    useful = dim * bits / 8 / cost.port_bytes(dim * bits // 8)
    # A dequantized cache is in L2, and so is, for the others, what the first of the row tiles of a head has read from HBM.
    together = cores if needs.cache_ops else max(1, min(cores, work.head_tiles * work.q_items))
    in_flight = cost.outstanding_bytes / (path.latency_cycles + chip.hbm.extra_latency_cycles / together)
    port = useful * min(float(cost.bytes_per_cycle), in_flight) * (1 if together > 1 else MISS_SHARE)
    cache = 2 * kv * dim * bits / 8
    l2 = float(bytes_per_tick(chip.l2.read_gbps, chip.clock_mhz)) / cores
    rings = 0 if tile.direct else rows * kv * (4 + bits / 8) + rows * dim * 4
    loads = 0 if tile.direct and needs.cache_in_l1 else cache / port + STEP_CYCLES
    step = max(cube, vector, (cache + rings) / l2, loads)
    hbm = float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz)) * chip.hbm.efficiency
    memory = 2 * work.kv_head_count * problem.kv * dim * needs.cache_bits / 8 / hbm
    merge = MERGE_CYCLES + chain * work.splits / 4 * ceil_div(work.total_rows, chip.aiv) if work.splits > 1 else 0
    return max(ceil_div(work.items, chip.cores.aic) * work.steps * step, memory) + cube + vector + cache / port + merge


#: Vector instructions of a step that work on a few numbers per row.
ROW_OPS = ("reduce_max", "max", "sub", "exp", "max", "reduce_add", "mul", "add", "mul", "add")
#: What one core reaches of the rate that its bytes in flight allow, when it reads from HBM and others do too.
MISS_SHARE = 0.6
#: Cycles that a step costs the loads besides its bytes: reading P, the heads of short transfers.
STEP_CYCLES = 600
#: Cycles of a barrier and of reading the parts back.
MERGE_CYCLES = 2500


def check(problem: AttentionShape, chip: Chip, tile: AttentionTiling, needs: Needs) -> None:
    """TilingError for what cannot be built; capacities that are not named here the verifier checks."""
    require_positive(tile, "l2_ahead", "fused", "direct")
    if tile.direct > 1 or (tile.direct and not has_direct_paths(chip)):
        raise TilingError(f"tiling direct={tile.direct}: " + (
            "it is a switch; give 1 or 0" if tile.direct > 1 else
            f"'{chip.name}' has no path from L0C to UB and from UB to L1; give direct=0"))
    rate = chip.cube.rate(needs.fmt, needs.fmt)
    assert rate is not None
    require_multiple(tile, "qk_n", chip.cube.fractal_n, "the Cube works in fractals of 16 columns")
    require_multiple(tile, "qk_k", rate.fractal_k, f"a {needs.fmt} fractal is {rate.fractal_k} deep")
    require_multiple(tile, "pv_k", rate.fractal_k, f"a {needs.fmt} fractal is {rate.fractal_k} deep")
    if element_bits(needs.fmt) < 8:
        require_multiple(tile, "l1_kv", 2, "4-bit elements are packed by two")
        require_multiple(tile, "kv_tile", 2, "4-bit elements are packed by two")
    work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile)
    if tile.kv_splits > work.tiles:
        raise TilingError(f"tiling kv_splits={tile.kv_splits} is above the {work.tiles} KV tiles of {tile.kv_tile} columns; "
                          f"give at most {work.tiles}")
    if tile.kv_splits > 1 and work.q_tiles > 1:
        raise TilingError(f"tiling kv_splits={tile.kv_splits} needs all q={problem.q} positions in one tile of "
                          f"rows={tile.rows}; give kv_splits=1 or rows of at least {problem.q}")
    if tile.preload > chip.cross_core.max_outstanding - 1:
        raise TilingError(f"tiling preload={tile.preload} needs more than the {chip.cross_core.max_outstanding} outstanding "
                          f"signals of '{chip.name}'; give at most {chip.cross_core.max_outstanding - 1}")
    bits, rows = element_bits(needs.fmt), round_up(needs.passes * work.base_rows, chip.cube.fractal_m)
    pair, dim = tile.l0_ring * bits, problem.head_dim
    require_fits(chip, "L0A", {"a0": pair * rows * tile.qk_k // 8, "c0": pair * rows * tile.pv_k // 8})
    require_fits(chip, "L0B", {"b0": pair * tile.qk_k * tile.qk_n // 8, "d0": pair * tile.pv_k * dim // 8})
    require_fits(chip, "L0C", {"s0": tile.s_ring * rows * tile.qk_n * 4, "o0": tile.o_ring * rows * dim * 4})
