"""Tokens: what instructions post when they complete and others wait for, inside a unit and between units."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.fast.ready import wake_unit
from msdsim.timeline import record


@inlined
def post(C, S, ring, time):
    """Add a token to a ring."""
    tail = S[ring + at.R_TAIL]
    if tail - S[ring + at.R_HEAD] > C[at.K_RING_MASK]:
        S[at.G_STATUS] = at.RING_FULL
        return
    S[ring + at.R_TOKENS + (tail & C[at.K_RING_MASK])] = time
    S[ring + at.R_TAIL] = tail + 1


@helper
def _deliver(C, S, unit, signal, sender, time):
    """Post a signal's token to a unit, if any of its instructions waits for it."""
    part = S[unit + at.U_PART]
    pipe = C[C[part + at.PT_WAITING] + signal]
    if pipe == 0:
        return
    senders = C[part + at.PT_SENDERS]
    size = at.R_TOKENS + C[at.K_RING_MASK] + 1
    first = unit + C[part + at.PT_SIGNAL_RINGS] + signal * senders * size
    if sender >= 0:
        post(C, S, first + sender * size, time)
    else:
        for number in range(senders):
            post(C, S, first + number * size, time)
    wake_unit(C, S, unit, 1 << pipe)


@helper
def raise_signal(C, S, unit, signal, time):
    """A unit raises a signal at ``time``."""
    table = C[at.K_SIGNAL_TABLE] + signal * at.SG_SIZE
    bases = C[at.K_UNIT_BASES]
    group = S[unit + at.U_CORE] * (1 + C[at.K_AIVS])
    if C[table + at.SG_KIND] == at.BARRIER:
        _arrive(C, S, unit, signal, C[table + at.SG_PARTICIPANTS], time)
        return
    time += C[at.K_SIGNAL_LATENCY]
    S[at.G_LAST_SIGNAL] = max(S[at.G_LAST_SIGNAL], time)
    if C[table + at.SG_KIND] == at.TO_AIV:
        for number in range(C[at.K_AIVS]):
            _deliver(C, S, C[bases + group + 1 + number], signal, 0, time)
    else:
        _deliver(C, S, C[bases + group], signal, S[unit + at.U_SUB], time)


@helper
def _arrive(C, S, unit, signal, participants, time):
    """A unit reaches a barrier; the last of its turn releases everyone."""
    raised = unit + C[S[unit + at.U_PART] + at.PT_RAISED] + signal
    turn = S[raised]
    S[raised] = turn + 1
    mask = C[at.K_RING_MASK]
    slot = C[at.K_BARRIERS] + (signal * (mask + 1) + (turn & mask)) * at.B_SIZE
    if S[slot + at.B_COUNT] == 0:
        S[slot + at.B_TURN] = turn
    elif S[slot + at.B_TURN] != turn:
        S[at.G_STATUS] = at.RING_FULL
        return
    S[slot + at.B_COUNT] += 1
    S[slot + at.B_TIME] = max(S[slot + at.B_TIME], time)
    if S[slot + at.B_COUNT] < participants:
        return
    time = S[slot + at.B_TIME] + C[at.K_BARRIER_LATENCY]
    S[slot + at.B_COUNT] = 0
    S[slot + at.B_TIME] = 0
    S[at.G_LAST_SIGNAL] = max(S[at.G_LAST_SIGNAL], time)
    for number in range(C[at.K_UNITS]):
        _deliver(C, S, C[C[at.K_UNIT_BASES] + number], signal, -1, time)


@inlined
def has_tokens(C, S, unit, instr):
    """Whether everything an instruction waits for has been posted."""
    position, last = C[instr + at.I_WAITS], C[instr + at.I_WAITS_END]
    while position < last:
        ring = unit + C[position]
        if S[ring + at.R_HEAD] == S[ring + at.R_TAIL]:
            return False
        position += at.PAIR
    kind = C[instr + at.I_SIGNAL_KIND]
    return kind < at.WAIT or _is_allowed(C, S, unit, instr, kind)


@helper
def _is_allowed(C, S, unit, instr, kind):
    """Whether the signal that an instruction waits for has been raised, or the accumulator's blocks are its own."""
    if kind == at.WAIT:
        return _is_signalled(C, S, unit, C[instr + at.I_SIGNAL])
    ring = unit + C[instr + at.I_TAKES]
    return S[unit + C[instr + at.I_SUM] + at.SUM_BEGUN] != 0 or S[ring + at.R_HEAD] != S[ring + at.R_TAIL]


@helper
def _is_signalled(C, S, unit, signal):
    """Whether every sender of a signal has raised it once more."""
    part = S[unit + at.U_PART]
    size = at.R_TOKENS + C[at.K_RING_MASK] + 1
    ring = unit + C[part + at.PT_SIGNAL_RINGS] + signal * C[part + at.PT_SENDERS] * size
    for _ in range(C[part + at.PT_SENDERS]):
        if S[ring + at.R_HEAD] == S[ring + at.R_TAIL]:
            return False
        ring += size
    return True


@inlined
def take_token(C, S, ring):
    """The cycle at which the next token was posted; it is consumed."""
    head = S[ring + at.R_HEAD]
    S[ring + at.R_HEAD] = head + 1
    return S[ring + at.R_TOKENS + (head & C[at.K_RING_MASK])]


@helper
def take_signal(C, S, unit, signal, latest, cause):
    """Consume a signal of every sender: the latest cycle so far at which something was posted, and its cause."""
    part = S[unit + at.U_PART]
    size = at.R_TOKENS + C[at.K_RING_MASK] + 1
    ring = unit + C[part + at.PT_SIGNAL_RINGS] + signal * C[part + at.PT_SENDERS] * size
    for _ in range(C[part + at.PT_SENDERS]):
        posted = take_token(C, S, ring)
        if posted > latest:
            latest, cause = posted, (C[part + at.PT_SIGNAL_WAITS] + signal) << at.CAUSE_BITS | record.WAIT_SYNC
        ring += size
    return latest, cause
