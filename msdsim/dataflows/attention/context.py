"""What every stage of an attention kernel sees: the kernel under construction, how its work is dealt out, and its tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msdsim.dataflows.attention.tiling import AttentionTiling, check
from msdsim.dataflows.attention.work import AttentionShape, Division, RowTile, Step
from msdsim.formats.mx import MX_BLOCK, MX_MODES
from msdsim.formats.number import FORMATS
from msdsim.hardware.chip import Chip
from msdsim.ir import At, Const, Expr, Handle, KernelBuilder, Slice, at, share_of, tiles_of
from msdsim.units import ceil_div, round_up


@dataclass(frozen=True)
class Operands:
    """Q, K, P and V as the Cube takes them: their format, that of its sums, and the components of Q and P that are stacked
    along rows."""

    fmt: str
    sums: str
    passes: int = 1


@dataclass(frozen=True)
class Rows:
    """Some rows of this AIV's share of a row tile: ``local +: size`` of the share, the first being ``start`` of the tile."""

    local: Expr
    size: Expr
    start: Expr


@dataclass(frozen=True)
class Chunk:
    """A rectangle of an operand in L1; ``scales`` has the block scales of MX elements for the same ranges."""

    elements: Callable[[At, At], Slice]
    scales: Callable[[At, At], Slice] | None = None


class Components(NamedTuple):
    """An operand split into components, and their block scales if they are MX, in UB."""

    elements: Sequence[Slice]
    scales: Sequence[Slice] = ()


def blocks_of(elements: At) -> At:
    """The MX blocks of a range that starts with a whole block."""
    return at(elements.start // MX_BLOCK, tiles_of(elements.size, MX_BLOCK))


class Context:
    """One attention kernel.  Every AIV has a ``share`` of the rows of a row tile; rings have ``slots`` steps, and what outlives
    a step has ``states`` row tiles."""

    def __init__(self, name: str, problem: AttentionShape, chip: Chip, tile: AttentionTiling, operands: Operands) -> None:
        check(problem, chip, tile, MX_MODES.get(operands.fmt, operands.fmt), operands.passes)
        self.problem, self.chip, self.tile, self.operands = problem, chip, tile, operands
        self.cores, self.aivs = chip.cores.aic, chip.cores.aiv_per_aic
        self.work = Division(problem, self.cores, tile.rows, tile.kv_tile, tile.kv_splits)
        self.dim, self.out_dim, self.shared = problem.head_dim, problem.value_dim, problem.shared_kv
        #: The factor of the logits, as the contract rounds it.
        self.factor = float(np.float32(1 / np.sqrt(problem.softmax_dim)))
        self.ub_bytes, self.line_bytes = chip.buffers.ub_bytes, chip.l2.line_bytes
        self.fmt, self.passes = operands.fmt, operands.passes
        self.cube_rows = self.passes * self.work.base_rows
        self.share = ceil_div(self.work.base_rows, self.aivs)
        self.slots = tile.preload + 1
        # Turns may be skipped by twos (a row tile that is its own mirror image), hence twice as many states.
        self.states = self.slots * (2 if self.work.paired else 1)
        self.kb = KernelBuilder(name, self.cores, self.aivs)

    @property
    def wide_output(self) -> bool:
        """Whether O takes several accumulators."""
        return self.tile.pv_n < self.out_dim

    @property
    def steps(self) -> Expr:
        """Steps of this core."""
        return self.work.items_of(self.kb.core) * self.work.steps

    @property
    def unit(self) -> tuple[Expr, int]:
        """This AIV's number, and how many there are."""
        return self.kb.aiv, self.cores * self.aivs

    @property
    def cube_waits(self) -> str:
        """The AIC's pipe that touches what Vector made first."""
        return "MTE1" if self.tile.direct else "MTE2"

    def pitch(self, fmt: str, cols: int) -> int:
        """Columns of a ring in GM: long rows begin with a line of L2, so that no request is cut in two."""
        line = self.line_bytes * 8 // FORMATS[fmt].bits
        return round_up(cols, line) if self.wide_output else cols

    def kv_head(self, head: Expr) -> Expr:
        """Index of the head's scales: they are the same for every batch."""
        return head % self.problem.kv_heads

    @contextmanager
    def row_tiles(self, item: Expr) -> Iterator[tuple[Expr, RowTile]]:
        """The row tiles of an item: 0 or 1 for the second of a pair, and the row tile."""
        kb = self.kb
        if not self.work.paired:
            yield Const(0), self.work.row_tile(kb.core, item, Const(0))
            return
        with kb.loop("second", 0, 2) as second, ExitStack() as stack:
            tile = self.work.row_tile(kb.core, item, second)
            if tile.live != Const(1):
                stack.enter_context(kb.when(tile.live))
            yield second, tile

    def of_item(self, buffer: Handle, second: Expr, rows: Expr, cols: At) -> Slice:
        """Rows of a row tile, or of the second one of a pair, in a buffer that holds an item's."""
        return buffer[at(second * self.cube_rows, rows), cols]

    # AIV

    def my_part(self, total: Expr, share: int) -> Expr:
        """Of ``total``, what this AIV has if each takes ``share`` in turn."""
        return total if self.aivs == 1 else share_of(total, share, self.kb.sub)

    @contextmanager
    def my_rows(self, var: str, tile: RowTile, most: int) -> Iterator[Rows]:
        """This AIV's share of a row tile, ``most`` rows at a time."""
        mine = self.my_part(tile.rows, self.share)
        with self.kb.tiles(var, mine, most) as r:
            yield Rows(r.start, r.size, self.kb.sub * self.share + r.start)

    def per_row_tile(self, buffer: Handle, tile: RowTile, rows: Rows) -> Slice:
        """Rows of what is kept for every row tile."""
        return buffer[at(tile.turn % self.states * self.share + rows.local, rows.size), 0]

    def per_step(self, buffer: Handle, step: Step, rows: Rows) -> Slice:
        """Rows of what is kept for every step."""
        return buffer[at(step.number % self.slots * self.share + rows.local, rows.size), 0]

    def scalars(self, name: str, rows: Rows, cols: int = 1, most: int = 0) -> Slice:
        """A few FP32 values per row of a UB tile of ``most`` rows, by default ``vec_m``."""
        return self.kb.buffer(name, "UB", "fp32", (most or self.tile.vec_m, cols))[:rows.size, :cols]

    def of_logits(self, name: str, fmt: str, rows: Rows, cols: Expr, ring: int = 1) -> Slice:
        """A UB tile of the shape of S, ``vec_m`` rows at a time."""
        return self.kb.buffer(name, "UB", fmt, (self.tile.vec_m, self.tile.kv_tile), ring)[:rows.size, :cols]

    def of_output(self, name: str, fmt: str, rows: Rows) -> Slice:
        """A UB tile of the shape of O, ``out_m`` rows at a time."""
        return self.kb.buffer(name, "UB", fmt, (self.tile.out_m, self.out_dim))[:rows.size, :]

    def of_query(self, name: str, fmt: str, rows: Rows) -> Slice:
        """A UB tile of the shape of Q, ``out_m`` rows at a time."""
        return self.kb.buffer(name, "UB", fmt, (self.tile.out_m, self.dim))[:rows.size, :self.dim]
