"""Independent pieces of work, one after the other or in several processes, with the results in the order of the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Called with (finished, of how many) after every piece.
Progress = Callable[[int, int], None]


def run_all(function: Callable[[T], R], tasks: Sequence[T], jobs: int = 1, progress: Progress | None = None) -> list[R]:
    """``[function(task) for task in tasks]``, in up to ``jobs`` processes (0: one for each core of this machine).

    The order of the results and of the first error is that of the tasks, however many processes there are.  With more
    than one, ``function`` and the tasks must be picklable and a script needs the usual ``if __name__ == "__main__"``.
    """
    workers = min(jobs or os.cpu_count() or 1, len(tasks))
    results: list[R] = []
    if workers <= 1:
        _collect(results, map(function, tasks), len(tasks), progress)
        return results
    # Imported here: most runs need no other process.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            _collect(results, pool.map(function, tasks), len(tasks), progress)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def run_threads(function: Callable[[T], R], tasks: Sequence[T], jobs: int = 0, progress: Progress | None = None) -> list[R]:
    """:func:`run_all` in threads of this process, for work that shares large arrays and is mostly done outside of Python."""
    workers = min(jobs or os.cpu_count() or 1, len(tasks))
    results: list[R] = []
    if workers <= 1:
        _collect(results, map(function, tasks), len(tasks), progress)
        return results
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers)
    try:
        _collect(results, pool.map(function, tasks), len(tasks), progress)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return results


def _collect(results: list[Any], found: Iterable[Any], total: int, progress: Progress | None) -> None:
    for result in found:
        results.append(result)
        if progress is not None:
            progress(len(results), total)
