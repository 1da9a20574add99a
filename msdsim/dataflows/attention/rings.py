"""The rings between Cube and Vector: S and O on their way to Vector, P on its way back.

A ring has a slot for each of ``preload + 1`` steps: in GM, or, with ``direct``, in UB (S, O) and in L1 (P) on chips whose
fixpipe reaches UB and whose UB reaches L1.  It has the one signal that a slot is full; why none says that a slot is empty
stands in :mod:`msdsim.dataflows.attention.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from msdsim.dataflows.attention.context import Chunk, Components, Context, Rows, blocks_of
from msdsim.dataflows.attention.work import Step
from msdsim.formats.mx import MX_BLOCK
from msdsim.ir import At, Expr, Handle, Slice, at, share_of, tiles_of
from msdsim.ir.kernel import Tensor


class ToVector:
    """Sums of all components, [rows, cols] of a step: Vector takes ``most`` rows at a time."""

    def __init__(self, ctx: Context, name: str, full: str, cols: int, most: int) -> None:
        self.ctx, self.full, self.cols, self.most = ctx, full, cols, most
        fmt = ctx.operands.sums
        if ctx.tile.direct:
            # Each AIV's share of the rows, in its UB.
            shape = (ctx.cores, ctx.aivs, ctx.slots, ctx.passes * ctx.share, cols)
            self.tensor = ctx.kb.tensor(name, fmt, shape, "workspace", "UB")
        else:
            self.tensor = ctx.kb.tensor(name, fmt, (ctx.cores, ctx.slots, ctx.cube_rows, ctx.pitch(fmt, cols)), "workspace")

    def put(self, step: Step, cols: At, accumulator: Handle) -> None:
        """Columns of the step from an accumulator: whole to GM, or the rows of each AIV to its UB."""
        ctx, kb, rows = self.ctx, self.ctx.kb, step.rows * self.ctx.passes
        if not ctx.tile.direct:
            kb.op("fixpipe", _slot(ctx, self.tensor, step, at(0, rows), cols), accumulator[:rows, : cols.size])
            return
        with kb.loop("aiv", 0, ctx.aivs) as aiv:
            size = share_of(step.rows, ctx.share, aiv)
            with kb.when(size > 0):
                for number in range(ctx.passes):
                    target = self.tensor[kb.core, aiv, step.number % ctx.slots, at(number * ctx.share, size), cols]
                    kb.op("fixpipe", target,
                          accumulator[at(step.rows * number + aiv * ctx.share, size), : cols.size])

    def filled(self) -> None:
        """The Cube has put all of a step."""
        self.ctx.kb.raise_signal(self.full, "FIX")

    def wait(self) -> None:
        """Vector waits for the next step."""
        self.ctx.kb.wait_signal(self.full, "V" if self.ctx.tile.direct else "MTE2")

    def get(self, name: str, step: Step, rows: Rows, cols: Expr) -> list[Slice]:
        """Rows of every component: loaded from GM into buffer ``name``, or where they lie in UB."""
        ctx, kb, numbers = self.ctx, self.ctx.kb, range(self.ctx.passes)
        if ctx.tile.direct:
            mine = kb.core, kb.sub, step.number % ctx.slots
            return [self.tensor[*mine, at(n * ctx.share + rows.local, rows.size), :cols] for n in numbers]
        # One buffer for all components, so that one flag covers them.
        shape = (ctx.passes * self.most, self.cols)
        buffer = kb.buffer(name, "UB", ctx.operands.sums, shape, ctx.tile.ub_ring)
        pieces = [buffer[at(n * self.most, rows.size), :cols] for n in numbers]
        for n, piece in enumerate(pieces):
            start = step.rows * n + kb.sub * ctx.share + rows.local
            kb.copy(piece, _slot(ctx, self.tensor, step, at(start, rows.size), at(0, cols)))
        return pieces

    @property
    def ub_bytes(self) -> int:
        """What the ring takes of an AIV's UB."""
        tensor = self.tensor.of
        return tensor.bytes_per_core if isinstance(tensor, Tensor) and tensor.space == "UB" else 0


class ToCube:
    """Components of an operand, stacked along rows, that come to L1 as ``l1_name``; ``scales`` is the ring of their block
    scales if they are MX."""

    def __init__(self, ctx: Context, name: str, l1_name: str, fmt: str, cols: int, scales: ToCube | None = None) -> None:
        self.ctx, self.l1_name, self.scales, self.full = ctx, l1_name, scales, "weights"
        direct = ctx.tile.direct
        shape = (ctx.cores, ctx.slots, ctx.cube_rows, cols if direct else ctx.pitch(fmt, cols))
        self.tensor = ctx.kb.tensor(name, fmt, shape, "workspace", "L1" if direct else "GM")

    def put(self, step: Step, rows: Rows, cols: Expr, components: Components) -> None:
        """Rows of every component, ``cols`` columns from the first."""
        for n, component in enumerate(components.elements):
            here = at(step.rows * n + rows.start, rows.size)
            self.ctx.kb.copy(_slot(self.ctx, self.tensor, step, here, at(0, cols)), component)
        if self.scales is not None:
            self.scales.put(step, rows, tiles_of(cols, MX_BLOCK), Components(components.scales))

    def filled(self) -> None:
        """Vector has put all of a step."""
        self.ctx.kb.raise_signal(self.full, "MTE3")

    def wait(self) -> None:
        """The Cube waits for the next step."""
        self.ctx.kb.wait_signal(self.full, self.ctx.cube_waits)

    def bring(self, step: Step, cols: At, most: int, live: Expr | None = None) -> Chunk:
        """Columns of all rows, at most ``most``: where they lie in L1, or loaded from GM where ``live`` is not 0."""
        elements = self._bring(step, cols, most, live)
        if self.scales is None:
            return Chunk(elements)
        scales = self.scales._bring(step, blocks_of(cols), most // MX_BLOCK, live)
        return Chunk(elements, lambda rows, inside: scales(rows, blocks_of(inside)))

    def _bring(self, step: Step, cols: At, most: int, live: Expr | None) -> Callable[[At, At], Slice]:
        ctx, kb = self.ctx, self.ctx.kb
        if ctx.tile.direct:
            return lambda rows, inside: _slot(ctx, self.tensor, step, rows, at(cols.start + inside.start, inside.size))
        rows = at(0, step.rows * ctx.passes)
        depth = ctx.tile.p_ring if ctx.wide_output else ctx.tile.l1_ring
        buffer = kb.buffer(self.l1_name, "L1", self.tensor.of.fmt, (ctx.cube_rows, most), depth)
        with nullcontext() if live is None else kb.when(live):
            kb.copy(buffer[rows, : cols.size], _slot(ctx, self.tensor, step, rows, cols))
        return lambda rows, inside: buffer[rows, inside]


def _slot(ctx: Context, ring: Handle, step: Step, rows: At, cols: At) -> Slice:
    """Rows and columns of the step's slot of this core's ring."""
    return ring[ctx.kb.core, step.number % ctx.slots, rows, cols]
