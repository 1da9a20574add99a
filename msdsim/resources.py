"""Data files that ship with msdsim (chips, workloads): found beside the repository or inside the installed wheel."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from msdsim.errors import InputError
from msdsim.registry import unknown_name


@cache
def data_dir(kind: str) -> Path:
    """Folder of shipped data files; ``kind`` is ``hwmodels``, ``workloads`` or ``validation``."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise InputError(f"this installation of msdsim has no {kind}; reinstall it")


def shipped_names(kind: str) -> list[str]:
    """Names of the shipped files of a kind, without their ending, sorted."""
    return sorted(path.stem for path in data_dir(kind).glob("*.toml"))


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shortened(text: str, most: int = 200) -> str:
    """A user's text as an error shows it: the middle of a long one is left out."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def find_file(kind: str, what: str, name: str) -> Path:
    """The file a user means by a shipped name or by a path; UnknownNameError lists the shipped names."""
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not is_file(path):
            raise InputError(f"{what} file {shortened(name)!r} does not exist; give a path to a .toml file or a shipped name "
                             f"({', '.join(shipped_names(kind))})")
        return path
    path = data_dir(kind) / f"{name}.toml"
    if not is_file(path) or name not in shipped_names(kind):  # a file system may not tell letters apart
        raise unknown_name(what, name, shipped_names(kind))
    return path


def toml_text(text: str) -> str:
    """A text as a basic string of TOML; what UTF-8 cannot encode becomes a question mark."""
    # Not as ASCII: JSON escapes characters beyond U+FFFF by halves, which TOML refuses.
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_table(text: str, where: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """The table of a TOML text; ``error`` with ``where`` in front for what is none, or is nested too deeply."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise error(f"{where} is not valid TOML: {shortened(str(err))}") from None
    except (RecursionError, ValueError) as err:
        # Python's own limits: nested tables, and whole numbers of thousands of digits.
        why = "nested too deeply" if isinstance(err, RecursionError) else shortened(str(err))
        raise error(f"{where} cannot be read: {why}") from None


def read_toml(path: Path, where: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """The table of a TOML file; ``error`` for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise error(f"{where} cannot be read: {err.strerror or err}") from None
    except UnicodeDecodeError as err:
        raise error(f"{where} is not valid TOML: {err}") from None
    return toml_table(text, where, error)
