"""The error of every method on a problem, as one call: :func:`accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msdsim.errors import InputError
from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
from msdsim.explore.accuracy.study import AccuracyRow, accuracy_study
from msdsim.ir.kernel import Kernel
from msdsim.problems import Problem, Workload
from msdsim.registry import unknown_name
from msdsim.report.frames import frame
from msdsim.runs import as_problem

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Accuracy:
    """Errors against float64 on the same quantized weights or KV cache, one row for each input, method and number of passes."""

    problem: Problem
    rows: tuple[AccuracyRow, ...]
    seed: int

    def __repr__(self) -> str:
        return f"<Accuracy of {len({row.method for row in self.rows})} methods on {self.problem}>"

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.accuracy/1``."""
        return {"schema": "msdsim.accuracy/1", "problem": self.problem.to_json(), "seed": self.seed,
                "rows": [asdict(row) for row in self.rows]}

    def to_frame(self) -> pd.DataFrame:
        """One row for each input, method and number of passes (install ``msdsim[frames]``)."""
        return frame([asdict(row) for row in self.rows])

    def plot(self) -> Figure:
        """Relative error of every method, by input."""
        from msdsim.report.studies import plot_accuracy

        return plot_accuracy(str(self.problem), self.rows)

    def _repr_html_(self) -> str:
        from msdsim.report.notebook import titled_tables
        from msdsim.report.studies import accuracy_tables

        return titled_tables(str(self.problem), accuracy_tables(self.rows))


def accuracy(problem: str | Path | Problem | Workload | Kernel, distributions: Sequence[str] | str | None = None, *,
             inputs: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> Accuracy:
    """Measure the error of dequantization, of MSD with 1, 2 ... passes and of single-pass formats on a problem.

    ``distributions`` of the activations (``uniform``, ``normal``, ``laplace``, ``student-t``, ``outliers``; all by default),
    or your own arrays as ``inputs`` (``x`` float32 [m, k] and so on).  Raises :class:`~msdsim.errors.InputError` for anything
    the user can mend.
    """
    shape = as_problem(problem)
    if isinstance(shape, Kernel):
        raise InputError(f"accuracy takes a problem, and '{shape.name}' is a kernel; give sizes, such as "
                         f"gemm:m=16,k=4096,n=4096")
    if shape.kind == "micro":
        raise InputError(f"accuracy takes a gemm, grouped_gemm or attention problem; {shape} computes no numbers of them")
    names = [distributions] if isinstance(distributions, str) else list(distributions or DISTRIBUTIONS)
    for name in names:
        if name not in DISTRIBUTIONS:
            raise unknown_name("input distribution", name, list(DISTRIBUTIONS))
    return Accuracy(shape, tuple(accuracy_study(shape, names, inputs, seed)), seed)
