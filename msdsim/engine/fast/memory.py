"""The memory system, compiled: what :mod:`msdsim.engine.memory` says, on arrays.

``line[line]`` of :class:`~msdsim.engine.fast.layout.L2` says where a line of GM is: ABSENT from L2, HERE, or COMING (it then
arrives at ``ready[line]``), with DIRTY added once it has been written.  Where all lines of the kernel fit into L2 at once
(``K_ROOMY``), nothing is ever evicted and that is all there is to know.  Otherwise a line has a way of its set, ``tag`` gives
the line of each way of each set, and ``order`` the ways of each set in the order of their last use: up to 16 of them as the
digits of one word, the latest lowest, so that using a way or finding the oldest is a few shifts.  Ways are taken from the first
to the last; how many have been is in ``taken``.
"""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.banked import read_line, write_line
from msdsim.engine.fast.compiled import divide_function, helper, inlined
from msdsim.engine.memory import SET_SKEW

divide = divide_function()
_PRESENCE = at.DIRTY - 1
_DIRTY_BIT = at.DIRTY.bit_length() - 1
_UNIT = (1 << at.UNIT_BITS) - 1
#: A one, and the highest bit, in each digit of a word of ``order``.
_ONES, _HIGHS = 0x1111111111111111, -0x7777777777777778


class Piece(NamedTuple):
    """Rows of bytes that a port asks for at once."""

    address: Any
    rows: Any
    row_bytes: Any
    stride: Any


@inlined
def ceil_div(a, b):
    """Ceiling of a / b for a >= 0, b > 0."""
    return divide(a + b - 1, b)


@inlined
def offset_in_line(C, address):
    """Where in a line an address lies."""
    if C[at.K_LINE_SHIFT] >= 0:
        return address & C[at.K_LINE] - 1
    return address % C[at.K_LINE]


@helper
def _requests(C, instr, row_bytes):
    """PortCost._requests: one for each power of two, the largest first."""
    size, least, smallest = C[instr + at.I_LARGEST], C[instr + at.I_REQUEST], C[instr + at.I_SMALLEST]
    total, rest = 0, row_bytes
    if rest >= size:
        total = row_bytes // size * max(size, least)
        rest = row_bytes % size
    while size > smallest:
        size //= 2
        if rest >= size:
            total += max(size, least)
            rest -= size
    if rest > 0:
        total += max(size, least)
    return total


@helper
def _split(C, instr, count, offset):
    """What a burst takes more in two lines than in one (PortCost._split)."""
    first = C[at.K_LINE] - offset
    second = count - first
    if second <= 0:
        return 0
    if C[instr + at.I_LARGEST] != 0:
        return _requests(C, instr, first) + _requests(C, instr, second) - _requests(C, instr, count)
    granule = C[instr + at.I_GRANULE]
    granules = ceil_div(first, granule) + ceil_div(second, granule) - ceil_div(count, granule)
    return granules * granule + C[instr + at.I_SPLIT]


@helper
def port_bytes(C, instr, row_bytes, offset):
    """Bytes of port time of one row segment that begins at ``offset`` in a line (PortCost.port_bytes)."""
    if offset != 0 and C[instr + at.I_BLOCK] != 0:
        block = C[instr + at.I_BLOCK]
        if offset % block != 0:
            blocks = ceil_div(offset % block + row_bytes, block)
            return max(C[instr + at.I_GRANULE], blocks * C[instr + at.I_BLOCK_PORT])
    busy = _requests(C, instr, row_bytes) if C[instr + at.I_LARGEST] != 0 else row_bytes
    if offset != 0 and C[instr + at.I_SPLIT] != at.UNSPLIT:
        line = C[at.K_LINE]
        busy += row_bytes // line * _split(C, instr, line, offset) + _split(C, instr, row_bytes % line, offset)
    return max(C[instr + at.I_GRANULE], busy)


@helper
def unaligned_bytes(C, S, instr, address, rows, row_bytes):
    """Bytes of port time of some rows that begin at different places in a line; remembered, as the same pieces come again and
    again."""
    line = C[at.K_LINE]
    offset = offset_in_line(C, address)
    entry = C[at.K_KNOWN] + (instr + 31 * row_bytes + 7 * rows + (offset >> 5) & at.KNOWN_PLACES - 1) * at.KNOWN_SIZE
    if (S[entry + at.KNOWN_INSTR] != instr or S[entry + at.KNOWN_OFFSET] != offset or S[entry + at.KNOWN_ROWS] != rows
            or S[entry + at.KNOWN_ROW_BYTES] != row_bytes):
        S[entry + at.KNOWN_INSTR] = instr
        S[entry + at.KNOWN_OFFSET] = offset
        S[entry + at.KNOWN_ROWS] = rows
        S[entry + at.KNOWN_ROW_BYTES] = row_bytes
        step, total = C[instr + at.I_STRIDE] % line, 0
        for _ in range(rows):
            total += port_bytes(C, instr, row_bytes, offset)
            offset += step
            if offset >= line:
                offset -= line
        S[entry + at.KNOWN_BYTES] = total
    return S[entry + at.KNOWN_BYTES]


@inlined
def _serve(S, free, now, count, scale, per_byte):
    """A server that is free at ``S[free] / scale`` serves ``count`` bytes asked for at ``now``; the cycle they have passed."""
    busy = max(S[free], now * scale) + count * per_byte
    S[free] = busy
    return ceil_div(busy, scale)


# The order of use in a set


@helper
def _touch_in_list(l2, index, way):
    """Move a way to the front of its set's list, which begins at ``index``."""
    before, found = way, l2.order[index]
    while found != way:
        l2.order[index] = before
        before = found
        index += 1
        found = l2.order[index]
    l2.order[index] = before


@inlined
def _touch(l2, ways, place, way):
    """A way becomes the most recently used one of its set."""
    if ways > at.WAYS_OF_A_WORD:
        _touch_in_list(l2, place * ways, way)
        return
    order = l2.order[place]
    if order & 15 != way:
        # The lowest of the word's digits that is ``way`` makes the lowest bit of ``found``.
        unlike = order ^ way * _ONES
        found = unlike - _ONES & ~unlike & _HIGHS
        through = found ^ found - 1
        l2.order[place] = order & ~through | order << 4 & through | way


@inlined
def _take_oldest(l2, ways, place):
    """The least recently used way of a set, from now on its most recently used one."""
    if ways > at.WAYS_OF_A_WORD:
        way = l2.order[place * ways + ways - 1]
        _touch_in_list(l2, place * ways, way)
        return way
    order = l2.order[place]
    way = order >> 4 * ways - 4 & 15
    l2.order[place] = order << 4 | way
    return way


# Lines


@inlined
def _insert(C, S, l2, ways, place, line, left):
    """Give a line the way of its set's least recently used one; that way, and 1 if a dirty line had to leave, which is then at
    S[left]."""
    way = _take_oldest(l2, ways, place)
    slot = way * C[at.K_SETS] + place
    written_back = 0
    if l2.taken[place] < ways:
        l2.taken[place] += 1
    else:
        evicted = l2.tag[slot]
        if l2.line[evicted] & at.DIRTY != 0:
            written_back = 1
            S[left] = evicted
        l2.line[evicted] = at.ABSENT
    l2.tag[slot] = line
    return way, written_back


@inlined
def _line_of(C, address):
    shift = C[at.K_LINE_SHIFT]
    return address >> shift if shift >= 0 else divide(address, C[at.K_LINE])


@helper
def _more_sectors(C, S, index, line, address, row_bytes):
    """A row that passes L2 by asks for its sectors of a line, the ``index``-th that missed: the bytes that this adds."""
    size, sector = C[at.K_LINE], C[at.K_SECTOR]
    begin, end = max(address, line * size), min(address + row_bytes, line * size + size)
    asked = S[C[at.K_SECTORS] + index]
    S[C[at.K_SECTORS] + index] = min(size // sector, asked + ceil_div(end, sector) - begin // sector)
    return (S[C[at.K_SECTORS] + index] - asked) * sector


@inlined
def _look_up(C, S, l2, now, piece, roomy, write, bypass):
    """Look up the lines of a piece, or mark them as written; with ``bypass`` those that are not in L2 stay outside.

    Returns how many missed (they are listed at K_MISSED), the bytes to read for them, how many lines go to HBM (K_LEFT: dirty
    ones that had to leave, and those whose writing bypasses L2), and when the last line in flight arrives.
    """
    missed, to_read, to_hbm, ready = 0, 0, 0, 0
    listed, left = C[at.K_MISSED], C[at.K_LEFT]
    sets, ways, shift = C[at.K_SETS], C[at.K_WAYS], C[at.K_LINE_SHIFT]
    address, before = piece.address, -1
    # The set of a line is the line plus ``skew``, up to the line at which the numbering of sets wraps.
    skew, wrap = 0, -1
    for _ in range(piece.rows):
        if shift >= 0:
            line, last = address >> shift, address + piece.row_bytes - 1 >> shift
        else:
            line, last = divide(address, C[at.K_LINE]), divide(address + piece.row_bytes - 1, C[at.K_LINE])
        if line == before:
            # Rows that share a line ask for it once.
            if bypass != 0 and missed > 0 and S[listed + missed - 1] == line:
                to_read += _more_sectors(C, S, missed - 1, line, address, piece.row_bytes)
            line += 1
        before = last
        while line <= last:
            state: Any = np.int64(l2.line[line])
            place = 0
            if not roomy:
                if line >= wrap:
                    wraps = divide(line, sets)
                    skew = wraps * SET_SKEW
                    skew -= (divide(skew, sets) + wraps) * sets
                    wrap = (wraps + 1) * sets
                place = line + skew
                if place >= sets:
                    place -= sets
            if state & _PRESENCE == at.ABSENT:
                if write == 0:
                    S[listed + missed] = line
                    missed += 1
                if bypass != 0:
                    if write != 0:
                        S[left + to_hbm] = line
                        to_hbm += 1
                    else:
                        S[C[at.K_SECTORS] + missed - 1] = 0
                        to_read += _more_sectors(C, S, missed - 1, line, address, piece.row_bytes)
                    line += 1
                    continue
                state = at.HERE
                if not roomy:
                    way, written_back = _insert(C, S, l2, ways, place, line, left + to_hbm)
                    to_hbm += written_back
                    state |= way << at.WAY_BITS
                l2.line[line] = state | write << _DIRTY_BIT
            else:
                if state & _PRESENCE == at.COMING and write == 0:
                    arrives = l2.ready[line]
                    if arrives > now:
                        ready = max(ready, arrives)
                    else:
                        l2.line[line] = state + (at.HERE - at.COMING)
                elif write != 0:
                    l2.line[line] = state | at.DIRTY
                if not roomy:
                    _touch(l2, ways, place, state >> at.WAY_BITS)
            line += 1
        address += piece.stride
    if bypass == 0:
        to_read = missed * C[at.K_LINE]
    return missed, to_read, to_hbm, ready


# One loop for each case: what is constant in it need not be looked at for every line.


@helper
def _read(C, S, l2, now, piece, bypass):
    return _look_up(C, S, l2, now, piece, False, 0, bypass)


@helper
def _read_roomy(C, S, l2, now, piece, bypass):
    return _look_up(C, S, l2, now, piece, True, 0, bypass)


@helper
def _write(C, S, l2, now, piece, bypass):
    return _look_up(C, S, l2, now, piece, False, 1, bypass)


@helper
def _write_roomy(C, S, l2, now, piece, bypass):
    return _look_up(C, S, l2, now, piece, True, 1, bypass)


@inlined
def _expect(l2, line, served):
    """A line that missed arrives at ``served``, unless it stays outside or has left again already."""
    if l2.line[line] & at.STATE == at.HERE:
        l2.line[line] += at.COMING - at.HERE
        l2.ready[line] = served


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
        _expect(l2, line, served)
    for index in range(to_hbm):
        write_line(C, S, now, S[left + index])
    return first, done


@inlined
def _turn_of(C, line):
    """Place of a line in L2.turn."""
    return (line & C[at.K_TURN_LINES] - 1) * C[at.K_TURN_PIECES] + (line >> C[at.K_TURN_SHIFT])


@inlined
def access(C, S, l2, now, unit, piece, write, l2_bytes, bypass):
    """Serve a :class:`Piece` that ``unit`` asks for at ``now`` and that takes ``l2_bytes`` of L2's time: when its data has
    passed L2 and HBM, and the HBM bytes read and written for it."""
    same, first, turn, word = C[at.K_SAME_LINE], 0, 0, 0
    roomy = C[at.K_ROOMY] != 0
    if same != 0:
        # Loaded long before it is used, as it often comes from far.
        first = _line_of(C, piece.address)
        turn = _turn_of(C, first)
        word = l2.turn[turn]
    if write != 0:
        missed, hbm_read, to_hbm, done = (_write_roomy(C, S, l2, now, piece, bypass) if roomy
                                          else _write(C, S, l2, now, piece, bypass))
        done = _serve(S, at.G_WRITE_FREE, now, l2_bytes, C[at.K_WRITE_SCALE], C[at.K_WRITE_PER_BYTE])
    else:
        missed, hbm_read, to_hbm, done = (_read_roomy(C, S, l2, now, piece, bypass) if roomy
                                          else _read(C, S, l2, now, piece, bypass))
        done = max(done, _serve(S, at.G_READ_FREE, now, l2_bytes, C[at.K_READ_SCALE], C[at.K_READ_PER_BYTE]))
    hbm_write = to_hbm * C[at.K_LINE]
    served = now
    if hbm_read + hbm_write > 0 and C[at.K_BANKED] != 0:
        served, last = _banks(C, S, l2, now, missed, to_hbm, bypass)
        done = max(done, last)
    elif hbm_read + hbm_write > 0:
        served = _serve(S, at.G_HBM_FREE, now, hbm_read + hbm_write, C[at.K_HBM_SCALE], C[at.K_HBM_PER_BYTE])
        if missed > 0:
            served += C[at.K_MISS_LATENCY] + _written_back(C, to_hbm)
            for index in range(C[at.K_MISSED], C[at.K_MISSED] + missed):
                _expect(l2, S[index], served)
        done = max(done, served)
    if same != 0:
        start = now
        if word >> at.UNIT_BITS > now:
            # A core that was the last one does not wait for itself (Turns.start).
            start = max(now, (word >> at.UNIT_BITS) - (same if word & _UNIT == unit else 0))
            done = max(done, start)
        if missed > 0 and S[C[at.K_MISSED]] == first:
            start = max(start, served)
        l2.turn[turn] = (start + same) << at.UNIT_BITS | unit
    return done, hbm_read, hbm_write


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
    T[row] += hbm_read
    T[row + 1] += hbm_write
