"""Whether a schedule is still the recorded one, within what limits, and the one line that says what became of it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from msdsim.errors import InputError
from msdsim.schedules.causes import Cause, LineChange, find_cause, line_changes
from msdsim.schedules.difference import Difference, differences
from msdsim.schedules.schedule import Schedule

#: Numbers of a chip that are named.
_MOST_NUMBERS = 6

#: Differences of what was asked for, and of pinned numbers, that no tolerance of time forgives.
_NEVER_FORGIVEN = ("problem", "dataflow", "memory", "warm", "hw", "override", "numbers")


@dataclass(frozen=True)
class Limits:
    """What a schedule may do without being another one.  By default nothing: every value counts.

    ``tolerance`` is the share by which its cycles may differ either way, ``max_slowdown`` that by which they may grow (less is
    always good then); with one of them, or with ``cycles_only``, categories, traffic and the kernel's text do not count.
    """

    tolerance: float | None = None
    max_slowdown: float | None = None
    cycles_only: bool = False

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.tolerance), ("max_slowdown", self.max_slowdown)):
            if value is not None and not (0 <= value < math.inf):
                raise InputError(f"{name} {value} is not a share of at least 0; give for example 0.02 or 2%")

    @property
    def exact(self) -> bool:
        """Whether every value counts."""
        return self.tolerance is None and self.max_slowdown is None and not self.cycles_only

    def allow(self, before: int, after: int) -> bool:
        """Whether these cycles are near enough."""
        if self.tolerance is None and self.max_slowdown is None:
            return before == after
        grown = (after - before) / before if before else float(after != before)
        return (self.tolerance is None or abs(grown) <= self.tolerance) and \
            (self.max_slowdown is None or grown <= self.max_slowdown)

    def to_json(self) -> dict[str, Any]:
        """Every limit by its name; null for one that is not set."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{text} {100 * value:g}%" for text, value in (("tolerance", self.tolerance),
                                                                ("most slowdown", self.max_slowdown)) if value is not None]
        return ", ".join(parts) or ("cycles only" if self.cycles_only else "exact")


def read_share(value: float | str | None, what: str) -> float | None:
    """A share from ``0.02`` or ``"2%"``; InputError for anything else."""
    if value is None or isinstance(value, int | float):
        return value
    text = value.strip()
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise InputError(f"{what} '{value}' is not a share; give for example 2% or 0.02") from None


@dataclass(frozen=True)
class Verdict:
    """A schedule beside the recorded one.

    ``differences`` are all values that differ, ``changed`` what made them differ (request, tiling, kernel, chip, engine) with
    words, ``kernel_diff`` the lines of the kernel's text, ``lines`` those whose cycles changed most.
    """

    before: Schedule
    after: Schedule
    limits: Limits
    differences: tuple[Difference, ...]
    changed: tuple[tuple[str, str], ...]
    kernel_diff: tuple[str, ...]
    lines: tuple[LineChange, ...]
    cause: Cause | None

    @property
    def same(self) -> bool:
        return not self.differences

    @property
    def count(self) -> int:
        """How many values differ."""
        return len(self.differences)

    @property
    def good(self) -> bool:
        """Whether it is within the limits."""
        if self.limits.exact:
            return self.same
        return self.as_asked and self.limits.allow(self.before.cycles, self.after.cycles)

    @property
    def as_asked(self) -> bool:
        """Whether the request and the pinned numbers are the recorded ones."""
        return not any(item.what.split(" ")[0] in _NEVER_FORGIVEN for item in self.differences)

    @property
    def headline(self) -> str:
        """What a person wants to know, in one line."""
        before, after = self.before.cycles, self.after.cycles
        if self.same:
            return f"{after:,} cycles, the same schedule"
        if before != after:
            share = f" ({100 * (after - before) / before:+.1f}%)" if before else ""
            reason = f": {self.cause.sentence}" if self.cause else ""
            return f"{before:,} -> {after:,} cycles{share}{reason}"
        if self.before.numbers and self.after.numbers and self.before.numbers != self.after.numbers:
            return f"{after:,} cycles as before, but the numbers are others"
        if self.cause:
            return f"{after:,} cycles as before, for other reasons: {self.cause.sentence}"
        return f"{after:,} cycles as before; what differs is {', '.join(name for name, _ in self.changed) or 'traffic'}"

    def to_json(self) -> dict[str, Any]:
        """Figures as numbers; ``differences`` have the words of the tables beside them."""
        before, after = self.before.cycles, self.after.cycles
        return {
            "status": "same" if self.same else "within" if self.good else "differs", "headline": self.headline,
            "cycles": {"before": before, "after": after, "change": (after - before) / before if before else None},
            "limits": self.limits.to_json(),
            "version": {"before": self.before.msdsim, "after": self.after.msdsim},
            "changed": [{"what": what, "how": how} for what, how in self.changed],
            "cause": None if self.cause is None else self.cause.to_json(),
            "lines": [item.to_json() for item in self.lines], "kernel_diff": list(self.kernel_diff),
            "differences": [item.to_json() for item in self.differences],
        }


def judge(before: Schedule, after: Schedule, limits: Limits | None = None,
          recorded_kernel_cycles: int | None = None) -> Verdict:
    """Lay a schedule beside the recorded one; ``recorded_kernel_cycles`` are those of the recorded kernel where the later one
    ran, which tells how much of the change is the kernel's."""
    found = tuple(differences(before, after))
    diff = tuple(_diff(before.kernel, after.kernel)) if before.kernel and before.kernel_sha256 != after.kernel_sha256 else ()
    changed = tuple(_changed(before, after, found, diff, recorded_kernel_cycles))
    return Verdict(before, after, limits or Limits(), found, changed, diff, tuple(line_changes(before, after)) if found else (),
                   find_cause(before, after) if found else None)


def _diff(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    """A unified diff without file names, one line of context; comments do not count."""
    old, new = ([line.partition("#")[0].rstrip() for line in text] for text in (before, after))
    return iter(list(difflib.unified_diff(old, new, lineterm="", n=1))[2:])


def _changed(before: Schedule, after: Schedule, found: Sequence[Difference], diff: Sequence[str],
             kernel_cycles: int | None) -> Iterator[tuple[str, str]]:
    """What is another one now, each with how; figures that moved under none of them are the engine's doing."""
    asked = [item for item in found if item.what.split(" ")[0] in ("problem", "dataflow", "memory", "warm", "hw", "override")]
    if asked:
        yield "request", "; ".join(f"{item.what} {item.before} -> {item.after}" for item in asked)
    tiling = _of(found, "tiling ")
    if tiling:
        yield "tiling", ", ".join(tiling)
    kernel, chip = before.kernel_sha256 != after.kernel_sha256, before.chip_sha256 != after.chip_sha256
    if kernel:
        added, removed = sum(line[:1] == "+" for line in diff), sum(line[:1] == "-" for line in diff)
        own = f", {after.cycles - kernel_cycles:+,} cycles" if kernel_cycles is not None else ""
        yield "kernel", (f"+{added} -{removed} lines" if diff else "another text") + own
    if chip:
        yield "chip", _numbers_of_chip(_of(found, "chip ", but="chip numbers"))
    moved = kernel_cycles is not None and kernel_cycles != before.cycles
    if not asked and not chip and (moved or (not kernel and any(item.figure for item in found))):
        rest = f", {kernel_cycles - before.cycles:+,} cycles with the recorded kernel" if kernel and kernel_cycles else ""
        yield "engine", f"the same kernel on the same chip runs otherwise ({_version(before, after)}){rest}"


def _of(found: Sequence[Difference], start: str, but: str = "") -> list[str]:
    """Differences whose name starts so, without the start."""
    return [f"{item.what.removeprefix(start)} {item.before} -> {item.after}" for item in found
            if item.what.startswith(start) and item.what != but]


def _numbers_of_chip(numbers: Sequence[str]) -> str:
    more = f" and {len(numbers) - _MOST_NUMBERS} more" if len(numbers) > _MOST_NUMBERS else ""
    return ", ".join(numbers[:_MOST_NUMBERS]) + more or "its numbers are others now"


def _version(before: Schedule, after: Schedule) -> str:
    return f"msdsim {before.msdsim} -> {after.msdsim}" if before.msdsim != after.msdsim else f"msdsim {after.msdsim}"
