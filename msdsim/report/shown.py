"""Results that show themselves: as a picture, as a trace, in a notebook.

They are what a simulation gives the user.  The results of :mod:`msdsim.report.result`, which reports are made of, are data and
know none of their renderings; the modules of these are imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from msdsim.report import frames
from msdsim.report.result import Comparison, Result, WorkloadComparison, WorkloadResult

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def _explain(found: Any) -> Any:
    """What the package's front does, which stands on this module."""
    return import_module("msdsim").explain(found)


class _Traced:
    """What has timelines: one run, or several side by side."""

    def _timelines(self) -> Sequence[Result]:
        raise NotImplementedError

    def to_trace(self, path: str, *, window_us: tuple[float, float] | None = None, cores: Iterable[int] | None = None,
                 flows: bool = False) -> list[str]:
        """Write the timelines as a trace, a group of tracks for each run: ``.pftrace`` for ui.perfetto.dev, ``.json`` for
        MindStudio Insight; simulate or compare with ``timeline=True``.

        ``window_us`` and ``cores`` choose a part of it; ``flows`` draws arrows from what was waited for.  Returns what was left
        out for the sake of size, in sentences.
        """
        from msdsim.report.trace import write_traces
        from msdsim.report.tracks import TraceOptions

        chosen = TraceOptions(window_us, None if cores is None else frozenset(cores), flows)
        return write_traces(self._timelines(), path, chosen)

    def to_perfetto(self, path: str) -> None:
        """Write the timelines as one trace that ui.perfetto.dev opens; simulate or compare with ``timeline=True``."""
        from msdsim.report.trace import write_perfetto

        write_perfetto(self._timelines(), path)


@dataclass(frozen=True, repr=False)
class ShownResult(_Traced, Result):
    """One simulated kernel."""

    def _timelines(self) -> Sequence[Result]:
        return [self]

    def plot(self) -> Figure:
        """Where each pipe's cycles went, and HBM bandwidth over time."""
        from msdsim.report.plots import plot_result

        return plot_result(self)

    def to_frame(self, what: str = "run") -> pd.DataFrame:
        """The run as a pandas DataFrame of one row, or its ``pipes`` (cycles by category), ``waits`` (by what was waited for),
        ``lines`` of the kernel or ``timeline`` (simulate with ``timeline=True``); install ``msdsim[frames]``."""
        return frames.run_frame(self, what)

    def explain(self) -> Any:
        """What it waits for in the end and what would help (:class:`msdsim.explore.explanation.Explanation`); its kernel is
        simulated on some twenty changed chips."""
        return _explain(self)

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.html import run_page

        return run_page(self)

    def _repr_html_(self) -> str:
        from msdsim.report.facts import run_report
        from msdsim.report.notebook import notebook_html

        return notebook_html(run_report(self))


@dataclass(frozen=True, repr=False)
class ShownComparison(_Traced, Comparison):
    """Dataflows side by side."""

    runs: Sequence[ShownResult]

    def _timelines(self) -> Sequence[Result]:
        return self.runs

    def plot(self) -> Figure:
        """Time by dataflow, split by what the busiest pipes do."""
        from msdsim.report.plots import plot_comparison

        return plot_comparison(self)

    def to_frame(self) -> pd.DataFrame:
        """One row a dataflow, as a pandas DataFrame; install ``msdsim[frames]``."""
        return frames.frame(frames.comparison_rows(self))

    def explain(self) -> Any:
        """Every dataflow explained, by name (:class:`msdsim.explore.explanation.Explanations`)."""
        return _explain(self)

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.html import comparison_page

        return comparison_page(self)

    def _repr_html_(self) -> str:
        from msdsim.report.facts import comparison_report
        from msdsim.report.notebook import notebook_html

        return notebook_html(comparison_report(self))


@dataclass(frozen=True, repr=False)
class ShownWorkloadResult(WorkloadResult):
    """A workload's entries and their weighted total."""

    def plot(self) -> Figure:
        """Time by kind of layer."""
        from msdsim.report.plots import plot_workload

        return plot_workload(self)

    def to_frame(self) -> pd.DataFrame:
        """One row an entry, as a pandas DataFrame; install ``msdsim[frames]``."""
        return frames.frame(frames.workload_rows(self))

    def explain(self) -> Any:
        """The entries that take most of the time explained, by name (:class:`msdsim.explore.explanation.Explanations`)."""
        return _explain(self)

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.html import workload_page

        return workload_page(self)

    def _repr_html_(self) -> str:
        from msdsim.report.facts import workload_report
        from msdsim.report.notebook import notebook_html

        return notebook_html(workload_report(self))


class ShownWorkloadComparison(WorkloadComparison):
    """A workload with several dataflows side by side."""

    def plot(self) -> Figure:
        """Time by kind of layer and dataflow."""
        from msdsim.report.plots import plot_workload_comparison

        return plot_workload_comparison(self)

    def to_frame(self) -> pd.DataFrame:
        """One row an entry and dataflow, as a pandas DataFrame; install ``msdsim[frames]``."""
        return frames.frame(frames.workload_comparison_rows(self))

    def html(self) -> str:
        """A page of its own, as ``--html`` writes it."""
        from msdsim.report.html import workload_comparison_page

        return workload_comparison_page(self)

    def _repr_html_(self) -> str:
        from msdsim.report.facts import workload_comparison_report
        from msdsim.report.notebook import notebook_html

        return notebook_html(workload_comparison_report(self))
