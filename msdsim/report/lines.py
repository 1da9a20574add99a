"""The lines of a kernel with what each of them cost, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.text import Text

from msdsim.analysis.lines import LineProfile, Stall, line_counts, line_profile
from msdsim.ir.timing import Transfer
from msdsim.report.table import TextTable
from msdsim.timeline.record import HBM_READ, L2_READ, RunRecord


@dataclass(frozen=True)
class Line:
    """One line on one pipe: ``executions`` and ``bytes`` to or from GM over all cores, cycles by category summed over them.

    ``l2_hit_rate`` is the share of bytes read that L2 had, of the tensor that the line reads: where several lines read one
    tensor, that of all of them together.  None for lines that read no GM.
    """

    profile: LineProfile
    text: str
    executions: int
    bytes: int
    l2_hit_rate: float | None

    def to_json(self) -> dict[str, Any]:
        """Its figures, and what it waited for."""
        item = self.profile
        return {"line": item.line, "pipe": item.kind, "text": self.text, "executions": self.executions, "busy": item.busy,
                "waiting": item.waiting, "bytes": self.bytes, "l2_hit_rate": self.l2_hit_rate, "cycles": dict(item.cycles),
                "stalls": [{"category": stall.category, "what": stall.what, "by": stall.by, "cycles": stall.cycles}
                           for stall in item.stalls]}


def hit_rate(read: int, fetched: int) -> float | None:
    """Share of bytes read that did not come from HBM; 0 where whole lines fetch more than is read, None where nothing is."""
    return max(0.0, 1 - fetched / read) if read else None


def kernel_lines(record: RunRecord) -> list[Line]:
    """Every line that has instructions, in the order of the text."""
    counts = line_counts(record.program)
    known = {(part.name, instr.op.line, instr.pipe): instr for part in record.program.parts for instr in part.instructions()
             if instr.op is not None}
    rates = {tensor.name: hit_rate(int(row[L2_READ]), int(row[HBM_READ]))
             for tensor, row in zip(record.program.kernel.tensors, record.tensor_traffic, strict=True)}
    found = []
    for item in line_profile(record):
        key = item.part, item.line, item.pipe
        instr, count = known.get(key), counts[key]
        timing = instr.timing if instr is not None else None
        rate = rates[timing.tensor] if isinstance(timing, Transfer) and not timing.write else None
        found.append(Line(item, str(instr.op) if instr is not None else "", count.executions, count.bytes, rate))
    return found


def lines_table(record: RunRecord) -> list[Text]:
    """The table of ``run --lines``: cycles are means over the cores that have the pipe."""
    table = TextTable(("line", "pipe", "runs", "busy", "starts", "waits", "MB", "L2 hit", "waits most for", "statement"),
                      right=frozenset({0, 2, 3, 4, 5, 6, 7}))
    instances = {pipe: row["instances"] for pipe, row in record.pipe_totals().items()}
    for line in kernel_lines(record):
        item, cores = line.profile, instances[line.profile.kind]
        rate = "" if line.l2_hit_rate is None else f"{line.l2_hit_rate:.0%}"
        table.add(str(item.line or ""), item.kind, f"{line.executions:,}", f"{item.busy / cores:,.0f}",
                  f"{item.cycles.get('head', 0) / cores:,.0f}", f"{item.waiting / cores:,.0f}",
                  f"{line.bytes / 1e6:.3g}" if line.bytes else "", rate, most_waited(item.stalls), line.text)
    heading = Text.assemble(("Lines of the kernel", "bold"), (", runs and MB of all cores, cycles as their mean", "dim"))
    return [heading, *table.lines()]


_WORDS = {"wait_data": "{what} from {by}", "wait_buffer": "{what}, held by {by}", "wait_sync": "signal {what} from {by}",
          "wait_memory": "memory", "wait_issue": "dispatch"}


def most_waited(stalls: tuple[Stall, ...]) -> str:
    """What a line waited for most, in words; empty where it never waited."""
    return _WORDS[stalls[0].category].format(what=stalls[0].what, by=stalls[0].by) if stalls else ""
