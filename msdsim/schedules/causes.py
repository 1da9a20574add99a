"""Why one schedule takes another time than an earlier one: which pipe waits for what, in which line, and lines by cycles."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msdsim.schedules.schedule import Schedule

#: A pipe that waits for data mostly shows what another pipe does not deliver; one that waits for room, memory or dispatch, or
#: that works longer, is nearer to the reason.
_WEIGHT = {"busy": 1.5, "head": 1.0, "wait_buffer": 1.0, "wait_memory": 1.0, "wait_issue": 1.0, "wait_sync": 0.8,
           "wait_data": 0.6}
#: What did not happen at all before says more than what happens longer.
_NEW = 2.0
_MOST_LINES = 8
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Cause:
    """Cycles of a pipe (mean over its instances) that one thing took before and takes after; ``line`` is the later one's, or
    the earlier one's where it is gone (0: not known)."""

    pipe: str
    category: str
    what: str
    by: str
    line: int
    before: float
    after: float

    @property
    def sentence(self) -> str:
        """``AIC MTE2 now waits for b1, held by MTE1, line 19``."""
        pipe = self.pipe.upper().replace(".", " ")
        where = f", line {self.line}" if self.line else ""
        if self.category in ("busy", "head"):
            verb = "works" if self.category == "busy" else "spends on starting instructions"
            return f"{pipe} {verb} {_amount(self.before, self.after)}{where}"
        if self.before < 0.5:
            verb = "now waits"
        elif self.after < 0.5:
            verb = "no longer waits"
        else:
            verb = f"waits {_amount(self.before, self.after)}"
        return f"{pipe} {verb} for {self._thing}{where}"

    @property
    def _thing(self) -> str:
        if not self.what:
            return {"wait_data": "data", "wait_buffer": "a free buffer", "wait_sync": "a signal", "wait_memory": "memory",
                    "wait_issue": "dispatch"}[self.category]
        return {"wait_data": f"{self.what} from {self.by}", "wait_buffer": f"{self.what}, held by {self.by}",
                "wait_sync": f"signal {self.what} from {self.by}", "wait_memory": f"memory with {self.what}",
                "wait_issue": "dispatch by S"}[self.category]

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def _amount(before: float, after: float) -> str:
    return f"{abs(after - before):,.0f} cycles {'longer' if after > before else 'less'}"


def find_cause(before: Schedule, after: Schedule) -> Cause | None:
    """What explains most of a change of time; at equal time, the largest change of what is waited for.  None where no pipe
    does anything else."""
    named = bool(before.lines and after.lines)
    old, new = _spent(before, named), _spent(after, named)
    change = after.cycles - before.cycles
    best: tuple[float, Cause] | None = None
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key, (0.0, 0)), new.get(key, (0.0, 0))
        delta = now[0] - was[0]
        if abs(delta) < 0.5 or delta * change < 0:
            continue
        appeared = key[1].startswith("wait") and (was[0] < 0.5 or now[0] < 0.5)
        # A pipe that had almost nothing to wait for is no reason for more than the change itself.
        score = min(abs(delta), abs(change) or abs(delta)) * _WEIGHT[key[1]] * (_NEW if appeared else 1.0)
        if best is None or score > best[0]:
            best = score, Cause(*key, now[1] if now[0] >= 0.5 else was[1], was[0], now[0])
    return None if best is None else best[1]


def _spent(schedule: Schedule, named: bool) -> dict[Key, tuple[float, int]]:
    """Mean cycles of a pipe by category and what was waited for, and the line with most of them."""
    instances = {pipe: row["instances"] for pipe, row in schedule.pipes.items()}
    if not named:
        return {(pipe, category, "", ""): (value / instances[pipe], 0) for pipe, row in schedule.pipes.items()
                for category, value in row.items() if category in _WEIGHT}
    sums: dict[Key, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in schedule.lines:
        for category in ("busy", "head"):
            sums[row.pipe, category, "", ""][row.line] += row.cycles.get(category, 0)
        for stall in row.stalls:
            sums[row.pipe, stall.category, stall.what, stall.by][row.line] += stall.cycles
    return {key: (sum(lines.values()) / instances[key[0]], max(lines, key=lambda line: (lines[line], -line)))
            for key, lines in sums.items()}


@dataclass(frozen=True)
class LineChange:
    """A line of the kernel whose cycles changed: mean over the instances of its pipe, working and waiting; the numbers are None
    in the kernel that does not have the line."""

    pipe: str
    line_before: int | None
    line_after: int | None
    text: str
    before: float
    after: float
    waits: str

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def line_changes(before: Schedule, after: Schedule, most: int = _MOST_LINES) -> list[LineChange]:
    """The lines whose cycles changed most, largest first; empty where one of the files has no lines."""
    if not before.lines or not after.lines:
        return []
    moved = _same_lines(before.kernel, after.kernel)
    old = {(row.pipe, moved.get(row.line, -row.line)): row for row in before.lines}
    new = {(row.pipe, row.line): row for row in after.lines}
    found = []
    for key in dict.fromkeys([*old, *new]):
        was, now = old.get(key), new.get(key)
        spent = [0.0 if row is None else sum(row.cycles.values()) / schedule.pipes[row.pipe]["instances"]
                 for row, schedule in ((was, before), (now, after))]
        if abs(spent[1] - spent[0]) < 0.5:
            continue
        shown = now or was
        assert shown is not None
        text = _line(after.kernel, now.line) if now is not None else _line(before.kernel, shown.line)
        waits = max(shown.stalls, key=lambda stall: stall.cycles, default=None)
        found.append(LineChange(key[0], was.line if was else None, now.line if now else None, text, spent[0], spent[1],
                                f"{waits.what}, {waits.by}" if waits and waits.what else ""))
    return sorted(found, key=lambda item: -abs(item.after - item.before))[:most]


def _line(kernel: tuple[str, ...], number: int) -> str:
    return kernel[number - 1].partition("#")[0].strip() if 0 < number <= len(kernel) else ""


def _same_lines(before: tuple[str, ...], after: tuple[str, ...]) -> Mapping[int, int]:
    """Line numbers (from 1) of the later text by those of the earlier one, where the line is the same or stands in the place of
    a changed one."""
    return dict(_pairs([line.strip() for line in before], [line.strip() for line in after]))


def _pairs(before: list[str], after: list[str]) -> Iterator[tuple[int, int]]:
    for what, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what in ("equal", "replace"):
            yield from zip(range(a + 1, b + 1), range(c + 1, d + 1), strict=False)
