"""``msd-mxfp4`` attention: Q and P split into MXFP4 components, the MXFP4 KV cache multiplied as it is, on an MX Cube.

The pipeline is that of the integer components; every tile brings the E8M0 scales of its blocks along.  Blocks of Q and K run
along head_dim, blocks of P and V along kv, so that a KV tile is a multiple of 32 columns.  P is rounded to BF16 before it is
split: Vector makes E2M1 from BF16 only, and what is left of a BF16 number after a component is again one.
"""

from __future__ import annotations

from functools import partial

from msdsim.dataflows.attention.context import Chunk, Components, Context, Operands, Rows, blocks_of
from msdsim.dataflows.attention.conversions import Conversions, Logits
from msdsim.dataflows.attention.msd import refuse_overflow
from msdsim.dataflows.attention.operands import Cache, SplitQueries, cache_tensors, query_tensor
from msdsim.dataflows.attention.pipeline import Ahead, attention
from msdsim.dataflows.attention.rings import ToCube, ToVector
from msdsim.dataflows.attention.tiling import AttentionTiling
from msdsim.dataflows.attention.work import AttentionShape, RowTile, Step
from msdsim.dataflows.base import register, require_multiple
from msdsim.dataflows.cube.limits import refuse_rate
from msdsim.dataflows.vector.components import decompose_mx
from msdsim.formats.msd import MSD_MXFP4
from msdsim.formats.mx import MX_BLOCK, SHARED_CACHE, block_count
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Handle, Kernel, Slice, at, tiles_of

CUBE = ("mxfp4", "mxfp4")


class MxCache(Cache):
    """K and V with the E8M0 scales of their blocks: K's blocks run along head_dim, V's along kv."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx, cache_tensors(ctx, ctx.fmt))
        heads, kv = ctx.work.kv_head_count, ctx.work.kv
        self.k_scale = ctx.kb.tensor("k_scale", "e8m0", (heads, kv, block_count(ctx.dim)), "in")
        self.v_scale = ctx.kb.tensor("v_scale", "e8m0", (heads, block_count(kv), ctx.out_dim), "in")

    def keys(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> Chunk:
        sk1 = self._buffer("sk1", most_rows, block_count(most_cols))
        chunk, blocks = super().keys(step, rows, most_rows, cols, most_cols), blocks_of(cols)
        source = self.k_scale[step.head, at(step.start + rows.start, rows.size), blocks]
        self.ctx.kb.copy(sk1[:rows.size, :blocks.size], source)
        return Chunk(chunk.elements, lambda row, col: sk1[row, blocks_of(col)])

    def values(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> Chunk:
        sv1 = self._buffer("sv1", most_rows // MX_BLOCK, most_cols)
        chunk = super().values(step, rows, most_rows, cols, most_cols)
        blocks = blocks_of(at(step.start + rows.start, rows.size))
        self.ctx.kb.copy(sv1[:blocks.size, :cols.size], self.v_scale[step.head, blocks, cols])
        return Chunk(chunk.elements, lambda row, col: sv1[blocks_of(row), col])

    def _buffer(self, name: str, rows: int, cols: int) -> Handle:
        return self.ctx.kb.buffer(name, "L1", "e8m0", (rows, cols), self.ctx.tile.l1_ring)


class MxConversions(Conversions):
    """MX components of Q and P, split block by block; FP32 sums added up.  Block scales are in the products."""

    fused = False

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.p_scales = ToCube(ctx, "p_scales", "sp1", "e8m0", ctx.work.kv_tile // MX_BLOCK)

    def split_query(self, tile: RowTile, rows: Rows, x: Slice) -> Components:
        scratch, half = self.ctx.of_query("xq", "fp32", rows), self.ctx.of_query("xh", "bf16", rows)
        return self._split("x", x, scratch, half, (self.ctx.tile.out_m, self.ctx.dim), 1)

    def _split(self, name: str, x: Slice, q: Slice, half: Slice, most: tuple[int, int], ring: int) -> Components:
        """Components and scales of ``x``, at most ``most`` rows and columns, each kind side by side in a tile of its own."""
        kb, ctx, (rows, width), (size, cols) = self.kb, self.ctx, most, x.sizes
        blocks = tiles_of(cols, MX_BLOCK)
        scale_tile = kb.buffer(f"{name}_scale", "UB", "e8m0", (ctx.passes * rows, block_count(width)), ring)
        element_tile = kb.buffer(f"{name}c", "UB", ctx.fmt, (ctx.passes * rows, width), ring)
        scales = [scale_tile[at(n * rows, size), :blocks] for n in range(ctx.passes)]
        elements = [element_tile[at(n * rows, size), :cols] for n in range(ctx.passes)]
        top = kb.buffer(f"{name}_top", "UB", "fp32", (rows, block_count(width)))[:size, :blocks]
        decompose_mx(kb, ctx.fmt, MSD_MXFP4.scale_rule, ctx.passes, x, q, half, top,
                     component=lambda n: elements[n], scale=lambda n: scales[n])
        return Components(elements, scales)

    def logits(self, s: ToVector, step: Step, rows: Rows, scales: None) -> Logits:
        values, scratch = (self.ctx.of_logits(name, "fp32", rows, step.cols) for name in ("st", "scratch"))
        self._sum(values, s.get("ci", step, rows, step.cols))
        self.kb.op("muls", values, values, scalar=self.ctx.factor)
        return Logits(values, scratch)

    def weights(self, step: Step, rows: Rows, p: Logits, scales: None) -> Components:
        """P is rounded to BF16 first: then what is left after a component is BF16 again."""
        ctx, kb, tile = self.ctx, self.kb, self.ctx.tile
        assert p.scratch is not None
        half = ctx.of_logits("ph", "bf16", rows, step.cols)
        kb.op("cast", half, p.values, round="rint")
        kb.op("cast", p.values, half)
        return self._split("p", p.values, p.scratch, half, (tile.vec_m, tile.kv_tile), tile.ub_ring)

    def output(self, o: ToVector, step: Step, rows: Rows) -> Slice:
        total = self.ctx.of_output("ot", "fp32", rows)
        self._sum(total, o.get("oi", step, rows, Const(self.ctx.out_dim)))
        return total

    def _sum(self, total: Slice, pieces: list[Slice]) -> None:
        self.kb.op("add", total, pieces[0], pieces[1])
        for piece in pieces[2:]:
            self.kb.op("add", total, total, piece)


def build(problem: AttentionShape, chip: Chip, tile: AttentionTiling) -> Kernel:
    """Components of Q and P with the blocks of their scales, on the cache as it is."""
    spec = MSD_MXFP4
    ctx = Context(f"attention_msd_{spec.name}", problem, chip, tile, Operands(spec.target, "fp32", spec.passes))
    require_multiple(tile, "kv_tile", MX_BLOCK, "a tile holds whole blocks")
    for name in ("l1_k", "l1_v") if ctx.wide_output else ("l1_kv",):
        require_multiple(tile, name, MX_BLOCK, "a chunk holds whole blocks")
    q, cache = query_tensor(ctx), MxCache(ctx)
    queries, conversions = SplitQueries(ctx, q, mx=True), MxConversions(ctx)
    return attention(ctx, queries, cache, conversions, ahead=Ahead(partial(queries.split, conversions.split_query)))


def _refuse(problem: AttentionShape, chip: Chip) -> str | None:
    return refuse_rate(chip, CUBE) or refuse_overflow(problem, MSD_MXFP4) or (SHARED_CACHE if problem.shared_kv else None)


register("attention", "msd-mxfp4", "Q and P split into two MXFP4 components, MXFP4 KV cache as it is, summed on Vector",
         AttentionTiling, _refuse, build)
