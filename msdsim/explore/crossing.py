"""Up to how many rows a dataflow is faster than dequantizing: by the closed forms, and by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from msdsim.analysis.closed_form import gemm_time_us
from msdsim.dataflows.lookup import dataflows_for, find_dataflow
from msdsim.errors import InputError
from msdsim.formats.schemes import baselines
from msdsim.hardware import Hardware
from msdsim.ir.kernel import Kernel
from msdsim.jobs import Progress
from msdsim.problems import Gemm, Problem
from msdsim.report.verdict import TIE
from msdsim.runs import RunOptions, as_hardware, as_problem, run

#: Rows beyond which nobody asks.
MOST_ROWS = 4096


@dataclass(frozen=True)
class Crossing:
    """``rows_formula`` and ``rows_simulated``: the most rows (m) up to which ``dataflow`` is as fast as the better of
    ``baselines`` or faster (within the 2% that :data:`~msdsim.report.verdict.TIE` calls a tie); 0 where it never is, None where
    it is up to :data:`MOST_ROWS`.  ``steps`` are (m, speed-up by formula, speed-up by simulation) at the rows that were
    simulated."""

    dataflow: str
    baselines: tuple[str, ...]
    rows_formula: int | None
    rows_simulated: int | None
    steps: tuple[tuple[int, float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return {"dataflow": self.dataflow, "baselines": list(self.baselines), "rows_formula": self.rows_formula,
                "rows_simulated": self.rows_simulated,
                "steps": [{"m": m, "speedup_formula": formula, "speedup_simulated": simulated}
                          for m, formula, simulated in self.steps]}


def crossings(problem: str | Path | Problem | Kernel, hw: str | Path | Hardware = "ascend910b1", *,
              progress: Progress | None = None, options: RunOptions | None = None) -> list[Crossing]:
    """The crossing of every MSD dataflow that the chip allows with the better of the dequantizing baselines of its weights,
    for the k and n of a plain GEMM; its m does not matter.  InputError for other problems."""
    shape, hardware, chosen = as_problem(problem), as_hardware(hw), options or RunOptions()
    if not isinstance(shape, Gemm):
        raise InputError("rows are those of one plain matmul; give a gemm, such as gemm:m=16,k=8192,n=12288")
    found = []
    allowed = [name for name in dataflows_for("gemm") if find_dataflow(shape, name).refuses(shape, hardware.chip) is None]
    names = [name for name in allowed if name.startswith("msd-")]
    for number, name in enumerate(names):
        stored = name.partition("-")[2]
        rivals = tuple(rival for rival in baselines(stored) if rival in allowed)
        if rivals:
            found.append(_crossing(shape, hardware, name, rivals, chosen))
        if progress is not None:
            progress(number + 1, len(names))
    return found


def _crossing(shape: Gemm, hardware: Hardware, name: str, rivals: tuple[str, ...], options: RunOptions) -> Crossing:
    def with_rows(m: int) -> Gemm:
        return shape.model_copy(update={"m": m})

    @cache
    def by_formula(m: int) -> float:
        times = {other: gemm_time_us(other, with_rows(m), hardware.chip) for other in (name, *rivals)}
        return min(times[rival] for rival in rivals) / times[name]

    @cache
    def by_simulation(m: int) -> float:
        times = {other: run(with_rows(m), hardware, other, options.but(timeline=False)).cycles for other in (name, *rivals)}
        return min(times[rival] for rival in rivals) / times[name]

    asked: list[int] = []

    def simulated(m: int) -> float:
        asked.append(m)
        return by_simulation(m)

    rows_formula, rows_simulated = _last(by_formula), _last(simulated)
    return Crossing(name, rivals, rows_formula, rows_simulated,
                    tuple((m, by_formula(m), by_simulation(m)) for m in sorted(set(asked))))


def _last(speedup: Callable[[int], float]) -> int | None:
    """The most rows before the baseline is faster by more than a tie: powers of two from 16 on, then halves in between,
    down to sixteen rows, the height of a fractal."""
    low, high = 0, 16
    while speedup(high) >= 1 / TIE:
        low, high = high, 2 * high
        if low >= MOST_ROWS:
            return None
    if low == 0:
        return 1 if speedup(1) >= 1 / TIE else 0
    while high - low > 16:
        middle = (low + high) // 32 * 16
        low, high = (middle, high) if speedup(middle) >= 1 / TIE else (low, middle)
    return low
