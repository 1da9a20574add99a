"""The memory system, compiled: what :mod:`msdsim.engine.memory` says, on arrays.

L2 is kept by line: where all lines of the kernel fit at once (``K_ROOMY``) nothing is ever evicted and a line is its own slot.
Otherwise ``SLOT[line]`` is the slot that holds the line or -1, and the slots of a set lie ``sets`` apart, so that consecutive
lines that came together lie together.  The oldest stamp of a set is its least recently used line.
"""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper
from msdsim.engine.memory import SET_SKEW

#: In READY: a line that is not in L2 (roomy) or a slot that has no data yet.
ABSENT = -1


@helper
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


@helper
def _serve(S, free, now, count, scale, per_byte):
    """A server that is free at ``S[free] / scale`` serves ``count`` bytes asked for at ``now``; the cycle they have passed."""
    busy = max(S[free], now * scale) + count * per_byte
    S[free] = busy
    return ceil_div(busy, scale)


@helper
def _insert(C, S, SLOT, TAG, STAMP, READY, DIRTY, line):
    """Bring a line into its set in the place of the least recently used one; its slot, and 1 if a dirty line had to leave."""
    sets = C[at.K_SETS]
    slot = (line + line // sets * SET_SKEW) % sets
    oldest = slot
    for _ in range(1, C[at.K_WAYS]):
        slot += sets
        if STAMP[slot] < STAMP[oldest]:
            oldest = slot
    written_back = 0
    if STAMP[oldest] > 0:
        SLOT[TAG[oldest]] = -1
        written_back = DIRTY[oldest]
    SLOT[line] = oldest
    TAG[oldest] = line
    READY[oldest] = 0
    DIRTY[oldest] = 0
    return oldest, written_back


@helper
def _line_of(C, address):
    shift = C[at.K_LINE_SHIFT]
    return address >> shift if shift >= 0 else address // C[at.K_LINE]


@helper
def _read(C, S, SLOT, TAG, STAMP, READY, DIRTY, address, rows, row_bytes, stride):
    """Look up the lines of some rows.

    Returns how many missed (their slots are listed at K_MISSED), how many dirty lines left, and when the last line in flight
    has arrived.
    """
    missed, written_back, ready = 0, 0, 0
    listed = C[at.K_MISSED]
    roomy = C[at.K_ROOMY] != 0
    clock = S[at.G_CLOCK]
    for _ in range(rows):
        for line in range(_line_of(C, address), _line_of(C, address + row_bytes - 1) + 1):
            if roomy:
                arrived = READY[line]
                if arrived == ABSENT:
                    READY[line] = 0
                    S[listed + missed] = line
                    missed += 1
                elif arrived > ready:
                    ready = arrived
            else:
                clock += 1
                slot = SLOT[line]
                if slot < 0:
                    slot, left = _insert(C, S, SLOT, TAG, STAMP, READY, DIRTY, line)
                    written_back += left
                    S[listed + missed] = slot
                    missed += 1
                elif READY[slot] > ready:
                    ready = READY[slot]
                STAMP[slot] = clock
        address += stride
    S[at.G_CLOCK] = clock
    return missed, written_back, ready


@helper
def _write(C, S, SLOT, TAG, STAMP, READY, DIRTY, address, rows, row_bytes, stride):
    """Mark the lines of some rows as written; how many dirty lines left."""
    written_back = 0
    roomy = C[at.K_ROOMY] != 0
    clock = S[at.G_CLOCK]
    for _ in range(rows):
        for line in range(_line_of(C, address), _line_of(C, address + row_bytes - 1) + 1):
            slot = line
            if roomy:
                if READY[line] == ABSENT:
                    READY[line] = 0
            else:
                clock += 1
                slot = SLOT[line]
                if slot < 0:
                    slot, left = _insert(C, S, SLOT, TAG, STAMP, READY, DIRTY, line)
                    written_back += left
                STAMP[slot] = clock
            DIRTY[slot] = 1
        address += stride
    S[at.G_CLOCK] = clock
    return written_back


@helper
def access(C, S, SLOT, TAG, STAMP, READY, DIRTY, now, address, rows, row_bytes, stride, write, l2_bytes):
    """Serve a piece asked for at ``now``: when its data has passed L2 and HBM, and the HBM bytes read and written for it."""
    missed, ready = 0, 0
    if write:
        written_back = _write(C, S, SLOT, TAG, STAMP, READY, DIRTY, address, rows, row_bytes, stride)
        done = _serve(S, at.G_WRITE_FREE, now, l2_bytes, C[at.K_WRITE_SCALE], C[at.K_WRITE_PER_BYTE])
    else:
        missed, written_back, ready = _read(C, S, SLOT, TAG, STAMP, READY, DIRTY, address, rows, row_bytes, stride)
        done = max(ready, _serve(S, at.G_READ_FREE, now, l2_bytes, C[at.K_READ_SCALE], C[at.K_READ_PER_BYTE]))
    hbm_read, hbm_write = missed * C[at.K_LINE], written_back * C[at.K_LINE]
    if hbm_read + hbm_write > 0:
        served = _serve(S, at.G_HBM_FREE, now, hbm_read + hbm_write, C[at.K_HBM_SCALE], C[at.K_HBM_PER_BYTE])
        if missed > 0:
            served += C[at.K_MISS_LATENCY]
            listed = C[at.K_MISSED]
            for index in range(listed, listed + missed):
                READY[S[index]] = served
        done = max(done, served)
    return done, hbm_read, hbm_write


@helper
def count_bandwidth(C, T, now, kind, count, hbm_read, hbm_write):
    """Add a piece to the bandwidth over time; neighbouring intervals merge when ``now`` is beyond the last."""
    intervals = C[at.K_INTERVALS]
    while now >= T[at.T_INTERVAL] * intervals:
        for index in range(intervals // 2):
            for column in range(4):
                T[at.T_BANDWIDTH + index * 4 + column] = (
                    T[at.T_BANDWIDTH + index * 8 + column] + T[at.T_BANDWIDTH + index * 8 + 4 + column]
                )
        for index in range(at.T_BANDWIDTH + intervals // 2 * 4, at.T_BANDWIDTH + intervals * 4):
            T[index] = 0
        T[at.T_INTERVAL] *= 2
    row = at.T_BANDWIDTH + now // T[at.T_INTERVAL] * 4
    T[row + kind] += count
    T[row] += hbm_read
    T[row + 1] += hbm_write
