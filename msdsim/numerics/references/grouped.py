"""Grouped GEMM: independent matmuls, each under the GEMM contract of the same name.

Arrays carry the groups in front: ``x`` [groups, m, k], ``w`` [groups, k, n] ([groups, n, k] with trans_b), ``scale``
[groups, n] or [groups, k groups, n], ``y`` [groups, m, n].  Where every group has rows of its own, ``x`` is [sum of rows, k]
and ``y`` [sum of rows, n], one group after the other; a group without rows has weights that nobody reads.  Group g draws its
tensors from the seed (seed, g).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.errors import ArrayError
from msdsim.formats.checks import require_shape
from msdsim.formats.mx import MX_ELEMENTS, block_count
from msdsim.numerics.contract import Arrays, Contract, Seed

#: Arrays with a row for every row of x.
BY_ROW = ("x", "x_scale")


@dataclass(frozen=True)
class _OneGroup:
    m: int
    k: int
    n: int
    group: int | None
    offset: bool
    trans_b: bool
    x: str = "bf16"
    out: str = "bf16"
    layout: str = "nd"
    kind: str = "gemm"


@dataclass(frozen=True)
class GroupedContract(Contract):
    """The contract ``inner`` for every group."""

    inner: Contract

    @classmethod
    def of(cls, inner: Contract) -> GroupedContract:
        """The grouped form of a GEMM contract."""
        return cls(inner.name, f"{inner.description}, for every group", "grouped_gemm", inner)

    def with_passes(self, passes: int) -> GroupedContract:
        """The same contract with another number of passes."""
        return GroupedContract.of(self.inner.with_passes(passes))

    def for_tiling(self, tiling: Mapping[str, int]) -> GroupedContract:
        """The contract of every group as a kernel with these tiling parameters keeps it."""
        return GroupedContract.of(self.inner.for_tiling(tiling))

    def with_scale_rule(self, rule: str) -> GroupedContract:
        """The same contract with another rule for the scales of MXFP4 weights."""
        return GroupedContract.of(self.inner.with_scale_rule(rule))

    def compiled(self) -> GroupedContract:
        """The same contract by the compiled tile kernel."""
        return GroupedContract.of(self.inner.compiled())

    def operands(self, problem: Any, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        layout = _Layout(problem)
        given = {name: np.asarray(array) for name, array in (inputs or {}).items()}
        for name, array in given.items():
            layout.check(name, array)
        if not isinstance(seed, int):
            raise TypeError("a grouped problem takes a plain seed: its groups add their own number")
        parts = []
        for g in range(problem.groups):
            one = {name: layout.of(g, name, array) for name, array in given.items() if layout.rows[g] or name not in BY_ROW}
            try:
                parts.append(self.inner.operands(layout.problem(g), one, (seed, g)))
            except ArrayError as error:
                raise ArrayError(f"group {g}: {error}") from None
        return {name: layout.join(name, [part[name] for part in parts]) for name in parts[0]}

    def reference(self, problem: Any, operands: Mapping[str, np.ndarray]) -> Arrays:
        layout = _Layout(problem)
        parts = [self.inner.reference(one, part) for one, part in layout.active(operands)]
        return {name: layout.join_rows([part[name] for part in parts]) for name in parts[0]}

    def exact(self, problem: Any, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        layout = _Layout(problem)
        return layout.join_rows([self.inner.exact(one, part) for one, part in layout.active(operands)])

    def bound(self, problem: Any, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        layout = _Layout(problem)
        found = []
        for number, (one, part) in enumerate(layout.active(operands)):
            found.append(self.inner.bound(one, part, y64[layout.active_rows(number)]))
        return layout.join_rows(found)


class _Layout:
    """Which part of an array is that of a group."""

    def __init__(self, problem: Any) -> None:
        self.whole = problem
        rows = getattr(problem, "rows", None)
        self.uneven = rows is not None
        self.rows: tuple[int, ...] = tuple(rows) if rows is not None else (problem.m,) * problem.groups
        ends = np.cumsum(self.rows)
        self.slices = [slice(int(end) - m, int(end)) for end, m in zip(ends, self.rows, strict=True)]
        self.numbers = [g for g, m in enumerate(self.rows) if m]

    def problem(self, g: int) -> _OneGroup:
        """Group ``g`` as a GEMM; one without rows gets one, which :meth:`join` drops."""
        p = self.whole
        return _OneGroup(max(1, self.rows[g]), p.k, p.n, p.group, p.offset, p.trans_b, p.x, p.out)

    def check(self, name: str, array: np.ndarray) -> None:
        """ArrayError where an array given by the user does not hold all groups."""
        if self.uneven and name in BY_ROW:
            across = {"x": (self.whole.k,), "x_scale": (block_count(self.whole.k),) if self.whole.x in MX_ELEMENTS else ()}
            require_shape(array, (sum(self.rows), *across[name]), name)
        elif np.ndim(array) == 0 or len(array) != len(self.rows):
            raise ArrayError(f"{name} has shape {list(np.shape(array))}, the problem needs {len(self.rows)} groups "
                             "along the first axis")

    def of(self, g: int, name: str, array: np.ndarray) -> np.ndarray:
        """The part of operand ``name`` that belongs to group ``g``."""
        return array[self.slices[g]] if self.uneven and name in BY_ROW else array[g]

    def active(self, operands: Mapping[str, np.ndarray]) -> list[tuple[_OneGroup, Arrays]]:
        """Every group that has rows, with its operands."""
        return [(self.problem(g), {name: self.of(g, name, array) for name, array in operands.items()}) for g in self.numbers]

    def active_rows(self, number: int) -> int | slice:
        """Where the rows of the ``number``-th group that has any lie in ``y``."""
        return self.slices[self.numbers[number]] if self.uneven else number

    def join(self, name: str, parts: list[np.ndarray]) -> np.ndarray:
        """The operand of all groups."""
        if self.uneven and name in BY_ROW:
            return np.concatenate([part[:m] for part, m in zip(parts, self.rows, strict=True)])
        return np.stack(parts)

    def join_rows(self, parts: list[np.ndarray]) -> np.ndarray:
        """What the groups with rows have for each of them, put together."""
        return np.concatenate(parts) if self.uneven else np.stack(parts)
