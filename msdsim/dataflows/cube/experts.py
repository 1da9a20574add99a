"""The experts of a grouped GEMM in a kernel: which expert a unit of work belongs to, its rows, and where these lie.

Experts with equal rows have matrices of their own, [experts, m, k]: unit ``u`` of ``each`` belongs to expert ``u // each``.

Experts with rows of their own lie one after the other in one matrix, [sum of rows, k].  What differs between them is looked up
in steps: units of expert g begin at ``U_g``, so that unit ``u`` belongs to expert ``(u >= U_1) + (u >= U_2) + ...``; the same
gives its rows and its first row, with the differences from one expert to the next as factors.  A loop of one iteration gives a
value found a name, so that it is found once, however often it is used::

    for expert in (u >= 3) + (u >= 7) * 2 .. (u >= 3) + (u >= 7) * 2 + 1

The kernel stays one loop over the units of all experts; an expert without rows has no unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from msdsim.ir import Const, Expr, KernelBuilder, lift, maximum, minimum


@dataclass(frozen=True)
class Expert:
    """One expert inside a kernel: its number, its rows, and the first of them where those of all experts share a matrix."""

    index: Expr
    rows: Expr
    first: Expr | None = None


class Experts:
    """The experts of a problem; a plain GEMM has one."""

    def __init__(self, problem: Any) -> None:
        #: Rows of every expert where they differ.
        self.uneven: tuple[int, ...] | None = getattr(problem, "rows", None)
        self.count = int(problem.groups) if problem.kind == "grouped_gemm" else 1
        #: Rows of the largest expert.
        self.rows = int(problem.m)

    @property
    def several(self) -> bool:
        """Whether tensors are those of more than a plain GEMM."""
        return self.count > 1 or self.uneven is not None

    def units(self, of: Callable[[int], int]) -> int:
        """Units of all experts, when one of ``m`` rows has ``of(m)``."""
        return self.count * of(self.rows) if self.uneven is None else sum(self._units(self.uneven, of))

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of every expert that has some."""
        return (self.rows,) * self.count if self.uneven is None else tuple(m for m in self.uneven if m)

    @property
    def total_rows(self) -> int:
        """Rows of all experts."""
        return self.units(lambda m: m)

    @contextmanager
    def find(self, kb: KernelBuilder, unit: Expr, of: Callable[[int], int]) -> Iterator[tuple[Expert, Expr]]:
        """The expert of ``unit``, when one of ``m`` rows has ``of(m)`` units, and the unit's number inside of it.  Statements
        inside the ``with`` can use them."""
        if self.uneven is None:
            if self.count == 1:
                yield Expert(Const(0), Const(self.rows)), unit
            else:
                each = of(self.rows)
                yield Expert(unit // each, Const(self.rows)), unit % each
            return
        counts = self._units(self.uneven, of)
        active = [m for m in self.uneven if m]
        with (
            named(kb, "expert", _steps(unit, _before(counts), range(self.count), sum(counts))) as index,
            named(kb, "expert_rows", self._by_expert(index, self.uneven)) as rows,
            named(kb, "expert_row", self._by_expert(index, _before(self.uneven))) as first,
            named(kb, "expert_unit", self._by_expert(index, _before(counts))) as start,
        ):
            # The limits say nothing new, but let the verifier see that no row lies outside of the tensor.
            within = minimum(max(active), maximum(min(active), rows))
            yield Expert(index, within, minimum(first, self.total_rows - within)), maximum(0, unit - start)

    @contextmanager
    def before(self, kb: KernelBuilder, expert: Expert, of: Callable[[int], int]) -> Iterator[Expr]:
        """Units of all experts before ``expert``."""
        if self.uneven is None:
            yield expert.index * of(self.rows) if self.count > 1 else Const(0)
            return
        with named(kb, "expert_before", self._by_expert(expert.index, _before(self._units(self.uneven, of)))) as start:
            yield start

    def _by_expert(self, index: Expr, values: Sequence[int]) -> Expr:
        assert self.uneven is not None
        active = [g for g, m in enumerate(self.uneven) if m]
        return _steps(index, active, [values[g] for g in active], self.count)

    @staticmethod
    def _units(rows: Sequence[int], of: Callable[[int], int]) -> list[int]:
        return [of(m) if m else 0 for m in rows]


def _before(counts: Sequence[int]) -> list[int]:
    """The sum of all counts before each."""
    return [0, *accumulate(counts)][:-1]


@contextmanager
def named(kb: KernelBuilder, name: str, value: Expr) -> Iterator[Expr]:
    """``value`` under a name for the statements inside the ``with``, unless it is a constant."""
    if isinstance(value, Const):
        yield value
    else:
        with kb.loop(name, value, value + 1) as var:
            yield var


def _steps(at: Expr, starts: Sequence[int], values: Sequence[int], end: int) -> Expr:
    """``values[i]`` for the last i with ``starts[i] <= at``, where ``at`` is below ``end``; starts ascend."""
    last = {start: value for start, value in zip(starts, values, strict=True) if start < end}
    ordered = sorted(last.items())
    first = ordered[0][1]
    changes = [(start, value - before) for (_, before), (start, value) in pairwise(ordered)]
    return lift(first) + _balanced([(at >= start) * change for start, change in changes if change])


def _balanced(terms: Sequence[Expr]) -> Expr:
    """The sum of many terms as a tree of small depth."""
    if len(terms) <= 1:
        return terms[0] if terms else Const(0)
    half = len(terms) // 2
    return _balanced(terms[:half]) + _balanced(terms[half:])
