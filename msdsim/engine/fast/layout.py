"""Names for the positions in the fast engine's arrays, each described where it is defined.

The compiled code sees ``C`` (the program and the chip, never written), ``S`` (the machine's state), ``T`` (books: totals that
only grow), ``rows`` (the timeline) and the arrays of L2 (``l2_layout``).  ``S`` begins with the words ``G_*``, then a tree over
the ports that finds the next memory request, then one block a unit::

    U_* | registers | pipes (P_* and X_*) | semaphore rings | signal rings | remembered iterations (N_*) | queues | windows
"""

from __future__ import annotations

from msdsim.engine.fast import l2_layout
from msdsim.engine.fast.words import Block

# C: header

_k = Block("C", "K_", "header: the chip, and where everything is")
K_UNITS = _k.word("units that run")
K_UNIT_BASES = _k.word("list: where each unit's block begins in S")
K_PARTS = _k.word("blocks PT_*, one a part")
K_LEAVES = _k.word("leaves of the tree over the ports, a power of two")
K_LEAF_PORTS = _k.word("list by leaf: its pipe in S")
K_TREE = _k.word("in S: the tree; node 1 is the earliest request of all")
K_STACK = _k.word("in S: units that may go on")
K_MISSED = _k.word("in S: lines of the piece at hand that missed")
K_SECTORS = _k.word("in S: sectors asked for of those, where they pass L2 by")
K_TIME_LIMIT = _k.word("last tick that is counted exactly")
K_CHUNK = _k.word("bytes of the largest piece of a transfer")
K_LINE = _k.word("bytes of a line of L2")
K_SECTOR = _k.word("bytes of a sector of a line")
K_LINE_SHIFT = _k.word("its logarithm to base 2, or -1")
K_GM_BYTES = _k.word("bytes of GM that the kernel's tensors take")
K_ROOMY = _k.word("1 where all of them fit into L2 at once, so that nothing ever leaves")
K_SETS = _k.word("sets of L2")
K_WAYS = _k.word("ways of L2")
K_READ_SCALE = _k.word("L2, read side: parts of a cycle in which time is counted")
K_READ_PER_BYTE = _k.word("L2, read side: such parts for a byte")
K_WRITE_SCALE = _k.word("L2, write side: parts of a cycle")
K_WRITE_PER_BYTE = _k.word("L2, write side: parts for a byte")
K_HBM_SCALE = _k.word("HBM: parts of a cycle")
K_HBM_PER_BYTE = _k.word("HBM: parts for a byte")
K_MISS_LATENCY = _k.word("cycles that a miss takes beyond HBM's own time")
K_WRITE_BACK = _k.word("cycles that it takes more where a written line makes room for it")
K_SIGNAL_LATENCY = _k.word("cycles from raising a signal to its token")
K_BARRIER_LATENCY = _k.word("cycles from the last arrival at a barrier to the tokens")
K_SIGNAL_TABLE = _k.word("blocks SG_*, one a signal")
K_AIVS = _k.word("AIVs of a core")
K_RING_MASK = _k.word("places of a ring of tokens (a power of two) less one")
K_WINDOW_MASK = _k.word("places of a port's window (a power of two) less one")
K_BARRIERS = _k.word("in S: blocks B_*, by signal and turn")
K_INTERVALS = _k.word("intervals of bandwidth over time")
K_BANKED = _k.word("block of banked_layout, 0 where HBM is plain bandwidth")
K_LEFT = _k.word("in S: lines of the piece at hand that go to HBM")
K_RANGES = _k.word("in S: ranges of registers (skip)")
K_SAME_LINE = _k.word("cycles that a line of L2 is kept by one core, 0: none")
K_TURN_LINES = _k.word("lines of a whole piece, a power of two or 1: L2.pieces has those of one place in a piece together")
K_TURN_SHIFT = _k.word("its logarithm")
K_TURN_PIECES = _k.word("blocks of L2.pieces for one place in a piece")
K_PIECE_MASK = _k.word("bits of its number that say where a block of L2.pieces is: all, or of a table for very many lines")
K_TURNS = _k.word("in L2.pieces: turns by number of the block where several lines may have one block, 0: PC_TURN")
K_KNOWN = _k.word("in S: KNOWN_PLACES blocks KNOWN_*")
K_SIZE = _k.size()

# C: one block a part

_pt = Block("C", "PT_", "a part of the kernel")
PT_CODE = _pt.word("first operation")
PT_PROLOGUE = _pt.word("register operations that run before it")
PT_PROLOGUE_END = _pt.word("their end")
PT_PIPES = _pt.word("in a unit's block: the pipes")
PT_SIGNAL_RINGS = _pt.word("in a unit's block: rings of signals, by signal and sender")
PT_RAISED = _pt.word("in a unit's block: how often each barrier has been raised")
PT_SENDERS = _pt.word("units from which a signal comes")
PT_SEMAPHORE_WAITS = _pt.word("in T: cycles waited, by semaphore")
PT_SIGNAL_WAITS = _pt.word("in T: cycles waited, by signal")
PT_WAITING = _pt.word("list by signal: the pipe that waits for it, 0: none")
PT_PIPE_COUNT = _pt.word("pipes, the scalar unit among them")
PT_SIZE = _pt.size()

# C: one block a signal

_sg = Block("C", "SG_", "a signal")
SG_KIND = _sg.word("TO_AIV, TO_AIC or BARRIER")
SG_PARTICIPANTS = _sg.word("units that raise it")
SG_SIZE = _sg.size()
TO_AIV, TO_AIC, BARRIER = range(3)

# C: one block an instruction

_i = Block("C", "I_", "an instruction of a part")
I_KIND = _i.word("LOCAL or TRANSFER")
I_PIPE = _i.word("number of its pipe")
I_PIPE_AT = _i.word("in a unit's block: its pipe")
I_COST = _i.word("cycles of the scalar unit")
I_FLAGS = _i.word("cycles of its pipe for its flags")
I_LATENCY = _i.word("cycles from start to end beside the work")
I_INTERVAL = _i.word("cycles from start to the next start beside the work")
I_BARRIER = _i.word("register: whether the pipe must have drained")
I_V0 = _i.word("register: cycles of work, or the address in GM")
I_V1 = _i.word("register: rows of a transfer; of work inside the core with unit flags, the cycles of a row of fractals")
I_V2 = _i.word("register: bytes of a row")
I_WAITS = _i.word("list of pairs (ring in the unit's block, cause)")
I_WAITS_END = _i.word("its end")
I_POSTS = _i.word("list of pairs (ring in the unit's block, bit of the pipe that waits)")
I_POSTS_END = _i.word("its end")
I_SIGNAL_KIND = _i.word("NO_SIGNAL, RAISE, WAIT, or UNIT for unit flags")
I_SIGNAL = _i.word("number of the signal")
I_SCALE = _i.word("port: parts of a cycle in which its time is counted")
I_PER_BYTE = _i.word("port: such parts for a byte")
I_GRANULE = _i.word("port: fewest bytes that a row takes")
I_OUTSTANDING = _i.word("port: bytes in flight at most")
I_STRIDE = _i.word("bytes from row to row in GM")
I_WRITE = _i.word("1 for GM as the destination")
I_TRAFFIC = _i.word("in T: bytes of its tensor, by kind of traffic")
I_BOOKS = _i.word("in a unit's books: its categories")
I_INDEX = _i.word("number in the part")
I_MINIMUM = _i.word("port: fewest cycles of a transfer")
I_SMALLEST = _i.word("port: bytes of the smallest request")
I_LARGEST = _i.word("port: bytes of the largest request, 0 where requests do not count")
I_REQUEST = _i.word("port: bytes whose time a request takes at least")
I_L2_NUMERATOR = _i.word("share of L2's time that the bytes take")
I_L2_DENOMINATOR = _i.word("its denominator")
I_SPLIT = _i.word("port: bytes more for a burst over two lines, or UNSPLIT")
I_BYPASS = _i.word("1 where lines that miss stay outside of L2")
I_SLOT = _i.word("port: bytes of the window that a row takes whole")
I_BLOCK = _i.word("port: bytes of the blocks in which unaligned rows are asked for, or 0")
I_BLOCK_PORT = _i.word("port: bytes whose time such a block takes")
I_TAKES = _i.word("unit flags: ring in the unit's block from which a sum's blocks are taken")
I_TAKES_CAUSE = _i.word("unit flags: cause of waiting for them")
I_GIVES = _i.word("unit flags: ring in the unit's block to which they are given")
I_GIVES_PIPE = _i.word("unit flags: bit of the pipe that takes them from there")
I_SUM = _i.word("unit flags: in a unit's block, the sum SUM_*")
I_COMPLETES = _i.word("unit flags: 1 where the blocks are given on")
I_MARKS = _i.word("unit flags: 1 for flags that say that the product before them was the last")
I_LATER = _i.word("unit flags: cycles from the end of work to when the blocks are there")
I_IS_OVER = _i.word("unit flags: -1 where the pipe waits until all blocks are there, though its start may be before, else 0")
I_STRIP = _i.word("unit flags: rows of a fractal")
I_SIZE = _i.size()
#: Flags alone are a local instruction without work.
LOCAL, TRANSFER = range(2)
NO_SIGNAL, RAISE, WAIT, UNIT = range(4)
#: In I_SPLIT: bursts that cross from one line to the next cost what others do.
UNSPLIT = -1
#: In X_OFFSET, the place in a line where the transfer's rows begin: not the same for all.
VARYING = -1
#: Words of a pair of I_WAITS or I_POSTS.  A cause is the position in T that counts its cycles, times 8, plus its category.
PAIR, CAUSE_BITS = 2, 3

# C: the program, a list of these operations with their operands

CODE_INSTR, CODE_ENTER, CODE_NEXT, CODE_END = range(4)
#: ``CODE_ENTER var low high segment segment_end exit repetition`` and
#: ``CODE_NEXT var high step segment segment_end body repetition``
INSTR_WORDS, ENTER_WORDS, NEXT_WORDS = 2, 8, 8

# C: a segment of register operations ``operator target left right``

(OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_MOD, OP_MIN, OP_MAX, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_WORK) = range(14)
OP_WORDS = 4

#: (grain, register, remembered register) a size follow.
_w = Block("C", "W_", "the cost that an OP_WORK names in the place of ``left``")
W_COUNT = _w.word("sizes")
W_FLAT = _w.word("1 where the product of the sizes is rounded up to the grain, not each size")
W_NUMERATOR = _w.word("cycles of a unit of work")
W_DENOMINATOR = _w.word("their denominator")
W_MINIMUM = _w.word("fewest cycles")
W_SIZES = _w.size()
W_SIZE_WORDS = 3

# C: one block for each loop whose iterations may be skipped (repetition.py)

_l = Block("C", "L_", "a loop that may be skipped")
L_VAR = _l.word("register of the variable")
L_HIGH = _l.word("register of its limit")
L_STEP = _l.word("step")
L_PIPES = _l.word("list: pipes that it uses, in a unit's block")
L_PIPES_END = _l.word("its end")
L_RINGS = _l.word("list: semaphore rings that it uses, in a unit's block")
L_RINGS_END = _l.word("its end")
L_RANGES = _l.word("program that computes ranges of registers")
L_RANGES_END = _l.word("its end")
L_WATCHED = _l.word("list: places of ranges that must be one value")
L_WATCHED_END = _l.word("its end")
L_BOOKS = _l.word("in a unit's books: those of its instructions")
L_BOOKS_COUNT = _l.word("how many")
L_WAITS = _l.word("in T: waits by semaphore")
L_WAITS_COUNT = _l.word("how many")
L_SNAPSHOT = _l.word("in a unit's block: the remembered iteration N_*")
L_SIZE = _l.size()
#: The ranges' program: ``operator target left_is_register left right_is_register right``, or ``OP_WORK target register count``
#: with as many places of ranges.  Place 0 is the loop's variable.
RANGE_WORDS, RANGE_WORK_WORDS = 6, 4

# S: in a unit's block, what is remembered of an iteration; pipes, rings and books follow

_n = Block("S", "N_", "a remembered iteration")
N_EPOCH = _n.word("G_EPOCH then")
N_COUNT = _n.word("iterations so far")
N_NEXT = _n.word("iteration at which the next one is remembered")
N_TAKEN = _n.word("iteration that is remembered, 0: none")
N_TIME = _n.word("scalar unit's cycle at its end")
N_VALUE = _n.word("the loop's variable then")
N_SIZE = _n.size()

# S: the machine

_g = Block("S", "G_", "the machine")
G_STATUS = _g.word("how it goes (RUNNING ...)")
G_LAST_SIGNAL = _g.word("cycle of the last token of a signal")
G_READ_FREE = _g.word("whole cycles after which L2's read side is free")
G_READ_PART = _g.word("and parts of a cycle, see K_READ_SCALE")
G_WRITE_FREE = _g.word("whole cycles after which L2's write side is free")
G_WRITE_PART = _g.word("and parts of a cycle")
G_HBM_FREE = _g.word("when HBM is free")
G_STACKED = _g.word("units on the stack")
G_DETAIL = _g.word("what G_STATUS is about")
G_RECORDING = _g.word("rows of the timeline and one, 0 without a timeline")
G_EPOCH = _g.word("how often a scalar unit has gone on")
G_SKIPPED = _g.word("iterations that were not simulated")
G_STAGE = _g.word("how far it is (NOT_BEGUN ...)")
G_LEFT = _g.word("instructions to dispatch before it pauses")
G_NOW = _g.word("cycle of the last request served")
G_USES = _g.word("pieces looked up so far")
G_RUN = _g.word("number of the run, by which what an earlier one has left in L2.pieces is told")
G_OWNERS = _g.word("owners of lines so far, the first of none")
G_OWNER_LEFT = _g.word("an owner that has no lines any more, 0: none; the next is in its OW_RECORD")
G_PIECES_ADDRESS = _g.word("address in memory of L2.pieces")
G_WRAP = _g.word("line from which the set of a line is the line plus G_SKEW, less all sets beyond the last")
G_WRAP_END = _g.word("line up to which it is")
G_SKEW = _g.word("see G_WRAP")
G_SIZE = _g.size()
#: How it goes: RUNNING to the end means that nothing went wrong.
RUNNING, RING_FULL, WINDOW_FULL, QUEUE_FULL, TIME_LIMIT, OUTSIDE_GM, UNCOUNTED = range(7)
#: How far it is.
NOT_BEGUN, BEGUN, ENDED = range(3)

# S: a unit, and in it a pipe with the transfer it is at

_u = Block("S", "U_", "a unit")
U_PART = _u.word("in C: its part")
U_NUMBER = _u.word("its number")
U_PC = _u.word("next operation of the scalar unit")
U_TIME = _u.word("cycle that the scalar unit has reached")
U_BLOCKED = _u.word("pipe whose queue is full, 0: none")
U_WAKE = _u.word("bits: pipes that may be able to go on, bit 0 the scalar unit")
U_STACKED = _u.word("1 while on the stack")
U_BOOKS = _u.word("in T: categories by instruction")
U_CORE = _u.word("number of the core")
U_SUB = _u.word("number of the AIV in the core")
U_SIZE = _u.size()

_p = Block("S", "P_ X_", "a pipe, and the transfer that it is at")
P_FREE = _p.word("cycle from which the pipe takes the next instruction")
P_DONE = _p.word("last completion")
P_COUNT = _p.word("instructions in the queue")
P_HEAD = _p.word("first of them")
P_TAIL = _p.word("place for the next")
P_QUEUE = _p.word("first place of the queue")
P_QUEUE_END = _p.word("its end")
P_CAPACITY = _p.word("its places")
P_MOVING = _p.word("1 while a transfer is under way")
P_BOUNDED = _p.word("-1 where the queue has the places of the chip, 0 where it never fills there")
P_PORT = _p.word("whole cycles after which the port is free")
P_PART = _p.word("and parts of a cycle, P_SCALE of them")
P_SCALE = _p.word("parts of a cycle of the port's last path")
P_LEAF = _p.word("leaf of the tree")
P_UNIT = _p.word("its unit's block")
P_WINDOW = _p.word("pieces in flight: a ring of blocks F_*")
P_WINDOW_HEAD = _p.word("pieces that have left the ring")
P_WINDOW_TAIL = _p.word("pieces that have entered it")
P_WINDOW_BYTES = _p.word("bytes in flight")
P_ROW = _p.word("next row of the timeline")
X_INSTR = _p.word("in C: the transfer's instruction")
X_DISPATCHED = _p.word("cycle of its dispatch")
X_START = _p.word("cycle of its start")
X_CAUSE = _p.word("what it waited for")
X_END = _p.word("cycle at which the last piece so far is there")
X_PORT_BYTES = _p.word("bytes of port time so far")
X_MOVED = _p.word("bytes moved so far")
X_ADDRESS = _p.word("address of the current row")
X_ROWS = _p.word("rows left")
X_ROW_BYTES = _p.word("bytes of a row")
X_IN_ROW = _p.word("bytes of the current row that are done")
X_GROUP = _p.word("rows of a piece, 0 where a row is cut into pieces")
X_ROW_PORT = _p.word("bytes of port time of a row, or of a whole piece of it")
X_PIECE_ROWS = _p.word("rows of the piece asked for")
X_PIECE_BYTES = _p.word("bytes of a row of it")
X_ON_PORT = _p.word("its bytes of port time")
X_HELD = _p.word("its bytes of the window")
X_ROW_HELD = _p.word("bytes of the window of a row, or of a whole piece of it")
X_STEP_INSTR = _p.word("instruction for which the following are known")
X_STEP_BYTES = _p.word("bytes of port time for which they are, -1: none")
X_STEP = _p.word("whole cycles that these take of the port")
X_STEP_PART = _p.word("and parts of a cycle")
X_L2_STEP = _p.word("whole cycles that they take of L2's side")
X_L2_STEP_PART = _p.word("and parts of a cycle")
X_OFFSET = _p.word("place in a line where rows begin, or VARYING")
X_AT = _p.word("cycle at which the piece is asked for")
X_STRIP = _p.word("cycles of the port for a row of fractals")
P_SIZE = _p.size()

# S: small blocks

_q = Block("S", "Q_", "an entry of a pipe's queue")
Q_INSTR = _q.word("in C: the instruction")
Q_DISPATCHED = _q.word("cycle of its dispatch")
Q_START = _q.word("cycle at which the entry was left")
Q_V0 = _q.word("cycles of work, or address in GM")
Q_V1 = _q.word("rows, or cycles of a row of fractals")
Q_V2 = _q.word("bytes of a row")
Q_BARRIER = _q.word("whether the pipe must have drained")
Q_UNUSED = _q.word("nothing; eight words are one line of the host's cache")
Q_SIZE = _q.size()

_f = Block("S", "F_", "in flight, an entry of a port's window")
F_DONE = _f.word("cycle at which the piece is there")
F_BYTES = _f.word("its bytes")
F_SIZE = _f.size()

_r = Block("S", "R_", "a ring of tokens")
R_HEAD = _r.word("tokens taken")
R_TAIL = _r.word("tokens posted")
R_TOKENS = _r.size()

_b = Block("S", "B_", "a turn of a barrier")
B_COUNT = _b.word("units that have arrived")
B_TIME = _b.word("last arrival")
B_TURN = _b.word("number of the turn")
B_SIZE = _b.size()

_sum = Block("S", "SUM_", "an accumulator whose blocks have unit flags")
SUM_BEGUN = _sum.word("1 while a sum has begun and is not complete")
SUM_FIRST = _sum.word("when the first block of its last product is there")
SUM_LAST = _sum.word("when the last block is there")
SUM_SIZE = _sum.size()

_known = Block("S", "KNOWN_", "port time of a piece whose rows begin at different places of a line")
KNOWN_INSTR = _known.word("in C: the instruction")
KNOWN_OFFSET = _known.word("where in a line the first row begins")
KNOWN_ROWS = _known.word("rows")
KNOWN_ROW_BYTES = _known.word("bytes of a row")
KNOWN_BYTES = _known.word("bytes of port time of the piece")
KNOWN_SIZE = _known.size()
#: How many are remembered; a power of two.
KNOWN_PLACES = 256

# T: books

_t = Block("T", "T_", "books; then traffic by tensor, waits by part, categories by unit and instruction")
T_INTERVAL_SHIFT = _t.word("logarithm of the cycles of an interval of bandwidth")
T_UNCHARGED = _t.word("cycles of waits that nobody is to blame for")
#: Bandwidth over time, four words an interval.
T_BANDWIDTH = 8
#: In the books of an instruction the place of ``drained``, which no instruction has, counts its executions.
CATEGORY_COUNT, BOOK_EXECUTED = 8, 7

#: A tree leaf without a request.
NEVER = 2**63 - 1
#: Bits of a tree key that name the leaf; the rest is the tick.
LEAF_BITS = 20
#: Bits for the number of a unit in a word that begins with a tick.
UNIT_BITS = 15


#: Every table of this file.
BLOCKS = (_k, _pt, _sg, _i, _w, _l, _n, _g, _u, _p, _q, _f, _r, _b, _sum, _known, _t)


def describe() -> str:
    """All tables as text, those of L2 too."""
    lines = []
    for blocks, names in ((BLOCKS, globals()), (l2_layout.BLOCKS, vars(l2_layout))):
        for block in blocks:
            lines += ["", f"{block.array}: {block.text}"]
            lines += [f"  {position:3} {name:18} {meaning}" for position, name, meaning in block.table(names)]
    return "\n".join(lines[1:])
