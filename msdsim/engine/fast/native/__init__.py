"""The engine compiled ahead: a shared library a platform, used only if it was made from the source that is here.

``python -m msdsim.engine.fast.native.build`` makes the library of the platform it runs on.  A library carries the hash of the
source it was made from; where there is none for a platform, or one of other source, numba compiles the engine instead.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from msdsim.engine.fast.l2_layout import L2
from msdsim.engine.memory import SET_SKEW
from msdsim.timeline import record

#: What is compiled, and the decorators that say how.
SOURCES = ("compiled.py", "machine.py", "scalar.py", "pipes.py", "transfers.py", "completion.py", "blocks.py", "tokens.py",
           "registers.py", "ready.py", "memory.py", "cache.py", "port_time.py", "arithmetic.py", "banked.py",
           "skip.py", "layout.py", "l2_layout.py", "banked_layout.py")
#: What the compiled source takes from elsewhere.
_CONSTANTS = (SET_SKEW, record.CATEGORIES, record.TRAFFIC, list(record.TIMELINE_COLUMNS))
#: Names in the library: the function, and the hash of its source.
FUNCTION, SOURCE_HASH = "msdsim_run", "msdsim_source_hash"
#: Types of its arguments: C, S, T, rows, and the arrays of L2.
TYPES = (np.int64, np.int64, np.int64, np.int64, *L2(line=np.int32, tag=np.int32, used=np.int64, taken=np.int32,
                                                    ready=np.int64, pieces=np.int64, owners=np.int64))


@cache
def source_hash() -> str:
    """SHA-256 of the engine's source, the same on every platform."""
    digest = hashlib.sha256(repr(_CONSTANTS).encode())
    folder = Path(__file__).resolve().parent.parent
    for name in SOURCES:
        digest.update((folder / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def library_path() -> Path:
    """The library of this platform, whether it exists or not."""
    return Path(__file__).resolve().parent / f"{sys.platform}-{platform.machine().lower()}.so"


def hash_of(library: ctypes.CDLL) -> str:
    """The hash of the source that a library was made from."""
    return bytes((ctypes.c_char * 64).in_dll(library, SOURCE_HASH)).decode()


@cache
def load() -> Callable[..., None] | None:
    """:func:`msdsim.engine.fast.machine.run` compiled ahead; None where no library fits."""
    try:
        library = ctypes.CDLL(str(library_path()))
        if hash_of(library) != source_hash():
            return None
        function = getattr(library, FUNCTION)
    except (OSError, AttributeError, ValueError):
        return None
    function.restype, function.argtypes = None, [ctypes.c_void_p] * len(TYPES)

    def run(*arrays: np.ndarray) -> None:
        for array, kind in zip(arrays, TYPES, strict=True):
            assert array.dtype == kind
            assert array.flags.c_contiguous
        function(*(array.__array_interface__["data"][0] for array in arrays))

    return run
