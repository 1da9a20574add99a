"""``msd-int8`` and ``msd-int4`` attention: Q and P split into integer components, the integer KV cache multiplied as it is.

Vector splits Q of a row tile ``preload`` steps before it is needed and P of every step; the Cube multiplies the components,
stacked along rows, so that K and V are read once for all passes; Vector merges the INT32 results::

    AIV: for g: split Q(g) -> ring ; merge S(g - preload), softmax, split P -> ring ; merge O(g - 2 preload), rescale

The scales fold as the contract says: per channel, K's into Q before the split and V's into the result at the very end, P
having the fixed maximum 1; per token, K's into the columns of the logits and V's into the columns of P before its split.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from msdsim.dataflows.attention.context import Components, Context, Operands, Rows
from msdsim.dataflows.attention.conversions import Conversions, Logits
from msdsim.dataflows.attention.operands import Cache, SplitQueries, cache_tensors, query_tensor
from msdsim.dataflows.attention.pipeline import Ahead, attention
from msdsim.dataflows.attention.rings import ToVector
from msdsim.dataflows.attention.scales import CacheScales, TokenScales
from msdsim.dataflows.attention.tiling import AttentionTiling
from msdsim.dataflows.attention.work import AttentionShape, RowTile, Step, refuse_odd
from msdsim.dataflows.base import register
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.dataflows.vector.components import SMALLEST, combine, decompose, narrow
from msdsim.formats.msd import MSD_INT4, MSD_INT8, MsdSpec
from msdsim.hardware.chip import Chip
from msdsim.ir import Const, Handle, Kernel, Slice, at
from msdsim.ir.ops.vector import FOLD_LANES


class MsdConversions(Conversions):
    """Integer components of Q and P with a row scale each; INT32 sums merged and scaled."""

    fused = False

    def __init__(self, ctx: Context, spec: MsdSpec) -> None:
        super().__init__(ctx)
        self.spec, self.cache_scales = spec, CacheScales(ctx)
        self.per_channel, self.scale_output = self.cache_scales.per_channel, self.cache_scales.of_output

    def open(self) -> None:
        """What the merged logits of a row are multiplied by, per row tile; and the row scale of P, per step."""
        ctx = self.ctx
        self.cache_scales.open()
        self.q_factor = self.kb.buffer("q_factor", "UB", "fp32", (ctx.states * ctx.share, 1))
        if not self.per_channel:
            self.p_factor = self.kb.buffer("p_factor", "UB", "fp32", (ctx.slots * ctx.share, 1))

    def split_query(self, tile: RowTile, rows: Rows, x: Slice) -> Components:
        ctx, kb, most = self.ctx, self.kb, self.ctx.tile.out_m
        scratch, half = ctx.of_query("xq", "fp32", rows), ctx.of_query("xh", "fp16", rows)
        if self.per_channel:
            self.cache_scales.into_query(x, tile)
        kb.op("abs", scratch, x)
        top = self._row_top(scratch, "x", rows, most)
        factor = ctx.per_row_tile(self.q_factor, tile, rows)
        kb.op("div", factor, top, self._first_factor("x", rows, most))
        kb.op("muls", factor, factor, scalar=ctx.factor)
        kb.op("maxs", top, top, scalar=SMALLEST)
        return self._split(kb.buffer("xc", "UB", ctx.fmt, (ctx.passes * most, ctx.dim)), x, scratch, half, top)

    def _row_top(self, magnitudes: Slice, name: str, rows: Rows, most: int) -> Slice:
        """Row maxima of what is not negative, of a tile of at most ``most`` rows."""
        lanes = self.ctx.scalars(f"{name}_lanes", rows, FOLD_LANES, most)
        top = self.ctx.scalars(f"{name}_top", rows, 1, most)
        self.kb.op("fold_max", lanes, magnitudes)
        self.kb.op("reduce_max", top, lanes)
        return top

    def _first_factor(self, name: str, rows: Rows, most: int) -> Slice:
        factor = self.ctx.scalars(f"{name}_f", rows, 1, most)
        self.kb.op("dup", factor, scalar=self.spec.first_factor)
        return factor

    def _split(self, tile: Handle, x: Slice, scratch: Slice, half: Slice, top: Slice | None) -> Components:
        """Components side by side in a tile of the rows of all of them."""
        most, (size, cols) = tile.of.shape[0] // self.ctx.passes, x.sizes
        pieces = [tile[at(n * most, size), :cols] for n in range(self.ctx.passes)]
        decompose(self.kb, self.spec, self.ctx.passes, x, scratch, top,
                  store=lambda n, value: narrow(self.kb, pieces[n], half, value))
        return Components(pieces)

    def scales(self, step: Step) -> TokenScales | None:
        return self.cache_scales.of_step(step)

    def logits(self, s: ToVector, step: Step, rows: Rows, scales: TokenScales | None) -> Logits:
        ctx, kb = self.ctx, self.kb
        pieces = s.get("ci", step, rows, step.cols)
        values, scratch = (ctx.of_logits(name, "fp32", rows, step.cols) for name in ("st", "scratch"))
        combine(kb, self.spec.pass_weights, pieces, values, scratch)
        kb.op("mul", values, values, ctx.per_row_tile(self.q_factor, step.tile, rows))
        if scales is not None:
            kb.op("mul", values, values, scales.k)
        return Logits(values, scratch)

    def weights(self, step: Step, rows: Rows, p: Logits, scales: TokenScales | None) -> Components:
        ctx, kb, tile = self.ctx, self.kb, self.ctx.tile
        assert p.scratch is not None
        top = None
        if scales is not None:
            kb.op("mul", p.values, p.values, scales.v)
            top = self._row_top(p.values, "p", rows, tile.vec_m)
            kb.op("div", ctx.per_step(self.p_factor, step, rows), top, self._first_factor("p", rows, tile.vec_m))
            kb.op("maxs", top, top, scalar=SMALLEST)
        components = kb.buffer("pc", "UB", ctx.fmt, (ctx.passes * tile.vec_m, tile.kv_tile), tile.ub_ring)
        return self._split(components, p.values, p.scratch, ctx.of_logits("ph", "fp16", rows, step.cols), top)

    def output(self, o: ToVector, step: Step, rows: Rows) -> Slice:
        ctx, kb = self.ctx, self.kb
        pieces = o.get("oi", step, rows, Const(ctx.out_dim))
        total, scratch = ctx.of_output("ot", "fp32", rows), ctx.of_output("op", "fp32", rows)
        combine(kb, self.spec.pass_weights, pieces, total, scratch)
        if self.per_channel:
            kb.op("muls", total, total, scalar=float(np.float32(1 / self.spec.first_factor)))
        else:
            kb.op("mul", total, total, ctx.per_step(self.p_factor, step, rows))
        return total


def build(problem: AttentionShape, chip: Chip, tile: AttentionTiling, spec: MsdSpec) -> Kernel:
    ctx = Context(f"attention_msd_{spec.name}", problem, chip, tile, Operands(spec.target, "int32", spec.passes))
    q, cache = query_tensor(ctx), Cache(ctx, cache_tensors(ctx, spec.target))
    conversions = MsdConversions(ctx, spec)
    queries = SplitQueries(ctx, q)
    return attention(ctx, queries, cache, conversions, ahead=Ahead(partial(queries.split, conversions.split_query)))


def refuse_overflow(problem: AttentionShape, spec: MsdSpec) -> str | None:
    """Why the components of a head do not fit accumulators or bytes, or None."""
    most = (2**31 - 1) // 2 ** (2 * spec.format.bits - 2)
    if spec.format.kind == "int" and problem.head_dim > most:
        return f"head_dim={problem.head_dim} can overflow the INT32 accumulator (at most {most})"
    return refuse_odd(problem, spec.format.bits, f"{spec.name} elements")


def _refuse(problem: AttentionShape, chip: Chip, spec: MsdSpec) -> str | None:
    return refuse_rate(chip, (spec.target, spec.target)) or refuse_overflow(problem, spec)


#: Decompositions of Q and P, and what the description calls their components.
SPECS = {MSD_INT8: "two INT8", MSD_INT4.with_passes(4): "four INT4"}
for _spec, _components in SPECS.items():
    register("attention", f"msd-{_spec.name}",
             f"Q and P split into {_components} components, {_spec.name.upper()} KV cache as it is, merged on Vector",
             AttentionTiling, partial(_refuse, spec=_spec), partial(build, spec=_spec))
