"""Why a run takes as long as it does: what it hangs on, where its time goes, and what a better chip would gain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msdsim.analysis.critical_path import PathPlace, by_place, circuit, critical_path
from msdsim.api import simulate
from msdsim.errors import InputError
from msdsim.explore.whatif import WalkStep, WhatIf, causes, walk, what_if
from msdsim.hardware import Hardware
from msdsim.ir.kernel import Kernel
from msdsim.jobs import Progress
from msdsim.problems import Problem, Workload
from msdsim.report.attribution import Attribution, attribution
from msdsim.report.frames import frame
from msdsim.report.result import Comparison, Result, WorkloadResult
from msdsim.report.shown import ShownResult
from msdsim.runs import RunOptions, run_changed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Entries of a workload that are explained: the ones that take most time.
_ENTRIES = 3
#: What :meth:`Explanation.to_frame` can be asked for.
TABLES = ("what_if", "walk", "path", "circuit", "phases", "causes", "lines")


@dataclass(frozen=True, repr=False)
class Explanation:
    """``result`` with what binds it (``causes``), ``path`` the critical path by place, ``circuit`` the loop that it runs in
    the steady state, ``attribution`` all time by phase, cause and line, ``what_if`` the time on chips that are better in one
    thing, and ``walk`` the way to the fastest chip."""

    result: ShownResult
    path: tuple[PathPlace, ...]
    circuit: tuple[PathPlace, ...]
    attribution: Attribution
    what_if: tuple[WhatIf, ...]
    walk: tuple[WalkStep, ...]

    def __str__(self) -> str:
        from msdsim.report.verdict import bound_text

        return f"{self.result}; bound by {bound_text(self.result.causes or ())}"

    def __repr__(self) -> str:
        return f"<Explanation {self}>"

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.explain/1``."""
        from msdsim.report.explain import explanation_json

        return explanation_json(self)

    def to_frame(self, what: str = "what_if") -> pd.DataFrame:
        """One of its tables (:data:`TABLES`) as a DataFrame (install ``msdsim[frames]``)."""
        from msdsim.report.explain import steps_json

        rows: dict[str, Callable[[], list[Any]]] = {
            "what_if": lambda: [asdict(item) for item in self.what_if], "walk": lambda: [asdict(item) for item in self.walk],
            "path": lambda: steps_json(self.result, self.path), "circuit": lambda: steps_json(self.result, self.circuit),
            "phases": lambda: self.attribution.to_json()["phases"],
            "causes": lambda: [asdict(item) for item in self.attribution.causes],
            "lines": lambda: [asdict(item) for item in self.attribution.lines]}
        if what not in rows:
            raise InputError(f"there is no table '{what}' of an explanation (tables: {', '.join(TABLES)})")
        return frame(rows[what]())

    def plot(self) -> Figure:
        """Phases, what every pipe waits for, and what each change of the chip gains."""
        from msdsim.report.explain_plot import plot_explanation

        return plot_explanation(self)

    def html(self) -> str:
        """A page of its own."""
        from msdsim.report.explain_page import explanation_page

        return explanation_page(self)

    def _repr_html_(self) -> str:
        from msdsim.report.explain import explanation_html

        return explanation_html(self)


class Explanations(Mapping[str, Explanation]):
    """Explanations by the name of a dataflow or of a workload's entry; ``note`` says what must be known about all of them."""

    def __init__(self, found: Mapping[str, Explanation], note: str = "") -> None:
        self.found, self.note = dict(found), note

    def __getitem__(self, name: str) -> Explanation:
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        return f"<Explanations {'; '.join(f'{name}: {item}' for name, item in self.found.items())}>"

    def to_json(self) -> dict[str, Any]:
        """Schema ``msdsim.explanations/1``: an ``msdsim.explain/1`` by name."""
        return {"schema": "msdsim.explanations/1", "explanations": {name: item.to_json() for name, item in self.items()},
                **({"note": self.note} if self.note else {})}

    def to_frame(self, what: str = "what_if") -> pd.DataFrame:
        """The tables of all of them, one after the other, under their names."""
        frames = [item.to_frame(what).assign(name=name) for name, item in self.items()]
        import pandas as pd

        return pd.concat(frames, ignore_index=True)

    def _repr_html_(self) -> str:
        from html import escape

        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return note + "".join(f"<h3>{escape(name)}</h3>{item._repr_html_()}" for name, item in self.items())


def explain(problem: str | Path | Problem | Workload | Kernel | Result | Comparison | WorkloadResult,
            hw: str | Path | Hardware | None = None, dataflow: str | None = None, *, progress: Progress | None = None,
            options: RunOptions | None = None, **changes: Any) -> Any:
    """Explain the time of a problem or kernel with one dataflow (:class:`Explanation`), or of a result that is there.

    A workload or its result gives :class:`Explanations` of the entries that take most of its time, a comparison those of its
    dataflows.  Results are explained with the kernel, chip and options that they have; options given beside one are refused.
    Raises :class:`~msdsim.errors.InputError` for anything the user can mend.
    """
    if isinstance(problem, Result | Comparison | WorkloadResult):
        if hw is not None or dataflow is not None or options is not None or changes:
            raise InputError("a result is explained as it was run; leave out hw, dataflow and options")
        if isinstance(problem, Comparison):
            return Explanations({run.dataflow: explain_result(run, progress) for run in problem.runs})
        return explain_entries(problem) if isinstance(problem, WorkloadResult) else explain_result(problem, progress)
    chosen = (options or RunOptions()).but(**{"timeline": True, **changes})
    result = simulate(problem, hw or "ascend910b1", dataflow, options=chosen)
    return explain_entries(result) if isinstance(result, WorkloadResult) else explain_result(result, progress)


def explain_entries(result: WorkloadResult) -> Explanations:
    """The entries of a workload that take most of its time."""
    longest = sorted(result.runs, key=lambda run: -run.count * run.result.cycles)[:_ENTRIES]
    return Explanations({run.name: explain_result(run.result) for run in longest},
                        "each entry is explained as it runs alone, on an empty L2")


def explain_result(result: Result, progress: Progress | None = None) -> Explanation:
    """A result explained: its kernel simulated again where it kept no timeline, and on every changed chip."""
    plain = RunOptions(engine=result.engine, memory=result.memory, warm=result.l2_start == "warm")
    if result.record.timeline is None or result.l2_start == "workload" or not isinstance(result, ShownResult):
        again = run_changed(result, result.hardware, plain.but(timeline=True))
        base = replace(again, seed=result.seed, numerics=result.numerics, weights=result.weights, chosen=result.chosen)
    else:
        base = result

    def on(hardware: Hardware) -> Result:
        # The very same kernel on every changed chip, so that only the chip differs.
        return run_changed(base, hardware, plain)

    path, gains = critical_path(base.record), what_if(base, on, progress)
    return Explanation(replace(base, causes=causes(gains)), tuple(by_place(path)), tuple(circuit(path)),
                       attribution(base.record), tuple(gains), tuple(walk(base, on)))
