"""Which candidates of a table the engine judges, and in which order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from msdsim.errors import InputError
from msdsim.tilings.neighbours import neighbours
from msdsim.tilings.space import Column, Space

#: Candidates of a table that are built in vain.
MOST_REFUSED = 60
#: Shapes whose best is judged whatever comes of the others.
EARLY = 4
#: A shape that nobody has judged may be so much faster than estimated; and what is expected to take longer than the fastest by
#: more than this is left alone.
DOUBT, NO_WORSE = 0.95, 1.03
#: What is divided and what is not are both looked into as long as one is no slower than the other by more.
CLOSE = 1.08
#: How much slower by its estimate a tiling in many parts of K is tried all the same.
DIVIDED = 1.15
#: A change that moves the estimate by no more changes nothing that matters; and estimates of one shape that are the same.
IDLE, SAME = 1e-3, 1e-6
#: What gains less is no reason to leave what was tried earlier, which moves fewer bytes or fits better by the estimate.
TOO_LITTLE = 1.004


@dataclass(frozen=True)
class Effort:
    """How far a search goes: rows of the table that go on at each step; candidates that the engine judges, until ``patience``
    of them in turn were no faster; and how much work the judging may be, in about microseconds."""

    width: int
    judged: int
    patience: int
    work: float


class Turns:
    """Whose turn it is: what is expected to be fastest, by its estimate and by what the estimates of its shape were wrong by.
    What is one change away from the fastest is among them, as if it were of the same shape."""

    def __init__(self, s: Space, cycles: Column, instructions: Column, effort: Effort) -> None:
        self.space, self.cycles, self.instructions, self.effort, self.shape_of = s, cycles, instructions, effort, s.shapes()
        firsts = np.sort(np.unique(self.shape_of, return_index=True)[1])
        if s.parts is not None:
            # Soon one that is divided if the first is not, and the other way round: of that the estimate knows least.
            other = np.flatnonzero((s.columns[s.parts][firsts] == 1) != (s.columns[s.parts][0] == 1))[:1]
            firsts = np.concatenate([firsts[:1], firsts[other], np.delete(firsts[1:], other - 1)])
        self.early = firsts[:EARLY].tolist()
        if s.parts is not None:
            # And the one in most parts of those that are estimated well: estimates of many parts are too high.
            near = firsts[cycles[firsts] <= DIVIDED * cycles[firsts[0]]]
            most = near[np.argsort(-s.columns[s.parts][near], kind="stable")][:1].tolist()
            self.early += [row for row in most if row not in self.early]
        #: Cycles of those that were judged, and those that cannot be built.
        self.judged: dict[int, int] = {}
        self.refused: set[int] = set()
        self.refusal: InputError | None = None
        #: Rows whose neighbours are in the table.
        self.grown: set[int] = set()

    def both_paths(self) -> None:
        """Soon also the best of the other path between Cube and Vector, direct or through L2."""
        direct = self.space.columns.get("direct", np.zeros(1))
        other = np.flatnonzero(direct != direct[0])[:1].tolist()
        self.early = [*self.early[:1], *other, *(row for row in self.early[1:] if row not in other)][:EARLY]

    @property
    def fastest(self) -> int:
        """The first of those that are as good as the fastest."""
        least = min(self.judged.values())
        return next(row for row, cycles in self.judged.items() if cycles <= TOO_LITTLE * least)

    def next(self) -> int | None:
        """A row of the table; None when enough were judged, or refused."""
        if not self.judged:
            rest = (row for row in range(len(self.cycles)) if row not in self.refused)
            return None if len(self.refused) >= MOST_REFUSED else next(rest, None)
        if len(self.judged) >= self.effort.judged:
            return None
        early = (row for row in self.early if row not in self.judged and row not in self.refused)
        rest = (row for leader in self._leaders() if (row := self._near(leader)) is not None)
        return next(itertools.chain(early, rest), None)

    def _leaders(self) -> list[int]:
        """The fastest, and the fastest of those that are divided if it is not, or the other way round, if they are close."""
        whole, fastest = self._whole(), self.fastest
        others = [row for row in self.judged if whole[row] != whole[fastest]]
        other = min(others, key=lambda row: self.judged[row], default=fastest)
        return [fastest, other] if self.judged[fastest] < self.judged[other] < CLOSE * self.judged[fastest] else [fastest]

    def _whole(self) -> Column:
        return np.ones(len(self.cycles), bool) if self.space.parts is None else self.space.columns[self.space.parts] == 1

    def _near(self, leader: int) -> int | None:
        """What is expected to be fastest of a leader's kind; None when the last few like it were not, or nothing seems so."""
        whole, turn = self._whole(), list(self.judged)
        since = turn[max(len(self.early), turn.index(leader) + 1):]
        if sum(self.shape_of[row] == self.shape_of[leader] for row in since) >= self.effort.patience:
            return None
        self._grow(leader)
        expected = np.where(self._whole() == whole[leader], self._expected(), np.inf)
        best = int(np.argmin(expected))
        return best if expected[best] < NO_WORSE * self.judged[leader] else None

    def _expected(self) -> Column:
        """Cycles of every row that is worth a turn."""
        by_shape: dict[int, float] = {}
        for row in sorted(self.judged, key=lambda row: self.judged[row]):
            by_shape.setdefault(int(self.shape_of[row]), self.judged[row] / float(self.cycles[row]))
        expected = self.cycles * (DOUBT * float(np.mean(list(by_shape.values()))))
        for shape, error in by_shape.items():
            expected[self.shape_of == shape] = self.cycles[self.shape_of == shape] * error
        for row in self.judged:
            expected[(self.shape_of == self.shape_of[row]) & (abs(self.cycles / self.cycles[row] - 1) <= SAME)] = np.inf
        expected[[*self.judged, *self.refused]] = np.inf
        return expected

    def _grow(self, row: int) -> None:
        """Into the table what is one change away from a row."""
        if row in self.grown:
            return
        self.grown.add(row)
        near = list(neighbours(self.space.row(row), self.space.varied()))
        if not near:
            return
        cycles, instructions = self.space.estimate([tiling for *_, tiling in near])
        # One for each key and direction: what is further away is near to that.
        first: dict[tuple[str, bool], int] = {}
        for number in np.argsort(cycles, kind="stable").tolist():
            if abs(cycles[number] / self.cycles[row] - 1) > IDLE:
                first.setdefault(near[number][:2], number)
        which = list(first.values())
        self.space.extend([near[number][-1] for number in which])
        self.cycles = np.concatenate([self.cycles, cycles[which]])
        self.instructions = np.concatenate([self.instructions, instructions[which]])
        self.shape_of = np.concatenate([self.shape_of, np.full(len(which), self.shape_of[row])])
