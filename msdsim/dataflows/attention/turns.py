"""The skewed loop: in every turn each stage works on a step of its own, later stages on earlier steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce

from msdsim.dataflows.attention.context import Context
from msdsim.dataflows.attention.work import Step
from msdsim.ir.expr import Const, Expr, maximum, minimum, tiles_of


@dataclass(frozen=True)
class Turn:
    """One turn of the loop, in which the last stage is ``last`` steps behind the first."""

    ctx: Context
    number: Expr
    last: int

    @contextmanager
    def step(self, behind: int = 0, tail: int = 0) -> Iterator[Step]:
        """What a stage does that is ``behind`` steps behind the first, in the turns in which it has a step.

        With a ``tail`` it is run for that many turns more, and sees for itself which of the steps exist.
        """
        ctx, g = self.ctx, self.number
        step = ctx.work.step(ctx.kb.core, maximum(0, g - behind) if behind else g)
        conditions: list[Expr] = [g >= behind] if behind else []
        if behind + tail < self.last:
            conditions.append(g < ctx.steps + (behind + tail))
        if step.live != Const(1) and not tail:
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
