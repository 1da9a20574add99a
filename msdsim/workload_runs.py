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
from msdsim.hardware.chip import Chip
from msdsim.ir.gm_plan import GmPlan
from msdsim.ir.kernel import Kernel
from msdsim.jobs import Progress, run_all
from msdsim.mixes import Chosen, choices, is_best, parse_mix
from msdsim.problems import Workload
from msdsim.problems.workload import Entry
from msdsim.report.result import Result, WorkloadRun
from msdsim.report.shown import ShownWorkloadResult
from msdsim.runs import PreparedRun, RunOptions, prepare
from msdsim.timeline.l2_state import L2State


def run_workload(workload: Workload, hardware: Hardware, dataflow: str, options: RunOptions, *, jobs: int = 1,
                 progress: Progress | None = None,
                 tilings: Mapping[str, Mapping[str, int]] | None = None) -> ShownWorkloadResult:
    """Simulate the entries of a workload one after the other, and weigh each by its count.

    ``dataflow`` is one for all or a mix (:mod:`msdsim.mixes`).  An entry finds in L2 what the ones before it have left
    (:class:`~msdsim.ir.gm_plan.GmPlan` says which tensors are the same).  Consecutive entries with the same
    count are a layer: what runs more than once runs once ahead, with weights of its own (the end of it, as far as anything can
    still be in L2), and is then simulated as it follows itself; every one of its runs is taken to cost the same.

    ``jobs`` processes execute numbers at the same time (0: one for each core); ``progress`` is called with (finished, of how
    many) entries.  ``tilings`` has tilings by the name of an entry, in the place of that of ``options``.
    """
    if options.warm:
        raise InputError(f"warm belongs to one problem; the operators of '{workload.name}' find in L2 what those before them "
                         f"have left; leave it out")
    mix = parse_mix(dataflow, workload)
    chosen = {choice.entry.name: choice for choice in choices(workload, mix, hardware)}
    first = {_key(choice): choice for choice in reversed(chosen.values())}
    own = tilings or {}
    tasks = [_Task(workload.name, item.entry.name, item.problem, hardware, item.dataflow,
                   options.but(tiling=own.get(item.entry.name, options.tiling))) for item in first.values()]

    def done(finished: int, _: int = 0) -> None:
        if progress is not None:
            progress(finished, len(tasks) + len(workload.entries))

    prepared = dict(zip(first, run_all(_prepare, tasks, jobs, done), strict=True))
    kernels = {name: prepared[_key(choice)].kernel for name, choice in chosen.items()}
    reads = {name: sum(tensor.size_bytes for tensor in kernel.tensors if tensor.role == "in")
             for name, kernel in kernels.items()}
    runs = _order(workload, reads, hardware.chip.l2.capacity_bytes)
    plan, state = GmPlan(item.kernel for item in prepared.values()), empty_l2(hardware.chip)
    found: list[WorkloadRun] = []
    for entry_run in runs:
        choice = chosen[entry_run.entry.name]
        result, state = _time_entry(workload, entry_run, prepared[_key(choice)], plan, state)
        if not entry_run.ahead:
            found.append(WorkloadRun(entry_run.entry.name, entry_run.entry.count, result, choice.note))
            done(len(tasks) + len(found))
    fits = does_not_fit(workload, kernels, hardware.chip)
    simple = mix.default == dataflow and not is_best(dataflow)
    return ShownWorkloadResult(workload.name, found, "" if simple and not _varies(found) else dataflow, (fits,) if fits else ())


def _varies(runs: list[WorkloadRun]) -> bool:
    return len({run.result.dataflow for run in runs}) > 1


def _key(choice: Chosen) -> tuple[str, str]:
    """What two entries have in common that are one kernel."""
    return str(choice.problem), choice.dataflow


def does_not_fit(workload: Workload, kernels: Mapping[str, Kernel], chip: Chip) -> str | None:
    """By how much the weights and caches of all layers exceed the chip's HBM; None where they fit.

    Embeddings, activations and what a serving engine keeps beside are not counted.
    """
    weights = caches = 0
    for entry in workload.entries:
        attention = entry.problem.kind == "attention"
        size = sum(tensor.size_bytes for tensor in kernels[entry.name].tensors
                   if tensor.role == "in" and tensor.name != ("q" if attention else "x"))
        if attention:
            caches += entry.count * size
        else:
            groups = getattr(entry.problem, "groups", 1)
            weights += entry.count * size * (entry.experts or groups) // groups
    capacity = chip.hbm.capacity_bytes
    if weights + caches <= capacity:
        return None
    return (f"does not fit: {weights / 1e9:,.1f} GB of weights and {caches / 1e9:,.1f} GB of caches are "
            f"{(weights + caches - capacity) / 1e9:,.1f} GB more than the {capacity / 1e9:,.1f} GB of {chip.name}'s HBM "
            f"({(weights + caches) / capacity:.1f} such chips)")


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

    ``read_bytes`` says, by entry, how much an entry reads through L2.
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
            passed += read_bytes[entry.name]
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
