"""Q and the KV cache on their way from GM to the Cube: as they are, or Q split into components by Vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msdsim.dataflows.attention.context import Chunk, Components, Context, Rows, blocks_of
from msdsim.dataflows.attention.tiling import FETCH_BYTES
from msdsim.dataflows.attention.work import RowTile, Step
from msdsim.formats.mx import block_count
from msdsim.formats.number import FORMATS
from msdsim.ir import At, Expr, Handle, Slice, at, maximum, minimum, tiles_of
from msdsim.ir.kernel import Tensor
from msdsim.units import ceil_div

#: Q in L1 for a step of the item that it was loaded for.
LoadedQueries: TypeAlias = Callable[[Step], Chunk]
#: K, and V unless it is a part of K.
Caches: TypeAlias = tuple[Handle, ...]
#: Components of rows of Q of a row tile, given in FP32.
SplitQuery: TypeAlias = Callable[[RowTile, Rows, Slice], Components]


def query_tensor(ctx: Context) -> Handle:
    """Q [KV heads of all batches, query rows of one, head_dim]."""
    return ctx.kb.tensor("q", "bf16", (ctx.work.kv_head_count, ctx.work.rows_per_head, ctx.dim), "in")


def cache_tensors(ctx: Context, fmt: str) -> Caches:
    """K and, where it is stored apart, V: [KV heads of all batches, kv, channels]."""
    sizes = (("k", ctx.dim),) if ctx.shared else (("k", ctx.dim), ("v", ctx.out_dim))
    beside = ctx.problem.kv_heads if ctx.problem.kv_layout == "bsnd" else 1
    return tuple(ctx.kb.tensor(name, fmt, (ctx.work.kv_head_count, ctx.work.kv, dim), "in", beside=beside)
                 for name, dim in sizes)


def copy_rows(ctx: Context, target: Callable[[At], Slice], cache: Handle, head: Expr, rows: At, cols: At | None = None) -> None:
    """Rows of a cache to ``target``, which counts them from the first: in one copy, or, where the cache has pages, in one for
    each page that they lie in."""
    kb, page = ctx.kb, ctx.problem.page
    assert isinstance(cache.of, Tensor)
    columns = at(0, cache.of.shape[-1]) if cols is None else cols
    if page is None or cache.of.role != "in":
        kb.copy(target(at(0, rows.size)), cache[head, rows, columns])
        return
    before = rows.start % page
    with kb.loop("g", 0, tiles_of(before + rows.size, page)) as g:
        first, last = maximum(0, g * page - before), minimum(rows.size, (g + 1) * page - before)
        kb.copy(target(at(first, last - first)), cache[head, at(rows.start + first, last - first), columns])


class Queries:
    """Where the Cube has Q from: here as it is, or ``q`` that a prologue leaves in GM."""

    def __init__(self, ctx: Context, q: Handle | None = None) -> None:
        self.ctx, self.q = ctx, query_tensor(ctx) if q is None else q

    def load(self, item: Expr) -> LoadedQueries:
        """Q of all row tiles of an item to L1, where it stays for all their KV tiles."""
        ctx, kb = self.ctx, self.ctx.kb
        q1 = kb.buffer("q1", "L1", ctx.fmt, (ctx.work.row_tiles_per_item * ctx.cube_rows, ctx.dim), ctx.tile.q_ring)
        with kb.when(item < ctx.work.items_of(kb.core)), ctx.row_tiles(item) as (second, tile):
            kb.copy(ctx.of_item(q1, second, tile.rows, at(0, ctx.dim)), self.q[tile.head, at(tile.row, tile.rows), :])
        return lambda step: Chunk(lambda rows, cols: ctx.of_item(q1, step.second, rows.size, cols))


class SplitQueries(Queries):
    """Components of Q, which Vector makes ``preload`` steps before its row tile begins, through a ring in GM: a slot for each
    row tile that can be between its split and its use; with ``mx`` also their block scales."""

    def __init__(self, ctx: Context, q: Handle, mx: bool = False) -> None:
        self.ctx, self.q = ctx, q
        ring = (ctx.cores, ctx.states, ctx.cube_rows)
        self.elements = ctx.kb.tensor("qc", ctx.fmt, (*ring, ctx.dim), "workspace")
        self.scales = ctx.kb.tensor("q_scales", "e8m0", (*ring, block_count(ctx.dim)), "workspace") if mx else None
        ctx.kb.signal("components", "aiv_to_aic")

    def load(self, item: Expr) -> LoadedQueries:
        ctx, kb, depth = self.ctx, self.ctx.kb, self.ctx.tile.q_ring
        height, loads = ctx.work.row_tiles_per_item * ctx.cube_rows, []
        if self.scales is not None:
            sq1 = kb.buffer("sq1", "L1", "e8m0", (height, block_count(ctx.dim)), depth)
            loads.append((sq1, self.scales))
        q1 = kb.buffer("q1", "L1", ctx.fmt, (height, ctx.dim), depth)
        loads.insert(0, (q1, self.elements))
        with kb.when(item < ctx.work.items_of(kb.core)), ctx.row_tiles(item) as (second, tile):
            kb.wait_signal("components", "MTE2")
            rows = tile.rows * ctx.passes
            for buffer, ring in loads:
                whole = at(0, buffer.of.shape[1])
                kb.copy(ctx.of_item(buffer, second, rows, whole), ring[kb.core, tile.turn % ctx.states, :rows, whole])

        def of_step(step: Step) -> Chunk:
            return Chunk(lambda rows, cols: ctx.of_item(q1, step.second, rows.size, cols),
                         None if self.scales is None else
                         lambda rows, cols: ctx.of_item(sq1, step.second, rows.size, blocks_of(cols)))

        return of_step

    def split(self, split_query: SplitQuery, step: Step) -> None:
        """A stage of the AIV: this AIV's rows of the row tiles of a new item, ``out_m`` at a time."""
        ctx, kb = self.ctx, self.ctx.kb
        with kb.when((step.number % ctx.work.steps).equals(0)), ctx.row_tiles(step.number // ctx.work.steps) as (_, tile):
            with ctx.my_rows("i", tile, ctx.tile.out_m) as rows:
                xb = ctx.of_query("xb", "bf16", rows)
                xf = ctx.of_query("xf", "fp32", rows)
                kb.copy(xb, self.q[tile.head, at(tile.row + rows.start, rows.size), :])
                kb.op("cast", xf, xb)
                components = split_query(tile, rows, xf)
                for ring, pieces in ((self.elements, components.elements), (self.scales, components.scales)):
                    for n, piece in enumerate(pieces):
                        assert ring is not None
                        kb.copy(ring[kb.core, tile.turn % ctx.states, at(tile.rows * n + rows.start, rows.size), :], piece)
            kb.raise_signal("components", "MTE3")


class Cache:
    """Where the Cube has K and V from: here ``caches`` in GM as it takes them; ``stored`` is what the cache itself is.

    A shared cache is K; V is its first columns, read from L2 a second time for P V: between the two products of a step lie
    ``preload`` others, and L1 does not hold so many tiles of the width for which caches are shared.
    """

    #: The signal that K of a step is there, if Vector makes it.
    keys_signal: str | None = None
    #: Whether V of a step is there before P is.
    early_values = True

    def __init__(self, ctx: Context, caches: Caches, stored: Caches | None = None) -> None:
        self.ctx, self.caches, self.stored = ctx, caches, stored or caches

    def keys(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> Chunk:
        """A chunk of K in L1: rows of the step's KV tile and some of its columns."""
        return self.bring("k1", self.caches[0], step, rows, most_rows, cols, most_cols)

    def values(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> Chunk:
        """A chunk of V in L1."""
        return self.bring("v1", self.caches[-1], step, rows, most_rows, cols, most_cols)

    def bring(self, name: str, cache: Handle, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> Chunk:
        """A chunk of one of them."""
        buffer = self.ctx.kb.buffer(name, "L1", self.ctx.fmt, (most_rows, most_cols), self.ctx.tile.l1_ring)
        copy_rows(self.ctx, lambda inside: buffer[inside, : cols.size], cache, step.head,
                  at(step.start + rows.start, rows.size), cols)
        return Chunk(lambda rows, cols: buffer[rows, cols])


def fetch_into_l2(ctx: Context, cache: Cache, step: Step) -> None:
    """Read this AIV's share of the step's K and V only to bring it into L2, in rows as long as GM has them.

    The AIC turns rows into fractals as it reads them, which leaves few bytes in flight; from L2 that is fast enough.
    """
    kb, dim, fmt = ctx.kb, max(stored.of.shape[-1] for stored in cache.stored), cache.stored[0].of.fmt
    share = ceil_div(ctx.work.kv_tile, ctx.aivs)
    size = ctx.my_part(step.cols, share)
    chunk = min(share, max(1, FETCH_BYTES * 8 // (dim * FORMATS[fmt].bits)))
    with kb.tiles("f", size, chunk) as f:
        warm = kb.buffer("warm", "UB", fmt, (chunk, dim))
        for stored in cache.stored:
            width = at(0, stored.of.shape[-1])
            copy_rows(ctx, lambda inside, width=width: warm[inside, width], stored, step.head,  # type: ignore[misc]
                      at(step.start + kb.sub * share + f.start, f.size))
