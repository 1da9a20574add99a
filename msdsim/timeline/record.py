"""What happened in a run: totals that are always kept and, on request, every instruction as columns.

Engines write these records, analysis and reports read them; the two never meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from msdsim.errors import InvariantError
from msdsim.ir.program import Program
from msdsim.naming import PIPES, PipeName, pipe_kind
from msdsim.timeline.l2_state import L2State

#: Every cycle of every pipe is exactly one of these.
CATEGORIES = ("busy", "head", "wait_data", "wait_buffer", "wait_sync", "wait_memory", "wait_issue", "drained")
BUSY, HEAD, WAIT_DATA, WAIT_BUFFER, WAIT_SYNC, WAIT_MEMORY, WAIT_ISSUE, DRAINED = range(len(CATEGORIES))
MAX_PIPES = max(len(pipes) for pipes in PIPES.values())
TRAFFIC = ("hbm_read_bytes", "hbm_write_bytes", "l2_read_bytes", "l2_write_bytes")
HBM_READ, HBM_WRITE, L2_READ, L2_WRITE = range(len(TRAFFIC))


@dataclass(frozen=True)
class Units:
    """Numbering of the AICs and AIVs of a kernel: group by group, the AIC first, then its AIVs."""

    cores: int
    aiv_per_core: int

    @property
    def count(self) -> int:
        return self.cores * (1 + self.aiv_per_core)

    def part(self, unit: int) -> str:
        """``AIC`` or ``AIV``."""
        return "AIC" if unit % (1 + self.aiv_per_core) == 0 else "AIV"

    def core(self, unit: int) -> int:
        return unit // (1 + self.aiv_per_core)

    def sub(self, unit: int) -> int:
        """AIV index inside the group; 0 for the AIC."""
        return max(0, unit % (1 + self.aiv_per_core) - 1)

    def unit(self, core: int, part: str, sub: int = 0) -> int:
        """Inverse of the three above."""
        return core * (1 + self.aiv_per_core) + (0 if part.upper() == "AIC" else 1 + sub)

    def of_part(self, part: str) -> list[int]:
        """Every unit of a part, ascending."""
        return [unit for unit in range(self.count) if self.part(unit) == part.upper()]

    def pipe_name(self, unit: int, pipe: int) -> PipeName:
        part = self.part(unit)
        return PipeName(self.core(unit), part, self.sub(unit), PIPES[part][pipe])


#: Columns of a timeline and their meaning; one row per executed instruction, flags-only instructions included.
TIMELINE_COLUMNS = {
    "unit": "AIC or AIV number (Units)",
    "pipe": "index into PIPES of the unit's part",
    "instr": "index of the static instruction in its part's program",
    "dispatched": "cycle the scalar unit put it into the pipe's queue",
    "start": "cycle the pipe took it",
    "end": "cycle it completed and its flags were visible",
    "work": "cycles of work in it (busy when not overlapped)",
    "bytes": "bytes moved to or from GM",
    "cause": "category of the wait before start (index into CATEGORIES), -1 if it did not wait",
    "culprit": "semaphore (data, buffer) or signal (sync) that was waited for, -1 otherwise",
}


@dataclass(frozen=True)
class Bandwidth:
    """Bytes moved per interval of ``interval_cycles``: arrays over intervals, one per entry of TRAFFIC."""

    interval_cycles: int
    bytes: np.ndarray


@dataclass(frozen=True)
class RunRecord:
    """Everything an engine reports.

    ``totals`` int64 [units, MAX_PIPES, categories]; ``instr_totals[part]`` int64 [instructions, categories], the wait before
    an instruction charged to it; ``semaphore_waits[part]`` and ``signal_waits[part]`` int64 cycles by culprit;
    ``tensor_traffic`` int64 [tensors, TRAFFIC]; ``l2`` is what is in L2 at the end, where it is handed on.
    """

    program: Program
    cycles: int
    instructions: int
    flags_only: int
    totals: np.ndarray
    instr_totals: dict[str, np.ndarray]
    semaphore_waits: dict[str, np.ndarray]
    signal_waits: dict[str, np.ndarray]
    tensor_traffic: np.ndarray
    l2_dirty_bytes: int
    bandwidth: Bandwidth
    timeline: dict[str, np.ndarray] | None = None
    engine: str = ""
    skipped_iterations: int = 0
    skip_reason: str = ""
    notes: dict[str, object] = field(default_factory=dict)
    l2: L2State | None = None

    @property
    def units(self) -> Units:
        return Units(self.program.kernel.cores, self.program.kernel.aiv_per_core)

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes by entry of TRAFFIC over all tensors."""
        return {name: int(total) for name, total in zip(TRAFFIC, self.tensor_traffic.sum(axis=0), strict=True)}

    def pipe_totals(self) -> dict[str, dict[str, int]]:
        """Categories summed over the instances of each kind of pipe (``aic.m``), with the number of instances."""
        found: dict[str, dict[str, int]] = {}
        for part in ("AIC", "AIV"):
            units = self.units.of_part(part)
            if not units or not self.program.kernel.part(part.lower()):
                continue
            for index, pipe in enumerate(PIPES[part]):
                sums = self.totals[units, index].sum(axis=0)
                found[pipe_kind(part, pipe)] = {"instances": len(units)} | {
                    name: int(value) for name, value in zip(CATEGORIES, sums, strict=True)
                }
        return found

    def assert_coverage(self) -> None:
        """The coverage law: on every pipe of every unit the categories add up to the kernel's cycles."""
        broken = (self.totals.sum(axis=2) != self.cycles) | (self.totals < 0).any(axis=2)
        for unit, index in np.argwhere(broken).tolist():
            if index < len(PIPES[self.units.part(unit)]):
                row = self.totals[unit, index]
                raise InvariantError(
                    f"stall accounting of {self.units.pipe_name(unit, index)} covers {int(row.sum())} of {self.cycles} "
                    f"cycles: {dict(zip(CATEGORIES, row.tolist(), strict=True))}; please report this kernel"
                )
