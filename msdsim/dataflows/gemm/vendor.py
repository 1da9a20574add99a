"""``vendor-int8`` and ``vendor-int4``: the dequantizing GEMM as the vendor's operator runs it, to hold the good kernel against.

What hicann/ops-nn does on an A2 (weight_quant_batch_matmul_v2, template ``custom``, weights row by row): rounds of ``n_cores``
tiles of columns; all AIVs of the chip share the round's weights, each a run of chunks of ``vector_k`` rows by ``vector_n``
columns with single buffers for weights, scales and offsets and two for what it makes; all AIVs meet after a round, and only
then the Cube multiplies it; up to ``slots`` rounds lie in GM.  ``dequant-*`` differs by its ring: a core group hands its own
slices over while the other groups work, and loads run ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from msdsim.dataflows.base import DATAFLOWS, Dataflow, require_multiple, require_positive
from msdsim.dataflows.cube.experts import Expert
from msdsim.dataflows.cube.grid import OutputTile
from msdsim.dataflows.cube.limits import check_cube_tiling, refuse_activations, refuse_weights
from msdsim.dataflows.cube.mainloop import CubeTiling, Stream, accumulate
from msdsim.dataflows.cube.operands import CubeOperands, Operand, inputs, output, scales
from msdsim.dataflows.cube.streams import rows_of
from msdsim.dataflows.vector.dequantize import widen
from msdsim.errors import TilingError
from msdsim.formats.mx import element_bits
from msdsim.formats.schemes import RESTATED, SCHEMES, Scheme
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, Handle, Kernel, KernelBuilder, at, maximum, minimum, ragged, tiles_of
from msdsim.problems import Gemm
from msdsim.units import ceil_div, round_up

#: Rows of K and columns of a chunk, one scale a channel or one a group, by the format of the weights: what the operator's rules
#: leave of UB for a row of 512 B or of 1 KiB of results.
_CHUNK, _CHANNEL_CHUNK = (32, 512), {"int8": (32, 512), "int4": (16, 1024)}
#: Most columns and rows of the Cube's tile, K of its L1 tiles, rounds that lie in GM at most; and the columns of 128 B of
#: results, in whose multiples tiles are cut (assumed).
_BASE_N, _BASE_M, _L1_K, _SLOTS, _COLUMNS = 256, 128, 256, 3, 64


@dataclass(frozen=True, kw_only=True)
class VendorTiling(CubeTiling):
    """Cube tiles as in ``bf16``; ``n_cores`` tiles of columns in a round, of which ``slots`` lie in GM; chunks of ``vector_k``
    rows of weights by ``vector_n`` columns."""

    n_cores: int
    slots: int
    vector_k: int
    vector_n: int
    l0c_ring: int = 1


def vendor_tiling(problem: Gemm, chip: Chip, scheme: Scheme) -> VendorTiling:
    """The operator's own rules: as many columns an AIC as it has to take, in tiles of at most 256, and as many rounds as that
    needs; chunks by what UB holds."""
    cores, buffers = chip.cores.aic, chip.buffers
    base_m = min(_BASE_M, round_up(problem.m, chip.cube.fractal_m))
    while base_m > chip.cube.fractal_m and base_m > min(buffers.l0c_bytes // (4 * _COLUMNS), buffers.l0a_bytes // 64):
        base_m -= chip.cube.fractal_m
    across = max(1, cores // ceil_div(problem.m, base_m))
    each = round_up(ceil_div(problem.n, across), _COLUMNS)
    base_n = min(_BASE_N, each, *(size // _COLUMNS * _COLUMNS for size in (buffers.l0c_bytes // (4 * base_m),
                                                                          buffers.l0b_bytes // 64)))
    l0_k = max(16, min(buffers.l0a_bytes // (4 * base_m), buffers.l0b_bytes // (4 * base_n), _L1_K) // 16 * 16)
    l1_k = max(1, min(_L1_K, buffers.l1_bytes // (4 * (base_m + base_n))) // l0_k) * l0_k
    n_cores = ceil_div(problem.n, round_up(each, base_n))
    rounds = ceil_div(problem.n, n_cores * base_n)
    rows, cols = _CHUNK if problem.group is not None else _CHANNEL_CHUNK[scheme.weights]
    while problem.group is not None and rows % problem.group and problem.group % rows:
        rows -= 1
    while cols > _COLUMNS and _ub_bytes(problem, scheme, rows, cols) > buffers.ub_bytes:
        cols //= 2
    return VendorTiling(base_m=base_m, base_n=base_n, l1_k=l1_k, l0_k=l0_k, n_cores=n_cores, slots=min(_SLOTS, rounds),
                        vector_k=rows, vector_n=cols)


def _ub_bytes(problem: Gemm, scheme: Scheme, rows: int, cols: int) -> int:
    """UB of a chunk: stored, FP16, FP32 and two results of a weight, scales and offsets, and their alignment."""
    groups = 1 if problem.group is None else ceil_div(rows, problem.group)
    each = element_bits(scheme.weights) + 16 + 32 + 2 * 16
    return rows * cols * each // 8 + 4 * cols * groups * (1 + problem.offset) + 256


class Vendor:
    """The kernel under construction."""

    def __init__(self, problem: Gemm, chip: Chip, tile: VendorTiling, scheme: Scheme) -> None:
        require_positive(tile)
        self.problem, self.chip, self.tile, self.scheme = problem, chip, tile, scheme
        self.kinds = CubeOperands(*scheme.cube)
        check_cube_tiling(chip, tile, self.kinds)
        group = problem.group
        if group is not None and tile.vector_k % group and group % tile.vector_k:
            raise TilingError(f"tiling vector_k={tile.vector_k} cuts groups of {group} along k unevenly; give a multiple or a "
                              f"divisor of {group}")
        require_multiple(tile, "vector_n", 2, "two 4-bit weights share a byte")
        self.groups_at_once = 1 if group is None else ceil_div(tile.vector_k, group)
        m, k, n = problem.m, problem.k, problem.n
        #: Columns of a round.
        self.width = min(tile.n_cores * tile.base_n, round_up(n, 2))
        self.rounds = ceil_div(n, self.width)
        self.k_chunks = ceil_div(k, tile.vector_k)
        self.kb = kb = KernelBuilder(f"vendor_{scheme.weights}", chip.cores.aic, chip.cores.aiv_per_aic)
        self.expert = Expert(Const(0), Const(m))
        self.x, self.w = inputs(kb, problem, scheme)
        self.scale, self.offset = scales(kb, problem, scheme)
        self.made = kb.tensor("made", "bf16", (tile.slots, k, self.width), "workspace")
        self.y = output(kb, problem)
        self.met, self.full, self.read = (kb.signal("met", "barrier"), kb.signal("full", "aiv_to_aic"),
                                          kb.signal("read", "barrier"))

    def kernel(self) -> Kernel:
        """The two programs::

            AIV:  every round:  my chunks of its weights -> GM;  all AIVs meet;   a slot ago: wait until every AIC has read it
            AIC:  every round:  wait for it;  every output tile of this core:  y <- x W
        """
        kb = self.kb
        with kb.part("aic"), kb.loop("r", 0, self.rounds) as r:
            kb.wait_signal(self.full, "MTE2")
            # Every round calls the vendor's Matmul object.
            kb.op("hold", cycles=self.chip.dispatch.matmul_setup_cycles, pipe="MTE2")
            self._multiply(r)
            with kb.when(r < self.rounds - self.tile.slots):
                kb.raise_signal(self.read, "MTE2")
        with kb.part("aiv"):
            with kb.loop("r", 0, self.rounds) as r:
                with kb.when(r > 0):
                    self._hand_over()
                with kb.when(r >= self.tile.slots):
                    kb.wait_signal(self.read, "MTE3")
                self._fill(r)
                kb.raise_signal(self.met, "MTE3")
            self._hand_over()
        return kb.build()

    def _hand_over(self) -> None:
        """The round before is the AIC's once every AIV has written its part; loads of the next one have begun meanwhile."""
        self.kb.wait_signal(self.met, "MTE3")
        self.kb.raise_signal(self.full, "MTE3")

    def _cols(self, r: Expr, index: Expr, tile: int) -> Expr:
        """Columns of a tile of a round, which ends with the round and with the matrix."""
        cols: Expr = Const(tile) if self.width % tile == 0 else minimum(tile, self.width - index * tile)
        return minimum(cols, self.problem.n - (r * self.width + index * tile))

    # AIC

    def _multiply(self, r: Expr) -> None:
        kb, tile, problem = self.kb, self.tile, self.problem
        m_tiles = ceil_div(problem.m, tile.base_m)
        with kb.loop("t", kb.core, tile.n_cores * m_tiles, self.chip.cores.aic) as t:
            nt, mt = t % tile.n_cores, t // tile.n_cores
            with kb.when(r * self.width + nt * tile.base_n < problem.n):
                rows = ragged(problem.m, tile.base_m, mt)
                cols = self._cols(r, nt, tile.base_n)
                acc = kb.buffer("acc", "L0C", "fp32", (tile.base_m, tile.base_n), tile.l0c_ring)[:rows, :cols]
                place = OutputTile(self.expert, mt, nt, mt * tile.base_m, rows, cols, mt)

                def load_b(b1: Handle, start: Expr, size: Expr) -> None:
                    kb.copy(b1[:size, :cols], self.made[r % tile.slots, at(start, size), at(nt * tile.base_n, cols)])

                accumulate(kb, tile, self.kinds, acc, problem.k, rows_of(kb, self.x, place), Stream(load_b))
                columns = at(r * self.width + nt * tile.base_n, cols)
                kb.op("fixpipe", self.y.at(self.expert, at(place.row, rows), columns), acc)

    # AIV

    def _fill(self, r: Expr) -> None:
        """This AIV's run of the round's chunks, those of one tile of columns one after the other along K."""
        kb, tile = self.kb, self.tile
        chunks = tiles_of(ragged(self.problem.n, self.width, r), tile.vector_n) * self.k_chunks
        share = tiles_of(chunks, self.chip.aiv)
        first = kb.aiv * share
        with kb.loop("i", 0, minimum(share, maximum(0, chunks - first))) as i:
            number = first + i
            # The limit says nothing new, but lets the verifier see it.
            nt, kt = minimum(number // self.k_chunks, ceil_div(self.width, tile.vector_n) - 1), number % self.k_chunks
            rows = ragged(self.problem.k, tile.vector_k, kt)
            self._chunk(r, at(kt * tile.vector_k, rows), at(nt * tile.vector_n, self._cols(r, nt, tile.vector_n)))

    def _chunk(self, r: Expr, k: At, columns: At) -> None:
        kb, tile = self.kb, self.tile
        shape, here = (tile.vector_k, tile.vector_n), (at(0, k.size), at(0, columns.size))
        across = at(r * self.width + columns.start, columns.size)
        offsets = None if self.offset is None else self._of_groups("offsets", self.offset, k, across)
        scales = self._of_groups("scales", self.scale, k, across)
        wq = kb.buffer("wq", "UB", self.scheme.weights, shape)[here]
        kb.copy(wq, self.w.at(self.expert, k, across))
        w32 = kb.buffer("w32", "UB", "fp32", shape)
        widen(kb, self.chip, shape, wq, w32[here])
        each = min(self.problem.group or tile.vector_k, tile.vector_k)
        with kb.loop("j", 0, tiles_of(k.size, each)) as j:
            part = w32[at(j * each, ragged(k.size, each, j)), here[1]]
            if offsets is not None:
                kb.op("add", part, part, offsets[j, here[1]])
            kb.op("mul", part, part, scales[j, here[1]])
        wb = kb.buffer("wb", "UB", "bf16", shape, 2)[here]
        kb.op("cast", wb, w32[here], round="rint")
        kb.copy(self.made[r % tile.slots, k, columns], wb)

    def _of_groups(self, name: str, source: Operand, k: At, across: At) -> Handle:
        """Scales or offsets of a chunk, [groups, columns]."""
        kb, group = self.kb, self.problem.group
        first, count = (Const(0), Const(1)) if group is None else (k.start // group, tiles_of(k.size, group))
        buffer = kb.buffer(name, "UB", "fp32", (self.groups_at_once, self.tile.vector_n))
        kb.copy(buffer[at(0, count), at(0, across.size)], source.at(self.expert, at(first, count), across))
        return buffer


def _build(problem: Gemm, chip: Chip, tile: VendorTiling, scheme: Scheme) -> Kernel:
    return Vendor(problem, chip, tile, scheme).kernel()


def _refuse(problem: Gemm, chip: Chip, scheme: Scheme, name: str) -> str | None:
    if problem.trans_b or problem.layout == "nz":
        given = "trans_b=1" if problem.trans_b else f"layout={problem.layout}"
        return f"'{name}' restates the vendor's template for weights that lie row by row; leave out {given}"
    if chip.path("UB", "L1") is not None:
        return f"'{name}' restates the vendor's operator of the A2, where weights pass through GM; use '{scheme.name}'"
    return refuse_activations(problem, scheme) or refuse_weights(problem, chip, scheme)


for _name, _method in RESTATED.items():
    _scheme = SCHEMES[_method]
    DATAFLOWS.add(_name, Dataflow(
        _name, "gemm", _scheme.name, f"{_scheme.name} as the vendor's operator runs it: rounds of all cores, single buffers",
        VendorTiling, partial(_refuse, scheme=_scheme, name=_name), partial(_build, scheme=_scheme),
        partial(vendor_tiling, scheme=_scheme), restates=True))
