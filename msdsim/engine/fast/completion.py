"""What an instruction leaves behind when its end is known: the books, a row of the timeline, its tokens."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from typing import Any, NamedTuple

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.fast.tokens import post, raise_signal
from msdsim.timeline import record

_COLUMNS = len(record.TIMELINE_COLUMNS)


class Execution(NamedTuple):
    """What became of an instruction: its place in C, and what the timeline says of it (record.TIMELINE_COLUMNS).

    ``excess`` is how much longer than alone a transfer took, ``cause`` what it waited for last (layout.CAUSE_BITS).
    """

    instr: Any
    dispatched: Any
    start: Any
    end: Any
    work: Any
    excess: Any
    moved: Any
    cause: Any


@helper
def _record(C, S, rows, unit, pipe, done, end, cause):
    """Write a row of the timeline (TIMELINE_COLUMNS)."""
    row = S[pipe + at.P_ROW] * _COLUMNS
    S[pipe + at.P_ROW] += 1
    if S[pipe + at.P_ROW] >= S[at.G_RECORDING]:
        S[at.G_STATUS] = at.UNCOUNTED
        return
    category, culprit = -1, -1
    if cause >= 0:
        category = cause & (1 << at.CAUSE_BITS) - 1
        counter, part = cause >> at.CAUSE_BITS, S[unit + at.U_PART]
        if counter != at.T_UNCHARGED:
            culprit = counter - C[part + (at.PT_SIGNAL_WAITS if category == record.WAIT_SYNC else at.PT_SEMAPHORE_WAITS)]
    rows[row] = S[unit + at.U_NUMBER]
    rows[row + 1] = C[done.instr + at.I_PIPE]
    rows[row + 2] = C[done.instr + at.I_INDEX]
    rows[row + 3] = done.dispatched
    rows[row + 4] = done.start
    rows[row + 5] = end
    rows[row + 6] = done.work
    rows[row + 7] = done.moved
    rows[row + 8] = category
    rows[row + 9] = culprit


@inlined
def finish(C, S, T, rows, unit, pipe, done):
    """An instruction's end is known: keep the books, post its flags and signal; the pipes (as bits) that may go on."""
    instr, cause = done.instr, done.cause
    cursor = S[pipe + at.P_DONE]
    end = max(done.end, max(S[pipe + at.P_FREE], cursor))
    gap = max(0, done.start - cursor)
    rest = end - max(cursor, done.start)
    busy = min(rest, done.work)
    memory = min(rest - busy, done.excess)
    books = S[unit + at.U_BOOKS] + C[instr + at.I_BOOKS]
    T[books + record.BUSY] += busy
    T[books + record.HEAD] += rest - busy - memory
    T[books + at.BOOK_EXECUTED] += 1
    if memory > 0:
        T[books + record.WAIT_MEMORY] += memory
    if gap > 0:
        T[books + (cause & (1 << at.CAUSE_BITS) - 1)] += gap
        T[cause >> at.CAUSE_BITS] += gap
    if S[at.G_RECORDING] != 0:
        _record(C, S, rows, unit, pipe, done, end, cause if gap > 0 else -1)
    S[pipe + at.P_DONE] = end
    woken = 0
    position, last = C[instr + at.I_POSTS], C[instr + at.I_POSTS_END]
    while position < last:
        post(C, S, unit + C[position], end)
        woken |= C[position + 1]
        position += at.PAIR
    if C[instr + at.I_SIGNAL_KIND] == at.RAISE:
        raise_signal(C, S, unit, C[instr + at.I_SIGNAL], end)
    return woken
