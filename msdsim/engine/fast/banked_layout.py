"""Where HBM's banks are in the fast engine's arrays, and what is put there; the compiled code is in ``banked``.

The timings are a block of ``C`` at ``K_BANKED`` (0 where HBM is plain bandwidth).  The state is a block a channel in ``S``:
the words ``CH_*``, the write queue, when each bank group is free, and the words ``BK_*`` of each bank.
"""

from __future__ import annotations

import numpy as np

from msdsim.engine.banked import BANK_SKEW, DIGITS, BankedTimings, Counters
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.words import Block, Words

_b = Block("C", "B_", "timings of the banks, in clocks of the memory")
B_STATE = _b.word("in S: the channels")
B_NUMERATOR = _b.word("clocks of the memory in a cycle")
B_DENOMINATOR = _b.word("their denominator")
B_CHANNELS = _b.word("pseudo-channels")
B_GROUPS = _b.word("bank groups of a channel")
B_BANKS = _b.word("banks of a channel")
B_BURSTS = _b.word("bursts of a line")
B_SLOTS = _b.word("lines of a row")
B_SHORT = _b.word("tCCD_S")
B_LONG = _b.word("tCCD_L")
B_RCD = _b.word("tRCD")
B_RP = _b.word("tRP")
B_CL = _b.word("CL")
B_CWL = _b.word("CWL")
B_RAS = _b.word("tRAS")
B_RTP = _b.word("tRTP")
B_WR = _b.word("tWR")
B_ACTIVATION = _b.word("distance of activations in a channel")
B_RFC = _b.word("tRFC")
B_REFI = _b.word("tREFI")
B_READ_TO_WRITE = _b.word("clocks to turn the bus from reading to writing")
B_WRITE_TO_READ = _b.word("clocks to turn it back")
B_BATCH = _b.word("writes that are queued and then go together")
B_CONTROLLER = _b.word("cycles that the controller takes")
B_SKEW = _b.word("banks by which each row is skewed")
B_CHANNEL_SIZE = _b.word("words of a channel in S")
B_GROUP_AT = _b.word("in a channel: when each bank group is free")
B_BANK_AT = _b.word("in a channel: the banks")
B_DIGITS = _b.word("weights of a line's digits in its channel; they follow")

_ch = Block("S", "CH_", "a channel; its write queue, bank groups and banks follow")
CH_FREE = _ch.word("clock from which the bus is free")
CH_WRITING = _ch.word("1 while the bus is turned to writing")
CH_ACTIVATION = _ch.word("clock of the next activation at the earliest")
CH_REFRESH = _ch.word("clock of the next refresh")
CH_QUEUED = _ch.word("writes in the queue")
CH_MISSES = _ch.word("rows opened in a closed bank")
CH_CONFLICTS = _ch.word("rows opened after another one")
CH_REFRESHES = _ch.word("refreshes")
CH_TURNS = _ch.word("turns of the bus")
CH_READS = _ch.word("bursts read")
CH_WRITES = _ch.word("bursts written")
CH_QUEUE = _ch.size()

_bk = Block("S", "BK_", "a bank")
BK_ROW = _bk.word("open row, or -1")
BK_READY = _bk.word("clock from which it takes columns")
BK_OPENED = _bk.word("clock of its activation")
BK_CLOSE = _bk.word("clock at which it can next be closed or, closed, opened")
BK_SIZE = _bk.size()

BLOCKS = (_b, _ch, _bk)


def place(C: Words, S: Words, timings: BankedTimings) -> None:
    """Put the timings and the first state of all channels into the arrays."""
    t = timings
    group_at = CH_QUEUE + t.write_batch
    bank_at = group_at + t.groups
    size = bank_at + t.banks * BK_SIZE
    channel = [0] * size
    channel[CH_REFRESH] = t.refi
    for bank in range(t.banks):
        channel[bank_at + bank * BK_SIZE + BK_ROW] = -1
    state = S.add(channel * t.channels)
    C.words[at.K_BANKED] = C.add([
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
