"""The arrays of L2 before and after a run; between runs they are kept, since fresh memory costs more than the lines do."""

from __future__ import annotations

import threading

import numpy as np

from msdsim.engine.fast.builder import Machine
from msdsim.engine.fast.layout import DIRTY, HERE, L2, WAY_BITS, WAYS_OF_A_WORD
from msdsim.engine.memory import set_of
from msdsim.errors import InputError
from msdsim.timeline.l2_state import L2State

_TYPES = L2(line=np.uint16, tag=np.int32, order=np.int64, taken=np.int32, ready=np.int64, turn=np.int64)
#: What need not be cleared: it is written before it is read.
_UNREAD = ("tag", "order", "ready")
#: Ways are numbered in what the types leave beside the state.
MOST_WAYS = 2**(16 - WAY_BITS)
#: Longest array that is kept, and how many sets of arrays are: engines may run in several threads.
_KEPT_ITEMS, _KEPT_SETS = 2**24, 2
_kept: list[L2] = []
_lock = threading.Lock()


class Arrays:
    """The arrays of one run; an L2 that holds all lines of GM at once (``roomy``) keeps no order."""

    def __init__(self, machine: Machine, geometry: tuple[int, int, int], state: L2State | None) -> None:
        _, self.sets, self.ways = self.geometry = geometry
        if self.ways > MOST_WAYS and not machine.roomy:
            raise InputError(f"l2.ways = {self.ways} is above the {MOST_WAYS} that the fast engine counts; lower it or use the "
                             f"engine 'reference'")
        self.packed = self.ways <= WAYS_OF_A_WORD
        ordered = 0 if machine.roomy else self.sets
        with _lock:
            self.whole = _kept.pop() if _kept else L2(*(np.zeros(0, kind) for kind in _TYPES))
        self._size(L2(line=machine.lines, tag=ordered * self.ways, order=ordered * (1 if self.packed else self.ways),
                      taken=ordered, ready=machine.lines, turn=machine.turns))
        if not machine.roomy:
            if state is not None:
                self._put(state)
            self._first_order()

    def _size(self, counts: L2) -> None:
        """Take as much of the kept arrays as is needed, cleared where that matters."""
        whole = [array if len(array) >= count else np.zeros(count, array.dtype)
                 for array, count in zip(self.whole, counts, strict=True)]
        self.arrays = L2(*(array[:count] for array, count in zip(whole, counts, strict=True)))
        for name, before, array in zip(L2._fields, self.whole, self.arrays, strict=True):
            if len(array) <= len(before) and name not in _UNREAD:
                array[:] = 0
        self.whole = L2(*whole)

    def _put(self, state: L2State) -> None:
        """Lines that are there at cycle 0; those of a set follow each other, the least recently used first."""
        arrays, sets = self.arrays, set_of(state.lines, self.sets)
        way = np.arange(len(sets)) - np.searchsorted(sets, sets)
        arrays.tag[way * self.sets + sets] = state.lines
        arrays.line[state.lines] = (way << WAY_BITS) + np.where(state.dirty, HERE + DIRTY, HERE)
        arrays.taken[:] = np.bincount(sets, minlength=self.sets)

    def _first_order(self) -> None:
        """Every set as if the ways that are taken had been used one after the other."""
        # By how many are taken: ways, the latest first.
        latest = (np.arange(self.ways + 1)[:, None] - 1 - np.arange(self.ways)) % self.ways
        if self.packed:
            digits = latest.astype(np.uint64) << (4 * np.arange(self.ways, dtype=np.uint64))
            latest = np.bitwise_or.reduce(digits, axis=1).view(np.int64)
        order, taken = self.arrays.order.reshape(self.sets, *latest.shape[1:]), self.arrays.taken
        order[:] = latest[taken] if taken.any() else latest[0]

    def dirty_lines(self) -> int:
        """Lines that have been written and not been written back."""
        return int(np.count_nonzero(self.arrays.line & DIRTY))

    def state(self) -> L2State:
        """What is in L2 at the end of a run."""
        arrays, ways = self.arrays, self.ways
        if self.packed:
            latest = arrays.order.view(np.uint64)[:, None] >> (4 * np.arange(ways, dtype=np.uint64)) & np.uint64(15)
        else:
            latest = arrays.order.reshape(self.sets, ways)
        # By set, the least recently used first.
        way = latest[:, ::-1].astype(np.int64)
        lines = arrays.tag[way * self.sets + np.arange(self.sets)[:, None]][way < arrays.taken[:, None]].astype(np.int64)
        return L2State(*self.geometry, lines, arrays.line[lines] & DIRTY != 0)

    def release(self) -> None:
        """Leave the arrays to another run."""
        with _lock:
            if len(_kept) < _KEPT_SETS and max(map(len, self.whole)) <= _KEPT_ITEMS:
                _kept.append(self.whole)
