"""What the numbers need to know of a problem; :mod:`msdsim.problems` has the real classes."""

from __future__ import annotations

from typing import Protocol


class GemmShape(Protocol):
    """y [m, n] = x [m, k] @ w [k, n]; ``group`` is the weight group size along k (None: per channel)."""

    @property
    def kind(self) -> str: ...
    @property
    def m(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def group(self) -> int | None: ...
    @property
    def offset(self) -> bool: ...
    @property
    def trans_b(self) -> bool: ...
