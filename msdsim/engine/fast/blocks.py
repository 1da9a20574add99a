"""Unit flags: when the blocks of an accumulator pass from the products of a sum to the fixpipe that drains it, and back."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.fast.tokens import post, take_token


@inlined
def drain_cycles(C, instr, rows, row_bytes):
    """Cycles of a fixpipe's port for some rows (msdsim.ir.unit_flags)."""
    if rows <= 0 or row_bytes <= 0:
        return 0
    return ceil_div(rows * max(C[instr + at.I_GRANULE], row_bytes) * C[instr + at.I_PER_BYTE], C[instr + at.I_SCALE])


@helper
def take_blocks(C, S, unit, entry, instr):
    """Consume a token: the earliest start at which no block is waited for, and when the last block is there."""
    ring = unit + C[instr + at.I_TAKES]
    first = take_token(C, S, ring)
    last = take_token(C, S, ring)
    work, strip = S[entry + at.Q_V0], S[entry + at.Q_V1]
    if C[instr + at.I_KIND] == at.TRANSFER:
        rows, row_bytes = S[entry + at.Q_V1], S[entry + at.Q_V2]
        work = drain_cycles(C, instr, rows, row_bytes)
        strip = drain_cycles(C, instr, min(rows, C[instr + at.I_STRIP]), row_bytes)
    return max(first, last + strip - C[instr + at.I_INTERVAL] - work), last


@helper
def pass_blocks(C, S, unit, instr, start, strip, left):
    """The blocks are there for the next one, the first soon after the start, the last when all has left: for the next product,
    or for the other pipe, whose bit is returned."""
    accumulator = unit + C[instr + at.I_SUM]
    later = C[instr + at.I_LATER]
    first, last = min(start + C[instr + at.I_INTERVAL] + strip, left) + later, left + later
    if C[instr + at.I_COMPLETES] == 0:
        S[accumulator + at.SUM_BEGUN] = 1
        S[accumulator + at.SUM_FIRST] = first
        S[accumulator + at.SUM_LAST] = last
        return 0
    if C[instr + at.I_MARKS] != 0 and S[accumulator + at.SUM_BEGUN] != 0:
        first, last = S[accumulator + at.SUM_FIRST], S[accumulator + at.SUM_LAST]
    S[accumulator + at.SUM_BEGUN] = 0
    post(C, S, unit + C[instr + at.I_GIVES], first)
    post(C, S, unit + C[instr + at.I_GIVES], last)
    return C[instr + at.I_GIVES_PIPE]
