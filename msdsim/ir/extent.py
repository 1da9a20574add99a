"""Sizes that a kernel's text gives as expressions of its named numbers."""

from __future__ import annotations

from msdsim.ir.expr import Const, Expr


class Extent(int):
    """A size that the kernel's text gives as an expression of its named numbers; it prints as that."""

    written: Expr

    def __new__(cls, value: int, written: Expr) -> Extent:
        extent = super().__new__(cls, value)
        extent.written = written
        return extent

    def __getnewargs__(self) -> tuple[int, Expr]:  # type: ignore[override]
        return int(self), self.written

    def __str__(self) -> str:
        return str(self.written)


def whole(extent: int) -> Expr:
    """A whole dimension: its size as the text gives it, so that it stays whole whatever a param is."""
    return extent.written if isinstance(extent, Extent) else Const(extent)
