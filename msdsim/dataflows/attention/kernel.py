"""The pipeline that every attention dataflow shares, as a kernel under construction.

FlashAttention over KV tiles, Cube and Vector working on different steps at the same time::

    before, per step:  S = Q K^T;  P, alpha, l = online softmax of S;  O = P V;  acc = acc * alpha + O
    after, AIC:        for g in 0 .. n + preload:  S(g) = Q K^T -> ring ;         O(g - preload) = P V -> ring
           AIV:        for g in 0 .. n + preload:  softmax of S(g) -> P(g) ring ; rescale with O(g - preload)

Where O is too wide for one accumulator, it is made in column tiles of ``pv_n``, each over all KV rows of the step, for which
P of the step stays in L1.  With ``interleave`` tiles of O and S take turns, so that one drains from L0C while the other is
computed::

    AIC:  for g in 0 .. n + preload:  P(g - preload) to L1
                                      for t:  O(g - preload, t) = P V[:, t] -> ring ; S(g, t) = Q K[t]^T -> ring

A shared cache is K; V is its first columns, read from L2 a second time for P V: between the two products of a step lie
``preload`` others, and L1 does not hold so many tiles of the width for which caches are shared.

S, P and O pass through rings of ``preload + 1`` slots: in GM, or, with ``direct``, S and O in UB and P in L1 on chips whose
fixpipe reaches UB and whose UB reaches L1.  Each ring needs only the signal that a slot is full: a slot comes up
again ``preload + 1`` steps later, and before the AIC writes S(g) it has waited for P(g - preload - 1), which says that S
of that step was read; before the AIV writes P(g) it has waited for O(g - preload - 1), which says that P was read; before
the AIC writes O(g) it has waited for P(g), which the AIV made after it had read O(g - preload - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import reduce
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from msdsim.dataflows.attention.tiling import FETCH_BYTES
from msdsim.dataflows.attention.work import AttentionShape, RowTile, Step, Work
from msdsim.dataflows.cube.operands import ragged, ragged_of
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir.builder import At, Handle, KernelBuilder, at
from msdsim.ir.expr import Const, Expr, ceil_div, maximum, minimum
from msdsim.ir.kernel import Kernel, Slice, Tensor
from msdsim.ir.ops.vector import FOLD_LANES
from msdsim.units import ceil_div as ceil_int
from msdsim.units import round_up

#: Where the running row maximum starts: below every logit, and finite, so that a difference is never NaN.
LOWEST = float(np.finfo(np.float32).min)
#: Most rows that are merged at a time: of more, the latency of instructions is no longer felt.
MERGE_ROWS = 16


class Stage(NamedTuple):
    """What is done for a step, and how many steps it is behind the first stage.

    With a ``tail`` it is run for that many steps more than there are, and sees for itself which of them exist.
    """

    behind: int
    body: Callable[[Step], None]
    tail: int = 0


#: Something in L1: its rows and columns as a slice.
InL1: TypeAlias = Callable[[At, At], Slice]


class Tiling(Protocol):
    """Tile sizes and ring depths that the pipeline reads; see the dataclasses in ``tiling``."""

    @property
    def rows(self) -> int: ...
    @property
    def kv_tile(self) -> int: ...
    @property
    def kv_splits(self) -> int: ...
    @property
    def preload(self) -> int: ...
    @property
    def l1_kv(self) -> int: ...
    @property
    def qk_n(self) -> int: ...
    @property
    def qk_k(self) -> int: ...
    @property
    def pv_k(self) -> int: ...
    @property
    def vec_m(self) -> int: ...
    @property
    def l1_ring(self) -> int: ...
    @property
    def l0_ring(self) -> int: ...
    @property
    def s_ring(self) -> int: ...
    @property
    def o_ring(self) -> int: ...
    @property
    def ub_ring(self) -> int: ...
    @property
    def l2_ahead(self) -> int: ...
    @property
    def q_ring(self) -> int: ...
    @property
    def direct(self) -> int: ...
    @property
    def pv_n(self) -> int: ...
    @property
    def l1_k(self) -> int: ...
    @property
    def l1_v(self) -> int: ...
    @property
    def out_m(self) -> int: ...
    @property
    def p_ring(self) -> int: ...
    @property
    def interleave(self) -> int: ...


class AttentionKernel:
    """BF16 products; subclasses change what is loaded, how S becomes logits and P becomes the Cube's operand."""

    name = "attention_bf16"
    #: Format of Q, K, P and V on the Cube, of its accumulator, and components stacked along rows.
    fmt, acc_fmt, passes = "bf16", "fp32", 1
    #: Format of the KV cache in GM.
    cache_fmt = "bf16"
    #: Whether V is there before P is.
    early_values = True

    def __init__(self, problem: AttentionShape, chip: Chip, tile: Tiling) -> None:
        self.problem, self.tile = problem, tile
        self.cores, self.aivs = chip.cores.aic, chip.cores.aiv_per_aic
        self.work = Work(problem, self.cores, tile.rows, tile.kv_tile, tile.kv_splits)
        self.dim, self.out_dim, self.shared = problem.head_dim, problem.value_dim, problem.shared_kv
        #: The factor of the logits, as the contract rounds it.
        self.factor = float(np.float32(1 / np.sqrt(problem.softmax_dim)))
        self.ub_room, self.line_bytes = chip.buffers.ub_bytes, chip.l2.line_bytes
        self.cube_rows = self.passes * self.work.base_rows
        self.share = ceil_int(self.work.base_rows, self.aivs)
        self.slots = tile.preload + 1
        # Turns may be skipped by twos (a row tile that is its own mirror image), hence twice as many states.
        self.states = self.slots * (2 if self.work.paired else 1)
        self.kb = KernelBuilder(self.name, self.cores, self.aivs)

    # The whole

    def kernel(self) -> Kernel:
        """Build it."""
        kb, preload = self.kb, self.tile.preload
        self.tensors()
        with kb.part("aic"):
            self.before_aic()
            if self.tile.interleave:
                stages: tuple[Stage, ...] = (Stage(0, self.multiply_both, tail=preload),)
            elif self.wide_output:
                stages = (Stage(0, self.multiply_qk), Stage(preload, self.multiply_pv_tiles))
            else:
                stages = (Stage(0, self.multiply_qk), Stage(preload, self.multiply_pv))
            self.pipeline(stages, self.open_item)
        with kb.part("aiv"):
            self.before_aiv()
            self.open_aiv()
            stages = self.vector_stages()
            if self.tile.l2_ahead:
                stages = (Stage(0, self.fetch), *(stage._replace(behind=stage.behind + self.tile.l2_ahead) for stage in stages))
            self.pipeline(stages)
            if self.work.splits > 1:
                self.merge_parts()
        return kb.build()

    def before_aic(self) -> None:
        """Hook: a phase of the AIC before the pipeline."""

    def before_aiv(self) -> None:
        """Hook: a phase of the AIVs before the pipeline."""

    def vector_stages(self) -> tuple[Stage, ...]:
        """The AIV's stages."""
        return (Stage(0, self.softmax), Stage(self.tile.preload, self.rescale))

    def pipeline(self, stages: Sequence[Stage], open_item: Callable[[Expr], None] | None = None) -> None:
        """Run every stage for every step, each stage as many steps behind as its number says::

            for at in 0 .. ceil((items * steps + last) / steps):
              what lives as long as an item
              for u in 0 .. steps: for stage in stages: stage.body(at * steps + u - stage.behind) where there is such a step
        """
        kb, last, length = self.kb, max(stage.behind + stage.tail for stage in stages), self.work.steps
        items = self.work.items_of(kb.core)
        steps = items * length
        with kb.loop("at", 0, ceil_div(steps + last, length)) as item:
            if open_item is not None:
                open_item(item)
            with kb.loop("u", 0, minimum(length, steps + last - item * length)) as inside:
                g = item * length + inside
                for behind, body, tail in stages:
                    step = self.work.step(kb.core, maximum(0, g - behind) if behind else g)
                    conditions = [step.live] if step.live != Const(1) and not tail else []
                    if behind + tail < last:
                        conditions.insert(0, g < steps + (behind + tail))
                    if behind:
                        conditions.insert(0, g >= behind)
                    with ExitStack() as stack:
                        if conditions:
                            stack.enter_context(kb.when(reduce(minimum, conditions)))
                        body(step)

    # Tensors and signals

    def tensors(self) -> None:
        kb, work, dim = self.kb, self.work, self.dim
        cache = (work.kv_head_count, work.kv)
        self.q = kb.tensor("q", "bf16", (work.kv_head_count, work.rows_per_head, dim), "in")
        self.k = kb.tensor("k", self.cache_fmt, (*cache, dim), "in")
        self.v = self.k if self.shared else kb.tensor("v", self.cache_fmt, (*cache, self.out_dim), "in")
        self.scale_tensors()
        self.logits = self.to_vector("s", self.acc_fmt, work.kv_tile)
        self.partial = self.to_vector("o", self.acc_fmt, self.out_dim)
        self.weights = self.to_cube("p", self.fmt, work.kv_tile)
        if work.splits > 1:
            # The splits of a row side by side: one transfer brings them all.
            self.part_acc = kb.tensor("part_acc", "fp32", (work.total_rows, work.splits * self.out_dim), "workspace")
            self.part_stats = kb.tensor("part_stats", "fp32", (work.total_rows, work.splits * 2), "workspace")
            kb.signal("parts_done", "barrier")
        self.y = kb.tensor("y", "bf16", (work.kv_head_count, work.rows_per_head, self.out_dim), "out")
        kb.signal("logits", "aic_to_aiv")
        kb.signal("weights", "aiv_to_aic")
        kb.signal("partial", "aic_to_aiv")

    def to_vector(self, name: str, fmt: str, cols: int) -> Handle:
        """A ring from Cube to Vector: rows of all components in GM, or each AIV's share of them in its UB."""
        if self.tile.direct:
            shape = (self.cores, self.aivs, self.slots, self.passes * self.share, cols)
            return self.kb.tensor(name, fmt, shape, "workspace", "UB")
        return self.kb.tensor(name, fmt, (self.cores, self.slots, self.cube_rows, self.pitch(fmt, cols)), "workspace")

    def to_cube(self, name: str, fmt: str, cols: int) -> Handle:
        """A ring from Vector to Cube, in GM or L1."""
        shape = (self.cores, self.slots, self.cube_rows, cols if self.tile.direct else self.pitch(fmt, cols))
        return self.kb.tensor(name, fmt, shape, "workspace", "L1" if self.tile.direct else "GM")

    def pitch(self, fmt: str, cols: int) -> int:
        """Columns of a ring in GM: long rows begin with a line of L2, so that no request is cut in two."""
        line = self.line_bytes * 8 // FORMATS[fmt].bits
        return round_up(cols, line) if self.wide_output else cols

    @property
    def vector_waits(self) -> str:
        """The AIV's pipe that touches what the Cube made first."""
        return "V" if self.tile.direct else "MTE2"

    @property
    def cube_waits(self) -> str:
        """The AIC's pipe that touches what Vector made first."""
        return "MTE1" if self.tile.direct else "MTE2"

    def scale_tensors(self) -> None:
        """Scales of the cache; none in bf16."""

    # AIC

    def open_item(self, item: Expr) -> None:
        """Q of all row tiles of an item to L1, where it stays for all their KV tiles."""
        kb = self.kb
        self.q1 = kb.buffer("q1", "L1", self.fmt, (self.work.row_tiles_per_item * self.cube_rows, self.dim), self.tile.q_ring)
        with kb.when(item < self.work.items_of(kb.core)):
            self.each_row_tile(item, self.load_q)

    def each_row_tile(self, item: Expr, body: Callable[[Expr, RowTile], None]) -> None:
        """Run ``body(second, row tile)`` for the row tiles of an item."""
        kb = self.kb
        if not self.work.paired:
            body(Const(0), self.work.row_tile(kb.core, item, Const(0)))
            return
        with kb.loop("second", 0, 2) as second, ExitStack() as stack:
            tile = self.work.row_tile(kb.core, item, second)
            if tile.live != Const(1):
                stack.enter_context(kb.when(tile.live))
            body(second, tile)

    def load_q(self, second: Expr, tile: RowTile) -> None:
        self.kb.copy(self.in_item(self.q1, second, tile.rows), self.q[tile.head, at(tile.row, tile.rows), :])

    def in_item(self, buffer: Handle, second: Expr, rows: Expr) -> Slice:
        """Rows of a row tile, or of the second one of a pair, in a buffer that holds an item's."""
        return buffer[at(second * self.cube_rows, rows), :]

    def before_keys(self) -> None:
        """Hook: what K of a step waits for."""

    def load_k(self, k1: Slice, step: Step, rows: At, cols: At) -> None:
        """Rows of the step's KV tile and columns of K to L1."""
        self.kb.copy(k1, self.k[step.head, at(step.start + rows.start, rows.size), cols])

    def load_v(self, v1: Slice, step: Step, rows: At, cols: At) -> None:
        self.kb.copy(v1, self.v[step.head, at(step.start + rows.start, rows.size), cols])

    @property
    def wide_output(self) -> bool:
        """Whether O takes several accumulators."""
        return self.tile.pv_n < self.out_dim

    def multiply_qk(self, step: Step) -> None:
        """S = Q K^T: K in chunks through L1, columns of S in accumulators of ``qk_n``."""
        kb, tile = self.kb, self.tile
        self.before_keys()
        if self.wide_output:
            with kb.loop("t", 0, ceil_div(step.cols, tile.qk_n)) as t:
                self.logits_tile(step, t)
            kb.raise_signal("logits", "FIX")
            return
        rows = step.rows * self.passes
        with kb.loop("c", 0, ceil_div(step.cols, tile.l1_kv)) as c:
            size = ragged_of(step.cols, tile.l1_kv, c)
            k1 = self.bring_k(step, at(c * tile.l1_kv, size), tile.l1_kv, at(0, self.dim), self.dim)
            with kb.loop("b", 0, ceil_div(size, tile.qk_n)) as b:
                cols = ragged_of(size, tile.qk_n, b)
                accumulator = kb.buffer("s0", "L0C", self.acc_fmt, (self.cube_rows, tile.qk_n), tile.s_ring)
                self.logits_over(accumulator[at(0, rows), at(0, cols)], k1, step, at(b * tile.qk_n, cols), at(0, self.dim),
                                 self.dim, Const(0))
                self.drain(self.logits, step, at(c * tile.l1_kv + b * tile.qk_n, cols), accumulator, rows)
        kb.raise_signal("logits", "FIX")

    def logits_tile(self, step: Step, t: Expr) -> None:
        """``qk_n`` columns of S, K coming in chunks of ``l1_k`` columns."""
        kb, tile, dim = self.kb, self.tile, self.dim
        rows, cols, most = step.rows * self.passes, ragged_of(step.cols, tile.qk_n, t), min(dim, tile.l1_k)
        accumulator = kb.buffer("s0", "L0C", self.acc_fmt, (self.cube_rows, tile.qk_n), tile.s_ring)
        with kb.loop("h", 0, ceil_int(dim, tile.l1_k)) as h:
            depth = at(h * tile.l1_k, ragged(dim, tile.l1_k, h))
            k1 = self.bring_k(step, at(t * tile.qk_n, cols), tile.qk_n, depth, most)
            self.logits_over(accumulator[at(0, rows), at(0, cols)], k1, step, at(0, cols), depth, most, h)
        self.drain(self.logits, step, at(t * tile.qk_n, cols), accumulator, rows)

    def logits_over(self, acc: Slice, k1: InL1, step: Step, columns: At, depth: At, most: int, before: Expr) -> None:
        """``columns`` of a chunk of K that holds the channels ``depth``, at most ``most``; ``before`` is 0 for the first."""
        kb, tile = self.kb, self.tile
        rows, cols = step.rows * self.passes, columns.size
        steps = Const(ceil_int(most, tile.qk_k)) if depth.size == Const(most) else ceil_div(depth.size, tile.qk_k)
        with kb.loop("d", 0, steps) as d:
            size = ragged(most, tile.qk_k, d) if depth.size == Const(most) else ragged_of(depth.size, tile.qk_k, d)
            a0 = kb.buffer("a0", "L0A", self.fmt, (self.cube_rows, tile.qk_k), tile.l0_ring)
            b0 = kb.buffer("b0", "L0B", self.fmt, (tile.qk_k, tile.qk_n), tile.l0_ring)
            inside, whole = at(d * tile.qk_k, size), at(depth.start + d * tile.qk_k, size)
            kb.copy(a0[at(0, rows), at(0, size)], self.q1[at(step.second * self.cube_rows, rows), whole])
            kb.copy(b0[at(0, size), at(0, cols)], k1(columns, inside), transpose=1)
            self.product_qk(acc, a0[at(0, rows), at(0, size)], b0[at(0, size), at(0, cols)], step, columns, inside, whole,
                            before + d)

    def multiply_pv(self, step: Step) -> None:
        """O = P V over the KV rows of the tile, V and P in chunks through L1; V is fetched before P is waited
        for, unless Vector makes it."""
        kb, tile, dim = self.kb, self.tile, self.out_dim
        rows = step.rows * self.passes
        accumulator = kb.buffer("o0", "L0C", self.acc_fmt, (self.cube_rows, dim), tile.o_ring)
        with kb.loop("c", 0, ceil_div(step.cols, tile.l1_kv)) as c:
            size = ragged_of(step.cols, tile.l1_kv, c)
            chunk = at(c * tile.l1_kv, size)
            if self.early_values:
                v1 = self.bring_v(step, chunk, tile.l1_kv, at(0, dim), dim)
            with kb.when(c.equals(0)):
                kb.wait_signal("weights", self.cube_waits)
            if not self.early_values:
                v1 = self.bring_v(step, chunk, tile.l1_kv, at(0, dim), dim)
            p1 = self.bring_p(step, chunk, tile.l1_kv)
            self.values_over(accumulator[at(0, rows), :], p1, v1, step, Const(0), size, at(0, dim), dim, c)
        self.drain(self.partial, step, at(0, dim), accumulator, rows)
        kb.raise_signal("partial", "FIX")

    def multiply_pv_tiles(self, step: Step) -> None:
        """O = P V in column tiles; P of the whole step stays in L1 for all of them."""
        kb = self.kb
        kb.wait_signal("weights", self.cube_waits)
        p1 = self.bring_p(step, at(0, step.cols), self.work.kv_tile)
        with kb.loop("n", 0, ceil_int(self.out_dim, self.tile.pv_n)) as n:
            self.output_tile(step, n, p1)
        kb.raise_signal("partial", "FIX")

    def output_tile(self, step: Step, n: Expr, p1: InL1) -> None:
        """``pv_n`` columns of O over all KV rows of the step, V coming in chunks of ``l1_v`` rows."""
        kb, tile = self.kb, self.tile
        rows, cols = step.rows * self.passes, at(n * tile.pv_n, ragged(self.out_dim, tile.pv_n, n))
        accumulator = kb.buffer("o0", "L0C", self.acc_fmt, (self.cube_rows, tile.pv_n), tile.o_ring)
        with kb.loop("c", 0, ceil_div(step.cols, tile.l1_v)) as c:
            size = ragged_of(step.cols, tile.l1_v, c)
            v1 = self.bring_v(step, at(c * tile.l1_v, size), tile.l1_v, cols, tile.pv_n)
            self.values_over(accumulator[at(0, rows), at(0, cols.size)], p1, v1, step, c * tile.l1_v, size, at(0, cols.size),
                             tile.pv_n, c)
        self.drain(self.partial, step, cols, accumulator, rows)

    def values_over(self, acc: Slice, p1: InL1, v1: InL1, step: Step, start: Expr, size: Expr, cols: At, most: int,
                    before: Expr) -> None:
        """Rows ``size`` of a chunk of V times the columns of P from ``start``; ``before`` is not 0 for later chunks."""
        kb, tile = self.kb, self.tile
        rows = step.rows * self.passes
        with kb.loop("e", 0, ceil_div(size, tile.pv_k)) as e:
            depth = ragged_of(size, tile.pv_k, e)
            c0 = kb.buffer("c0", "L0A", self.fmt, (self.cube_rows, tile.pv_k), tile.l0_ring)
            d0 = kb.buffer("d0", "L0B", self.fmt, (tile.pv_k, most), tile.l0_ring)
            inside, whole = at(e * tile.pv_k, depth), at(start + e * tile.pv_k, depth)
            kb.copy(c0[at(0, rows), at(0, depth)], p1(at(0, rows), whole))
            kb.copy(d0[at(0, depth), cols], v1(inside, cols))
            self.product_pv(acc, c0[at(0, rows), at(0, depth)], d0[at(0, depth), cols], step, whole, inside, cols, before + e)

    def multiply_both(self, step: Step) -> None:
        """Tiles of O of the step ``preload`` before and of S of this one by turns; either may be missing.

        Where L1 holds V of a tile of O and K of a tile of S whole, each is loaded while the other kind of tile is made.
        """
        kb, work, tile = self.kb, self.work, self.tile
        behind, number, steps = tile.preload, step.number, work.items_of(kb.core) * work.steps
        before = work.step(kb.core, maximum(0, number - behind))
        new, old = minimum(number < steps, step.live), minimum(number >= behind, before.live)
        with kb.when(old):
            kb.wait_signal("weights", self.cube_waits)
        with kb.when(new):
            self.before_keys()
        p1 = self.bring_p(before, at(0, before.cols), work.kv_tile, old)
        outputs, most = ceil_int(self.out_dim, tile.pv_n), ceil_int(work.kv_tile, tile.qk_n)
        # Where S has more tiles than O, several follow each tile of O.
        each, tiles = ceil_int(most, outputs), ceil_div(step.cols, tile.qk_n)
        with kb.loop("t", 0, outputs) as t:
            with kb.when(old):
                self.output_tile(before, t, p1)
                with kb.when(t.equals(outputs - 1)):
                    kb.raise_signal("partial", "FIX")
            with kb.when(minimum(new, t * each < tiles)):
                if each == 1:
                    self.logits_tile(step, t)
                else:
                    with kb.loop("b", t * each, minimum((t + 1) * each, tiles)) as b:
                        self.logits_tile(step, b)
        with kb.when(new):
            kb.raise_signal("logits", "FIX")

    def bring_k(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> InL1:
        """A chunk of K in L1: rows of the step's KV tile and some of its columns."""
        k1 = self.open_k(most_rows, most_cols)
        self.load_k(k1[at(0, rows.size), at(0, cols.size)], step, rows, cols)
        return self.in_l1(k1)

    @staticmethod
    def in_l1(buffer: Handle) -> InL1:
        """A whole buffer."""
        return lambda rows, cols: buffer[rows, cols]

    def open_k(self, rows: int, cols: int) -> Handle:
        """The place of a chunk of K in L1."""
        return self.kb.buffer("k1", "L1", self.fmt, (rows, cols), self.tile.l1_ring)

    def open_v(self, rows: int, cols: int) -> Handle:
        """The place of a chunk of V in L1."""
        return self.kb.buffer("v1", "L1", self.fmt, (rows, cols), self.tile.l1_ring)

    def bring_v(self, step: Step, rows: At, most_rows: int, cols: At, most_cols: int) -> InL1:
        """A chunk of V in L1."""
        v1 = self.open_v(most_rows, most_cols)
        self.load_v(v1[at(0, rows.size), at(0, cols.size)], step, rows, cols)
        return self.in_l1(v1)

    def bring_p(self, step: Step, cols: At, most: int, live: Expr | None = None) -> InL1:
        """Columns of P, where ``live`` is not 0."""
        return self.bring_ring("p1", self.weights, step, cols, most, live)

    def bring_ring(self, name: str, ring: Handle, step: Step, cols: At, most: int, live: Expr | None = None) -> InL1:
        """Columns of all rows of a ring of Vector's, at most ``most``: where they lie in L1, or loaded from GM."""
        if self.tile.direct:
            return lambda rows, inside: self.slot(ring, step, rows, at(cols.start + inside.start, inside.size))
        kb, rows = self.kb, step.rows * self.passes
        depth = self.tile.p_ring if self.wide_output else self.tile.l1_ring
        p1 = kb.buffer(name, "L1", ring.of.fmt, (self.cube_rows, most), depth)
        with ExitStack() as stack:
            if live is not None:
                stack.enter_context(kb.when(live))
            kb.copy(p1[at(0, rows), at(0, cols.size)], self.slot(ring, step, at(0, rows), cols))
        return lambda rows, inside: p1[rows, inside]

    def drain(self, ring: Handle, step: Step, cols: At, accumulator: Handle, rows: Expr) -> None:
        """An accumulator to a ring of Vector's: whole to GM, or the rows of each AIV to its UB."""
        kb = self.kb
        if not self.tile.direct:
            kb.op("fixpipe", self.slot(ring, step, at(0, rows), cols), accumulator[at(0, rows), at(0, cols.size)])
            return
        with kb.loop("aiv", 0, self.aivs) as aiv:
            size = minimum(self.share, maximum(0, step.rows - aiv * self.share))
            with kb.when(size > 0):
                for number in range(self.passes):
                    kb.op("fixpipe", ring[kb.core, aiv, step.number % self.slots, at(number * self.share, size), cols],
                          accumulator[at(step.rows * number + aiv * self.share, size), at(0, cols.size)])

    def product_qk(self, acc: Slice, a: Slice, b: Slice, step: Step, columns: At, inside: At, depth: At,
                   accumulate: Expr) -> None:
        """One product of Q and K tiles: rows ``columns`` and channels ``inside`` of the L1 chunk, channels ``depth`` of Q."""
        self.kb.op("mmad", acc, a, b, accumulate=accumulate)

    def product_pv(self, acc: Slice, a: Slice, b: Slice, step: Step, columns: At, inside: At, channels: At,
                   accumulate: Expr) -> None:
        """One product of P and V tiles: columns ``columns`` of P in L1, rows ``inside`` and ``channels`` of the chunk of V."""
        self.kb.op("mmad", acc, a, b, accumulate=accumulate)

    def slot(self, ring: Handle, step: Step, rows: At, cols: At) -> Slice:
        """Rows and columns of the step's slot of this core's ring."""
        return ring[self.kb.core, step.number % self.slots, rows, cols]

    # AIV

    def open_aiv(self) -> None:
        """State that outlives a step: row maxima and sums per row tile, alpha per step, the accumulator of O."""
        kb = self.kb
        self.top = kb.buffer("top", "UB", "fp32", (self.states * self.share, 1))
        self.sum = kb.buffer("sum", "UB", "fp32", (self.states * self.share, 1))
        self.alpha = kb.buffer("alpha", "UB", "fp32", (self.slots * self.share, 1))
        self.acc = kb.buffer("acc", "UB", "fp32", (self.share, self.out_dim))

    def fetch(self, step: Step) -> None:
        """Read this AIV's share of the step's K and V only to bring it into L2, in rows as long as GM has them.

        The AIC turns rows into fractals as it reads them, which leaves few bytes in flight; from L2 that is fast enough.
        """
        kb, dim = self.kb, max(self.dim, self.v.of.shape[-1])
        share = ceil_int(self.work.kv_tile, self.aivs)
        size = share if self.aivs == 1 else minimum(share, maximum(0, step.cols - kb.sub * share))
        chunk = min(share, max(1, FETCH_BYTES * 8 // (dim * FORMATS[self.cache_fmt].bits)))
        with kb.loop("f", 0, ceil_div(size, chunk)) as f:
            warm = kb.buffer("warm", "UB", self.cache_fmt, (chunk, dim))
            rows = ragged_of(size, chunk, f)
            for cache in (self.k,) if self.shared else (self.k, self.v):
                source = cache[step.head, at(step.start + kb.sub * share + f * chunk, rows), :]
                kb.copy(warm[at(0, rows), at(0, cache.of.shape[-1])], source)

    def mine(self, tile: RowTile) -> Expr:
        """Rows of a row tile that this AIV has: an equal share, counted from ``sub * share``."""
        if self.aivs == 1:
            return tile.rows
        return minimum(self.share, maximum(0, tile.rows - self.kb.sub * self.share))

    def state(self, buffer: Handle, tile: RowTile, local: Expr, size: Expr) -> Slice:
        """Rows of a per-row-tile state."""
        return buffer[at(tile.turn % self.states * self.share + local, size), 0]

    def alphas(self, step: Step, local: Expr, size: Expr) -> Slice:
        return self.alpha[at(step.number % self.slots * self.share + local, size), 0]

    def small(self, name: str, size: Expr, cols: int = 1, most: int = 0) -> Slice:
        """A few FP32 values per row of a UB tile of ``most`` rows, by default ``vec_m``."""
        return self.kb.buffer(name, "UB", "fp32", (most or self.tile.vec_m, cols))[at(0, size), at(0, cols)]

    def wide(self, name: str, fmt: str, size: Expr, cols: Expr, ring: int = 1) -> Slice:
        """A UB tile of ``vec_m`` rows of S."""
        return self.kb.buffer(name, "UB", fmt, (self.tile.vec_m, self.tile.kv_tile), ring)[at(0, size), at(0, cols)]

    def softmax(self, step: Step) -> None:
        """One step of the online softmax on this AIV's rows, ``vec_m`` at a time::

            s = logits ; m' = max(m, rowmax s) ; alpha = exp(m - m') ; p = exp(s - m') ; l = l * alpha + rowsum p
        """
        kb, tile = self.kb, self.tile
        mine = self.mine(step.tile)
        self.before_softmax(step)
        kb.wait_signal("logits", self.vector_waits)
        with kb.loop("r", 0, ceil_div(mine, tile.vec_m)) as r:
            size, local = ragged_of(mine, tile.vec_m, r), r * tile.vec_m
            start = kb.sub * self.share + local
            s = self.load_logits(step, local, size)
            if step.diagonal != Const(0):
                with kb.when(step.diagonal):
                    kb.op("mask_causal", s, s, row=step.row + start, column=step.start, period=self.work.q,
                          offset=self.work.kv - self.work.q)
            top, total = (self.state(buffer, step.tile, local, size) for buffer in (self.top, self.sum))
            alpha = self.alphas(step, local, size)
            lanes, row = self.small("lanes", size, FOLD_LANES), self.small("row", size)
            with kb.when(step.first):
                kb.op("dup", top, scalar=LOWEST)
                kb.op("dup", total, scalar=0.0)
            kb.op("fold_max", lanes, s)
            kb.op("reduce_max", row, lanes)
            kb.op("max", row, row, top)
            kb.op("sub", alpha, top, row)
            kb.op("exp", alpha, alpha)
            kb.op("max", top, row, top)
            kb.op("sub", s, s, top)
            kb.op("exp", s, s)
            kb.op("fold_add", lanes, s)
            kb.op("reduce_add", row, lanes)
            kb.op("mul", total, total, alpha)
            kb.op("add", total, total, row)
            self.store_weights(step, s, start, local, size)
        kb.raise_signal("weights", "MTE3")

    def before_softmax(self, step: Step) -> None:
        """Hook: loads that the whole step shares."""

    def arrived(self, name: str, ring: Handle, step: Step, local: Expr, size: Expr, cols: Expr) -> list[Slice]:
        """Rows ``local +: size`` of this AIV's share of every component in a ring: loaded from GM, or where they lie in UB."""
        kb, numbers = self.kb, range(self.passes)
        if self.tile.direct:
            return [ring[kb.core, kb.sub, step.number % self.slots, at(n * self.share + local, size), at(0, cols)]
                    for n in numbers]
        # One buffer for all components, so that one flag covers them.
        most = self.tile.out_m if ring is self.partial else self.tile.vec_m
        width = self.out_dim if ring is self.partial else self.work.kv_tile
        buffer = kb.buffer(name, "UB", self.acc_fmt, (self.passes * most, width), self.tile.ub_ring)
        pieces = [buffer[at(n * most, size), at(0, cols)] for n in numbers]
        for n, piece in enumerate(pieces):
            start = step.rows * n + kb.sub * self.share + local
            kb.copy(piece, self.slot(ring, step, at(start, size), at(0, cols)))
        return pieces

    def load_logits(self, step: Step, local: Expr, size: Expr) -> Slice:
        """Logits [size, cols] in FP32."""
        [raw] = self.arrived("st", self.logits, step, local, size, step.cols)
        s = self.wide("scaled", "fp32", size, step.cols) if self.tile.direct else raw
        self.kb.op("muls", s, raw, scalar=self.factor)
        return s

    def store_weights(self, step: Step, p: Slice, start: Expr, local: Expr, size: Expr) -> None:
        """P as the Cube takes it, to the ring."""
        pb = self.wide("pb", "bf16", size, step.cols, self.tile.ub_ring)
        self.kb.op("cast", pb, p, round="rint")
        self.kb.copy(self.slot(self.weights, step, at(start, size), at(0, step.cols)), pb)

    def rescale(self, step: Step) -> None:
        """``acc = acc * alpha + O``, and after the last tile ``y = acc / l``."""
        kb, tile = self.kb, self.tile
        mine = self.mine(step.tile)
        kb.wait_signal("partial", self.vector_waits)
        with kb.loop("r", 0, ceil_div(mine, tile.out_m)) as r:
            size, local = ragged_of(mine, tile.out_m, r), r * tile.out_m
            start = kb.sub * self.share + local
            o = self.load_partial(step, local, size)
            acc = self.acc[at(local, size), :]
            with kb.when(step.first):
                kb.op("dup", acc, scalar=0.0)
            kb.op("mul", acc, acc, self.alphas(step, local, size))
            kb.op("add", acc, acc, o)
            with kb.when(step.last):
                if self.work.splits == 1:
                    self.finish(step, acc, start, local, size)
                else:
                    self.store_part(step, acc, start, local, size)

    def load_partial(self, step: Step, local: Expr, size: Expr) -> Slice:
        """O of the step in FP32 [size, v_dim]."""
        [o] = self.arrived("ot", self.partial, step, local, size, Const(self.out_dim))
        return o

    def finish(self, step: Step, acc: Slice, start: Expr, local: Expr, size: Expr) -> None:
        """``y = bf16(acc / l)``."""
        kb = self.kb
        kb.op("div", acc, acc, self.state(self.sum, step.tile, local, size))
        self.scale_output(acc, step.head)
        yb = kb.buffer("yb", "UB", "bf16", (self.tile.out_m, self.out_dim), self.tile.ub_ring)[at(0, size), :]
        kb.op("cast", yb, acc, round="rint")
        kb.copy(self.y[step.head, at(step.row + start, size), :], yb)

    def scale_output(self, acc: Slice, head: Expr) -> None:
        """Hook: scales of V that apply once, at the end."""

    # Splits of the KV length

    def store_part(self, step: Step, acc: Slice, start: Expr, local: Expr, size: Expr) -> None:
        """The state of one split to GM: acc, m and l."""
        kb = self.kb
        row = at(step.head * self.work.rows_per_head + step.row + start, size)
        out = kb.buffer("part_out", "UB", "fp32", (self.tile.out_m, self.out_dim), self.tile.ub_ring)[at(0, size), :]
        stats = kb.buffer("stats_out", "UB", "fp32", (self.tile.out_m, 2), self.tile.ub_ring)
        # A maximum with the lowest number is a move.
        kb.op("maxs", stats[at(0, size), 0], self.state(self.top, step.tile, local, size), scalar=LOWEST)
        kb.op("maxs", stats[at(0, size), 1], self.state(self.sum, step.tile, local, size), scalar=LOWEST)
        kb.op("maxs", out, acc, scalar=LOWEST)
        kb.copy(self.part_stats[row, at(step.split * 2, 2)], stats[at(0, size), :])
        kb.copy(self.part_acc[row, at(step.split * self.out_dim, self.out_dim)], out)

    def merge_parts(self) -> None:
        """Splits in ascending order: ``m = max m_s ; w_s = exp(m_s - m) ; l = sum l_s w_s ; y = (sum acc_s w_s) / l``, for
        some rows of a KV head at a time."""
        kb, work, splits, dim = self.kb, self.work, self.work.splits, self.out_dim
        kb.raise_signal("parts_done", "MTE3")
        kb.wait_signal("parts_done", "MTE2")
        self.open_merge()
        unit, units = kb.core * self.aivs + kb.sub, self.cores * self.aivs
        most = self.merge_rows(self.cores * self.aivs)
        tiles = ceil_int(work.rows_per_head, most)
        with kb.loop("m", unit, work.kv_head_count * tiles, units) as m:
            head, row = m // tiles, m % tiles * most
            rows = at(row, ragged(work.rows_per_head, most, m % tiles))
            here, size = at(head * work.rows_per_head + row, rows.size), at(0, rows.size)
            # One buffer for both loads, so that one flag covers them.
            loaded = kb.buffer("loaded", "UB", "fp32", (most, splits * (dim + 2)), self.tile.ub_ring)
            kb.copy(loaded[size, at(splits * dim, splits * 2)], self.part_stats[here, :])
            kb.copy(loaded[size, at(0, splits * dim)], self.part_acc[here, :])
            tops, sums = ([loaded[size, splits * dim + 2 * split + i] for split in range(splits)] for i in range(2))
            parts = [loaded[size, at(split * dim, dim)] for split in range(splits)]
            names = ("mtop", "mw", "ml", "mone")
            top, weight, total, one = (kb.buffer(name, "UB", "fp32", (most, 1))[size, 0] for name in names)
            acc, part = (kb.buffer(name, "UB", "fp32", (most, dim))[size, :] for name in ("macc", "mpart"))
            kb.op("max", top, tops[0], tops[1])
            for other in tops[2:]:
                kb.op("max", top, top, other)
            for split in range(splits):
                kb.op("sub", weight, tops[split], top)
                kb.op("exp", weight, weight)
                kb.op("mul", one if split else total, sums[split], weight)
                kb.op("mul", part if split else acc, parts[split], weight)
                if split:
                    kb.op("add", total, total, one)
                    kb.op("add", acc, acc, part)
            kb.op("div", acc, acc, total)
            self.scale_output(acc, head)
            yb = kb.buffer("merged_y", "UB", "bf16", (most, dim), self.tile.ub_ring)[size, :]
            kb.op("cast", yb, acc, round="rint")
            kb.copy(self.y[head, rows, :], yb)

    def merge_rows(self, units: int) -> int:
        """Rows that an AIV merges at a time: as many as leave no AIV idle and UB room for them."""
        splits, dim, ring = self.work.splits, self.out_dim, self.tile.ub_ring
        taken = sum(tensor.bytes_per_core for tensor in (self.logits.of, self.partial.of)
                    if isinstance(tensor, Tensor) and tensor.space == "UB")
        row = 4 * ring * splits * (dim + 2) + (4 + 4 + 2 * ring) * dim + 4 * 32
        room = (self.ub_room - taken - 8 * dim - 1024) // row
        return max(1, min(MERGE_ROWS, self.work.rows_per_head, self.work.total_rows // units, room))

    def open_merge(self) -> None:
        """Hook: what the merge keeps in UB."""
