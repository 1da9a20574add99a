"""The machine, compiled: what :mod:`msdsim.engine.reference` says, without a queue of events.

Inside a unit every time is a maximum of known times, so a unit is advanced in any order as far as what it waits for is known:
its own transfers and other units' signals are all that can be unknown.  Only the memory system needs an order of time.  Each
port has at most one request outstanding, and a served request completes later than it was asked for; so when no unit can be
advanced, the earliest request (tick, unit, pipe) comes before all that are still unknown, and is served.
"""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import l2_layout as on
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import address_function, entry, helper, pointer_function
from msdsim.engine.fast.pipes import run_pipe
from msdsim.engine.fast.ready import set_request, wake_unit
from msdsim.engine.fast.registers import compute
from msdsim.engine.fast.scalar import dispatch
from msdsim.engine.fast.transfers import end_transfer, next_piece, serve_piece

#: Pieces served and instructions dispatched in one call: what takes less than half a second.
_PIECES_AT_ONCE, _INSTRUCTIONS_AT_ONCE = 2**21, 2**22
pointer, address = pointer_function(), address_function()


@helper
def _advance(C, S, T, rows, unit):
    """Everything in a unit that follows from what is known, but for a pause."""
    part = S[unit + at.U_PART]
    pipes = unit + C[part + at.PT_PIPES]
    while S[unit + at.U_WAKE] != 0 and S[at.G_STATUS] == at.RUNNING and S[at.G_LEFT] > 0:
        wake = S[unit + at.U_WAKE]
        S[unit + at.U_WAKE] = 0
        if wake & 1:
            woken = dispatch(C, S, T, rows, unit)
            wake |= woken
            S[unit + at.U_WAKE] |= woken & 1
        for number in range(1, C[part + at.PT_PIPE_COUNT]):
            if wake >> number & 1:
                woken = run_pipe(C, S, T, rows, unit, number, pipes + number * at.P_SIZE)
                S[unit + at.U_WAKE] |= woken


@helper
def _advance_all(C, S, T, rows):
    """Every unit on the stack goes on; those that a pause finds there stay."""
    while S[at.G_STACKED] > 0 and S[at.G_STATUS] == at.RUNNING:
        unit = S[C[at.K_STACK] + S[at.G_STACKED] - 1]
        S[at.G_STACKED] -= 1
        _advance(C, S, T, rows, unit)
        S[unit + at.U_STACKED] = 0
        if S[at.G_LEFT] <= 0:
            if S[unit + at.U_WAKE] != 0:
                wake_unit(C, S, unit, 0)
            return


@helper
def _begin(C, S):
    for number in range(C[at.K_UNITS]):
        unit = C[C[at.K_UNIT_BASES] + number]
        part = S[unit + at.U_PART]
        compute(C, S, unit, C[part + at.PT_PROLOGUE], C[part + at.PT_PROLOGUE_END])
        wake_unit(C, S, unit, 1)


@helper
def run_on_pointers(C, S, T, rows, line, tag, used, taken, ready, pieces, owners):
    """Run for a while, so that the caller can be interrupted.  ``S[G_STAGE]`` says ENDED when nothing is left to do or can be
    done, ``S[G_STATUS]`` then how it ended."""
    l2 = on.L2(line, tag, used, taken, ready, pieces, owners)
    S[at.G_PIECES_ADDRESS] = address(pieces)
    S[at.G_LEFT] = _INSTRUCTIONS_AT_ONCE
    if S[at.G_STAGE] == at.NOT_BEGUN:
        S[at.G_STAGE] = at.BEGUN
        _begin(C, S)
    _advance_all(C, S, T, rows)
    for _ in range(_PIECES_AT_ONCE):
        if S[at.G_LEFT] <= 0 and S[at.G_STATUS] == at.RUNNING:
            break
        key = S[C[at.K_TREE] + 1]
        if key == at.NEVER or S[at.G_STATUS] != at.RUNNING:
            S[at.G_STAGE] = at.ENDED
            break
        leaf = key & ((1 << at.LEAF_BITS) - 1)
        S[at.G_NOW] = key >> at.LEAF_BITS
        pipe = C[C[at.K_LEAF_PORTS] + leaf]
        unit, instr = S[pipe + at.P_UNIT], S[pipe + at.X_INSTR]
        if serve_piece(C, S, T, l2, unit, pipe, instr):
            set_request(C, S, leaf, at.NEVER)
            S[pipe + at.P_MOVING] = 0
            woken = end_transfer(C, S, T, rows, unit, pipe)
            wake_unit(C, S, unit, woken | 1 << C[instr + at.I_PIPE])
            _advance_all(C, S, T, rows)
        else:
            next_piece(C, S, pipe, instr)


@entry("void(int64[::1], int64[::1], int64[::1], int64[:,::1], int32[::1], int32[::1], int64[::1], int32[::1], int64[::1], "
       "int64[::1], int64[::1])")
def run(C, S, T, rows, line, tag, used, taken, ready, pieces, owners):
    """:func:`run_on_pointers` on arrays; those from ``line`` on are the ones of l2_layout.L2."""
    run_on_pointers(pointer(C), pointer(S), pointer(T), pointer(rows), pointer(line), pointer(tag), pointer(used),
                    pointer(taken), pointer(ready), pointer(pieces), pointer(owners))
