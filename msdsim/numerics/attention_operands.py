"""GM operands of attention: Q in bf16, the KV cache quantized, validated, in storage dtypes.

``q`` bf16 [batch, heads, q, head_dim]; ``k`` [batch, kv_heads, kv, head_dim] and ``v`` [batch, kv_heads, kv, v_dim] in
bf16, int8 (int4 one value per byte) or fp4.  Scales: per channel float32 [kv_heads, channels] (constant over batch and
tokens), per token float32 [batch, kv_heads, kv].  MXFP4 blocks run along the reduction axis of each matmul: ``k_scale`` E8M0
[batch, kv_heads, kv, ceil(head_dim/32)], ``v_scale`` [batch, kv_heads, ceil(kv/32), v_dim].

With ``shared_kv`` there are no ``v`` and ``v_scale``: V is the first v_dim channels of K, quantized as K is, with K's scales
(per channel their first v_dim, per token the same).  MXFP4 has no such cache, since the blocks of K run the other way.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msdsim.errors import ArrayError
from msdsim.formats.checks import first_index, place, require_finite, require_range, require_shape
from msdsim.formats.mx import SHARED_CACHE, dequantize_mx, quantize_mx
from msdsim.formats.number import BF16, E8M0, FORMATS, FP4_E2M1
from msdsim.formats.rounding import round_to
from msdsim.numerics.contract import Arrays, Seed
from msdsim.numerics.random import normal
from msdsim.problems.shapes import AttentionShape

ATTENTION_ARRAYS = ("q", "k", "v", "k_scale", "v_scale")


def attention_operands(problem: AttentionShape, inputs: Mapping[str, np.ndarray] | None, seed: Seed,
                       cache: str) -> Arrays:
    """Operands with the KV cache in ``cache`` (bf16, int8, int4 or mxfp4); missing arrays are normal, from ``seed``."""
    given = {name: np.asarray(array) for name, array in (inputs or {}).items()}
    unknown = [name for name in given if name not in ATTENTION_ARRAYS]
    if unknown:
        why = "; offsets of the KV cache are not modelled: give a cache quantized symmetrically" \
            if unknown[0] in ("k_offset", "v_offset") else ""
        raise ArrayError(f"unknown array '{unknown[0]}' in the inputs (known: {', '.join(ATTENTION_ARRAYS)}){why}")
    if problem.shared_kv:
        if cache == "mxfp4":
            raise ArrayError(SHARED_CACHE)
        for name in ("v", "v_scale"):
            if name in given:
                raise ArrayError(f"'{name}' cannot be given with shared_kv=1, where V is the first {problem.value_dim} "
                                 f"channels of k; leave it out")
    q_shape = (problem.batch, problem.heads, problem.q, problem.head_dim)
    q = given["q"] if "q" in given else normal(q_shape, seed, 0)
    require_shape(q, q_shape, "q")
    operands = {"q": _bf16(q, "q")}
    dims = {"k": problem.head_dim} if problem.shared_kv else {"k": problem.head_dim, "v": problem.value_dim}
    for stream, (name, dim) in enumerate(dims.items(), 1):
        kv_shape = (problem.batch, problem.kv_heads, problem.kv, dim)
        array = given[name] if name in given else normal(kv_shape, seed, stream)
        scale = given.get(f"{name}_scale")
        require_shape(array, kv_shape, name)
        if array.dtype.kind in "iu":
            values = _given_cache(array, scale, problem, cache, name)
        elif scale is not None:
            raise ArrayError(f"{name}_scale belongs to quantized {name}, but {name} is {array.dtype}; drop one of them")
        else:
            values = _bf16_cache(array, name) if cache == "bf16" else _quantized(array, problem, cache, name)
        operands |= values
    return operands


def _bf16(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiu" and array.dtype != BF16.dtype:
        raise ArrayError(f"{name} has dtype {array.dtype}; give real numbers, float32 for instance")
    require_finite(array, name)
    rounded = round_to(array, BF16)
    if not np.isfinite(rounded).all():
        bad = ~np.isfinite(rounded)
        raise ArrayError(f"{name} has {array[first_index(bad)]} at {place(bad)}, above the largest bf16; scale it down")
    return rounded


def _bf16_cache(array: np.ndarray, name: str) -> Arrays:
    return {name: _bf16(array, name)}


def _quantized(array: np.ndarray, problem: AttentionShape, cache: str, name: str) -> Arrays:
    require_finite(array, name)
    array = array.astype(np.float32)
    if cache == "mxfp4":
        # K is reduced along head_dim, V along kv.
        axis = -1 if name == "k" else 0
        flat = [quantize_mx(matrix, axis=axis, name=name) for matrix in array.reshape(-1, *array.shape[2:])]
        elements, scales = (np.stack([pair[i] for pair in flat]) for i in (0, 1))
        heads = array.shape[:2]
        return {name: elements.reshape(array.shape), f"{name}_scale": scales.reshape(*heads, *scales.shape[1:])}
    limit = np.float32(FORMATS[cache].max_value)
    axes = (0, 2) if problem.scales == "channel" else (3,)
    scale = np.max(np.abs(array), axis=axes) / limit
    scale = np.where(scale > 0, np.maximum(scale, np.finfo(np.float32).tiny), 1).astype(np.float32)
    q = np.clip(np.rint(array / spread(scale)), -limit, limit).astype(np.int8)
    return {name: q, f"{name}_scale": scale}


def _given_cache(array: np.ndarray, scale: np.ndarray | None, problem: AttentionShape, cache: str, name: str) -> Arrays:
    if scale is None:
        raise ArrayError(f"quantized '{name}' needs '{name}_scale', which the inputs lack")
    is_mx = scale.dtype == np.uint8 or scale.dtype == E8M0.dtype
    if is_mx != (cache == "mxfp4") and cache != "bf16":
        raise ArrayError(f"{name}_scale has dtype {scale.dtype}; {cache} needs "
                         f"{'uint8 E8M0 codes' if cache == 'mxfp4' else 'float32'}")
    batch, heads, kv, dim = array.shape
    if is_mx:
        require_range(array, 0, 15, name, "the E2M1 codes")
        blocks = (batch, heads, kv, -(-dim // 32)) if name == "k" else (batch, heads, -(-kv // 32), dim)
        require_shape(scale, blocks, f"{name}_scale")
        require_range(scale.view(np.uint8), 0, 254, f"{name}_scale", "the E8M0 codes")
        result: Arrays = {name: array.astype(np.uint8).view(FP4_E2M1.dtype), f"{name}_scale": scale.view(E8M0.dtype)}
    else:
        fmt = FORMATS["int8" if cache == "bf16" else cache]
        require_range(array, int(fmt.min_value), int(fmt.max_value), name, fmt.name)
        scale = _without_ones(scale, (heads, dim) if problem.scales == "channel" else (batch, heads, kv))
        require_shape(scale, (heads, dim) if problem.scales == "channel" else (batch, heads, kv), f"{name}_scale")
        scale = scale.astype(np.float32)
        require_finite(scale, f"{name}_scale")
        if not (scale > 0).all():
            bad = scale <= 0
            raise ArrayError(f"{name}_scale has {scale[first_index(bad)]} at {place(bad)}; scales are above 0")
        result = {name: array.astype(np.int8), f"{name}_scale": scale}
    return _bf16_cache(cache_values(result, name), name) if cache == "bf16" else result


def _without_ones(scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scales that come with axes of size 1, as they broadcast against the cache, without those axes."""
    long = [size for size in shape if size != 1]
    return scale.reshape(shape) if [size for size in scale.shape if size != 1] == long and scale.ndim >= len(shape) else scale


def spread(scale: np.ndarray) -> np.ndarray:
    """Scales [kv_heads, head_dim] or [batch, kv_heads, kv] as they broadcast against the cache."""
    return scale[None, :, None, :] if scale.ndim == 2 else scale[:, :, :, None]


def values_of(problem: AttentionShape, operands: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """V as it is stored and its scales, also where it is a part of K."""
    if not problem.shared_kv:
        return operands["v"], operands.get("v_scale")
    scale = operands.get("k_scale")
    if scale is not None and scale.ndim == 2:
        scale = scale[:, : problem.value_dim]
    return operands["k"][..., : problem.value_dim], scale


def exact_cache(problem: AttentionShape, operands: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Exact values (float64) of K and V."""
    k = cache_values(operands, "k")
    return k, k[..., : problem.value_dim] if problem.shared_kv else cache_values(operands, "v")


def cache_values(operands: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Exact values (float64) of ``k`` or ``v``."""
    array, scale = operands[name], operands.get(f"{name}_scale")
    if scale is None:
        return array.astype(np.float64)
    if array.dtype != FP4_E2M1.dtype:
        return array.astype(np.float64) * spread(scale.astype(np.float64))
    matrices = zip(array.reshape(-1, *array.shape[2:]), scale.reshape(-1, *scale.shape[2:]), strict=True)
    axis = -1 if name == "k" else 0
    return np.stack([dequantize_mx(a, s, axis) for a, s in matrices]).reshape(array.shape)
