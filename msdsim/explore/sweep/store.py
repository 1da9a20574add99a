"""Rows on disk: one JSON object a line, appended when a point is done; one writer at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from msdsim.errors import InputError
from msdsim.explore.sweep.point import FAILED

RESULTS = "results.jsonl"
_LOCK = ".lock"


class Store:
    """The rows of a folder.  As a context manager it holds the folder's lock and may append.

    A line that an interruption cut short is no row, and stays where it is: nothing that was written is ever written anew.
    Rows of points that broke (not: that were refused by a rule) do not count as there, so that a sweep tries them again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RESULTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InputError(f"--out '{folder}' cannot be a folder ({err.strerror}); give another") from None

    def __enter__(self) -> Store:
        from filelock import FileLock, Timeout

        self._lock = FileLock(self.folder / _LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another sweep is writing into '{self.folder}'; wait until it is done, or give another "
                             f"--out") from None
        except OSError as err:
            raise InputError(f"--out '{self.folder}' cannot be written ({err.strerror}); give another") from None
        try:
            self.rows = {row["key"]: row for row in self._read() if row.get("status") != FAILED}
            self._file = self.path.open("ab")
            if self._file.tell() and not self._ends_with_newline():
                self._file.write(b"\n")
        except OSError as err:
            self._lock.release()
            raise InputError(f"'{self.path}' cannot be read or written ({err.strerror}); give another --out") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # what could not be written has been said when it was appended
        finally:
            self._lock.release()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row through to the operating system; InputError where there is no room, the rows before it kept."""
        try:
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as err:
            raise InputError(f"'{self.path}' cannot be written ({err.strerror}); the rows before are kept, and the same "
                             f"command goes on from them") from None

    def _read(self) -> Iterator[dict[str, Any]]:
        if self.path.exists():
            yield from _rows(self.path)

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                yield row


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a sweep's folder, each point's last; InputError where there are none."""
    path = folder / RESULTS
    try:
        found = {row["key"]: row for row in _rows(path)}
    except OSError as err:
        raise InputError(f"'{path}' cannot be read ({err.strerror}); give the folder of a sweep") from None
    if not found:
        raise InputError(f"'{path}' has no rows; give the folder of a sweep")
    return list(found.values())
