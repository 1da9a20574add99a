"""The layouts against the libraries that write or read them; a library that is not installed skips its test with its name."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from msdsim.checkpoints.weights import read_weight
from msdsim.errors import InputError
from tests.checkpoints import files


def decoded(spec):
    return np.ascontiguousarray(read_weight(spec).decoded().T)


@pytest.fixture
def gguf_file(tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    path = tmp_path / "model.gguf"
    w = np.random.default_rng(0).standard_normal((48, 256)).astype(np.float32)
    kinds = {kind: getattr(gguf.GGMLQuantizationType, kind) for kind in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "F16", "BF16", "F32")}
    writer = gguf.GGUFWriter(path, "llama")
    truth = {}
    for name, kind in kinds.items():
        data = w.astype(np.float16) if name == "F16" else w if name == "F32" else gguf.quants.quantize(w, kind)
        truth[name] = data.astype(np.float32) if name in ("F16", "F32") else gguf.quants.dequantize(data, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=None if name in ("F16", "F32") else kind)
    # MXFP4 has no writer: blocks by hand, decoded by the library's own reader.
    blocks = np.random.default_rng(1).integers(0, 256, (48, 8, 17)).astype(np.uint8)
    blocks[..., 0] = blocks[..., 0] % 20 + 110
    data = blocks.reshape(48, 8 * 17)
    truth["MXFP4"] = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.MXFP4)
    writer.add_tensor("MXFP4.weight", data, raw_dtype=gguf.GGMLQuantizationType.MXFP4)
    # Experts in front.
    stacked = gguf.quants.quantize(np.stack([w, -w, 2 * w]), kinds["Q8_0"])
    truth["experts"] = gguf.quants.dequantize(stacked, kinds["Q8_0"])
    writer.add_tensor("experts.weight", stacked, raw_dtype=kinds["Q8_0"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, truth


def test_gguf(gguf_file):
    path, truth = gguf_file
    for name, values in truth.items():
        stored = read_weight(f"{path}:{name}.weight")
        np.testing.assert_array_equal(np.swapaxes(stored.decoded(), -1, -2), values, err_msg=name)
        assert stored.kind == {"Q8_0": "integer", "experts": "integer", "Q4_0": "integer", "MXFP4": "mxfp4"}.get(name, "float")


def test_damaged_gguf(gguf_file, tmp_path):
    data = gguf_file[0].read_bytes()
    for number, damaged in enumerate((data[:40], data[:2000], data[:8] + b"\xff" * 16 + data[24:])):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is no GGUF file that gguf [0-9.]+ reads|unknown tensor") as found:
            read_weight(f"{path}:Q8_0.weight")
        assert len(str(found.value)) < 2000


def onnx_model(path, k, n, bits, block, zeros=False, order=None, seed=0):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    rng = np.random.default_rng(seed)
    blocks = -(-k // block)
    codes = rng.integers(0, 1 << bits, (n, blocks * block))
    scale = (rng.standard_normal((n, blocks)) * 0.1).astype(np.float32)
    zero = rng.integers(0, 1 << bits, (n, blocks)) if zeros else np.full((n, blocks), 1 << (bits - 1))
    packed = files.pack(codes, bits).view(np.uint8).reshape(n, blocks, block * bits // 8)
    which = np.arange(k) // block if order is None else order
    values = (codes[:, :k] - zero[:, which]).astype(float) * scale[:, which].astype(float)
    inputs = {"B": packed, "scales": scale.reshape(-1)}
    if zeros:
        inputs["zeros"] = files.pack(zero, bits).view(np.uint8)[:, : -(-blocks * bits // 8)].reshape(-1)
    if order is not None:
        inputs["order"] = order.astype(np.int32)
    names = ["x", "B", "scales", "zeros" if zeros else "", "order"][: 5 if order is not None else 4 if zeros else 3]
    node = onnx.helper.make_node("MatMulNBits", names, ["y"], name="layer", domain="com.microsoft", K=k, N=n, bits=bits, block_size=block)
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in inputs.items()]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [None, k])], [value("y", 1, [None, n])], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10
    onnx.save(model, path)
    return np.asarray(values, np.float32)


CASES = [(64, 8, 4, 32, False), (72, 8, 4, 32, True), (64, 8, 8, 16, True), (96, 6, 2, 32, True), (48, 8, 8, 16, False)]


@pytest.mark.parametrize(("k", "n", "bits", "block", "zeros"), CASES)
def test_matmul_nbits(k, n, bits, block, zeros, tmp_path):
    values = onnx_model(tmp_path / "m.onnx", k, n, bits, block, zeros)
    for name in ("layer", "B"):
        np.testing.assert_array_equal(decoded(f"{tmp_path / 'm.onnx'}:{name}"), values)


def test_matmul_nbits_with_an_order(tmp_path):
    order = np.random.default_rng(2).permutation(np.arange(64) // 16)
    values = onnx_model(tmp_path / "m.onnx", 64, 8, 4, 16, True, order)
    np.testing.assert_array_equal(decoded(f"{tmp_path / 'm.onnx'}:layer"), values)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "bits", "block", "zeros"), CASES)
def test_matmul_nbits_as_onnxruntime_runs_it(k, n, bits, block, zeros, tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; seen with 1.32.0")
    values = onnx_model(tmp_path / "m.onnx", k, n, bits, block, zeros)
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    x = np.eye(k, dtype=np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0].T, values, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_safetensors_reads_the_files_of_these_tests(tmp_path):
    safe_open = pytest.importorskip("safetensors", reason="safetensors is not installed; seen with 0.8.0").safe_open
    made = files.gptq()
    spec = made.write(tmp_path)
    with safe_open(spec.rpartition(":")[0], framework="np") as opened:
        for name, array in files.layer(made.tensors).items():
            np.testing.assert_array_equal(opened.get_tensor(name), array)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(bits, symmetric, tmp_path):
    """Packed by compressed-tensors itself (seen with 0.20.1)."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    packing = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers", reason="compressed-tensors is not installed")
    rng = np.random.default_rng(0)
    middle = 1 << (bits - 1)
    q, zero = rng.integers(-middle, middle, (24, 60)).astype(np.int8), rng.integers(-middle, middle, (24, 3)).astype(np.int8)
    scale = (rng.random((24, 3)) + 0.1).astype(np.float32)
    tensors = {"weight_packed": packing.pack_to_int32(torch.tensor(q), bits).numpy(), "weight_scale": scale, "weight_shape": np.array([24, 60])}
    if not symmetric:
        tensors["weight_zero_point"] = packing.pack_to_int32(torch.tensor(zero), bits, packed_dim=0).contiguous().numpy()
    values = (q.astype(float) - (0 if symmetric else zero[:, np.arange(60) // 20].astype(float))) * scale[:, np.arange(60) // 20]
    np.testing.assert_array_equal(decoded(files.Made(tensors, "weight_packed", values).write(tmp_path)), values.astype(np.float32))


@pytest.mark.slow
def test_fp8_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    raw = np.arange(256, dtype=np.uint8)
    finite = np.isfinite(codes)
    kept = raw[finite][:252].reshape(4, 63)
    made = files.Made({"weight": kept.view(ml_dtypes.float8_e4m3fn), "weight_scale": np.float32(0.5).reshape(1)}, "weight", codes[finite][:252].reshape(4, 63) * 0.5)
    np.testing.assert_array_equal(decoded(made.write(tmp_path)), made.values)
