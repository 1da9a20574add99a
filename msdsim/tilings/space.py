"""Tilings of a dataflow as a table: a column for each tiling key, a row for each candidate.

A dataflow fills the table key by key, with numbers that follow from the chip's capacities and the problem's sizes, and drops
the rows that cannot be built.  What the user has given takes the place of what the dataflow would have tried, so that
everything chosen after it fits it.  In between, :meth:`Space.narrow` keeps the most promising rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from msdsim.errors import TilingError
from msdsim.units import ceil_div, round_up

#: A number for every candidate.
Column = np.ndarray
#: The same, or one number for all of them.
Values = Any


#: Candidates of one shape that go on at most.
ONE_SHAPE = 4


class Space:
    """Candidates under construction; a key that has been filled is an attribute.

    ``rank`` gives the estimated cycles and instructions of every row, ``width`` how many rows go on at each :meth:`narrow`.
    """

    def __init__(self, given: Mapping[str, int], rank: Callable[[Space], tuple[Column, Column]], width: int) -> None:
        self.given, self.rank, self.width = dict(given), rank, width
        self.columns: dict[str, Column] = {}
        #: The largest value of each key that was tried.
        self.most: dict[str, int] = {}
        self.count = 1
        #: Rows that were ranked in all.
        self.ranked = 0
        #: Keys that make two tilings of different shape; what has one shape is estimated, and is, about as fast.
        self.shape: tuple[str, ...] = ()
        #: Key of the parts that several cores share, whose putting together the estimate knows least.
        self.parts: str | None = None

    def __getattr__(self, key: str) -> Column:
        try:
            return self.__dict__["columns"][key]
        except KeyError:
            raise AttributeError(key) from None

    def cross(self, key: str, values: Iterable[int]) -> None:
        """Every candidate with every one of ``values`` for ``key``."""
        self.options(key, *values)

    def options(self, key: str, *columns: Values) -> None:
        """Every candidate with each of its own values for ``key``, one of every column; equal ones count once."""
        if key in self.given:
            columns = (self.given[key],)
        table = np.stack([np.broadcast_to(np.asarray(column, np.int64), (self.count,)) for column in columns], axis=1)
        new = np.ones(table.shape, bool)
        for later in range(1, table.shape[1]):
            new[:, later] = (table[:, :later] != table[:, later : later + 1]).all(axis=1)
        rows, which = np.nonzero(new)
        self.keep(rows)
        self._fill(key, table[rows, which])
        self.count = len(rows)

    def set(self, **values: Values) -> None:
        """Keys that follow from others, where they are not given."""
        for key, value in values.items():
            self._fill(key, np.broadcast_to(np.asarray(self.given.get(key, value), np.int64), (self.count,)))

    def _fill(self, key: str, column: Column) -> None:
        self.columns[key] = column
        self.most[key] = max(self.most.get(key, 0), int(column.max(initial=0)))

    def first(self, fits: Callable[[], Column], *choices: Mapping[str, Values]) -> None:
        """The first of some values, given for several keys at once, with which a candidate ``fits()``; without one it goes."""
        wanted = np.full(self.count, -1)
        for number, choice in enumerate(choices):
            self.set(**choice)
            wanted = np.where((wanted < 0) & fits(), number, wanted)
        which = np.maximum(wanted, 0)
        self.set(**{key: np.choose(which, [np.broadcast_to(choice[key], (self.count,)) for choice in choices])
                    for key in choices[0]})
        self.keep(wanted >= 0)

    def keep(self, rows: Column) -> None:
        """Only the candidates for which ``rows`` is true, or which it numbers."""
        if self.columns:
            self.columns = {name: column[rows] for name, column in self.columns.items()}
            self.count = len(next(iter(self.columns.values())))
            if not self.count:
                raise TilingError("nothing fits")

    def narrow(self, times: int = 1) -> tuple[Column, Column]:
        """The ``times * width`` candidates with the shortest estimate go on, the best first, but no more than
        :data:`ONE_SHAPE` of a shape unless there are too few others; what :attr:`rank` says of them."""
        if not self.count:
            raise TilingError("nothing fits")
        self.ranked += self.count
        cycles, instructions = self.rank(self)
        order = np.argsort(cycles, kind="stable")
        late = self.turns(order) >= ONE_SHAPE
        order = np.concatenate([order[~late], order[late]])
        if self.parts is not None:
            # Something undivided stays, whatever the estimate says of parts.
            whole = order[self.columns[self.parts][order] == 1][:ONE_SHAPE]
            order = np.concatenate([order[: times * self.width], np.setdiff1d(whole, order[: times * self.width])])
        order = order[: times * self.width + ONE_SHAPE]
        self.keep(order)
        return cycles[order], instructions[order]

    def shapes(self) -> Column:
        """A number for each candidate's shape, the same for equal ones."""
        if not self.shape:
            return np.arange(self.count)
        code: Column = np.zeros(self.count, np.int64)
        for name in self.shape:
            values, which = np.unique(self.columns[name], return_inverse=True)
            code = code * len(values) + which.reshape(-1)
        return code

    def turns(self, order: Column) -> Column:
        """Of candidates in an order, how many of the same shape come before each."""
        of_shape = self.shapes()[order]
        sort = np.argsort(of_shape, kind="stable")
        starts = np.flatnonzero(np.diff(of_shape[sort], prepend=-1))
        found = np.empty(len(order), np.int64)
        found[sort] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        return found

    def varied(self) -> list[str]:
        """Keys that are chosen here, and may be more than switches."""
        return [key for key in self.columns if key not in self.given and self.most[key] > 1]

    def estimate(self, rows: Sequence[Mapping[str, int]]) -> tuple[Column, Column]:
        """What :attr:`rank` says of other tilings."""
        others = Space({}, self.rank, self.width)
        others.columns = {key: np.array([row[key] for row in rows], np.int64) for key in self.columns}
        others.count = len(rows)
        return self.rank(others)

    def extend(self, rows: Sequence[Mapping[str, int]]) -> None:
        """Further candidates, at the end."""
        self.columns = {key: np.concatenate([column, [row[key] for row in rows]]).astype(np.int64)
                        for key, column in self.columns.items()}
        self.count += len(rows)

    def row(self, number: int) -> dict[str, int]:
        """One candidate's values."""
        return {name: int(column[number]) for name, column in self.columns.items()}


def ceil(a: Values, b: Values) -> Values:
    """Ceiling of a quotient, for columns."""
    return -(-a // b)


def up(a: Values, multiple: Values) -> Values:
    """The smallest multiple that is at least ``a``, for columns."""
    return ceil(a, multiple) * multiple


def even_parts(total: int, step: int, most: int, parts: Iterable[int]) -> list[int]:
    """Tile sizes, multiples of ``step`` and at most ``most``, that cut ``total`` into each number of ``parts`` of about one
    size."""
    return [size for n in parts if (size := round_up(ceil_div(total, n), step)) <= most]


def divisor_below(whole: int, sizes: Values, multiple: int = 1) -> Values:
    """The largest divisor of ``whole``, itself a multiple of ``multiple``, that is at most each of ``sizes`` (0: none)."""
    divisors = np.array([0] + [d for d in range(multiple, whole + 1, multiple) if whole % d == 0])
    return divisors[np.searchsorted(divisors, sizes, side="right") - 1]
