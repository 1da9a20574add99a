"""The tensors that belong to one weight, and what a checkpoint's own files say of how it is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.checkpoints.bits import Packed
from msdsim.checkpoints.headers import TensorInfo
from msdsim.errors import InputError
from msdsim.formats.number import FORMATS

#: numpy's dtypes of the format's names, ml_dtypes' for those that numpy lacks.
_NUMPY = {"BOOL": "u1", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
          "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8"}
_ML = {"BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2", "F8_E8M0": "e8m0"}
#: Endings of the tensor of a weight that tell where the name of its module ends.
_WEIGHT_ENDINGS = (".weight_packed", ".qweight", ".weight", "_blocks", "._weight_qdata", ".W_q")
#: Tensors beside a weight that speak of scales of something else: activations and caches.
_OF_ACTIVATIONS = re.compile(r"(^|[._])(output|act|k|v|q|kv|attn|kv_cache)_?(global_)?scale(_inv)?$|qscale_act|input_")

#: Tensors beside a weight without which its values are others, and those of them that follow from what is read.
_OF_VALUES = re.compile(r"scale|zero|offset|g_idx|absmax|codebook|lut|perm|rotat|hadamard|svh|suh|importance|scb$")
#: Keys under which a config gives single modules another group than the rest.
_OVERRIDES = ("dynamic", "extra_config", "quantized_layers", "layer_quant_config")
_DERIVED = ("deq_scale", "scale_bias", "quant_bias", "weight_shape")


@dataclass(frozen=True)
class Metadata:
    """What stands in the files of a checkpoint: ``quantization_config``, msmodelslim's description, a file's own metadata."""

    quantization: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)
    file: Mapping[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return str(self.quantization.get("quant_method") or self.quantization.get("quant_algo") or "").lower()


def read_metadata(folder: Path, file: Mapping[str, str]) -> Metadata:
    """The metadata of a folder; a file that is missing or no JSON says nothing."""
    config = _json(folder / "config.json")
    own = config.get("quantization_config")
    text = config.get("text_config")
    if not isinstance(own, Mapping) and isinstance(text, Mapping):
        own = text.get("quantization_config")
    if not isinstance(own, Mapping):
        own = _json(folder / "hf_quant_config.json").get("quantization")
        own = {"quant_method": "modelopt", **own} if isinstance(own, Mapping) else {}
    if not own:
        own = _json(folder / "quantize_config.json")
    descriptions = sorted(folder.glob("quant_model_description*.json")) if folder.is_dir() else []
    return Metadata(own, _json(descriptions[0]) if descriptions else {}, file)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Beside:
    """A weight's tensor and those of its module: ``tensors`` by the rest of their name (``weight_scale``, ``_blocks``)."""

    name: str
    module: str
    own: str
    tensors: Mapping[str, TensorInfo]
    metadata: Metadata
    #: What has been read so far.
    used: set[str] = field(default_factory=set)

    @property
    def info(self) -> TensorInfo:
        return self.tensors[self.own]

    @cached_property
    def scales(self) -> list[str]:
        """Tensors beside the weight that scale it, whatever they are called."""
        return [rest for rest in self.tensors
                if rest != self.own and ("scale" in rest.lower() or rest in ("SCB", "weight.absmax"))
                and not _OF_ACTIVATIONS.search(rest) and not rest.endswith(("scale_bias", "scale_and_zero"))]

    def has(self, *rests: str) -> bool:
        return all(rest in self.tensors for rest in rests)

    def first(self, *rests: str) -> str | None:
        """The first of these that is there."""
        return next((rest for rest in rests if rest in self.tensors), None)

    def read(self, rest: str) -> np.ndarray:
        """A tensor as it is stored, in numpy's or ml_dtypes' dtype."""
        self.used.add(rest)
        return read_tensor(self.tensors[rest])

    @contextmanager
    def packed(self, rest: str) -> Iterator[Packed]:
        """A tensor in its file, read piece by piece: a copy of a large one in memory would cost a third of its decoding."""
        info, number = self.tensors[rest], _dtype(self.tensors[rest])
        self.used.add(rest)
        buffer = np.empty(0, number)

        def read(first: int, last: int) -> np.ndarray:
            nonlocal buffer
            if len(buffer) < last - first:
                buffer = np.empty(last - first, number)
            piece = buffer[: last - first]
            file.seek(info.begin + first * number.itemsize)
            if file.readinto(piece.view(np.uint8).data) != piece.nbytes:
                raise self.wrong(f"'{info.file.name}' is cut off within it")
            return piece

        try:
            file = info.file.open("rb", buffering=0)
        except OSError as err:
            raise InputError(f"'{info.file.name}' cannot be read ({err.strerror or err})") from None
        with file:
            yield Packed(info.shape, number, read)

    def floats(self, rest: str) -> np.ndarray:
        """A tensor of real numbers as float32; E8M0 scales as the powers of two that they are."""
        array = self.read(rest)
        if array.dtype == FORMATS["e8m0"].dtype:
            return exponents(array.view(np.uint8))
        if array.dtype.kind in "iub":
            raise self.wrong(f"'{rest}' has dtype {self.tensors[rest].dtype}, and real numbers are needed")
        found = array.astype(np.float32)
        if not np.isfinite(found).all():
            raise self.wrong(f"'{rest}' has NaN or infinities")
        return found

    def unread(self) -> list[str]:
        """Tensors that change the values of a weight and were not read."""
        return [rest for rest in self.tensors if rest not in self.used and rest != self.own and _OF_VALUES.search(rest.lower())
                and not _OF_ACTIVATIONS.search(rest) and rest not in _DERIVED]

    def group(self, k: int, groups: int) -> int:
        """Rows of ``k`` that share one of ``groups`` scales: what the config says, else the one size that fits."""
        if groups == 1:
            return k
        stated = self._stated_groups()
        fits = [size for size in stated if -(-k // size) == groups]
        if fits:
            return fits[0]
        if stated and not any(self.metadata.quantization.get(key) for key in _OVERRIDES):
            raise self.wrong(f"{groups} groups of {k} inputs, and the config says groups of {' or '.join(map(str, stated))}")
        if k % groups == 0:
            return k // groups
        fitting = [1 << power for power in range(3, 20) if -(-k // (1 << power)) == groups]
        if len(fitting) != 1:
            raise self.wrong(f"{groups} groups of {k} inputs: groups of {' or '.join(map(str, fitting)) or 'no size'}; a "
                             "config.json beside the file decides (group_size)")
        return fitting[0]

    def schemes(self) -> list[Mapping[str, Any]]:
        """The ``weights`` tables of compressed-tensors' groups."""
        groups = self.metadata.quantization.get("config_groups")
        tables = groups.values() if isinstance(groups, Mapping) else ()
        found = [table.get("weights") for table in tables if isinstance(table, Mapping)]
        return [table for table in found if isinstance(table, Mapping)]

    def _stated_groups(self) -> list[int]:
        tables = [self.metadata.quantization, self.metadata.description, *self.schemes()]
        sizes = [table.get(key) for table in tables for key in ("group_size", "q_group_size")]
        return [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]

    def wrong(self, why: str) -> InputError:
        """An error about this weight."""
        return InputError(f"tensor '{self.name[:200]}': {why}")

    def shapes(self) -> str:
        """The tensors with dtypes and shapes, for messages."""
        return ", ".join(f"{rest} {info.dtype} {list(info.shape)}" for rest, info in list(self.tensors.items())[:8])


def exponents(codes: np.ndarray) -> np.ndarray:
    """float32 2^(e - 127) of E8M0 codes; InputError for the NaN code."""
    if (codes == 255).any():
        raise InputError("an E8M0 scale is the NaN code 255; codes are 0 to 254")
    return np.ldexp(np.float32(1), codes.astype(np.int32) - 127).astype(np.float32)


def _dtype(info: TensorInfo) -> np.dtype:
    """numpy's or ml_dtypes' dtype of a tensor.  InputError for those that nothing here reads."""
    if info.dtype not in _NUMPY and info.dtype not in _ML:
        raise InputError(f"tensor '{info.name[:200]}' of {info.file.name} has dtype {info.dtype}, which is not read; weights "
                         "are "
                         f"one of {', '.join((*_ML, *_NUMPY))}")
    return FORMATS[_ML[info.dtype]].dtype if info.dtype in _ML else np.dtype(_NUMPY[info.dtype])


def read_tensor(info: TensorInfo) -> np.ndarray:
    """The data of a tensor as it is stored.  InputError for dtypes that nothing here reads."""
    number = _dtype(info)
    count = (info.end - info.begin) // number.itemsize
    try:
        array = np.fromfile(info.file, number, count, offset=info.begin)
    except OSError as err:
        raise InputError(f"'{info.file.name}' cannot be read ({err.strerror or err})") from None
    if array.size != count:
        raise InputError(f"'{info.file.name}' is cut off: tensor '{info.name[:200]}' has {count} values, {array.size} are "
                         "there")
    return array.reshape(info.shape)


def tensors_beside(name: str, tensors: Mapping[str, TensorInfo], metadata: Metadata) -> Beside:
    """The weight of a tensor's name, or of its module's; ``name`` is one of ``tensors``, or a module that has a weight."""
    name = weight_name(name, tensors)
    module = module_of(name)
    near = {}
    for other, info in tensors.items():
        if other.startswith(module) and (other == name or other[len(module) : len(module) + 1] in (".", "_")):
            rest = other[len(module) :]
            near[rest.removeprefix(".")] = info
    own = name[len(module) :].removeprefix(".")
    # Below ``module.`` there are whole modules too, such as the experts of a layer: their tensors have a dot more.
    near = {rest: info for rest, info in near.items() if rest == own or "." not in rest or rest.startswith("weight.")}
    return Beside(name, module, own, near, metadata)


def weight_name(name: str, tensors: Mapping[str, TensorInfo]) -> str:
    """The tensor of a weight's name, or of its module's; the name itself where there is neither."""
    return name if name in tensors else next((name + ending for ending in _WEIGHT_ENDINGS if name + ending in tensors), name)


def module_of(tensor: str) -> str:
    """The module of a weight, from the name of its tensor."""
    ending = next((ending for ending in _WEIGHT_ENDINGS if tensor.endswith(ending) and len(tensor) > len(ending)), "")
    return tensor.removesuffix(ending) if ending else tensor


def has_module(name: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a module of that name has a weight."""
    return any(name + ending in tensors for ending in _WEIGHT_ENDINGS)
