"""Files that reports write: checked before the work, and never left half-written."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msdsim.errors import InputError


def require_writable(file: str, option: str, endings: tuple[str, ...] = ()) -> None:
    """Refuse a path that could not be written later: no such folder, a folder itself, no permission, a wrong ending."""
    path = Path(file)
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"{option} '{file}' does not end in {' or '.join(endings)}")
    if not file or path.is_dir():
        raise InputError(f"{option} '{file}' is not a file name; give the file to write")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{option} '{file}': there is no folder '{folder}'; create it first")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{option} '{file}' cannot be written: permission denied")


@contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """A path beside ``file`` to write to; on leaving without an error it takes the place of ``file``.

    A link is followed; what is no regular file (a device, a pipe) is written to directly.
    """
    path = Path(file).resolve()
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as err:
        raise InputError(f"'{file}' cannot be written: {err.strerror or err}") from None


def _umask() -> int:
    """The process's file mode mask; there is no way to read it without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(file: str | Path, text: str) -> None:
    """Write a whole text file, or nothing."""
    with replacing(file) as path:
        path.write_text(text, encoding="utf-8")


def finite(value: Any) -> Any:
    """The same JSON document with infinities and NaN, which JSON has no words for, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
