"""Weights of real models: one tensor of a safetensors file.

The format is read here rather than by its library: it is a length, a JSON header and raw little-endian data, and so a
model's weights need no extra package, and bfloat16 and fp8 come out as themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.errors import ArrayError, InputError
from msdsim.formats.checks import require_finite, require_not_empty
from msdsim.formats.number import FORMATS
from msdsim.registry import unknown_name

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own specification
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2"}


def load_tensor(spec: str) -> np.ndarray:
    """The tensor named by ``FILE.safetensors:TENSOR``, in its stored shape, as float32 (float64 stays float64).

    InputError for a missing file, a file that is not safetensors, an unknown tensor (with the known ones) or a dtype
    that holds no real numbers.
    """
    path_text, colon, tensor = spec.rpartition(":")
    if not colon or not path_text or not tensor:
        raise InputError(f"weights '{spec}' do not name a tensor; write FILE.safetensors:TENSOR")
    path = Path(path_text)
    if not path.is_file():
        raise InputError(f"weights file '{path}' does not exist")
    header, start = _header(path)
    if tensor not in header:
        raise unknown_name(f"tensor of {path.name}", tensor, sorted(name for name in header if name != "__metadata__"))
    try:
        dtype, shape, (begin, end) = (header[tensor][key] for key in ("dtype", "shape", "data_offsets"))
        count = int(np.prod(shape, dtype=np.int64))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"'{path.name}' is not a safetensors file: the entry of '{tensor}' is malformed") from None
    if dtype not in _DTYPES:
        raise InputError(f"tensor '{tensor}' of {path.name} has dtype {dtype}; weights are one of {', '.join(_DTYPES)}")
    stored = _DTYPES[dtype]
    number = FORMATS[stored].dtype if stored in FORMATS else np.dtype(stored)
    if end - begin != count * number.itemsize or start + end > path.stat().st_size:
        raise InputError(f"'{path.name}' is not a safetensors file: '{tensor}' needs {count * number.itemsize} bytes, "
                         f"the file holds {min(end, path.stat().st_size - start) - begin}")
    array = np.fromfile(path, number, count, offset=start + begin).reshape(shape)
    return array if number.itemsize == 8 else array.astype(np.float32)


def load_weight(spec: str, k: int, n: int) -> np.ndarray:
    """The weight [k, n] of a problem from ``FILE.safetensors:TENSOR``.

    Linear layers are stored [n, k] (output features first), and so is a square tensor taken; a tensor of shape [k, n]
    with k != n is used as it is.  ArrayError for any other shape, and for NaN or infinity.
    """
    array = load_tensor(spec)
    name = f"tensor '{spec.rpartition(':')[2]}'"
    if array.ndim != 2:
        raise ArrayError(f"{name} has {array.ndim} dimensions (shape {list(array.shape)}); a weight has two: [n, k] or "
                         "[k, n]")
    require_not_empty(array, name)
    require_finite(array, name)
    if array.shape == (n, k):
        return np.ascontiguousarray(array.T)
    if array.shape == (k, n):
        return array
    raise ArrayError(f"{name} has shape {list(array.shape)}; the problem needs [n, k] = [{n}, {k}] or "
                     f"[k, n] = [{k}, {n}]")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header and the offset at which the data starts."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER_BYTES, path.stat().st_size - 8):
            raise InputError(f"'{path.name}' is not a safetensors file: its header would have {length} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise InputError(f"'{path.name}' is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise InputError(f"'{path.name}' is not a safetensors file: its header is not a JSON object")
    return header, 8 + length
