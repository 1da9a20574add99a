"""What "the engines agree" means: every field of the record and every row of the timeline."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from msdsim.engine import EngineOptions, empty_l2, load_engine
from msdsim.errors import Deadlock
from msdsim.ir.program import Program
from msdsim.timeline.l2_state import L2State
from msdsim.timeline.record import RunRecord

#: Fields that say how a record was made and not what happened.
_ABOUT = {"program", "engine", "skipped_iterations", "skip_reason", "notes"}


@dataclass(frozen=True)
class Refused:
    """A run that ended in a deadlock, with the message."""

    message: str


def run(program: Program, engine: str, timeline: bool = True, skip: bool = True, memory: str = "bandwidth",
        l2: L2State | None = None) -> RunRecord | Refused:
    """The record of a run, or how it deadlocked."""
    try:
        return load_engine(engine).run(program, EngineOptions(record_timeline=timeline, skip=skip, memory=memory), l2)
    except Deadlock as err:
        return Refused(str(err))


def assert_equal(expected: object, found: object, where: str = "") -> None:
    """Two values of a record are equal, whatever they are made of."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray), where
        assert (expected.shape, expected.dtype) == (found.shape, found.dtype), where
        if not np.array_equal(expected, found):
            at = tuple(np.argwhere(expected != found)[0].tolist())
            raise AssertionError(f"{where}{list(at)}: {expected[at]} in the reference, {found[at]} here")
    elif isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert list(expected) == list(found), where
        for key in expected:
            assert_equal(expected[key], found[key], f"{where}.{key}")
    elif hasattr(expected, "__dataclass_fields__"):
        assert type(expected) is type(found), where
        for item in fields(expected):  # type: ignore[arg-type]
            assert_equal(getattr(expected, item.name), getattr(found, item.name), f"{where}.{item.name}")
    else:
        assert expected == found, f"{where}: {expected} in the reference, {found} here"


def assert_same(expected: RunRecord | Refused, found: RunRecord | Refused) -> None:
    """The same cycles, totals, waits, traffic, bandwidth and timeline; or the same deadlock."""
    if isinstance(expected, Refused) or isinstance(found, Refused):
        assert expected == found
        return
    for item in fields(RunRecord):
        if item.name not in _ABOUT:
            assert_equal(getattr(expected, item.name), getattr(found, item.name), item.name)


def assert_engines_agree(program: Program, memory: str = "bandwidth") -> RunRecord | Refused:
    """The reference engine and the fast engine say the same, the latter with every row of the timeline and, without it,
    with and without skipping; returns what they say."""
    expected = run(program, "reference", memory=memory)
    assert_same(expected, run(program, "fast", memory=memory))
    if isinstance(expected, RunRecord):
        expected = replace(expected, timeline=None)
    for skip in (True, False):
        assert_same(expected, run(program, "fast", timeline=False, skip=skip, memory=memory))
    return expected


def assert_engines_hand_on(programs: list[Program], memory: str = "bandwidth") -> list[RunRecord]:
    """The engines agree on programs that run one after the other, also on what each leaves in L2; what they say, up to the first
    deadlock."""
    state, found = empty_l2(programs[0].chip), []
    for program in programs:
        expected = run(program, "reference", memory=memory, l2=state)
        assert_same(expected, run(program, "fast", memory=memory, l2=state))
        if isinstance(expected, Refused):
            break
        found.append(expected)
        assert expected.l2 is not None
        state = expected.l2
    return found
