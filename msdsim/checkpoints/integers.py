"""Layouts of integer weights: each function recognises its own by names, dtypes and shapes, and decodes it, or returns None.

Sources are given with each: the package and version whose writer or reader shows the layout.
"""

from __future__ import annotations

import numpy as np

from msdsim.checkpoints.beside import Beside
from msdsim.checkpoints.bits import unpack_awq, unpack_first, unpack_last
from msdsim.checkpoints.stored import StoredWeight


def integers(layout: str, q: np.ndarray, scale: np.ndarray, offset: np.ndarray | None, bits: int, k: int, *,
             order: np.ndarray | None = None, group: int | None = None, factor: np.ndarray | None = None,
             notes: tuple[str, ...] = ()) -> StoredWeight:
    """A weight of ``q`` [k, n] with ``scale`` and ``offset`` [groups, n] or [n]; an offset of zeros is none."""
    if offset is not None:
        offset = np.ascontiguousarray(np.broadcast_to(offset.astype(np.float32), scale.shape)) if offset.any() else None
    if scale.ndim == 2 and len(scale) == 1:
        scale, offset, group = scale[0], None if offset is None else offset[0], None
    assert scale.ndim == 1 or group
    parts = [layout, f"INT{bits}", "a scale per channel" if scale.ndim == 1 else f"groups of {group}",
             "zero points" if offset is not None else ""]
    return StoredWeight(", ".join(part for part in parts if part), q=q, scale=np.ascontiguousarray(scale, np.float32),
                        offset=offset, group=group if scale.ndim == 2 else None, bits=bits, order=order, input_factor=factor,
                        notes=notes)


def gptq(w: Beside) -> StoredWeight | None:
    """GPTQ: qweight I32 [k bits/32, n], scales [groups, n], qzeros I32 [groups, n bits/32] and g_idx [k] (gptqmodel 7.7.0;
    auto-round 0.16.1 writes it without g_idx, with negative scales)."""
    if w.own != "qweight":
        return None
    shape, scales = _packed_shape(w)
    if shape[1] != scales[1]:
        return None
    n, groups = scales[1], scales[0]
    k = w.tensors["g_idx"].shape[0] if w.has("g_idx") and len(w.tensors["g_idx"].shape) == 1 else None
    bits = _width(w, shape[0] * 32, k, n)
    k = k if k is not None else shape[0] * 32 // bits
    with w.packed("qweight") as packed:
        q = unpack_first(packed, bits, k, middle=1 << (bits - 1))
    v2, notes = _version(w, bits)
    scale = w.floats("scales")
    if w.has("qzeros"):
        zeros = unpack_last(w.read("qzeros"), bits, n)
        # v1 stores zero - 1 in as many bits: 2^bits - 1 there is a zero of 2^bits to every kernel, which adds 1 afterwards.
        zero = zeros.astype(np.float32) + (0 if v2 else 1)
        if zero.shape != scale.shape:
            raise w.wrong(f"qzeros hold {list(zero.shape)} zero points for scales {list(scale.shape)}")
    elif w.metadata.quantization.get("sym"):
        zero = np.full_like(scale, 1 << (bits - 1))
    else:
        raise w.wrong("there are no 'qzeros' beside it, and no config.json says that the weights are symmetric (sym)")
    offset = np.float32(1 << (bits - 1)) - zero
    order, own, group = _order(w, k, groups)
    if order is not None:
        q = q[order]
    return integers(f"GPTQ {'v2' if v2 else 'v1'}{own}", q, scale, offset, bits, k, order=order, group=group, notes=notes)


def _packed_shape(w: Beside) -> tuple[tuple[int, ...], tuple[int, ...]]:
    info = w.info
    if "scales" not in w.tensors:
        raise w.wrong("packed integers without their 'scales'; weights without their scales are not read")
    scales = w.tensors["scales"].shape
    if info.dtype not in ("I32", "U32") or len(info.shape) != 2 or len(scales) != 2 or not all((*info.shape, *scales)):
        raise w.wrong(f"qweight {info.dtype} {list(info.shape)} with scales {list(scales)} is no layout of GPTQ or AWQ (I32 "
                      "of two "
                      "dimensions, scales [groups, n])")
    return info.shape, scales


def _width(w: Beside, total: int, k: int | None, n: int) -> int:
    """Bits of a code: from k, from the zero points, from the config; all that speak must agree."""
    found = {}
    if k:
        found["g_idx"] = total / k
    zeros = w.tensors.get("qzeros")
    if zeros is not None and len(zeros.shape) == 2:
        found["qzeros"] = zeros.shape[1] * 32 / n
    stated = w.metadata.quantization.get("bits")
    if isinstance(stated, int) and not found:
        found["config"] = stated
    widths = {int(value) if value == int(value) else value for value in found.values()}
    if len(widths) != 1 or not widths <= {2, 3, 4, 8}:
        said = ", ".join(f"{value:g} bits by {name}" for name, value in found.items()) or "nothing says the bits of a code"
        raise w.wrong(f"{said}; packed integers have 2, 3, 4 or 8, all of a kind")
    return int(widths.pop())


def _version(w: Beside, bits: int) -> tuple[bool, tuple[str, ...]]:
    """Whether zero points are stored as they are (v2), and what is assumed."""
    own = w.metadata.quantization
    stated = (own.get("checkpoint_format"), own.get("format"), w.metadata.file.get("checkpoint_format"))
    words = {str(word).lower() for word in stated if word}
    if len(words) > 1 or words - {"gptq", "gptq_v2"}:
        raise w.wrong(f"the format is stated as {' and '.join(sorted(words))[:100]}; read are gptq and gptq_v2")
    if words:
        return words == {"gptq_v2"}, ()
    if not w.has("qzeros"):
        return False, ()
    codes = w.read("qzeros").view(np.uint32)
    middle = sum((1 << (bits - 1)) << (i * bits) for i in range(32 // bits)) if bits != 3 else None
    if middle is not None and codes.size and (codes == middle).all() and w.metadata.method != "gptq":
        raise w.wrong(f"every zero point is stored as {1 << (bits - 1)}: symmetric weights of GPTQ v2, or one too much of "
                      "v1; a "
                      "config.json beside the file decides, with quantization_config.checkpoint_format gptq_v2 or gptq")
    return False, () if w.metadata.method else ("qzeros are taken as zero - 1, GPTQ v1: no config says otherwise",)


def _order(w: Beside, k: int, groups: int) -> tuple[np.ndarray | None, str, int | None]:
    """The rows sorted by group where g_idx is not ascending (act-order), a word for it, and the group."""
    group = w.group(k, groups)
    rest = w.first("g_idx", "weight_g_idx")
    if rest is None:
        stated = w.metadata.quantization
        ordered = stated.get("desc_act") and not stated.get("static_groups")
        if groups > 1 and (ordered or any(table.get("actorder") in ("group", True) for table in w.schemes())):
            raise w.wrong("the config says that rows are in the order of their activations, and there is no g_idx, which says "
                          "to which group a row belongs")
        return None, "", group
    index = w.read(rest)
    if index.shape != (k,) or index.dtype.kind not in "iu":
        raise w.wrong(f"{rest} has shape {list(index.shape)}; it gives the group of each of the {k} rows")
    if (index == -1).all():  # compressed-tensors' mark of an order that was never set
        return None, "", group
    if index.min() < 0 or index.max() >= groups:
        raise w.wrong(f"{rest} has group {int(index.min() if index.min() < 0 else index.max())}, and there are groups 0 to "
                      f"{groups - 1}")
    if groups == 1 or (index == np.arange(k) // group).all():
        return None, "", group
    counts = np.bincount(index, minlength=groups)
    if (counts[:-1] != group).any():  # the last then has the rest, which is at most a group
        raise w.wrong(f"{rest} gives groups of {int(counts.min())} to {int(counts.max())} rows; all but the last have {group}")
    return np.argsort(index, kind="stable"), ", act-order", group


def awq(w: Beside) -> StoredWeight | None:
    """AWQ gemm: qweight I32 [k, n/8] and qzeros I32 [groups, n/8], nibbles in the order 0 2 4 6 1 3 5 7, scales [groups, n]
    (gptqmodel 7.7.0, auto-round 0.16.1)."""
    if w.own != "qweight":
        return None
    shape, scales = _packed_shape(w)
    n = scales[1]
    if shape[1] * 8 != n:
        raise w.wrong(f"qweight {list(shape)} with scales {list(scales)} is neither GPTQ's [k bits/32, {n}] nor AWQ's [k, "
                      f"{n // 8}]")
    version = str(w.metadata.quantization.get("version") or "gemm").lower()
    if w.metadata.method == "awq" and version not in ("gemm", "marlin", "exllama"):
        raise w.wrong(f"AWQ of version {version[:40]} is not read; gemm is")
    k = shape[0]
    scale = w.floats("scales")
    with w.packed("qweight") as packed:
        q = unpack_awq(packed, middle=8)
    offset = None
    stated = w.metadata.quantization
    if not w.has("qzeros") and stated.get("zero_point") is not False and not stated.get("sym"):
        raise w.wrong("there are no 'qzeros' beside it, and no config.json says that there are none (zero_point false)")
    if w.has("qzeros"):
        if w.tensors["qzeros"].shape != (scales[0], shape[1]):
            raise w.wrong(f"qzeros have shape {list(w.tensors['qzeros'].shape)}, and AWQ's are {[scales[0], shape[1]]}")
        offset = 8 - unpack_awq(w.read("qzeros")).astype(np.float32)
    _, _, group = _order(w, k, scales[0])
    return integers("AWQ", q, scale, offset, 4, k, group=group)


def compressed_packed(w: Beside) -> StoredWeight | None:
    """compressed-tensors pack-quantized: weight_packed I32 [n, ceil(k bits/32)], weight_scale [n, groups], weight_shape [2],
    weight_zero_point I32 packed along n, codes and zero points stored + 2^(bits-1) (compressed-tensors 0.20.1)."""
    if w.own != "weight_packed" or w.info.dtype != "I32":
        return None
    if not w.has("weight_scale"):
        raise w.wrong("packed integers without their 'weight_scale'; weights without their scales are not read")
    words, scales = w.info.shape, w.tensors["weight_scale"].shape
    if len(words) != 2 or len(scales) != 2 or scales[0] != words[0] or not all((*words, *scales)):
        raise w.wrong(f"weight_packed {list(words)} with weight_scale {list(scales)} is not [n, k bits/32] with [n, groups]")
    n, k, bits = _true_shape(w, words)
    with w.packed("weight_packed") as packed:
        q = unpack_last(packed, bits, k, middle=1 << (bits - 1))
    scale = w.floats("weight_scale").T
    offset = None
    if w.has("weight_zero_point"):
        if len(w.tensors["weight_zero_point"].shape) != 2 or w.tensors["weight_zero_point"].dtype != "I32":
            raise w.wrong(f"weight_zero_point is no I32 [n bits/32, groups] ({w.shapes()})")
        zeros = unpack_first(w.read("weight_zero_point"), bits, n).astype(np.float32)
        offset = (1 << (bits - 1)) - zeros
        if offset.shape != (n, scales[1]):
            raise w.wrong(f"weight_zero_point holds {list(offset.shape)} zero points for scales {list(scales)}")
        offset = offset.T
    elif any(table.get("symmetric") is False for table in w.schemes()):
        raise w.wrong("the config says that the weights are not symmetric, and there is no weight_zero_point beside them")
    order, own, group = _order(w, k, scales[1])
    q = q.T
    if order is not None:
        q = q[order]
    return integers(f"compressed-tensors pack-quantized{own}", q, scale, offset, bits, k, order=order, group=group)


def _true_shape(w: Beside, words: tuple[int, ...]) -> tuple[int, int, int]:
    """n, k and the bits of a code."""
    stated = _config_bits(w)
    n, k = words[0], None
    if w.has("weight_shape"):
        own = w.read("weight_shape").reshape(-1)
        if own.size != 2 or int(own[0]) != n or not 0 < int(own[1]) <= words[1] * 32:
            raise w.wrong(f"weight_shape {own.tolist()[:4]} does not agree with weight_packed {list(words)}")
        k = int(own[1])
        fitting = [bits for bits in (2, 3, 4, 8) if -(-k * bits // 32) == words[1]]
    elif stated:
        return n, words[1] * 32 // stated, stated
    else:
        raise w.wrong("there is no weight_shape beside it, and no config.json that says the bits of a code "
                      "(quantization_config."
                      "config_groups.*.weights.num_bits)")
    if stated in fitting:
        return n, k, stated
    if len(fitting) != 1 or stated:
        raise w.wrong(f"{words[1]} words for {k} values: {' or '.join(map(str, fitting)) or 'no number of'} bits a code"
                      f"{f', and the config says {stated}' if stated else '; a config.json beside the file decides'}")
    return n, k, fitting[0]


def _config_bits(w: Beside) -> int | None:
    groups = w.metadata.quantization.get("config_groups")
    found = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and isinstance(weights.get("num_bits"), int):
            found.add(weights["num_bits"])
    return found.pop() if len(found) == 1 else None
