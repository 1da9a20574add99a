"""Weights that are several tensors under names of their own: torchao's tensor classes as safetensors holds them, and HQQ."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from msdsim.checkpoints.beside import Beside
from msdsim.checkpoints.integers import integers
from msdsim.checkpoints.stored import StoredWeight
from msdsim.checkpoints.values import ScaledCodes

_TORCHAO = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor")
#: HQQ's packings that are read, by bits: codes a byte, the first of them in the highest bits, and rows of the packed matrix
#: hold rows that lie a share of the whole apart.
_HQQ = {8: ("8bit_u8", 1), 4: ("4bit_u8", 2), 2: ("2bit_u8", 4)}


def torchao(w: Beside) -> StoredWeight | None:
    """torchao 0.18.0 as transformers writes it: ``_weight_qdata`` [n, k] with ``_weight_scale`` [n, groups] and maybe
    ``_weight_zero_point``; the file's metadata says the class and the block that shares a scale."""
    if w.own != "_weight_qdata":
        return None
    if not w.has("_weight_scale"):
        raise w.wrong(f"is a tensor of torchao, and _weight_scale does not stand beside it ({w.shapes()}); it is not read "
                      f"without it")
    kind, block, bits = _class(w)
    info, scale = w.info, w.floats("_weight_scale")
    if len(info.shape) != 2 or len(block) != 2:
        raise w.wrong(f"torchao's {kind} of shape {list(info.shape)} with blocks {block} is not read")
    n, k = info.shape
    groups = -(-k // block[1])
    outputs = -(-n // block[0])
    if scale.size != outputs * groups or (block[0] != 1 and outputs != 1) or k % block[1]:
        raise w.wrong(f"'_weight_scale' {list(scale.shape)} is not that of blocks {block} of {[n, k]}")
    if kind == "Float8Tensor":
        if not info.dtype.startswith("F8_") or info.dtype.endswith("FNUZ"):
            raise w.wrong(f"torchao's {kind} of dtype {info.dtype} is not read")
        codes = w.read(w.own).reshape(1, n, k)
        said = "a scale per channel" if groups == 1 and outputs == n else "a scale per tensor" if scale.size == 1 else \
            f"groups of {block[1]}"
        held = ScaledCodes(codes, scale.reshape(1, outputs, groups), (block[0], block[1]))
        return StoredWeight(f"torchao {kind}, FP8 {info.dtype[3:]}, {said}", fp8=held)
    if info.dtype != "I8" or outputs not in (1, n):
        raise w.wrong(f"torchao's {kind} of dtype {info.dtype} with blocks {block} is not read")
    scale = np.broadcast_to(scale.reshape(outputs, groups), (n, groups)).T
    offset = None
    if w.has("_weight_zero_point"):
        zero = w.read("_weight_zero_point").astype(np.float32)
        if zero.size != outputs * groups:
            raise w.wrong(f"'_weight_zero_point' {list(zero.shape)} is not that of blocks {block} of {[n, k]}")
        offset = -np.broadcast_to(zero.reshape(outputs, groups), (n, groups)).T
    q = w.read(w.own)
    if bits == 4 and q.size and (q.min() < -8 or q.max() > 7):
        raise w.wrong(f"codes of {q.min()} to {q.max()} are no INT4, which the file's metadata says")
    return integers(f"torchao {kind}", q.T, scale, offset, bits, k, group=block[1])


def _class(w: Beside) -> tuple[str, list[int], int]:
    """The tensor's class, the sides of a block, and the bits of its integers, from the file's metadata."""
    try:
        about = json.loads(w.metadata.file.get(f"{w.module}.weight", ""))
        kind, data = str(about["_type"]), about["_data"]
        block = data["block_size"] if kind in _TORCHAO else []
        target: Any = data["target_dtype"]["_data"] if kind == "IntxUnpackedToInt8Tensor" else "int8"
    except (ValueError, KeyError, TypeError):
        raise w.wrong("is a tensor of torchao, and the file's metadata does not say of which class; it is not read without "
                      "it") from None
    if kind not in _TORCHAO or target not in ("int8", "int4"):
        raise w.wrong(f"torchao's {kind[:60]}{f' of {target}' if kind in _TORCHAO else ''} is not read; "
                      f"{', '.join(_TORCHAO)} of int8, int4 and FP8 are")
    if not isinstance(block, list) or not all(isinstance(side, int) and side > 0 for side in block):
        raise w.wrong(f"torchao's block_size = {str(block)[:60]} is no list of sides")
    return kind, block, 8 if target == "int8" else 4


def hqq(w: Beside) -> StoredWeight | None:
    """HQQ 0.2.8.post1, axis 1: ``W_q`` U8 holds the matrix [groups, group] of codes, ``scale`` and ``zero`` one real number a
    group: w = (q - zero) * scale."""
    if w.own != "W_q":
        return None
    bits, axis, n, k = (_number(w, name, at) for name, at in (("nbits", 0), ("axis", 0), ("shape", 0), ("shape", 1)))
    packing = _text(w, "packing")
    if axis != 1 or bits not in _HQQ or packing != _HQQ[bits][0] or w.info.dtype != "U8" or len(w.info.shape) != 2:
        raise w.wrong(f"HQQ with {bits} bits along axis {axis} as {packing[:40] or 'nothing that is named'} is not read; 8, 4 "
                      f"and 2 bits along axis 1 are")
    for rest in ("quant_scale", "quant_zero", "round_zero"):
        if w.has(rest) and w.read(rest).any() and rest != "round_zero":
            raise w.wrong(f"HQQ whose scales or zeros are quantized themselves ({rest}) is not read")
    if not w.has("scale", "zero"):
        raise w.wrong(f"is HQQ's, and scale and zero do not stand beside it ({w.shapes()}); it is not read without them")
    scale, zero = w.floats("scale").reshape(-1), w.floats("zero").reshape(-1)
    rows, group = w.info.shape[0] * _HQQ[bits][1], w.info.shape[1]
    if rows * group != n * k or k % group or len(scale) != rows or len(zero) != rows:
        raise w.wrong(f"W_q {list(w.info.shape)}, scale [{len(scale)}] and zero [{len(zero)}] are not those of {[n, k]} in "
                      f"groups along the inputs")
    packed, count = w.read("W_q"), _HQQ[bits][1]
    parts = [(packed >> (bits * (count - 1 - at))) & ((1 << bits) - 1) for at in range(count)]
    middle = 1 << (bits - 1)
    q = (np.concatenate(parts).astype(np.int16) - middle).astype(np.int8).reshape(n, k)
    groups = k // group
    return integers("HQQ", q.T, scale.reshape(n, groups).T, (middle - zero).reshape(n, groups).T, max(bits, 4), k, group=group)


def _number(w: Beside, rest: str, at: int) -> int:
    """A number that HQQ keeps in a tensor beside the weight."""
    if not w.has(rest):
        raise w.wrong(f"is HQQ's, and '{rest}' does not stand beside it ({w.shapes()}); it is not read without it")
    values = w.read(rest).reshape(-1)
    if at >= len(values) or values.dtype.kind not in "iu":
        raise w.wrong(f"'{rest}' of HQQ holds {values.tolist()[:4]}")
    return int(values[at])


def _text(w: Beside, name: str) -> str:
    return bytes(w.read(name).astype(np.uint8)).decode("utf-8", "replace") if w.has(name) else ""
