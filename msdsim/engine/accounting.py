"""The rules by which every cycle of a pipe gets its category.  Both engines follow them; this is the readable form.

A pipe's cycles up to ``cursor`` are accounted for.  An instruction that starts at ``start`` and completes at ``end`` first
turns the gap from the cursor to its start into the category of what it waited for last: a semaphore's cause, ``wait_sync``
for a signal, else ``wait_issue``.  The rest up to ``end`` is work first (``busy``), then for transfers what exceeds the time
alone (``wait_memory``), then ``head``; instructions overlap inside a pipe, so only cycles beyond the cursor count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msdsim.timeline.record import BUSY, HEAD, TIMELINE_COLUMNS, WAIT_ISSUE, WAIT_MEMORY


@dataclass(frozen=True)
class Split:
    """Cycles of one instruction by category: the gap before it (with its category) and its three own categories."""

    gap: int
    gap_category: int
    busy: int
    memory: int
    head: int


def split(cursor: int, start: int, end: int, work: int, excess: int, cause: int = WAIT_ISSUE) -> Split:
    """Account for an instruction; ``excess`` is how much longer than alone a transfer took."""
    gap = max(0, start - cursor)
    rest = max(0, end - max(cursor, start))
    busy = min(rest, work)
    memory = min(rest - busy, excess)
    return Split(gap, cause, busy, memory, rest - busy - memory)


def charge(row, parts: Split) -> None:  # type: ignore[no-untyped-def]
    """Add a split to a row of category totals."""
    row[parts.gap_category] += parts.gap
    row[BUSY] += parts.busy
    row[WAIT_MEMORY] += parts.memory
    row[HEAD] += parts.head


def in_time_order(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Timeline columns from rows that are in program order for each pipe: by start, then unit, pipe and program order."""
    column = {name: index for index, name in enumerate(TIMELINE_COLUMNS)}
    order = np.lexsort((rows[:, column["pipe"]], rows[:, column["unit"]], rows[:, column["start"]]))
    return {name: rows[order, index] for name, index in column.items()}
