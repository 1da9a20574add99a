"""What Vector makes of the Cube's sums and of the weights: the part in which the number formats differ."""

from __future__ import annotations

from typing import Any, NamedTuple

from msdsim.dataflows.attention.context import Components, Context, Rows
from msdsim.dataflows.attention.output import ScaleOutput
from msdsim.dataflows.attention.rings import ToCube, ToVector
from msdsim.dataflows.attention.work import Step
from msdsim.ir import Const, Slice


class Logits(NamedTuple):
    """FP32 [rows, cols] of S, and a scratch tile of the same shape if there is one."""

    values: Slice
    scratch: Slice | None = None


class Conversions:
    """From the sums of the Cube to FP32, and from FP32 weights to its operand: here of BF16 operands and FP32 sums: logits are
    scaled, weights rounded."""

    #: The ring of the block scales of P, if it has any.
    p_scales: ToCube | None = None
    #: Scales of V that apply once, at the end.
    scale_output: ScaleOutput | None = None
    #: Whether :meth:`weights` are operations alone, which a vector function can hold.
    fused = True

    def __init__(self, ctx: Context) -> None:
        self.ctx, self.kb = ctx, ctx.kb

    def open(self) -> None:
        """State that outlives a step, in UB."""

    def scales(self, step: Step) -> Any:
        """Scales that all rows of a step share, loaded; what the other methods need of them."""

    def logits(self, s: ToVector, step: Step, rows: Rows, scales: Any) -> Logits:
        """S of a step as logits."""
        [raw] = s.get("st", step, rows, step.cols)
        scaled = self.ctx.of_logits("scaled", "fp32", rows, step.cols) if self.ctx.tile.direct else raw
        self.kb.op("muls", scaled, raw, scalar=self.ctx.factor)
        return Logits(scaled)

    def weights(self, step: Step, rows: Rows, p: Logits, scales: Any) -> Components:
        """P as the Cube takes it."""
        pb = self.ctx.of_logits("pb", "bf16", rows, step.cols, self.ctx.tile.ub_ring)
        self.kb.op("cast", pb, p.values, round="rint")
        return Components([pb])

    def output(self, o: ToVector, step: Step, rows: Rows) -> Slice:
        """O of a step in FP32 [rows, v_dim]."""
        [total] = o.get("ot", step, rows, Const(self.ctx.out_dim))
        return total
