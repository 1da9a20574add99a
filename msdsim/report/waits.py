"""What the pipes of a run waited for, with names: the buffer, the pipe that fills or holds it, the signal, the transfer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from msdsim.ir.lower import PHASE
from msdsim.ir.program import Instr, Semaphore
from msdsim.naming import pipe_kind
from msdsim.timeline.record import CATEGORIES, WAIT_ISSUE, WAIT_MEMORY, WAIT_SYNC, RunRecord


@dataclass(frozen=True)
class Wait:
    """Cycles that the pipes of a kind waited for one thing, summed over the instances; ``share`` is of their whole time.

    ``culprit`` is the kind of pipe that was waited for, where it is one.
    """

    pipe: str
    category: str
    cycles: int
    share: float
    text: str
    culprit: str = ""


def waits(record: RunRecord) -> dict[str, list[Wait]]:
    """Per kind of pipe, everything it waited for, longest first."""
    pipes = record.pipe_totals()
    found: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for part in record.program.parts:
        if not any(kind.startswith(f"{part.name}.") for kind in pipes):
            continue
        for semaphore, cycles in zip(part.semaphores, record.semaphore_waits[part.name], strict=True):
            key = (pipe_kind(part.name, semaphore.target), f"wait_{semaphore.cause}", semaphore_text(semaphore),
                   pipe_kind(part.name, semaphore.source))
            found[key] += int(cycles)
        rows = record.instr_totals[part.name]
        for instr in part.instructions():
            kind, row = pipe_kind(part.name, instr.pipe), rows[instr.index]
            if instr.signal is not None and instr.signal[0] == "wait":
                signal = record.program.kernel.signals[instr.signal[1]]
                sender = {"aiv_to_aic": "AIV", "aic_to_aiv": "AIC"}.get(signal.kind, "all cores")
                found[kind, "wait_sync", f"signal {signal.name} from {sender}", ""] += int(row[WAIT_SYNC])
            found[kind, "wait_memory", f"memory, {transfer_text(instr)}", ""] += int(row[WAIT_MEMORY])
            found[kind, "wait_issue", "dispatch by S", f"{part.name}.s"] += int(row[WAIT_ISSUE])
        scalar = pipe_kind(part.name, "S")
        found[scalar, "wait_issue", "room in a queue", ""] += pipes[scalar][CATEGORIES[WAIT_ISSUE]]
    by_pipe: dict[str, list[Wait]] = {kind: [] for kind in pipes}
    for (kind, category, text, culprit), cycles in sorted(found.items(), key=lambda item: -item[1]):
        if cycles:
            share = cycles / (pipes[kind]["instances"] * max(1, record.cycles))
            by_pipe[kind].append(Wait(kind, category, cycles, share, text, culprit))
    return by_pipe


def semaphore_text(semaphore: Semaphore) -> str:
    """``data a1 from MTE2``, ``buffer a1 held by MTE1``; between phases the buffer is no single one."""
    if semaphore.buffer == PHASE:
        return f"{semaphore.source}'s last phase"
    verb = "from" if semaphore.cause == "data" else "held by"
    return f"{semaphore.cause} {semaphore.buffer} {verb} {semaphore.source}"


def transfer_text(instr: Instr) -> str:
    """A transfer as a person names it: the tensor it reads or writes."""
    op = instr.op
    if op is None:
        return "flags"
    if op.ins and op.ins[0].space == "GM":
        return f"reading {op.ins[0].of.name}"
    if op.out is not None and op.out.space == "GM":
        return f"writing {op.out.of.name}"
    return op.kind


def stall_share(row: dict[str, int], cycles: int) -> float:
    """Share of a pipe's time that it waited: neither working, nor starting an instruction, nor done with all its work."""
    waited = sum(value for name, value in row.items() if name.startswith("wait_"))
    return waited / (row["instances"] * max(1, cycles))
