"""Some turns of a run's steady state as a chart of the pages: the pipes of one core, to zoom."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from msdsim.analysis.critical_path import circuit, critical_path
from msdsim.naming import PIPES
from msdsim.report.labels import ordered_pipes, pipe_label
from msdsim.report.result import Result
from msdsim.report.waits import semaphore_text, transfer_text
from msdsim.timeline.record import CATEGORIES, HEAD, WAIT_ISSUE, WAIT_MEMORY, WAIT_SYNC

#: Rectangles that a timeline may have, and turns of the steady state that it shows.
_MOST_PIECES, _TURNS = 700, 4
#: Height of a pipe's row.
_ROW = 26
_TOOLS = (("+", "zoom in", "+"), ("-", "zoom out", "&minus;"), ("ArrowLeft", "earlier", "&larr;"),
          ("ArrowRight", "later", "&rarr;"), ("0", "all", "all"))


def timeline(run: Result) -> str:
    """The pipes of one core for some turns of the steady state, to zoom; empty for a run that kept no timeline."""
    if run.record.timeline is None or not run.cycles:
        return ""
    begin, end = _window(run)
    rows = _pieces(run, begin, end)
    if not rows:
        return ""
    clock = float(run.hardware.chip.clock_mhz)
    names = "".join(f"<div>{escape(name)}</div>" for name, _ in rows)
    rects = "".join(
        f'<rect class="f-{category}" data-part="{category}" x="{start - begin}" width="{max(1, stop - start)}" '
        f'y="{_ROW * at + 2}" height="{9 if category.startswith("wait") else 22}" '
        f'data-tip="{escape(text)}\n{start:,} to {stop:,}: {stop - start:,} cycles"/>'
        for at, (_, pieces) in enumerate(rows) for start, stop, category, text in pieces)
    height = _ROW * len(rows)
    tools = "".join(f'<button type="button" data-act="{act}" aria-label="{label}">{text}</button>'
                    for act, label, text in _TOOLS)
    return (f"<h3>Steady state of core 0</h3><figure><figcaption>What every pipe works on (high) and waits for (low). Wheel, "
            f"buttons or the keys + - 0 and arrows zoom and move.</figcaption>"
            f'<div class="tools">{tools} <span class="range" aria-live="polite"></span></div>'
            f'<div class="zoom"><div class="names">{names}</div><svg tabindex="0" role="img" aria-label="timeline of core 0" '
            f'viewBox="0 0 {end - begin} {height}" preserveAspectRatio="none" height="{height}" data-begin="{begin}" '
            f'data-end="{end}" data-clock="{clock:g}">{rects}</svg></div></figure>')


def _window(run: Result) -> tuple[int, int]:
    """Some turns of the steady-state circuit in the middle of the run, or the whole of a short one."""
    turn = sum(step.cycles for step in circuit(critical_path(run.record)))
    width = min(run.cycles, max(_TURNS * turn, 2000))
    begin = (run.cycles - width) // 2
    line = run.record.timeline
    assert line is not None
    mine = np.isin(line["unit"], _core(run))
    while width > 200:
        inside = int(((line["end"] > begin) & (line["start"] < begin + width) & mine).sum())
        if inside <= _MOST_PIECES // 2:
            break
        width = width * 2 // 3
    return begin, begin + width


def _core(run: Result) -> list[int]:
    units = run.record.units
    return [unit for unit in range(units.count) if units.core(unit) == 0 and units.sub(unit) == 0]


_Piece = tuple[int, int, str, str]


def _pieces(run: Result, begin: int, end: int) -> list[tuple[str, list[_Piece]]]:
    """By pipe of core 0 (and its first AIV): what it does from ``begin`` to ``end``."""
    record, found = run.record, {}
    line = record.timeline
    assert line is not None
    for unit in _core(run):
        part_name = record.units.part(unit)
        part = record.program.aic if part_name == "AIC" else record.program.aiv
        instrs = part.instructions()
        for index, pipe in enumerate(PIPES[part_name]):
            inside = (line["end"] > begin) & (line["start"] < end)
            rows = np.flatnonzero((line["unit"] == unit) & (line["pipe"] == index) & inside)
            if pipe == "S" or not len(rows):
                continue
            rows = rows[np.lexsort((line["dispatched"][rows], line["start"][rows]))]
            pieces: list[_Piece] = []
            cursor = begin
            for row in rows.tolist():
                start, stop = max(begin, int(line["start"][row])), min(end, int(line["end"][row]))
                cause, instr = int(line["cause"][row]), instrs[int(line["instr"][row])]
                if start > cursor:
                    pieces.append((cursor, start, CATEGORIES[cause if cause >= 0 else WAIT_ISSUE],
                                   _why(run, part, cause, int(line["culprit"][row]))))
                    cursor = start
                if instr.op is None or stop <= cursor:
                    continue
                work = min(stop, int(line["start"][row]) + int(line["work"][row]))
                text = f"{pipe_label(f'{part_name}.{pipe}'.lower())}: {transfer_text(instr)} (line {instr.op.line})\n{instr.op}"
                if work > cursor:
                    pieces.append((cursor, work, "busy", text))
                if stop > max(cursor, work):
                    # What a transfer takes beyond its work is mostly latency, or mostly waiting for memory.
                    spent = record.instr_totals[part.name][instr.index]
                    kind = "wait_memory" if spent[WAIT_MEMORY] > spent[HEAD] else "head"
                    pieces.append((max(cursor, work), stop, kind, text))
                cursor = max(cursor, stop)
            found[f"{part_name.lower()}.{pipe.lower()}"] = pieces
    return [(pipe_label(kind), found[kind]) for kind in ordered_pipes(found)]


def _why(run: Result, part: Any, cause: int, culprit: int) -> str:
    if cause < 0 or culprit < 0:
        return "waits for dispatch"
    if cause == WAIT_SYNC:
        return f"waits for signal {run.record.program.kernel.signals[culprit].name}"
    return f"waits for {semaphore_text(part.semaphores[culprit])}"
