"""Weights of GGUF files, by the ``gguf`` library (0.19.0 and later), which is imported only here.

Q8_0, Q4_0 and MXFP4 come as their codes and scales; every other type as the values that the library dequantizes.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.checkpoints.stored import StoredWeight
from msdsim.errors import InputError
from msdsim.formats.number import E8M0, FORMATS, FP4_E2M1


def gguf_names(path: Path) -> list[str]:
    """The tensors of a file."""
    return [tensor.name for tensor in _reader(path, path.stat().st_mtime_ns).tensors]


def read_gguf(path: Path, name: str) -> StoredWeight:
    """One tensor: [k, n] or [experts, k, n].  InputError for types that neither this nor the library reads."""
    reader = _reader(path, path.stat().st_mtime_ns)
    tensor = next(item for item in reader.tensors if item.name == name)
    kind = tensor.tensor_type.name
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if len(shape) < 2 or len(shape) > 3 or not all(shape):
        raise InputError(f"tensor '{name[:200]}' has shape {list(shape)}; a weight has two dimensions, or three with experts "
                         "in front")
    decoder = _CODES.get(kind)
    if decoder is not None:
        return decoder(np.asarray(tensor.data).reshape(*shape[:-1], -1), shape)
    return StoredWeight(f"GGUF {kind}", values=np.swapaxes(_values(tensor, name, kind, shape), -1, -2), notes=() if kind in (
        "F32", "F16", "BF16", "F64") else (f"no dataflow multiplies {kind} as it is: it is given by its values",))


def _values(tensor: Any, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    import gguf

    if kind == "BF16":
        return np.asarray(tensor.data).reshape(-1).view(FORMATS["bf16"].dtype).astype(np.float32).reshape(shape)
    try:
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(shape)
    except (NotImplementedError, ValueError, KeyError, TypeError) as err:
        raise InputError(f"tensor '{name[:200]}' has type {kind}, which gguf {_version()} does not dequantize "
                         f"({str(err)[:120]})") from None


def _version() -> str:
    from importlib.metadata import version

    return version("gguf")


def _q8_0(data: np.ndarray, shape: tuple[int, ...]) -> StoredWeight:
    blocks = data.view(np.uint8).reshape(*shape[:-1], -1, 34)
    return _integer("Q8_0", 8, np.ascontiguousarray(blocks[..., 2:]).view(np.int8), blocks, shape)


def _q4_0(data: np.ndarray, shape: tuple[int, ...]) -> StoredWeight:
    blocks = data.view(np.uint8).reshape(*shape[:-1], -1, 18)
    return _integer("Q4_0", 4, _halves(blocks[..., 2:]).view(np.int8) - np.int8(8), blocks, shape)


def _integer(kind: str, bits: int, q: np.ndarray, blocks: np.ndarray, shape: tuple[int, ...]) -> StoredWeight:
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    if scale.shape[-1] == 1:
        return StoredWeight(f"GGUF {kind}", q=np.swapaxes(q.reshape(shape), -1, -2), scale=scale[..., 0], bits=bits)
    return StoredWeight(f"GGUF {kind}, INT{bits} in groups of 32", q=np.swapaxes(q.reshape(shape), -1, -2),
                        scale=np.ascontiguousarray(np.swapaxes(scale, -1, -2)), group=32, bits=bits)


def _mxfp4(data: np.ndarray, shape: tuple[int, ...]) -> StoredWeight:
    blocks = data.view(np.uint8).reshape(*shape[:-1], -1, 17)
    scale = np.ascontiguousarray(np.swapaxes(blocks[..., 0], -1, -2))
    if (scale == 255).any():
        raise InputError("a block of MXFP4 has the E8M0 NaN code 255; codes are 0 to 254")
    codes = _halves(blocks[..., 1:]).reshape(shape).view(FP4_E2M1.dtype)
    return StoredWeight("GGUF MXFP4", q=np.swapaxes(codes, -1, -2), scale=scale.view(E8M0.dtype), bits=4)


def _halves(packed: np.ndarray) -> np.ndarray:
    """Codes of a block: the low nibbles are its first half, the high ones its second."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


_CODES = {"Q8_0": _q8_0, "Q4_0": _q4_0, "MXFP4": _mxfp4}


@lru_cache(maxsize=2)
def _reader(path: Path, stamp: int) -> Any:
    try:
        import gguf
    except ImportError:
        raise InputError(f"'{path.name[:200]}' is a GGUF file, and reading one needs the gguf library: pip install "
                         "'msdsim[checkpoints]'") from None
    try:
        return gguf.GGUFReader(path)
    except Exception as err:
        # The library trusts a file: a damaged one raises whatever NumPy or struct raises.
        raise InputError(f"'{path.name[:200]}' is no GGUF file that gguf {_version()} reads ({type(err).__name__}: "
                         f"{str(err)[:200]})") \
            from None
