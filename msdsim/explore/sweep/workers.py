"""Points run side by side: in this process, in several, or on a Dask cluster.  Each gives rows in the order they are done."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain, islice
from typing import Any

from msdsim.errors import InputError
from msdsim.explore.sweep.point import FAILED, Point, Setting, run_point
from msdsim.jobs import process_pool, submit

Row = dict[str, Any]
Rows = Generator[Row, None, None]

#: Points handed to a process beside the one it works on, so that it never waits for the next.
_AHEAD = 2

_setting: Setting


def in_process(setting: Setting, points: Iterable[Point]) -> Rows:
    """One point after the other."""
    for point in points:
        yield run_point(setting, point)


def in_processes(setting: Setting, points: Iterable[Point], workers: int) -> Rows:
    """In ``workers`` processes, which end with this one however it ends.

    A process that dies (killed, out of memory) takes no row with it: the points it and its neighbours had in hand are run
    again one by one, and one that is alone when its process dies is a failed row.
    """
    left = iter(points)
    while (point := next(left, None)) is not None:
        left = chain([point], left)
        in_hand: dict[Future[Row], Point] = {}
        with _pool(setting, workers) as pool:
            try:
                yield from _stream(pool, left, in_hand, workers * (1 + _AHEAD))
                return
            except BrokenProcessPool:
                suspects = list(in_hand.values())
        while suspects:
            yield from _one_by_one(setting, suspects)


def _stream(pool: ProcessPoolExecutor, points: Iterator[Point], in_hand: dict[Future[Row], Point], most: int) -> Rows:
    """Rows as they come; ``in_hand`` holds what is not yielded yet, also when the pool breaks."""
    while True:
        for point in islice(points, most - len(in_hand)):
            try:
                in_hand[submit(pool, _work, point)] = point
            except BrokenProcessPool:
                in_hand[Future()] = point  # refused by a pool that broke meanwhile: it is not lost
                raise
        if not in_hand:
            return
        for future in wait(in_hand, return_when=FIRST_COMPLETED).done:
            row = future.result()
            del in_hand[future]
            yield row


def _one_by_one(setting: Setting, points: list[Point]) -> Rows:
    """Rows of points in one process, until none is left or one has been the end of it: a failed row.  Empties ``points``."""
    with _pool(setting, 1) as pool:
        while points:
            point = points.pop(0)
            try:
                row = submit(pool, _work, point).result()
            except BrokenProcessPool:
                yield point.row() | {"status": FAILED,
                                     "error": "the process that ran this point was killed, or ran out of memory"}
                return
            yield row


def _pool(setting: Setting, workers: int) -> AbstractContextManager[ProcessPoolExecutor]:
    return process_pool(workers, _begin, (setting,))


def _begin(setting: Setting) -> None:
    """In a worker: keep the setting, and end when the process that started it ends, in whatever way."""
    global _setting
    _setting = setting
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import connection, parent_process

    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _work(point: Point) -> Row:
    return run_point(_setting, point)


def on_cluster(setting: Setting, points: Iterable[Point], scheduler: str) -> Rows:
    """On the Dask cluster whose scheduler answers at an address; InputError when it does not, or no longer."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise InputError("--scheduler needs Dask; install it with: pip install 'msdsim[sweep]'") from None
    lost = (f"the Dask cluster at '{scheduler}' is gone; the rows until then are kept where there is an --out, and the same "
            f"command goes on from them")
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as err:
        raise InputError(f"no Dask scheduler answers at '{scheduler}' ({err}); start one or leave out --scheduler") from None
    left = iter(points)
    with _quiet("distributed"):
        try:
            shared = client.scatter(setting, broadcast=False, hash=False)
            most = _AHEAD * max(1, sum(client.nthreads().values()))

            def submit(count: int) -> list[tuple[Any, Point]]:
                return [(client.submit(_on_worker, shared, setting.version, point, pure=False), point)
                        for point in islice(left, count)]

            names = dict(submit(most))
            done = as_completed(list(names), loop=client.loop)
            for future in done:
                yield _row_of(client, future, names.pop(future))
                for added, following in submit(1):
                    names[added] = following
                    done.add(added)
        except (OSError, TimeoutError, RuntimeError) as err:
            raise InputError(f"{lost} ({type(err).__name__})") from None
        finally:
            with suppress(Exception):
                client.close(timeout=2)


def _row_of(client: Any, future: Any, point: Point) -> Row:
    """A finished future's row.  A worker that died is a failed row; a cluster that is gone is an OSError."""
    if future.status == "finished":
        row: Row = future.result(timeout=30)
        return row
    if future.status in ("cancelled", "lost") or client.status != "running":
        raise OSError("connection lost")
    error = future.exception(timeout=30)
    return point.row() | {"status": FAILED, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]}


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Without a library's own lines about a connection that was lost: the one error line says it."""
    import logging

    # The library gives levels to its loggers one by one, so the one they all belong to has no say.
    found = [logging.getLogger(name) for name in [library, *logging.root.manager.loggerDict]
             if name == library or name.startswith(f"{library}.")]
    before = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(found, before, strict=True):
            logger.setLevel(level)


def _on_worker(setting: Setting, version: str, point: Point) -> Row:
    from msdsim.version import code_version

    if code_version() != version:
        return point.row() | {"status": FAILED, "error": f"the worker has msdsim {code_version()}, the sweep {version}; "
                                                         f"install the same on both"}
    return run_point(setting, point)


def rows_of(setting: Setting, points: Iterable[Point], jobs: int, scheduler: str | None, count: int) -> Rows:
    """Rows of points as they get done, by the way that the arguments ask for."""
    if scheduler is not None:
        return on_cluster(setting, points, scheduler)
    workers = min(jobs or os.cpu_count() or 1, count)
    return in_process(setting, points) if workers <= 1 else in_processes(setting, points, workers)


