"""How fast weights of checkpoints are decoded: a tensor of 100 MB in each layout, against reading it and one pass over it.

    python benchmarks/checkpoints.py [--mb 100] [--times 3]

The pass is numpy's: the bytes are read by ``numpy.fromfile`` and copied once with a change of every byte.  ``codes`` is the
weight as dataflows take it, one code a byte with its scales; ``values`` is its float32 form, four bytes for each weight, as the
BF16 dataflow and ``msdsim accuracy`` take it.  CPU seconds of this process, the best of several runs; the ratios matter.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from msdsim.checkpoints.weights import read_weight
from msdsim.formats.number import FORMATS

#: By layout: the tensors of 2^k bytes of weights with [n, k] = rows, columns of the packed tensor; dtype names of the file.
K = 8192


def tensors(layout: str, size: int) -> tuple[str, dict[str, tuple[str, np.ndarray]]]:
    """The name of the weight, and dtype and array by name, with ``size`` bytes of weights."""
    raw = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    words, n = raw.view(np.int32), size // (K // 2)
    scales, zeros = np.ones((K // 128, n), np.float16), np.full((K // 128, n // 8), 0x77777777, np.int32)
    if layout in ("GPTQ", "AWQ"):
        packed = words.reshape((K // 8, n) if layout == "GPTQ" else (K, n // 8))
        return "qweight", {"qweight": ("I32", packed), "scales": ("F16", scales), "qzeros": ("I32", zeros)}
    if layout == "compressed-tensors W4A16":
        return "weight_packed", {"weight_packed": ("I32", words.reshape(n, K // 8)),
                                 "weight_scale": ("F16", scales.reshape(n, -1)), "weight_shape": ("I64", np.array([n, K]))}
    if layout == "MXFP4":
        scale = np.full((n, K // 32), 127, np.uint8)
        return "weight_packed", {"weight_packed": ("U8", raw.reshape(n, K // 2)), "weight_scale": ("U8", scale)}
    if layout == "W8A8":
        scale = np.ones((n // 2, 1), np.float32)
        return "weight", {"weight": ("I8", raw.view(np.int8).reshape(-1, K)), "weight_scale": ("F32", scale)}
    if layout == "BF16":
        return "weight", {"weight": ("BF16", raw.view(np.uint16).reshape(-1, K) & 0x7F7F)}
    scale = np.ones((n // 2 // 128, K // 128), np.float32)
    normal = np.clip(100 * np.random.default_rng(0).standard_normal(1 << 20, np.float32), -448, 448)
    codes = np.resize(normal.astype(FORMATS["fp8_e4m3fn"].dtype).view(np.uint8), size)
    return "weight", {"weight": ("F8_E4M3", codes.reshape(-1, K)), "weight_scale_inv": ("F32", scale)}


LAYOUTS = ("GPTQ", "AWQ", "compressed-tensors W4A16", "MXFP4", "W8A8", "FP8 blocks", "BF16")


def save(path: Path, found: dict[str, tuple[str, np.ndarray]]) -> int:
    """A safetensors file; where the weight's data starts."""
    header, end = {}, 0
    for name, (dtype, array) in found.items():
        header[f"layer.{name}"] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    body = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(body).to_bytes(8, "little") + body)
        for _, array in found.values():
            file.write(array.tobytes())
    return 8 + len(body)


def best(work: Callable[[], object], times: int) -> float:
    """CPU seconds of the fastest run."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    size = given.mb * 1_000_000 // (K * 256) * (K * 256)
    print(f"{'layout':28}{'MB':>7}{'fromfile + pass, ms':>21}{'codes, ms':>11}{'speed':>7}{'values, ms':>12}{'speed':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            own, found = tensors(layout, size)
            path = Path(folder) / "model.safetensors"
            start = save(path, found)
            decode = best(lambda path=path, own=own: read_weight(f"{path}:layer.{own}"), given.times)
            plain = best(lambda path=path, start=start: np.fromfile(path, np.uint8, size, offset=start) ^ 1, given.times)
            values = best(lambda path=path, own=own: read_weight(f"{path}:layer.{own}").decoded(), given.times)
            print(f"{layout:28}{size / 1e6:7.0f}{plain * 1000:21.0f}{decode * 1000:11.0f}{plain / decode:7.2f}"
                  f"{values * 1000:12.0f}{plain / values:7.2f}")


if __name__ == "__main__":
    main()
