"""The search for a tiling: a dataflow's table of candidates, ranked by one estimate, and the fast engine as judge of the first.

The same search with a wider table and more judging is the tuner's.  Everything in it is bounded by counts, never by time, so
that the same problem on the same chip always gets the same tiling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from msdsim.dataflows.base import Dataflow, TilingValues, current_keys
from msdsim.engine.fast import FastEngine
from msdsim.errors import InputError, TilingError
from msdsim.garbage import uncollected
from msdsim.hardware.chip import Chip
from msdsim.ir.declarations import check_declarations
from msdsim.ir.lets import unnamed
from msdsim.ir.lower import lower, lowered_alike
from msdsim.ir.placement import Placement
from msdsim.ir.program import Program
from msdsim.ir.verify import check_kernel
from msdsim.registry import Registry
from msdsim.tilings.estimate import Phase
from msdsim.tilings.shorter import shorter
from msdsim.tilings.space import Column, Space
from msdsim.tilings.turns import Effort, Turns


class Statement(Protocol):
    """What a dataflow says about its tilings of one problem on one chip."""

    def fill(self, s: Space) -> None:
        """Fill the table of candidates; TilingError where nothing fits."""
        ...

    def phases(self, s: Space) -> list[Phase]:
        """What every candidate does, from one meeting of all cores to the next."""
        ...


#: Makes the statement of a problem on a chip.
Maker = Callable[[Any, Chip], Statement]

#: By kind of problem and name of the dataflow, ``gemm:bf16``.
STATEMENTS: Registry[Maker] = Registry("statement of a dataflow's tilings")


def declare(name: str, make: Maker, kind: str = "gemm") -> None:
    """``make`` states the tilings of the dataflow ``name``; one of GEMMs serves plain and grouped ones."""
    for each in ("gemm", "grouped_gemm") if kind == "gemm" else (kind,):
        STATEMENTS.add(f"{each}:{name}", make)


#: What choosing a tiling takes when nobody has asked for more.
QUICK = Effort(width=60, judged=20, patience=4, work=120e3)
#: Estimates that are far from the best.
_FAR = 1.4
#: Width of the table where nothing of a narrower one can be built.
_WIDEST = 600
#: Candidates for which there has to be time on a shorter problem.
_SEVERAL = 6
#: What is faster there by less may be slower on the problem itself.
_SURE = 0.97
#: Work of a statement of a kernel on its way to the engine, and of an instruction in it.
_PER_STATEMENT, _PER_INSTRUCTION = 60.0, 0.35


@dataclass(frozen=True)
class Choice:
    """A tiling and how it was found: candidates that were ranked, those that the engine has judged."""

    tiling: Any
    ranked: int = 0
    judged: int = 0
    #: What they were judged on, where the problem itself is too long.
    on: str = ""

    @property
    def how(self) -> str:
        """One clause for people; empty where there was nothing to choose."""
        if not self.ranked:
            return ""
        return f"first of {self.ranked} by estimate" if self.judged < 2 else \
            f"of {self.ranked} by estimate, the fastest of the first {self.judged}{self.on and f', judged on {self.on}'}"


def _ranked(stated: Callable[[Space], list[Phase]], s: Space) -> tuple[Column, Column]:
    """Estimated cycles and instructions of a core of every candidate."""
    phases = stated(s)
    instructions = sum(phase.instructions * phase.where for phase in phases)
    return np.sum([phase.cycles() for phase in phases], axis=0), np.broadcast_to(instructions, (s.count,))


def _estimated(stated: Callable[[Space], list[Phase]], s: Space, row: Mapping[str, int]) -> tuple[float, float]:
    """The same of one tiling with the keys of a table."""
    other = Space({}, lambda one: _ranked(stated, one), s.width)
    other.columns, other.count = {key: np.array([row[key]], np.int64) for key in s.columns}, 1
    cycles, instructions = other.rank(other)
    return float(cycles[0]), float(instructions[0])


def candidates(statement: Statement, given: Mapping[str, int], width: int) -> tuple[Space, Column, Column]:
    """The table of a dataflow, the best first, its estimated cycles and instructions of a core."""
    def rank(s: Space) -> tuple[Column, Column]:
        return _ranked(statement.phases, s)

    # On the smallest buffers only the statement's tightest values leave room.
    attempts = [{}, *getattr(statement, "tightest", ())]
    for tight in attempts:
        s = Space({**tight, **given}, rank, width)
        try:
            statement.fill(s)
            break
        except TilingError:
            if tight is attempts[-1]:
                raise
    cycles, instructions = s.narrow()
    order = np.argsort(cycles, kind="stable")
    s.keep(order)
    return s, cycles[order], instructions[order]


# A size of 0 that is given is refused when the tiling is built.
@np.errstate(divide="ignore", invalid="ignore")
@uncollected()
def search(dataflow: Dataflow, problem: Any, chip: Chip, given: Mapping[str, int], effort: Effort,
           tried: Callable[[Any, int], None] = lambda tiling, cycles: None) -> Choice:
    """The best tiling that ``effort`` finds; ``tried`` sees every judgement.  TilingError where nothing fits."""
    rings = {item.name: 1 for item in fields(dataflow.tiling) if item.name.endswith("_ring")}
    refusal: InputError | None = None
    # Where none of the first can be built: with few events single slots may, on small buffers others further down the table.
    for preset, width in (({}, effort.width), (rings, effort.width), ({}, _WIDEST)):
        statement = STATEMENTS[_name(dataflow)](problem, chip)
        try:
            s, cycles, instructions = candidates(statement, {**preset, **given}, width)
        except InputError:
            # Nothing fits, or what is given cannot be on this chip.
            continue
        turns = Turns(s, cycles, instructions, effort)
        choice = _judge(dataflow, problem, chip, turns, tried)
        if choice is not None:
            return choice
        refusal = refusal if preset == {} and refusal is not None else turns.refusal
    if refusal is not None and not given:
        raise TilingError(f"chip '{chip.name}' runs no tiling of '{dataflow.name}' for {problem}: "
                          f"{str(refusal).partition(';')[0]}; give it more of that")
    return _by_force(dataflow, problem, chip, given)


def _judge(dataflow: Dataflow, problem: Any, chip: Chip, turns: Turns, tried: Callable[[Any, int], None]) -> Choice | None:
    """The fastest of a table; None if none of the first can be built."""
    s, effort, done = turns.space, turns.effort, 0.0
    while (number := turns.next()) is not None:
        tiling = dataflow.tiling(**s.row(number))
        program = _or_refused(dataflow, problem, chip, turns, number, tiling)
        if program is None:
            continue
        work = _work(program, chip.cores.aic * float(turns.instructions[number]))
        done += work
        # The first needs no judge if there is no time for a second.
        if not turns.judged and (done + work > effort.work or effort.judged < 2):
            return _judge_shorter(dataflow, problem, chip, turns, tiling)
        turns.judged[number] = FastEngine().cycles(program)
        tried(tiling, turns.judged[number])
        if done + work > effort.work:
            break
    if not turns.judged:
        return None
    return Choice(dataflow.tiling(**s.row(turns.fastest)), s.ranked, len(turns.judged))


def _or_refused(dataflow: Dataflow, problem: Any, chip: Chip, turns: Turns, number: int, tiling: Any) -> Program | None:
    """The program of a row of the table; None, and its turn is over, where it cannot be built."""
    try:
        return _program(dataflow, problem, chip, tiling)
    except InputError as refusal:
        turns.refused.add(number)
        turns.refusal = refusal
        return None


def _judge_shorter(dataflow: Dataflow, problem: Any, chip: Chip, turns: Turns, first: Any) -> Choice:
    """The fastest on a shorter problem, times what the estimate says the real one takes longer; the first by estimate where
    there is none short enough."""
    s, effort, done = turns.space, turns.effort, 0.0
    if effort.judged < 2:
        return Choice(first, s.ranked)
    for short in shorter(problem, chip):
        phases = STATEMENTS[_name(dataflow)](short, chip).phases
        try:
            work = _work(_program(dataflow, short, chip, first), chip.cores.aic * _estimated(phases, s, asdict(first))[1])
        except InputError:
            continue
        if work * _SEVERAL <= effort.work:
            break
    else:
        return Choice(first, s.ranked)
    turns.both_paths()
    while done < effort.work and (number := turns.next()) is not None:
        program = _or_refused(dataflow, short, chip, turns, number, dataflow.tiling(**s.row(number)))
        if program is None:
            continue
        cycles, instructions = _estimated(phases, s, s.row(number))
        done += _work(program, chip.cores.aic * instructions)
        turns.judged[number] = round(FastEngine().cycles(program) * float(turns.cycles[number]) / cycles)
    # The first was legal for the problem, and stays where the difference is within what starts and ends of it may be.
    begin = next(iter(turns.judged.values()), 0)
    for number in sorted(turns.judged, key=lambda row: turns.judged[row]):
        if turns.judged[number] > _SURE * begin:
            return Choice(first, s.ranked, len(turns.judged), str(short))
        tiling = dataflow.tiling(**s.row(number))
        try:
            check_kernel(dataflow.build(problem, chip, tiling), chip)
            _program(dataflow, problem, chip, tiling)
        except InputError:
            continue
        return Choice(tiling, s.ranked, len(turns.judged), str(short))
    return Choice(first, s.ranked, len(turns.judged), str(short))


def shortlist(dataflow: Dataflow, problem: Any, chip: Chip, given: Mapping[str, int], width: int) -> list[dict[str, int]]:
    """Candidates of a table of that width as the search would have them judged, the most promising of every shape first."""
    if _name(dataflow) not in STATEMENTS:
        return []
    try:
        given = current_keys(dataflow.tiling, given)
        s, cycles, _ = candidates(STATEMENTS[_name(dataflow)](problem, chip), given, width)
    except TilingError:
        return []
    # The best of every shape first; those far from the best at last.
    far = cycles > cycles.min() * _FAR
    return [s.row(number) for number in np.lexsort((np.arange(s.count), s.turns(np.arange(s.count)) > 0, far)).tolist()]


def _name(dataflow: Dataflow) -> str:
    return f"{dataflow.kind}:{dataflow.name}"


def _program(dataflow: Dataflow, problem: Any, chip: Chip, tiling: Any) -> Program:
    """What the engine runs of a tiling, but for bank conflicts, which hardly tell tilings apart; InputError if it cannot be
    built.  The last ones are kept for chips that differ in what lowering does not ask."""
    key = dataflow, str(problem), tiling
    known = _LOWERED.pop(key, None)
    if known is None or not lowered_alike(known.chip, chip):
        known = _lowered(dataflow, problem, chip, tiling)
    _LOWERED[key] = found = known if known.chip is chip else replace(known, chip=chip)
    for old in list(_LOWERED)[:-_MOST_LOWERED]:
        _LOWERED.pop(old, None)
    return found


#: Programs that were judged last, the oldest first.
_LOWERED: dict[tuple[Dataflow, str, Any], Program] = {}
_MOST_LOWERED = 32


def _lowered(dataflow: Dataflow, problem: Any, chip: Chip, tiling: Any) -> Program:
    kernel = unnamed(dataflow.build(problem, chip, tiling))
    check_declarations(kernel, chip)
    return lower(kernel, chip, placement=Placement({}, {}))


def _work(program: Program, instructions: float) -> float:
    return sum(1 for part in program.parts for _ in part.instructions()) * _PER_STATEMENT + instructions * _PER_INSTRUCTION


def _by_force(dataflow: Dataflow, problem: Any, chip: Chip, given: Mapping[str, int]) -> Choice:
    """What the user has given in the tiling that would be chosen without it: legal, or refused by the builder in its words."""
    if not given:
        raise TilingError(f"chip '{chip.name}' has no room for any tiling of '{dataflow.name}' for {problem}; enlarge its "
                          f"buffers")
    return Choice(dataflow.tiling(**asdict(choose(dataflow, problem, chip).tiling) | dict(given)))


#: Choices by dataflow, problem, the chip's numbers and what was given; the oldest goes first.
_CHOSEN: OrderedDict[tuple[str, str, str, tuple[tuple[str, int], ...]], Choice] = OrderedDict()
_MOST_KEPT = 4096
#: Of a chip what no choice depends on: a kernel is judged from its first instruction on, in the plain memory model, and without
#: bank conflicts.
_NOT_READ: dict[str, Any] = {"name": True, "description": True, "energy": True, "launch": True, "hbm": {"banked"},
                            "vector": {"banks"}}


def choose(dataflow: Dataflow, problem: Any, chip: Chip, given: TilingValues | None = None) -> Choice:
    """The tiling of a dataflow: what is given, completed by the search.  TilingError for unknown keys, bad values and what
    cannot be built."""
    given = current_keys(dataflow.tiling, given or {})
    _check_given(dataflow, given)
    if len(given) == len(fields(dataflow.tiling)):
        return Choice(dataflow.tiling(**given))
    if dataflow.auto is not None:
        return Choice(dataflow.tiling(**asdict(dataflow.auto(problem, chip)) | given))
    if _name(dataflow) not in STATEMENTS:
        raise TilingError(f"dataflow '{dataflow.name}' does not say how its tiling is chosen: give it 'auto', or give all keys "
                          f"({', '.join(item.name for item in fields(dataflow.tiling))})")
    numbers = chip.model_dump_json(exclude=_NOT_READ)
    key = (_name(dataflow), str(problem), numbers, tuple(sorted(given.items())))
    if key not in _CHOSEN:
        _CHOSEN[key] = search(dataflow, problem, chip, given, QUICK)
        if len(_CHOSEN) > _MOST_KEPT:
            _CHOSEN.popitem(last=False)
    _CHOSEN.move_to_end(key)
    return _CHOSEN[key]


def _check_given(dataflow: Dataflow, given: Mapping[str, int]) -> None:
    known = [item.name for item in fields(dataflow.tiling)]
    for key, value in given.items():
        if key not in known:
            raise TilingError(f"dataflow '{dataflow.name}' has no tiling key '{key}' (keys: {', '.join(known)})")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TilingError(f"tiling {key}={value!r} is not a whole number of at least 0")


def choose_tiling(dataflow: Dataflow, problem: Any, chip: Chip, given: TilingValues | None = None) -> Any:
    """The tiling of :func:`choose` alone."""
    return choose(dataflow, problem, chip, given).tiling
