r"""Attention as a program: FlashAttention over KV tiles, Cube and Vector working on different steps at the same time.

A *step* is one KV tile of one tile of query rows.  Written out for one step::

    S = Q K^T ;  P, alpha, l = online softmax of S ;  O = P V ;  acc = acc * alpha + O

In turn ``g`` the AIC makes S of step ``g`` and O of a step ``preload`` before it, the AIVs take both up::

    AIC                              ring         AIV
    S(g) = Q K^T              ------- s ------->  P(g), alpha(g), l = softmax of S(g)
    O(g - preload) = P V      <------ p -------
                              ------- o ------->  acc = acc * alpha(g - preload) + O(g - preload)

Every ring has ``n = preload + 1`` slots and one signal, that a slot is full.  None says that a slot is empty, since whoever
fills it for step ``g + n`` knows by then that step ``g`` was read, from what it has waited for itself::

    AIC   S(g) ........ O(g) .. S(g+n) .......... O(g+n)
             \         /    \                    /
              s       p      o                  p
               \     /        \                /
    AIV         P(g) ......... acc(g) .. P(g+n)

    fills               has waited for      and so knows
    AIC  s with S(g+n)  p of P(g)           the AIV made P(g) from S(g): S(g) was read
    AIV  p with P(g+n)  o of O(g)           the AIC made O(g) from P(g): P(g) was read
    AIC  o with O(g+n)  p of P(g+n)         which the AIV made after it had read O(g) into acc

The last holds of an AIV that made a part of P(g + n).  Where a row tile is so short that an AIV has no rows of it, but had some
of the one before, ``partial_read`` says for every step that O was read.

Where O is too wide for one accumulator, it is made in column tiles, each over all KV rows of the step, for which P of the
step stays in L1.  With ``interleave`` tiles of O and S take turns, so that one drains from L0C while the other is computed::

    for t:  O(g - preload, t) = P V[:, t] -> o ;  S(g, t) = Q K[t]^T -> s
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

from msdsim.dataflows.attention.context import Context, Rows
from msdsim.dataflows.attention.conversions import Conversions
from msdsim.dataflows.attention.operands import Cache, Queries, fetch_into_l2
from msdsim.dataflows.attention.output import Output
from msdsim.dataflows.attention.products import Products
from msdsim.dataflows.attention.rings import ToCube, ToVector
from msdsim.dataflows.attention.work import Step
from msdsim.dataflows.vector.softmax import LOWEST, RowState, online_softmax
from msdsim.ir import Const, Expr, Handle, Kernel, at, maximum, minimum, tiles_of
from msdsim.ir.ops.vector import FOLD_LANES


class Prologue(Protocol):
    """A phase of the AIVs before the pipeline, for which the AICs wait."""

    def run(self) -> None:
        """What the AIVs do."""

    def wait(self) -> None:
        """The AIC waits for it."""


@dataclass(frozen=True)
class Ahead:
    """A stage of the AIVs ``preload`` steps ahead of the softmax, run for ``tail`` turns more than there are steps."""

    body: Callable[[Step], None]
    tail: int = 0


def attention(ctx: Context, queries: Queries, cache: Cache, conversions: Conversions, ahead: Ahead | None = None,
              prologue: Prologue | None = None) -> Kernel:
    """The kernel of an attention dataflow: what it multiplies, and what Vector does about the number formats."""
    kb, tile, preload = ctx.kb, ctx.tile, ctx.tile.preload
    s = ToVector(ctx, "s", "logits", ctx.work.kv_tile, tile.vec_m)
    o = ToVector(ctx, "o", "partial", ctx.out_dim, tile.out_m)
    p = ToCube(ctx, "p", "p1", ctx.fmt, ctx.work.kv_tile, conversions.p_scales)
    y = Output(ctx, conversions.scale_output)
    kb.signal(s.full, "aic_to_aiv")
    kb.signal(p.full, "aiv_to_aic")
    kb.signal(o.full, "aic_to_aiv")
    free = OutputFree(ctx) if ctx.work.leaves_out(ctx.share, ctx.aivs) else None

    with kb.part("aic"):
        cube = Products(ctx, cache, s, p, o)
        if prologue is not None:
            prologue.wait()
        with items(ctx, last=preload) as item:
            q = queries.load(item)
            with turns(ctx, item, last=preload) as turn:
                if free is not None:
                    free.wait(turn)
                if tile.interleave:
                    with turn.step(tail=preload) as step:
                        cube.interleaved(step, q)
                else:
                    with turn.step() as step:
                        cube.logits(step, q)
                    with turn.step(behind=preload) as step:
                        cube.output(step)

    with kb.part("aiv"):
        if prologue is not None:
            prologue.run()
        vector = _Vector(ctx, conversions, s, p, o, y)
        at_ahead = tile.l2_ahead
        at_softmax = at_ahead + (preload if ahead is not None else 0)
        last = at_softmax + preload
        with items(ctx, last) as item, turns(ctx, item, last) as turn:
            if tile.l2_ahead:
                with turn.step() as step:
                    fetch_into_l2(ctx, cache, step)
            if ahead is not None:
                with turn.step(behind=at_ahead, tail=ahead.tail) as step:
                    ahead.body(step)
            with turn.step(behind=at_softmax) as step:
                vector.softmax(step)
            with turn.step(behind=last) as step:
                vector.rescale(step)
            if free is not None:
                free.say(turn)
        if ctx.work.splits > 1:
            y.merge_splits(taken=s.ub_bytes + o.ub_bytes)
    return kb.build()


class OutputFree:
    """The signal that an AIV has read O of a step, also of one that pads an item, so that slots and signals keep step."""

    def __init__(self, ctx: Context) -> None:
        self.ctx, self.name = ctx, "partial_read"
        ctx.kb.signal(self.name, "aiv_to_aic")

    def wait(self, turn: Turn) -> None:
        """Before the AIC fills a slot again."""
        with turn.step(behind=turn.last, padded=True) as step, self.ctx.kb.when(step.number >= self.ctx.slots):
            self.ctx.kb.wait_signal(self.name, "FIX")

    def say(self, turn: Turn) -> None:
        """Behind the reads of an AIV, if the slot is filled again."""
        with turn.step(behind=turn.last, padded=True) as step, self.ctx.kb.when(step.number + self.ctx.slots < self.ctx.steps):
            self.ctx.kb.raise_signal(self.name, "V" if self.ctx.tile.direct else "MTE2")


# Vector's stages


class _Vector:
    """The AIV's stages: ``s`` in and ``p`` out, then ``o`` in and ``y`` out; row maxima and sums are kept for every row tile,
    alpha for every step, and the accumulator of O for the current row tile."""

    def __init__(self, ctx: Context, conversions: Conversions, s: ToVector, p: ToCube, o: ToVector, y: Output) -> None:
        self.ctx, self.kb, self.conversions = ctx, ctx.kb, conversions
        self.s, self.p, self.o, self.y = s, p, o, y
        self.top, self.sum = (self._kept(name, ctx.states * ctx.share) for name in ("top", "sum"))
        self.alpha = self._kept("alpha", ctx.slots * ctx.share)
        self.acc = self._kept("acc", ctx.share, ctx.out_dim)
        conversions.open()

    def _kept(self, name: str, rows: int, cols: int = 1) -> Handle:
        return self.kb.buffer(name, "UB", "fp32", (rows, cols))

    def softmax(self, step: Step) -> None:
        """One step of the online softmax on this AIV's rows, ``vec_m`` at a time."""
        ctx, kb = self.ctx, self.kb
        scales = self.conversions.scales(step)
        self.s.wait()
        with ctx.my_rows("r", step.tile, ctx.tile.vec_m) as rows:
            logits = self.conversions.logits(self.s, step, rows, scales)
            if step.diagonal != Const(0):
                with kb.when(step.diagonal):
                    kb.op("mask_causal", logits.values, logits.values, row=step.row + rows.start, column=step.start,
                          period=ctx.work.q, offset=ctx.work.kv - ctx.work.q)
            state, alpha = self._state(step, rows), ctx.per_step(self.alpha, step, rows)
            lanes, row = ctx.scalars("lanes", rows, FOLD_LANES), ctx.scalars("row", rows)
            with kb.when(step.first):
                kb.op("dup", state.top, scalar=LOWEST)
                kb.op("dup", state.sum, scalar=0.0)
            with kb.vf(ctx.chip.vector.vf):
                online_softmax(kb, logits.values, state, alpha, lanes, row)
                weights = self.conversions.weights(step, rows, logits, scales) if self.conversions.fused else None
            self.p.put(step, rows, step.cols, weights or self.conversions.weights(step, rows, logits, scales))
        self.p.filled()

    def rescale(self, step: Step) -> None:
        """``acc = acc * alpha + O``, and after the last KV tile ``y = acc / l``."""
        ctx, kb = self.ctx, self.kb
        self.o.wait()
        with ctx.my_rows("r", step.tile, ctx.tile.out_m) as rows:
            o = self.conversions.output(self.o, step, rows)
            acc = self.acc[at(rows.local, rows.size), :]
            with kb.when(step.first):
                kb.op("dup", acc, scalar=0.0)
            kb.op("mul", acc, acc, ctx.per_step(self.alpha, step, rows))
            kb.op("add", acc, acc, o)
            with kb.when(step.last):
                self.y.finish(step, rows, acc, self._state(step, rows))

    def _state(self, step: Step, rows: Rows) -> RowState:
        return RowState(*(self.ctx.per_row_tile(buffer, step.tile, rows) for buffer in (self.top, self.sum)))


# The skewed loop: in every turn each stage works on a step of its own, later stages on earlier steps


@dataclass(frozen=True)
class Turn:
    """One turn of the loop, in which the last stage is ``last`` steps behind the first."""

    ctx: Context
    number: Expr
    last: int

    @contextmanager
    def step(self, behind: int = 0, tail: int = 0, padded: bool = False) -> Iterator[Step]:
        """What a stage does that is ``behind`` steps behind the first, in the turns in which it has a step.

        With a ``tail`` it is run for that many turns more, and sees for itself which of the steps exist; ``padded``: also for
        steps that pad an item.
        """
        ctx, g = self.ctx, self.number
        step = ctx.work.step(ctx.kb.core, maximum(0, g - behind) if behind else g)
        conditions: list[Expr] = [g >= behind] if behind else []
        if behind + tail < self.last:
            conditions.append(g < ctx.steps + (behind + tail))
        if step.live != Const(1) and not tail and not padded:
            conditions.append(step.live)
        with ctx.kb.when(reduce(minimum, conditions)) if conditions else nullcontext():
            yield step


@contextmanager
def items(ctx: Context, last: int) -> Iterator[Expr]:
    """The items of a core, and what comes after them until the last stage is done: what is opened inside lives as long as an
    item."""
    with ctx.kb.loop("at", 0, tiles_of(ctx.steps + last, ctx.work.steps)) as item:
        yield item


@contextmanager
def turns(ctx: Context, item: Expr, last: int) -> Iterator[Turn]:
    """The turns of an item; a core's turns are numbered through from item to item, so that nothing drains between them."""
    length = ctx.work.steps
    with ctx.kb.loop("u", 0, minimum(length, ctx.steps + last - item * length)) as inside:
        yield Turn(ctx, item * length + inside, last)
