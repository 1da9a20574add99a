"""The machine, compiled: what :mod:`msdsim.engine.reference` says, without a queue of events.

Inside a unit every time is a maximum of known times, so a unit is advanced in any order as far as what it waits for is known:
its own transfers and other units' signals are all that can be unknown.  Only the memory system needs an order of time.  Each
port has at most one request outstanding, and a served request completes later than it was asked for; so when no unit can be
advanced, the earliest request (tick, unit, pipe) comes before all that are still unknown, and is served.
"""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from typing import Any, NamedTuple

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import entry, helper, inlined, pointer_function
from msdsim.engine.fast.memory import (
    Piece,
    access,
    ceil_div,
    count_bandwidth,
    divide,
    offset_in_line,
    port_bytes,
    unaligned_bytes,
)
from msdsim.engine.fast.skip import begin_loop, end_iteration
from msdsim.timeline import record

_COLUMNS = len(record.TIMELINE_COLUMNS)
#: Pieces served and instructions dispatched in one call: what takes less than half a second.
_PIECES_AT_ONCE, _INSTRUCTIONS_AT_ONCE, _EMPTY_ITERATIONS_AT_ONCE = 2**21, 2**22, 2**25
pointer = pointer_function()


class Execution(NamedTuple):
    """What became of an instruction: its place in C, and what the timeline says of it (record.TIMELINE_COLUMNS).

    ``excess`` is how much longer than alone a transfer took, ``cause`` what it waited for last (layout.CAUSE_BITS).
    """

    instr: Any
    dispatched: Any
    start: Any
    end: Any
    work: Any
    excess: Any
    moved: Any
    cause: Any


# Which unit goes next


@helper
def _wake(C, S, unit, pipes):
    """Note that some pipes of a unit (a bit each, bit 0 the scalar unit) may be able to go on."""
    if S[unit + at.U_STACKED] == 0:
        S[unit + at.U_STACKED] = 1
        S[C[at.K_STACK] + S[at.G_STACKED]] = unit
        S[at.G_STACKED] += 1
    S[unit + at.U_WAKE] |= pipes


@inlined
def _set_request(C, S, leaf, key):
    """Put a port's next request, or NEVER, into the tree whose root is the earliest of all."""
    tree = C[at.K_TREE]
    node = C[at.K_LEAVES] + leaf
    S[tree + node] = key
    while node > 1:
        key = min(key, S[tree + (node ^ 1)])
        node >>= 1
        S[tree + node] = key


# The scalar unit


@helper
def _work(C, S, unit, cost, target):
    """Cycles of work (UnitCost.work), computed anew only when a size has changed."""
    changed = False
    position = cost + at.W_SIZES
    for _ in range(C[cost + at.W_COUNT]):
        size = S[unit + C[position + 1]]
        if S[unit + C[position + 2]] != size:
            S[unit + C[position + 2]] = size
            changed = True
        position += at.W_SIZE_WORDS
    if not changed:
        return
    units = 1
    flat = C[cost + at.W_FLAT] != 0
    position = cost + at.W_SIZES
    for _ in range(C[cost + at.W_COUNT]):
        size = S[unit + C[position + 1]]
        units *= size if flat else -(-size // C[position])
        position += at.W_SIZE_WORDS
    work = 0
    if units > 0:
        if flat:
            units = -(-units // C[cost + at.W_SIZES])
        work = max(C[cost + at.W_MINIMUM], ceil_div(units * C[cost + at.W_NUMERATOR], C[cost + at.W_DENOMINATOR]))
    S[unit + target] = work


@helper
def _compute(C, S, unit, position, end):
    """Run a segment of register operations."""
    while position < end:
        operator, target = C[position], C[position + 1]
        if operator == at.OP_WORK:
            _work(C, S, unit, C[position + 2], target)
            position += at.OP_WORDS
            continue
        left, right = S[unit + C[position + 2]], S[unit + C[position + 3]]
        value = 0
        if operator == at.OP_ADD:
            value = left + right
        elif operator == at.OP_MUL:
            value = left * right
        elif operator == at.OP_MIN:
            value = min(left, right)
        elif operator == at.OP_SUB:
            value = left - right
        elif operator == at.OP_MAX:
            value = max(left, right)
        elif operator == at.OP_DIV:
            value = left // right
        elif operator == at.OP_MOD:
            value = left % right
        elif operator == at.OP_EQ:
            value = 1 if left == right else 0
        elif operator == at.OP_NE:
            value = 1 if left != right else 0
        elif operator == at.OP_LT:
            value = 1 if left < right else 0
        elif operator == at.OP_LE:
            value = 1 if left <= right else 0
        elif operator == at.OP_GT:
            value = 1 if left > right else 0
        else:
            value = 1 if left >= right else 0
        S[unit + target] = value
        position += at.OP_WORDS


@helper
def _step_loops(C, S, T, unit, pc, now):
    """Go on from a loop's begin or end to the next instruction or the end of the program; the position there, and the time.

    It stops between two loops where many iterations hold no instruction, so that the caller can be interrupted.
    """
    for _ in range(_EMPTY_ITERATIONS_AT_ONCE):
        operation = C[pc]
        if operation == at.CODE_ENTER:
            low = S[unit + C[pc + 2]]
            if low < S[unit + C[pc + 3]]:
                S[unit + C[pc + 1]] = low
                _compute(C, S, unit, C[pc + 4], C[pc + 5])
                if C[pc + 7] != 0:
                    begin_loop(C, S, unit, C[pc + 7])
                pc += at.ENTER_WORDS
            else:
                pc = C[pc + 6]
        elif operation == at.CODE_NEXT:
            if C[pc + 7] != 0:
                now = end_iteration(C, S, T, unit, C[pc + 7], now)
            value = S[unit + C[pc + 1]] + C[pc + 3]
            if value < S[unit + C[pc + 2]]:
                S[unit + C[pc + 1]] = value
                _compute(C, S, unit, C[pc + 4], C[pc + 5])
                pc = C[pc + 6]
            else:
                pc += at.NEXT_WORDS
        else:
            break
    return pc, now


@helper
def _dispatch(C, S, T, rows, unit):
    """Let the scalar unit go on until a queue is full or the program ends; the pipes (as bits) that may go on because of it.

    An instruction that finds its pipe at hand and its tokens there starts at once; others are put into the queue.
    """
    pc = S[unit + at.U_PC]
    now = S[unit + at.U_TIME]
    S[unit + at.U_BLOCKED] = 0
    S[at.G_EPOCH] += 1
    woken = 0
    left = S[at.G_LEFT]
    while True:
        if left <= 0:
            # It is the scalar unit's turn again after the pause.
            woken |= 1
            break
        left -= 1
        if C[pc] != at.CODE_INSTR:
            pc, now = _step_loops(C, S, T, unit, pc, now)
            if C[pc] == at.CODE_END or S[at.G_STATUS] != at.RUNNING:
                break
            if C[pc] != at.CODE_INSTR:
                left = 0
                continue
        instr = C[pc + 1]
        pipe = unit + C[instr + at.I_PIPE_AT]
        count = S[pipe + at.P_COUNT]
        if count == S[pipe + at.P_CAPACITY]:
            if S[pipe + at.P_BOUNDED] == 0:
                S[at.G_STATUS] = at.QUEUE_FULL
            S[unit + at.U_BLOCKED] = C[instr + at.I_PIPE]
            break
        entry = S[pipe + at.P_TAIL]
        # The place in the queue was left when the instruction that had it started.
        now = max(now + C[instr + at.I_COST], S[entry + at.Q_START])
        barrier = S[unit + C[instr + at.I_BARRIER]]
        value = S[unit + C[instr + at.I_V0]]
        after = entry + at.Q_SIZE
        after = S[pipe + at.P_QUEUE] if after == S[pipe + at.P_QUEUE_END] else after
        S[pipe + at.P_TAIL] = after
        pc += at.INSTR_WORDS
        S[entry + at.Q_DISPATCHED] = now
        S[entry + at.Q_BARRIER] = barrier
        S[entry + at.Q_V0] = value
        S[entry + at.Q_V1] = S[unit + C[instr + at.I_V1]]
        S[entry + at.Q_V2] = S[unit + C[instr + at.I_V2]]
        if count == 0 and S[pipe + at.P_MOVING] == 0 and _has_tokens(C, S, unit, instr):
            S[pipe + at.P_HEAD] = after
            woken |= _start(C, S, T, rows, unit, pipe, entry, instr)
            continue
        S[entry + at.Q_INSTR] = instr
        S[pipe + at.P_COUNT] = count + 1
    S[at.G_LEFT] = left
    S[unit + at.U_PC] = pc
    S[unit + at.U_TIME] = now
    return woken


# Signals


@inlined
def _post(C, S, ring, time):
    """Add a token to a ring."""
    tail = S[ring + at.R_TAIL]
    if tail - S[ring + at.R_HEAD] > C[at.K_RING_MASK]:
        S[at.G_STATUS] = at.RING_FULL
        return
    S[ring + at.R_TOKENS + (tail & C[at.K_RING_MASK])] = time
    S[ring + at.R_TAIL] = tail + 1


@helper
def _deliver(C, S, unit, signal, sender, time):
    """Post a signal's token to a unit, if any of its instructions waits for it."""
    part = S[unit + at.U_PART]
    pipe = C[C[part + at.PT_WAITING] + signal]
    if pipe == 0:
        return
    senders = C[part + at.PT_SENDERS]
    size = at.R_TOKENS + C[at.K_RING_MASK] + 1
    first = unit + C[part + at.PT_SIGNAL_RINGS] + signal * senders * size
    if sender >= 0:
        _post(C, S, first + sender * size, time)
    else:
        for number in range(senders):
            _post(C, S, first + number * size, time)
    _wake(C, S, unit, 1 << pipe)


@helper
def _raise(C, S, unit, signal, time):
    """A unit raises a signal at ``time``."""
    table = C[at.K_SIGNAL_TABLE] + signal * at.SG_SIZE
    bases = C[at.K_UNIT_BASES]
    group = S[unit + at.U_CORE] * (1 + C[at.K_AIVS])
    if C[table + at.SG_KIND] == at.BARRIER:
        _arrive(C, S, unit, signal, C[table + at.SG_PARTICIPANTS], time)
        return
    time += C[at.K_SIGNAL_LATENCY]
    S[at.G_LAST_SIGNAL] = max(S[at.G_LAST_SIGNAL], time)
    if C[table + at.SG_KIND] == at.TO_AIV:
        for number in range(C[at.K_AIVS]):
            _deliver(C, S, C[bases + group + 1 + number], signal, 0, time)
    else:
        _deliver(C, S, C[bases + group], signal, S[unit + at.U_SUB], time)


@helper
def _arrive(C, S, unit, signal, participants, time):
    """A unit reaches a barrier; the last of its turn releases everyone."""
    raised = unit + C[S[unit + at.U_PART] + at.PT_RAISED] + signal
    turn = S[raised]
    S[raised] = turn + 1
    mask = C[at.K_RING_MASK]
    slot = C[at.K_BARRIERS] + (signal * (mask + 1) + (turn & mask)) * at.B_SIZE
    if S[slot + at.B_COUNT] == 0:
        S[slot + at.B_TURN] = turn
    elif S[slot + at.B_TURN] != turn:
        S[at.G_STATUS] = at.RING_FULL
        return
    S[slot + at.B_COUNT] += 1
    S[slot + at.B_TIME] = max(S[slot + at.B_TIME], time)
    if S[slot + at.B_COUNT] < participants:
        return
    time = S[slot + at.B_TIME] + C[at.K_BARRIER_LATENCY]
    S[slot + at.B_COUNT] = 0
    S[slot + at.B_TIME] = 0
    S[at.G_LAST_SIGNAL] = max(S[at.G_LAST_SIGNAL], time)
    for number in range(C[at.K_UNITS]):
        _deliver(C, S, C[C[at.K_UNIT_BASES] + number], signal, -1, time)


# Completion


@helper
def _record(C, S, rows, unit, pipe, done, end, cause):
    """Write a row of the timeline (TIMELINE_COLUMNS)."""
    row = S[pipe + at.P_ROW] * _COLUMNS
    S[pipe + at.P_ROW] += 1
    if S[pipe + at.P_ROW] >= S[at.G_RECORDING]:
        S[at.G_STATUS] = at.UNCOUNTED
        return
    category, culprit = -1, -1
    if cause >= 0:
        category = cause & (1 << at.CAUSE_BITS) - 1
        counter, part = cause >> at.CAUSE_BITS, S[unit + at.U_PART]
        if counter != at.T_UNCHARGED:
            culprit = counter - C[part + (at.PT_SIGNAL_WAITS if category == record.WAIT_SYNC else at.PT_SEMAPHORE_WAITS)]
    rows[row] = S[unit + at.U_NUMBER]
    rows[row + 1] = C[done.instr + at.I_PIPE]
    rows[row + 2] = C[done.instr + at.I_INDEX]
    rows[row + 3] = done.dispatched
    rows[row + 4] = done.start
    rows[row + 5] = end
    rows[row + 6] = done.work
    rows[row + 7] = done.moved
    rows[row + 8] = category
    rows[row + 9] = culprit


@inlined
def _finish(C, S, T, rows, unit, pipe, done):
    """An instruction's end is known: keep the books, post its flags and signal; the pipes (as bits) that may go on."""
    instr, cause = done.instr, done.cause
    cursor = S[pipe + at.P_DONE]
    end = max(done.end, max(S[pipe + at.P_FREE], cursor))
    gap = max(0, done.start - cursor)
    rest = end - max(cursor, done.start)
    busy = min(rest, done.work)
    memory = min(rest - busy, done.excess)
    books = S[unit + at.U_BOOKS] + C[instr + at.I_BOOKS]
    T[books + record.BUSY] += busy
    T[books + record.HEAD] += rest - busy - memory
    T[books + at.BOOK_EXECUTED] += 1
    if memory > 0:
        T[books + record.WAIT_MEMORY] += memory
    if gap > 0:
        T[books + (cause & (1 << at.CAUSE_BITS) - 1)] += gap
        T[cause >> at.CAUSE_BITS] += gap
    if S[at.G_RECORDING] != 0:
        _record(C, S, rows, unit, pipe, done, end, cause if gap > 0 else -1)
    S[pipe + at.P_DONE] = end
    woken = 0
    position, last = C[instr + at.I_POSTS], C[instr + at.I_POSTS_END]
    while position < last:
        _post(C, S, unit + C[position], end)
        woken |= C[position + 1]
        position += at.PAIR
    if C[instr + at.I_SIGNAL_KIND] == at.RAISE:
        _raise(C, S, unit, C[instr + at.I_SIGNAL], end)
    return woken


# Transfers


@inlined
def _held(C, instr, row_bytes):
    """Bytes of the window that one row takes (PortCost.window_bytes)."""
    slot = C[instr + at.I_SLOT]
    return min(ceil_div(row_bytes, slot) * slot, max(row_bytes, C[instr + at.I_STRIDE]))


@helper
def _begin_transfer(C, S, pipe, entry, instr, start):
    """The port turns to a transfer; False when there is nothing to move."""
    address, rows, row_bytes = S[entry + at.Q_V0], S[entry + at.Q_V1], S[entry + at.Q_V2]
    scale = C[instr + at.I_SCALE]
    # Back to back on the same path, the port goes on from its exact position; otherwise from the start of this cycle.
    if S[pipe + at.P_SCALE] != scale or ceil_div(S[pipe + at.P_PORT], scale) != start:
        S[pipe + at.P_PORT] = start * scale
        S[pipe + at.P_SCALE] = scale
    S[pipe + at.P_PORT] += C[instr + at.I_INTERVAL] * scale
    S[pipe + at.X_END] = start
    S[pipe + at.X_PORT_BYTES] = 0
    S[pipe + at.X_MOVED] = 0
    if start > C[at.K_TIME_LIMIT]:
        S[at.G_STATUS] = at.TIME_LIMIT
        S[at.G_DETAIL] = C[at.K_TIME_LIMIT]
        return False
    if rows <= 0 or row_bytes <= 0:
        return False
    stride = C[instr + at.I_STRIDE]
    last = address + (rows - 1) * stride + row_bytes
    if address < 0 or last > C[at.K_GM_BYTES]:
        S[at.G_STATUS] = at.OUTSIDE_GM
        S[at.G_DETAIL] = C[instr + at.I_INDEX]
        return False
    if stride == row_bytes and C[instr + at.I_LARGEST] == 0:
        row_bytes *= rows
        rows = 1
    # Rows of a piece; 0 where a row is cut into pieces.
    chunk = C[at.K_CHUNK]
    S[pipe + at.X_GROUP] = max(1, divide(chunk, _held(C, instr, row_bytes))) if row_bytes < chunk else 0
    offset = 0
    if C[instr + at.I_SPLIT] != at.UNSPLIT or C[instr + at.I_BLOCK] != 0:
        # Pieces of a row begin as the row does, since they are whole lines.
        offset = offset_in_line(C, address)
        if rows > 1 and offset_in_line(C, stride) != 0:
            offset = at.VARYING
    S[pipe + at.X_OFFSET] = offset
    S[pipe + at.X_ROW_PORT] = port_bytes(C, instr, min(row_bytes, chunk), max(0, offset))
    S[pipe + at.X_ADDRESS] = address
    S[pipe + at.X_ROWS] = rows
    S[pipe + at.X_ROW_BYTES] = row_bytes
    S[pipe + at.X_IN_ROW] = 0
    return True


@inlined
def _next_piece(C, S, pipe, instr):
    """Cut the transfer's next piece and ask for it, as soon as the port and its window allow."""
    group = S[pipe + at.X_GROUP]
    piece_bytes = S[pipe + at.X_ROW_BYTES]
    on_port = S[pipe + at.X_ROW_PORT]
    if group > 0:
        rows = min(S[pipe + at.X_ROWS], group)
        on_port *= rows
    else:
        rows = 1
        piece_bytes = min(C[at.K_CHUNK], piece_bytes - S[pipe + at.X_IN_ROW])
        if piece_bytes < C[at.K_CHUNK]:
            on_port = port_bytes(C, instr, piece_bytes, max(0, S[pipe + at.X_OFFSET]))
    if S[pipe + at.X_OFFSET] == at.VARYING:
        on_port = unaligned_bytes(C, S, instr, S[pipe + at.X_ADDRESS] + S[pipe + at.X_IN_ROW], rows, piece_bytes)
    scale = C[instr + at.I_SCALE]
    port = S[pipe + at.P_PORT]
    window, mask, head = S[pipe + at.P_WINDOW], C[at.K_WINDOW_MASK], S[pipe + at.P_WINDOW_HEAD]
    in_flight, held = S[pipe + at.P_WINDOW_BYTES], rows * _held(C, instr, piece_bytes)
    while head < S[pipe + at.P_WINDOW_TAIL]:
        slot = window + (head & mask) * at.F_SIZE
        landed = S[slot + at.F_DONE] * scale
        # What has landed leaves at no cost; for the rest the port waits as long as the window has no room.
        if landed > port and in_flight + held <= C[instr + at.I_OUTSTANDING]:
            break
        in_flight -= S[slot + at.F_BYTES]
        port = max(port, landed)
        head += 1
    S[pipe + at.P_WINDOW_HEAD] = head
    S[pipe + at.P_WINDOW_BYTES] = in_flight
    S[pipe + at.P_PORT] = port
    S[pipe + at.X_PIECE_ROWS] = rows
    S[pipe + at.X_PIECE_BYTES] = piece_bytes
    S[pipe + at.X_ON_PORT] = on_port
    S[pipe + at.X_HELD] = held
    now = ceil_div(port, scale)
    S[pipe + at.X_AT] = now
    if now > C[at.K_TIME_LIMIT]:
        S[at.G_STATUS] = at.TIME_LIMIT
        S[at.G_DETAIL] = C[at.K_TIME_LIMIT]
    leaf = S[pipe + at.P_LEAF]
    _set_request(C, S, leaf, (now << at.LEAF_BITS) | leaf)


@inlined
def _serve_piece(C, S, T, l2, unit, pipe, instr):
    """The memory system serves a port's request; True if it was the last piece of its transfer."""
    now, rows, piece_bytes = S[pipe + at.X_AT], S[pipe + at.X_PIECE_ROWS], S[pipe + at.X_PIECE_BYTES]
    stride, write = C[instr + at.I_STRIDE], C[instr + at.I_WRITE]
    on_port, count = S[pipe + at.X_ON_PORT], rows * piece_bytes
    l2_bytes = on_port
    if C[instr + at.I_L2_DENOMINATOR] != C[instr + at.I_L2_NUMERATOR]:
        l2_bytes = ceil_div(on_port * C[instr + at.I_L2_DENOMINATOR], C[instr + at.I_L2_NUMERATOR])
    piece = Piece(S[pipe + at.X_ADDRESS] + S[pipe + at.X_IN_ROW], rows, piece_bytes, stride)
    done, hbm_read, hbm_write = access(C, S, l2, now, S[unit + at.U_NUMBER], piece, write, l2_bytes, C[instr + at.I_BYPASS])
    port = S[pipe + at.P_PORT] + on_port * C[instr + at.I_PER_BYTE]
    S[pipe + at.P_PORT] = port
    done = max(done, ceil_div(port, C[instr + at.I_SCALE])) + C[instr + at.I_LATENCY]
    tail = S[pipe + at.P_WINDOW_TAIL]
    if tail - S[pipe + at.P_WINDOW_HEAD] > C[at.K_WINDOW_MASK]:
        S[at.G_STATUS] = at.WINDOW_FULL
        return False
    slot = S[pipe + at.P_WINDOW] + (tail & C[at.K_WINDOW_MASK]) * at.F_SIZE
    S[slot + at.F_DONE] = done
    S[slot + at.F_BYTES] = S[pipe + at.X_HELD]
    S[pipe + at.P_WINDOW_TAIL] = tail + 1
    S[pipe + at.P_WINDOW_BYTES] += S[pipe + at.X_HELD]
    S[pipe + at.X_END] = max(S[pipe + at.X_END], done)
    S[pipe + at.X_PORT_BYTES] += on_port
    S[pipe + at.X_MOVED] += count
    kind = record.L2_WRITE if write else record.L2_READ
    traffic = C[instr + at.I_TRAFFIC]
    T[traffic + kind] += count
    T[traffic + record.HBM_READ] += hbm_read
    T[traffic + record.HBM_WRITE] += hbm_write
    count_bandwidth(C, T, now, kind, count, hbm_read, hbm_write)
    return _move_on(S, pipe, rows, piece_bytes, stride)


@inlined
def _move_on(S, pipe, rows, piece_bytes, stride):
    """Step over a served piece; True if nothing is left."""
    if S[pipe + at.X_GROUP] == 0:
        S[pipe + at.X_IN_ROW] += piece_bytes
        if S[pipe + at.X_IN_ROW] < S[pipe + at.X_ROW_BYTES]:
            return False
        S[pipe + at.X_IN_ROW] = 0
    S[pipe + at.X_ADDRESS] += rows * stride
    S[pipe + at.X_ROWS] -= rows
    return S[pipe + at.X_ROWS] == 0


@helper
def _end_transfer(C, S, T, rows, unit, pipe):
    """A transfer's last piece has been served, or it had none; the pipes (as bits) that may go on."""
    instr, start, moved = S[pipe + at.X_INSTR], S[pipe + at.X_START], S[pipe + at.X_MOVED]
    scale = C[instr + at.I_SCALE]
    if moved > 0:
        S[pipe + at.P_PORT] = max(S[pipe + at.P_PORT], (start + C[instr + at.I_MINIMUM]) * scale)
    S[pipe + at.P_FREE] = ceil_div(S[pipe + at.P_PORT], scale) + C[instr + at.I_FLAGS]
    work = ceil_div(S[pipe + at.X_PORT_BYTES] * C[instr + at.I_PER_BYTE], scale)
    end = S[pipe + at.X_END]
    excess = max(0, end - start - C[instr + at.I_INTERVAL] - C[instr + at.I_LATENCY] - work)
    return _finish(C, S, T, rows, unit, pipe,
                   Execution(instr, S[pipe + at.X_DISPATCHED], start, end, work, excess, moved, S[pipe + at.X_CAUSE]))


@helper
def _start_transfer(C, S, T, rows, unit, pipe, entry, instr, start, cause):
    """Ask for the first piece of a transfer, or end it when there is none; the pipes (as bits) that may go on."""
    S[pipe + at.X_INSTR] = instr
    S[pipe + at.X_DISPATCHED] = S[entry + at.Q_DISPATCHED]
    S[pipe + at.X_START] = start
    S[pipe + at.X_CAUSE] = cause
    if not _begin_transfer(C, S, pipe, entry, instr, start):
        return _end_transfer(C, S, T, rows, unit, pipe)
    S[pipe + at.P_MOVING] = 1
    _next_piece(C, S, pipe, instr)
    return 0


# The pipes


@inlined
def _has_tokens(C, S, unit, instr):
    """Whether everything an instruction waits for has been posted."""
    position, last = C[instr + at.I_WAITS], C[instr + at.I_WAITS_END]
    while position < last:
        ring = unit + C[position]
        if S[ring + at.R_HEAD] == S[ring + at.R_TAIL]:
            return False
        position += at.PAIR
    return C[instr + at.I_SIGNAL_KIND] != at.WAIT or _is_signalled(C, S, unit, C[instr + at.I_SIGNAL])


@helper
def _is_signalled(C, S, unit, signal):
    """Whether every sender of a signal has raised it once more."""
    part = S[unit + at.U_PART]
    size = at.R_TOKENS + C[at.K_RING_MASK] + 1
    ring = unit + C[part + at.PT_SIGNAL_RINGS] + signal * C[part + at.PT_SENDERS] * size
    for _ in range(C[part + at.PT_SENDERS]):
        if S[ring + at.R_HEAD] == S[ring + at.R_TAIL]:
            return False
        ring += size
    return True


@inlined
def _take(C, S, ring):
    """The cycle at which the next token was posted; it is consumed."""
    head = S[ring + at.R_HEAD]
    S[ring + at.R_HEAD] = head + 1
    return S[ring + at.R_TOKENS + (head & C[at.K_RING_MASK])]


@helper
def _take_signal(C, S, unit, signal, latest, cause):
    """Consume a signal of every sender: the latest cycle so far at which something was posted, and its cause."""
    part = S[unit + at.U_PART]
    size = at.R_TOKENS + C[at.K_RING_MASK] + 1
    ring = unit + C[part + at.PT_SIGNAL_RINGS] + signal * C[part + at.PT_SENDERS] * size
    for _ in range(C[part + at.PT_SENDERS]):
        posted = _take(C, S, ring)
        if posted > latest:
            latest, cause = posted, (C[part + at.PT_SIGNAL_WAITS] + signal) << at.CAUSE_BITS | record.WAIT_SYNC
        ring += size
    return latest, cause


@inlined
def _start(C, S, T, rows, unit, pipe, entry, instr):
    """Start the instruction in a place of the queue, whose tokens are there; the pipes (as bits) that may go on because of
    it."""
    dispatched = S[entry + at.Q_DISPATCHED]
    start = max(dispatched, S[pipe + at.P_FREE])
    if S[entry + at.Q_BARRIER] != 0:
        start = max(start, S[pipe + at.P_DONE])
    # The latest token is to blame, the first of several; nobody is if the instruction would have started no earlier.
    latest, cause = -1, -1
    position, last = C[instr + at.I_WAITS], C[instr + at.I_WAITS_END]
    while position < last:
        posted = _take(C, S, unit + C[position])
        if posted > latest:
            latest, cause = posted, C[position + 1]
        position += at.PAIR
    if C[instr + at.I_SIGNAL_KIND] == at.WAIT:
        latest, cause = _take_signal(C, S, unit, C[instr + at.I_SIGNAL], latest, cause)
    if latest < start:
        cause = at.T_UNCHARGED << at.CAUSE_BITS | record.WAIT_ISSUE
    else:
        start = latest
    S[entry + at.Q_START] = start & S[pipe + at.P_BOUNDED]
    if C[instr + at.I_KIND] == at.TRANSFER:
        return _start_transfer(C, S, T, rows, unit, pipe, entry, instr, start, cause)
    work = S[entry + at.Q_V0]
    S[pipe + at.P_FREE] = start + C[instr + at.I_INTERVAL] + work + C[instr + at.I_FLAGS]
    end = start + C[instr + at.I_LATENCY] + work
    return _finish(C, S, T, rows, unit, pipe, Execution(instr, dispatched, start, end, work, 0, 0, cause))


@helper
def _run_pipe(C, S, T, rows, unit, number, pipe):
    """Start instructions of a pipe's queue while their tokens are there; the pipes (as bits) that may go on because of it."""
    woken = 0
    while S[pipe + at.P_COUNT] > 0 and S[pipe + at.P_MOVING] == 0:
        entry = S[pipe + at.P_HEAD]
        instr = S[entry + at.Q_INSTR]
        if not _has_tokens(C, S, unit, instr):
            break
        after = entry + at.Q_SIZE
        S[pipe + at.P_HEAD] = S[pipe + at.P_QUEUE] if after == S[pipe + at.P_QUEUE_END] else after
        S[pipe + at.P_COUNT] -= 1
        if S[unit + at.U_BLOCKED] == number:
            woken |= 1
        woken |= _start(C, S, T, rows, unit, pipe, entry, instr)
    return woken


@helper
def _advance(C, S, T, rows, unit):
    """Everything in a unit that follows from what is known, but for a pause."""
    part = S[unit + at.U_PART]
    pipes = unit + C[part + at.PT_PIPES]
    while S[unit + at.U_WAKE] != 0 and S[at.G_STATUS] == at.RUNNING and S[at.G_LEFT] > 0:
        wake = S[unit + at.U_WAKE]
        S[unit + at.U_WAKE] = 0
        if wake & 1:
            woken = _dispatch(C, S, T, rows, unit)
            wake |= woken
            S[unit + at.U_WAKE] |= woken & 1
        for number in range(1, C[part + at.PT_PIPE_COUNT]):
            if wake >> number & 1:
                woken = _run_pipe(C, S, T, rows, unit, number, pipes + number * at.P_SIZE)
                S[unit + at.U_WAKE] |= woken


# The whole


@helper
def _advance_all(C, S, T, rows):
    """Every unit on the stack goes on; those that a pause finds there stay."""
    while S[at.G_STACKED] > 0 and S[at.G_STATUS] == at.RUNNING:
        unit = S[C[at.K_STACK] + S[at.G_STACKED] - 1]
        S[at.G_STACKED] -= 1
        _advance(C, S, T, rows, unit)
        S[unit + at.U_STACKED] = 0
        if S[at.G_LEFT] <= 0:
            if S[unit + at.U_WAKE] != 0:
                _wake(C, S, unit, 0)
            return


@helper
def _begin(C, S):
    for number in range(C[at.K_UNITS]):
        unit = C[C[at.K_UNIT_BASES] + number]
        part = S[unit + at.U_PART]
        _compute(C, S, unit, C[part + at.PT_PROLOGUE], C[part + at.PT_PROLOGUE_END])
        _wake(C, S, unit, 1)


@helper
def run_on_pointers(C, S, T, rows, line, tag, order, taken, ready, turn):
    """Run for a while, so that the caller can be interrupted.  ``S[G_STAGE]`` says ENDED when nothing is left to do or can be
    done, ``S[G_STATUS]`` then how it ended."""
    l2 = at.L2(line, tag, order, taken, ready, turn)
    S[at.G_LEFT] = _INSTRUCTIONS_AT_ONCE
    if S[at.G_STAGE] == at.NOT_BEGUN:
        S[at.G_STAGE] = at.BEGUN
        _begin(C, S)
    _advance_all(C, S, T, rows)
    for _ in range(_PIECES_AT_ONCE):
        if S[at.G_LEFT] <= 0 and S[at.G_STATUS] == at.RUNNING:
            break
        key = S[C[at.K_TREE] + 1]
        if key == at.NEVER or S[at.G_STATUS] != at.RUNNING:
            S[at.G_STAGE] = at.ENDED
            break
        leaf = key & ((1 << at.LEAF_BITS) - 1)
        S[at.G_NOW] = key >> at.LEAF_BITS
        port = C[at.K_LEAF_PORTS] + 2 * leaf
        unit = C[port]
        pipe = unit + C[port + 1]
        instr = S[pipe + at.X_INSTR]
        if _serve_piece(C, S, T, l2, unit, pipe, instr):
            _set_request(C, S, leaf, at.NEVER)
            S[pipe + at.P_MOVING] = 0
            woken = _end_transfer(C, S, T, rows, unit, pipe)
            _wake(C, S, unit, woken | 1 << C[instr + at.I_PIPE])
            _advance_all(C, S, T, rows)
        else:
            _next_piece(C, S, pipe, instr)

@entry("void(int64[::1], int64[::1], int64[::1], int64[:,::1], uint16[::1], int32[::1], int64[::1], int32[::1], int64[::1], "
       "int64[::1])")
def run(C, S, T, rows, line, tag, order, taken, ready, turn):
    """:func:`run_on_pointers` on arrays; those from ``line`` on are the ones of layout.L2."""
    run_on_pointers(pointer(C), pointer(S), pointer(T), pointer(rows), pointer(line), pointer(tag), pointer(order),
                    pointer(taken), pointer(ready), pointer(turn))
