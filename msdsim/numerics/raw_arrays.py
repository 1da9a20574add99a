"""Arrays of npz files whose type numpy does not know: ml_dtypes' arrays come back as raw bytes (``|V1``, ``|V2``).

Raw bytes say nothing of what they are, so the user does; two bytes are taken as bfloat16, the one such type of that size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from msdsim.errors import ArrayError, MsdsimError
from msdsim.registry import unknown_name

#: Types that may be stated, by ml_dtypes' and numpy's names, with the bytes of an element.
DTYPES = {"bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e8m0fnu": 1, "float4_e2m1fn": 1, "int4": 1,
          "uint4": 1, "int8": 1, "uint8": 1}


def read_npz(file: str | Path, stated: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an npz file by name, in plain types (:func:`with_dtypes`); ArrayError for a file that is none."""
    path = Path(file)
    if not path.is_file():
        raise ArrayError(f"inputs file '{file}' does not exist; give an .npz file as numpy.savez writes it")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ArrayError(f"inputs file '{file}' holds one array without a name; write it with numpy.savez(FILE, x=...)")
        with loaded:
            found = {name: loaded[name] for name in loaded.files}
    except MsdsimError:
        raise
    except OSError as err:
        raise ArrayError(f"inputs file '{file}' cannot be read: {err.strerror or err}") from None
    except Exception:
        # A damaged file raises whatever the layer that stumbles over it raises: zip, deflate, header, dtype.
        raise ArrayError(f"inputs file '{file}' is not an npz file of plain arrays; write it with numpy.savez") from None
    return with_dtypes(found, stated)


def with_dtypes(arrays: Mapping[str, np.ndarray], stated: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays in plain types: raw bytes as what ``stated`` (``[NAME=]DTYPE``) says of them, 4-bit types one value a byte.

    InputError for names and types that are none, ArrayError for bytes of which nothing is said.
    """
    by_name, for_all = _stated(arrays, stated)
    return {name: _plain(name, array, by_name.get(name, for_all if array.dtype.kind == "V" else None))
            for name, array in arrays.items()}


def _stated(arrays: Mapping[str, np.ndarray], stated: Sequence[str]) -> tuple[dict[str, str], str | None]:
    by_name: dict[str, str] = {}
    for_all = None
    for text in stated:
        name, equals, dtype = (part.strip() for part in text.rpartition("="))
        if dtype not in DTYPES:
            raise unknown_name("dtype", dtype, list(DTYPES))
        if equals and name not in arrays:
            raise unknown_name("array of --dtype", name, list(arrays))
        if equals:
            by_name[name] = dtype
        else:
            for_all = dtype
    return by_name, for_all


def _plain(name: str, array: np.ndarray, dtype: str | None) -> np.ndarray:
    if array.dtype.fields is not None or array.dtype.hasobject:
        raise ArrayError(f"{name} has dtype {str(array.dtype)[:100]}; give an array of plain numbers")
    size = array.dtype.itemsize
    if dtype is None and array.dtype.kind == "V":
        if size != 2:
            known = ", ".join(key for key, width in DTYPES.items() if width == size)
            raise ArrayError(f"{name} has dtype {array.dtype} (numpy stores a type that it does not know as raw bytes); say "
                             "what it is, "
                             f"such as --dtype {name}={known.split(', ')[0] or 'bfloat16'} "
                             f"({known or 'no type has that size'})")
        dtype = "bfloat16"
    if dtype is None:
        return array
    if size != DTYPES[dtype]:
        raise ArrayError(f"{name} has dtype {array.dtype} of {size} bytes, and --dtype says {dtype} of {DTYPES[dtype]}")
    if array.dtype.kind not in "Vui":
        raise ArrayError(f"{name} has dtype {array.dtype}, which needs no --dtype; leave it out")
    return _typed(name, np.ascontiguousarray(array).view(f"u{size}"), dtype)


def _typed(name: str, raw: np.ndarray, dtype: str) -> np.ndarray:
    import ml_dtypes

    if dtype in ("int4", "uint4", "float4_e2m1fn"):
        # One value a byte; ml_dtypes writes what the high nibble holds: nothing, or the sign.
        if dtype == "int4":
            values = raw.view(np.int8)
            if ((values < -8) | (values > 7)).any():
                if (raw > 15).any():
                    raise ArrayError(f"{name} has bytes that are no int4, one value each; unpack two values a byte before")
                return (values ^ np.int8(8)) - np.int8(8)
            return values
        if (raw > 15).any():
            raise ArrayError(f"{name} has bytes above 15, no {dtype}, one value each; unpack two values a byte before")
        return raw if dtype == "uint4" else raw.view(ml_dtypes.float4_e2m1fn)
    if dtype == "float8_e8m0fnu":
        return raw
    plain = np.dtype(getattr(np, dtype)) if hasattr(np, dtype) else np.dtype(getattr(ml_dtypes, dtype))
    found = raw.view(plain)
    return found.astype(np.float32) if plain.kind not in "iu" else found
