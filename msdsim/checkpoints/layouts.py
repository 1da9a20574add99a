"""Every layout of a weight that is read, as a table: a name, and what recognises and decodes it.

Layouts are asked in the order of the table; the first that recognises its tensors decodes them.  What none recognises is
refused with the tensors that stand together, and what is known but not read is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msdsim.checkpoints import flattened, floats, integers, plain_integers
from msdsim.checkpoints.beside import Beside
from msdsim.checkpoints.stored import StoredWeight
from msdsim.errors import InputError

#: In the order in which they are asked.
LAYOUTS: dict[str, Callable[[Beside], StoredWeight | None]] = {
    "GPTQ": integers.gptq,
    "AWQ": integers.awq,
    "compressed-tensors pack-quantized": integers.compressed_packed,
    "NVFP4": floats.nvfp4,
    "MXFP4": floats.mxfp4,
    "torchao": flattened.torchao,
    "HQQ": flattened.hqq,
    "quark": plain_integers.quark,
    "integers, a byte each or two outputs a byte": plain_integers.plain_bytes,
    "FP8": floats.fp8,
    "FP64, FP32, FP16, BF16": floats.plain,
}
_REMEDY = "give it as q, scale and offset in an npz (--inputs), or in 16 bits"


def decode(weight: Beside) -> StoredWeight:
    """The weight as it is stored.  InputError for layouts that are known and not read, for unknown ones, and for faults."""
    name = _not_read(weight)
    if name is not None:
        raise weight.wrong(f"{name} is not read; {_REMEDY}")
    if weight.own in _beside_names(weight):
        raise weight.wrong(f"stands beside a weight and is none; name the weight of {weight.module[:200]}")
    if any(size == 0 for size in weight.info.shape):
        raise weight.wrong(f"is empty (shape {list(weight.info.shape)})")
    for layout in LAYOUTS.values():
        try:
            found = layout(weight)
        except InputError as err:
            if str(err).startswith("tensor '"):
                raise
            raise weight.wrong(str(err)) from None
        if found is None:
            continue
        more = weight.unread()
        if more:
            raise weight.wrong(f"'{more[0][:100]}' stands beside it, which {found.layout[:60]} does not have "
                               f"({weight.shapes()}); it is not read without it")
        return found
    raise weight.wrong(f"has dtype {weight.info.dtype}, and no layout that is read has these tensors ({weight.shapes()}); "
                       f"{_REMEDY}")


def _beside_names(weight: Beside) -> tuple[str, ...]:
    return ("_scales",) if "_blocks" in weight.tensors else ()


def _not_read(weight: Beside) -> str | None:
    """The name of a layout that is known and not read."""
    rests = set(weight.tensors)
    if any(".quant_state." in rest or rest == "weight.absmax" for rest in rests):
        return "bitsandbytes NF4 or FP4"
    if "W_q" in rests and weight.own != "W_q":
        return "HQQ beside a weight of another kind"
    if re.search(r"\.weight\._(data|scale|shift)", weight.name):
        return "optimum-quanto's layout"
    if weight.info.dtype == "U32" and {"scales", "biases"} & rests:
        return "MLX's layout"
    return None
