"""torchao's and HQQ's tensors: values by loops, and what is not said or not there is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msdsim.checkpoints.weights import read_weight
from msdsim.errors import InputError
from tests.checkpoints import files

N, K = 6, 32


def torchao(tmp_path, kind="Int8Tensor", block=(1, K), target=None, dtype=np.int8, low=-128, high=128, about=True):
    rng = np.random.default_rng(3)
    groups = K // block[1]
    q = rng.integers(low, high, (N, K)).astype(dtype)
    tensors = {"_weight_qdata": q, "_weight_scale": rng.random((N, groups)).astype(np.float32),
               "_weight_zero_point": rng.integers(-3, 4, (N, groups)).astype(np.int8)}
    data = {"block_size": list(block)} | ({"target_dtype": {"_type": "torch.dtype", "_data": target}} if target else {})
    said = {f"{files.MODULE}.weight": json.dumps({"_type": kind, "_data": data})} if about else None
    return tensors, said, tmp_path / "model.safetensors"


@pytest.mark.parametrize(("kind", "block", "target", "bits"), [
    ("Int8Tensor", (1, K), None, 8), ("IntxUnpackedToInt8Tensor", (1, 8), "int4", 4), ("IntxUnpackedToInt8Tensor", (1, K), "int8", 8)])
def test_torchao(tmp_path, kind, block, target, bits):
    tensors, said, path = torchao(tmp_path, kind, block, target, low=-8 if bits == 4 else -128, high=8 if bits == 4 else 128)
    files.save(path, files.layer(tensors), said)
    for name in (files.MODULE, f"{files.MODULE}._weight_qdata"):
        stored = read_weight(f"{path}:{name}")
        assert (stored.bits, stored.shape, stored.group) == (bits, (K, N), None if block[1] == K else block[1])
        decoded = stored.decoded()
        for i in range(N):
            for k in range(K):
                group = k // block[1]
                true = np.float32(int(tensors["_weight_qdata"][i, k]) - int(tensors["_weight_zero_point"][i, group])) \
                    * tensors["_weight_scale"][i, group]
                assert decoded[k, i] == true


def test_torchao_fp8(tmp_path):
    import ml_dtypes

    tensors, said, path = torchao(tmp_path, "Float8Tensor")
    codes = np.linspace(-400, 400, N * K).reshape(N, K).astype(ml_dtypes.float8_e4m3fn)
    del tensors["_weight_zero_point"]
    files.save(path, files.layer(tensors | {"_weight_qdata": codes}), said)
    stored = read_weight(f"{path}:{files.MODULE}")
    np.testing.assert_array_equal(stored.decoded().T, codes.astype(np.float32) * tensors["_weight_scale"])
    assert "a scale per channel" in stored.layout


def test_of_several_files_that_of_the_weight_says_what_it_is(tmp_path):
    tensors, said, _ = torchao(tmp_path)
    files.save(tmp_path / "model-00001-of-00002.safetensors", {"a.weight": np.zeros((2, 2), np.float32)}, {"a.weight": "{}"})
    files.save(tmp_path / "model-00002-of-00002.safetensors", files.layer(tensors), said)
    index = {"weight_map": {"a.weight": "model-00001-of-00002.safetensors",
                            **dict.fromkeys(files.layer(tensors), "model-00002-of-00002.safetensors")}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weight(f"{tmp_path}:{files.MODULE}").bits == 8


@pytest.mark.parametrize(("change", "message"), [
    ({"about": False}, "the file's metadata does not say of which class"),
    ({"kind": "Int4TilePackedTo4dTensor"}, "torchao's Int4TilePackedTo4dTensor is not read"),
    ({"kind": "IntxUnpackedToInt8Tensor", "target": "int3"}, "of int3 is not read"),
    ({"block": (2, K)}, "is not that of blocks"),
    ({"kind": "IntxUnpackedToInt8Tensor", "target": "int4"}, "are no INT4, which the file's metadata says"),
    ({"dtype": np.int32}, "of dtype I32"),
])
def test_torchao_refused(tmp_path, change, message):
    tensors, said, path = torchao(tmp_path, **change)
    files.save(path, files.layer(tensors), said)
    with pytest.raises(InputError, match=message):
        read_weight(f"{path}:{files.MODULE}")


def test_torchao_without_its_scale(tmp_path):
    tensors, said, path = torchao(tmp_path)
    del tensors["_weight_scale"]
    files.save(path, files.layer(tensors), said)
    with pytest.raises(InputError, match="_weight_scale does not stand beside it"):
        read_weight(f"{path}:{files.MODULE}")


def hqq(bits, group=16):
    rng = np.random.default_rng(4)
    rows = N * K // group
    codes = rng.integers(0, 1 << bits, (rows, group))
    scale, zero = rng.random(rows).astype(np.float16), (rng.random(rows) * (1 << bits)).astype(np.float16)
    parts = 8 // bits
    packed = np.zeros((rows // parts, group), np.uint8)
    for row in range(rows):
        packed[row % len(packed)] |= (codes[row] << (bits * (parts - 1 - row // len(packed)))).astype(np.uint8)
    tensors = {"W_q": packed, "scale": scale.reshape(-1, 1), "zero": zero.reshape(-1, 1), "shape": np.array([N, K], np.int64),
               "nbits": np.array(bits, np.int32), "axis": np.array(1, np.int32), "group_size": np.array(group, np.int32),
               "packing": np.frombuffer(f"{bits}bit_u8".encode(), np.uint8), "quant_scale": np.array(0, np.uint8),
               "quant_zero": np.array(0, np.uint8), "round_zero": np.array(1, np.uint8)}
    return tensors, codes, scale, zero


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_hqq(tmp_path, bits):
    tensors, codes, scale, zero = hqq(bits)
    path = files.save(tmp_path / "model.safetensors", files.layer(tensors))
    stored = read_weight(f"{path}:{files.MODULE}")
    true = ((codes - zero.astype(np.float64)[:, None]) * scale.astype(np.float64)[:, None]).reshape(N, K)
    np.testing.assert_allclose(stored.decoded().T, true, rtol=1e-6)
    assert stored.group == 16
    assert stored.bits == max(bits, 4)


@pytest.mark.parametrize(("change", "message"), [
    ({"nbits": np.array(3, np.int32)}, "HQQ with 3 bits along axis 1 as 4bit_u8 is not read"),
    ({"axis": np.array(0, np.int32)}, "along axis 0"),
    ({"packing": None}, "as nothing that is named is not read"),
    ({"scale": None}, "scale and zero do not stand beside it"),
    ({"shape": None}, "'shape' does not stand beside it"),
    ({"shape": np.array([N, K + 16], np.int64)}, "are not those of"),
    ({"quant_zero": np.array(1, np.uint8)}, r"quantized themselves \(quant_zero\)"),
])
def test_hqq_refused(tmp_path, change, message):
    tensors = hqq(4)[0]
    for name, array in change.items():
        tensors.pop(name)
        if array is not None:
            tensors[name] = array
    path = files.save(tmp_path / "model.safetensors", files.layer(tensors))
    with pytest.raises(InputError, match=message):
        read_weight(f"{path}:{files.MODULE}")


def test_quanto_is_refused_by_name(tmp_path):
    path = files.save(tmp_path / "model.safetensors", files.layer({"weight._data": np.zeros((4, 8), np.int8),
                                                                   "weight._scale": np.ones((4, 1), np.float32)}))
    with pytest.raises(InputError, match="optimum-quanto's layout is not read"):
        read_weight(f"{path}:{files.MODULE}.weight._data")
