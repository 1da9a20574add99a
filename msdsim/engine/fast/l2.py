"""The arrays of L2 before and after a run; between runs they are kept, since fresh memory costs more than the lines do."""

from __future__ import annotations

import itertools
import threading

import numpy as np

from msdsim.engine.fast import l2_layout as on
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.builder import Machine
from msdsim.engine.fast.l2_layout import DIRTY, HERE, L2, OWNER_BITS
from msdsim.engine.memory import set_of
from msdsim.errors import InputError
from msdsim.timeline.l2_state import L2State

_TYPES = L2(line=np.int32, tag=np.int32, used=np.int64, taken=np.int32, ready=np.int64, pieces=np.int64,
            owners=np.int64)
#: What need not be cleared: it is written before it is read, or tells in which run it was.
_UNREAD = ("tag", "used", "ready", "pieces", "owners")
#: Line numbers are words of ``tag``, numbers of owners are parts of the words of ``line``.
MOST_LINES, MOST_OWNERS = 2**31 - 1, 2**28
#: Longest array that is kept, and how many sets of arrays are: engines may run in several threads.
_KEPT_ITEMS, _KEPT_SETS = 2**24, 2
_kept: list[L2] = []
_lock = threading.Lock()
#: Bytes of a line of the host's cache.
_CACHE_LINE = 64
_runs = itertools.count(1)


def _zeros(count: int, kind: np.dtype) -> np.ndarray:
    """An array that begins with a line of the host's cache."""
    longer = np.zeros(count + _CACHE_LINE // kind.itemsize, kind)
    skipped = -longer.ctypes.data % _CACHE_LINE // kind.itemsize
    return longer[skipped : skipped + count]


class Arrays:
    """The arrays of one run; an L2 that holds all lines of GM at once (``roomy``) keeps no order."""

    def __init__(self, machine: Machine, geometry: tuple[int, int, int], state: L2State | None) -> None:
        _, self.sets, self.ways = self.geometry = geometry
        ordered = 0 if machine.roomy else self.sets
        # Each owner has a line, but for the first one and that of the piece at hand.
        owners = min(machine.lines, ordered * self.ways) + 2
        if machine.lines > MOST_LINES or owners > MOST_OWNERS:
            raise InputError(f"the kernel's tensors take {machine.lines} lines of L2, and {owners - 2} of them fit into it: "
                             f"the fast engine counts {MOST_LINES} and {MOST_OWNERS - 2}; make l2.line_bytes larger or use the "
                             f"engine 'reference'")
        with _lock:
            self.whole = _kept.pop() if _kept else L2(*(np.zeros(0, kind) for kind in _TYPES))
        self._size(L2(line=machine.lines, tag=ordered * self.ways, used=ordered * self.ways, taken=ordered,
                      ready=machine.lines, pieces=machine.pieces, owners=owners * on.OW_SIZE), machine.turns)
        # Below 0, so that no turn that an earlier run has left where blocks are now is taken for it.
        machine.S[at.G_RUN], machine.S[at.G_OWNERS] = -next(_runs), 1
        if state is not None:
            self._put(machine, state)

    def _size(self, counts: L2, turns: int) -> None:
        """Take as much of the kept arrays as is needed, cleared where that matters; of ``pieces`` from ``turns`` on."""
        whole = [array if len(array) >= count else _zeros(count, array.dtype)
                 for array, count in zip(self.whole, counts, strict=True)]
        self.arrays = L2(*(array[:count] for array, count in zip(whole, counts, strict=True)))
        for name, before, array in zip(L2._fields, self.whole, self.arrays, strict=True):
            if len(array) <= len(before) and name not in _UNREAD:
                array[:] = 0
            elif len(array) <= len(before) and name == "pieces":
                array[turns:] = 0
        self.whole = L2(*whole)

    def _put(self, machine: Machine, state: L2State) -> None:
        """Lines that are there at cycle 0; those of a set follow each other, the least recently used first."""
        arrays, sets = self.arrays, set_of(state.lines, self.sets)
        way = np.arange(len(sets)) - np.searchsorted(sets, sets)
        arrays.tag[way * self.sets + sets] = state.lines
        # Those of a way are as if they were of one piece.
        arrays.line[state.lines] = (1 + way << OWNER_BITS) + np.where(state.dirty, HERE + DIRTY, HERE)
        arrays.taken[:] = np.bincount(sets, minlength=self.sets)
        counts = np.bincount(way)
        owners = arrays.owners[on.OW_SIZE :][: len(counts) * on.OW_SIZE].reshape(len(counts), on.OW_SIZE)
        owners[:, on.OW_LINES], owners[:, on.OW_RECORD], owners[:, on.OW_LAST] = counts, on.NO_RECORD, np.arange(len(counts))
        machine.S[at.G_OWNERS], machine.S[at.G_USES] = 1 + len(counts), len(counts)

    def dirty_lines(self) -> int:
        """Lines that have been written and not been written back."""
        arrays = self.arrays
        if not len(arrays.taken):
            return int(np.count_nonzero(arrays.line & DIRTY))
        lines = arrays.tag.reshape(self.ways, self.sets)[self._there()]
        return int(np.count_nonzero(arrays.line[lines] & DIRTY))

    def _there(self) -> np.ndarray:
        """Which ways of which sets have a line."""
        there: np.ndarray = np.arange(self.ways)[:, None] < self.arrays.taken
        return there

    def state(self) -> L2State:
        """What is in L2 at the end of a run."""
        arrays, there = self.arrays, self._there()
        tags = arrays.tag.reshape(self.ways, self.sets)[there]
        used = arrays.owners[(arrays.line[tags] >> OWNER_BITS) * on.OW_SIZE + on.OW_LAST]
        # By set, the least recently used first; lines of one piece have been used in their order.
        keys = np.full((self.ways, self.sets), np.iinfo(np.int64).max)
        keys[there] = used << 31 | tags
        keys = np.sort(keys.T, axis=1)
        lines = keys[keys < np.iinfo(np.int64).max] & MOST_LINES
        return L2State(*self.geometry, lines, arrays.line[lines] & DIRTY != 0)

    def release(self) -> None:
        """Leave the arrays to another run."""
        with _lock:
            if len(_kept) < _KEPT_SETS and max(map(len, self.whole)) <= _KEPT_ITEMS:
                _kept.append(self.whole)
