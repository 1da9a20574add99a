"""The parameters of a dequantizing dataflow."""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.dataflows.cube.operands import GemmShape
from msdsim.formats.mx import MX_BLOCK

#: A group whose largest divisor below a tile's size is a smaller share of it than this is not cut into such parts.
SMALLEST_PART = 0.25


@dataclass(frozen=True)
class Weights:
    """Weights of a dequantizing dataflow: ``int8`` and ``int4`` with FP32 scales per channel or group, ``fp4_e2m1`` with E8M0
    scales of blocks of 32."""

    fmt: str
    description: str = ""

    @property
    def dataflow(self) -> str:
        """Name of the dataflow."""
        return f"dequant-{'mxfp4' if self.mx else self.fmt}"

    @property
    def mx(self) -> bool:
        return self.fmt == "fp4_e2m1"

    def group(self, problem: GemmShape) -> int | None:
        """K per scale, None for one scale per channel."""
        return MX_BLOCK if self.mx else problem.group


@dataclass(frozen=True)
class DequantTiling:
    """Cube tiles as in ``bf16``; ``slot_k`` of K and ``slots`` of the ring; ``vector_k`` rows of the stored weights in a UB
    tile.

    ``direct`` 1 puts the ring into L1: AIVs write there straight from UB, every tile of rows dequantizes its weights anew, and
    output tiles are taken in bands of ``band`` tiles of rows.  0 puts it into GM, where tiles of rows share the weights.

    ``k_parts`` core groups share the K of a tile (:mod:`~msdsim.dataflows.split_k`).
    """

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    slot_k: int
    slots: int
    vector_k: int
    l1_ring: int = 2
    l0_ring: int = 2
    l0c_ring: int = 2
    ub_ring: int = 2
    direct: int = 0
    band: int = 1
    k_parts: int = 1
