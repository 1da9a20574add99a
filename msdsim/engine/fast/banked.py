"""HBM bank by bank, compiled: what :mod:`msdsim.engine.banked` says, on the arrays of ``banked_layout``."""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import banked_layout as has
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div, divide
from msdsim.engine.fast.compiled import helper, inlined


@inlined
def _channel_of(C, table, line):
    """Place in S of the channel that a line is in."""
    channels = C[table + has.B_CHANNELS]
    rest = divide(line, channels)
    channel = line
    for number in range(C[table + has.B_DIGITS]):
        channel += C[table + has.B_DIGITS + 1 + number] * rest
        rest = divide(rest, channels)
    return C[table + has.B_STATE] + (channel - divide(channel, channels) * channels) * C[table + has.B_CHANNEL_SIZE]


@helper
def _refresh(C, S, table, channel, now):
    refi = C[table + has.B_REFI]
    reached = max(now, S[channel + has.CH_FREE])
    while reached >= S[channel + has.CH_REFRESH]:
        passed = (reached - S[channel + has.CH_REFRESH]) // refi
        due = S[channel + has.CH_REFRESH] + passed * refi
        end = max(due, S[channel + has.CH_FREE]) + C[table + has.B_RFC]
        S[channel + has.CH_REFRESHES] += passed + 1
        S[channel + has.CH_REFRESH] = due + refi
        S[channel + has.CH_FREE] = end
        bank = channel + C[table + has.B_BANK_AT]
        for _ in range(C[table + has.B_BANKS]):
            S[bank + has.BK_ROW] = -1
            S[bank + has.BK_CLOSE] = end
            bank += has.BK_SIZE
        reached = max(now, end)


@inlined
def _open(C, S, table, channel, bank, row, now):
    """Have a row open in a bank; the clock from which it takes columns."""
    found = S[bank + has.BK_ROW]
    if found != row:
        opens = max(now, S[bank + has.BK_CLOSE])
        if found >= 0:
            S[channel + has.CH_CONFLICTS] += 1
            opens += C[table + has.B_RP]
        else:
            S[channel + has.CH_MISSES] += 1
        turn = max(S[channel + has.CH_ACTIVATION], now)
        S[channel + has.CH_ACTIVATION] = turn + C[table + has.B_ACTIVATION]
        opens = max(opens, turn)
        S[bank + has.BK_ROW] = row
        S[bank + has.BK_OPENED] = opens
        S[bank + has.BK_READY] = opens + C[table + has.B_RCD]
    return S[bank + has.BK_READY]


@helper
def _line(C, S, table, channel, now, line, write, bursts):
    """Schedule the columns of a line; the clock after its last data."""
    _refresh(C, S, table, channel, now)
    number = line // C[table + has.B_CHANNELS] // C[table + has.B_SLOTS]
    banks = C[table + has.B_BANKS]
    row = number // banks
    at_bank = (number + row * C[table + has.B_SKEW]) % banks
    bank = channel + C[table + has.B_BANK_AT] + at_bank * has.BK_SIZE
    group = channel + C[table + has.B_GROUP_AT] + at_bank % C[table + has.B_GROUPS]
    ready = _open(C, S, table, channel, bank, row, now)
    if write != S[channel + has.CH_WRITING]:
        S[channel + has.CH_FREE] += C[table + has.B_READ_TO_WRITE] if write != 0 else C[table + has.B_WRITE_TO_READ]
        S[channel + has.CH_WRITING] = write
        S[channel + has.CH_TURNS] += 1
    short, long = C[table + has.B_SHORT], C[table + has.B_LONG]
    on_bus = max(S[channel + has.CH_FREE], now)
    S[channel + has.CH_FREE] = on_bus + bursts * short
    start = max(max(ready, on_bus), S[group])
    last = start + (bursts - 1) * long
    S[group] = last + long
    after = last + (C[table + has.B_CWL] + short + C[table + has.B_WR] if write != 0 else C[table + has.B_RTP])
    S[bank + has.BK_CLOSE] = max(S[bank + has.BK_OPENED] + C[table + has.B_RAS], after)
    S[channel + (has.CH_WRITES if write != 0 else has.CH_READS)] += bursts
    return last + short + (C[table + has.B_CWL] if write != 0 else C[table + has.B_CL])


@helper
def read_line(C, S, now, line, sectors):
    """The cycle at which so many sectors of a line asked for at cycle ``now`` have been read."""
    table = C[at.K_BANKED]
    bursts = ceil_div(C[table + has.B_BURSTS] * sectors * C[at.K_SECTOR], C[at.K_LINE])
    numerator, denominator = C[table + has.B_NUMERATOR], C[table + has.B_DENOMINATOR]
    end = _line(C, S, table, _channel_of(C, table, line), ceil_div(now * numerator, denominator), line, 0, bursts)
    return ceil_div(end * denominator, numerator) + C[table + has.B_CONTROLLER]


@helper
def write_line(C, S, now, line):
    """Take a line to be written; a full queue goes to the banks at once, in the order of lines."""
    table = C[at.K_BANKED]
    channel = _channel_of(C, table, line)
    queue, queued = channel + has.CH_QUEUE, S[channel + has.CH_QUEUED]
    # Kept in order as it fills.
    place_at = queue + queued
    while place_at > queue and S[place_at - 1] > line:
        S[place_at] = S[place_at - 1]
        place_at -= 1
    S[place_at] = line
    queued += 1
    if queued == C[table + has.B_BATCH]:
        clock = ceil_div(now * C[table + has.B_NUMERATOR], C[table + has.B_DENOMINATOR])
        for index in range(queued):
            _line(C, S, table, channel, clock, S[queue + index], 1, C[table + has.B_BURSTS])
        queued = 0
    S[channel + has.CH_QUEUED] = queued
