"""The scalar unit's registers: sizes, addresses and cycles of work, computed as loops begin and go on."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.arithmetic import ceil_div
from msdsim.engine.fast.compiled import helper


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
def compute(C, S, unit, position, end):
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
