"""From a ``quantization_config`` to the format of every module's weights.

Understood are the methods that checkpoints carry: FP8 (with blocks, channels or a tensor's scale), GPTQ, AWQ, auto-round,
compressed-tensors, modelopt, msmodelslim, MXFP4 of gpt-oss, bitsandbytes, quark, HQQ, MLX and fbgemm.  Routers of experts
stay in 16 bits in all of them, and so does the output head unless the config names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class WeightFormat:
    """How a matrix is stored: ``name`` of the element format, weights of a ``group`` along k share a scale (None: a channel),
    ``offset``: a zero point beside it; ``said`` adds what a workload cannot hold, such as blocks."""

    name: str
    group: int | None = None
    offset: bool = False
    said: str = ""

    def __str__(self) -> str:
        parts = [self.name, f"groups of {self.group}" if self.group else "", "offsets" if self.offset else "", self.said]
        return ", ".join(part for part in parts if part)


BF16 = WeightFormat("bf16")
#: A format for the full name of a module, or None where the config leaves it in 16 bits.
Rule = Callable[[str], WeightFormat | None]


@dataclass(frozen=True)
class Quantization:
    """The formats of a checkpoint: ``of`` a module by its full name; ``note`` says what was not understood."""

    method: str
    rule: Rule
    note: str = ""

    def of(self, module: str) -> WeightFormat:
        return self.rule(module) or BF16


NOTHING = Quantization("", lambda module: None)


def read_quantization(config: Mapping[str, Any] | None) -> Quantization:
    """The formats that a ``quantization_config`` gives; a method that is not known gives a note, and 16 bits."""
    if not config:
        return NOTHING
    method = str(config.get("quant_method") or _guess(config)).lower()
    reader = _READERS.get(method)
    try:
        rule = reader(config) if reader else None
    except (TypeError, ValueError, KeyError, AttributeError, re.error):
        rule = None
    if rule is None:
        return Quantization(
            method,
            lambda module: None,
            f"quantization_config with method '{method[:40]}' is not understood: all weights are taken as 16 bits",
        )
    return Quantization(method, rule)


def with_experts(plain: Quantization, dtype: str | None) -> Quantization:
    """The same with routed experts in a format of their own, as DeepSeek-V4 has them: ``fp4`` is E2M1 with a scale for 32."""
    if dtype is None or dtype not in ("fp4", "fp8"):
        return plain
    if dtype == "fp8":
        return plain
    return Quantization(
        plain.method or "expert_dtype",
        lambda module: WeightFormat("mxfp4") if ".experts." in module else plain.rule(module),
        plain.note,
    )


def _guess(config: Mapping[str, Any]) -> str:
    if "quant_algo" in config or "producer" in config or isinstance(config.get("quantization"), Mapping):
        return "modelopt"
    if "config_groups" in config:
        return "compressed-tensors"
    if "global_quant_config" in config:
        return "quark"
    if "bits" in config and "group_size" in config:
        return "mlx"
    return "none"


def names_of(module: str) -> tuple[str, ...]:
    """A module under the names that checkpoints of one or several models give it."""
    bare = module.removeprefix("model.")
    return (module, f"language_model.{module}", f"model.language_model.{bare}", f"language_model.{bare}", bare)


def _left_out(patterns: Sequence[Any]) -> Callable[[str], bool]:
    """Whether a list of names, wildcards or ``re:`` expressions has a module, or a module around it."""
    literal, expressions, wild = set(), [], []
    for pattern in map(str, patterns):
        if pattern.startswith("re:"):
            expressions.append(re.compile(pattern[3:]))
        elif "*" in pattern or "?" in pattern:
            wild.append(pattern)
        else:
            literal.add(pattern.strip("."))

    def has(module: str) -> bool:
        for name in names_of(module):
            steps = name.split(".")
            around = {".".join(steps[:end]) for end in range(1, len(steps) + 1)} | {
                ".".join(steps[start:]) for start in range(len(steps))
            }
            if around & literal or any(expression.match(name) for expression in expressions):
                return True
            if any(fnmatchcase(name, item) or fnmatchcase(name, f"{item}.*") for item in wild):
                return True
        return False

    return has


def _all_but(fmt: WeightFormat, patterns: Sequence[Any] | None, head: bool = False) -> Rule:
    """One format for everything but the modules listed and, without ``head``, the output head."""
    out = _left_out(patterns or [])
    return lambda module: None if (module == "lm_head" and not head) or out(module) else fmt


def _whole(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    return int(default if value is None else value)


def _group(size: int) -> int | None:
    return size if size > 0 else None


def _integers(bits: int, group: int | None, offset: bool) -> WeightFormat:
    return WeightFormat(f"int{bits}", group, offset)


def _fp8(config: Mapping[str, Any]) -> Rule:
    block = config.get("weight_block_size")
    said = (
        f"blocks of {block[0]} x {block[1]}" if isinstance(block, list) and len(block) == 2 else "one scale a tensor or channel"
    )
    if str(config.get("quant_algo", "")).upper() in ("MIXED_PRECISION", "NVFP4") or config.get("quantized_layers"):
        return _modelopt(config)
    return _all_but(
        WeightFormat("fp8_e4m3", None, False, said), config.get("modules_to_not_convert") or config.get("ignored_layers")
    )


def _gptq(config: Mapping[str, Any]) -> Rule:
    def fmt(table: Mapping[str, Any]) -> WeightFormat:
        return _integers(
            _whole(table, "bits", _whole(config, "bits", 4)),
            _group(_whole(table, "group_size", _whole(config, "group_size", 128))),
            not table.get("sym", config.get("sym", True)),
        )

    head = bool(config.get("lm_head"))
    dynamic = [
        (str(key)[:2], re.compile(str(key)[2:] if str(key)[:2] in ("+:", "-:") else str(key)), value)
        for key, value in (config.get("dynamic") or {}).items()
    ]
    plain = _all_but(fmt(config), config.get("modules_to_not_convert"), head)

    def rule(module: str) -> WeightFormat | None:
        for sign, expression, value in dynamic:
            if any(expression.match(name) for name in names_of(module)):
                return None if sign == "-:" else fmt(value or {})
        return plain(module)

    return rule


def _awq(config: Mapping[str, Any]) -> Rule:
    fmt = _integers(
        _whole(config, "bits", _whole(config, "w_bit", 4)),
        _group(_whole(config, "group_size", _whole(config, "q_group_size", 128))),
        bool(config.get("zero_point", True)),
    )
    return _all_but(fmt, config.get("modules_to_not_convert"))


def _auto_round(config: Mapping[str, Any]) -> Rule:
    if str(config.get("data_type", "int")) not in ("int", "int_sym", "int_asym"):
        raise ValueError
    own = {str(key): value for key, value in (config.get("extra_config") or {}).items() if isinstance(value, Mapping)}
    plain = _gptq(config)

    def rule(module: str) -> WeightFormat | None:
        for name in names_of(module):
            if name in own:
                bits = _whole(own[name], "bits", 16)
                return (
                    None
                    if bits >= 16
                    else _integers(bits, _group(_whole(own[name], "group_size", 128)), not own[name].get("sym", True))
                )
        return plain(module)

    return rule


def _scheme(weights: Mapping[str, Any]) -> WeightFormat:
    """The format of compressed-tensors' ``weights`` table."""
    bits, kind = int(weights.get("num_bits", 8)), str(weights.get("type", "int"))
    group = _group(int(weights.get("group_size") or 0))
    if kind == "int":
        return _integers(bits, group, not weights.get("symmetric", True))
    if bits == 8:
        if group == 32:
            return WeightFormat("mxfp8_e4m3")
        block = weights.get("block_structure")
        return WeightFormat(
            "fp8_e4m3", None, False, f"blocks of {block[0]} x {block[1]}" if isinstance(block, list) and block else ""
        )
    if bits == 4:
        return WeightFormat("nvfp4" if group == 16 else "mxfp4")
    raise ValueError


def _compressed_tensors(config: Mapping[str, Any]) -> Rule:
    sparsity = config.get("sparsity_config")
    if sparsity and str(sparsity.get("format", "dense")) != "dense":
        raise ValueError
    groups = []
    for table in config["config_groups"].values():
        if not table.get("weights"):
            continue
        targets = table.get("targets") or ["Linear"]
        everything = any(str(item) in ("Linear", "LinearBase") or str(item).endswith("Linear") for item in targets)
        groups.append((None if everything else _left_out(targets), _scheme(table["weights"])))
    out = _left_out(config.get("ignore") or [])

    def rule(module: str) -> WeightFormat | None:
        if out(module):
            return None
        named = next((fmt for has, fmt in groups if has is not None and has(module)), None)
        return named or next((fmt for has, fmt in groups if has is None), None)

    return rule


_ALGORITHMS: dict[str, WeightFormat] = {
    "FP8": WeightFormat("fp8_e4m3", said="one scale a tensor"),
    "FP8_PER_CHANNEL_PER_TOKEN": WeightFormat("fp8_e4m3"),
    "FP8_PB_WO": WeightFormat("fp8_e4m3", said="blocks of 128 x 128"),
    "FP8_BLOCK_SCALES": WeightFormat("fp8_e4m3", said="blocks of 128 x 128"),
    "NVFP4": WeightFormat("nvfp4"),
    "W4A16_NVFP4": WeightFormat("nvfp4"),
    "NVFP4_AWQ": WeightFormat("nvfp4"),
    "MXFP4": WeightFormat("mxfp4"),
    "W4A16_MXFP4": WeightFormat("mxfp4"),
    "MXFP8": WeightFormat("mxfp8_e4m3"),
    "W8A8_SQ_PER_CHANNEL": WeightFormat("int8"),
    "INT8_SQ": WeightFormat("int8"),
    "W8A16": WeightFormat("int8"),
    "W4A16": WeightFormat("int4"),
    "W4A16_AWQ": WeightFormat("int4", 128),
    "W4A8_AWQ": WeightFormat("int4", 128),
}


def _algorithm(name: str, group: Any) -> WeightFormat:
    fmt = _ALGORITHMS[name.upper()]
    return WeightFormat("int4", int(group)) if fmt.name == "int4" and group else fmt


def _modelopt(config: Mapping[str, Any]) -> Rule:
    inner = config.get("quantization")
    config = inner if isinstance(inner, Mapping) else config
    algorithm = str(config.get("quant_algo") or "")
    layers = config.get("quantized_layers") or {}
    out = _left_out([*(config.get("exclude_modules") or []), *(config.get("ignore") or [])])
    if layers or algorithm.upper() == "MIXED_PRECISION":
        own = {str(name): _algorithm(str(value["quant_algo"]), value.get("group_size")) for name, value in layers.items()}

        def rule(module: str) -> WeightFormat | None:
            for name in names_of(module):
                steps = name.split(".")
                found = next((own[key] for end in range(len(steps), 0, -1) if (key := ".".join(steps[:end])) in own), None)
                if found:
                    return found
            return None

        return rule
    if not algorithm and config.get("config_groups"):
        return _compressed_tensors(config)
    fmt = _algorithm(algorithm, config.get("group_size"))
    return lambda module: None if module == "lm_head" or out(module) else fmt


def _gpt_oss(config: Mapping[str, Any]) -> Rule:
    out = _left_out([*(config.get("modules_to_not_convert") or []), "re:.*self_attn.*"])
    return lambda module: None if ".experts." not in module or out(module) else WeightFormat("mxfp4")


def _bitsandbytes(config: Mapping[str, Any]) -> Rule:
    if config.get("load_in_8bit") or config.get("_load_in_8bit"):
        return _all_but(WeightFormat("int8"), config.get("llm_int8_skip_modules"))
    return _all_but(WeightFormat(str(config.get("bnb_4bit_quant_type", "fp4")), 64), config.get("llm_int8_skip_modules"))


def _quark(config: Mapping[str, Any]) -> Rule:
    weight = (config.get("global_quant_config") or {}).get("weight") or {}
    weight = weight[0] if isinstance(weight, list) else weight
    dtype, group = str(weight["dtype"]), _group(int(weight.get("group_size") or 0))
    named = {
        "int8": WeightFormat("int8", group),
        "int4": WeightFormat("int4", group),
        "uint4": WeightFormat("int4", group, True),
        "fp8_e4m3": WeightFormat("fp8_e4m3"),
        "fp4": WeightFormat("mxfp4"),
    }
    return _all_but(named[dtype], config.get("exclude"))


def _hqq(config: Mapping[str, Any]) -> Rule:
    own = (config.get("quant_config") or {}).get("weight_quant_params") or config
    return _all_but(_integers(_whole(own, "nbits", 4), _group(_whole(own, "group_size", 64)), True), config.get("skip_modules"))


def _mlx(config: Mapping[str, Any]) -> Rule:
    mode = str(config.get("mode", "affine"))
    if mode != "affine":
        return _all_but(WeightFormat({"mxfp4": "mxfp4", "nvfp4": "nvfp4", "mxfp8": "mxfp8_e4m3"}[mode]), [], head=True)
    plain = _integers(_whole(config, "bits", 4), _group(_whole(config, "group_size", 64)), True)
    own = {key: value for key, value in config.items() if isinstance(value, bool | Mapping) and "." in key}

    def rule(module: str) -> WeightFormat | None:
        for name in names_of(module):
            value = own.get(name)
            if value is False:
                return None
            if isinstance(value, Mapping):
                return _integers(_whole(value, "bits", 4), _group(_whole(value, "group_size", 64)), True)
        return plain

    return rule


#: Types that msmodelslim names for a tensor; what follows the first two parts says how activations are treated.
_SLIM_INTEGERS = re.compile(r"W(4|8)A(4|8|16)S?(_DYNAMIC|_MIX|_PER_CHANNEL|_PERGROUP)?")
_SLIM_FLOATS = {
    "W8A8_MXFP8": WeightFormat("mxfp8_e4m3"),
    "W4A4_MXFP4": WeightFormat("mxfp4"),
    "W4A8_MXFP": WeightFormat("mxfp4"),
    "W4A16_MXFP4": WeightFormat("mxfp4"),
    "W8A16_MXFP8": WeightFormat("mxfp8_e4m3"),
}


def _msmodelslim(config: Mapping[str, Any]) -> Rule:
    """By the description that stands beside the weights: the type of every tensor."""
    types = config["description"]
    group = _group(int(types.get("group_size") or 0))

    def fmt(kind: str) -> WeightFormat | None:
        match = _SLIM_INTEGERS.fullmatch(kind)
        if match:
            return _integers(int(match.group(1)), group if match.group(1) == "4" else None, False)
        return None if kind in ("FLOAT", "BF16", "FLOAT16") else _SLIM_FLOATS[kind]

    own = {name.removesuffix(".weight"): fmt(str(kind)) for name, kind in types.items() if name.endswith(".weight")}
    if not own:
        raise ValueError

    def rule(module: str) -> WeightFormat | None:
        return next((own[name] for name in names_of(module) if name in own), None)

    return rule


_READERS: dict[str, Callable[[Mapping[str, Any]], Rule]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "gptq": _gptq,
    "gptqmodel": _gptq,
    "awq": _awq,
    "auto-round": _auto_round,
    "intel/auto-round": _auto_round,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": _gpt_oss,
    "bitsandbytes": _bitsandbytes,
    "quark": _quark,
    "hqq": _hqq,
    "mlx": _mlx,
    "msmodelslim": _msmodelslim,
}
