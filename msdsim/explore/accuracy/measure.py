"""The error of every method on a problem, as one call: :func:`accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msdsim.errors import InputError
from msdsim.explore.accuracy.checkpoint_study import WeightStudy
from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
from msdsim.explore.accuracy.study import AccuracyRow, accuracy_study
from msdsim.explore.accuracy.workload_study import (
    INPUTS,
    MeasuredShape,
    Progress,
    workload_study,
    workload_weights,
)
from msdsim.formats.mx import DEFAULT_RULE
from msdsim.ir.kernel import Kernel
from msdsim.problems import Problem, Workload
from msdsim.registry import unknown_name
from msdsim.report.frames import frame
from msdsim.runs import read_problem

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

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.workload_accuracy import accuracy_page

        return accuracy_page(self)

    def plot(self) -> Figure:
        """Relative error of every method, by input."""
        from msdsim.report.studies import plot_accuracy

        return plot_accuracy(str(self.problem), self.rows)

    def _repr_html_(self) -> str:
        from msdsim.report.notebook import titled_tables
        from msdsim.report.studies import accuracy_tables

        return titled_tables(str(self.problem), accuracy_tables(self.rows))


@dataclass(frozen=True, repr=False)
class WorkloadAccuracy:
    """Errors of every method on the operators of a workload.

    ``shapes`` has each distinct problem once, on drawn weights; with a model's own, ``weights`` has every tensor that was
    measured and ``by_operator`` root mean squares over those of an operator.
    """

    workload: str
    seed: int
    shapes: tuple[MeasuredShape, ...] = ()
    weights: WeightStudy | None = None
    by_operator: WeightStudy | None = None
    scale_rule: str = DEFAULT_RULE

    def __repr__(self) -> str:
        what = f"{len(self.weights.tensors)} tensors" if self.weights is not None else f"{len(self.shapes)} distinct shapes"
        return f"<WorkloadAccuracy of {self.workload}: {what}>"

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.accuracy_workload/1``."""
        found: dict[str, Any] = {"schema": "msdsim.accuracy_workload/1", "name": self.workload, "seed": self.seed}
        if self.weights is None or self.by_operator is None:
            return found | {"shapes": [{"operators": list(item.names), "problem": item.problem.to_json(),
                                        "rows": [asdict(row) for row in item.rows]} for item in self.shapes]}
        return found | {"scale_rule": self.scale_rule, "tensors": self.weights.tensors,
                        "rows": [asdict(row) for row in self.weights.rows],
                        "operators": [asdict(row) for row in self.by_operator.rows],
                        "skipped": [dict(zip(("tensor", "method", "reason"), item, strict=True))
                                    for item in self.weights.skipped]}

    def to_frame(self) -> pd.DataFrame:
        """One row for each operator's shape (or tensor), input, method and number of passes (install ``msdsim[frames]``)."""
        if self.weights is not None:
            return frame([asdict(row) for row in self.weights.rows])
        return frame([{"operators": ",".join(item.names), "problem": str(item.problem), **asdict(row)}
                      for item in self.shapes for row in item.rows])

    def plot(self) -> Figure:
        """Relative error of every method, by operator."""
        from msdsim.report.workload_accuracy import plot_workload_accuracy

        return plot_workload_accuracy(self)

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.workload_accuracy import workload_accuracy_page

        return workload_accuracy_page(self)

    def _repr_html_(self) -> str:
        from msdsim.report.notebook import titled_tables
        from msdsim.report.workload_accuracy import workload_accuracy_tables

        return titled_tables(self.workload, workload_accuracy_tables(self))


def accuracy(problem: str | Path | Problem | Workload | Kernel, distributions: Sequence[str] | str | None = None, *,
             inputs: Mapping[str, np.ndarray] | None = None, seed: int = 0, ops: Sequence[str] = (), weights: str | None = None,
             scale_rule: str = DEFAULT_RULE, progress: Progress | None = None) -> Accuracy | Any:
    """Measure the error of dequantization, of MSD with 1, 2 ... passes and of single-pass formats on a problem, or on the
    operators of a workload (those named in ``ops``, or all), each distinct reduction once: a :class:`WorkloadAccuracy`.

    ``weights`` (``MODEL`` or ``MODEL:PATTERN``) are those of a checkpoint that belong to the operators of a workload.

    ``distributions`` of the activations (``uniform``, ``normal``, ``laplace``, ``student-t``, ``outliers``; all by default),
    or your own arrays as ``inputs`` (``x`` float32 [m, k] and so on).  Raises :class:`~msdsim.errors.InputError` for anything
    the user can mend.
    """
    shape = read_problem(problem)
    names = [distributions] if isinstance(distributions, str) else list(distributions or ())
    for name in names:
        if name not in DISTRIBUTIONS:
            raise unknown_name("input distribution", name, list(DISTRIBUTIONS))
    if isinstance(shape, Workload):
        return _of_workload(shape, names or list(INPUTS), inputs, seed, ops, weights, scale_rule, progress)
    if ops or weights is not None:
        raise InputError("ops and weights of accuracy belong to a workload, and this is one problem; leave them out")
    if isinstance(shape, Kernel):
        raise InputError(f"accuracy takes a problem, and '{shape.name}' is a kernel; give sizes, such as "
                         f"gemm:m=16,k=4096,n=4096")
    if shape.kind == "micro":
        raise InputError(f"accuracy takes a gemm, grouped_gemm or attention problem; {shape} computes no numbers of them")
    return Accuracy(shape, tuple(accuracy_study(shape, names or list(DISTRIBUTIONS), inputs, seed)), seed)


def _of_workload(workload: Workload, names: Sequence[str], inputs: Mapping[str, np.ndarray] | None, seed: int,
                 ops: Sequence[str], weights: str | None, scale_rule: str, progress: Progress | None) -> WorkloadAccuracy:
    if inputs is not None:
        raise InputError(f"arrays belong to one problem, and '{workload.name}' has {len(workload.entries)}; give one of them, "
                         f"such as {workload.entries[0].problem}")
    if weights is None:
        return WorkloadAccuracy(workload.name, seed, tuple(workload_study(workload, names, seed, ops, progress)))
    study, by_operator = workload_weights(workload, weights, names, seed, scale_rule, ops, progress)
    return WorkloadAccuracy(workload.name, seed, (), study, by_operator, scale_rule)
