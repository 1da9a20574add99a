"""The logical shape of stored weights: the outputs and inputs of a packed tensor, by its dtype and the tensors beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msdsim.models.quantization import BF16, WeightFormat

#: Dtype and shape of a tensor, by its name.
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]

#: Last parts of names that stand beside a weight and are none.
_BESIDE = frozenset(
    (
        "weight_scale",
        "weight_scale_inv",
        "scales",
        "scale",
        "qzeros",
        "g_idx",
        "weight_zero_point",
        "weight_shape",
        "weight_g_idx",
        "weight_scale_2",
        "weight_global_scale",
        "input_scale",
        "input_global_scale",
        "input_zero_point",
        "weight_offset",
        "scale_bias",
        "quant_bias",
        "deq_scale",
        "input_offset",
        "SCB",
        "weight_format",
        "pre_quant_scale",
        "biases",
        "bias",
        "qscale_weight",
        "qscale_act",
        "k_scale",
        "v_scale",
        "absmax",
        "quant_map",
        "nested_absmax",
        "nested_quant_map",
        "_weight_scale",
        "_weight_zero_point",
        "_scale",
        "_shift",
    )
)
_FLOATS = {"BF16": "bf16", "F16": "bf16", "F32": "bf16", "F64": "bf16", "F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e4m3"}


@dataclass(frozen=True)
class Matrix:
    """A weight as the model sees it: [..., out, in], where the checkpoint's layout can be told, and its format."""

    module: str
    shape: tuple[int, ...]
    fmt: WeightFormat = BF16


def matrices(tensors: Tensors, bits: int | None = None) -> tuple[list[Matrix], list[str]]:
    """All weights of two dimensions or more, and the names of tensors that cannot be told.

    ``bits`` is what a config says of packed integers.
    """
    found, unknown = [], []
    for name, (dtype, shape) in tensors.items():
        last = name.rpartition(".")[2]
        if last in _BESIDE or ".quant_state." in name or last.endswith("_scales") or last.endswith("_bias"):
            continue
        if len(shape) < 2 and last not in ("qweight", "weight_packed"):
            continue
        module, suffix = _module(name)
        matrix = _matrix(tensors, module, suffix, dtype, shape, bits)
        if matrix is None:
            unknown.append(name)
        else:
            found.append(matrix)
    return found, unknown


def _module(name: str) -> tuple[str, str]:
    """The module of a weight, and which kind of tensor it is."""
    for suffix in (".weight", ".qweight", ".weight_packed", "_blocks", "._weight_qdata"):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix.removeprefix(".")
    return name, ""


def _matrix(tensors: Tensors, module: str, suffix: str, dtype: str, shape: tuple[int, ...], bits: int | None) -> Matrix | None:
    if suffix == "_blocks":
        return (
            Matrix(module, (*shape[:-2], shape[-2] * 32), WeightFormat("mxfp4")) if dtype == "U8" and len(shape) >= 3 else None
        )
    if suffix == "qweight":
        return _qweight(tensors, module, dtype, shape, bits)
    if suffix == "weight_packed":
        return _packed(tensors, module, dtype, shape, bits)
    if dtype in _FLOATS:
        return Matrix(module, shape, WeightFormat(_FLOATS[dtype]))
    if len(shape) != 2:
        return None
    out, columns = shape
    if suffix == "_weight_qdata":
        groups = tensors.get(f"{module}._weight_scale", ("", ()))[1]
        fmt = WeightFormat("int8", _share(columns, groups[-1] if groups else 1))
        return Matrix(module, shape, fmt) if dtype == "I8" else None
    scale = next(
        (tensors[key] for key in (f"{module}.weight_scale", f"{module}.scale", f"{module}.scales") if key in tensors), None
    )
    if scale is None or len(scale[1]) < 1:
        return Matrix(module, shape, WeightFormat("int8")) if dtype == "I8" and f"{module}.deq_scale" in tensors else None
    return _scaled(module, dtype, (out, columns), scale, bits)


def _scaled(
    module: str, dtype: str, shape: tuple[int, int], scale: tuple[str, tuple[int, ...]], bits: int | None
) -> Matrix | None:
    """Integers, or FP4 in bytes, with a scale beside them, whose shape tells how many lie in an element."""
    (out, columns), rows, blocks = shape, scale[1][0], scale[1][1] if len(scale[1]) > 1 else 1
    if dtype == "I8":
        if scale[0] == "F8_E8M0" and blocks * 32 == 2 * columns:
            return Matrix(module, (out, 2 * columns), WeightFormat("mxfp4"))
        if rows == 2 * out:
            return Matrix(module, (2 * out, columns), WeightFormat("int4", _share(columns, blocks)))
        return Matrix(module, shape, WeightFormat("int8", _share(columns, blocks)))
    if dtype == "U8":
        if rows == out and blocks in (2 * columns // 16, 2 * columns // 32):
            return Matrix(module, (out, 2 * columns), WeightFormat("nvfp4" if blocks == 2 * columns // 16 else "mxfp4"))
        return Matrix(module, (2 * out, columns), WeightFormat("int4", _share(columns, blocks))) if rows == 2 * out else None
    if dtype == "I32" and blocks == 8 * columns:
        return Matrix(module, (blocks, out), WeightFormat("int4", _share(out, rows)))
    if dtype == "U32" and rows == out and bits:
        return Matrix(
            module, (out, columns * 32 // bits), WeightFormat(f"int{bits}", _share(columns * 32 // bits, blocks), True)
        )
    return None


def _qweight(tensors: Tensors, module: str, dtype: str, shape: tuple[int, ...], bits: int | None) -> Matrix | None:
    """GPTQ packs along the inputs, AWQ along the outputs; the scales [groups, out] tell which."""
    scales, zeros = tensors.get(f"{module}.scales"), tensors.get(f"{module}.qzeros")
    if dtype != "I32" or scales is None or len(scales[1]) != 2 or len(shape) != 2:
        return None
    groups, out = scales[1]
    if shape[1] == out:
        width = (
            zeros[1][1] * 32 // out if zeros is not None and len(zeros[1]) == 2 and zeros[1][1] * 32 % out == 0 else bits or 4
        )
        inputs = shape[0] * 32 // width
    elif shape[1] and shape[1] * 32 % out == 0:
        width, inputs = shape[1] * 32 // out, shape[0]
    else:
        return None
    return Matrix(module, (out, inputs), WeightFormat(f"int{width}", _share(inputs, groups), zeros is not None))


def _packed(tensors: Tensors, module: str, dtype: str, shape: tuple[int, ...], bits: int | None) -> Matrix | None:
    scale = tensors.get(f"{module}.weight_scale")
    if len(shape) != 2 or scale is None:
        return None
    blocks = scale[1][1] if len(scale[1]) > 1 else 1
    if dtype == "U8":
        inputs = 2 * shape[1]
        return Matrix(
            module, (shape[0], inputs), WeightFormat("nvfp4" if f"{module}.weight_global_scale" in tensors else "mxfp4")
        )
    if dtype != "I32":
        return None
    width = bits or 4
    inputs = shape[1] * 32 // width
    return Matrix(
        module,
        (shape[0], inputs),
        WeightFormat(f"int{width}", _share(inputs, blocks), f"{module}.weight_zero_point" in tensors),
    )


def _share(inputs: int, groups: int) -> int | None:
    """Weights along k that share a scale; None for a whole channel."""
    return inputs // groups if groups > 1 and inputs % groups == 0 else None
