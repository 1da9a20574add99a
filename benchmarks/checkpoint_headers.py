"""How long the import of a large checkpoint takes: DeepSeek-V3's 91,801 tensors in 163 files, by their headers alone.

Prints CPU seconds, beside those of parsing the same JSON; the files hold headers and no data (sparse, 687 GB in all).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from msdsim.explore.import_model import read_model

_BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
_CONFIG = {"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}


def tensors() -> dict[str, tuple[str, list[int]]]:
    """Names, dtypes and shapes of the published checkpoint, the prediction module included."""
    found: dict[str, tuple[str, list[int]]] = {}

    def linear(name: str, out: int, inputs: int, dtype: str = "F8_E4M3") -> None:
        found[f"{name}.weight"] = (dtype, [out, inputs])
        if dtype == "F8_E4M3":
            found[f"{name}.weight_scale_inv"] = ("F32", [-(-out // 128), -(-inputs // 128)])

    linear("model.embed_tokens", 129280, 7168, "BF16")
    linear("lm_head", 129280, 7168, "BF16")
    for layer in range(62):
        at = f"model.layers.{layer}."
        for name, out, inputs in (("q_a_proj", 1536, 7168), ("q_b_proj", 24576, 1536), ("kv_a_proj_with_mqa", 576, 7168),
                                  ("kv_b_proj", 32768, 512), ("o_proj", 7168, 16384)):
            linear(f"{at}self_attn.{name}", out, inputs)
        if layer >= 3:
            linear(f"{at}mlp.gate", 256, 7168, "BF16")
        inner = 2048 if layer >= 3 else 18432
        for part in [""] if layer < 3 else [*(f"experts.{expert}." for expert in range(256)), "shared_experts."]:
            linear(f"{at}mlp.{part}gate_proj", inner, 7168)
            linear(f"{at}mlp.{part}up_proj", inner, 7168)
            linear(f"{at}mlp.{part}down_proj", 7168, inner)
    linear("model.layers.61.eh_proj", 7168, 14336, "BF16")
    return found


def write(folder: Path, shards: int = 163) -> list[bytes]:
    """The checkpoint's files, without data; their headers."""
    names = list(tensors().items())
    each, headers, weight_map = -(-len(names) // shards), [], {}
    for number in range(shards):
        header, at, file = {}, 0, f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        for name, (dtype, shape) in names[number * each:(number + 1) * each]:
            size = _BYTES[dtype] * shape[0] * shape[1]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            weight_map[name] = file
            at += size
        text = json.dumps(header).encode()
        headers.append(text)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + at)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    return headers


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        headers = write(Path(folder))
        started = time.process_time()
        for text in headers:
            json.loads(text)
        parsed = time.process_time() - started
        started = time.process_time()
        model = read_model(folder)
        spent = time.process_time() - started
    print(f"{model.decoder.total / 1e9:.3f} x 10^9 weights; {spent:.2f} s of CPU, {spent / parsed:.1f} times the JSON alone",
          file=sys.stdout)


if __name__ == "__main__":
    main()
