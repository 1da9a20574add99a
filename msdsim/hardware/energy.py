"""What a chip's work costs in energy: the optional section ``energy`` of a chip file.

Hardly any of it is published for any accelerator, so every figure is a range: ``low`` and ``high`` beside the middle ``value``.
What an energy is charged for is in :mod:`msdsim.analysis.energy`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from msdsim.hardware.quantities import Number, Positive, Table

#: The corners of a range, in order.
CORNERS = ("low", "middle", "high")

NotNegative = Annotated[Number, Field(ge=0)]


class Estimate(Table):
    """A figure with its uncertainty; a plain number is sure of itself."""

    low: NotNegative
    middle: NotNegative
    high: NotNegative

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return dict.fromkeys(CORNERS, value)
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Estimate:
        if not self.low <= self.middle <= self.high:
            raise PydanticCustomError("range_order", "must have low <= value <= high")
        return self

    def at(self, corner: str) -> float:
        """The figure at a corner of the range (one of :data:`CORNERS`)."""
        return float(getattr(self, corner))


class VectorEnergy(Table):
    """Picojoules per result of a Vector instruction, without UB: ``simple`` for additions, comparisons, selections,
    conversions, copies and reductions (per element that they take in), ``multiply`` for products, ``special`` for ``exp`` and
    ``div``."""

    simple: Estimate
    multiply: Estimate
    special: Estimate

    def of(self, op: str) -> Estimate:
        """The figure of a Vector operation (a key of ``vector.ops``)."""
        return self.multiply if op in ("mul", "muls") else self.special if op in ("exp", "div") else self.simple


class ByteEnergy(Table):
    """Picojoules per byte read from or written to a memory.  ``l2`` has the way between core and L2 in it, ``hbm`` the
    interface; a byte that misses L2 pays for both."""

    l1: Estimate
    l0a: Estimate
    l0b: Estimate
    l0c: Estimate
    ub: Estimate
    l2: Estimate
    hbm: Estimate

    def of(self, space: str) -> Estimate:
        """The figure of an on-chip space; BT and the memories of block scales count as the operand buffer beside them."""
        beside = {"BT": "l0a", "L0A_MX": "l0a", "L0B_MX": "l0b"}
        found: Estimate = getattr(self, beside.get(space, space.lower()))
        return found


class EnergyFigures(Table):
    """Energy of a chip's work.

    ``mac_pj`` is by name of the Cube's rates, for one multiplication and addition with its reads of L0A and L0B and its update
    of L0C; a run at a rate that is not in it has no energy.  The Vector figures are by width of the widest operand: up to 16
    bits, and above.  ``static_w`` is what the chip draws with its memory while it does nothing, ``limit_w`` what it may draw
    for long.
    """

    mac_pj: dict[str, Estimate]
    vector_16bit_pj: VectorEnergy
    vector_32bit_pj: VectorEnergy
    byte_pj: ByteEnergy
    instruction_pj: Estimate
    static_w: Estimate
    limit_w: Positive | None = None

    def vector_pj(self, op: str, bits: int) -> Estimate:
        """Picojoules per result of a Vector operation whose widest operand has ``bits`` bits."""
        return (self.vector_16bit_pj if bits <= 16 else self.vector_32bit_pj).of(op)
