"""Where HBM's banks are in the fast engine's arrays, and what is put there; the compiled code is in ``banked``.

The timings are a block of ``C`` at ``K_BANKED`` (0 where HBM is plain bandwidth).  The state is a block a channel in ``S``:
the words ``CH_*``, the write queue, when each bank group is free, and four words a bank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from msdsim.engine.banked import BANK_SKEW, DIGITS, BankedTimings, Counters
from msdsim.engine.fast import layout as at

if TYPE_CHECKING:
    from msdsim.engine.fast.builder import Builder

# C: the timings

(B_STATE, B_NUMERATOR, B_DENOMINATOR, B_CHANNELS, B_GROUPS, B_BANKS, B_BURSTS, B_SLOTS, B_SHORT, B_LONG, B_RCD, B_RP, B_CL,
 B_CWL, B_RAS, B_RTP, B_WR, B_ACTIVATION, B_RFC, B_REFI, B_READ_TO_WRITE, B_WRITE_TO_READ, B_BATCH, B_CONTROLLER, B_SKEW,
 B_CHANNEL_SIZE, B_GROUP_AT, B_BANK_AT, B_DIGITS) = range(29)

# S: a channel, and in it a bank

(CH_FREE, CH_WRITING, CH_ACTIVATION, CH_REFRESH, CH_QUEUED, CH_MISSES, CH_CONFLICTS, CH_REFRESHES, CH_TURNS, CH_READS,
 CH_WRITES, CH_QUEUE) = range(12)
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
