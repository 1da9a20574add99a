"""Where the time of a run went, by line of the kernel's text: executions, bytes, and every cycle of a pipe that is charged to
an instruction of that line."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from msdsim.analysis.counting import Amounts, sums
from msdsim.ir.expr import evaluate_all, free_vars
from msdsim.ir.lower import PHASE
from msdsim.ir.program import Instr, Part, Program
from msdsim.ir.timing import Transfer
from msdsim.naming import pipe_kind
from msdsim.timeline.record import CATEGORIES, WAIT_BUFFER, WAIT_DATA, WAIT_ISSUE, WAIT_MEMORY, WAIT_SYNC, RunRecord


@dataclass(frozen=True)
class Stall:
    """Cycles that a line waited for one thing, summed over the cores.

    ``what`` is the buffer, signal or tensor, ``by`` the pipe or part that fills, holds or raises it; where an instruction waits
    for several of one kind and the totals do not tell them apart, ``what`` names them all.
    """

    category: str
    what: str
    by: str
    cycles: int


@dataclass(frozen=True)
class LineProfile:
    """One line on one pipe: cycles by category (``busy``, ``head``, ``wait_*``), summed over the cores that run it.

    Flags that pipes pass each other around a block are charged to the line that they let go on.
    """

    part: str
    pipe: str
    line: int
    cycles: Mapping[str, int]
    stalls: tuple[Stall, ...]

    @property
    def kind(self) -> str:
        """The pipe as results name it (``aic.mte2``)."""
        return pipe_kind(self.part, self.pipe)

    @property
    def busy(self) -> int:
        return self.cycles.get("busy", 0)

    @property
    def waiting(self) -> int:
        return sum(value for name, value in self.cycles.items() if name.startswith("wait_"))


@dataclass(frozen=True)
class LineCount:
    """How often the cores executed a line, and the bytes that it moved to or from GM."""

    executions: int
    bytes: int


def line_profile(record: RunRecord) -> list[LineProfile]:
    """Every line that has instructions, in the order of the text; on each pipe but S their cycles add up to its totals, but
    for ``drained``."""
    cycles: dict[tuple[str, int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    stalls: dict[tuple[str, int, str], dict[tuple[str, str, str], int]] = defaultdict(lambda: defaultdict(int))
    for part in record.program.parts:
        for instr, line in zip(part.instructions(), instruction_lines(part), strict=True):
            row = record.instr_totals[part.name][instr.index]
            key = part.name, line, instr.pipe
            spent = cycles[key]
            for name, value in zip(CATEGORIES, row.tolist(), strict=True):
                spent[name] += value
            for stall in _stalls(record, part, instr, row):
                stalls[key][stall.category, stall.what, stall.by] += stall.cycles
    return [LineProfile(part, pipe, line, {name: value for name, value in spent.items() if value},
                        tuple(Stall(*what, value) for what, value in
                              sorted(stalls[part, line, pipe].items(), key=lambda item: -item[1])))
            for (part, line, pipe), spent in sorted(cycles.items(), key=lambda item: (item[0][0], item[0][1]))]


def instruction_lines(part: Part) -> list[int]:
    """The line of every instruction.  Flags have none of their own: those that wait get the next line of their pipe, the others
    the one before (0 on a pipe without any)."""
    instrs = part.instructions()
    found = [0 if instr.op is None else instr.op.line for instr in instrs]
    for pipe in part.pipes:
        own = [instr.index for instr in instrs if instr.pipe == pipe]
        with_line = [index for index in own if found[index]]
        for index in own:
            if instrs[index].op is None and with_line:
                at = bisect_left(with_line, index)
                after = at < len(with_line) and (bool(instrs[index].waits) or at == 0)
                found[index] = instrs[with_line[at if after else at - 1]].op.line  # type: ignore[union-attr]
    return found


def _stalls(record: RunRecord, part: Part, instr: Instr, row: np.ndarray) -> Iterator[Stall]:
    for category, cause in ((WAIT_DATA, "data"), (WAIT_BUFFER, "buffer")):
        if row[category]:
            waited = record.semaphore_waits[part.name]
            asked = [number for number in instr.asks if part.semaphores[number].cause == cause]
            found = [part.semaphores[number] for number in asked if waited[number]]
            names = dict.fromkeys("the last phase" if item.buffer == PHASE else item.buffer for item in found)
            yield Stall(CATEGORIES[category], " or ".join(names), " or ".join(dict.fromkeys(item.source for item in found)),
                        int(row[category]))
    if row[WAIT_SYNC] and instr.signal is not None:
        signal = record.program.kernel.signals[instr.signal[1]]
        sender = {"aiv_to_aic": "AIV", "aic_to_aiv": "AIC"}.get(signal.kind, "all cores")
        yield Stall(CATEGORIES[WAIT_SYNC], signal.name, sender, int(row[WAIT_SYNC]))
    if row[WAIT_MEMORY]:
        tensor = instr.timing.tensor if isinstance(instr.timing, Transfer) else ""
        yield Stall(CATEGORIES[WAIT_MEMORY], tensor, "memory", int(row[WAIT_MEMORY]))
    if row[WAIT_ISSUE]:
        yield Stall(CATEGORIES[WAIT_ISSUE], "dispatch", "S", int(row[WAIT_ISSUE]))


def line_counts(program: Program) -> dict[tuple[str, int, str], LineCount]:
    """Executions and bytes by part, line and pipe, worked out from the loops' own bounds: no engine is asked."""
    found: dict[tuple[str, int, str], LineCount] = {}
    for part in program.parts:
        counts = sums(program, part, _amounts, 2).tolist()
        for instr, line, (executions, moved) in zip(part.instructions(), instruction_lines(part), counts, strict=True):
            key = part.name, line, instr.pipe
            before = found.get(key, LineCount(0, 0))
            found[key] = LineCount(before.executions + (executions if instr.op is not None else 0), before.bytes + moved)
    return found


def _amounts(instr: Instr) -> Amounts:
    """Executions, and bytes moved to or from GM."""
    timing = instr.timing
    if not isinstance(timing, Transfer):
        return Amounts(lambda env: (1, 0))
    rows, row_bytes = timing.rows, timing.row_bytes
    return Amounts(lambda env: (1, np.maximum(0, evaluate_all(rows, env)) * np.maximum(0, evaluate_all(row_bytes, env))),
                   free_vars(rows) | free_vars(row_bytes))
