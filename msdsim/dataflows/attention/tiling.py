"""Tilings of attention: the parameters, and what they must satisfy."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.attention.work import AttentionShape, Division
from msdsim.dataflows.base import require_fits, require_multiple, require_positive, require_slots, require_switch
from msdsim.dataflows.cube.operands import element_bits
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.units import round_up

#: Bytes of one read that only fills L2.
FETCH_BYTES = 16384


@dataclass(frozen=True)
class AttentionTiling:
    """``rows`` query rows and ``kv_tile`` KV columns of a step; ``kv_splits`` parts of the KV length; ``preload`` steps that
    Q K^T runs ahead of P V; ``l1_kv`` KV rows of an L1 chunk; ``qk_n x qk_k`` and ``pv_k`` tiles in L0B; ``vec_m`` rows of a UB
    tile; ring depths of K, V and P in L1, of L0, the accumulators of S and O, UB, and Q in L1; ``l2_ahead`` steps that the
    AIVs read the cache into L2 ahead of their softmax (0: they do not); ``direct`` 1 keeps S and O in UB and P in L1 instead of
    in GM; ``pv_n`` columns of an accumulator of O, and ``out_m`` rows of a UB tile of O and of Q.  Where ``pv_n`` is less than
    v_dim: L1 chunks of ``qk_n`` rows and ``l1_k`` columns of K, and of ``l1_v`` rows and ``pv_n`` columns of V, and
    ``p_ring`` whole tiles of P.  ``interleave`` 1 makes tiles of O and of S by turns."""

    rows: int
    kv_tile: int
    kv_splits: int
    l1_kv: int
    qk_n: int
    qk_k: int
    pv_k: int
    vec_m: int
    pv_n: int
    out_m: int
    l1_k: int
    l1_v: int
    preload: int = 2
    l1_ring: int = 2
    l0_ring: int = 2
    s_ring: int = 2
    o_ring: int = 1
    ub_ring: int = 2
    q_ring: int = 1
    l2_ahead: int = 0
    direct: int = 0
    interleave: int = 0
    p_ring: int = 1


def has_direct_paths(chip: Chip) -> bool:
    """Whether Cube and Vector reach each other's memories without GM."""
    return chip.path("L0C", "UB") is not None and chip.path("UB", "L1") is not None


def check(problem: AttentionShape, chip: Chip, tile: AttentionTiling, fmt: str, passes: int) -> None:
    """TilingError for what cannot be built of operands in a format of the Cube; capacities that are not named here the verifier
    checks."""
    require_positive(tile, "l2_ahead", "fused", "direct", "interleave")
    work = Division(problem, chip.cores.aic, tile.rows, tile.kv_tile)
    wide = tile.pv_n < problem.value_dim
    _check_switches(problem, chip, tile, wide)
    _check_fractals(chip, tile, fmt, wide)
    _check_steps(problem, chip, tile, work)
    bits, rows = element_bits(fmt), round_up(passes * work.base_rows, chip.cube.fractal_m)
    pair, out = tile.l0_ring * bits, min(tile.pv_n, problem.value_dim)
    require_fits(chip, "L0A", {"a0": pair * rows * tile.qk_k // 8, "c0": pair * rows * tile.pv_k // 8})
    require_fits(chip, "L0B", {"b0": pair * tile.qk_k * tile.qk_n // 8, "d0": pair * tile.pv_k * out // 8})
    require_fits(chip, "L0C", {"s0": tile.s_ring * rows * tile.qk_n * 4, "o0": tile.o_ring * rows * out * 4})


def _check_switches(problem: AttentionShape, chip: Chip, tile: AttentionTiling, wide: bool) -> None:
    """Switches are 0 or 1, and possible here; ``wide`` says that O takes several accumulators."""
    require_switch(tile, "direct", "interleave")
    if tile.direct and not has_direct_paths(chip):
        raise TilingError(f"tiling direct=1: '{chip.name}' has no path from L0C to UB and from UB to L1; give direct=0")
    if tile.interleave and not wide:
        raise TilingError(f"tiling interleave=1 needs several tiles of O; give pv_n below v_dim={problem.value_dim} or "
                          f"interleave=0")
    if tile.interleave and tile.direct:
        raise TilingError("tiling interleave=1: it needs more slots for S, P and O than there are on chip; give direct=0")


def _check_fractals(chip: Chip, tile: AttentionTiling, fmt: str, wide: bool) -> None:
    """Tiles of L0 are whole fractals, and 4-bit elements whole bytes."""
    rate = chip.cube.rate(fmt, fmt)
    assert rate is not None
    for name in ("qk_n", "pv_n") if wide else ("qk_n",):
        require_multiple(tile, name, chip.cube.fractal_n, "the Cube works in fractals of 16 columns")
    for name in ("l1_k", "l1_v", "qk_k", "pv_k") if wide else ("qk_k", "pv_k"):
        require_multiple(tile, name, rate.fractal_k, f"a {fmt} fractal is {rate.fractal_k} deep")
    for name in ("l1_kv", "kv_tile") if element_bits(fmt) < 8 else ():
        require_multiple(tile, name, 2, "4-bit elements are packed by two")


def _check_steps(problem: AttentionShape, chip: Chip, tile: AttentionTiling, work: Division) -> None:
    """The KV length has as many parts, and the signals as many slots."""
    if tile.kv_splits > work.tiles:
        raise TilingError(f"tiling kv_splits={tile.kv_splits} is above the {work.tiles} KV tiles of {tile.kv_tile} columns; "
                          f"give at most {work.tiles}")
    if tile.kv_splits > 1 and work.q_tiles > 1:
        raise TilingError(f"tiling kv_splits={tile.kv_splits} needs all q={problem.q} positions in one tile of "
                          f"rows={tile.rows}; give kv_splits=1 or rows of at least {problem.q}")
    require_slots(tile, "preload", chip, spare=1)
