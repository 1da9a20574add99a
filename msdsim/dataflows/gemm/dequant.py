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
from dataclasses import dataclass
from functools import partial

from msdsim.dataflows.base import require_positive
from msdsim.dataflows.cube.experts import Expert, Experts
from msdsim.dataflows.cube.grid import Grid, Place
from msdsim.dataflows.cube.limits import check_cube_tiling, refuse_packed, refuse_rate, refuse_scales
from msdsim.dataflows.cube.mainloop import Held, Loader, Stream, accumulate
from msdsim.dataflows.cube.operands import (
    CubeOperands,
    GemmShape,
    Operand,
    element_bits,
    element_format,
    operand,
    ragged,
    ragged_of,
    share_of,
)
from msdsim.dataflows.gemm.dequant_tiling import DequantTiling, Weights
from msdsim.dataflows.gemm.register import register_gemm
from msdsim.dataflows.vector.add_parts import FloatParts
from msdsim.dataflows.vector.scales import Layout, Scales
from msdsim.errors import TilingError
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, minimum
from msdsim.ir.expr import ceil_div as ceil_expr
from msdsim.ir.kernel import Kernel, Slice
from msdsim.ir.ops.vector import vector_casts
from msdsim.units import ceil_div, part_size

FORMATS = ("bf16", "bf16")


def _build(problem: GemmShape, chip: Chip, tile: DequantTiling, weights: Weights) -> Kernel:
    """See the module's text for the dataflow."""
    return DequantKernel(problem, chip, tile, weights, FORMATS, weights.dataflow.replace("-", "_")).kernel()


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


def _refuse(problem: GemmShape, chip: Chip, weights: Weights) -> str | None:
    return refuse_rate(chip, FORMATS) or refuse_packed(problem, weights.fmt) or (
        refuse_scales(problem, weights.dataflow) if weights.mx else None)


#: The dequantizing dataflows by the format of their weights.
WEIGHTS = (
    Weights("int8", "INT8 weights dequantized to BF16 on Vector, one BF16 Cube pass"),
    Weights("int4", "INT4 weights dequantized to BF16 on Vector, one BF16 Cube pass"),
    Weights("fp4_e2m1", "MXFP4 weights dequantized to BF16 on Vector, one BF16 Cube pass"),
)
for _weights in WEIGHTS:
    register_gemm(_weights.dataflow, _weights.description, DequantTiling,
                  partial(_refuse, weights=_weights), partial(_build, weights=_weights))
