"""Which loops may come back to the same state, and what that state is; the compiled code that skips is in ``skip``.

A loop whose instructions all stay inside the core depends on nothing but its unit: on when its pipes are free and its queues
have places, on the tokens in its rings, and on the registers that its instructions read.  When an iteration ends with all of
it as an earlier iteration left it, relative to the scalar unit's clock, and the registers keep their values, then everything in
between happens again and again until they change.  Iterations that move data to or from GM or raise or await signals depend
on other cores too, and on L2; they are always simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

from msdsim.engine.fast import layout as at
from msdsim.engine.fast.tables import LoopTable, PartTable

#: A loop of fewer iterations is not worth remembering.
FEWEST_TRIPS = 32


@dataclass(frozen=True)
class Repetition:
    """What an iteration of a loop depends on: pipes and semaphores of its unit by number, and registers.

    ``ranges`` is a program that computes the range of each register of the loop from a range of its variable
    (layout.RANGE_WORDS), ``watched`` are the places of those that must keep their values.
    """

    loop: LoopTable
    pipes: list[int]
    semaphores: list[int]
    ranges: list[list[int]]
    watched: list[int]

    @property
    def places(self) -> int:
        """Registers that have a range."""
        return 1 + len(self.ranges)


def repetition(table: PartTable, number: int) -> Repetition | None:
    """What loop ``number`` depends on, or None if its iterations must all be simulated."""
    loop = table.loops[number]
    instrs = table.instrs[loop.first : loop.last]
    if loop.most_trips < FEWEST_TRIPS or any(
            words[at.I_KIND] == at.TRANSFER or words[at.I_SIGNAL_KIND] != at.NO_SIGNAL for words in instrs):
        return None
    operations = _operations(table, number)
    places = {loop.var.number: 0} | {target: place for place, (_, target, *_) in enumerate(operations, start=1)}
    watched = sorted({places[register] for register in _read_inside(table, number) if register in places})
    if 0 in watched:
        return None
    instructions = table.instructions[loop.first : loop.last]
    return Repetition(
        loop, sorted({words[at.I_PIPE] for words in instrs}),
        sorted({semaphore for instr in instructions for semaphore in (*instr.waits, *instr.posts)}),
        [_range_operation(table, words, places) for words in operations] if watched else [], watched,
    )


def _operations(table: PartTable, number: int) -> list[list[int]]:
    """The register operations that run when the loop steps."""
    words = table.segments[number].words
    return [words[start : start + at.OP_WORDS] for start in range(0, len(words), at.OP_WORDS)]


def _read_inside(table: PartTable, number: int) -> set[int]:
    """Registers that the loop's instructions and the loops inside of it read."""
    loop = table.loops[number]
    found = {words[column] for words in table.instrs[loop.first : loop.last]
             for column in (at.I_BARRIER, at.I_V0, at.I_V1, at.I_V2)}
    for inner in loop.inner:
        found |= {table.loops[inner].low.number, table.loops[inner].high.number} | _read_inside(table, inner)
        for _, target, *_ in _operations(table, inner):
            found |= set(table.registers.inputs[target])
    return found


def _range_operation(table: PartTable, words: list[int], places: dict[int, int]) -> list[int]:
    """A register operation on ranges.  Registers of the loops around have one value; they stay registers."""
    operator, target, left, right = words
    if operator == at.OP_WORK:
        inside = [places[register] for register in table.registers.inputs[target] if register in places]
        return [operator, places[target], target, len(inside), *inside]
    found = [operator, places[target]]
    for register in (left, right):
        found += [0, places[register]] if register in places else [1, register]
    return found
