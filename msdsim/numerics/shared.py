"""What the checks of several dataflows on one problem have in common: operands, and what follows from them alone.

Inside :meth:`Shared.opened`, :func:`once` computes a thing the first time and hands out the same thing later, to whichever
thread asks.  Outside of it nothing is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
_current: ContextVar[Shared | None] = ContextVar("shared", default=None)


class Shared:
    """Things by key; ``weights`` are the formats of weights that will be asked for, so that they can be made together."""

    def __init__(self, weights: Sequence[str] = ()) -> None:
        self.weights = tuple(dict.fromkeys(fmt for fmt in weights if fmt))
        #: Arrays that are handed out, by id.
        self.kept: dict[int, np.ndarray] = {}
        self._found: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Share what is computed in this context."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, from its first call; an exception is not kept."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._found:
                self._found[key] = make()
            return self._found[key]


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` gives; while something is shared, from its first call with this key.

    Keys name everything that the result depends on.
    """
    shared = _current.get()
    found: T = make() if shared is None else shared.get(key, make)
    return found


def keep(*arrays: np.ndarray) -> None:
    """Others will be given these very arrays: what follows from them can be shared too."""
    shared = _current.get()
    if shared is not None:
        shared.kept.update({id(array): array for array in arrays})


def once_of(arrays: Sequence[np.ndarray], what: str, make: Callable[[], T]) -> T:
    """:func:`once` for ``what`` follows from arrays alone, if they are kept ones; others are not shared."""
    return once((what, *map(id, arrays)), make) if is_kept(*arrays) else make()


def is_kept(*arrays: np.ndarray) -> bool:
    """Whether all of these arrays are kept."""
    shared = _current.get()
    return shared is not None and all(shared.kept.get(id(array)) is array for array in arrays)


def weights_wanted(fmt: str) -> tuple[str, ...]:
    """``fmt`` first, and the other formats that the same weights will be asked for in."""
    shared = _current.get()
    others = () if shared is None else shared.weights
    return (fmt, *(other for other in others if other != fmt))
