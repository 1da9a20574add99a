"""The pipes: instructions start in order, when the pipe can take them and their tokens are there."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.blocks import pass_blocks, take_blocks
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.fast.completion import Execution, finish
from msdsim.engine.fast.tokens import has_tokens, take_signal, take_token
from msdsim.engine.fast.transfers import start_transfer
from msdsim.timeline import record


@inlined
def start_instruction(C, S, T, rows, unit, pipe, entry, instr):
    """Start the instruction in a place of the queue, whose tokens are there; the pipes (as bits) that may go on because of
    it."""
    dispatched = S[entry + at.Q_DISPATCHED]
    start = max(dispatched, S[pipe + at.P_FREE])
    if S[entry + at.Q_BARRIER] != 0:
        start = max(start, S[pipe + at.P_DONE])
    # The latest token is to blame, the first of several; nobody is if the instruction would have started no earlier.
    latest, cause = -1, -1
    position, last = C[instr + at.I_WAITS], C[instr + at.I_WAITS_END]
    while position < last:
        posted = take_token(C, S, unit + C[position])
        if posted > latest:
            latest, cause = posted, C[position + 1]
        position += at.PAIR
    kind = C[instr + at.I_SIGNAL_KIND]
    over = 0
    if kind == at.WAIT:
        latest, cause = take_signal(C, S, unit, C[instr + at.I_SIGNAL], latest, cause)
    elif kind == at.UNIT and S[unit + C[instr + at.I_SUM] + at.SUM_BEGUN] == 0:
        posted, over = take_blocks(C, S, unit, entry, instr)
        over &= C[instr + at.I_IS_OVER]
        if posted > latest:
            latest, cause = posted, C[instr + at.I_TAKES_CAUSE]
    if latest < start:
        cause = at.T_UNCHARGED << at.CAUSE_BITS | record.WAIT_ISSUE
    else:
        start = latest
    S[entry + at.Q_START] = max(start, over) & S[pipe + at.P_BOUNDED]
    if C[instr + at.I_KIND] == at.TRANSFER:
        return start_transfer(C, S, T, rows, unit, pipe, entry, instr, start, cause)
    work = S[entry + at.Q_V0]
    S[pipe + at.P_FREE] = start + C[instr + at.I_INTERVAL] + work + C[instr + at.I_FLAGS]
    end = start + C[instr + at.I_LATENCY] + work
    woken = finish(C, S, T, rows, unit, pipe, Execution(instr, dispatched, start, end, work, 0, 0, cause))
    if kind == at.UNIT:
        left = start + C[instr + at.I_INTERVAL] + work
        woken |= pass_blocks(C, S, unit, instr, start, S[entry + at.Q_V1], left)
    return woken


@helper
def run_pipe(C, S, T, rows, unit, number, pipe):
    """Start instructions of a pipe's queue while their tokens are there; the pipes (as bits) that may go on because of it."""
    woken = 0
    while S[pipe + at.P_COUNT] > 0 and S[pipe + at.P_MOVING] == 0:
        entry = S[pipe + at.P_HEAD]
        instr = S[entry + at.Q_INSTR]
        if not has_tokens(C, S, unit, instr):
            break
        after = entry + at.Q_SIZE
        S[pipe + at.P_HEAD] = S[pipe + at.P_QUEUE] if after == S[pipe + at.P_QUEUE_END] else after
        S[pipe + at.P_COUNT] -= 1
        if S[unit + at.U_BLOCKED] == number:
            woken |= 1
        woken |= start_instruction(C, S, T, rows, unit, pipe, entry, instr)
    return woken
