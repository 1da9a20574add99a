"""What safetensors files hold, by their headers alone: names, dtypes, shapes and places of tensors.

A file is the length of its header (8 bytes), a JSON header and raw little-endian data; a checkpoint of several files has an
index, a JSON file whose ``weight_map`` says which file holds which tensor.  Headers are read here rather than by their
library, which maps the whole file: a checkpoint of hundreds of gigabytes is understood in seconds.  Nothing in a header is
trusted; whatever is wrong is one :class:`~msdsim.errors.InputError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdsim.errors import InputError

#: The limit of the format's own specification.
MAX_HEADER_BYTES = 100_000_000
#: Bits of an element, by the format's names of dtypes.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}
_MAX_DIMENSIONS = 16


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a file: ``begin`` and ``end`` are byte positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors of one file by name, and its metadata (text by text)."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: str | Path, *, need_data: bool = True) -> Header:
    """The header of a safetensors file.

    InputError for a file that is none, an unknown dtype, sizes that do not fit, and tensors that overlap.  With ``need_data``
    also for data beyond the end of the file; without it only shapes are of use, and a file may hold less than it says.
    """
    file = Path(path)
    raw, start, size = _raw_header(file)
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        raise _no_safetensors(file, "its __metadata__ is no table of texts")
    tensors = {name: _tensor(file, name, entry, start) for name, entry in raw.items()}
    last = None
    for tensor in sorted(tensors.values(), key=lambda item: (item.begin, item.end)):
        if last is not None and tensor.begin < last.end and tensor.begin != tensor.end:
            raise _no_safetensors(file, f"the data of '{_cut(last.name)}' and '{_cut(tensor.name)}' overlap")
        last = tensor if last is None or tensor.end > last.end else last
    if need_data and last is not None and last.end > size:
        raise _no_safetensors(file, f"'{_cut(last.name)}' ends at byte {last.end}, and the file has {size}; it is cut off")
    return Header(tensors, metadata)


def _raw_header(file: Path) -> tuple[dict[str, Any], int, int]:
    """The parsed JSON, where the data starts, and the size of the file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise _no_safetensors(file, f"its header would have {length} bytes")
            text = stream.read(length)
    except OSError as err:
        raise InputError(f"'{_cut(str(file))}' cannot be read ({err.strerror or err})") from None
    try:
        raw = json.loads(text, object_pairs_hook=lambda pairs: _once(file, pairs))
    except (ValueError, RecursionError):
        raise _no_safetensors(file, "its header is not JSON") from None
    if not isinstance(raw, dict):
        raise _no_safetensors(file, "its header is not a JSON object")
    return raw, 8 + length, size


def _once(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _no_safetensors(file, f"its header names '{_cut(twice)}' twice")
    return found


def _tensor(file: Path, name: str, entry: Any, start: int) -> TensorInfo:
    def wrong(what: str) -> InputError:
        return _no_safetensors(file, f"the entry of '{_cut(name)}' {what}")

    if not isinstance(entry, dict):
        raise wrong("is no table")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str):
        raise wrong("has no dtype")
    if dtype not in DTYPE_BITS:
        raise wrong(f"has dtype {_cut(dtype)!r}, which is none of {', '.join(DTYPE_BITS)}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_natural(item) for item in shape):
        raise wrong("has a shape that is no list of whole numbers from 0 to 2^63 - 1")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(item) for item in offsets):
        raise wrong("has data_offsets that are no two whole numbers from 0 to 2^63 - 1")
    begin, end = offsets
    needed = -(-math.prod(shape) * DTYPE_BITS[dtype] // 8)
    if end - begin != needed:
        raise wrong(f"has {end - begin} bytes of data for {_number(needed)} of a {dtype} tensor of its shape")
    return TensorInfo(name, dtype, tuple(shape), file, start + begin, start + end)


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: int) -> str:
    return str(value) if value < 10**30 else "a huge number"


def _no_safetensors(file: Path, why: str) -> InputError:
    return InputError(f"'{_cut(file.name)}' is not a safetensors file: {why}")


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:180]}..."


# ---- checkpoints of several files


def read_index(path: str | Path) -> dict[str, str]:
    """The ``weight_map`` of an index: the file of each tensor, by name, in the folder of the index."""
    file = Path(path)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"'{_cut(str(file))}' cannot be read ({err.strerror or err})") from None
    except (ValueError, RecursionError):
        raise InputError(f"'{_cut(file.name)}' is not an index of a checkpoint: it is not JSON") from None
    found = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(found, dict) or not found:
        raise InputError(f"'{_cut(file.name)}' is not an index of a checkpoint: it has no table weight_map")
    good: set[str] = set()
    for name, shard in found.items():
        if isinstance(shard, str) and shard in good:
            continue
        if not isinstance(shard, str) or not shard or Path(shard).name != shard:
            raise InputError(f"'{_cut(file.name)}': weight_map puts '{_cut(name)}' into {_cut(repr(shard))}, which is no file "
                             f"of the same folder")
        good.add(shard)
    return found


def checkpoint_files(path: str | Path) -> list[Path]:
    """The safetensors files behind a path: one file, those of an index, or those of a folder (by its index, if it has one)."""
    index = _index_of(Path(path))
    if index is None:
        return sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else [Path(path)]
    return _shards(index, read_index(index))


def _index_of(place: Path) -> Path | None:
    if not place.is_dir():
        return place if place.suffix == ".json" else None
    indices = sorted(place.glob("*.safetensors.index.json"))
    if len(indices) > 1:
        raise InputError(f"'{_cut(str(place))}' has {len(indices)} indices, such as '{_cut(indices[0].name)}'; give one")
    return indices[0] if indices else None


def _shards(index: Path, weight_map: Mapping[str, str]) -> list[Path]:
    shards = [index.with_name(name) for name in dict.fromkeys(weight_map.values())]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise InputError(f"'{_cut(index.name)}' names {len(shards)} files, and {len(missing)} of them are not in its folder, "
                         f"such as '{_cut(missing[0])}'")
    return shards


def read_tensors(path: str | Path, *, need_data: bool = True) -> dict[str, TensorInfo]:
    """All tensors of a file, an index or a folder, by name.

    InputError for tensors that two files have, and for an index that disagrees with the headers of its files.
    """
    place = Path(path)
    index = _index_of(place)
    weight_map = read_index(index) if index is not None else {}
    files = _shards(index, weight_map) if index is not None else checkpoint_files(place)
    found: dict[str, TensorInfo] = {}
    where: dict[str, str] = {}
    for file in files:
        own = read_header(file, need_data=need_data).tensors
        twice = next((name for name in own if name in found), None)
        if twice is not None:
            raise InputError(f"tensor '{_cut(twice)}' is in both '{_cut(where[twice])}' and '{_cut(file.name)}'")
        found.update(own)
        where.update(dict.fromkeys(own, file.name))
    for name, shard in weight_map.items():
        if where.get(name) != shard:
            seen = f"in '{_cut(where[name])}'" if name in where else "in none of the files"
            assert index is not None
            raise InputError(f"'{_cut(index.name)}' puts tensor '{_cut(name)}' into '{_cut(shard)}', but it is {seen}")
    return found
