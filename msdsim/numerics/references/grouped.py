"""Grouped GEMM: independent matmuls, each under the GEMM contract of the same name.

Arrays carry the groups in front: ``x`` [groups, m, k], ``w`` [groups, k, n] ([groups, n, k] with trans_b), ``scale``
[groups, n] or [groups, k groups, n], ``y`` [groups, m, n].  Group g draws its tensors from the seed (seed, g).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdsim.errors import ArrayError
from msdsim.numerics.contract import Arrays, Contract, Seed


@dataclass(frozen=True)
class _OneGroup:
    m: int
    k: int
    n: int
    group: int | None
    offset: bool
    trans_b: bool
    kind: str = "gemm"


@dataclass(frozen=True)
class GroupedGemm(Contract):
    """The contract ``inner`` for every group."""

    inner: Contract

    @classmethod
    def of(cls, inner: Contract) -> GroupedGemm:
        """The grouped form of a GEMM contract."""
        return cls(inner.name, f"{inner.description}, for every group", "grouped_gemm", inner)

    def with_passes(self, passes: int) -> GroupedGemm:
        """The same contract with another number of passes."""
        return GroupedGemm.of(self.inner.with_passes(passes))

    def for_tiling(self, tiling: Mapping[str, int]) -> GroupedGemm:
        """The contract of every group as a kernel with these tiling parameters keeps it."""
        return GroupedGemm.of(self.inner.for_tiling(tiling))

    def compiled(self) -> GroupedGemm:
        """The same contract by the compiled tile kernel."""
        return GroupedGemm.of(self.inner.compiled())

    def operands(self, problem: Any, inputs: Mapping[str, np.ndarray] | None = None, seed: Seed = 0) -> Arrays:
        for name, array in (inputs or {}).items():
            if np.ndim(array) == 0 or len(array) != problem.groups:
                raise ArrayError(f"{name} has shape {list(np.shape(array))}, the problem needs {problem.groups} groups "
                                 "along the first axis")
        if not isinstance(seed, int):
            raise TypeError("a grouped problem takes a plain seed: its groups add their own number")
        parts = []
        for g in range(problem.groups):
            given = {name: np.asarray(array)[g] for name, array in (inputs or {}).items()}
            try:
                parts.append(self.inner.operands(_one(problem), given, (seed, g)))
            except ArrayError as error:
                raise ArrayError(f"group {g}: {error}") from None
        return _stack(parts)

    def reference(self, problem: Any, operands: Mapping[str, np.ndarray]) -> Arrays:
        return _stack([self.inner.reference(_one(problem), part) for part in _split(problem, operands)])

    def exact(self, problem: Any, operands: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.stack([self.inner.exact(_one(problem), part) for part in _split(problem, operands)])

    def bound(self, problem: Any, operands: Mapping[str, np.ndarray], y64: np.ndarray) -> np.ndarray:
        parts = zip(_split(problem, operands), y64, strict=True)
        return np.stack([self.inner.bound(_one(problem), part, y) for part, y in parts])


def _one(problem: Any) -> _OneGroup:
    return _OneGroup(problem.m, problem.k, problem.n, problem.group, problem.offset, problem.trans_b)


def _split(problem: Any, operands: Mapping[str, np.ndarray]) -> list[Arrays]:
    return [{name: array[g] for name, array in operands.items()} for g in range(problem.groups)]


def _stack(parts: list[Arrays]) -> Arrays:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
