"""What Vector makes of the Cube's sums and of the weights: the part in which the number formats differ."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from msdsim.dataflows.attention.context import Components, Context, Rows
from msdsim.dataflows.attention.output import ScaleOutput
from msdsim.dataflows.attention.rings import ToCube, ToVector
from msdsim.dataflows.attention.work import Step
from msdsim.ir import Const, Slice


class Logits(NamedTuple):
    """FP32 [rows, cols] of S, and a scratch tile of the same shape if there is one."""

    values: Slice
    scratch: Slice | None = None


class Conversions(Protocol):
    """From the sums of the Cube to FP32, and from FP32 weights to its operand."""

    #: The ring of the block scales of P, if it has any.
    p_scales: ToCube | None
    #: Scales of V that apply once, at the end.
    scale_output: ScaleOutput | None

    def open(self) -> None:
        """State that outlives a step, in UB."""

    def scales(self, step: Step) -> Any:
        """Scales that all rows of a step share, loaded; what the other methods need of them."""

    def logits(self, s: ToVector, step: Step, rows: Rows, scales: Any) -> Logits:
        """S of a step as logits."""

    def weights(self, step: Step, rows: Rows, p: Logits, scales: Any) -> Components:
        """P as the Cube takes it."""

    def output(self, o: ToVector, step: Step, rows: Rows) -> Slice:
        """O of a step in FP32 [rows, v_dim]."""


class PlainConversions:
    """BF16 operands and FP32 sums: the logits are scaled, the weights rounded."""

    p_scales: ToCube | None = None
    scale_output: ScaleOutput | None = None

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def open(self) -> None:
        """Nothing outlives a step."""

    def scales(self, step: Step) -> None:
        """There are none."""

    def logits(self, s: ToVector, step: Step, rows: Rows, scales: None) -> Logits:
        [raw] = s.get("st", step, rows, step.cols)
        scaled = self.ctx.of_logits("scaled", "fp32", rows, step.cols) if self.ctx.tile.direct else raw
        self.ctx.kb.op("muls", scaled, raw, scalar=self.ctx.factor)
        return Logits(scaled)

    def weights(self, step: Step, rows: Rows, p: Logits, scales: None) -> Components:
        pb = self.ctx.of_logits("pb", "bf16", rows, step.cols, self.ctx.tile.ub_ring)
        self.ctx.kb.op("cast", pb, p.values, round="rint")
        return Components([pb])

    def output(self, o: ToVector, step: Step, rows: Rows) -> Slice:
        [total] = o.get("ot", step, rows, Const(self.ctx.out_dim))
        return total
