"""Names for the positions in the arrays of L2, as ``layout`` has them for the others; ``cache`` uses them."""

from __future__ import annotations

from typing import Any, NamedTuple

from msdsim.engine.fast.words import Block

_pc = Block("L2.pieces", "PC_", "pieces that begin with a line (cache.py)")
PC_RUN = _pc.word("run of which the rest is, see G_RUN")
PC_TURN = _pc.word("cycle from which the line can be served to another core than the last one, above UNIT_BITS for that one")
PC_READ = _pc.word("record RC_* of a piece that was read")
PC_READ_STRIDE = _pc.word("its second word")
PC_READY = _pc.word("cycle at which all of its lines are there")
PC_WRITTEN = _pc.word("record RC_* of a piece that was written")
PC_WRITTEN_STRIDE = _pc.word("its second word")
PC_LINE = _pc.word("the line; eight words are one line of the host's cache")
PC_SIZE = _pc.size()

_rc = Block("L2.pieces", "RC_", "a piece that was read or written")
RC_SHAPE = _rc.word("place in its first line, rows, bytes of a row, SHAPE_BITS each; NO_SHAPE where it is not whole")
RC_STRIDE = _rc.word("bytes from row to row, below the owner OW_* of its lines from STRIDE_BITS on")
RC_SIZE = _rc.size()
#: What stands for no record, and below which free owners are.
NO_RECORD, FREE = -1, -2
#: Pieces with longer ones of these have no record; an owner is a number below 2**28.
SHAPE_BITS, STRIDE_BITS, NO_SHAPE = 20, 34, -1

_ow = Block("L2.owners", "OW_", "an owner of lines")
OW_LINES = _ow.word("lines that it has")
OW_RECORD = _ow.word("the record RC_* that it was made for while it has all of its lines, else NO_RECORD; of one that is free "
                     "the next of these, as FREE less its number")
OW_READY = _ow.word("cycle at which its lines that are EXPECTED arrive")
OW_LAST = _ow.word("when its lines were used last, in pieces looked up; four words are half a line of the host's cache")
OW_SIZE = _ow.size()


class L2(NamedTuple):
    """The arrays of L2 (cache.py)."""

    #: int32 by line of GM: its owner times 8, plus ABSENT, HERE, COMING or EXPECTED, plus DIRTY.
    line: Any
    #: int32 by way and set: the line that is there.
    tag: Any
    #: int64 by set and way: at the latest when it was used last, in pieces looked up; of sets from which a line has left.
    used: Any
    #: int32 by set: ways that have been taken; one more when a line has left.
    taken: Any
    #: int64 by line of GM: when a line that is COMING arrives.
    ready: Any
    #: int64, blocks PC_* by line of GM, but for the order (see K_TURN_LINES); of very many lines those that were asked for last
    #: (K_PIECE_MASK), and behind them the turns of all (K_TURNS).
    pieces: Any
    #: int64, blocks OW_*.
    owners: Any


#: States of a line of L2; DIRTY is added when it has been written.
ABSENT, HERE, COMING, EXPECTED, DIRTY = 0, 1, 2, 3, 4
STATE, OWNER_BITS = 7, 3


#: Every table of this file.
BLOCKS = (_pc, _rc, _ow)
