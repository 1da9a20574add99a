"""The memory system, compiled: what :mod:`msdsim.engine.memory` says, on arrays.

``LINE[line]`` says where a line of GM is: ABSENT from L2, HERE, or COMING, with DIRTY added once it has been written.  Where
all lines of the kernel fit into L2 at once (``K_ROOMY``), nothing is ever evicted and that is all there is to know.  Otherwise
``SLOT[line]`` is its slot in L2, ``TAG`` and ``STAMP`` give each slot's line and last use; the slots of a set lie ``sets``
apart, so that consecutive lines that came together lie together.  ``READY`` is when a line that is COMING arrives, by line in
the first case and by slot in the other.
"""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.banked import read_line, write_line
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.memory import SET_SKEW

#: States of a line; at.DIRTY is added when it has been written.
ABSENT, HERE, COMING = range(3)
_PRESENCE = at.DIRTY - 1


@inlined
def ceil_div(a, b):
    """Ceiling of a / b for a >= 0, b > 0."""
    return (a + b - 1) // b


@helper
def port_bytes(C, instr, row_bytes):
    """Bytes of port time of one row segment (PortCost.port_bytes)."""
    size = C[instr + at.I_LARGEST]
    if size == 0:
        return max(row_bytes, C[instr + at.I_GRANULE])
    least, smallest = C[instr + at.I_REQUEST], C[instr + at.I_SMALLEST]
    total = row_bytes // size * max(size, least)
    rest = row_bytes % size
    while size > smallest:
        size //= 2
        if rest >= size:
            total += max(size, least)
            rest -= size
    if rest > 0:
        total += max(size, least)
    return max(C[instr + at.I_GRANULE], total)


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
def _read(C, S, SLOT, TAG, STAMP, READY, LINE, now, address, rows, row_bytes, stride):
    """Look up the lines of some rows.

    Returns how many missed (they are listed at K_MISSED), how many dirty lines left (K_LEFT), and when the last line in flight
    arrives.
    """
    missed, written_back, ready = 0, 0, 0
    listed = C[at.K_MISSED]
    roomy = C[at.K_ROOMY] != 0
    clock = S[at.G_CLOCK]
    for _ in range(rows):
        line, last = _line_of(C, address), _line_of(C, address + row_bytes - 1)
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
                    if not roomy:
                        written_back += _insert(C, S, SLOT, TAG, STAMP, LINE, line, C[at.K_LEFT] + written_back)
                    LINE[line] = HERE
                    S[listed + missed] = line
                    missed += 1
            if not roomy:
                clock += 1
                STAMP[SLOT[line]] = clock
            line += 1
        address += stride
    S[at.G_CLOCK] = clock
    return missed, written_back, ready


@helper
def _write(C, S, SLOT, TAG, STAMP, LINE, address, rows, row_bytes, stride):
    """Mark the lines of some rows as written; how many dirty lines left."""
    written_back = 0
    roomy = C[at.K_ROOMY] != 0
    clock = S[at.G_CLOCK]
    for _ in range(rows):
        line, last = _line_of(C, address), _line_of(C, address + row_bytes - 1)
        while line <= last:
            if LINE[line] == ABSENT:
                if not roomy:
                    written_back += _insert(C, S, SLOT, TAG, STAMP, LINE, line, C[at.K_LEFT] + written_back)
                LINE[line] = HERE
            LINE[line] |= at.DIRTY
            if not roomy:
                clock += 1
                STAMP[SLOT[line]] = clock
            line += 1
        address += stride
    S[at.G_CLOCK] = clock
    return written_back


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
def _banks(C, S, SLOT, READY, LINE, now, missed, written_back):
    """The banks read the lines that missed, then take those that left; when the last of the former has arrived."""
    listed, left = C[at.K_MISSED], C[at.K_LEFT]
    roomy = C[at.K_ROOMY] != 0
    done = 0
    for index in range(missed):
        line = S[listed + index]
        served = read_line(C, S, now, line)
        done = max(done, served)
        if LINE[line] == HERE:
            LINE[line] = COMING
            READY[line if roomy else SLOT[line]] = served
    for index in range(written_back):
        write_line(C, S, now, S[left + index])
    return done


@inlined
def access(C, S, SLOT, TAG, STAMP, READY, LINE, now, address, rows, row_bytes, stride, write, l2_bytes):
    """Serve a piece asked for at ``now``: when its data has passed L2 and HBM, and the HBM bytes read and written for it."""
    missed, ready = 0, 0
    if write:
        written_back = _write(C, S, SLOT, TAG, STAMP, LINE, address, rows, row_bytes, stride)
        done = _serve(S, at.G_WRITE_FREE, now, l2_bytes, C[at.K_WRITE_SCALE], C[at.K_WRITE_PER_BYTE])
    else:
        missed, written_back, ready = _read(C, S, SLOT, TAG, STAMP, READY, LINE, now, address, rows, row_bytes, stride)
        done = max(ready, _serve(S, at.G_READ_FREE, now, l2_bytes, C[at.K_READ_SCALE], C[at.K_READ_PER_BYTE]))
    hbm_read, hbm_write = missed * C[at.K_LINE], written_back * C[at.K_LINE]
    if hbm_read + hbm_write > 0 and C[at.K_BANKED] != 0:
        done = max(done, _banks(C, S, SLOT, READY, LINE, now, missed, written_back))
    elif hbm_read + hbm_write > 0:
        served = _serve(S, at.G_HBM_FREE, now, hbm_read + hbm_write, C[at.K_HBM_SCALE], C[at.K_HBM_PER_BYTE])
        if missed > 0:
            served += C[at.K_MISS_LATENCY]
            _expect(C, S, SLOT, READY, LINE, missed, served)
        done = max(done, served)
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
