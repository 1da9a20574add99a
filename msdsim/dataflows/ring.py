"""A ring of slots between the Cube and the Vectors of a core group, with the two signals that hand its slots over.

One side produces, the other consumes::

    consumer:  prime               every slot is empty
    producer:  with produce():     waits until a slot is empty; fills it; it is full
    consumer:  with consume():     waits until a slot is full; empties it; it is empty again
    producer:  drain               takes back the slots that the consumer emptied last

Signals count: each is raised as often as it is waited for, whatever the number of slots, which only says how far the producer
may be ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

from msdsim.ir import Const, Expr, Handle, KernelBuilder
from msdsim.ir.kernel import SignalKind

#: Where nothing is shared.
ALWAYS: Expr = Const(1)
#: Which way data goes: signals for full slots, and for empty ones.
_KINDS: dict[str, tuple[SignalKind, SignalKind]] = {
    "to_cube": ("aiv_to_aic", "aic_to_aiv"), "to_vector": ("aic_to_aiv", "aiv_to_aic"),
}


@dataclass(frozen=True)
class Ring:
    """``depth`` slots of ``tensor``; ``writer`` and ``reader`` are the pipes that fill and empty one."""

    kb: KernelBuilder
    tensor: Handle
    depth: int
    full: str
    empty: str
    writer: str
    reader: str

    @classmethod
    def between(cls, kb: KernelBuilder, tensor: Handle, depth: int, way: Literal["to_cube", "to_vector"],
                signals: tuple[str, str], pipes: tuple[str, str]) -> Ring:
        """Declare the ``signals`` full and empty; ``pipes`` are writer and reader."""
        full, empty = (kb.signal(name, kind) for name, kind in zip(signals, _KINDS[way], strict=True))
        return cls(kb, tensor, depth, full, empty, *pipes)

    def prime(self) -> None:
        """Consumer, before the first slot: all of them are empty."""
        with self.kb.loop("s", 0, self.depth):
            self.kb.raise_signal(self.empty, self.reader)

    def drain(self) -> None:
        """Producer, after the last slot: the last ones come back unused."""
        with self.kb.loop("s", 0, self.depth):
            self.kb.wait_signal(self.empty, self.writer)

    @contextmanager
    def produce(self) -> Iterator[None]:
        """Producer: fill the next slot."""
        self.kb.wait_signal(self.empty, self.writer)
        yield
        self.kb.raise_signal(self.full, self.writer)

    @contextmanager
    def consume(self, first: Expr = ALWAYS, last: Expr = ALWAYS) -> Iterator[None]:
        """Consumer: use the next slot.  Where several uses share it, the ``first`` waits and the ``last`` hands it back."""
        with self._where(first):
            self.kb.wait_signal(self.full, self.reader)
        yield
        with self._where(last):
            self.kb.raise_signal(self.empty, self.reader)

    def _where(self, condition: Expr) -> AbstractContextManager[None]:
        return nullcontext() if condition == ALWAYS else self.kb.when(condition)
