"""Names for the positions in the fast engine's arrays.

The compiled code sees four integer arrays: ``C`` (the program and the chip, never written), ``S`` (the machine's state),
``T`` (books: totals that only grow) and ``rows`` (the timeline).  Every position in them has its name here.

``S`` begins with the words ``G_*``, then a tree over the ports that finds the next memory request, then one block a unit::

    U_* | registers | pipes (P_* and X_*) | semaphore rings | signal rings | remembered iterations (N_*) | queues | windows
"""

from __future__ import annotations

# C: header

(K_UNITS, K_UNIT_BASES, K_PARTS, K_LEAVES, K_LEAF_PORTS, K_TREE, K_STACK, K_MISSED, K_TIME_LIMIT,
 K_CHUNK, K_LINE, K_LINE_SHIFT, K_GM_BYTES, K_ROOMY, K_SETS, K_WAYS,
 K_READ_SCALE, K_READ_PER_BYTE, K_WRITE_SCALE, K_WRITE_PER_BYTE, K_HBM_SCALE, K_HBM_PER_BYTE, K_MISS_LATENCY,
 K_SIGNAL_LATENCY, K_BARRIER_LATENCY, K_SIGNAL_TABLE, K_AIVS, K_RING_MASK, K_WINDOW_MASK, K_BARRIERS, K_INTERVALS,
 K_BANKED, K_LEFT, K_RANGES, K_SAME_LINE, K_KNOWN, K_SIZE) = range(37)

# C: one block a part

(PT_CODE, PT_PROLOGUE, PT_PROLOGUE_END, PT_PIPES, PT_SIGNAL_RINGS, PT_RAISED, PT_SENDERS, PT_SEMAPHORE_WAITS,
 PT_SIGNAL_WAITS, PT_WAITING, PT_PIPE_COUNT, PT_SIZE) = range(12)

# C: one block a signal

SG_KIND, SG_PARTICIPANTS, SG_SIZE = range(3)
TO_AIV, TO_AIC, BARRIER = range(3)

# C: one block an instruction

(I_KIND, I_PIPE, I_PIPE_AT, I_COST, I_FLAGS, I_LATENCY, I_INTERVAL, I_BARRIER, I_V0, I_V1, I_V2, I_WAITS, I_WAITS_END, I_POSTS,
 I_POSTS_END, I_SIGNAL_KIND, I_SIGNAL, I_SCALE, I_PER_BYTE, I_GRANULE, I_OUTSTANDING, I_STRIDE, I_WRITE, I_TRAFFIC,
 I_BOOKS, I_INDEX, I_MINIMUM, I_SMALLEST, I_LARGEST, I_REQUEST, I_L2_NUMERATOR, I_L2_DENOMINATOR, I_SPLIT, I_BYPASS,
 I_SIZE) = range(35)
#: Flags alone are a local instruction without work.
LOCAL, TRANSFER = range(2)
NO_SIGNAL, RAISE, WAIT = range(3)
#: In I_SPLIT: bursts that cross from one line to the next cost what others do.
UNSPLIT = -1
#: Port times of pieces whose rows begin at different places: a power of two of entries, and the words of one.
KNOWN_PLACES = 256
KNOWN_INSTR, KNOWN_OFFSET, KNOWN_ROWS, KNOWN_ROW_BYTES, KNOWN_BYTES, KNOWN_SIZE = range(6)
#: In X_OFFSET, the place in a line where the transfer's rows begin: not the same for all.
VARYING = -1
#: An instruction's waits are pairs (ring in the unit's block, cause), its posts pairs (ring, bit of the pipe that waits).
#: A cause is the position in T that counts its cycles, times 8, plus its category.
PAIR, CAUSE_BITS = 2, 3

# C: the program, a list of these operations with their operands

CODE_INSTR, CODE_ENTER, CODE_NEXT, CODE_END = range(4)
#: ``CODE_ENTER var low high segment segment_end exit repetition`` and
#: ``CODE_NEXT var high step segment segment_end body repetition``
INSTR_WORDS, ENTER_WORDS, NEXT_WORDS = 2, 8, 8

# C: a segment of register operations ``operator target left right``

(OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_MOD, OP_MIN, OP_MAX, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_WORK) = range(14)
OP_WORDS = 4
#: An OP_WORK names its cost in the place of ``left``: these words, then (grain, register, remembered register) a size.
(W_COUNT, W_FLAT, W_NUMERATOR, W_DENOMINATOR, W_MINIMUM, W_SIZES) = range(6)
W_SIZE_WORDS = 3

# C: one block for each loop whose iterations may be skipped (repetition.py)

(L_VAR, L_HIGH, L_STEP, L_PIPES, L_PIPES_END, L_RINGS, L_RINGS_END, L_RANGES, L_RANGES_END, L_WATCHED, L_WATCHED_END,
 L_BOOKS, L_BOOKS_COUNT, L_WAITS, L_WAITS_COUNT, L_SNAPSHOT, L_SIZE) = range(17)
#: The ranges' program: ``operator target left_is_register left right_is_register right``, or ``OP_WORK target register count``
#: with as many places of ranges.  Place 0 is the loop's variable.
RANGE_WORDS, RANGE_WORK_WORDS = 6, 4

# S: in a unit's block, what is remembered of an iteration; pipes, rings and books follow

N_EPOCH, N_COUNT, N_NEXT, N_TAKEN, N_TIME, N_VALUE, N_SIZE = range(7)

# S: the machine

(G_STATUS, G_LAST_SIGNAL, G_READ_FREE, G_WRITE_FREE, G_HBM_FREE, G_CLOCK, G_STACKED, G_DETAIL, G_RECORDING,
 G_EPOCH, G_SKIPPED, G_STAGE, G_SIZE) = range(13)
#: How it goes: RUNNING to the end means that nothing went wrong.
RUNNING, RING_FULL, WINDOW_FULL, QUEUE_FULL, TIME_LIMIT, OUTSIDE_GM, UNCOUNTED = range(7)
#: How far it is.
NOT_BEGUN, BEGUN, ENDED = range(3)

# S: a unit, and in it a pipe with the transfer it is at

(U_PART, U_NUMBER, U_PC, U_TIME, U_BLOCKED, U_WAKE, U_STACKED, U_BOOKS, U_CORE, U_SUB, U_SIZE) = range(11)
(P_FREE, P_DONE, P_COUNT, P_HEAD, P_TAIL, P_QUEUE, P_QUEUE_END, P_CAPACITY, P_MOVING, P_BOUNDED, P_PORT, P_SCALE, P_LEAF,
 P_WINDOW, P_WINDOW_HEAD, P_WINDOW_TAIL, P_WINDOW_BYTES, P_ROW,
 X_INSTR, X_DISPATCHED, X_START, X_CAUSE, X_END, X_PORT_BYTES, X_MOVED, X_ADDRESS, X_ROWS, X_ROW_BYTES, X_IN_ROW, X_GROUP,
 X_ROW_PORT, X_PIECE_ROWS, X_PIECE_BYTES, X_ON_PORT, X_OFFSET, X_AT, P_SIZE) = range(37)

# S: an entry of a pipe's queue, an entry of a port's window, the head of a ring of tokens

Q_INSTR, Q_DISPATCHED, Q_START, Q_V0, Q_V1, Q_V2, Q_BARRIER, Q_UNUSED, Q_SIZE = range(9)
WINDOW_DONE, WINDOW_BYTES, WINDOW_SIZE = range(3)
R_HEAD, R_TAIL, R_TOKENS = range(3)
B_COUNT, B_TIME, B_TURN, B_SIZE = range(4)

# T: books

#: T_UNCHARGED takes the cycles of waits that nobody is to blame for.
T_INTERVAL_SHIFT, T_UNCHARGED, T_BANDWIDTH = 0, 1, 8
#: In the books of an instruction the place of ``drained``, which no instruction has, counts its executions.
CATEGORY_COUNT, BOOK_EXECUTED = 8, 7

#: A tree leaf without a request.
NEVER = 2**63 - 1
#: States of a line of L2; DIRTY is added when it has been written.
ABSENT, HERE, COMING, DIRTY = 0, 1, 2, 4
#: Bits of a word of TURN (memory.py) for the number of a unit, above which is a cycle.
UNIT_BITS = 15
#: Bits of a tree key that name the leaf; the rest is the tick.
LEAF_BITS = 20
