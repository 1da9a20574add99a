"""Iterations that repeat an earlier one are not simulated (compiled; ``repetition`` says when that is exact)."""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and pointers to the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper, inlined

#: Times stay below this, so that adding a work cannot leave 64 bits.
LATEST = 2**60


# Remembering an iteration


@helper
def begin_loop(C, S, unit, loop):
    """Forget what an earlier run of the loop left."""
    snapshot = unit + C[loop + at.L_SNAPSHOT]
    S[snapshot + at.N_COUNT] = 0
    S[snapshot + at.N_NEXT] = 1
    S[snapshot + at.N_TAKEN] = 0


@helper
def _remember(C, S, T, unit, loop, snapshot, now):
    """Take down the state at the end of an iteration, and the books."""
    S[snapshot + at.N_EPOCH] = S[at.G_EPOCH]
    S[snapshot + at.N_TAKEN] = S[snapshot + at.N_COUNT]
    S[snapshot + at.N_NEXT] = 2 * S[snapshot + at.N_COUNT]
    S[snapshot + at.N_TIME] = now
    S[snapshot + at.N_VALUE] = S[unit + C[loop + at.L_VAR]]
    to = snapshot + at.N_SIZE
    for index in range(C[loop + at.L_PIPES], C[loop + at.L_PIPES_END]):
        pipe = unit + C[index]
        S[to] = S[pipe + at.P_FREE]
        S[to + 1] = S[pipe + at.P_DONE]
        to += 2
        entry = S[pipe + at.P_TAIL]
        for _ in range(S[pipe + at.P_CAPACITY]):
            S[to] = S[entry + at.Q_START]
            to += 1
            entry = _after(S, pipe, entry)
    for index in range(C[loop + at.L_RINGS], C[loop + at.L_RINGS_END]):
        ring = unit + C[index]
        head, tail = S[ring + at.R_HEAD], S[ring + at.R_TAIL]
        S[to] = tail - head
        to += 1
        while head < tail:
            S[to] = S[ring + at.R_TOKENS + (head & C[at.K_RING_MASK])]
            to += 1
            head += 1
    books = S[unit + at.U_BOOKS] + C[loop + at.L_BOOKS]
    for index in range(C[loop + at.L_BOOKS_COUNT]):
        S[to] = T[books + index]
        to += 1
    for index in range(C[loop + at.L_WAITS_COUNT]):
        S[to] = T[C[loop + at.L_WAITS] + index]
        to += 1


@inlined
def _after(S, pipe, entry):
    """The place in a queue after another."""
    entry += at.Q_SIZE
    return S[pipe + at.P_QUEUE] if entry == S[pipe + at.P_QUEUE_END] else entry


# Recognising it


@helper
def _is_known(C, S, unit, loop):
    """Whether all that the loop has dispatched so far has been carried out."""
    for index in range(C[loop + at.L_PIPES], C[loop + at.L_PIPES_END]):
        pipe = unit + C[index]
        if S[pipe + at.P_COUNT] != 0 or S[pipe + at.P_MOVING] != 0:
            return False
    return True


@helper
def _recurs(C, S, unit, loop, snapshot, now):
    """Whether the state is what it was, all times relative to the scalar unit's."""
    then = S[snapshot + at.N_TIME]
    passed = now - then
    to = snapshot + at.N_SIZE
    for index in range(C[loop + at.L_PIPES], C[loop + at.L_PIPES_END]):
        pipe = unit + C[index]
        if S[pipe + at.P_FREE] - S[to] != passed or S[pipe + at.P_DONE] - S[to + 1] != passed:
            return False
        to += 2 + S[pipe + at.P_CAPACITY]
    for index in range(C[loop + at.L_RINGS], C[loop + at.L_RINGS_END]):
        ring = unit + C[index]
        head, tail = S[ring + at.R_HEAD], S[ring + at.R_TAIL]
        if tail - head != S[to]:
            return False
        to += 1
        while head < tail:
            if S[ring + at.R_TOKENS + (head & C[at.K_RING_MASK])] - S[to] != passed:
                return False
            to += 1
            head += 1
    to = snapshot + at.N_SIZE
    for index in range(C[loop + at.L_PIPES], C[loop + at.L_PIPES_END]):
        pipe = unit + C[index]
        to += 2
        entry = S[pipe + at.P_TAIL]
        for _ in range(S[pipe + at.P_CAPACITY]):
            # A place that is free already is free, however long ago it was left.
            if max(S[entry + at.Q_START], now) - max(S[to], then) != passed:
                return False
            to += 1
            entry = _after(S, pipe, entry)
    return True


# How long it lasts


@inlined
def _set_range(C, S, place, low, high):
    S[C[at.K_RANGES] + 2 * place] = low
    S[C[at.K_RANGES] + 2 * place + 1] = high


@helper
def _range_of(operator, a, b, c, d):
    """The range of an operation on the ranges a..b and c..d; divisors do not contain zero."""
    if operator == at.OP_ADD:
        return a + c, b + d
    if operator == at.OP_SUB:
        return a - d, b - c
    if operator == at.OP_MIN:
        return min(a, c), min(b, d)
    if operator == at.OP_MAX:
        return max(a, c), max(b, d)
    if operator == at.OP_MUL:
        return min(min(a * c, a * d), min(b * c, b * d)), max(max(a * c, a * d), max(b * c, b * d))
    if operator == at.OP_DIV:
        return min(min(a // c, a // d), min(b // c, b // d)), max(max(a // c, a // d), max(b // c, b // d))
    if operator == at.OP_MOD:
        if c == d and c > 0 and a // c == b // c:
            return a % c, b % c
        return (0, d - 1) if c > 0 else (c + 1, 0)
    return _range_of_comparison(operator, a, b, c, d)


@helper
def _range_of_comparison(operator, a, b, c, d):
    """The range of a comparison: 0, 1, or either."""
    never, always = False, False
    if operator == at.OP_EQ or operator == at.OP_NE:
        apart, same = b < c or d < a, a == b and c == d and a == c
        never, always = (apart, same) if operator == at.OP_EQ else (same, apart)
    elif operator == at.OP_LT:
        never, always = a >= d, b < c
    elif operator == at.OP_LE:
        never, always = a > d, b <= c
    elif operator == at.OP_GT:
        never, always = b <= c, a > d
    else:
        never, always = b < c, a >= d
    return (1 if always else 0), (0 if never else 1)


@helper
def _is_constant(C, S, unit, loop, low, high):
    """Whether the watched registers have one value each while the loop's variable goes from ``low`` to ``high``."""
    ranges = C[at.K_RANGES]
    _set_range(C, S, 0, low, high)
    position, end = C[loop + at.L_RANGES], C[loop + at.L_RANGES_END]
    while position < end:
        operator, place = C[position], C[position + 1]
        if operator == at.OP_WORK:
            # Work on sizes that do not change does not change.
            value = S[unit + C[position + 2]]
            found, most = value, value
            for index in range(position + at.RANGE_WORK_WORDS, position + at.RANGE_WORK_WORDS + C[position + 3]):
                if S[ranges + 2 * C[index]] != S[ranges + 2 * C[index] + 1]:
                    most = value + 1
            position += at.RANGE_WORK_WORDS + C[position + 3]
        else:
            a = b = c = d = 0
            if C[position + 2] != 0:
                a = b = S[unit + C[position + 3]]
            else:
                a, b = S[ranges + 2 * C[position + 3]], S[ranges + 2 * C[position + 3] + 1]
            if C[position + 4] != 0:
                c = d = S[unit + C[position + 5]]
            else:
                c, d = S[ranges + 2 * C[position + 5]], S[ranges + 2 * C[position + 5] + 1]
            found, most = _range_of(operator, a, b, c, d)
            position += at.RANGE_WORDS
        _set_range(C, S, place, found, most)
    for index in range(C[loop + at.L_WATCHED], C[loop + at.L_WATCHED_END]):
        if S[ranges + 2 * C[index]] != S[ranges + 2 * C[index] + 1]:
            return False
    return True


@helper
def _lasting_trips(C, S, unit, loop, low, value, most):
    """For how many of the ``most`` iterations after ``value`` the watched registers keep the values they have since ``low``."""
    step = C[loop + at.L_STEP]
    if C[loop + at.L_WATCHED] == C[loop + at.L_WATCHED_END] or _is_constant(C, S, unit, loop, low, value + most * step):
        return most
    lasting, too_many = 0, most
    while too_many - lasting > 1:
        trips = (lasting + too_many) // 2
        if _is_constant(C, S, unit, loop, low, value + trips * step):
            lasting = trips
        else:
            too_many = trips
    return lasting


# Skipping


@helper
def _move(C, S, T, unit, loop, snapshot, passed, periods):
    """Let ``periods`` more of them have passed: move all times, and add to the books what one of them added."""
    moved = passed * periods
    to = snapshot + at.N_SIZE
    for index in range(C[loop + at.L_PIPES], C[loop + at.L_PIPES_END]):
        pipe = unit + C[index]
        S[pipe + at.P_FREE] += moved
        S[pipe + at.P_DONE] += moved
        to += 2 + S[pipe + at.P_CAPACITY]
        entry = S[pipe + at.P_QUEUE]
        while entry != S[pipe + at.P_QUEUE_END]:
            S[entry + at.Q_START] += moved & S[pipe + at.P_BOUNDED]
            entry += at.Q_SIZE
    for index in range(C[loop + at.L_RINGS], C[loop + at.L_RINGS_END]):
        ring = unit + C[index]
        head, tail = S[ring + at.R_HEAD], S[ring + at.R_TAIL]
        to += 1 + tail - head
        while head < tail:
            S[ring + at.R_TOKENS + (head & C[at.K_RING_MASK])] += moved
            head += 1
    books = S[unit + at.U_BOOKS] + C[loop + at.L_BOOKS]
    for index in range(C[loop + at.L_BOOKS_COUNT]):
        T[books + index] += (T[books + index] - S[to]) * periods
        to += 1
    for index in range(C[loop + at.L_WAITS_COUNT]):
        T[C[loop + at.L_WAITS] + index] += (T[C[loop + at.L_WAITS] + index] - S[to]) * periods
        to += 1


@helper
def _skip(C, S, T, unit, loop, snapshot, now):
    """Skip as many whole periods as the loop has left and its registers last; the scalar unit's time after them."""
    step, var = C[loop + at.L_STEP], unit + C[loop + at.L_VAR]
    value = S[var]
    left = (S[unit + C[loop + at.L_HIGH]] - 1 - value) // step
    period = S[snapshot + at.N_COUNT] - S[snapshot + at.N_TAKEN]
    periods = 0
    if left >= period:
        periods = _lasting_trips(C, S, unit, loop, S[snapshot + at.N_VALUE] + step, value, left) // period
    if periods == 0:
        # It will not last longer for being recognised again soon.
        S[snapshot + at.N_TAKEN] = 0
        return now
    passed = now - S[snapshot + at.N_TIME]
    if passed > 0 and periods > (LATEST - now) // passed:
        S[at.G_STATUS] = at.TIME_LIMIT
        S[at.G_DETAIL] = LATEST
        return now
    _move(C, S, T, unit, loop, snapshot, passed, periods)
    S[var] = value + periods * period * step
    S[at.G_SKIPPED] += periods * period
    begin_loop(C, S, unit, loop)
    return now + passed * periods


@helper
def end_iteration(C, S, T, unit, loop, now):
    """An iteration has been dispatched at ``now``: skip those that repeat it; the scalar unit's time after them.

    The state is compared with one remembered iteration.  It is replaced at doubling distances, so that any period is found and
    remembering costs little.
    """
    snapshot = unit + C[loop + at.L_SNAPSHOT]
    S[snapshot + at.N_COUNT] += 1
    if not _is_known(C, S, unit, loop):
        begin_loop(C, S, unit, loop)
        return now
    comparable = S[snapshot + at.N_TAKEN] > 0 and S[snapshot + at.N_EPOCH] == S[at.G_EPOCH]
    if comparable and _recurs(C, S, unit, loop, snapshot, now):
        return _skip(C, S, T, unit, loop, snapshot, now)
    if S[snapshot + at.N_COUNT] >= S[snapshot + at.N_NEXT]:
        _remember(C, S, T, unit, loop, snapshot, now)
    return now
