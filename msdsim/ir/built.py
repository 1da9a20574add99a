"""Kernels that builders make: readable when somebody reads them, and one object where several are written alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from threading import Lock
from typing import cast

from msdsim.errors import KernelError
from msdsim.ir.kernel import Block, For, Kernel, Let, Statement, When, copied, walk
from msdsim.ir.lets import inlined, simplified
from msdsim.ir.printer import number_lines
from msdsim.ir.tidy import named, tidy


def built(written: Kernel) -> Kernel:
    """A kernel as its builder leaves it, which people will see as :func:`tidy` has it.

    What is written as one of the last kernels was is that kernel, with all that has been worked out about it.
    """
    names = tuple(tensor.name for tensor in written.tensors)
    key = written.name, len(written.aic), len(written.aiv), names, tuple(tensor.shape for tensor in written.tensors)
    alike = _RECENT.get(key, ())
    known = next((kernel for kernel in alike if kernel.__dict__["_source"].written == written), None)
    if known is not None:
        return known
    found = cast(Kernel, copied(written, _source=Source(written)))
    del found.__dict__["aic"], found.__dict__["aiv"]
    with _LOCK:
        _RECENT.pop(key, None)
        _RECENT[key] = (found, *alike)[:_MOST_ALIKE]
        if len(_RECENT) > _MOST_RECENT:
            del _RECENT[next(iter(_RECENT))]
    return found


#: The kernels built last, by what is quickly compared; the oldest go first.
_RECENT: dict[tuple[object, ...], tuple[Kernel, ...]] = {}
_MOST_RECENT, _MOST_ALIKE = 32, 8
#: Kernels may be built in several threads.
_LOCK = Lock()


class Source:
    """What a built kernel is made from, and its readable text when somebody wants to see it."""

    def __init__(self, written: Kernel) -> None:
        self.written = written

    @cached_property
    def readable(self) -> Kernel:
        """The tidy kernel with the lines of its text."""
        if any(isinstance(item, Let) for part in ("aic", "aiv") for item in walk(self.written.part(part))):
            return number_lines(tidy(self.written))
        return number_lines(named(self.simple))

    @cached_property
    def simple(self) -> Kernel:
        """The kernel without names and with simple expressions."""
        return simplified(inlined(self.written))

    @cached_property
    def statements(self) -> dict[str, list[Statement]]:
        """The readable statements of each part in their order, without names."""
        return {part: [item for item in walk(self.readable.part(part)) if not isinstance(item, Let)] for part in ("aic", "aiv")}

    def plain(self) -> Kernel:
        """:func:`plain`, its statements being those of the readable text when they are shown."""
        try:
            found = self.simple
        except KernelError:
            # Said with the lines of the text.
            return simplified(inlined(self.readable))
        aic, aiv = (self._block(found.part(part), part, count()) for part in ("aic", "aiv"))
        return replace(found, aic=aic, aiv=aiv)

    def _block(self, block: Block, part: str, numbers: Iterator[int]) -> Block:
        found = []
        for statement in block:
            item = copied(statement, _shown=_Shows(self, part, next(numbers)))
            for later in ("line", "written"):
                item.__dict__.pop(later, None)
            if isinstance(item, For | When):
                item.__dict__["body"] = self._block(item.body, part, numbers)
            found.append(item)
        return tuple(found)


@dataclass(frozen=True)
class _Shows:
    """Finds a statement in the readable text."""

    source: Source
    part: str
    number: int

    def __call__(self) -> Statement:
        return self.source.statements[self.part][self.number]


