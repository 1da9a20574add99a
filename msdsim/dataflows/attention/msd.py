"""``msd-int8`` and ``msd-int4`` attention: Q and P split into integer components, the integer KV cache multiplied as it is.

Vector splits Q of a row tile ``preload`` steps before it is needed and P of every step; the Cube multiplies the components,
stacked along rows, so that K and V are read once for all passes; Vector merges the INT32 results::

    AIV: for g: split Q(g) -> ring ; merge S(g - preload), softmax, split P -> ring ; merge O(g - 2 preload), rescale

The scales fold as the contract says: per channel, K's into Q before the split and V's into the result at the very end, P
having the fixed maximum 1; per token, K's into the columns of the logits and V's into the columns of P before its split.
"""

from __future__ import annotations

import numpy as np

from msdsim.dataflows.attention.kernel import AttentionKernel, Stage, Tiling
from msdsim.dataflows.attention.tiling import AttentionTiling, Needs, UbTiles, arriving_bytes, check
from msdsim.dataflows.attention.work import AttentionShape, RowTile, Step, refuse_odd
from msdsim.dataflows.base import DATAFLOWS, Dataflow
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.dataflows.cube.operands import ragged_of
from msdsim.formats.msd import MSD_INT4, MSD_INT8, MsdSpec
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import at
from msdsim.ir.expr import Const, Expr, ceil_div
from msdsim.ir.kernel import Kernel, Slice
from msdsim.ir.ops.vector import FOLD_LANES

#: Smallest positive FP32 number: rows of zeros are divided by it instead of by zero.
SMALLEST = 2.0**-149


class MsdAttention(AttentionKernel):
    """The shared pipeline with integer components."""

    acc_fmt = "int32"

    def __init__(self, problem: AttentionShape, chip: Chip, tile: Tiling, spec: MsdSpec) -> None:
        self.name = f"attention_msd_{spec.name}"
        self.spec, self.passes = spec, spec.passes
        self.fmt = self.cache_fmt = spec.target
        self.per_channel = problem.scales == "channel"
        super().__init__(problem, chip, tile)

    def vector_stages(self) -> tuple[Stage, ...]:
        ahead = self.tile.preload
        return (Stage(0, self.split_q), Stage(ahead, self.softmax), Stage(ahead + self.tile.preload, self.rescale))

    def scale_tensors(self) -> None:
        kb, work, dim = self.kb, self.work, self.dim
        tokens, heads = (work.kv_head_count, work.kv), self.problem.kv_heads
        shapes = [(heads, width) if self.per_channel else tokens for width in (dim, self.out_dim)]
        self.k_scale = kb.tensor("k_scale", "fp32", shapes[0], "in")
        self.v_scale = self.k_scale if self.shared else kb.tensor("v_scale", "fp32", shapes[1], "in")
        # A slot per row tile that can be between its split and its use.
        self.q_ring = kb.tensor("qc", self.fmt, (self.cores, self.states, self.cube_rows, dim), "workspace")
        kb.signal("components", "aiv_to_aic")

    # AIC

    def load_q(self, second: Expr, tile: RowTile) -> None:
        kb = self.kb
        kb.wait_signal("components", "MTE2")
        kb.copy(self.in_item(self.q1, second, tile.rows * self.passes),
                self.q_ring[kb.core, tile.turn % self.states, at(0, tile.rows * self.passes), :])

    # AIV

    def open_aiv(self) -> None:
        super().open_aiv()
        #: What the merged logits of a row are multiplied by, per row tile; and the row scale of P, per step.
        self.q_factor = self.kb.buffer("q_factor", "UB", "fp32", (self.states * self.share, 1))
        if not self.per_channel:
            self.p_factor = self.kb.buffer("p_factor", "UB", "fp32", (self.slots * self.share, 1))

    def split_q(self, step: Step) -> None:
        """Components of Q of a new item's row tiles."""
        kb = self.kb
        with kb.when((step.number % self.work.steps).equals(0)):
            self.each_row_tile(step.number // self.work.steps, self._split_rows)

    def _split_rows(self, second: Expr, rows: RowTile) -> None:
        """``out_m`` rows at a time."""
        kb, most, dim = self.kb, self.tile.out_m, self.dim
        mine = self.mine(rows)
        with kb.loop("i", 0, ceil_div(mine, most)) as i:
            size, local = ragged_of(mine, most, i), i * most
            start = kb.sub * self.share + local
            here = (at(0, size), at(0, dim))
            xb = kb.buffer("xb", "UB", "bf16", (most, dim))[here]
            xf, q = (kb.buffer(f"x{kind}", "UB", "fp32", (most, dim))[here] for kind in "fq")
            q16 = kb.buffer("xh", "UB", "fp16", (most, dim))[here]
            kb.copy(xb, self.q[rows.head, at(rows.row + start, size), :])
            kb.op("cast", xf, xb)
            if self.per_channel:
                scale = kb.buffer("xs", "UB", "fp32", (1, dim))[0, :]
                kb.copy(scale, self.k_scale[self.kv_head(rows.head), :])
                kb.op("mul", xf, xf, scale)
            kb.op("abs", q, xf)
            top = self.row_top(q, "x", size, most)
            factor = self.state(self.q_factor, rows, local, size)
            kb.op("div", factor, top, self.first_factor("x", size, most))
            kb.op("muls", factor, factor, scalar=self.factor)
            kb.op("maxs", top, top, scalar=SMALLEST)
            parts = kb.buffer("xc", "UB", self.fmt, (self.passes * most, dim))
            self.decompose(xf, q, q16, top, [parts[at(n * most, size), :] for n in range(self.passes)])
            for n in range(self.passes):
                kb.copy(self.q_ring[kb.core, rows.turn % self.states, at(rows.rows * n + start, size), :],
                        parts[at(n * most, size), :])
        kb.raise_signal("components", "MTE3")

    def kv_head(self, head: Expr) -> Expr:
        """Index of the head's scales: they are the same for every batch."""
        return head % self.problem.kv_heads

    def row_top(self, magnitudes: Slice, name: str, size: Expr, most: int) -> Slice:
        """Row maxima of what is not negative, of a tile of at most ``most`` rows."""
        lanes, top = self.small(f"{name}_lanes", size, FOLD_LANES, most), self.small(f"{name}_top", size, 1, most)
        self.kb.op("fold_max", lanes, magnitudes)
        self.kb.op("reduce_max", top, lanes)
        return top

    def first_factor(self, name: str, size: Expr, most: int) -> Slice:
        factor = self.small(f"{name}_f", size, 1, most)
        self.kb.op("dup", factor, scalar=self.spec.first_factor)
        return factor

    def decompose(self, r: Slice, q: Slice, q16: Slice, top: Slice | None, out: list[Slice]) -> None:
        """``r *= f; a1 = round(r / top); r -= a1 top; r *= g; a2 = round(r / top) ...``; ``top`` None stands for 1."""
        kb = self.kb
        kb.op("muls", r, r, scalar=self.spec.first_factor)
        for number, component in enumerate(out):
            if top is not None:
                kb.op("div", q, r, top)
            kb.op("cast", q, r if top is None else q, round=self.spec.rounding)
            kb.op("cast", q16, q, round="rint")
            kb.op("cast", component, q16, round="rint")
            if number + 1 < self.passes:
                if top is not None:
                    kb.op("mul", q, q, top)
                kb.op("sub", r, r, q)
                kb.op("muls", r, r, scalar=self.spec.next_factor)

    def merge(self, total: Slice, part: Slice, pieces: list[Slice]) -> None:
        """``total = C1 + C2 / g + C3 / g^2 ...`` in FP32."""
        kb = self.kb
        kb.op("cast", total, pieces[0])
        for piece, weight in zip(pieces[1:], self.spec.pass_weights[1:], strict=True):
            kb.op("cast", part, piece)
            kb.op("muls", part, part, scalar=weight)
            kb.op("add", total, total, part)

    def before_softmax(self, step: Step) -> None:
        if self.per_channel:
            return
        kb = self.kb
        # Both scales in one buffer, so that one flag covers both loads.
        count = 1 if self.shared else 2
        scales = kb.buffer("token_scales", "UB", "fp32", (count, self.work.kv_tile), self.tile.ub_ring)
        rows = [scales[row, at(0, step.cols)] for row in range(count)]
        for target, source in zip(rows, (self.k_scale, self.v_scale), strict=False):
            kb.copy(target, source[step.head, at(step.start, step.cols)])
        #: Those of K and of V.
        self.token_scales = rows[0], rows[-1]

    def load_logits(self, step: Step, local: Expr, size: Expr) -> Slice:
        kb = self.kb
        pieces = self.arrived("ci", self.logits, step, local, size, step.cols)
        s, self.scratch = self.wide("st", "fp32", size, step.cols), self.wide("scratch", "fp32", size, step.cols)
        self.merge(s, self.scratch, pieces)
        kb.op("mul", s, s, self.state(self.q_factor, step.tile, local, size))
        if not self.per_channel:
            kb.op("mul", s, s, self.token_scales[0])
        return s

    def store_weights(self, step: Step, p: Slice, start: Expr, local: Expr, size: Expr) -> None:
        kb, tile = self.kb, self.tile
        top = None
        if not self.per_channel:
            kb.op("mul", p, p, self.token_scales[1])
            top = self.row_top(p, "p", size, tile.vec_m)
            kb.op("div", self.p_scale(step, local, size), top, self.first_factor("p", size, tile.vec_m))
            kb.op("maxs", top, top, scalar=SMALLEST)
        parts = kb.buffer("pc", "UB", self.fmt, (self.passes * tile.vec_m, tile.kv_tile), tile.ub_ring)
        pieces = [parts[at(n * tile.vec_m, size), at(0, step.cols)] for n in range(self.passes)]
        self.decompose(p, self.scratch, self.wide("ph", "fp16", size, step.cols), top, pieces)
        for number, piece in enumerate(pieces):
            kb.copy(self.slot(self.weights, step, at(step.rows * number + start, size), at(0, step.cols)), piece)

    def p_scale(self, step: Step, local: Expr, size: Expr) -> Slice:
        return self.p_factor[at(step.number % self.slots * self.share + local, size), 0]

    def load_partial(self, step: Step, local: Expr, size: Expr) -> Slice:
        kb, tile, dim = self.kb, self.tile, self.out_dim
        pieces = self.arrived("oi", self.partial, step, local, size, Const(dim))
        o, part = (kb.buffer(name, "UB", "fp32", (tile.out_m, dim))[at(0, size), :] for name in ("ot", "op"))
        self.merge(o, part, pieces)
        if self.per_channel:
            kb.op("muls", o, o, scalar=float(np.float32(1 / self.spec.first_factor)))
        else:
            kb.op("mul", o, o, self.p_scale(step, local, size))
        return o

    def scale_output(self, acc: Slice, head: Expr) -> None:
        if self.per_channel:
            scale = self.kb.buffer("vs", "UB", "fp32", (1, self.out_dim))[0, :]
            self.kb.copy(scale, self.v_scale[self.kv_head(head), at(0, self.out_dim)])
            self.kb.op("mul", acc, acc, scale)


#: Vector instructions over all logits besides those of the softmax: merge, split of two passes and of each further one.
_SOFTMAX = ("fold_max", "sub", "exp", "fold_add")
_MERGE = ("cast", "muls", "add")
_SPLIT = ("cast", "cast", "cast", "sub", "muls")


def needs_of(spec: MsdSpec) -> Needs:
    component = spec.format.bits / 8

    def ub_bytes(t: UbTiles) -> int:
        """A ring of P's components, two FP32 tiles and one FP16; Q's split and O's merge; state; and S and O of all passes."""
        logits = t.kv_tile * (t.ring * component * spec.passes + 4 + 4 + 2)
        q = t.head_dim * (2 + 4 + 4 + 2 + component * spec.passes)
        o = t.v_dim * (4 + 4 + 4 + t.ring * 2 + t.ring * 4)
        rows = t.vec_m * (logits + 2 * 4 * FOLD_LANES + 4 * 32) + t.out_m * (q + o + 4 * FOLD_LANES + 4 * 32)
        state = t.share * (4 * t.v_dim + 4 * 24)
        scales = t.ring * 2 * 4 * t.kv_tile + 4 * (t.head_dim + t.v_dim)
        return int(rows) + arriving_bytes(spec.passes, t) + state + scales + 1024

    ops = ("cast", "mul", *_MERGE * (spec.passes - 1), *_SOFTMAX, "muls", *_SPLIT * spec.passes)
    return Needs(spec.target, spec.passes, ub_bytes, ops, spec.format.bits)


def _register(spec: MsdSpec, components: str) -> None:
    needs, name, formats = needs_of(spec), f"msd-{spec.name}", (spec.target, spec.target)

    def build(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Kernel:
        check(problem, chip, tile, needs)
        return MsdAttention(problem, chip, tile, spec).kernel()

    DATAFLOWS.add(f"attention:{name}", Dataflow(
        name=name, kind="attention", contract=name,
        description=f"Q and P split into {components} components, {spec.name.upper()} KV cache as it is, merged on Vector",
        tiling=AttentionTiling, refuses=lambda problem, chip: refuse_rate(chip, formats) or refuse_overflow(problem, spec),
        build=build,
    ))


def refuse_overflow(problem: AttentionShape, spec: MsdSpec) -> str | None:
    """Why the components of a head do not fit accumulators or bytes, or None."""
    most = (2**31 - 1) // 2 ** (2 * spec.format.bits - 2)
    if spec.format.kind == "int" and problem.head_dim > most:
        return f"head_dim={problem.head_dim} can overflow the INT32 accumulator (at most {most})"
    return refuse_odd(problem, spec.format.bits, f"{spec.name} elements")


#: Decompositions of Q and P, and what the description calls their components.
SPECS = {MSD_INT8: "two INT8", MSD_INT4.with_passes(4): "four INT4"}
for _spec, _components in SPECS.items():
    _register(_spec, _components)
