"""The memory system, compiled: what :mod:`msdsim.engine.memory` says, on arrays; the lines of L2 are those of ``cache``."""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import l2_layout as on
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div
from msdsim.engine.fast.banked import read_line, write_line
from msdsim.engine.fast.cache import expect, is_whole, line_of, look_up, owner_of, place_of, shape_of, turn_of
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.timeline import record

_UNIT = (1 << at.UNIT_BITS) - 1


@inlined
def _serve(S, free, now, count, scale, per_byte):
    """A server that is free at ``S[free] / scale`` serves ``count`` bytes asked for at ``now``; the cycle they have passed."""
    busy = max(S[free], now * scale) + count * per_byte
    S[free] = busy
    return ceil_div(busy, scale)


@inlined
def add_cycles(cycles, part, more, more_part, scale):
    """The sum of two times in whole cycles and parts of one."""
    part += more_part
    carry = 1 if part >= scale else 0
    return cycles + more + carry, part - scale * carry


@inlined
def _pass_l2(S, side, now, step, step_part, scale):
    """A side of L2 serves what takes it so long and is asked for at ``now``; the cycle at which that has passed."""
    free, part = S[side], S[side + 1]
    if free < now:
        free, part = now, 0
    free, part = add_cycles(free, part, step, step_part, scale)
    S[side], S[side + 1] = free, part
    return free + (1 if part > 0 else 0)


@inlined
def _written_back(C, to_hbm):
    """How much later lines arrive since what they displace is written back first (MemorySystem._from_hbm)."""
    return C[at.K_WRITE_BACK] if to_hbm > 0 else 0


@helper
def _banks(C, S, l2, now, missed, to_hbm, bypass):
    """The banks read the lines that missed, then take those that go there.

    Returns when the first of the former has arrived, and when all have.
    """
    listed, left = C[at.K_MISSED], C[at.K_LEFT]
    first, done = 0, 0
    for index in range(missed):
        line = S[listed + index]
        served = read_line(C, S, now, line, S[C[at.K_SECTORS] + index] if bypass != 0 else C[at.K_LINE] // C[at.K_SECTOR])
        served += _written_back(C, to_hbm)
        done = max(done, served)
        if index == 0:
            first = served
        expect(l2, line, served)
    for index in range(to_hbm):
        write_line(C, S, now, S[left + index])
    return first, done


@helper
def _from_hbm(C, S, l2, now, found, record, bypass):
    """HBM reads the lines that missed and takes those that go there: when the first of the former has arrived, and when all
    have."""
    missed, to_hbm = found.missed, found.to_hbm
    if C[at.K_BANKED] != 0:
        return _banks(C, S, l2, now, missed, to_hbm, bypass)
    served = _serve(S, at.G_HBM_FREE, now, found.to_read + to_hbm * C[at.K_LINE], C[at.K_HBM_SCALE], C[at.K_HBM_PER_BYTE])
    if missed > 0:
        served += C[at.K_MISS_LATENCY] + _written_back(C, to_hbm)
        if C[at.K_ROOMY] == 0:
            l2.owners[owner_of(l2, record) * on.OW_SIZE + on.OW_READY] = served
        else:
            for index in range(C[at.K_MISSED], C[at.K_MISSED] + missed):
                expect(l2, S[index], served)
    return served, served


@helper
def _by_line(C, S, l2, now, piece, place, record, write, bypass):
    """Serve a piece line by line: when its data is there, when its first line is if that missed (else ``now``), and the HBM
    bytes read and written for it."""
    first = now
    found = look_up(C, S, l2, now, piece, record, write, bypass)
    done, hbm_write = found.ready if write == 0 else 0, found.to_hbm * C[at.K_LINE]
    if found.to_read + hbm_write > 0:
        served, last = _from_hbm(C, S, l2, now, found, record, bypass)
        done = max(done, last)
        if found.missed > 0 and S[C[at.K_MISSED]] == line_of(C, piece.address):
            first = served
    if write == 0:
        l2.pieces[place + on.PC_READY] = done
    return done, first, found.to_read, hbm_write


@inlined
def _take_turn(C, l2, now, unit, address, place, first):
    """The cycle from which the piece at an address, whose block is at ``place``, is served to ``unit``: cores that ask for the
    same first line take turns (Turns.start)."""
    same, start = C[at.K_SAME_LINE], now
    if same != 0:
        word = turn_of(C, place, address)
        turn = l2.pieces[word]
        if turn >> at.UNIT_BITS > now:
            # A core that was the last one does not wait for itself.
            start = max(now, (turn >> at.UNIT_BITS) - (same if turn & _UNIT == unit else 0))
        l2.pieces[word] = (max(start, first) + same) << at.UNIT_BITS | unit
    return start


@inlined
def access(C, S, l2, now, unit, piece, write, step, step_part, bypass):
    """Serve a :class:`Piece` that ``unit`` asks for at ``now`` and that takes ``step`` cycles and a part of L2's time: when its
    data has passed L2 and HBM, and the HBM bytes read and written for it."""
    place = place_of(C, S, l2, piece.address)
    record = place + (on.PC_WRITTEN if write != 0 else on.PC_READ)
    S[at.G_USES] += 1
    hbm_read, hbm_write, first, done = 0, 0, now, 0
    if is_whole(l2, record, shape_of(C, piece), piece.stride):
        l2.owners[owner_of(l2, record) * on.OW_SIZE + on.OW_LAST] = S[at.G_USES]
        if write == 0:
            done = l2.pieces[place + on.PC_READY]
    else:
        done, first, hbm_read, hbm_write = _by_line(C, S, l2, now, piece, place, record, write, bypass)
    if write != 0:
        passed = _pass_l2(S, at.G_WRITE_FREE, now, step, step_part, C[at.K_WRITE_SCALE])
    else:
        passed = _pass_l2(S, at.G_READ_FREE, now, step, step_part, C[at.K_READ_SCALE])
    start = _take_turn(C, l2, now, unit, piece.address, place, first)
    return max(max(done, passed), start), hbm_read, hbm_write


@helper
def _merge_intervals(C, T):
    """Halve the number of intervals of bandwidth by adding neighbours, so that time can go on."""
    half = C[at.K_INTERVALS] // 2
    for index in range(half):
        for column in range(4):
            T[at.T_BANDWIDTH + index * 4 + column] = (
                T[at.T_BANDWIDTH + index * 8 + column] + T[at.T_BANDWIDTH + index * 8 + 4 + column]
            )
    for index in range(at.T_BANDWIDTH + half * 4, at.T_BANDWIDTH + half * 8):
        T[index] = 0
    T[at.T_INTERVAL_SHIFT] += 1


@inlined
def count_bandwidth(C, T, now, kind, count, hbm_read, hbm_write):
    """Add a piece to the bandwidth over time; neighbouring intervals merge when ``now`` is beyond the last."""
    while now >> T[at.T_INTERVAL_SHIFT] >= C[at.K_INTERVALS]:
        _merge_intervals(C, T)
    row = at.T_BANDWIDTH + (now >> T[at.T_INTERVAL_SHIFT]) * 4
    T[row + kind] += count
    if hbm_read + hbm_write > 0:
        T[row + record.HBM_READ] += hbm_read
        T[row + record.HBM_WRITE] += hbm_write
