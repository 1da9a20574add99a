"""Integer weights in a tensor that is simply called ``weight``: what an I8 or U8 means is told by the tensors beside it.

An I8 tensor is one of four: a weight a byte (W8A8), a 4-bit code a byte (W4A8), two outputs a byte (msmodelslim W4A8), or two
E2M1 inputs a byte (DeepSeek-V4).  The scales [n, groups] say how many outputs there are, and their dtype whether they are MX.
"""

from __future__ import annotations

import numpy as np

from msdsim.checkpoints.beside import Beside
from msdsim.checkpoints.bits import signed4, unpack_awq, unpack_last
from msdsim.checkpoints.integers import integers
from msdsim.checkpoints.stored import StoredWeight

_SCALES = ("weight_scale", "scale", "SCB", "scales", "_scale", "weight_scale_inv")


def plain_bytes(w: Beside) -> StoredWeight | None:
    """W8A8 of compressed-tensors 0.20.1 (int-quantized) and msmodelslim 26.1.0, modelopt 0.47.0 SmoothQuant, bitsandbytes
    0.50.2 LLM.int8(), and INT4 of msmodelslim (I8) and modelopt (U8), both two outputs a byte, the even one low."""
    info = w.info
    if info.dtype not in ("I8", "U8") or len(info.shape) not in (2, 3) or w.own in ("weight_packed", "_blocks"):
        return None
    rest = w.first(*_SCALES)
    if rest is None:
        return _static(w)
    scale_info = w.tensors[rest]
    if scale_info.dtype in ("F8_E8M0", "U8", "F8_E4M3"):
        return None
    if len(info.shape) == 3:
        raise w.wrong(f"integers of three dimensions ({w.shapes()}) are not read; give one expert as an npz, or the experts "
                      "apart")
    rows, k = info.shape
    size = scale_info.shape
    outputs = size[0] if size and np.prod(size) > 1 else rows
    if (len(size) == 2 and size[0] == 1 and size[1] > 1) or len(size) > 2:
        raise w.wrong(f"the scales {list(size)} of '{rest}' are neither [n], [n, 1] nor [n, groups] for {list(info.shape)}")
    scale = w.floats(rest)
    groups = size[1] if len(size) == 2 else 1
    if outputs not in (rows, 2 * rows) or not 0 < groups <= k:
        raise w.wrong(f"the scales {list(size)} of '{rest}' fit neither {rows} outputs nor {2 * rows} (two a byte)")
    scale = np.broadcast_to(scale.reshape(-1, groups), (outputs, groups)).T
    if outputs == 2 * rows:
        q, bits, layout = _two_outputs(w.read(w.own)), 4, "two outputs a byte"
    elif info.dtype == "U8":
        raise w.wrong(f"bytes without a sign ({w.shapes()}) are no layout that is known; with scales of {2 * rows} rows they "
                      "would be "
                      "INT4, two outputs a byte")
    else:
        q, bits, layout = w.read(w.own).T, 8, "a weight a byte"
        if groups > 1 and q.min() >= -8 and q.max() <= 7:
            bits = 4
    if rest == "SCB":
        # The row's largest magnitude, not the step.
        scale, layout = scale / np.float32(127), "bitsandbytes LLM.int8()"
    offset, notes = _offset(w, scale.shape)
    factor = None
    if w.has("pre_quant_scale"):
        factor = w.floats("pre_quant_scale").reshape(-1)
        if factor.shape != (k,):
            raise w.wrong(f"pre_quant_scale has shape {list(factor.shape)}; it has one factor for each of {k} inputs")
        notes += ("activations are multiplied by pre_quant_scale before the product",)
    elif w.metadata.method == "modelopt" and w.metadata.quantization.get("pre_quant_scale"):
        notes += ("no pre_quant_scale beside it: where the checkpoint has folded it into the layer norm, the weight is the "
                  "smoothed one",)
    return integers(layout, q, scale, offset, bits, k, group=w.group(k, groups), factor=factor, notes=notes)


def _two_outputs(packed: np.ndarray) -> np.ndarray:
    """int8 [k, 2 rows] of bytes [rows, k] that hold outputs 2r (low) and 2r + 1."""
    rows, k = packed.shape
    raw = packed.view(np.uint8)
    out = np.empty((rows, 2, k), np.uint8)
    np.bitwise_and(raw, 15, out=out[:, 0])
    np.right_shift(raw, 4, out=out[:, 1])
    return signed4(out.reshape(2 * rows, k)).T


def _offset(w: Beside, shape: tuple[int, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Our offset, minus the zero point, [groups, n]."""
    rest = w.first("weight_offset", "weight_zero_point")
    if rest is None:
        if any(table.get("symmetric") is False for table in w.schemes()):
            raise w.wrong("the config says that the weights are not symmetric, and there is no weight_zero_point beside them")
        return None, ()
    zero = w.read(rest).astype(np.float32)
    if zero.size == 1:
        return np.full(shape, -zero.reshape(-1)[0], np.float32), ()
    if zero.size != shape[0] * shape[1]:
        raise w.wrong(f"'{rest}' has shape {list(zero.shape)}, and there are {shape[1]} outputs in {shape[0]} groups")
    return -zero.reshape(shape[1], shape[0]).T, ()


def _static(w: Beside) -> StoredWeight:
    """msmodelslim W8A8 with static activations: deq_scale = input_scale * weight_scale, float32 or its bits in int64."""
    if w.info.dtype != "I8" or not w.has("deq_scale", "input_scale") or len(w.info.shape) != 2:
        raise w.wrong(f"{w.info.dtype} values without a scale beside them ({w.shapes()}); weights without their scales are "
                      "not read")
    n, k = w.info.shape
    deq = w.read("deq_scale").reshape(-1)
    if deq.dtype == np.int64:
        deq = (deq & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    step = w.floats("input_scale").reshape(-1)
    if deq.shape != (n,) or step.size != 1 or not step[0] or not np.isfinite(deq).all():
        raise w.wrong(f"deq_scale {list(deq.shape)} and input_scale {list(step.shape)} are not [{n}] and [1] of finite numbers")
    return integers("a weight a byte", w.read(w.own).T, deq.astype(np.float32) / step[0], None, 8, k,
                    notes=("there is no weight_scale: it is taken as deq_scale / input_scale",))


def quark(w: Beside) -> StoredWeight | None:
    """amd-quark 0.13 INT4 and UINT4: weight I32 [k, n/8], weight_scale [groups, n], weight_zero_point I32 [groups, n/8]; signed
    nibbles unless the config says uint4, in AWQ's order unless it says pack_method order."""
    info = w.info
    if info.dtype != "I32" or w.own != "weight" or len(info.shape) != 2 or not w.has("weight_scale"):
        return None
    k, words = info.shape
    size = w.tensors["weight_scale"].shape
    if len(size) != 2 or size[1] != 8 * words:
        return None
    weights = w.metadata.quantization.get("global_quant_config")
    weights = weights.get("weight") if isinstance(weights, dict) else None
    weights = weights if isinstance(weights, dict) else {}
    dtype = weights.get("dtype")
    if dtype not in ("int4", "uint4"):
        raise w.wrong("32-bit words along the outputs are INT4 or UINT4 of amd-quark, and no config.json beside the file "
                      "says which "
                      "(quantization_config.global_quant_config.weight.dtype)")
    export = w.metadata.quantization.get("export")
    straight = isinstance(export, dict) and export.get("pack_method") == "order"

    def unpacked(rest: str) -> np.ndarray:
        words = w.read(rest)
        return unpack_last(words, 4, 8 * words.shape[1]) if straight else unpack_awq(words)

    codes = unpacked("weight")
    signed = dtype == "int4"
    q = signed4(codes) if signed else codes.view(np.int8) - np.int8(8)
    scale, offset = w.floats("weight_scale"), None
    if w.has("weight_zero_point"):
        zeros = unpacked("weight_zero_point")
        if zeros.shape != scale.shape:
            raise w.wrong(f"weight_zero_point holds {list(zeros.shape)} zero points for scales {list(scale.shape)}")
        offset = -signed4(zeros).astype(np.float32) if signed else 8 - zeros.astype(np.float32)
    elif weights.get("symmetric") is not True:
        raise w.wrong("there is no weight_zero_point beside it, and the config does not say that the weights are symmetric")
    elif not signed:
        offset = np.full_like(scale, 8)
    return integers(f"quark {dtype}", q, scale, offset, 4, k, group=w.group(k, size[0]))
