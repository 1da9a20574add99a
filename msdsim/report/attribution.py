"""All of a run's time, three ways: by phase, by what every pipe did or waited for, and by line of the kernel.

Each way adds up to the same: every kind of pipe, its instances, all of the kernel's cycles.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from msdsim.analysis.phases import Phases, phases
from msdsim.report.labels import pipe_label
from msdsim.report.lines import kernel_lines
from msdsim.report.waits import waits
from msdsim.timeline.record import RunRecord

#: What a pipe does when it waits for nothing.
_OWN = {"busy": "works", "head": "starts an instruction", "drained": "is done"}


@dataclass(frozen=True)
class Spent:
    """Cycles of a kind of pipe, summed over its instances, in a category; ``what`` says what it waited for, in words, and
    ``whom`` the kind of pipe that it waited for, where it is one of its own core."""

    pipe: str
    category: str
    what: str
    whom: str
    cycles: int


@dataclass(frozen=True)
class LineSpent:
    """Cycles of a line of the kernel on a kind of pipe; ``line`` is None for what is of none: dispatch, and after the end."""

    line: int | None
    pipe: str
    text: str
    cycles: int
    #: Those of them in which it works or starts an instruction.
    works: int = 0


@dataclass(frozen=True)
class Attribution:
    """``pipe_cycles`` is what each of the three adds up to."""

    pipe_cycles: int
    phases: Phases
    causes: tuple[Spent, ...]
    lines: tuple[LineSpent, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it; cycles are summed over the instances of a kind of pipe."""
        return {
            "pipe_cycles": self.pipe_cycles, "lead": self.phases.lead, "mean_cycles": dict(self.phases.mean),
            "phases": [{"phase": phase, "pipe": pipe, "category": category, "cycles": cycles}
                       for pipe, by_phase in self.phases.cycles.items() for phase, row in by_phase.items()
                       for category, cycles in row.items()],
            "causes": [asdict(item) for item in self.causes], "lines": [asdict(item) for item in self.lines],
        }


def attribution(record: RunRecord) -> Attribution:
    """Where all of the time of a run went; the run must have kept its timeline (ValueError otherwise)."""
    total = sum(row["instances"] * record.cycles for row in record.pipe_totals().values())
    return Attribution(total, phases(record), tuple(_causes(record)), tuple(_lines(record)))


def _causes(record: RunRecord) -> list[Spent]:
    waited = waits(record)
    found = [Spent(kind, category, what, "", row[category]) for kind, row in record.pipe_totals().items()
             for category, what in _OWN.items() if row[category]]
    found += [Spent(wait.pipe, wait.category, wait.text, wait.culprit, wait.cycles)
              for rows in waited.values() for wait in rows]
    return sorted(found, key=lambda item: -item.cycles)


def _lines(record: RunRecord) -> list[LineSpent]:
    found = [LineSpent(line.profile.line, line.profile.kind, line.text, sum(line.profile.cycles.values()),
                       line.profile.busy + line.profile.cycles.get("head", 0)) for line in kernel_lines(record)]
    for kind, row in record.pipe_totals().items():
        if kind.endswith(".s"):
            found.append(LineSpent(None, kind, "dispatch", row["instances"] * record.cycles - row["drained"]))
        found.append(LineSpent(None, kind, f"{pipe_label(kind)} is done", row["drained"]))
    return sorted((item for item in found if item.cycles), key=lambda item: -item.cycles)
