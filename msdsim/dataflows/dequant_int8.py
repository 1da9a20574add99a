"""``dequant-int8``: Vector turns INT8 weights into BF16, Cube multiplies them; they meet in a workspace ring in GM.

A core group owns whole columns of output tiles, so that every weight is dequantized once on the chip.  Its AIVs each
take half of the rows of a ring slot (``slot_k`` rows of K by ``base_n`` columns), its AIC consumes the slot for every tile
of rows and then hands it back.  On chips without a path from UB to L1 the ring lives in L2 as long as it fits there.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from msdsim.ir.builder import Handle, KernelBuilder, at
from msdsim.ir.expr import Expr, maximum, minimum
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Kernel
from msdsim.units import ceil_div, round_up

FORMATS = ("bf16", "bf16")
#: K rows of one workspace slot when one tile of rows uses it: the vendor's kernels step K by 512.
_SLOT_K = 512
_SLOTS = 4


@dataclass(frozen=True)
class DequantTiling:
    """Cube tiles as in ``bf16``; ``slot_k`` rows of K and ``slots`` of the workspace ring; ``vector_k`` rows of a UB tile."""

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


def auto(problem: GemmShape, chip: Chip) -> DequantTiling:
    """Cube tiles of ``bf16`` for one group's columns; the largest UB tile that fits; a ring of four slots, or of the whole K
    and two more slots where several tiles of rows share the dequantized columns."""
    c = choose_cube_tiles(chip, FORMATS, problem.m, problem.k, problem.n, out_bytes=2, own_columns=True)
    m_tiles = ceil_div(problem.m, c.base_m)
    if m_tiles == 1:
        slot_k, slots = min(_SLOT_K, round_up(problem.k, 16)), _SLOTS
    else:
        most = (chip.cross_core.max_outstanding - 2) // 2
        slot_k = round_up(max(_SLOT_K, ceil_div(problem.k, most)), 16)
        slots = ceil_div(problem.k, slot_k) + 2
    room = (chip.buffers.ub_bytes - 2 * 4 * c.base_n) // (12 * c.base_n)
    half = ceil_div(slot_k, chip.cores.aiv_per_aic)
    vector_k = max(1, min(room // 16 * 16 or room, half))
    return DequantTiling(c.base_m, c.base_n, c.l1_k, c.l0_k, slot_k, slots, vector_k, l0c_ring=c.l0c_ring)


def build(problem: GemmShape, chip: Chip, tile: DequantTiling) -> Kernel:
    """See the module's text for the dataflow.

    AIV, for its share of every slot::

        w8 <- GM; w16 <- cast w8; w32 <- cast w16; [w32 += offset]; w32 *= scale; wb <- cast w32; GM ring <- wb
    """
    require_positive(tile)
    check_cube_tiling(chip, tile, FORMATS)
    m, k, n = problem.m, problem.k, problem.n
    cores, aivs = chip.cores.aic, chip.cores.aiv_per_aic
    m_tiles, n_tiles, k_slots = ceil_div(m, tile.base_m), ceil_div(n, tile.base_n), ceil_div(k, tile.slot_k)
    _check_ring(tile, m_tiles, k_slots, chip)
    kb = KernelBuilder("dequant_int8", cores, aivs)
    x = kb.tensor("x", "bf16", (m, k), "in")
    w = kb.tensor("w", "int8", (k, n), "in")
    scale = kb.tensor("scale", "fp32", (1, n), "in")
    offset = kb.tensor("offset", "fp32", (1, n), "in") if problem.offset else None
    ring = kb.tensor("ring", "bf16", (cores, tile.slots, tile.slot_k, tile.base_n), "workspace")
    y = kb.tensor("y", "bf16", (m, n), "out")
    kb.signal("full", "aiv_to_aic")
    kb.signal("empty", "aic_to_aiv")

    with kb.part("aic"):
        with kb.loop("s", 0, tile.slots):
            kb.raise_signal("empty", "MTE2")
        with kb.loop("nt", kb.core, n_tiles, cores) as nt, kb.loop("mt", 0, m_tiles) as mt:
            rows, cols = ragged(m, tile.base_m, mt), ragged(n, tile.base_n, nt)
            acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)
            whole = acc[at(0, rows), at(0, cols)]
            with kb.loop("c", 0, k_slots) as c:
                slot = (nt // cores * k_slots + c) % tile.slots
                if m_tiles == 1:
                    kb.wait_signal("full", "MTE2")
                else:
                    with kb.when(mt.equals(0)):
                        kb.wait_signal("full", "MTE2")

                def load_a(a1: Handle, start: Expr, size: Expr) -> None:
                    kb.copy(a1[at(0, rows), at(0, size)], x[at(mt * tile.base_m, rows), at(c * tile.slot_k + start, size)])

                def load_b(b1: Handle, start: Expr, size: Expr) -> None:
                    kb.copy(b1[at(0, size), at(0, cols)], ring[kb.core, slot, at(start, size), at(0, cols)])

                accumulate(kb, tile, FORMATS, whole, rows, cols, ragged(k, tile.slot_k, c), load_a, load_b, before=c)
                if m_tiles == 1:
                    kb.raise_signal("empty", "MTE2")
                else:
                    with kb.when(mt.equals(m_tiles - 1)):
                        kb.raise_signal("empty", "MTE2")
            kb.op("fixpipe", y[at(mt * tile.base_m, rows), at(nt * tile.base_n, cols)], whole)

    def produce(nt: Expr) -> None:
        cols = ragged(n, tile.base_n, nt)
        columns = at(nt * tile.base_n, cols)
        scales = kb.buffer("scales", "UB", "fp32", (1, tile.base_n))
        kb.copy(scales[0, at(0, cols)], scale[0, columns])
        if offset is not None:
            offsets = kb.buffer("offsets", "UB", "fp32", (1, tile.base_n))
            kb.copy(offsets[0, at(0, cols)], offset[0, columns])
        with kb.loop("c", 0, k_slots) as c:
            slot = (nt // cores * k_slots + c) % tile.slots
            share = ceil_div(tile.slot_k, aivs)
            mine = minimum(share, maximum(0, ragged(k, tile.slot_k, c) - kb.sub * share))
            kb.wait_signal("empty", "MTE3")
            with kb.loop("v", 0, ceil_expr(mine, tile.vector_k)) as v:
                size = ragged_of(mine, tile.vector_k, v)
                at_row = kb.sub * share + v * tile.vector_k
                shape = (tile.vector_k, tile.base_n)
                w8 = kb.buffer("w8", "UB", "int8", shape, tile.ub_ring)
                w16 = kb.buffer("w16", "UB", "fp16", shape)
                w32 = kb.buffer("w32", "UB", "fp32", shape)
                wb = kb.buffer("wb", "UB", "bf16", shape, tile.ub_ring)
                here = (at(0, size), at(0, cols))
                kb.copy(w8[here], w[at(c * tile.slot_k + at_row, size), columns])
                kb.op("cast", w16[here], w8[here])
                kb.op("cast", w32[here], w16[here])
                if offset is not None:
                    kb.op("add", w32[here], w32[here], offsets[0, at(0, cols)])
                kb.op("mul", w32[here], w32[here], scales[0, at(0, cols)])
                kb.op("cast", wb[here], w32[here], round="rint")
                kb.copy(ring[kb.core, slot, at(at_row, size), at(0, cols)], wb[here])
            kb.raise_signal("full", "MTE3")

    with kb.part("aiv"):
        with kb.loop("nt", kb.core, n_tiles, cores) as nt:
            produce(nt)
        # The last slots come back unused.
        with kb.loop("s", 0, tile.slots):
            kb.wait_signal("empty", "MTE3")
    return kb.build()


def _check_ring(tile: DequantTiling, m_tiles: int, k_slots: int, chip: Chip) -> None:
    most = chip.cross_core.max_outstanding
    if tile.slots > most:
        raise TilingError(f"tiling slots={tile.slots} needs more than the {most} outstanding signals of '{chip.name}'; "
                          f"give at most {most}")
    if m_tiles > 1 and tile.slots < k_slots:
        raise TilingError(
            f"tiling slots={tile.slots} cannot hold the {k_slots} slots of K that {m_tiles} tiles of rows share; raise slots "
            f"to {k_slots} or slot_k to at least {tile.slot_k * ceil_div(k_slots, tile.slots)}"
        )


def _refuse(problem: GemmShape, chip: Chip) -> str | None:
    if problem.trans_b:
        return "'dequant-int8' reads weights as [k, n] only so far; leave out trans_b"
    return refuse_rate(chip, FORMATS) or refuse_group(problem, "dequant-int8")


DATAFLOWS.add("dequant-int8", Dataflow(
    name="dequant-int8", kind="gemm", contract="dequant-int8",
    description="INT8 weights dequantized to BF16 on Vector, one BF16 Cube pass",
    tiling=DequantTiling, refuses=_refuse, auto=auto, build=build,
))
