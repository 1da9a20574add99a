"""Which unit goes on next, and which port asks the memory system next."""

# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers and the arrays of layout.py; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.compiled import helper, inlined


@helper
def wake_unit(C, S, unit, pipes):
    """Note that some pipes of a unit (a bit each, bit 0 the scalar unit) may be able to go on."""
    if S[unit + at.U_STACKED] == 0:
        S[unit + at.U_STACKED] = 1
        S[C[at.K_STACK] + S[at.G_STACKED]] = unit
        S[at.G_STACKED] += 1
    S[unit + at.U_WAKE] |= pipes


@inlined
def set_request(C, S, leaf, key):
    """Put a port's next request, or NEVER, into the tree whose root is the earliest of all."""
    tree = C[at.K_TREE]
    node = C[at.K_LEAVES] + leaf
    S[tree + node] = key
    while node > 1:
        key = min(key, S[tree + (node ^ 1)])
        node >>= 1
        S[tree + node] = key
