"""The lines of L2, compiled: which are there and which has to leave, as :class:`msdsim.engine.memory.L2Cache` says.

The word of a line in ``line`` of :class:`~msdsim.engine.fast.l2_layout.L2` says where the line is: ABSENT, HERE, COMING (it
then arrives at ``ready[line]``) or EXPECTED (when its owner says), with DIRTY added once it has been written.  Where all lines
of the kernel fit into L2 at once (``K_ROOMY``) nothing ever leaves, and that is all there is to know.  Otherwise a line has a
way of its set; ``tag`` gives the line of each way, ``taken`` how many ways of a set have been taken, from the first on.

Kernels ask for the same pieces again and again.  So the lines of a piece that has been looked up get an owner, whose they are
until another piece asks for one of them or it leaves; the word of a line names the owner.  While the owner has all of its
lines, the same piece is found by a look at its record in ``pieces``, and all of its lines were used last when the owner was.
The least recently used way is found by ``used``, which is never later than the last use of a way: the earliest there is the
one if it is exact; otherwise it is brought up to date, and the search begins anew.  Where nothing ever leaves, nothing has an
owner.
"""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from msdsim.engine.fast import l2_layout as on
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div, divide
from msdsim.engine.fast.compiled import helper, inlined, prefetch_function
from msdsim.engine.fast.port_time import offset_in_line
from msdsim.engine.memory import SET_SKEW

prefetch = prefetch_function()
_PRESENCE = on.DIRTY - 1
_DIRTY_BIT = on.DIRTY.bit_length() - 1
#: More lines than a piece has.
_MANY = 2**40


class Piece(NamedTuple):
    """Rows of bytes that a port asks for at once."""

    address: Any
    rows: Any
    row_bytes: Any
    stride: Any


class Found(NamedTuple):
    """What looking up a piece has shown.

    ``missed`` lines are not there (they are listed at K_MISSED), with ``to_read`` bytes to read for them; ``to_hbm`` lines go
    to HBM (K_LEFT: dirty ones that had to leave, and those whose writing bypasses L2); the last line in flight arrives at
    ``ready``.
    """

    missed: Any
    to_read: Any
    to_hbm: Any
    ready: Any


@inlined
def line_of(C, address):
    """The line that an address is in."""
    shift = C[at.K_LINE_SHIFT]
    return address >> shift if shift >= 0 else divide(address, C[at.K_LINE])


# Pieces as a whole


@inlined
def _number(C, line):
    """Number of the block PC_* of pieces that begin with a line."""
    return (line & C[at.K_TURN_LINES] - 1) * C[at.K_TURN_PIECES] + (line >> C[at.K_TURN_SHIFT])


@inlined
def _place(C, line):
    return (_number(C, line) & C[at.K_PIECE_MASK]) * on.PC_SIZE


@inlined
def expect_piece(C, S, address):
    """A piece that begins at an address will be looked up soon: what is known of it is fetched meanwhile, as it may be far."""
    number = _number(C, line_of(C, address))
    prefetch(S[at.G_PIECES_ADDRESS] + 8 * ((number & C[at.K_PIECE_MASK]) * on.PC_SIZE))
    if C[at.K_TURNS] != 0:
        prefetch(S[at.G_PIECES_ADDRESS] + 8 * (C[at.K_TURNS] + number))


@inlined
def place_of(C, S, l2, address):
    """The block PC_* of pieces that begin with the line of an address, with what is known of them in this run."""
    line = line_of(C, address)
    place = _place(C, line)
    if l2.pieces[place + on.PC_RUN] != S[at.G_RUN] or l2.pieces[place + on.PC_LINE] != line:
        l2.pieces[place + on.PC_RUN] = S[at.G_RUN]
        l2.pieces[place + on.PC_LINE] = line
        l2.pieces[place + on.PC_TURN] = 0
        l2.pieces[place + on.PC_READ] = on.NO_SHAPE
        l2.pieces[place + on.PC_WRITTEN] = on.NO_SHAPE
    return place


@inlined
def turn_of(C, place, address):
    """Where in L2.pieces the turn of the line of an address is, whose block is at ``place``."""
    return place + on.PC_TURN if C[at.K_TURNS] == 0 else C[at.K_TURNS] + _number(C, line_of(C, address))


@inlined
def shape_of(C, piece):
    """Where in its first line a piece begins, its rows and their bytes, as one number; below NO_SHAPE for a large one."""
    offset = offset_in_line(C, piece.address)
    if (offset | piece.rows | piece.row_bytes) >> on.SHAPE_BITS | piece.stride >> on.STRIDE_BITS != 0:
        return on.NO_SHAPE - 1
    return (offset << on.SHAPE_BITS | piece.rows) << on.SHAPE_BITS | piece.row_bytes


@inlined
def owner_of(l2, record):
    """The owner of a record's lines."""
    return l2.pieces[record + on.RC_STRIDE] >> on.STRIDE_BITS


@inlined
def is_whole(l2, record, shape, stride):
    """Whether a record is that of a piece all of whose lines are there."""
    return (l2.pieces[record + on.RC_SHAPE] == shape
            and l2.pieces[record + on.RC_STRIDE] & (1 << on.STRIDE_BITS) - 1 == stride
            and l2.owners[owner_of(l2, record) * on.OW_SIZE + on.OW_RECORD] == record)


@inlined
def _new_owner(S, l2, record):
    owner = S[at.G_OWNER_LEFT]
    if owner != 0:
        S[at.G_OWNER_LEFT] = on.FREE - l2.owners[owner * on.OW_SIZE + on.OW_RECORD]
    else:
        owner = S[at.G_OWNERS]
        S[at.G_OWNERS] = owner + 1
    l2.owners[owner * on.OW_SIZE + on.OW_LINES] = _MANY
    l2.owners[owner * on.OW_SIZE + on.OW_RECORD] = record
    l2.owners[owner * on.OW_SIZE + on.OW_LAST] = S[at.G_USES]
    return owner


@inlined
def _lose(S, l2, owner, count):
    """Lines are no longer an owner's, and its piece is not whole; what owns nothing is free."""
    words = owner * on.OW_SIZE
    left = l2.owners[words + on.OW_LINES] - count
    l2.owners[words + on.OW_LINES] = left
    l2.owners[words + on.OW_RECORD] = on.NO_RECORD
    if left == 0:
        l2.owners[words + on.OW_RECORD] = on.FREE - S[at.G_OWNER_LEFT]
        S[at.G_OWNER_LEFT] = owner


@inlined
def _note(S, l2, record, owner, lines, whole):
    """So many lines have come to an owner; it may have lost some of them already.  Whether its piece is whole."""
    lost = _MANY - l2.owners[owner * on.OW_SIZE + on.OW_LINES]
    l2.owners[owner * on.OW_SIZE + on.OW_LINES] = lines - lost
    if lines == lost:
        _lose(S, l2, owner, 0)
        return False
    return whole and lost == 0


# Lines


@inlined
def _last_use(l2, slot):
    """When a way was used last; lines of one piece have been used in their order."""
    return l2.owners[(l2.line[l2.tag[slot]] >> on.OWNER_BITS) * on.OW_SIZE + on.OW_LAST]


@helper
def _find_oldest(C, l2, place):
    """The least recently used way of a set all of whose ways are taken."""
    sets, ways = C[at.K_SETS], C[at.K_WAYS]
    first = place * ways
    if l2.taken[place] == ways:
        # The first that has to leave.
        l2.taken[place] = ways + 1
        for way in range(ways):
            l2.used[first + way] = _last_use(l2, way * sets + place)
    while True:
        found, oldest = 0, l2.used[first]
        for way in range(1, ways):
            used = l2.used[first + way]
            if used < oldest or (used == oldest and l2.tag[way * sets + place] < l2.tag[found * sets + place]):
                found, oldest = way, used
        used = _last_use(l2, found * sets + place)
        if used == oldest:
            return found
        l2.used[first + found] = used


@helper
def _wrap(C, S, line):
    """Between which lines the set of a line is the line plus the same number (msdsim.engine.memory.set_of)."""
    sets = C[at.K_SETS]
    wraps = divide(line, sets)
    skew = wraps * SET_SKEW
    S[at.G_SKEW] = skew - (divide(skew, sets) + wraps) * sets
    S[at.G_WRAP] = wraps * sets
    S[at.G_WRAP_END] = (wraps + 1) * sets


@inlined
def _insert(C, S, l2, line, left):
    """Give a line a way of its set: 1 if a dirty line had to leave, which is then at S[left]."""
    if line < S[at.G_WRAP] or line >= S[at.G_WRAP_END]:
        _wrap(C, S, line)
    sets = C[at.K_SETS]
    place = line + S[at.G_SKEW]
    if place >= sets:
        place -= sets
    taken: Any = np.int64(l2.taken[place])
    written_back = 0
    if taken < C[at.K_WAYS]:
        l2.taken[place] = taken + 1
        slot = taken * sets + place
    else:
        way = _find_oldest(C, l2, place)
        slot = way * sets + place
        evicted = l2.tag[slot]
        word: Any = np.int64(l2.line[evicted])
        if word & on.DIRTY != 0:
            written_back = 1
            S[left] = evicted
        l2.line[evicted] = on.ABSENT
        l2.used[place * C[at.K_WAYS] + way] = S[at.G_USES]
        _lose(S, l2, word >> on.OWNER_BITS, 1)
    l2.tag[slot] = line
    return written_back


@inlined
def _ready(l2, now, line, state):
    """When a line that is in L2 is there, 0 for now, and whether it is HERE or COMING, as far as that is known now."""
    if state & _PRESENCE == on.HERE:
        return 0, on.HERE
    arrives = l2.ready[line]
    if state & _PRESENCE == on.EXPECTED:
        arrives = l2.owners[(state >> on.OWNER_BITS) * on.OW_SIZE + on.OW_READY]
        l2.ready[line] = arrives
    return (0, on.HERE) if arrives <= now else (arrives, on.COMING)


@helper
def _more_sectors(C, S, index, line, address, row_bytes):
    """A row that passes L2 by asks for its sectors of a line, the ``index``-th that missed: the bytes that this adds."""
    size, sector = C[at.K_LINE], C[at.K_SECTOR]
    begin, end = max(address, line * size), min(address + row_bytes, line * size + size)
    asked = S[C[at.K_SECTORS] + index]
    S[C[at.K_SECTORS] + index] = min(size // sector, asked + ceil_div(end, sector) - begin // sector)
    return (S[C[at.K_SECTORS] + index] - asked) * sector


@helper
def _pass_by(C, S, line, address, row_bytes, missed, to_hbm, write):
    """A line that is not in L2 stays outside: the bytes to read, and 1 if it is to be written."""
    if write != 0:
        S[C[at.K_LEFT] + to_hbm] = line
        return 0, 1
    S[C[at.K_SECTORS] + missed - 1] = 0
    return _more_sectors(C, S, missed - 1, line, address, row_bytes), 0


@inlined
def _look_up(C, S, l2, now, piece, record, roomy, write, bypass):
    """Look up the lines of a piece, or mark them as written; with ``bypass`` those that are not in L2 stay outside."""
    missed, to_read, to_hbm, ready = 0, 0, 0, 0
    listed, left = C[at.K_MISSED], C[at.K_LEFT]
    address, before = piece.address, -1
    # What a line that is being read is until its arrival is known.
    coming = on.HERE if roomy or C[at.K_BANKED] != 0 else on.EXPECTED
    # Lines that are the new owner's, and those of one earlier owner so far.
    owner = 0 if roomy else _new_owner(S, l2, record)
    lines, former, of_former, whole = 0, 0, 0, True
    for _ in range(piece.rows):
        line, last = line_of(C, address), line_of(C, address + piece.row_bytes - 1)
        if line == before:
            # Rows that share a line ask for it once.
            if bypass != 0 and missed > 0 and S[listed + missed - 1] == line:
                to_read += _more_sectors(C, S, missed - 1, line, address, piece.row_bytes)
            line += 1
        before = last
        while line <= last:
            state: Any = np.int64(l2.line[line])
            if state & _PRESENCE == on.ABSENT:
                state = on.HERE
                if write == 0:
                    S[listed + missed] = line
                    missed += 1
                    state = coming
                if bypass != 0:
                    read, written = _pass_by(C, S, line, address, piece.row_bytes, missed, to_hbm, write)
                    to_read += read
                    to_hbm += written
                    whole = False
                    line += 1
                    continue
                if not roomy:
                    to_hbm += _insert(C, S, l2, line, left + to_hbm)
                lines += 1
            else:
                earlier = state >> on.OWNER_BITS
                if roomy or earlier != owner:
                    arrives, presence = _ready(l2, now, line, state)
                    ready = max(ready, arrives)
                    state = state & on.DIRTY | presence
                    if not roomy and earlier != former:
                        if of_former > 0:
                            _lose(S, l2, former, of_former)
                        former, of_former = earlier, 0
                    of_former += 1
                    lines += 1
            l2.line[line] = owner << on.OWNER_BITS | state & on.STATE | write << _DIRTY_BIT
            line += 1
        address += piece.stride
    if bypass == 0:
        to_read = missed * C[at.K_LINE]
    if not roomy:
        if of_former > 0:
            _lose(S, l2, former, of_former)
        whole = _note(S, l2, record, owner, lines, whole)
    l2.pieces[record + on.RC_SHAPE] = shape_of(C, piece) if whole else on.NO_SHAPE
    l2.pieces[record + on.RC_STRIDE] = owner << on.STRIDE_BITS | piece.stride & (1 << on.STRIDE_BITS) - 1
    return Found(missed, to_read, to_hbm, ready)


# One loop for each case: what is constant in it need not be looked at for every line.


@helper
def _read(C, S, l2, now, piece, record, bypass):
    return _look_up(C, S, l2, now, piece, record, False, 0, bypass)


@helper
def _read_roomy(C, S, l2, now, piece, record, bypass):
    return _look_up(C, S, l2, now, piece, record, True, 0, bypass)


@helper
def _write(C, S, l2, now, piece, record, bypass):
    return _look_up(C, S, l2, now, piece, record, False, 1, bypass)


@helper
def _write_roomy(C, S, l2, now, piece, record, bypass):
    return _look_up(C, S, l2, now, piece, record, True, 1, bypass)


@inlined
def look_up(C, S, l2, now, piece, record, write, bypass):
    """Look up a piece line by line, from now on that of a record."""
    roomy = C[at.K_ROOMY] != 0
    if write != 0:
        return (_write_roomy(C, S, l2, now, piece, record, bypass) if roomy
                else _write(C, S, l2, now, piece, record, bypass))
    return _read_roomy(C, S, l2, now, piece, record, bypass) if roomy else _read(C, S, l2, now, piece, record, bypass)


@inlined
def expect(l2, line, served):
    """A line that missed arrives at ``served``, unless it stays outside or has left again already."""
    if l2.line[line] & on.STATE == on.HERE:
        l2.line[line] += on.COMING - on.HERE
        l2.ready[line] = served
