"""The memory system, compiled: what :mod:`msdsim.engine.memory` says, on arrays.

``LINE[line]`` says where a line of GM is: ABSENT from L2, HERE, or COMING, with DIRTY added once it has been written.  Where
all lines of the kernel fit into L2 at once (``K_ROOMY``), nothing is ever evicted and that is all there is to know.  Otherwise
``SLOT[line]`` is its slot in L2, ``TAG`` and ``STAMP`` give each slot's line and last use; the slots of a set lie ``sets``
apart, so that consecutive lines that came together lie together.  ``READY`` is when a line that is COMING arrives, by line
in the first case and by slot in the other.  ``TURN[line]`` is the cycle from which a piece that begins with a line can be
served to another core than the last one, above the number of that one's unit.
"""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.banked import read_line, write_line
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.memory import SET_SKEW

ABSENT, HERE, COMING = at.ABSENT, at.HERE, at.COMING
_PRESENCE = at.DIRTY - 1
_UNIT = (1 << at.UNIT_BITS) - 1


@inlined
def ceil_div(a, b):
    """Ceiling of a / b for a >= 0, b > 0."""
    return (a + b - 1) // b


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
    busy = _requests(C, instr, row_bytes) if C[instr + at.I_LARGEST] != 0 else row_bytes
    if offset != 0:
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


@helper
def _insert(C, S, SLOT, TAG, STAMP, LINE, line, left):
    """Give a line the slot of its set's least recently used one; 1 if a dirty line had to leave, which is then at S[left]."""
    sets = C[at.K_SETS]
    slot = (line + line // sets * SET_SKEW) % sets
    oldest, last_use = slot, STAMP[slot]
    for _ in range(1, C[at.K_WAYS]):
        slot += sets
        used = STAMP[slot]
        if used < last_use:
            oldest, last_use = slot, used
    written_back = 0
    if last_use > 0:
        evicted = TAG[oldest]
        written_back = 1 if LINE[evicted] >= at.DIRTY else 0
        S[left] = evicted
        LINE[evicted] = ABSENT
    SLOT[line] = oldest
    TAG[oldest] = line
    return written_back


@inlined
def _line_of(C, address):
    shift = C[at.K_LINE_SHIFT]
    return address >> shift if shift >= 0 else address // C[at.K_LINE]


@helper
def _read(C, S, SLOT, TAG, STAMP, READY, LINE, now, address, rows, row_bytes, stride, bypass):
    """Look up the lines of some rows; with ``bypass`` those that miss stay outside.

    Returns how many missed (they are listed at K_MISSED), how many dirty lines left (K_LEFT), and when the last line in flight
    arrives.
    """
    missed, written_back, ready = 0, 0, 0
    listed = C[at.K_MISSED]
    roomy = C[at.K_ROOMY] != 0
    clock = S[at.G_CLOCK]
    before = -1
    for _ in range(rows):
        line, last = _line_of(C, address), _line_of(C, address + row_bytes - 1)
        if line == before:
            # Rows that share a line ask for it once.
            line += 1
        before = last
        while line <= last:
            state = LINE[line] & _PRESENCE
            if state != HERE:
                if state == COMING:
                    arrives = READY[line if roomy else SLOT[line]]
                    if arrives > now:
                        ready = max(ready, arrives)
                    else:
                        LINE[line] += HERE - COMING
                else:
                    S[listed + missed] = line
                    missed += 1
                    if bypass != 0:
                        line += 1
                        continue
                    if not roomy:
                        written_back += _insert(C, S, SLOT, TAG, STAMP, LINE, line, C[at.K_LEFT] + written_back)
                    LINE[line] = HERE
            if not roomy:
                clock += 1
                STAMP[SLOT[line]] = clock
            line += 1
        address += stride
    S[at.G_CLOCK] = clock
    return missed, written_back, ready


@helper
def _write(C, S, SLOT, TAG, STAMP, LINE, address, rows, row_bytes, stride, bypass):
    """Mark the lines of some rows as written; how many lines go to HBM (K_LEFT): dirty ones that had to leave and, with
    ``bypass``, those that are not in L2."""
    to_hbm = 0
    roomy = C[at.K_ROOMY] != 0
    clock = S[at.G_CLOCK]
    before = -1
    for _ in range(rows):
        line, last = _line_of(C, address), _line_of(C, address + row_bytes - 1)
        if line == before:
            line += 1
        before = last
        while line <= last:
            if LINE[line] == ABSENT:
                if bypass != 0:
                    S[C[at.K_LEFT] + to_hbm] = line
                    to_hbm += 1
                    line += 1
                    continue
                if not roomy:
                    to_hbm += _insert(C, S, SLOT, TAG, STAMP, LINE, line, C[at.K_LEFT] + to_hbm)
                LINE[line] = HERE
            LINE[line] |= at.DIRTY
            if not roomy:
                clock += 1
                STAMP[SLOT[line]] = clock
            line += 1
        address += stride
    S[at.G_CLOCK] = clock
    return to_hbm


@inlined
def _expect(C, S, SLOT, READY, LINE, missed, served):
    """The lines that missed arrive at ``served``, unless they have left again already."""
    listed = C[at.K_MISSED]
    roomy = C[at.K_ROOMY] != 0
    for index in range(listed, listed + missed):
        line = S[index]
        if LINE[line] == HERE:
            LINE[line] = COMING
            READY[line if roomy else SLOT[line]] = served


@helper
def _banks(C, S, SLOT, READY, LINE, now, missed, to_hbm):
    """The banks read the lines that missed, then take those that go there.

    Returns when the first of the former has arrived, and when all have.
    """
    listed, left = C[at.K_MISSED], C[at.K_LEFT]
    roomy = C[at.K_ROOMY] != 0
    first, done = 0, 0
    for index in range(missed):
        line = S[listed + index]
        served = read_line(C, S, now, line)
        done = max(done, served)
        if index == 0:
            first = served
        if LINE[line] == HERE:
            LINE[line] = COMING
            READY[line if roomy else SLOT[line]] = served
    for index in range(to_hbm):
        write_line(C, S, now, S[left + index])
    return first, done


@inlined
def access(C, S, SLOT, TAG, STAMP, READY, LINE, TURN, now, unit, address, rows, row_bytes, stride, write, l2_bytes, bypass):
    """Serve a piece that ``unit`` asks for at ``now``: when its data has passed L2 and HBM, and the HBM bytes read and written
    for it."""
    missed, ready = 0, 0
    same, first, word = C[at.K_SAME_LINE], 0, 0
    if same != 0:
        # Loaded long before it is used, as it often comes from far.
        first = _line_of(C, address)
        word = TURN[first]
    if write:
        to_hbm = _write(C, S, SLOT, TAG, STAMP, LINE, address, rows, row_bytes, stride, bypass)
        done = _serve(S, at.G_WRITE_FREE, now, l2_bytes, C[at.K_WRITE_SCALE], C[at.K_WRITE_PER_BYTE])
    else:
        missed, to_hbm, ready = _read(C, S, SLOT, TAG, STAMP, READY, LINE, now, address, rows, row_bytes, stride, bypass)
        done = max(ready, _serve(S, at.G_READ_FREE, now, l2_bytes, C[at.K_READ_SCALE], C[at.K_READ_PER_BYTE]))
    hbm_read, hbm_write = missed * C[at.K_LINE], to_hbm * C[at.K_LINE]
    served = now
    if hbm_read + hbm_write > 0 and C[at.K_BANKED] != 0:
        served, last = _banks(C, S, SLOT, READY, LINE, now, missed, to_hbm)
        done = max(done, last)
    elif hbm_read + hbm_write > 0:
        served = _serve(S, at.G_HBM_FREE, now, hbm_read + hbm_write, C[at.K_HBM_SCALE], C[at.K_HBM_PER_BYTE])
        if missed > 0:
            served += C[at.K_MISS_LATENCY]
            _expect(C, S, SLOT, READY, LINE, missed, served)
        done = max(done, served)
    if same != 0:
        start = now
        if word >> at.UNIT_BITS > now:
            # A core that was the last one does not wait for itself (Turns.start).
            start = max(now, (word >> at.UNIT_BITS) - (same if word & _UNIT == unit else 0))
            done = max(done, start)
        if missed > 0 and S[C[at.K_MISSED]] == first:
            start = max(start, served)
        TURN[first] = (start + same) << at.UNIT_BITS | unit
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
