"""The chip model: one frozen tree of validated numbers, each with the place it was published.

Units are in the names.  ``cycles`` are cycles of the core clock, ``bytes_per_cycle`` is per core, GB/s is 10**9 bytes per
second and chip-wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from msdsim.naming import PIPES

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]
Cycles = Annotated[int, Field(ge=0, le=10**9)]

#: On-chip memory spaces and global memory.
SPACES = ("GM", "L1", "L0A", "L0B", "L0C", "UB", "BT")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cores(_Table):
    """Core groups of the chip: each is one AIC (Cube) with its AIVs (Vector)."""

    aic: PositiveInt
    aiv_per_aic: PositiveInt


class Buffers(_Table):
    """Capacity of each on-chip buffer of a core, in bytes."""

    l1_bytes: PositiveInt
    l0a_bytes: PositiveInt
    l0b_bytes: PositiveInt
    l0c_bytes: PositiveInt
    ub_bytes: PositiveInt
    bt_bytes: PositiveInt

    def capacity(self, space: str) -> int:
        """Bytes of ``space`` (one of L1, L0A, L0B, L0C, UB, BT) on one core."""
        return int(getattr(self, f"{space.lower()}_bytes"))


class Alignment(_Table):
    """Smallest addressable unit of each space, in bytes: a buffer slot is rounded up to it."""

    l1_bytes: PositiveInt
    l0a_bytes: PositiveInt
    l0b_bytes: PositiveInt
    l0c_bytes: PositiveInt
    ub_bytes: PositiveInt
    bt_bytes: PositiveInt

    def of(self, space: str) -> int:
        """Bytes of the unit of ``space``."""
        return int(getattr(self, f"{space.lower()}_bytes"))


class Dispatch(_Table):
    """The scalar unit: program-order dispatch into bounded pipe queues."""

    issue_cycles: Cycles
    flag_cycles: Cycles
    event_ids_per_pipe_pair: PositiveInt
    queue_depth: dict[Literal["MTE1", "MTE2", "MTE3", "M", "V", "FIX"], PositiveInt]

    @model_validator(mode="after")
    def _all_pipes(self) -> Dispatch:
        wanted = {pipe for pipes in PIPES.values() for pipe in pipes if pipe != "S"}
        missing = sorted(wanted - set(self.queue_depth))
        if missing:
            raise ValueError(f"queue_depth lacks the pipes {', '.join(missing)}")
        return self


class CrossCore(_Table):
    """Signals between the AIC and the AIVs of a group, and barriers over all cores."""

    signal_latency_cycles: Cycles
    barrier_latency_cycles: Cycles
    max_outstanding: PositiveInt


class CubeRate(_Table):
    """Formats one Cube instruction multiplies, and what one fractal (16 x fractal_k x 16) costs."""

    a: str
    b: str
    accumulator: str
    fractal_k: PositiveInt
    cycles_per_fractal: Positive


class Cube(_Table):
    """The matrix unit: time = head + fractals * cycles_per_fractal."""

    accumulate: Literal["fp32-rne-ascending-k"]
    fractal_m: PositiveInt
    fractal_n: PositiveInt
    head_isolated_cycles: Cycles
    head_back_to_back_cycles: Cycles
    hazard_fractals: Cycles
    rates: dict[str, CubeRate]

    def rate(self, a: str, b: str) -> CubeRate | None:
        """The rate of ``a x b``, or None when this Cube cannot multiply these formats."""
        return next((r for r in self.rates.values() if (r.a, r.b) == (a, b)), None)


class VectorOp(_Table):
    """One class of Vector instruction: cycles = max(min_cycles, slope * repeats), after ``latency`` when isolated."""

    slope_cycles_per_repeat: Positive
    min_cycles: Cycles
    latency_cycles: Cycles


class Vector(_Table):
    """The vector unit: an instruction works through repeats of ``repeat_bytes`` of its widest operand."""

    repeat_bytes: PositiveInt
    ops: dict[str, VectorOp]


class Path(_Table):
    """A legal data path.  An isolated transfer takes ``interval + bytes / bytes_per_cycle + latency`` cycles; the next
    transfer on the pipe may start after ``interval + bytes / bytes_per_cycle``.  ``outstanding_bytes`` bounds what a
    path to or from GM keeps in flight; local paths have none."""

    source: Literal["GM", "L1", "L0C", "UB"]
    destination: Literal["GM", "L1", "L0A", "L0B", "UB", "BT"]
    pipe: Literal["MTE1", "MTE2", "MTE3", "FIX"]
    interval_cycles: Cycles
    latency_cycles: Cycles
    bytes_per_cycle: Positive
    granule_bytes: PositiveInt
    outstanding_bytes: PositiveInt | None = None

    @model_validator(mode="after")
    def _gm_needs_window(self) -> Path:
        if "GM" in (self.source, self.destination) and self.outstanding_bytes is None:
            raise ValueError("a path to or from GM needs outstanding_bytes")
        return self


class L2(_Table):
    """Chip-wide second-level cache, write-back and write-allocate, LRU inside a set."""

    capacity_bytes: PositiveInt
    line_bytes: PositiveInt
    ways: PositiveInt
    read_gbps: Positive
    write_gbps: Positive

    @model_validator(mode="after")
    def _whole_sets(self) -> L2:
        if self.capacity_bytes % (self.line_bytes * self.ways):
            raise ValueError(
                f"capacity_bytes {self.capacity_bytes} is not a whole number of sets of "
                f"{self.ways} x {self.line_bytes} bytes"
            )
        return self


class Hbm(_Table):
    """Off-chip memory; ``bandwidth_gbps`` is the peak, ``efficiency`` the share of it that streaming reads reach."""

    capacity_bytes: PositiveInt
    bandwidth_gbps: Positive
    efficiency: Annotated[float, Field(gt=0, le=1)]
    extra_latency_cycles: Cycles


class Memory(_Table):
    """How the memory system is simulated: requests are arbitrated in pieces of ``chunk_bytes``."""

    chunk_bytes: PositiveInt


class Launch(_Table):
    """Time of a kernel launch outside the kernel itself, reported beside the kernel's time and never inside it."""

    head_us: Annotated[float, Field(ge=0)]


class Provenance(_Table):
    """Where a number comes from: how sure one can be of it, and the published source."""

    kind: Literal["measured", "vendor", "paper", "simulator", "inferred", "assumed", "unstated", "override"]
    source: str


class Chip(_Table):
    """A whole chip as the engines see it."""

    name: str
    description: str
    arch: Literal["2201", "3510", "toy"]
    clock_mhz: Positive
    cores: Cores
    buffers: Buffers
    alignment: Alignment
    dispatch: Dispatch
    cross_core: CrossCore
    cube: Cube
    vector: Vector
    paths: dict[str, Path]
    l2: L2
    hbm: Hbm
    memory: Memory
    launch: Launch

    @model_validator(mode="after")
    def _chunks_hold_lines(self) -> Chip:
        if self.memory.chunk_bytes % self.l2.line_bytes:
            raise ValueError(
                f"memory.chunk_bytes {self.memory.chunk_bytes} is not a multiple of l2.line_bytes {self.l2.line_bytes}"
            )
        return self

    def path(self, source: str, destination: str) -> Path | None:
        """The path from ``source`` to ``destination`` space, or None when the chip has none."""
        return next((p for p in self.paths.values() if (p.source, p.destination) == (source, destination)), None)

    @property
    def aiv(self) -> int:
        """Number of AIVs on the chip."""
        return self.cores.aic * self.cores.aiv_per_aic


@dataclass(frozen=True)
class Hardware:
    """A chip with the provenance of every number, by dotted path."""

    chip: Chip
    provenance: Mapping[str, Provenance]

    @property
    def name(self) -> str:
        return self.chip.name

    def replace(self, **overrides: object) -> Hardware:
        """A copy with numbers changed; keys are dotted paths with ``__`` for ``.``, or pass ``**{"hbm.bandwidth_gbps": 3200}``."""
        from msdsim.hardware.load import override

        return override(self, {key.replace("__", "."): value for key, value in overrides.items()})
