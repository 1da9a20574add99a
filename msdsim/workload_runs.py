"""The operators of a workload, one after the other through one L2, each weighed by how often it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from msdsim.engine import empty_l2, load_engine
from msdsim.errors import InputError, MsdsimError
from msdsim.hardware import Hardware
from msdsim.ir.gm_plan import GmPlan
from msdsim.jobs import Progress, run_all
from msdsim.problems import Workload
from msdsim.problems.workload import Entry
from msdsim.report.result import Result, WorkloadRun
from msdsim.report.shown import ShownWorkloadResult
from msdsim.runs import PreparedRun, RunOptions, prepare
from msdsim.timeline.l2_state import L2State


def run_workload(workload: Workload, hardware: Hardware, dataflow: str, options: RunOptions, *, jobs: int = 1,
                 progress: Progress | None = None) -> ShownWorkloadResult:
    """Simulate the entries of a workload one after the other, and weigh each by its count.

    An entry finds in L2 what the ones before it have left (:class:`~msdsim.ir.gm_plan.GmPlan` says which tensors are the
    same).  Consecutive entries with the same count are a layer: what runs more than once runs once ahead, with weights of its
    own (the end of it, as far as anything can still be in L2), and is then simulated as it follows itself; every one of its
    runs is taken to cost the same.

    ``jobs`` processes execute numbers at the same time (0: one for each core); ``progress`` is called with (finished, of how
    many) entries.
    """
    if options.warm:
        raise InputError(f"warm belongs to one problem; the operators of '{workload.name}' find in L2 what those before them "
                         f"have left; leave it out")
    first = {str(entry.problem): entry for entry in reversed(workload.entries)}
    tasks = [_Task(workload.name, entry.name, entry.problem, hardware, dataflow, options) for entry in first.values()]

    def done(finished: int, _: int = 0) -> None:
        if progress is not None:
            progress(finished, len(tasks) + len(workload.entries))

    prepared = dict(zip(first, run_all(_prepare, tasks, jobs, done), strict=True))
    reads = {name: sum(tensor.size_bytes for tensor in item.kernel.tensors if tensor.role == "in")
             for name, item in prepared.items()}
    runs = _order(workload, reads, hardware.chip.l2.capacity_bytes)
    plan, state = GmPlan(item.kernel for item in prepared.values()), empty_l2(hardware.chip)
    found: list[WorkloadRun] = []
    for entry_run in runs:
        result, state = _time_entry(workload, entry_run, prepared[str(entry_run.entry.problem)], plan, state)
        if not entry_run.ahead:
            found.append(WorkloadRun(entry_run.entry.name, entry_run.entry.count, result))
            done(len(tasks) + len(found))
    return ShownWorkloadResult(workload.name, found)


@dataclass(frozen=True)
class _Task:
    """One entry of a workload to prepare, in whatever process."""

    workload: str
    entry: str
    problem: Any
    hardware: Hardware
    dataflow: str
    options: RunOptions


def _prepare(task: _Task) -> PreparedRun:
    return _named(task.workload, task.entry, lambda: prepare(task.problem, task.hardware, task.dataflow, task.options))


def _named(workload: str, entry: str, work: Callable[[], Any]) -> Any:
    """Do the work of an entry; its errors say which entry it was."""
    try:
        return work()
    except MsdsimError as err:
        raise type(err)(f"workload '{workload}', entry '{entry}': {err}") from None


@dataclass(frozen=True)
class _EntryRun:
    """An entry of a workload in its turn; ``ahead`` only fills L2."""

    entry: Entry
    ahead: bool


#: Times its capacity that has passed through L2 when nothing older can be left in it: LRU, and streams fill all sets alike.
_FLUSHES = 2


def _order(workload: Workload, read_bytes: Mapping[str, int], capacity: int) -> list[_EntryRun]:
    """The entries in their order, the end of a layer that is repeated once ahead: as much of it as can leave anything in L2.

    ``read_bytes`` says, by problem, how much an entry reads through L2.
    """
    runs: list[_EntryRun] = []
    for count, entries in groupby(workload.entries, lambda entry: entry.count):
        layer = list(entries)
        ahead: list[_EntryRun] = []
        passed = 0
        for entry in reversed(layer if count > 1 else []):
            if passed >= _FLUSHES * capacity:
                break
            ahead.insert(0, _EntryRun(entry, True))
            passed += read_bytes[str(entry.problem)]
        runs += [*ahead, *(_EntryRun(entry, False) for entry in layer)]
    return runs


def _time_entry(workload: Workload, run: _EntryRun, item: PreparedRun, plan: GmPlan,
                state: L2State) -> tuple[Result, L2State]:
    """Time an entry on what is in L2; its result, and what it leaves there."""
    options = item.options.for_engine()
    options = replace(options, record_timeline=options.record_timeline and not run.ahead)
    engine = load_engine(item.options.engine)
    started = time.perf_counter()
    record = _named(workload.name, run.entry.name,
                    lambda: engine.run(item.program(plan.place(item.kernel)), options, state))
    assert record.l2 is not None
    # The result does without the state: there is one a kernel, and nobody asks for it again.
    return item.result(replace(record, l2=None), time.perf_counter() - started, "workload"), record.l2
