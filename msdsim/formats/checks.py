"""Checks of input arrays: one sentence naming the array, the first bad place, the limit and the remedy."""

from __future__ import annotations

import numpy as np

from msdsim.errors import ArrayError


def first_index(mask: np.ndarray) -> tuple[int, ...]:
    """Index of the first true element of ``mask``."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def place(mask: np.ndarray) -> str:
    """``row 3, column 7`` of the first true element (``index (i, j, k)`` beyond two dimensions)."""
    index = first_index(mask)
    if len(index) == 2:
        return f"row {index[0]}, column {index[1]}"
    return f"index {index[0]}" if len(index) == 1 else f"index {index}"


def require_finite(array: np.ndarray, name: str) -> None:
    """Refuse NaN and infinities, naming the row."""
    if array.dtype.kind in "iub" or not array.size:
        return
    if array.dtype.kind == "f":  # two reductions beat a mask on large arrays; both carry NaN along
        if np.isfinite(array.max()) and np.isfinite(array.min()):
            return
    elif np.isfinite(array).all():
        return
    bad = ~np.isfinite(array)
    raise ArrayError(f"{name} has {array[first_index(bad)]} at {place(bad)}; every value must be finite: clean the "
                     "array before quantizing it")


def require_shape(array: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Refuse another shape than ``shape``."""
    if array.shape != shape:
        raise ArrayError(f"{name} has shape {list(array.shape)}, the problem needs {list(shape)}")


def require_not_empty(array: np.ndarray, name: str) -> None:
    """Refuse an array without elements."""
    if array.size == 0:
        raise ArrayError(f"{name} is empty (shape {list(array.shape)}); every dimension must be at least 1")


def require_range(array: np.ndarray, low: int, high: int, name: str, what: str) -> None:
    """Refuse integers outside [``low``, ``high``]."""
    bad = (array < low) | (array > high)
    if bad.any():
        raise ArrayError(f"{name} has {array[first_index(bad)]} at {place(bad)}, outside {what} [{low}, {high}]; "
                         "quantize to that range")
