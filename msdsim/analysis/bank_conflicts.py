"""Cycles that Vector spends on conflicts in the banks of UB, over a whole run."""

from __future__ import annotations

import numpy as np

from msdsim.analysis.counting import Amounts, Rows, sums
from msdsim.ir.expr import evaluate_all, free_vars
from msdsim.ir.program import Instr, Program
from msdsim.ir.timing import Local


def conflict_cycles(program: Program) -> int:
    """Cycles of work beyond what the instructions would take without conflicts, summed over all AIVs."""
    return int(sums(program, program.aiv, _amounts, 1).sum())


def _amounts(instr: Instr) -> Amounts | None:
    timing = instr.timing
    if not isinstance(timing, Local) or timing.without_conflicts is None:
        return None
    with_conflicts, without, dims = timing.cost, timing.without_conflicts, timing.dims

    def cycles(env: Rows) -> tuple[np.ndarray]:
        columns = np.broadcast_arrays(*(np.atleast_1d(evaluate_all(size, env)) for size in dims))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return (np.array([with_conflicts.work(sizes) - without.work(sizes) for sizes in rows], np.int64),)

    return Amounts(cycles, frozenset().union(*(free_vars(size) for size in dims)))
