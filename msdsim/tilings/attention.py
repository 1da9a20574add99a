"""Tiles of attention: an expert's first choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

from msdsim.dataflows.attention import bf16, dequant, msd, mx
from msdsim.dataflows.attention.tiling import AttentionTiling, Needs, UbTiles, arriving_bytes, has_direct_paths
from msdsim.dataflows.attention.work import AttentionShape, Work
from msdsim.dataflows.cube.operands import element_bits
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.hardware.units.mte import port_cost
from msdsim.tilings.base import choose_for
from msdsim.units import bytes_per_tick, ceil_div, round_up

#: Rows of stacked operands that one Cube tile takes: 128 is what the vendor's kernels use.
CUBE_ROWS = 128
#: Rows of a fractal: fewer only waste the Cube.
CUBE_LEAST = 16
#: KV tiles worth trying, the largest first: long tiles pay the fixed cost of a step less often.
KV_TILES = (2048, 1024, 512, 256, 128, 64)
#: Longest KV tile where the Cube tile is full: P and S of a longer one only fill the rings.
FULL_KV_TILE = 512
#: Channels of O up to which it is one accumulator.
ONE_ACCUMULATOR = 256
#: Narrower accumulators leave the Cube waiting for its operands.
CUBE_COLUMNS = 128
#: Shorter rows of V cost by the row on their way into fractals.
ROW_BYTES = 256
#: Parts of the KV length for which even KV tiles are tried.
MOST_EVEN_PARTS = 8
#: UB tiles of fewer rows are mostly latency.
FEW_ROWS = 8
#: Vector instructions and transfers that follow each other for a tile of O, besides three to merge each component.
INSTRUCTIONS_OF_O = 4
#: Bytes of a load that already runs at full bandwidth.
LOAD_BYTES = 32768
#: Vector instructions of a step that work on a few numbers per row.
ROW_OPS = ("reduce_max", "max", "sub", "exp", "max", "reduce_add", "mul", "add", "mul", "add")
#: What one core reaches of the rate that its bytes in flight allow, when it reads from HBM and others do too.
MISS_SHARE = 0.6
#: The same where several cores wait for the same bytes, so that fewer are asked of HBM.
SHARED_MISS_SHARE = 0.81
#: Cycles that a step costs the loads besides its bytes: reading P, the heads of short transfers.
STEP_CYCLES = 600
#: By turns: cycles from the last tile of S of a step to the first of O of the next, which waits for P.
TURN_CYCLES = 1500
#: Latency of a Vector instruction, or of a transfer that does not wait for the one before.
OUTPUT_LATENCY = 30
#: Of L2's read bandwidth, what is left to a step where most reads turn rows into fractals.
L2_SHARE = 0.8
#: Of L2, what the rings and the cache that streams by may take before lines of the rings leave it: its sets fill unevenly.
KEPT_SHARE = 0.55
#: Cycles of a barrier and of reading the parts back.
MERGE_CYCLES = 2500
#: The same where O is wide, and what each part adds: its wide rows are waited for one after the other.
WIDE_MERGE_CYCLES = 600
PART_CYCLES = 600


def choose(problem: AttentionShape, chip: Chip, needs: Needs) -> AttentionTiling:
    """Rows: as many heads of the group, or positions, as a Cube tile takes.  KV tile: the longest for which Vector still has
    its rows in UB.  Splits and KV tile together: the shortest estimated time."""
    # Where nothing fits, fewer rows than the Cube takes at least, and UB tiles that are not loaded ahead.
    found = _candidates(problem, chip, needs, 2) or _candidates(problem, chip, needs, 1)
    if not found:
        wide = "" if problem.value_dim == problem.head_dim else f" and v_dim={problem.value_dim}"
        raise TilingError(f"chip '{chip.name}' has no room for attention with head_dim={problem.head_dim}{wide}; "
                          f"enlarge L0, L1 or UB")
    best = min(time for time, _ in found)
    return next(tile for time, tile in found if time <= best * 1.01)


def _candidates(problem: AttentionShape, chip: Chip, needs: Needs, ub_ring: int) -> list[tuple[float, AttentionTiling]]:
    """Tilings that fit, with their estimated time."""
    found: list[tuple[float, AttentionTiling]] = []
    for rows, kv_tile, direct in _step_choices(problem, chip, needs, CUBE_LEAST if ub_ring == 2 else 1):
        tile = None
        if problem.value_dim <= ONE_ACCUMULATOR and ub_ring == 2:
            tile = _fit(problem, chip, needs, rows, kv_tile, direct, 2) or _fit(problem, chip, needs, rows, kv_tile, direct, 1)
        tile = tile or _fit_wide(problem, chip, needs, rows, kv_tile, direct, ub_ring)
        if tile is None:
            continue
        for splits in _split_choices(problem, chip, tile):
            candidate = replace(tile, kv_splits=splits)
            found.append((_estimate(problem, chip, needs, candidate), candidate))
    return found

def _step_choices(problem: AttentionShape, chip: Chip, needs: Needs, fewest: int) -> Iterator[tuple[int, int, bool]]:
    """Rows, KV tile and whether rings lie on chip, those an expert would rather have first."""
    for direct in (True, False) if has_direct_paths(chip) else (False,):
        for rows in _row_choices(problem, needs, fewest):
            for kv_tile in KV_TILES:
                full = rows * needs.passes > CUBE_ROWS // 4
                if kv_tile <= max(64, round_up(problem.kv, 64)) and not (full and kv_tile > FULL_KV_TILE):
                    yield rows, kv_tile, direct
            if rows * needs.passes > CUBE_ROWS // 4 and Work(problem, chip.cores.aic, rows, 1).q_tiles == 1:
                for kv_tile in _even_kv_tiles(problem.kv, max(16, 512 // element_bits(needs.fmt) // 2)):
                    yield rows, kv_tile, direct


def _even_kv_tiles(kv: int, step: int) -> Iterator[int]:
    """KV tiles, multiples of ``step``, that cut each of several parts of the KV length into equally many: full tiles cost by
    the column, so a part should not end in a short one."""
    seen = set(KV_TILES)
    for parts in range(1, MOST_EVEN_PARTS + 1):
        for most in (FULL_KV_TILE, FULL_KV_TILE // 2, FULL_KV_TILE // 4):
            tile = round_up(ceil_div(kv, parts * ceil_div(kv, parts * most)), step)
            if 64 <= tile <= min(FULL_KV_TILE, kv) and tile not in seen:
                seen.add(tile)
                yield tile


def _row_choices(problem: AttentionShape, needs: Needs, fewest: int) -> Iterator[int]:
    most = CUBE_ROWS // needs.passes
    group = problem.heads // problem.kv_heads
    rows = min(most, group * problem.q)
    while rows >= 1:
        yield rows
        if rows == 1 or rows * needs.passes <= fewest:
            return
        rows = ceil_div(rows, 2)


def _fit(problem: AttentionShape, chip: Chip, needs: Needs, rows: int, kv_tile: int, direct: bool,
         l0_ring: int) -> AttentionTiling | None:
    """The deepest L0 and L1 tiles and the tallest UB tile that fit, or None."""
    work = Work(problem, chip.cores.aic, rows, kv_tile)
    dim, out, rate = problem.head_dim, problem.value_dim, chip.cube.rate(needs.fmt, needs.fmt)
    assert rate is not None
    cube_rows = round_up(needs.passes * work.base_rows, chip.cube.fractal_m)
    bits, deep = element_bits(needs.fmt), rate.fractal_k
    wide = round_up(out, 16)
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
    l1 = _L1(chip.buffers.l1_bytes, cube_rows * work.row_tiles_per_item, cube_rows, kv_tile, dim, out, bits, slots,
             needs.cache_in_l1)
    l1_kv = l1.chunk()
    share = ceil_div(work.base_rows, chip.cores.aiv_per_aic)
    vec_m = _most_rows(chip, needs, UbTiles(share, 0, 0, kv_tile, dim, out, slots))
    if not l1_kv or not vec_m:
        return None
    ring = 3 if l1.fits(l1_kv, 3, 1) else 2
    o_ring = 2 if chip.buffers.l0c_bytes >= cube_rows * (2 * wide + 2 * qk_n) * 4 else 1
    return AttentionTiling(rows, kv_tile, 1, l1_kv, qk_n, qk_k, pv_k, vec_m, out, vec_m, dim, l1_kv, preload, l1_ring=ring,
                           l0_ring=l0_ring, o_ring=o_ring, q_ring=2 if l1.fits(l1_kv, ring, 2) else 1, direct=int(direct))


def _fit_wide(problem: AttentionShape, chip: Chip, needs: Needs, rows: int, kv_tile: int, direct: bool,
              ub_ring: int) -> AttentionTiling | None:
    """The same where O takes several accumulators.

    Tiles of S and of O are equally wide and share L0C: two of each, or, if that leaves them narrow, one of each by turns.
    """
    work = Work(problem, chip.cores.aic, rows, kv_tile)
    dim, out, rate = problem.head_dim, problem.value_dim, chip.cube.rate(needs.fmt, needs.fmt)
    assert rate is not None
    cube_rows = round_up(needs.passes * work.base_rows, chip.cube.fractal_m)
    bits, deep, l0_ring = element_bits(needs.fmt), rate.fractal_k, 2
    column = 4 * cube_rows
    wide = min(256, chip.buffers.l0c_bytes // (4 * column)) // 16 * 16
    # By turns S is complete only when O of the step before is, so that on chip, with slots for one step more, P would be late.
    interleave = wide < max(CUBE_COLUMNS, ROW_BYTES * 8 // bits) and not direct
    if interleave:
        wide = min(256, chip.buffers.l0c_bytes // (2 * column)) // 16 * 16
    # L0A and L0B: half for either product.
    l0a, l0b = (size // (2 * l0_ring) * 8 // bits for size in (chip.buffers.l0a_bytes, chip.buffers.l0b_bytes))
    wide = min(wide, l0b // deep // 16 * 16)
    if wide < 16:
        return None
    pv_n = round_up(ceil_div(out, ceil_div(out, wide)), 16)
    qk_n = min(pv_n, round_up(kv_tile, 16))
    depth = min(l0a // cube_rows, l0b // pv_n) // deep * deep
    if depth < deep:
        return None
    qk_k, pv_k = min(depth, round_up(dim, deep)), min(depth, round_up(kv_tile, deep))
    preload = 1 if direct else AttentionTiling.preload
    slots = preload + 1 if direct else 0
    share = ceil_div(work.base_rows, chip.cores.aiv_per_aic)
    vec_m, out_m = _ub_rows(chip, needs, UbTiles(share, 0, 0, kv_tile, dim, out, slots, ub_ring))
    if not vec_m:
        return None
    l1 = _WideL1(chip.buffers.l1_bytes, cube_rows * work.row_tiles_per_item, cube_rows, kv_tile, dim, bits, slots, qk_n, pv_n,
                 (0 if problem.shared_kv else out) + dim if needs.cache_in_l1 and slots else 0, problem.shared_kv)
    found = l1.chunks(qk_k, pv_k, chip.dispatch.event_ids_per_pipe_pair)
    if found is None:
        return None
    l1_k, l1_v, ring, q_ring = found
    o_tiles, s_tiles = ceil_div(out, pv_n), ceil_div(kv_tile, qk_n)
    spare = chip.buffers.l0c_bytes // (column * pv_n)
    # By turns one accumulator of S is enough only while each follows one of O.
    s_ring = 2 if not interleave or (s_tiles > o_tiles and spare > 2) else 1
    return AttentionTiling(rows, kv_tile, 1, max(qk_n, l1_v), qk_n, qk_k, pv_k, vec_m, pv_n, out_m, l1_k, l1_v, preload,
                           l1_ring=ring, l0_ring=l0_ring, s_ring=s_ring, o_ring=1 if interleave else 2, ub_ring=ub_ring,
                           q_ring=q_ring, direct=int(direct), interleave=int(interleave))


@dataclass(frozen=True)
class _L1:
    """What L1 has to hold: Q of an item, chunks of K, V and P, or ``slots`` whole tiles of what Vector brings."""

    room: int
    q_rows: int
    cube_rows: int
    kv_tile: int
    dim: int
    out: int
    bits: int
    slots: int
    cache_in_l1: bool

    def fits(self, l1_kv: int, ring: int, q_ring: int) -> bool:
        p = self.slots * self.kv_tile if self.slots else ring * l1_kv
        cache = self.slots * self.kv_tile if self.slots and self.cache_in_l1 else ring * l1_kv
        elements = q_ring * self.q_rows * self.dim + self.cube_rows * p + cache * (self.dim + self.out)
        # A sixteenth more, which is what the block scales of MX operands take.
        return elements * self.bits * 17 // 128 + 128 <= self.room

    def chunk(self) -> int:
        """KV rows of a chunk: a power-of-two part of the tile, no larger than a full-bandwidth load; 0 if none fits."""
        chunk = self.kv_tile
        widest = max(self.dim, self.out)
        while chunk > 32 and (chunk * widest * self.bits > 8 * LOAD_BYTES or not self.fits(chunk, 2, 1)):
            chunk //= 2
        return chunk if self.fits(chunk, 2, 1) else 0


@dataclass(frozen=True)
class _WideL1:
    """L1 where O takes several accumulators: Q of an item, P of a step (or ``slots`` of them), chunks of K and V; or, instead
    of these, ``slots`` tiles of the cache with ``ring_columns`` columns, twice as many less one where K lasts until P V."""

    room: int
    q_rows: int
    cube_rows: int
    kv_tile: int
    dim: int
    bits: int
    slots: int
    qk_n: int
    pv_n: int
    ring_columns: int
    shared: bool

    def fits(self, l1_k: int, l1_v: int, ring: int, q_ring: int) -> bool:
        kept = q_ring * self.q_rows * self.dim + self.cube_rows * self.kv_tile * max(1, self.slots)
        if self.ring_columns:
            kept += (2 * self.slots - 1 if self.shared else self.slots) * self.kv_tile * self.ring_columns
        else:
            kept += ring * (self.qk_n * l1_k + l1_v * self.pv_n)
        # A sixteenth more, which is what the block scales of MX operands take.
        return kept * self.bits * (17 if self.bits == 4 else 16) // 128 + 128 <= self.room

    def chunks(self, qk_k: int, pv_k: int, ids: int) -> tuple[int, int, int, int] | None:
        """Columns of K and rows of V in a chunk, the ring of both and that of Q: the largest chunks, but K's first; or None."""
        depths = [min(round_up(ceil_div(self.dim, parts), qk_k), round_up(self.dim, qk_k)) for parts in (1, 2, 3, 4, 6, 8, 16)]
        for l1_k in dict.fromkeys(depths):
            most = max(1, LOAD_BYTES * 8 // (self.pv_n * self.bits * pv_k))
            for steps in range(min(most, ceil_div(self.kv_tile, pv_k)), 0, -1):
                if self.fits(l1_k, steps * pv_k, 2, 1):
                    l1_v = steps * pv_k
                    ring = 3 if self.fits(l1_k, l1_v, 3, 1) else 2
                    # Event ids: one for every slot of K, V and Q, and for P.
                    few = 2 * ring + 3 <= ids
                    return l1_k, l1_v, ring, 2 if few and self.fits(l1_k, l1_v, ring, 2) else 1
        return None


def _most_rows(chip: Chip, needs: Needs, tiles: UbTiles, out_m: int | None = None) -> int:
    """Rows ``vec_m`` of a UB tile of S: all rows of an AIV, or the most that fit beside ``out_m`` of O (None: as many); 0 if
    none do."""
    for rows in range(min(tiles.share, 64), 0, -1):
        if needs.ub_bytes(replace(tiles, vec_m=rows, out_m=out_m or rows)) <= chip.buffers.ub_bytes:
            return ceil_div(tiles.share, ceil_div(tiles.share, rows))
    return 0


def _ub_rows(chip: Chip, needs: Needs, tiles: UbTiles) -> tuple[int, int]:
    """``vec_m`` and ``out_m`` where O is wide: they are the same unless that leaves few rows of S, which costs more
    instructions than O does; 0 if nothing fits."""
    rows = _most_rows(chip, needs, tiles)
    if rows >= min(tiles.share, FEW_ROWS):
        return rows, rows
    of_s, of_o = len(needs.vector_ops) + len(ROW_OPS), INSTRUCTIONS_OF_O + 3 * needs.passes

    def instructions(pair: tuple[int, int]) -> int:
        return of_s * ceil_div(tiles.share, pair[0]) + of_o * ceil_div(tiles.share, pair[1])

    found = [(rows, rows), *((_most_rows(chip, needs, tiles, few), few) for few in (1, 2, 4, 8))]
    return min((pair for pair in found if pair[0]), key=instructions, default=(0, 0))


def _split_choices(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Iterator[int]:
    """1, and for one row tile per head whatever keeps more cores busy."""
    yield 1
    work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile)
    if work.q_tiles > 1:
        return
    # More parts than fill the chip twice only add to the merge; long steps, where O is wide, are worth evening out.
    fill = 2 if tile.pv_n >= problem.value_dim else 4
    yield from range(2, min(work.tiles, ceil_div(fill * chip.cores.aic, work.items)) + 1)


def _estimate(problem: AttentionShape, chip: Chip, needs: Needs, tile: AttentionTiling) -> float:
    """Cycles, roughly: HBM's time for the cache, or the busiest core's steps by their slowest unit; the fill; the merge."""
    work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile, tile.kv_splits)
    dim, out, kv, bits = problem.head_dim, problem.value_dim, min(tile.kv_tile, problem.kv), element_bits(needs.fmt)
    wide = tile.pv_n < out
    rate = chip.cube.rate(needs.fmt, needs.fmt)
    path = next(p for p in chip.paths.values() if (p.source, p.destination) == ("GM", "L1"))
    assert rate is not None
    rows = needs.passes * work.base_rows
    cores = min(chip.cores.aic, work.items)
    fractals = ceil_div(kv, 16) * ceil_div(dim, rate.fractal_k)
    # The products with V count along their own reduction axis.
    fractals += fractals if out == dim else ceil_div(kv, rate.fractal_k) * ceil_div(out, 16)
    cube = ceil_div(rows, 16) * fractals * rate.cycles_per_fractal
    share = ceil_div(work.base_rows, chip.cores.aiv_per_aic)
    ops = chip.vector.ops
    per_logit = sum(ops[name].slope_cycles_per_repeat for name in needs.vector_ops) / 64
    chain = sum(ops[name].latency_cycles for name in (*needs.vector_ops, *ROW_OPS))
    per_value = sum(ops[name].slope_cycles_per_repeat for name in needs.cache_ops) / 64
    stored = dim if problem.shared_kv else dim + out
    vector = share * kv * per_logit + chain * ceil_div(share, tile.vec_m) + kv * stored * per_value / chip.cores.aiv_per_aic
    if wide:
        merge_ops = sum(ops[name].slope_cycles_per_repeat for name in ("mul", "add")) / 64
        vector += share * out * merge_ops + INSTRUCTIONS_OF_O * OUTPUT_LATENCY * ceil_div(share, tile.out_m)
    # Rows of the cache are turned into fractals on their way, which costs by the row.
    cost = port_cost(path, several_rows=True)
    useful = dim * bits / 8 / cost.port_bytes(dim * bits // 8)
    if wide:
        pieces = ((dim, tile.l1_k), (out, tile.pv_n))
        useful = (dim + out) / sum(total / size * cost.port_bytes(size * bits // 8) for total, size in pieces) * bits / 8
    # A dequantized cache is in L2, and so is, for the others, what the first of the row tiles of a head has read from HBM.
    together = cores if needs.cache_ops else max(1, min(cores, work.head_tiles * work.q_items))
    rate_of_port, extra = float(cost.bytes_per_cycle), chip.hbm.extra_latency_cycles / together
    port = useful * min(rate_of_port, cost.outstanding_bytes / (path.latency_cycles + extra))
    port *= 1 if together > 1 else MISS_SHARE
    cache = kv * (dim + out) * bits / 8
    load = cache / port
    if problem.shared_kv and not needs.cache_ops:
        # What K has brought is in L2 when V is read from it; and row tiles that ask for K together wait for it together.
        hit = useful * min(rate_of_port, cost.outstanding_bytes / path.latency_cycles)
        miss = useful * min(rate_of_port, cost.outstanding_bytes / (path.latency_cycles + extra * together))
        miss *= MISS_SHARE if together == 1 else SHARED_MISS_SHARE
        load = kv * bits / 8 * (dim / miss + out / hit)
    l2 = float(bytes_per_tick(chip.l2.read_gbps, chip.clock_mhz)) / cores
    rings = 0 if tile.direct else rows * kv * (4 + bits / 8) + rows * out * 4
    loads = 0 if tile.direct and needs.cache_in_l1 else load + STEP_CYCLES
    if wide:
        # Every accumulator of S and O has its operands loaded anew; and fractal copies take more of L2 than their bytes.
        to_l0 = sum(p.bytes_per_cycle ** -1 * size for p, size in (
            (chip.path("L1", "L0A"), rows * (dim * ceil_div(kv, tile.qk_n) + kv * ceil_div(out, tile.pv_n)) * bits / 8),
            (chip.path("L1", "L0B"), cache)) if p is not None)
        cube = max(float(cube), float(to_l0))
        l2 *= L2_SHARE
    step = max(cube, vector, (cache + rings) / l2, loads)
    if wide:
        # A narrower last tile of S costs more than its columns.
        step *= (kv + round_up(kv, tile.qk_n)) / (2 * kv)
        step += TURN_CYCLES if tile.interleave else 0
    hbm = float(bytes_per_tick(chip.hbm.bandwidth_gbps, chip.clock_mhz)) * chip.hbm.efficiency
    whole = work.kv_head_count * problem.kv * stored * needs.cache_bits / 8
    steps = ceil_div(work.items, chip.cores.aic) * work.steps
    # Where L2 has no room for all, the steps of all slots pass through it between two uses of a slot of the rings; what leaves
    # it is written and read again.
    slots, left = cores * (tile.preload + 1), 0.0
    if slots * rings + whole > chip.l2.capacity_bytes:
        passing = slots * rings + min(whole, slots / min(together, cores) * kv * stored * needs.cache_bits / 8)
        left = min(1.0, max(0.0, (passing / chip.l2.capacity_bytes - KEPT_SHARE) / (1 - KEPT_SHARE)))
    memory = (whole + 2 * left * cores * steps * rings) / hbm
    merge = MERGE_CYCLES + chain * work.splits / 4 * ceil_div(work.total_rows, chip.aiv) if work.splits > 1 else 0
    if wide and work.splits > 1:
        per_row = out * work.splits * sum(ops[name].slope_cycles_per_repeat for name in ("mul", "add")) / 64
        merge = WIDE_MERGE_CYCLES + PART_CYCLES * work.splits + per_row * ceil_div(work.total_rows, chip.aiv)
    # Where S is made in tiles, loads and Cube are at the next one while Vector waits for the first only.
    fill = (cube + load) * (min(1, tile.qk_n / kv) if wide else 1)
    return max(steps * step, memory) + fill + vector + merge


def choose_dequant(problem: AttentionShape, chip: Chip, cache: str) -> dequant.CacheTiling:
    """The tiles of ``bf16`` with room for the conversion of the cache: beside the softmax, or in a phase before it."""
    try:
        tile = choose(problem, chip, dequant.needs_of(chip, cache, fused=True))
    except TilingError:
        # Without the room that a tile of the cache takes beside the softmax there may be enough.
        fused = False
    else:
        work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile)
        fused = work.head_tiles * work.q_tiles == 1
    if not fused:
        tile = choose(problem, chip, dequant.needs_of(chip, cache, fused=False))
    work = Work(problem, chip.cores.aic, tile.rows, tile.kv_tile)
    share = ceil_div(work.base_rows, chip.cores.aiv_per_aic)
    tiles = UbTiles(share, tile.vec_m, tile.out_m, tile.kv_tile, problem.head_dim, problem.value_dim,
                    tile.direct * (tile.preload + 1), tile.ub_ring)
    taken = bf16.ub_bytes(tiles)
    # S and O in UB have their place there in every phase.
    always = arriving_bytes(1, tiles) if tile.direct else 0
    dim = problem.head_dim if problem.shared_kv else max(problem.head_dim, problem.value_dim)
    room = chip.buffers.ub_bytes - (taken if fused else always)
    # Beside every row: its scale, twice, in 32 bytes each.
    rows = max(1, (room - 4 * dim - 256) // (dequant.ELEMENT_BYTES * dim + 2 * 32))
    most = ceil_div(tile.kv_tile, chip.cores.aiv_per_aic) if fused else problem.kv
    return dequant.CacheTiling(**asdict(tile), dequant_kv=min(rows, most), fused=int(fused),
                         kv_slots=dequant.slots(problem, tile))


choose_for("bf16", partial(choose, needs=bf16.NEEDS), kind="attention")
for _cache in dequant.CACHES:
    choose_for(f"dequant-{_cache}", partial(choose_dequant, cache=_cache), kind="attention")
for _spec in msd.SPECS:
    choose_for(f"msd-{_spec.name}", partial(choose, needs=msd.needs_of(_spec)), kind="attention")
choose_for("msd-mxfp4", partial(choose, needs=mx.NEEDS), kind="attention")
