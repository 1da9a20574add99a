"""HBM bank by bank, compiled: what :mod:`msdsim.engine.banked` says, on arrays.

The timings are a block of ``C`` at ``K_BANKED`` (0 where HBM is plain bandwidth); the state is a block a channel in ``S``: the words
``CH_*``, the write queue, when each bank group is free, and four words a bank.
"""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msdsim.engine.banked import BANK_SKEW, DIGITS, BankedTimings, Counters
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper, inlined

if TYPE_CHECKING:
    from msdsim.engine.fast.builder import Builder

# C: the timings

(B_STATE, B_NUMERATOR, B_DENOMINATOR, B_CHANNELS, B_GROUPS, B_BANKS, B_BURSTS, B_SLOTS, B_SHORT, B_LONG, B_RCD, B_RP, B_CL, B_CWL,
 B_RAS, B_RTP, B_WR, B_ACTIVATION, B_RFC, B_REFI, B_READ_TO_WRITE, B_WRITE_TO_READ, B_BATCH, B_CONTROLLER, B_SKEW, B_CHANNEL_SIZE,
 B_GROUP_AT, B_BANK_AT, B_DIGITS) = range(29)

# S: a channel, and in it a bank

(CH_FREE, CH_WRITING, CH_ACTIVATION, CH_REFRESH, CH_QUEUED, CH_MISSES, CH_CONFLICTS, CH_REFRESHES, CH_TURNS, CH_READS, CH_WRITES,
 CH_QUEUE) = range(12)
BK_ROW, BK_READY, BK_OPENED, BK_CLOSE, BK_SIZE = range(5)


def place(builder: Builder, timings: BankedTimings) -> None:
    """Put the timings and the first state of all channels into the builder's arrays."""
    t = timings
    group_at = CH_QUEUE + t.write_batch
    bank_at = group_at + t.groups
    size = bank_at + t.banks * BK_SIZE
    channel = [0] * size
    channel[CH_REFRESH] = t.refi
    for bank in range(t.banks):
        channel[bank_at + bank * BK_SIZE + BK_ROW] = -1
    state = builder.S.add(channel * t.channels)
    builder.C.words[at.K_BANKED] = builder.C.add([
        state, t.clock.numerator, t.clock.denominator, t.channels, t.groups, t.banks, t.bursts, t.slots, t.short, t.long, t.rcd,
        t.rp, t.cl, t.cwl, t.ras, t.rtp, t.wr, t.activation, t.rfc, t.refi, t.read_to_write, t.write_to_read, t.write_batch,
        t.controller, BANK_SKEW, size, group_at, bank_at, len(DIGITS), *DIGITS,
    ])


def counters(timings: BankedTimings, C: np.ndarray, S: np.ndarray) -> Counters:
    """What the banks did in a run."""
    table = int(C[at.K_BANKED])
    start, size = int(C[table + B_STATE]), int(C[table + B_CHANNEL_SIZE])
    channels = S[start : start + timings.channels * size].reshape(timings.channels, size)
    found = Counters(timings.channels)
    found.misses, found.conflicts, found.refreshes, found.turns = (
        int(total) for total in channels[:, CH_MISSES : CH_TURNS + 1].sum(axis=0))
    found.reads, found.writes = channels[:, CH_READS].tolist(), channels[:, CH_WRITES].tolist()
    return found


@inlined
def _ceil_div(a, b):
    return (a + b - 1) // b


@inlined
def _channel_of(C, table, line):
    """Place in S of the channel that a line is in."""
    channels = C[table + B_CHANNELS]
    rest = line // channels
    channel = line
    for number in range(C[table + B_DIGITS]):
        channel += C[table + B_DIGITS + 1 + number] * rest
        rest //= channels
    return C[table + B_STATE] + channel % channels * C[table + B_CHANNEL_SIZE]


@helper
def _refresh(C, S, table, channel, now):
    refi = C[table + B_REFI]
    reached = max(now, S[channel + CH_FREE])
    while reached >= S[channel + CH_REFRESH]:
        passed = (reached - S[channel + CH_REFRESH]) // refi
        due = S[channel + CH_REFRESH] + passed * refi
        end = max(due, S[channel + CH_FREE]) + C[table + B_RFC]
        S[channel + CH_REFRESHES] += passed + 1
        S[channel + CH_REFRESH] = due + refi
        S[channel + CH_FREE] = end
        bank = channel + C[table + B_BANK_AT]
        for _ in range(C[table + B_BANKS]):
            S[bank + BK_ROW] = -1
            S[bank + BK_CLOSE] = end
            bank += BK_SIZE
        reached = max(now, end)


@inlined
def _open(C, S, table, channel, bank, row, now):
    """Have a row open in a bank; the clock from which it takes columns."""
    found = S[bank + BK_ROW]
    if found != row:
        opens = max(now, S[bank + BK_CLOSE])
        if found >= 0:
            S[channel + CH_CONFLICTS] += 1
            opens += C[table + B_RP]
        else:
            S[channel + CH_MISSES] += 1
        turn = max(S[channel + CH_ACTIVATION], now)
        S[channel + CH_ACTIVATION] = turn + C[table + B_ACTIVATION]
        opens = max(opens, turn)
        S[bank + BK_ROW] = row
        S[bank + BK_OPENED] = opens
        S[bank + BK_READY] = opens + C[table + B_RCD]
    return S[bank + BK_READY]


@helper
def _line(C, S, table, channel, now, line, write):
    """Schedule the columns of a line; the clock after its last data."""
    _refresh(C, S, table, channel, now)
    number = line // C[table + B_CHANNELS] // C[table + B_SLOTS]
    banks = C[table + B_BANKS]
    row = number // banks
    at_bank = (number + row * C[table + B_SKEW]) % banks
    bank = channel + C[table + B_BANK_AT] + at_bank * BK_SIZE
    group = channel + C[table + B_GROUP_AT] + at_bank % C[table + B_GROUPS]
    ready = _open(C, S, table, channel, bank, row, now)
    if write != S[channel + CH_WRITING]:
        S[channel + CH_FREE] += C[table + B_READ_TO_WRITE] if write != 0 else C[table + B_WRITE_TO_READ]
        S[channel + CH_WRITING] = write
        S[channel + CH_TURNS] += 1
    bursts, short, long = C[table + B_BURSTS], C[table + B_SHORT], C[table + B_LONG]
    on_bus = max(S[channel + CH_FREE], now)
    S[channel + CH_FREE] = on_bus + bursts * short
    start = max(max(ready, on_bus), S[group])
    last = start + (bursts - 1) * long
    S[group] = last + long
    after = last + (C[table + B_CWL] + short + C[table + B_WR] if write != 0 else C[table + B_RTP])
    S[bank + BK_CLOSE] = max(S[bank + BK_OPENED] + C[table + B_RAS], after)
    S[channel + (CH_WRITES if write != 0 else CH_READS)] += bursts
    return last + short + (C[table + B_CWL] if write != 0 else C[table + B_CL])


@helper
def read_line(C, S, now, line):
    """The cycle at which a line asked for at cycle ``now`` has been read."""
    table = C[at.K_BANKED]
    numerator, denominator = C[table + B_NUMERATOR], C[table + B_DENOMINATOR]
    end = _line(C, S, table, _channel_of(C, table, line), _ceil_div(now * numerator, denominator), line, 0)
    return _ceil_div(end * denominator, numerator) + C[table + B_CONTROLLER]


@helper
def write_line(C, S, now, line):
    """Take a line to be written; a full queue goes to the banks at once, in the order of lines."""
    table = C[at.K_BANKED]
    channel = _channel_of(C, table, line)
    queue, queued = channel + CH_QUEUE, S[channel + CH_QUEUED]
    # Kept in order as it fills.
    place_at = queue + queued
    while place_at > queue and S[place_at - 1] > line:
        S[place_at] = S[place_at - 1]
        place_at -= 1
    S[place_at] = line
    queued += 1
    if queued == C[table + B_BATCH]:
        clock = _ceil_div(now * C[table + B_NUMERATOR], C[table + B_DENOMINATOR])
        for index in range(queued):
            _line(C, S, table, channel, clock, S[queue + index], 1)
        queued = 0
    S[channel + CH_QUEUED] = queued
