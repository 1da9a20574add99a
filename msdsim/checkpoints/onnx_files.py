"""Weights of ONNX models: MatMulNBits nodes (com.microsoft) and plain initializers, by ``onnx``, imported only here.

MatMulNBits as onnxruntime 1.32.0 runs it: B U8 [n, blocks, block bits/8] low bits first, scales [n, blocks], zero points
[n, ceil(blocks bits/8)] or 2^(bits-1), and optionally g_idx [k].
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from msdsim.checkpoints.bits import unpack_last
from msdsim.checkpoints.integers import integers
from msdsim.checkpoints.stored import StoredWeight
from msdsim.errors import InputError


def onnx_names(path: Path) -> list[str]:
    """The MatMulNBits nodes of a model, their packed weights, and its other initializers."""
    graph = _model(path, path.stat().st_mtime_ns).graph
    return [*(node.name for node in _nodes(graph) if node.name), *(item.name for item in graph.initializer)]


def _nodes(graph: Any) -> list[Any]:
    return [node for node in graph.node if node.op_type == "MatMulNBits" and len(node.input) >= 3]


def read_onnx(path: Path, name: str) -> StoredWeight:
    """The weight of a MatMulNBits node by the name of the node or of its B, or a plain initializer as it is."""
    graph = _model(path, path.stat().st_mtime_ns).graph
    tensors = {item.name: item for item in graph.initializer}
    node = next((node for node in _nodes(graph) if name in (node.name, node.input[1])), None)
    if node is not None:
        return _matmul_nbits(path, node, tensors, name)
    array = _array(path, tensors[name])
    used = [item.op_type for item in graph.node if name in item.input]
    if array.dtype.kind != "f" or any(op in ("DequantizeLinear", "MatMulNBits", "QMoE") for op in used):
        raise InputError(f"'{name[:200]}' has dtype {array.dtype} and goes into "
                         f"{', '.join(sorted(set(used)))[:200] or 'no node'}; read are "
                         "the weights of MatMulNBits and initializers of real numbers")
    return StoredWeight(f"ONNX {array.dtype}", values=array.astype(np.float32), oriented=set(used) == {"MatMul"})


def _matmul_nbits(path: Path, node: Any, tensors: dict[str, Any], name: str) -> StoredWeight:
    import onnx

    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    try:
        k, n, bits, block = (int(given[key]) for key in ("K", "N", "bits", "block_size"))
    except KeyError as err:
        raise InputError(f"'{name[:200]}': MatMulNBits without the attribute {err}") from None
    if bits not in (2, 4, 8) or block < 16 or block & (block - 1) or k < 1 or n < 1:
        raise InputError(f"'{name[:200]}': MatMulNBits of {bits} bits in blocks of {block} for [{k}, {n}]; bits are 2, 4 or "
                         "8, and blocks "
                         "powers of two from 16")
    inputs = [tensors.get(one) for one in node.input[1:5]]
    if any(one and one not in tensors for one in node.input[1:5]) or inputs[1] is None:
        raise InputError(f"'{name[:200]}': the weights, scales, zero points and g_idx of MatMulNBits have to be initializers")
    blocks = -(-k // block)
    b, scales = _array(path, inputs[0]), _array(path, inputs[1])
    if b.size != n * blocks * block * bits // 8 or scales.size != n * blocks:
        raise InputError(f"'{name[:200]}': B {list(b.shape)} and scales {list(scales.shape)} are not those of [{k}, {n}] in "
                         f"blocks of {block}")
    q = unpack_last(b.view(np.uint8).reshape(n, -1), bits, blocks * block, middle=1 << (bits - 1))[:, :k].T
    scale, offset = scales.reshape(n, blocks).astype(np.float32).T, None
    if len(inputs) > 2 and inputs[2] is not None:
        zeros = _array(path, inputs[2])
        if zeros.dtype == np.uint8:
            zeros = unpack_last(zeros.reshape(n, -1), bits, blocks)
        elif bits == 8 or zeros.size != n * blocks:
            raise InputError(f"'{name[:200]}': zero points {zeros.dtype} {list(zeros.shape)} for {bits} bits and {blocks} "
                             "blocks")
        offset = (1 << (bits - 1)) - zeros.reshape(n, blocks).astype(np.float32).T
    order = _sorted(_array(path, inputs[3]), k, block, blocks, name) if len(inputs) > 3 and inputs[3] is not None else None
    layout, q = ("ONNX MatMulNBits", q) if order is None else ("ONNX MatMulNBits, g_idx", q[order])
    return integers(layout, q, scale, offset, bits, k, order=order, group=block)


def _sorted(index: np.ndarray, k: int, block: int, blocks: int, name: str) -> np.ndarray | None:
    if index.shape != (k,) or index.min() < 0 or index.max() >= blocks:
        raise InputError(f"'{name[:200]}': g_idx {list(index.shape)} does not give one of {blocks} blocks for each of {k} rows")
    if (index == np.arange(k) // block).all():
        return None
    counts = np.bincount(index, minlength=blocks)
    if (counts[:-1] != block).any():
        raise InputError(f"'{name[:200]}': g_idx gives blocks of {int(counts.min())} to {int(counts.max())} rows; all but "
                         f"the last have {block}")
    return np.argsort(index, kind="stable")


def _array(path: Path, tensor: Any) -> np.ndarray:
    import onnx

    try:
        return onnx.numpy_helper.to_array(tensor, base_dir=str(path.parent))
    except Exception as err:
        raise InputError(f"'{path.name[:200]}': initializer '{tensor.name[:200]}' cannot be read ({type(err).__name__}: "
                         f"{str(err)[:200]})") \
            from None


@lru_cache(maxsize=2)
def _model(path: Path, stamp: int) -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError(f"'{path.name[:200]}' is an ONNX model, and reading one needs the onnx library: pip install "
                         "'msdsim[checkpoints]'") from None
    try:
        return onnx.load(path, load_external_data=False)
    except Exception as err:
        raise InputError(f"'{path.name[:200]}' is no ONNX model ({type(err).__name__}: {str(err)[:200]})") from None
