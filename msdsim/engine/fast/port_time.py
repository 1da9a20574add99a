"""Port time of rows of bytes, compiled: what :class:`msdsim.hardware.cost.PortCost` says."""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div
from msdsim.engine.fast.compiled import helper, inlined


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
