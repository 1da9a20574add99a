"""``msd-mxfp4`` attention: Q and P split into MXFP4 components, the MXFP4 KV cache multiplied as it is, on an MX Cube.

The pipeline is that of the integer components; every tile brings the E8M0 scales of its blocks along.  Blocks of Q and K run
along head_dim, blocks of P and V along kv, so that a KV tile is a multiple of 32 columns.  P is rounded to BF16 before it is
split: Vector makes E2M1 from BF16 only, and what is left of a BF16 number after a component is again one.
"""

from __future__ import annotations

from msdsim.dataflows.attention.kernel import InL1
from msdsim.dataflows.attention.msd import MsdAttention, refuse_overflow
from msdsim.dataflows.attention.tiling import AttentionTiling, Needs, UbTiles, arriving_bytes, check
from msdsim.dataflows.attention.work import AttentionShape, RowTile, Step
from msdsim.dataflows.base import DATAFLOWS, Dataflow, require_multiple
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.dataflows.cube.operands import ragged_of
from msdsim.formats.msd import MSD_MXFP4
from msdsim.formats.mx import MIN_SCALE_EXPONENT, MX_BLOCK, SHARED_CACHE, block_count
from msdsim.formats.number import E8M0
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, Handle, at
from msdsim.ir.expr import Const, Expr, ceil_div
from msdsim.ir.kernel import Kernel, Slice
from msdsim.units import ceil_div as ceil_int

CUBE = ("mxfp4", "mxfp4")
#: From one component's scale to the next: three exponents, a factor of 8.
STEP = 3


class MxAttention(MsdAttention):
    """The shared pipeline with MX components."""

    acc_fmt = "fp32"

    def __init__(self, problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> None:
        super().__init__(problem, chip, tile, MSD_MXFP4)
        self.blocks = block_count(problem.head_dim)

    def scale_tensors(self) -> None:
        kb, work, dim = self.kb, self.work, self.dim
        heads, blocks = work.kv_head_count, block_count(dim)
        self.k_scale = kb.tensor("k_scale", "e8m0", (heads, work.kv, blocks), "in")
        self.v_scale = kb.tensor("v_scale", "e8m0", (heads, block_count(work.kv), self.out_dim), "in")
        items = (self.cores, self.states, self.cube_rows)
        self.q_ring = kb.tensor("qc", self.fmt, (*items, dim), "workspace")
        self.q_scales = kb.tensor("q_scales", "e8m0", (*items, blocks), "workspace")
        self.p_scales = self.to_cube("p_scales", "e8m0", work.kv_tile // MX_BLOCK)
        kb.signal("components", "aiv_to_aic")

    # AIC

    def open_item(self, item: Expr) -> None:
        self.sq1 = self.kb.buffer("sq1", "L1", "e8m0", (self.work.row_tiles_per_item * self.cube_rows, self.blocks),
                                  self.tile.q_ring)
        super().open_item(item)

    def load_q(self, second: Expr, tile: RowTile) -> None:
        super().load_q(second, tile)
        rows = tile.rows * self.passes
        self.kb.copy(self.in_item(self.sq1, second, rows),
                     self.q_scales[self.kb.core, tile.turn % self.states, at(0, rows), :])

    def open_k(self, rows: int, cols: int) -> Handle:
        self.sk1 = self.kb.buffer("sk1", "L1", "e8m0", (rows, block_count(cols)), self.tile.l1_ring)
        return super().open_k(rows, cols)

    def open_v(self, rows: int, cols: int) -> Handle:
        self.sv1 = self.kb.buffer("sv1", "L1", "e8m0", (rows // MX_BLOCK, cols), self.tile.l1_ring)
        return super().open_v(rows, cols)

    def load_k(self, k1: Slice, step: Step, rows: At, cols: At) -> None:
        super().load_k(k1, step, rows, cols)
        blocks = self._blocks(cols.start, cols.size)
        source = self.k_scale[step.head, at(step.start + rows.start, rows.size), blocks]
        self.kb.copy(self.sk1[at(0, rows.size), at(0, blocks.size)], source)

    def load_v(self, v1: Slice, step: Step, rows: At, cols: At) -> None:
        super().load_v(v1, step, rows, cols)
        blocks = self._blocks(step.start + rows.start, rows.size)
        self.kb.copy(self.sv1[at(0, blocks.size), at(0, cols.size)], self.v_scale[step.head, blocks, cols])

    def bring_p(self, step: Step, cols: At, most: int, live: Expr | None = None) -> InL1:
        p1 = super().bring_p(step, cols, most, live)
        self.sp1 = self.bring_ring("sp1", self.p_scales, step, self._blocks(cols.start, cols.size), most // MX_BLOCK, live)
        return p1

    def _blocks(self, start: Expr, size: Expr) -> At:
        """Blocks of a range that starts with a whole block."""
        return at(start // MX_BLOCK, ceil_div(size, MX_BLOCK))

    def product_qk(self, acc: Slice, a: Slice, b: Slice, step: Step, columns: At, inside: At, depth: At,
                   accumulate: Expr) -> None:
        tile, rows = self.tile, step.rows * self.passes
        here, whole = self._blocks(inside.start, inside.size), self._blocks(depth.start, depth.size)
        sa0, sb0 = self._scale_tiles("a", "b", tile.qk_k, tile.qk_n)
        self.kb.copy(sa0[at(0, rows), at(0, here.size)], self.sq1[at(step.second * self.cube_rows, rows), whole])
        self.kb.copy(sb0[at(0, here.size), at(0, columns.size)], self.sk1[columns, here], transpose=1)
        self._product(acc, a, sa0[at(0, rows), at(0, here.size)], b, sb0[at(0, here.size), at(0, columns.size)], accumulate)

    def product_pv(self, acc: Slice, a: Slice, b: Slice, step: Step, columns: At, inside: At, channels: At,
                   accumulate: Expr) -> None:
        tile, rows = self.tile, step.rows * self.passes
        here, whole = self._blocks(inside.start, inside.size), self._blocks(columns.start, columns.size)
        sc0, sd0 = self._scale_tiles("c", "d", tile.pv_k, min(tile.pv_n, self.out_dim))
        self.kb.copy(sc0[at(0, rows), at(0, here.size)], self.sp1(at(0, rows), whole))
        self.kb.copy(sd0[at(0, here.size), channels], self.sv1[here, channels])
        self._product(acc, a, sc0[at(0, rows), at(0, here.size)], b, sd0[at(0, here.size), channels], accumulate)

    def _scale_tiles(self, a: str, b: str, deep: int, wide: int) -> tuple[Handle, Handle]:
        kb, blocks, ring = self.kb, deep // MX_BLOCK, self.tile.l0_ring
        return (kb.buffer(f"s{a}0", "L0A_MX", "e8m0", (self.cube_rows, blocks), ring),
                kb.buffer(f"s{b}0", "L0B_MX", "e8m0", (blocks, wide), ring))

    def _product(self, acc: Slice, a: Slice, a_scale: Slice, b: Slice, b_scale: Slice, accumulate: Expr) -> None:
        self.kb.op("mmad_mx", acc, a, a_scale, b, b_scale, accumulate=accumulate)

    # AIV

    def open_aiv(self) -> None:
        super(MsdAttention, self).open_aiv()

    def _split_rows(self, second: Expr, rows: RowTile) -> None:
        kb, most, dim = self.kb, self.tile.out_m, self.dim
        mine = self.mine(rows)
        with kb.loop("i", 0, ceil_div(mine, most)) as i:
            size = ragged_of(mine, most, i)
            start = kb.sub * self.share + i * most
            xb = kb.buffer("xb", "UB", "bf16", (most, dim))[at(0, size), :]
            xf, q = (kb.buffer(f"x{kind}", "UB", "fp32", (most, dim))[at(0, size), :] for kind in "fq")
            half = kb.buffer("xh", "UB", "bf16", (most, dim))[at(0, size), :]
            kb.copy(xb, self.q[rows.head, at(rows.row + start, size), :])
            kb.op("cast", xf, xb)
            components, scales = self._decompose_mx("x", xf, q, half, size, Const(dim), (most, dim), 1)
            for ring, pieces in ((self.q_ring, components), (self.q_scales, scales)):
                for n, piece in enumerate(pieces):
                    kb.copy(ring[kb.core, rows.turn % self.states, at(rows.rows * n + start, size), :], piece)
        kb.raise_signal("components", "MTE3")

    def _decompose_mx(self, name: str, xf: Slice, q: Slice, half: Slice, size: Expr, cols: Expr, most: tuple[int, int],
                      ring: int) -> tuple[list[Slice], list[Slice]]:
        """``s1 = scale(max of each block) ; a1 = x / s1 ; x -= a1 s1 ; s2 = s1 / 8 ; a2 = x / s2 ...``"""
        kb, (rows, width) = self.kb, most
        blocks = ceil_div(cols, MX_BLOCK)
        scale_tile = kb.buffer(f"{name}_scale", "UB", "e8m0", (self.passes * rows, block_count(width)), ring)
        element_tile = kb.buffer(f"{name}c", "UB", self.fmt, (self.passes * rows, width), ring)
        scales = [scale_tile[at(n * rows, size), at(0, blocks)] for n in range(self.passes)]
        components = [element_tile[at(n * rows, size), at(0, cols)] for n in range(self.passes)]
        top = kb.buffer(f"{name}_top", "UB", "fp32", (rows, block_count(width)))[at(0, size), at(0, blocks)]
        kb.op("block_max", top, xf)
        # The first scale leaves room below it for the scales of the later passes.
        lowest = MIN_SCALE_EXPONENT + STEP * (self.passes - 1) + E8M0.bias
        kb.op("mx_scale", scales[0], top, rule=self.spec.scale_rule, element=self.fmt, lowest=lowest)
        for n, component in enumerate(components):
            kb.op("mx_div", q, xf, scales[n])
            kb.op("cast", half, q, round="rint")
            kb.op("cast", component, half, round=self.spec.rounding)
            if n + 1 < self.passes:
                kb.op("cast", half, component)
                kb.op("cast", q, half)
                kb.op("mx_mul", q, q, scales[n])
                kb.op("sub", xf, xf, q)
                kb.op("mx_step", scales[n + 1], scales[n], down=STEP)
        return components, scales

    def _sum(self, total: Slice, pieces: list[Slice]) -> None:
        self.kb.op("add", total, pieces[0], pieces[1])
        for piece in pieces[2:]:
            self.kb.op("add", total, total, piece)

    def before_softmax(self, step: Step) -> None:
        """Block scales are the Cube's affair."""

    def load_logits(self, step: Step, local: Expr, size: Expr) -> Slice:
        s, self.scratch = self.wide("st", "fp32", size, step.cols), self.wide("scratch", "fp32", size, step.cols)
        self._sum(s, self.arrived("ci", self.logits, step, local, size, step.cols))
        self.kb.op("muls", s, s, scalar=self.factor)
        return s

    def store_weights(self, step: Step, p: Slice, start: Expr, local: Expr, size: Expr) -> None:
        kb, tile = self.kb, self.tile
        half = self.wide("ph", "bf16", size, step.cols)
        kb.op("cast", half, p, round="rint")
        kb.op("cast", p, half)
        components, scales = self._decompose_mx("p", p, self.scratch, half, size, step.cols, (tile.vec_m, tile.kv_tile),
                                                tile.ub_ring)
        blocks = ceil_div(step.cols, MX_BLOCK)
        for ring, pieces, cols in ((self.weights, components, step.cols), (self.p_scales, scales, blocks)):
            for n, piece in enumerate(pieces):
                kb.copy(self.slot(ring, step, at(step.rows * n + start, size), at(0, cols)), piece)

    def load_partial(self, step: Step, local: Expr, size: Expr) -> Slice:
        o = self.kb.buffer("ot", "UB", "fp32", (self.tile.out_m, self.out_dim))[at(0, size), :]
        self._sum(o, self.arrived("oi", self.partial, step, local, size, Const(self.out_dim)))
        return o

    def scale_output(self, acc: Slice, head: Expr) -> None:
        """Block scales are in the products."""


def _ub_bytes(t: UbTiles) -> int:
    """A ring of P's components, two FP32 tiles and one BF16, block maxima; Q's split, O's sum; state; S and O of all passes."""
    passes = MSD_MXFP4.passes
    per_block = (4 + 2 * 2 * passes) / MX_BLOCK
    logits = t.kv_tile * (t.ring * passes / 2 + 4 + 4 + 2 + per_block)
    q = t.head_dim * (2 + 4 + 4 + 2 + passes / 2 + per_block)
    o = t.v_dim * (4 + t.ring * 2 + t.ring * 4)
    rows = t.vec_m * (logits + 256 + 4 * 32) + t.out_m * (q + o + 4 * 32)
    return int(rows) + arriving_bytes(passes, t) + t.share * (4 * t.v_dim + 4 * 24) + 1024 + ceil_int(t.head_dim, MX_BLOCK)


#: Over all logits: the sum of both passes, the softmax, and the split as chains of instructions (see the operations).
_OPS = ("add", "muls", "fold_max", "sub", "exp", "fold_add", "cast", "cast", "abs", "reduce_max",
        *("copy", "mul", "cast", "cast") * 2, "cast", "cast", "copy", "mul", "sub")
NEEDS = Needs("mxfp4", MSD_MXFP4.passes, _ub_bytes, _OPS, 4)


def build(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Kernel:
    check(problem, chip, tile, NEEDS)
    require_multiple(tile, "kv_tile", MX_BLOCK, "a tile holds whole blocks")
    for name in ("l1_kv",) if tile.pv_n >= problem.value_dim else ("l1_k", "l1_v"):
        require_multiple(tile, name, MX_BLOCK, "a chunk holds whole blocks")
    return MxAttention(problem, chip, tile).kernel()


DATAFLOWS.add("attention:msd-mxfp4", Dataflow(
    name="msd-mxfp4", kind="attention", contract="msd-mxfp4",
    description="Q and P split into two MXFP4 components, MXFP4 KV cache as it is, summed on Vector",
    tiling=AttentionTiling, refuses=lambda problem, chip: refuse_rate(chip, CUBE) or refuse_overflow(problem, MSD_MXFP4) or (
        SHARED_CACHE if problem.shared_kv else None),
    build=build,
))
