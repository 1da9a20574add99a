"""Division of what is never negative, compiled."""
# mypy: disable-error-code="no-untyped-def"
# The compiled functions take integers; numba checks their types.

from __future__ import annotations

from msdsim.engine.fast.compiled import divide_function, inlined

divide = divide_function()


@inlined
def ceil_div(a, b):
    """Ceiling of a / b for a >= 0, b > 0."""
    return divide(a + b - 1, b)
