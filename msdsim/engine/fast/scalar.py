"""The scalar unit: it walks the loops of its part in program order and dispatches instructions into the queues of the pipes."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper
from msdsim.engine.fast.pipes import start_instruction
from msdsim.engine.fast.registers import compute
from msdsim.engine.fast.skip import begin_loop, end_iteration
from msdsim.engine.fast.tokens import has_tokens

#: Iterations without an instruction in one go: what takes less than half a second.
_EMPTY_ITERATIONS_AT_ONCE = 2**25


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
                compute(C, S, unit, C[pc + 4], C[pc + 5])
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
                compute(C, S, unit, C[pc + 4], C[pc + 5])
                pc = C[pc + 6]
            else:
                pc += at.NEXT_WORDS
        else:
            break
    return pc, now


@helper
def dispatch(C, S, T, rows, unit):
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
        if count == 0 and S[pipe + at.P_MOVING] == 0 and has_tokens(C, S, unit, instr):
            S[pipe + at.P_HEAD] = after
            woken |= start_instruction(C, S, T, rows, unit, pipe, entry, instr)
            continue
        S[entry + at.Q_INSTR] = instr
        S[pipe + at.P_COUNT] = count + 1
    S[at.G_LEFT] = left
    S[unit + at.U_PC] = pc
    S[unit + at.U_TIME] = now
    return woken
