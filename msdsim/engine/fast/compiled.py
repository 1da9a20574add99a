"""Compilation of the engine's machine code, and where it is kept between runs.

numba's own cache looks only at the file of the entry function, so that a change in a helper's file would go unnoticed; here
the folder is named after the source of the whole engine, the interpreter and numba.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msdsim.engine.fast.native import source_hash

_SOURCES = Path(__file__).resolve().parent


@cache
def cache_dir() -> Path | None:
    """Folder for compiled code: under ``NUMBA_CACHE_DIR``, else beside the source, else in the user's cache; None where nothing
    can be written (the code is then compiled in every process)."""
    name = f"msdsim-fast-{_fingerprint()}"
    for base in _bases():
        try:
            (base / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=base / name):
                return base / name
        except OSError:
            continue
    return None


def _bases() -> Iterator[Path]:
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    yield _SOURCES / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(home) / "msdsim"


def _fingerprint() -> str:
    compiler = f"{version('numba')} {platform.python_version()} {platform.machine()}"
    return hashlib.sha256(f"{compiler} {source_hash()}".encode()).hexdigest()[:12]


def is_cached() -> bool:
    """Whether an earlier process left the compiled engine on disk."""
    folder = cache_dir()
    return folder is not None and any(folder.rglob("*.nbi"))


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the compiled engine, compiled as a part of its entry point."""
    return _part(function, forceinline=False)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A helper that is always a part of its callers: a small one, or one that a hot loop calls once."""
    return _part(function, forceinline=True)


def _part(function: Callable[..., Any], forceinline: bool) -> Callable[..., Any]:
    import numba

    njit: Any = numba.njit
    compiled: Callable[..., Any] = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True,
                                        forceinline=forceinline)(function)
    return compiled


def entry(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The entry point: compiled for one signature at once, or taken from :func:`cache_dir`."""
    import numba
    from numba.core import config as numba_config

    config: Any = numba_config

    def compile_entry(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = cache_dir()
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder or "")
        try:
            return numba.njit(signature, error_model="numpy", nogil=True, cache=folder is not None)(function)
        finally:
            config.CACHE_DIR = before

    return compile_entry


def pointer_function() -> Callable[..., Any]:
    """For compiled code: the address of an array's first element.  Helpers take pointers, since an array is seven arguments."""
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def pointer(typing_context, array):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return context.make_array(signature.args[0])(context, builder, arguments[0]).data

        return types.CPointer(array.dtype)(array), generate

    return pointer


def divide_function() -> Callable[..., Any]:
    """For compiled code: a // b for a >= 0 and b > 0, without a look at the signs or at zero."""
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def divide(typing_context, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.udiv(*(context.cast(builder, value, kind, types.int64)
                                  for value, kind in zip(arguments, signature.args, strict=True)))

        return types.int64(a, b), generate

    return divide


def address_function() -> Callable[..., Any]:
    """For compiled code: the address in memory that a pointer holds."""
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def address(typing_context, pointer):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.ptrtoint(arguments[0], context.get_value_type(types.int64))

        return types.int64(pointer), generate

    return address


def prefetch_function() -> Callable[..., Any]:
    """For compiled code: have the line of the host's cache at an address in memory on its way, without waiting for it."""
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def prefetch(typing_context, address):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
            function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            # To be written, as soon as possible, of data.
            builder.call(function, [builder.inttoptr(arguments[0], byte), number(1), number(3), number(1)])
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return prefetch
