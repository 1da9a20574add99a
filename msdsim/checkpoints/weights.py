"""``PATH:TENSOR``: one weight of a safetensors file, index or folder, of a GGUF file or of an ONNX model."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from msdsim.checkpoints.beside import has_module, read_metadata, tensors_beside, weight_name
from msdsim.checkpoints.headers import TensorInfo, checkpoint_files, read_header, read_tensors
from msdsim.checkpoints.layouts import decode
from msdsim.checkpoints.stored import StoredWeight, stack
from msdsim.errors import InputError, UnknownNameError

_KINDS = "a .safetensors file, its index or folder, a .gguf file or an .onnx model"


def split_spec(spec: str) -> tuple[Path, str]:
    """The file or folder and the name of the tensor in ``PATH:TENSOR``; either may hold colons.

    InputError where no part of it is a path that exists.
    """
    colons = [match.start() for match in re.finditer(":", spec)]
    places = [at for at in colons if 0 < at < len(spec) - 1 and Path(spec[:at]).exists()]
    if places:
        return Path(spec[: places[-1]]), spec[places[-1] + 1 :]
    if not colons or len(spec) - 1 in colons[-1:] or colons == [0]:
        raise InputError(f"weights '{spec[:300]}' do not name a tensor; write FILE.safetensors:TENSOR")
    raise InputError(f"weights file '{spec[: colons[-1]][:300]}' does not exist; --weights takes PATH:TENSOR, where PATH is "
                     f"{_KINDS}")


def read_weight(spec: str) -> StoredWeight:
    """The weight that ``PATH:TENSOR`` names: values, or integers and codes with their scales, as the checkpoint stores them.

    With ``*`` in the name, the experts that match, one after the other by their numbers.  Plain tensors keep their shape;
    everything else is [k, n] or [experts, k, n].  InputError for whatever cannot be read for certain.
    """
    path, name = split_spec(spec)
    names = matching_names(path, name)
    if len(names) == 1 and names[0] == name:
        return replace(read_one(path, name), name=name)
    return replace(stack([read_one(path, one) for one in names]), name=name)


def matching_names(path: Path, name: str) -> list[str]:
    """The tensors that a name or a pattern with ``*`` means, by their numbers; UnknownNameError where there is none."""
    names = tensor_names(path)
    if "*" not in name or name in names:
        _require_known(path, name, names)
        return [name]
    found = [one for one in fnmatch.filter(names, re.sub(r"([\[\]?])", r"[\1]", name)) if not _stands_beside(one)]
    if not found:
        raise UnknownNameError(_unknown(path, name, names))
    return sorted(found, key=_by_numbers)


def tensor_names(path: Path) -> Sequence[str]:
    """Every name of a checkpoint."""
    if path.suffix == ".gguf":
        from msdsim.checkpoints.gguf_files import gguf_names

        return gguf_names(path)
    if path.suffix == ".onnx":
        from msdsim.checkpoints.onnx_files import onnx_names

        return onnx_names(path)
    if path.is_file() and path.suffix not in (".safetensors", ".json"):
        _refuse_other_kinds(path)
    return list(_tensors(path))


def read_one(path: Path, name: str) -> StoredWeight:
    """One weight by its exact name."""
    if path.suffix == ".gguf":
        from msdsim.checkpoints.gguf_files import read_gguf

        return read_gguf(path, name)
    if path.suffix == ".onnx":
        from msdsim.checkpoints.onnx_files import read_onnx

        return read_onnx(path, name)
    tensors = _tensors(path)
    folder = path if path.is_dir() else path.parent
    # Of several files, the one that has the weight says in its metadata how it is stored.
    owner = tensors.get(weight_name(name, tensors)) or next(iter(tensors.values()))
    metadata = read_metadata(folder, _file_metadata(owner.file, owner.file.stat().st_mtime_ns))
    return decode(tensors_beside(name, tensors, metadata))


def _tensors(path: Path) -> Mapping[str, TensorInfo]:
    """The tensors of a checkpoint, read again only where a file has changed: experts by the hundred ask for them."""
    files = [file for file in (*checkpoint_files(path), path) if file.is_file()]
    return _tensors_of(path, tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@lru_cache(maxsize=2)
def _tensors_of(path: Path, stamp: tuple[tuple[Path, int, int], ...]) -> Mapping[str, TensorInfo]:
    return read_tensors(path)


@lru_cache(maxsize=4)
def _file_metadata(file: Path, stamp: int) -> Mapping[str, str]:
    return read_header(file).metadata


def _refuse_other_kinds(path: Path) -> None:
    """A name for what a file is, where its first bytes are none of a safetensors file."""
    with path.open("rb") as stream:
        start = stream.read(8)
    known = {b"GGUF": "a GGUF file; give it the name .gguf", b"PK\x03\x04": "a zip: an .npz belongs to --inputs, and a PyTorch "
             "checkpoint is not read (it runs code); save it as safetensors", b"\x93NUM": "a NumPy array; give it by "
             "--inputs as w"}
    if start[:4] in known:
        raise InputError(f"'{path.name[:200]}' is {known[start[:4]]}; --weights takes {_KINDS}")


def _require_known(path: Path, name: str, names: Iterable[str]) -> None:
    known = names if isinstance(names, (list, dict)) else list(names)
    if name in known or has_module(name, dict.fromkeys(known)):  # type: ignore[arg-type]
        return
    raise UnknownNameError(_unknown(path, name, known))


def _unknown(path: Path, name: str, names: Iterable[str]) -> str:
    """The nearest names and the count: names differ by the numbers of layers and experts, so that forms are compared first."""
    known = list(names)
    forms: dict[str, list[str]] = {}
    for one in known:
        forms.setdefault(re.sub(r"\d+", "0", one), []).append(one)
    close = difflib.get_close_matches(re.sub(r"\d+", "0", name)[:400], list(forms)[:2000], n=3)
    numbers = re.findall(r"\d+", name)
    nearest = [min(forms[form], key=lambda one: (re.findall(r"\d+", one) != numbers, len(one), one)) for form in close]
    text = "; did you mean " + " or ".join(f"'{one[:200]}'" for one in nearest) + "?" if nearest else ""
    some = "" if nearest or not known else f", such as '{known[0][:200]}'"
    kind = "pattern" if "*" in name else "tensor"
    return f"unknown {kind} of {path.name[:200]} '{name[:200]}'{text} ({len(known):,} tensors{some})"


def _stands_beside(name: str) -> bool:
    return re.search(r"(scales?|zeros|g_idx|bias|biases|offset|zero_point|weight_shape|scale_inv|scale_2)$", name) is not None


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
