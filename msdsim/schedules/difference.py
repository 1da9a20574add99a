"""Where two schedules differ, in words and figures that a review can be held with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msdsim.schedules.schedule import Schedule

_HASH_DIGITS = 12


@dataclass(frozen=True)
class Difference:
    """One value that differs; ``change`` is its size, or what a changed mark means, ``figure`` both numbers of a count."""

    what: str
    before: str
    after: str
    change: str = ""
    figure: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Its words and, of a figure, the numbers."""
        words = {"what": self.what, "before": self.before, "after": self.after, "change": self.change}
        return words if self.figure is None else words | {"values": list(self.figure)}


def differences(before: Schedule, after: Schedule) -> list[Difference]:
    """Everything that differs, what causes schedules to change first: request, chip, tiling, kernel, then what happened."""
    return [*_request(before, after), *_marks(before, after), *_figures(before, after)]


def _request(before: Schedule, after: Schedule) -> Iterator[Difference]:
    for name in ("problem", "dataflow", "memory", "warm", "hw"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield Difference(name, _text(old), _text(new))
    yield from _values("override", before.overrides, after.overrides)


def _marks(before: Schedule, after: Schedule) -> Iterator[Difference]:
    if before.chip_sha256 != after.chip_sha256:
        yield Difference("chip numbers", before.chip_sha256[:_HASH_DIGITS], after.chip_sha256[:_HASH_DIGITS],
                         f"the numbers of '{after.hw}' are others now")
        if before.chip and after.chip:
            yield from _values("chip", before.chip, after.chip)
    yield from _values("tiling", before.tiling, after.tiling)
    if before.kernel_sha256 != after.kernel_sha256:
        yield Difference("kernel text", before.kernel_sha256[:_HASH_DIGITS], after.kernel_sha256[:_HASH_DIGITS],
                         "the kernel is another one" if before.kernel else "the kernel is another one ('msdsim ir' prints it)")
    if before.numbers != after.numbers:
        what = "the outputs are others now" if before.numbers and after.numbers else "pinned in one of them"
        yield Difference("numbers", _numbers(before.numbers), _numbers(after.numbers), what)


def _figures(before: Schedule, after: Schedule) -> Iterator[Difference]:
    for name in ("cycles", "instructions"):
        yield from _count(name, getattr(before, name), getattr(after, name))
    for pipe in dict.fromkeys([*before.pipes, *after.pipes]):
        old, new = before.pipes.get(pipe, {}), after.pipes.get(pipe, {})
        for category in dict.fromkeys([*old, *new]):
            yield from _count(f"{pipe} {category}", old.get(category, 0), new.get(category, 0))
    for name in dict.fromkeys([*before.traffic, *after.traffic]):
        yield from _count(f"traffic {name}", before.traffic.get(name, 0), after.traffic.get(name, 0))


def changed_choice(recorded: Schedule, now: Mapping[str, int]) -> list[Difference]:
    """Where the tiling that would be chosen ``now`` is not the recorded one."""
    return list(_values("tiling", recorded.tiling, now))


def _values(what: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[Difference]:
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            yield Difference(f"{what} {key}", _text(before.get(key)), _text(after.get(key)))


def _count(what: str, before: int, after: int) -> Iterator[Difference]:
    if before != after:
        share = f" ({100 * (after - before) / before:+.2f}%)" if before else ""
        yield Difference(what, f"{before:,}", f"{after:,}", f"{after - before:+,}{share}", (before, after))


def _numbers(numbers: Mapping[str, Any]) -> str:
    """Pinned numbers, short enough for a table."""
    outputs = " ".join(f"{name} {mark[:_HASH_DIGITS]}" for name, mark in numbers.get("outputs_sha256", {}).items())
    return outputs + ("" if numbers.get("bit_exact", True) else " (not bit-exact)") or "(none)"


def _text(value: object) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)
