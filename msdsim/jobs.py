"""Independent pieces of work, one after the other or in several processes, with the results in the order of the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

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
    with process_pool(workers) as pool:
        found = [submit(pool, function, task) for task in tasks]
        _collect(results, (future.result() for future in found), len(tasks), progress)
    return results


@contextmanager
def process_pool(workers: int, begin: Callable[..., None] | None = None,
                 arguments: tuple[Any, ...] = ()) -> Iterator[ProcessPoolExecutor]:
    """So many processes for :func:`submit`, each of which calls ``begin`` first.  They are killed where the block does not end
    well; what they have in hand is lost then."""
    # Imported here: most runs need no other process.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import active_children, get_context

    before = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), begin, arguments)
    try:
        yield pool
    except BaseException:
        for child in set(active_children()) - before:
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def submit(pool: ProcessPoolExecutor, function: Callable[[T], R], task: T) -> Future[R]:
    """Hand a task to a process, which may be started for it: born deaf to Ctrl-C, it leaves that to this one and dies without a
    word."""
    with _sigint_held_back():
        return pool.submit(function, task)


@contextmanager
def _sigint_held_back() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that start in it never hear one."""
    import signal

    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
