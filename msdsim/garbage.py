"""Python's search for garbage that refers to itself, put off where many objects are made that stay.

The search goes through objects whenever some hundred more were made than given back: up to a third of the time that it takes to
build and lower a kernel, of which nothing is garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, only what nothing refers to is given back.  In several threads at once the first that leaves ends it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
