"""Checkpoints in the forms that quantizers publish, made by plain loops over bits, with the values that they stand for."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np

NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "uint8": "U8", "int32": "I32", "uint32": "U32",
         "int64": "I64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0"}
MODULE = "model.layers.0.mlp.down_proj"
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def save(path, tensors, metadata=None):
    """A safetensors file of arrays by name."""
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    if metadata:
        header["__metadata__"] = metadata
    body = json.dumps(header).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + data)
    return path


def layer(tensors):
    """The tensors of one layer under its name."""
    return {f"{MODULE}.{rest}": array for rest, array in tensors.items()}


def pack(codes, bits, order=None):
    """int32 words [..., ceil(n bits/32)] of codes [..., n], low bits first, dense; ``order`` permutes each eight nibbles."""
    codes = np.asarray(codes)
    n = codes.shape[-1]
    words = -(-n * bits // 32)
    rows = codes.reshape(-1, n)
    out = np.zeros((len(rows), words), np.uint32)
    for i, row in enumerate(rows):
        stream = 0
        for j in range(n):
            value = row[j // 8 * 8 + order[j % 8]] if order else row[j]
            stream |= (int(value) & ((1 << bits) - 1)) << (j * bits)
        for word in range(words):
            out[i, word] = (stream >> (32 * word)) & 0xFFFFFFFF
    return out.view(np.int32).reshape(*codes.shape[:-1], words)


def pairs(codes):
    """uint8 [..., n/2], the first of two codes low."""
    codes = np.asarray(codes).astype(np.uint8) & 15
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def group_of(k, group):
    return np.arange(k) // group


class Made:
    """A checkpoint's tensors, the tensor to name, and its values [n, k] in float32."""

    def __init__(self, tensors, own, values, config=None):
        self.tensors, self.own, self.values, self.config = tensors, own, np.asarray(values, np.float32), config

    def write(self, folder):
        path = save(folder / "model.safetensors", layer(self.tensors) if self.own else self.tensors)
        if self.config is not None:
            (folder / "config.json").write_text(json.dumps({"quantization_config": self.config}))
        return f"{path}:{MODULE}.{self.own}"


def gptq(n=24, k=64, group=16, bits=4, *, v2=False, act_order=False, negative=False, seed=0, config=True):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, (k, n))
    groups = k // group
    zeros = rng.integers(1, 1 << bits, (groups, n))
    scale = (rng.random((groups, n)) * 0.1 + 0.01).astype(np.float16)
    if negative:
        scale *= np.where(rng.random(scale.shape) < 0.5, -1, 1).astype(np.float16)
    index = rng.permutation(group_of(k, group)) if act_order else group_of(k, group)
    values = np.zeros((n, k))
    for row in range(k):
        for column in range(n):
            values[column, row] = (float(codes[row, column]) - zeros[index[row], column]) * float(scale[index[row], column])
    tensors = {"qweight": np.ascontiguousarray(pack(codes.T, bits).T), "qzeros": pack(zeros - (0 if v2 else 1), bits), "scales": scale,
               "g_idx": index.astype(np.int32)}
    stated = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "checkpoint_format": "gptq_v2" if v2 else "gptq"}
    return Made(tensors, "qweight", values, stated if config else None)


def awq(n=24, k=64, group=16, seed=1):
    rng = np.random.default_rng(seed)
    codes, zeros = rng.integers(0, 16, (k, n)), rng.integers(0, 16, (k // group, n))
    scale = (rng.random((k // group, n)) * 0.1 + 0.01).astype(np.float16)
    values = ((codes - zeros[group_of(k, group)]) * scale[group_of(k, group)].astype(float)).T
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return Made({"qweight": pack(codes, 4, order), "qzeros": pack(zeros, 4, order), "scales": scale}, "qweight", values)


def compressed(n=24, k=60, group=20, bits=4, *, zeros=False, seed=2):
    """k = 60 needs padding to whole words."""
    rng = np.random.default_rng(seed)
    middle = 1 << (bits - 1)
    q, zero = rng.integers(-middle, middle, (n, k)), rng.integers(-middle, middle, (n, k // group)) * zeros
    scale = (rng.random((n, k // group)) * 0.1 + 0.01).astype(ml_dtypes.bfloat16)
    values = (q - zero[:, group_of(k, group)]) * scale.astype(float)[:, group_of(k, group)]
    tensors = {"weight_packed": pack(q + middle, bits), "weight_scale": scale, "weight_shape": np.array([n, k])}
    if zeros:
        tensors["weight_zero_point"] = np.ascontiguousarray(pack((zero + middle).T, bits).T)
    return Made(tensors, "weight_packed", values)


def bytes8(n=24, k=64, *, groups=1, size=None, bits=8, offset=False, seed=3):
    rng = np.random.default_rng(seed)
    q = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (n, k)).astype(np.int8)
    scale = (rng.random((n, groups)) * 0.1 + 0.01).astype(np.float32)
    zero = rng.integers(-5, 6, (n, groups)).astype(np.float32) * offset
    which = group_of(k, size or k // groups)
    values = (q.astype(float) - zero[:, which]) * scale.astype(float)[:, which]
    return Made({"weight": q, "weight_scale": scale} | ({"weight_offset": zero} if offset else {}), "weight", values)


def output_pairs(n=24, k=64, seed=4, unsigned=False):
    """msmodelslim W4A8 (I8) and modelopt INT4 (U8): outputs 2r and 2r + 1 in a byte."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (n, k))
    scale = (rng.random((n, 1)) * 0.1 + 0.01).astype(np.float32)
    packed = pairs(np.ascontiguousarray(q.T)).T
    values = q * scale.astype(float)
    return Made({"weight": packed if unsigned else packed.view(np.int8), "weight_scale": scale}, "weight", values)


def fp8(n=40, k=48, block=(16, 16), scale_dtype=np.float32, seed=5, name="weight_scale_inv"):
    """Blocks, the last ones partial; the scale's bits decide whether it is E8M0."""
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((n, k)).astype(ml_dtypes.float8_e4m3fn)
    shape = (-(-n // block[0]), -(-k // block[1]))
    if scale_dtype in (np.uint8, ml_dtypes.float8_e8m0fnu):
        raw = rng.integers(120, 134, shape).astype(np.uint8)
        scale, real = raw.view(scale_dtype), 2.0 ** (raw.astype(float) - 127)
    else:
        scale = (rng.random(shape) + 0.5).astype(scale_dtype)
        real = scale.astype(float)
    values = np.zeros((n, k))
    for i in range(n):
        for j in range(k):
            values[i, j] = float(codes[i, j]) * real[i // block[0], j // block[1]]
    return Made({"weight": codes, name: scale}, "weight", values,
                {"quant_method": "fp8", "weight_block_size": list(block)})


def mxfp4(n=24, k=64, *, form="weight_packed", seed=6, experts=0):
    rng = np.random.default_rng(seed)
    lead = (experts,) if experts else ()
    codes = rng.integers(0, 16, (*lead, n, k))
    scale = rng.integers(118, 130, (*lead, n, -(-k // 32))).astype(np.uint8)
    values = np.array(E2M1)[codes] * 2.0 ** (scale[..., group_of(k, 32)].astype(float) - 127)
    packed = pairs(codes)
    if form == "_blocks":
        return Made({f"{MODULE}_blocks": packed.reshape(*lead, n, k // 32, 16), f"{MODULE}_scales": scale}, "", values)
    if form == "I8":
        return Made({"weight": packed.view(np.int8), "scale": scale.view(ml_dtypes.float8_e8m0fnu)}, "weight", values)
    return Made({form: packed, "weight_scale": scale}, form, values)


def nvfp4(n=24, k=64, seed=7, reciprocal=False):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (n, k))
    scale = (rng.random((n, k // 16)) * 100 + 1).astype(ml_dtypes.float8_e4m3fn)
    whole = np.array([0.25], np.float32)
    values = np.array(E2M1)[codes] * (scale.astype(float) * 0.25)[:, group_of(k, 16)]
    if reciprocal:
        return Made({"weight_packed": pairs(codes), "weight_scale": scale, "weight_global_scale": 1 / whole}, "weight_packed", values)
    return Made({"weight": pairs(codes), "weight_scale": scale, "weight_scale_2": whole.reshape(())}, "weight", values)


def quark(n=24, k=64, group=16, dtype="int4", seed=8):
    rng = np.random.default_rng(seed)
    low = -8 if dtype == "int4" else 0
    q, zero = rng.integers(low, low + 16, (k, n)), rng.integers(low, low + 16, (k // group, n))
    scale = (rng.random((k // group, n)) * 0.1 + 0.01).astype(ml_dtypes.bfloat16)
    values = ((q - zero[group_of(k, group)]) * scale.astype(float)[group_of(k, group)]).T
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return Made({"weight": pack(q, 4, order), "weight_scale": scale, "weight_zero_point": pack(zero, 4, order)}, "weight", values,
                {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": dtype}}, "export": {"pack_method": "reorder"}})
