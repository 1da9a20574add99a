"""The books of a run in the reference engine: cycles by category, traffic, bandwidth over time, the timeline."""

from __future__ import annotations

import numpy as np

from msdsim.engine.accounting import Split, charge, in_time_order
from msdsim.ir.program import Instr, Program
from msdsim.timeline.record import CATEGORIES, MAX_PIPES, TIMELINE_COLUMNS, TRAFFIC, WAIT_SYNC

#: Bandwidth over time is kept in at most this many intervals; when they run out, neighbours merge.
BANDWIDTH_INTERVALS = 512


class Books:
    """What is written down while time passes; the timeline only where it is asked for."""

    def __init__(self, program: Program, units: int, timeline: bool) -> None:
        signals, tensors = len(program.kernel.signals), len(program.kernel.tensors)
        self.totals = np.zeros((units, MAX_PIPES, len(CATEGORIES)), np.int64)
        self.instr_totals = {p.name: np.zeros((len(p.instructions()), len(CATEGORIES)), np.int64) for p in program.parts}
        self.semaphore_waits = {p.name: np.zeros(len(p.semaphores), np.int64) for p in program.parts}
        self.signal_waits = {p.name: np.zeros(signals, np.int64) for p in program.parts}
        self.tensor_traffic = np.zeros((tensors, len(TRAFFIC)), np.int64)
        self.interval, self.intervals = 64, np.zeros((BANDWIDTH_INTERVALS, len(TRAFFIC)), np.int64)
        self.rows: list[tuple[int, ...]] | None = [] if timeline else None
        self.instructions = self.flags_only = 0

    def account(self, unit: int, part: str, pipe: int, instr: Instr, parts: Split, culprit: int) -> None:
        """Cycles of an instruction by category; ``culprit`` is the semaphore or signal that it waited for, or -1."""
        charge(self.totals[unit, pipe], parts)
        charge(self.instr_totals[part][instr.index], parts)
        if culprit >= 0:
            waits = self.signal_waits if parts.gap_category == WAIT_SYNC else self.semaphore_waits
            waits[part][culprit] += parts.gap
        if instr.op is None:
            self.flags_only += 1
        else:
            self.instructions += 1

    def record(self, *row: int) -> None:
        """A row of the timeline."""
        if self.rows is not None:
            self.rows.append(row)

    def bandwidth(self, at: int, kind: int, count: int) -> None:
        """Bytes that were served at a cycle."""
        while at >= self.interval * BANDWIDTH_INTERVALS:
            half = self.intervals.reshape(BANDWIDTH_INTERVALS // 2, 2, len(TRAFFIC)).sum(axis=1)
            self.intervals = np.vstack([half, np.zeros_like(half)])
            self.interval *= 2
        self.intervals[at // self.interval, kind] += count

    def timeline(self) -> dict[str, np.ndarray] | None:
        """Its columns, if it was kept."""
        if self.rows is None:
            return None
        return in_time_order(np.array(self.rows, np.int64).reshape(len(self.rows), len(TIMELINE_COLUMNS)))
