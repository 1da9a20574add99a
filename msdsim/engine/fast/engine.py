"""The fast engine as the facade sees it: arrays in, a RunRecord out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from msdsim.engine.accounting import in_time_order
from msdsim.engine.banked import BankedTimings
from msdsim.engine.base import EngineOptions, check_signals
from msdsim.engine.fast import banked_layout, native
from msdsim.engine.fast import layout as at
from msdsim.engine.fast.builder import INTERVALS, Builder, Machine, first_books, retuned
from msdsim.engine.fast.capacities import Capacities
from msdsim.engine.fast.compiled import is_cached
from msdsim.engine.fast.l2 import Arrays
from msdsim.engine.fast.repetition import Repetition, repetition
from msdsim.engine.fast.tables import PartTable, part_table
from msdsim.engine.memory import check_l2, l2_geometry
from msdsim.errors import Deadlock, InputError, InvariantError, KernelError
from msdsim.garbage import uncollected
from msdsim.ir.lower import lowered_alike
from msdsim.ir.program import Program
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import (
    BUSY,
    CATEGORIES,
    DRAINED,
    MAX_PIPES,
    TIMELINE_COLUMNS,
    TRAFFIC,
    WAIT_ISSUE,
    Bandwidth,
    RunRecord,
    Units,
)


def create() -> FastEngine:
    """The engine, as the facade asks for it."""
    return FastEngine()


def is_compiled() -> bool:
    """Whether a run can start at once: compiled ahead, or in this process, or an earlier one left its code on disk."""
    return native.load() is not None or "msdsim.engine.fast.machine" in sys.modules or is_cached()


def warm_up() -> None:
    """Load the engine's compiled code; where there is none yet, compile it, which takes some seconds."""
    _compiled_run()


def _compiled_run() -> Callable[..., None]:
    """:func:`msdsim.engine.fast.machine.run`: what was compiled ahead if that fits this platform and this source."""
    ahead = native.load()
    if ahead is not None:
        return ahead
    from msdsim.engine.fast.machine import run

    compiled: Callable[..., None] = run
    return compiled


class FastEngine:
    """See the package's text."""

    @uncollected()
    def run(self, program: Program, options: EngineOptions, l2: L2State | None = None) -> RunRecord:
        check_l2(l2, program.chip)
        run = _Run(_compiled(program, options), options, l2)
        run.simulate(None)
        timeline = run.timeline() if options.record_timeline else None
        record = run.record(timeline)
        run.l2.release()
        return record

    @uncollected()
    def cycles(self, program: Program) -> int:
        """The cycles of :meth:`run` alone, for who compares many programs."""
        run = _Run(_compiled(program, EngineOptions()), EngineOptions(), None)
        run.simulate(None)
        run.l2.release()
        return int(run.accounted().max(initial=0))


@dataclass
class _Compiled:
    """What all runs of a program have in common.  ``start`` are the arrays of one that begins on an empty L2 and keeps no
    timeline, where they are small enough to be kept."""

    program: Program
    tables: list[PartTable]
    timings: BankedTimings | None
    capacities: Capacities
    repetitions: list[dict[int, Repetition]]
    start: Machine | None = None


#: What was compiled last, by the identities of the program's parts, memory model and skipping, and the bytes up to which arrays
#: are kept.
_kept: dict[tuple[int, int, str, bool], _Compiled] = {}
_MOST_KEPT, _KEPT_BYTES = 16, 2**21


def _compiled(program: Program, options: EngineOptions) -> _Compiled:
    """A program's tables; those of the last few are kept, since a program is often run again and again, on this chip or on one
    for which it is lowered alike."""
    key = id(program.aic), id(program.aiv), options.memory, options.skip
    found = _kept.pop(key, None)
    if found is None or found.program.addresses != program.addresses:
        found = _newly_compiled(program, options)
    elif found.program.chip is not program.chip:
        if found.timings is None and lowered_alike(found.program.chip, program.chip):
            start = None if found.start is None else retuned(found.start, program, found.tables, found.capacities)
            found = replace(found, program=program, start=start)
        else:
            found = _newly_compiled(program, options)
    # What is kept holds the program, so that the identities of its parts are not given to others.
    _kept[key] = found
    for old in list(_kept)[:-_MOST_KEPT]:
        _kept.pop(old, None)
    return found


def _newly_compiled(program: Program, options: EngineOptions) -> _Compiled:
    check_signals(program)
    tables = [part_table(program, part) for part in program.parts]
    repetitions: list[dict[int, Repetition]] = []
    for table in tables:
        known = {number: repetition(table, number) for number in range(len(table.loops))} if options.skip else {}
        repetitions.append({number: item for number, item in known.items() if item is not None})
    timings = BankedTimings.of(program.chip) if options.memory == "banked" else None
    capacities = Capacities.of(tables, program.chip.memory.chunk_bytes)
    return _Compiled(program, tables, timings, capacities, repetitions)


class _Run:
    """One program under simulation."""

    def __init__(self, compiled: _Compiled, options: EngineOptions, first_l2: L2State | None) -> None:
        self.first_l2, self.compiled = first_l2, compiled
        self.program, self.tables, self.options = compiled.program, compiled.tables, options
        self.timings, self.repetitions = compiled.timings, compiled.repetitions
        self.units = Units(self.program.kernel.cores, self.program.kernel.aiv_per_core)
        self.capacities = replace(compiled.capacities)
        self.machine: Machine

    def simulate(self, first_rows: list[int] | None) -> np.ndarray:
        """Run the machine from the beginning; ``first_rows``, a row number for each pipe, asks for the timeline."""
        run = _compiled_run()
        while True:
            self.machine = machine = self._start(recording=first_rows is not None)
            rows = np.zeros((0, len(TIMELINE_COLUMNS)), np.int64)
            if first_rows is not None:
                rows = np.empty((first_rows[-1], len(TIMELINE_COLUMNS)), np.int64)
                machine.S[at.G_RECORDING] = first_rows[-1] + 1
                for unit in range(self.units.count):
                    for pipe in range(MAX_PIPES):
                        machine.S[machine.pipe_bases[unit] + pipe * at.P_SIZE + at.P_ROW] = first_rows[unit * MAX_PIPES + pipe]
            self.l2 = Arrays(machine, l2_geometry(self.program.chip), self.first_l2)
            while machine.S[at.G_STAGE] != at.ENDED:
                run(machine.C, machine.S, machine.T, rows, *self.l2.arrays)
            status = int(machine.S[at.G_STATUS])
            if status not in (at.RING_FULL, at.WINDOW_FULL, at.QUEUE_FULL):
                break
            self.l2.release()
            self.capacities.grow(status)
        if self.capacities != self.compiled.capacities:
            self.compiled.start, self.compiled.capacities = None, self.capacities
        self._check(status)
        return rows

    def _start(self, recording: bool) -> Machine:
        """The arrays at cycle 0."""
        compiled = self.compiled
        # A timeline has every instruction.
        skipping = [{} for _ in self.tables] if recording else self.repetitions
        usual = not recording and self.first_l2 is None and self.capacities == compiled.capacities
        machine = compiled.start if usual else None
        if machine is None:
            machine = Builder(self.program, self.tables, self.capacities, self.timings, skipping, self.first_l2).build()
            if not usual or machine.S.nbytes > _KEPT_BYTES:
                return machine
            compiled.start = machine
        return replace(machine, S=machine.S.copy(), T=first_books(len(machine.T)))

    def timeline(self) -> dict[str, np.ndarray]:
        """Every instruction, from a second run: the first one has counted the rows of each pipe."""
        counts = np.zeros((self.units.count, MAX_PIPES), np.int64)
        for number, table in enumerate(self.tables):
            executed = self._books(number)[:, :, at.BOOK_EXECUTED]
            for pipe in range(MAX_PIPES):
                counts[self._units_of(number), pipe] = executed[:, table.pipes == pipe].sum(axis=1)
        self.l2.release()
        return in_time_order(self.simulate([0, *np.cumsum(counts).tolist()]))

    def accounted(self) -> np.ndarray:
        """By unit and pipe, up to where its cycles are accounted for: its last completion; for the scalar unit its last
        dispatch."""
        machine = self.machine
        pipes = np.array(machine.pipe_bases)
        accounted: np.ndarray = machine.S[pipes[:, None] + np.arange(MAX_PIPES) * at.P_SIZE + at.P_DONE]
        accounted[:, 0] = machine.S[np.array(machine.unit_bases) + at.U_TIME]
        return accounted

    def record(self, timeline: dict[str, np.ndarray] | None) -> RunRecord:
        """The books as the reports read them."""
        machine, kernel, accounted = self.machine, self.program.kernel, self.accounted()
        cycles = int(accounted.max(initial=0))
        totals = np.zeros((self.units.count, MAX_PIPES, len(CATEGORIES)), np.int64)
        instr_totals: dict[str, np.ndarray] = {}
        instructions = flags_only = 0
        for number, table in enumerate(self.tables):
            units, spent = self._units_of(number), self._books(number).copy()
            executed = spent[:, :, at.BOOK_EXECUTED].copy()
            spent[:, :, DRAINED] = 0
            for pipe in range(1, len(table.part.pipes)):
                totals[units, pipe] = spent[:, table.pipes == pipe].sum(axis=1)
            totals[units, 0, BUSY] = executed @ table.column(at.I_COST)
            totals[units, 0, WAIT_ISSUE] = accounted[units, 0] - totals[units, 0, BUSY]
            totals[units, : len(table.part.pipes), DRAINED] = cycles - accounted[units, : len(table.part.pipes)]
            instr_totals[table.part.name] = spent.sum(axis=0)
            instructions += int(executed[:, table.is_op].sum())
            flags_only += int(executed[:, ~table.is_op].sum())
        bandwidth = machine.T[at.T_BANDWIDTH :][: INTERVALS * len(TRAFFIC)].reshape(INTERVALS, len(TRAFFIC)).T.copy()
        traffic = machine.T[machine.traffic :][: len(kernel.tensors) * len(TRAFFIC)].reshape(-1, len(TRAFFIC)).copy()
        skipped = int(machine.S[at.G_SKIPPED])
        record = RunRecord(
            self.program, cycles, instructions, flags_only, totals, instr_totals,
            {table.part.name: machine.T[start:][: len(table.part.semaphores)].copy()
             for table, start in zip(self.tables, machine.semaphore_waits, strict=True)},
            {table.part.name: machine.T[start:][: len(kernel.signals)].copy()
             for table, start in zip(self.tables, machine.signal_waits, strict=True)},
            traffic, self.l2.dirty_lines() * self.program.chip.l2.line_bytes,
            Bandwidth(1 << int(machine.T[at.T_INTERVAL_SHIFT]), bandwidth), timeline, engine="fast",
            skipped_iterations=skipped, skip_reason=self._why_not() if not skipped else "", notes=self._notes(cycles),
            l2=None if self.first_l2 is None else self.l2.state(),
        )
        record.assert_coverage()
        return record

    def _why_not(self) -> str:
        """Why no iteration was skipped."""
        if not self.options.skip:
            return "skipping is switched off"
        if self.options.record_timeline:
            return "every instruction is recorded"
        if not any(self.repetitions):
            return ("no long loop stays inside a core; the others depend on what all cores ask of L2 and HBM, which seldom "
                    "comes back to an earlier state")
        return "no loop came back to an earlier state for long enough"

    def _notes(self, cycles: int) -> dict[str, object]:
        """What the memory's banks did, where they are simulated."""
        if self.timings is None:
            return {}
        return {"hbm": banked_layout.counters(self.timings, self.machine.C, self.machine.S).to_json(self.timings, cycles)}

    def _table(self, unit: int) -> PartTable:
        return self.tables[0 if self.units.part(unit) == "AIC" else 1]

    def _units_of(self, number: int) -> np.ndarray:
        """The units that run part ``number``."""
        return np.array(self.units.of_part(self.tables[number].part.name), np.intp)

    def _books(self, number: int) -> np.ndarray:
        """Categories by unit and instruction of part ``number``."""
        units, count = self._units_of(number), len(self.tables[number].instrs)
        starts = np.array(self.machine.unit_books, np.intp)[units]
        words = self.machine.T[starts[:, None] + np.arange(count * at.CATEGORY_COUNT)]
        return words.reshape(len(units), count, at.CATEGORY_COUNT)

    def _pipe(self, unit: int, pipe: int, column: int) -> int:
        return int(self.machine.S[self.machine.pipe_bases[unit] + pipe * at.P_SIZE + column])

    # How a run ended

    def _check(self, status: int) -> None:
        """Raise what went wrong."""
        kernel, chip = self.program.kernel, self.program.chip
        if status == at.TIME_LIMIT:
            limit = int(self.machine.S[at.G_DETAIL])
            raise InputError(f"kernel '{kernel.name}' runs beyond cycle {limit}, the last to which the fast engine counts the "
                             f"rates of chip '{chip.name}' exactly; give rates with fewer digits or use engine 'reference'")
        if status == at.OUTSIDE_GM:
            raise KernelError(f"instruction {int(self.machine.S[at.G_DETAIL])} of kernel '{kernel.name}' reaches outside of "
                              f"the kernel's tensors; keep its slice inside")
        if status == at.UNCOUNTED:
            raise InvariantError(f"kernel '{kernel.name}' has more instructions than were counted; please report it")
        if self._unfinished():
            raise Deadlock(self._who_waits())

    def _unfinished(self) -> bool:
        S, C = self.machine.S, self.machine.C
        at_end = C[S[np.array(self.machine.unit_bases) + at.U_PC]] == at.CODE_END
        pipes = np.array(self.machine.pipe_bases)[:, None] + np.arange(MAX_PIPES) * at.P_SIZE
        return not at_end.all() or bool(S[pipes + at.P_COUNT].any())

    def _who_waits(self) -> str:
        stuck = []
        latest = int(self.machine.S[at.G_LAST_SIGNAL])
        for unit in range(self.units.count):
            table = self._table(unit)
            latest = max(latest, self._scalar_reaches(unit), *(self._pipe(unit, pipe, at.P_DONE) for pipe in range(MAX_PIPES)))
            stuck += [f"{self.units.pipe_name(unit, pipe)} waits for {self._missing(unit, pipe)}"
                      for pipe in range(1, len(table.part.pipes)) if self._pipe(unit, pipe, at.P_COUNT)]
        shown = "; ".join(stuck[:4]) + (f"; and {len(stuck) - 4} more" if len(stuck) > 4 else "")
        return f"the kernel '{self.program.kernel.name}' deadlocks at cycle {latest}: {shown or 'nothing can run'}"

    def _scalar_reaches(self, unit: int) -> int:
        """The cycle at which a unit's scalar unit stopped: an instruction that found its queue full has been issued."""
        S, C, base = self.machine.S, self.machine.C, self.machine.unit_bases[unit]
        time, pc = int(S[base + at.U_TIME]), int(S[base + at.U_PC])
        return time + int(C[C[pc + 1] + at.I_COST]) if C[pc] == at.CODE_INSTR else time

    def _missing(self, unit: int, pipe: int) -> str:
        """What the first instruction in a pipe's queue has not got."""
        S, C, base = self.machine.S, self.machine.C, self.machine.unit_bases[unit]
        part = self._table(unit).part
        words = int(S[self._pipe(unit, pipe, at.P_HEAD) + at.Q_INSTR])
        instr = self._table(unit).instructions[int(C[words + at.I_INDEX])]
        for index, number in enumerate(instr.waits):
            ring = base + int(C[C[words + at.I_WAITS] + 2 * index])
            if S[ring + at.R_HEAD] == S[ring + at.R_TAIL]:
                return f"{part.semaphores[number].source} on buffer '{part.semaphores[number].buffer}'"
        if instr.unit is not None:
            return f"{part.semaphores[instr.unit.takes].source} on buffer '{part.semaphores[instr.unit.takes].buffer}'"
        assert instr.signal is not None
        return f"signal '{self.program.kernel.signals[instr.signal[1]].name}'"

