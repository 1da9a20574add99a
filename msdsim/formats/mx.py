"""OCP Microscaling (MX v1.0): blocks of 32 elements that share one E8M0 scale.

The exponent of a block scale is derived from the block maximum by exponent arithmetic (``frexp``), never by a cast to
e8m0, which would round to nearest and saturate some blocks.  Rules, for an element format whose largest power of two
is 2^emax (fp4 e2m1: 2, e4m3: 8) and whose largest value is ``max_value``:

``alpha``      scale = 2^(ceil(log2 max) - emax): the maximum lands in (2^(emax-1), 2^emax] and never saturates.  This
               is the rule behind the MSD bound alpha/8^n, alpha = 2^ceil(log2 max).
``ocp-floor``  scale = 2^(floor(log2 max) - emax), the rule of the OCP document: maxima above ``max_value`` saturate.
``rceil``      scale = 2^ceil(log2(max / max_value)): the smallest power of two that does not saturate.
``even``       scale = 2^(floor(log2 max') - emax), max' the maximum rounded to the mantissa bits of the element, ties up: what
               compressed-tensors 0.20 and amd-quark 0.13 write (torchao calls it EVEN).  Saturates up to a half step.

Users write ``floor`` for ``ocp-floor``, and ``ceil`` is torchao's name for ``alpha``.
"""

from __future__ import annotations

import numpy as np

from msdsim.errors import InputError
from msdsim.formats.checks import require_finite
from msdsim.formats.number import E8M0, FORMATS, FP4_E2M1, NumberFormat
from msdsim.formats.rounding import decode, round_to
from msdsim.registry import unknown_name

MX_BLOCK = 32
#: Name of an MX format (elements with their block scales) by that of its elements, and the other way round.
MX_MODES = {"fp4_e2m1": "mxfp4", "fp8_e4m3fn": "mxfp8"}
MX_ELEMENTS = {mode: element for element, mode in MX_MODES.items()}
#: Why an MXFP4 cache of keys cannot serve as values.
SHARED_CACHE = ("shared_kv=1 is not possible with an MXFP4 cache: the blocks of K run along head_dim, those of V along kv; "
                "leave out shared_kv, or use a bf16, int8 or int4 cache")
_ELEMENTS_AT_ONCE = 1 << 17  # blocks are quantized in pieces of about this size, so that temporaries stay in cache
SCALE_RULES = ("alpha", "ocp-floor", "rceil", "even")
#: Rules by the names that users write.
RULE_NAMES = {"floor": "ocp-floor", "rceil": "rceil", "ceil": "alpha", "even": "even", "alpha": "alpha"}
#: The rule of the OCP document, for weights and caches that are quantized here.
DEFAULT_RULE = "floor"
MIN_SCALE_EXPONENT = E8M0.min_exponent
MAX_SCALE_EXPONENT = E8M0.max_exponent


def rule_named(name: str) -> str:
    """The scale rule by the name that users write; UnknownNameError for others."""
    if name in SCALE_RULES:
        return name
    if name not in RULE_NAMES:
        raise unknown_name("scale rule", name, list(RULE_NAMES))
    return RULE_NAMES[name]


def element_format(fmt: str) -> str:
    """Format of the elements of ``fmt``, which may be the name of an MX format."""
    return MX_ELEMENTS.get(fmt, fmt)


def element_bits(fmt: str) -> int:
    """Bits of an element of ``fmt``, without its part of a block's scale."""
    return FORMATS[element_format(fmt)].bits


def block_count(k: int) -> int:
    """Blocks along a reduction axis of ``k`` elements; a last block of fewer than 32 elements counts."""
    return -(-k // MX_BLOCK)


def ceil_log2(values: np.ndarray) -> np.ndarray:
    """Exact ceil(log2(v)) of positive finite float ``values`` (int32; zero gives 0)."""
    fraction, exponent = np.frexp(values)
    return exponent - (fraction == 0.5)


def in_blocks(x: np.ndarray, axis: int) -> np.ndarray:
    """``x`` in whole blocks, padded with zeros: [blocks, 32, n] for axis 0, [m, blocks, 32] for -1."""
    missing = -x.shape[axis] % MX_BLOCK
    if missing:
        x = np.pad(x, ((0, missing), (0, 0)) if axis == 0 else ((0, 0), (0, missing)))
    return x.reshape(-1, MX_BLOCK, x.shape[1]) if axis == 0 else x.reshape(x.shape[0], -1, MX_BLOCK)


def block_max(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """max|x| of each block along ``axis`` (0 or -1): [m, k] -> [m, blocks] for -1, [k, n] -> [blocks, n] for 0."""
    return np.abs(in_blocks(x, axis)).max(axis=1 if axis == 0 else 2)


def scale_exponent(maxima: np.ndarray, fmt: NumberFormat = FP4_E2M1, rule: str = "alpha",
                   min_exponent: int = MIN_SCALE_EXPONENT) -> np.ndarray:
    """Exponent e of the block scale 2^e (int32) for block ``maxima``; a block of zeros gets ``min_exponent``."""
    fraction, exponent = np.frexp(maxima)
    if rule == "alpha":
        result = exponent - (fraction == 0.5) - fmt.max_exponent
    elif rule == "ocp-floor":
        result = exponent - 1 - fmt.max_exponent
    elif rule == "rceil":
        limit_fraction, limit_exponent = np.frexp(fmt.max_value)
        result = exponent - limit_exponent + (fraction > limit_fraction)
    elif rule == "even":
        # The top half step of a binade rounds up into the next one.
        result = exponent - 1 - fmt.max_exponent + (fraction >= 1 - 2.0 ** -(fmt.mantissa_bits + 2))
    else:
        raise InputError(f"unknown MX scale rule '{rule}' (known: {', '.join(SCALE_RULES)})")
    result = np.where(maxima > 0, result, min_exponent)
    return np.clip(result, min_exponent, MAX_SCALE_EXPONENT).astype(np.int32)


def exponent_to_code(exponent: np.ndarray) -> np.ndarray:
    """E8M0 array (storage dtype) of the scales 2^exponent."""
    return (exponent + E8M0.bias).astype(np.uint8).view(E8M0.dtype)


def code_to_exponent(scale: np.ndarray) -> np.ndarray:
    """Exponents (int32) of E8M0 scales given as e8m0 or as uint8 codes; code 255 (NaN) is refused by the callers."""
    return scale.view(np.uint8).astype(np.int32) - E8M0.bias


def expand(per_block: np.ndarray, k: int, axis: int = -1) -> np.ndarray:
    """Repeat block values along ``axis`` to ``k`` elements."""
    whole = np.repeat(per_block, MX_BLOCK, axis=axis)
    return whole[:k] if axis == 0 else whole[..., :k]


def quantize_mx(x: np.ndarray, fmt: NumberFormat = FP4_E2M1, rule: str = "ocp-floor", axis: int = -1,
                min_exponent: int = MIN_SCALE_EXPONENT, name: str = "x") -> tuple[np.ndarray, np.ndarray]:
    """Quantize ``x`` (float, 2-D) in blocks of 32 along ``axis`` (0 or -1).

    Returns the elements in the storage dtype of ``fmt`` (shape of ``x``) and the E8M0 scales ([m, blocks] or
    [blocks, n]).  Elements are rounded half to even and saturate.  A ragged last block uses its own elements only; a
    block of zeros gets the smallest scale and zeros.
    """
    x = np.asarray(x).astype(np.float32, copy=False)
    require_finite(x, name)
    blocks, within = in_blocks(x, axis), 1 if axis == 0 else 2
    elements = np.empty(blocks.shape, fmt.dtype)
    exponents = np.empty(np.delete(blocks.shape, within), np.int32)
    step = max(1, _ELEMENTS_AT_ONCE // blocks[0].size)
    for start in range(0, blocks.shape[0], step):
        part = blocks[start : start + step]
        exponent = scale_exponent(np.abs(part).max(axis=within), fmt, rule, min_exponent)
        inverse = np.ldexp(np.float32(1), -exponent)
        elements[start : start + step] = round_to(part * np.expand_dims(inverse, within), fmt, saturate=True)
        exponents[start : start + step] = exponent
    flat = elements.reshape(-1, x.shape[1]) if axis == 0 else elements.reshape(x.shape[0], -1)
    return np.ascontiguousarray(flat[: x.shape[0], : x.shape[1]]), exponent_to_code(exponents)


def dequantize_mx(elements: np.ndarray, scale: np.ndarray, axis: int = -1) -> np.ndarray:
    """Exact values (float64) of MX ``elements`` with E8M0 ``scale`` along ``axis`` (0 or -1)."""
    factor = np.ldexp(np.float64(1), code_to_exponent(scale))
    return decode(elements, np.float64) * expand(factor, elements.shape[axis], axis)
