"""Transfers between GM and a core: cut into pieces, each asked for as soon as the port and its window allow."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div, divide
from msdsim.engine.fast.blocks import drain_cycles, pass_blocks
from msdsim.engine.fast.cache import Piece, expect_piece
from msdsim.engine.fast.compiled import helper, inlined
from msdsim.engine.fast.completion import Execution, finish
from msdsim.engine.fast.memory import access, add_cycles, count_bandwidth
from msdsim.engine.fast.port_time import offset_in_line, port_bytes, unaligned_bytes
from msdsim.engine.fast.ready import set_request
from msdsim.timeline import record


@inlined
def _held(C, instr, row_bytes):
    """Bytes of the window that one row takes (PortCost.window_bytes)."""
    slot = C[instr + at.I_SLOT]
    return min(ceil_div(row_bytes, slot) * slot, max(row_bytes, C[instr + at.I_STRIDE]))


@inlined
def _port_is_free(S, pipe):
    """The first cycle at which the port is free."""
    return S[pipe + at.P_PORT] + (1 if S[pipe + at.P_PART] > 0 else 0)


@helper
def _begin_transfer(C, S, pipe, entry, instr, start):
    """The port turns to a transfer; False when there is nothing to move."""
    address, rows, row_bytes = S[entry + at.Q_V0], S[entry + at.Q_V1], S[entry + at.Q_V2]
    scale = C[instr + at.I_SCALE]
    # Back to back on the same path, the port goes on from its exact position; otherwise from the start of this cycle.
    if S[pipe + at.P_SCALE] != scale or _port_is_free(S, pipe) != start:
        S[pipe + at.P_PORT], S[pipe + at.P_PART] = start, 0
        S[pipe + at.P_SCALE] = scale
    S[pipe + at.P_PORT] += C[instr + at.I_INTERVAL]
    if S[pipe + at.X_STEP_INSTR] != instr:
        S[pipe + at.X_STEP_INSTR], S[pipe + at.X_STEP_BYTES] = instr, -1
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
    S[pipe + at.X_ROW_HELD] = _held(C, instr, min(row_bytes, chunk))
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
def next_piece(C, S, pipe, instr):
    """Cut the transfer's next piece and ask for it, as soon as the port and its window allow."""
    group = S[pipe + at.X_GROUP]
    piece_bytes = S[pipe + at.X_ROW_BYTES]
    on_port, held = S[pipe + at.X_ROW_PORT], S[pipe + at.X_ROW_HELD]
    if group > 0:
        rows = min(S[pipe + at.X_ROWS], group)
        on_port *= rows
        held *= rows
    else:
        rows = 1
        piece_bytes = min(C[at.K_CHUNK], piece_bytes - S[pipe + at.X_IN_ROW])
        if piece_bytes < C[at.K_CHUNK]:
            on_port = port_bytes(C, instr, piece_bytes, max(0, S[pipe + at.X_OFFSET]))
            held = _held(C, instr, piece_bytes)
    if S[pipe + at.X_OFFSET] == at.VARYING:
        on_port = unaligned_bytes(C, S, instr, S[pipe + at.X_ADDRESS] + S[pipe + at.X_IN_ROW], rows, piece_bytes)
    port = S[pipe + at.P_PORT]
    window, mask, head = S[pipe + at.P_WINDOW], C[at.K_WINDOW_MASK], S[pipe + at.P_WINDOW_HEAD]
    in_flight = S[pipe + at.P_WINDOW_BYTES]
    while head < S[pipe + at.P_WINDOW_TAIL]:
        slot = window + (head & mask) * at.F_SIZE
        landed = S[slot + at.F_DONE]
        # What has landed leaves at no cost; for the rest the port waits as long as the window has no room.
        if landed > port:
            if in_flight + held <= C[instr + at.I_OUTSTANDING]:
                break
            port = landed
            S[pipe + at.P_PART] = 0
        in_flight -= S[slot + at.F_BYTES]
        head += 1
    S[pipe + at.P_WINDOW_HEAD] = head
    S[pipe + at.P_WINDOW_BYTES] = in_flight
    S[pipe + at.P_PORT] = port
    S[pipe + at.X_PIECE_ROWS] = rows
    S[pipe + at.X_PIECE_BYTES] = piece_bytes
    S[pipe + at.X_ON_PORT] = on_port
    S[pipe + at.X_HELD] = held
    now = _port_is_free(S, pipe)
    S[pipe + at.X_AT] = now
    if now > C[at.K_TIME_LIMIT]:
        S[at.G_STATUS] = at.TIME_LIMIT
        S[at.G_DETAIL] = C[at.K_TIME_LIMIT]
    expect_piece(C, S, S[pipe + at.X_ADDRESS] + S[pipe + at.X_IN_ROW])
    leaf = S[pipe + at.P_LEAF]
    set_request(C, S, leaf, (now << at.LEAF_BITS) | leaf)


@helper
def _measure(C, S, pipe, instr, on_port):
    """Work out how long so many bytes of port time take the port and L2."""
    busy, scale = on_port * C[instr + at.I_PER_BYTE], C[instr + at.I_SCALE]
    step = divide(busy, scale)
    S[pipe + at.X_STEP_BYTES], S[pipe + at.X_STEP], S[pipe + at.X_STEP_PART] = on_port, step, busy - step * scale
    l2_bytes = on_port
    if C[instr + at.I_L2_DENOMINATOR] != C[instr + at.I_L2_NUMERATOR]:
        l2_bytes = ceil_div(on_port * C[instr + at.I_L2_DENOMINATOR], C[instr + at.I_L2_NUMERATOR])
    side = at.K_WRITE_SCALE if C[instr + at.I_WRITE] != 0 else at.K_READ_SCALE
    busy, scale = l2_bytes * C[side + at.K_READ_PER_BYTE - at.K_READ_SCALE], C[side]
    step = divide(busy, scale)
    S[pipe + at.X_L2_STEP], S[pipe + at.X_L2_STEP_PART] = step, busy - step * scale


@inlined
def serve_piece(C, S, T, l2, unit, pipe, instr):
    """The memory system serves a port's request; True if it was the last piece of its transfer."""
    now, rows, piece_bytes = S[pipe + at.X_AT], S[pipe + at.X_PIECE_ROWS], S[pipe + at.X_PIECE_BYTES]
    stride, write = C[instr + at.I_STRIDE], C[instr + at.I_WRITE]
    on_port, count = S[pipe + at.X_ON_PORT], rows * piece_bytes
    if S[pipe + at.X_STEP_BYTES] != on_port:
        _measure(C, S, pipe, instr, on_port)
    piece = Piece(S[pipe + at.X_ADDRESS] + S[pipe + at.X_IN_ROW], rows, piece_bytes, stride)
    done, hbm_read, hbm_write = access(C, S, l2, now, S[unit + at.U_NUMBER], piece, write, S[pipe + at.X_L2_STEP],
                                       S[pipe + at.X_L2_STEP_PART], C[instr + at.I_BYPASS])
    port, part = add_cycles(S[pipe + at.P_PORT], S[pipe + at.P_PART], S[pipe + at.X_STEP], S[pipe + at.X_STEP_PART],
                            S[pipe + at.P_SCALE])
    S[pipe + at.P_PORT], S[pipe + at.P_PART] = port, part
    done = max(done, port + (1 if part > 0 else 0)) + C[instr + at.I_LATENCY]
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
    if hbm_read + hbm_write > 0:
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
def end_transfer(C, S, T, rows, unit, pipe):
    """A transfer's last piece has been served, or it had none; the pipes (as bits) that may go on."""
    instr, start, moved = S[pipe + at.X_INSTR], S[pipe + at.X_START], S[pipe + at.X_MOVED]
    scale = C[instr + at.I_SCALE]
    if moved > 0 and S[pipe + at.P_PORT] < start + C[instr + at.I_MINIMUM]:
        S[pipe + at.P_PORT], S[pipe + at.P_PART] = start + C[instr + at.I_MINIMUM], 0
    left = _port_is_free(S, pipe)
    S[pipe + at.P_FREE] = left + C[instr + at.I_FLAGS]
    work = ceil_div(S[pipe + at.X_PORT_BYTES] * C[instr + at.I_PER_BYTE], scale)
    end = S[pipe + at.X_END]
    excess = max(0, end - start - C[instr + at.I_INTERVAL] - C[instr + at.I_LATENCY] - work)
    woken = finish(C, S, T, rows, unit, pipe,
                   Execution(instr, S[pipe + at.X_DISPATCHED], start, end, work, excess, moved, S[pipe + at.X_CAUSE]))
    if C[instr + at.I_SIGNAL_KIND] == at.UNIT:
        woken |= pass_blocks(C, S, unit, instr, start, S[pipe + at.X_STRIP], left)
    return woken


@helper
def start_transfer(C, S, T, rows, unit, pipe, entry, instr, start, cause):
    """Ask for the first piece of a transfer, or end it when there is none; the pipes (as bits) that may go on."""
    S[pipe + at.X_INSTR] = instr
    S[pipe + at.X_DISPATCHED] = S[entry + at.Q_DISPATCHED]
    S[pipe + at.X_START] = start
    S[pipe + at.X_CAUSE] = cause
    if C[instr + at.I_SIGNAL_KIND] == at.UNIT:
        S[pipe + at.X_STRIP] = drain_cycles(C, instr, min(S[entry + at.Q_V1], C[instr + at.I_STRIP]), S[entry + at.Q_V2])
    if not _begin_transfer(C, S, pipe, entry, instr, start):
        return end_transfer(C, S, T, rows, unit, pipe)
    S[pipe + at.P_MOVING] = 1
    next_piece(C, S, pipe, instr)
    return 0
