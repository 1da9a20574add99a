"""The balance of signals: each is waited for as often as it is raised, on every core; a surplus would outlive the kernel.

Executions are counted for all cores of a part at once.  A loop whose variable decides nothing inside is multiplied, any other
is laid out, within :data:`MOST_ROWS` combinations of loop variables altogether.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from msdsim.errors import KernelError
from msdsim.ir.expr import Const, Expr, evaluate_all, free_vars
from msdsim.ir.kernel import Block, For, Kernel, Op, When, operations

#: Part that raises and part that awaits each kind of directed signal.
DIRECTIONS = {"aic_to_aiv": ("aic", "aiv"), "aiv_to_aic": ("aiv", "aic")}
#: Combinations of loop variables that are looked at, at most.
MOST_ROWS = 1_000_000
#: How often one signal may be raised.
_MOST_TIMES = 2**60

Env = Mapping[str, np.ndarray]


def check_signals(kernel: Kernel) -> None:
    """Raise KernelError for the first signal that a part uses on several pipes, or whose raisings and waits differ."""
    if not kernel.signals:
        return
    _check_pipes(kernel)
    counts = {part: _Counter(kernel).part(part) for part in ("aic", "aiv")}
    for number, signal in enumerate(kernel.signals):
        if signal.kind in DIRECTIONS:
            sender, receiver = ([part] for part in DIRECTIONS[signal.kind])
        else:
            sender, receiver = ["aic", "aiv"], ["aic", "aiv"]
        used = {part: _users(kernel, part, signal.name) for part in ("aic", "aiv")}
        for core in range(kernel.cores):
            # A part may stay away from a barrier, or only wait for it.
            raised = {int(n) for part in sender if used[part][0] for n in counts[part][core, :, number, 0]} or {0}
            awaited = {int(n) for part in receiver if used[part][1] for n in counts[part][core, :, number, 1]} or {0}
            if len(raised | awaited) > 1:
                lines = [op.line for part in used.values() for kind in part for op in kind]
                where = f"line {min(lines)}: " if any(lines) else ""
                raise KernelError(
                    f"{where}signal '{signal.name}' is raised {_times(raised)} and waited for {_times(awaited)} on core "
                    f"{core}; make both equal (a ring hands back its last slots after the loop)"
                )


def _check_pipes(kernel: Kernel) -> None:
    """A signal is raised, and waited for, on one pipe of a part: what it counts has one order only then."""
    first: dict[tuple[str, str, str], Op] = {}
    for part in ("aic", "aiv"):
        for op in operations(kernel.part(part)):
            if op.kind not in ("signal", "wait"):
                continue
            name, pipe = str(op.attr("name")), str(op.attr("pipe"))
            other = first.setdefault((part, op.kind, name), op)
            if other.attr("pipe") != pipe:
                verb = "raises" if op.kind == "signal" else "waits for"
                where, there = (f"line {op.line}: ", f", in line {other.line}") if op.line else ("", "")
                raise KernelError(f"{where}{part} {verb} signal '{name}' on pipes {other.attr('pipe')}{there} and {pipe}; use "
                                  f"one pipe, or one signal a pipe")


def _users(kernel: Kernel, part: str, name: str) -> tuple[list[Op], list[Op]]:
    """Operations of a part that raise and that await a signal."""
    ops = [op for op in operations(kernel.part(part)) if op.kind in ("signal", "wait") and op.attr("name", "") == name]
    return [op for op in ops if op.kind == "signal"], [op for op in ops if op.kind == "wait"]


def _times(counts: set[int]) -> str:
    return " or ".join("never" if not count else f"{count} times" for count in sorted(counts))


@dataclass
class _Counter:
    """Counts raisings and waits of every signal; rows are executions of a block, columns 2 for each signal."""

    kernel: Kernel
    rows: int = 0
    reads: dict[int, frozenset[str]] = field(default_factory=dict)

    def part(self, part: str) -> np.ndarray:
        """[core, AIV (one for the AIC), signal, raised / awaited]."""
        kernel, subs = self.kernel, self.kernel.aiv_per_core if part == "aiv" else 1
        self.columns = {signal.name: 2 * number for number, signal in enumerate(kernel.signals)}
        core, sub = np.divmod(np.arange(kernel.cores * subs, dtype=np.int64), max(1, subs))
        found = self._block(kernel.part(part), {"core": core, "sub": sub}, len(core))
        return found.reshape(kernel.cores, subs, len(kernel.signals), 2)

    def _value(self, expr: Expr, env: Env, count: int) -> np.ndarray:
        if isinstance(expr, Const):
            return np.full(count, expr.value, np.int64)
        return np.broadcast_to(np.asarray(evaluate_all(expr, env), np.int64), count)

    def _block(self, block: Block, env: Env, count: int) -> np.ndarray:
        total = np.zeros((count, 2 * len(self.kernel.signals)), np.int64)
        for statement in block:
            if isinstance(statement, Op):
                if statement.kind in ("signal", "wait"):
                    total[:, self.columns[str(statement.attr("name"))] + (statement.kind == "wait")] += 1
            elif isinstance(statement, For | When) and self._signals(statement.body):
                total += self._when(statement, env, count) if isinstance(statement, When) else self._loop(statement, env, count)
        return total

    def _when(self, when: When, env: Env, count: int) -> np.ndarray:
        total = np.zeros((count, 2 * len(self.kernel.signals)), np.int64)
        rows = np.flatnonzero(self._value(when.condition, env, count))
        if rows.size:
            total[rows] = self._block(when.body, {name: values[rows] for name, values in env.items()}, len(rows))
        return total

    def _loop(self, loop: For, env: Env, count: int) -> np.ndarray:
        if _runs_once(loop) and loop.var not in self._control(loop.body):
            return self._block(loop.body, env, count)
        low, high = self._value(loop.low, env, count), self._value(loop.high, env, count)
        trips = np.maximum(0, -((low - high) // loop.step))
        if loop.var not in self._control(loop.body):
            inside = self._block(loop.body, env, count)
            if inside.size and int(trips.max(initial=0)) * int(inside.max(initial=0)) >= _MOST_TIMES:
                raise self._refused(loop, "a signal in it is raised or awaited more than 2**60 times")
            return trips[:, None] * inside
        self.rows += int(min(trips.sum(dtype=float), 2.0 * MOST_ROWS))
        if self.rows > MOST_ROWS:
            raise self._refused(loop, f"signals in it depend on more than {MOST_ROWS} combinations of loop variables, too many "
                                      f"to be counted")
        parent = np.repeat(np.arange(count), trips)
        turn = np.arange(len(parent)) - np.repeat(np.cumsum(trips) - trips, trips)
        inside = self._block(loop.body, {**{name: values[parent] for name, values in env.items()},
                                         loop.var: low[parent] + turn * loop.step}, len(parent))
        total = np.zeros((count, inside.shape[1]), np.int64)
        np.add.at(total, parent, inside)
        return total

    def _refused(self, loop: For, problem: str) -> KernelError:
        where = f"line {loop.line}: " if loop.line else ""
        return KernelError(f"{where}the loop over '{loop.var}': {problem}; raise and await signals as often in every iteration")

    def _signals(self, block: Block) -> bool:
        return self._control(block) is not _NONE

    def _control(self, block: Block) -> frozenset[str]:
        """What decides how often the signals of a block are executed; :data:`_NONE` where it has none."""
        if id(block) not in self.reads:
            found, some = frozenset[str](), False
            for statement in block:
                if isinstance(statement, Op):
                    some |= statement.kind in ("signal", "wait")
                elif isinstance(statement, For | When):
                    inside = self._control(statement.body)
                    if inside is not _NONE:
                        some = True
                        own: tuple[Expr, ...] = (
                            (statement.condition,) if isinstance(statement, When) else (statement.low, statement.high))
                        if isinstance(statement, For) and _runs_once(statement) and statement.var not in inside:
                            own = ()
                        bound = {statement.var} if isinstance(statement, For) else set()
                        found |= (inside - bound).union(*(free_vars(expr) for expr in own))
            self.reads[id(block)] = found if some else _NONE
        return self.reads[id(block)]


def _runs_once(loop: For) -> bool:
    """Whether a loop gives one value a name: it runs once, whatever the value is, which may not be known here."""
    return loop.step == 1 and loop.high == loop.low + 1


#: Of a block without signals.
_NONE = frozenset({"(no signals)"})
