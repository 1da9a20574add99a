"""What is in L2: the state that one kernel leaves to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class L2State:
    """Lines of an L2 of ``sets`` x ``ways`` lines of ``line_bytes``, between two kernels.

    ``lines`` (int64) are line numbers (address / line_bytes), set by set, in each set the least recently used first; ``dirty``
    (bool) says which have been written and not been written back.
    """

    line_bytes: int
    sets: int
    ways: int
    lines: np.ndarray
    dirty: np.ndarray

    @classmethod
    def empty(cls, line_bytes: int, sets: int, ways: int) -> L2State:
        """Nothing in it."""
        return cls(line_bytes, sets, ways, np.zeros(0, np.int64), np.zeros(0, bool))

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Line size, sets and ways."""
        return self.line_bytes, self.sets, self.ways

    @property
    def resident_bytes(self) -> int:
        return len(self.lines) * self.line_bytes

    @property
    def dirty_bytes(self) -> int:
        return int(np.count_nonzero(self.dirty)) * self.line_bytes
