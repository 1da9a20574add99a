"""Layouts of floating-point weights: 16 and 32 bits, FP8 with its scales, MXFP4 and NVFP4."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msdsim.checkpoints.beside import Beside, exponents
from msdsim.checkpoints.bits import unpack_last
from msdsim.checkpoints.stored import StoredWeight
from msdsim.checkpoints.values import ScaledCodes
from msdsim.formats.number import E8M0, FP4_E2M1

_PLAIN = {"F64": "FP64", "F32": "FP32", "F16": "FP16", "BF16": "BF16"}
_FP8_SCALES = ("weight_scale_inv", "weight_scale", "scale", "qscale_weight", "_scale_inv", "_scale", "scale_inv")


def plain(w: Beside) -> StoredWeight | None:
    """FP64, FP32, FP16 and BF16: values as they are, [n, k] or [k, n]."""
    if w.info.dtype not in _PLAIN:
        return None
    beside = [rest for rest in w.scales if rest != "pre_quant_scale"]
    if beside:
        raise w.wrong(f"'{beside[0][:100]}' stands beside it, which no layout of {_PLAIN[w.info.dtype]} weights has "
                      f"({w.shapes()}); it is "
                      "not read without it")
    array = w.read(w.own)
    values = array if array.dtype == np.float64 else array.astype(np.float32, copy=False)
    factor = w.floats("pre_quant_scale").reshape(-1) if w.has("pre_quant_scale") else None
    return StoredWeight(_PLAIN[w.info.dtype], values=values, input_factor=factor, oriented=False)


def fp8(w: Beside) -> StoredWeight | None:
    """FP8 [n, k] or [experts, n, k] times a scale per tensor, channel, group of inputs, or block (DeepSeek-V3, Qwen, Mistral,
    compressed-tensors float-quantized, modelopt and quark FP8, MXFP8).  Every scale multiplies, whatever its name says."""
    info = w.info
    if not info.dtype.startswith("F8_E4M3") and info.dtype != "F8_E5M2":
        return None
    if info.dtype.endswith("FNUZ"):
        raise w.wrong(f"{info.dtype} has another bias than FP8 of OCP and is not read")
    rest = w.first(*_FP8_SCALES)
    if rest is None or len(w.scales) > 1:
        what = f"{len(w.scales)} scales beside it" if rest is not None else "no scale beside it"
        raise w.wrong(f"FP8 with {what} ({w.shapes()}); FP8 weights are read with one scale tensor")
    if len(info.shape) not in (2, 3):
        raise w.wrong(f"FP8 of {len(info.shape)} dimensions; a weight has two, or three with experts in front")
    stored = w.tensors[rest]
    scale = exponents(w.read(rest)) if stored.dtype == "U8" else w.floats(rest)
    if scale.ndim == 4 and len(info.shape) == 2 and scale.shape[1] == scale.shape[3] == 1:
        # modelopt keeps the axes within a block.
        scale = scale[:, 0, :, 0]
    if scale.ndim > len(info.shape):
        raise w.wrong(f"the scales {list(scale.shape)} of '{rest}' have more dimensions than the weight, {list(info.shape)}")
    n = info.shape[-2]
    block, said = _block(w, scale, rest)
    experts = info.shape[0] if len(info.shape) == 3 else 1
    lead = len(scale) if experts > 1 and scale.size > 1 else 1
    scales = scale.reshape(lead, -(-n // block[0]), -1)
    codes = w.read(w.own).reshape(experts, n, info.shape[-1])
    held = ScaledCodes(codes, scales, block)
    return StoredWeight(f"FP8 {info.dtype[3:]}, {said}", fp8=held, has_experts=len(info.shape) == 3)


def _block(w: Beside, scale: np.ndarray, rest: str) -> tuple[tuple[int, int], str]:
    """Rows and columns that share a scale, and a word for it."""
    n, k = w.info.shape[-2:]
    experts = w.info.shape[0] if len(w.info.shape) == 3 else 1
    if not scale.size:
        raise w.wrong(f"'{rest}' is empty (shape {list(scale.shape)})")
    if scale.size == 1 or (experts > 1 and scale.shape in ((experts,), (experts, 1), (experts, 1, 1))):
        return (n, k), "a scale per tensor"
    if experts > 1 and (scale.ndim != 3 or len(scale) != experts):
        raise w.wrong(f"the scales {list(scale.shape)} of '{rest}' are not those of {experts} experts")
    own = scale.shape[-2:] if scale.ndim > 1 else (*scale.shape, 1)
    if scale.ndim == 1 and len(scale) != n:
        raise w.wrong(f"the {len(scale)} scales of '{rest}' fit neither the tensor nor its {n} outputs")
    if own[0] == n and n > 1:
        if own[1] == 1:
            if k > 32 and w.tensors[rest].dtype in ("U8", "F8_E8M0"):
                raise w.wrong(f"'{rest}' has one E8M0 scale for each {k} inputs, and MX has one for each 32")
            return (1, k), "a scale per channel"
        size = w.group(k, own[1])
        return (1, size), f"groups of {size}"
    if own[0] == 1 and own[1] == k:
        raise w.wrong(f"the scales {list(scale.shape)} of '{rest}' go with the last axis, which is that of the inputs: the "
                      "weight may be stored [k, n], and is not read")
    rows, columns = _side(w, n, own[0], 0, rest), _side(w, k, own[1], 1, rest)
    if own[0] > 1 and own[1] > 1 and rows != columns and not _stated_block(w):
        raise w.wrong(f"the scales {list(scale.shape)} of '{rest}' would be those of blocks of {rows} x {columns}; a "
                      "config.json beside the file decides (weight_block_size)")
    return (rows, columns), f"blocks of {rows} x {columns}"


def _stated_block(w: Beside) -> tuple[int, int] | None:
    """Rows and columns of a block as the config states them."""
    for table, key in ((w.metadata.quantization, "weight_block_size"), *((table, "block_structure") for table in w.schemes())):
        stated = table.get(key)
        if isinstance(stated, list) and len(stated) == 2 and all(isinstance(side, int) and side > 0 for side in stated):
            return stated[0], stated[1]
    return None


def _side(w: Beside, size: int, count: int, axis: int, rest: str) -> int:
    """The side of a block: what the config says where it fits, else the one power of two that does."""
    if not 0 < count <= size:
        raise w.wrong(f"{count} scales of '{rest}' along {size} {('outputs', 'inputs')[axis]}")
    if count == 1:
        return size
    stated = _stated_block(w)
    if stated:
        if -(-size // stated[axis]) == count:
            return stated[axis]
        raise w.wrong(f"{count} scales of '{rest}' along {size} {('outputs', 'inputs')[axis]}, and the config says blocks of "
                      f"{stated[0]} x {stated[1]}")
    fitting = [1 << power for power in range(1, 20) if -(-size // (1 << power)) == count]
    if size % count == 0 and not fitting:
        fitting = [size // count]
    if len(fitting) != 1:
        raise w.wrong(f"{count} scales of '{rest}' along {size} {('outputs', 'inputs')[axis]}: blocks of "
                      f"{' or '.join(map(str, fitting)) or 'no size'}; a config.json beside the file decides "
                      "(weight_block_size)")
    return fitting[0]


def mxfp4(w: Beside) -> StoredWeight | None:
    """MXFP4: two E2M1 inputs a byte, the first low, and E8M0 scales [n, k/32].

    gpt-oss (`_blocks` U8 [experts, n, k/32, 16] with `_scales`), compressed-tensors 0.20.1 and auto-round (weight_packed),
    amd-quark 0.13, modelopt 0.47.0 and msmodelslim 26.1.0 (weight U8), DeepSeek-V4 (weight I8, scale F8_E8M0).
    """
    info = w.info
    if info.dtype not in ("U8", "I8") or w.first("weight_global_scale", "weight_scale_2"):
        return None
    rest = w.first("_scales") if w.own == "_blocks" else w.first("weight_scale", "scale", "_scale")
    if w.own in ("_blocks", "weight_packed") and rest is None:
        raise w.wrong(f"packed E2M1 without a scale beside it ({w.shapes()}); weights without their scales are not read")
    if rest is None or w.tensors[rest].dtype not in ("U8", "F8_E8M0"):
        return None
    shape, size = info.shape, w.tensors[rest].shape
    blocks = w.own == "_blocks"
    if blocks:
        if len(shape) < 3 or shape[-1] != 16 or shape[:-1] != size:
            raise w.wrong(f"_blocks {list(shape)} with _scales {list(size)} are not [experts, n, k/32, 16] with [experts, n, "
                          "k/32]")
        shape = (*shape[:-2], shape[-2] * 16)
    k = 2 * shape[-1]
    if shape[:-1] != size[:-1] or size[-1] != -(-k // 32):
        if shape[:-1] == size[:-1] and size[-1] == -(-shape[-1] // 32):
            raise w.wrong(f"bytes with an E8M0 scale for each 32 of them ({w.shapes()}) are MXINT8, which is not read")
        raise w.wrong(f"scales {list(size)} of '{rest}' are not those of {[*shape[:-1], k]} MXFP4 values, one for each "
                      "32")
    if len(shape) not in (2, 3):
        raise w.wrong(f"MXFP4 of {len(shape)} dimensions; a weight has two, or three with experts in front")
    scale = w.read(rest).view(np.uint8)
    if (scale == 255).any():
        raise w.wrong(f"'{rest}' has the E8M0 NaN code 255; codes are 0 to 254")
    with w.packed(w.own) as packed:
        codes = unpack_last(replace(packed, shape=shape), 4, k)
    return StoredWeight(f"MXFP4{' (gpt-oss)' if blocks else ''}", q=np.swapaxes(codes.view(FP4_E2M1.dtype), -1, -2),
                        scale=np.swapaxes(scale, -1, -2).view(E8M0.dtype), bits=4)


def nvfp4(w: Beside) -> StoredWeight | None:
    """NVFP4 as values: E2M1 times E4M3 scales [n, k/16], times modelopt's weight_scale_2 or over compressed-tensors'
    weight_global_scale."""
    rest = w.first("weight_scale_2", "weight_global_scale")
    if w.info.dtype != "U8" or rest is None or len(w.info.shape) != 2:
        return None
    if w.has("weight_scale", "weight_scale_2") and w.tensors["weight_scale"].dtype in ("F32", "F16", "BF16"):
        raise w.wrong(f"two scales of real numbers ({w.shapes()}), as modelopt's W4A8_AWQ has them, are not read")
    if not w.has("weight_scale") or w.tensors["weight_scale"].dtype != "F8_E4M3":
        raise w.wrong(f"NVFP4 without its E4M3 weight_scale ({w.shapes()}); weights without their scales are not read")
    n, k = w.info.shape[0], 2 * w.info.shape[1]
    if w.tensors["weight_scale"].shape != (n, -(-k // 16)):
        raise w.wrong(f"weight_scale {list(w.tensors['weight_scale'].shape)} is not {[n, -(-k // 16)]}, one for each 16 inputs")
    whole = w.floats(rest).reshape(-1)
    if whole.size != 1 or not whole[0]:
        raise w.wrong(f"'{rest}' is not one number other than 0")
    table = np.arange(16, dtype=np.uint8).view(FP4_E2M1.dtype).astype(np.float32)
    block = w.floats("weight_scale")
    block = block * whole[0] if rest == "weight_scale_2" else block / whole[0]
    with w.packed(w.own) as packed:
        values = table[unpack_last(packed, 4, k)]
    values *= np.repeat(block, 16, axis=1)[:, :k]
    factor = w.floats("pre_quant_scale").reshape(-1) if w.has("pre_quant_scale") else None
    if factor is not None and factor.shape != (k,):
        raise w.wrong(f"pre_quant_scale has shape {list(factor.shape)}; it has one factor for each of {k} inputs")
    return StoredWeight("NVFP4", values=values.T, input_factor=factor,
                        notes=("no dataflow multiplies NVFP4 as it is: it is given by its values",))
