"""safetensors: every dtype as the format's own library writes it, layouts, and every mistake in one clear sentence."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from msdsim.checkpoints.stored import StoredWeight
from msdsim.errors import ArrayError, InputError, UnknownNameError
from msdsim.numerics.contracts import contract_for
from msdsim.numerics.weights import fit, load_tensor, load_weight
from msdsim.problems import parse_problem
from msdsim.problems.model import Gemm


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"layer.weight": rng.standard_normal((6, 4)).astype(np.float32), "square": np.arange(9.0).reshape(3, 3),
               "half": np.float16([[1.5, -2]]), "bias": np.ones(6, np.float32), "ids": np.arange(4).reshape(2, 2),
               "nan": np.float32([[1, np.nan]]), "empty": np.zeros((0, 4), np.float32)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "np"})
    return path, tensors


def raw(path, dtype, array):
    """A file written by hand, for the dtypes numpy lacks."""
    data = array.tobytes()
    header = json.dumps({"w": {"dtype": dtype, "shape": list(array.shape), "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return f"{path}:w"


def test_tensors_equal_what_the_library_wrote(file):
    path, tensors = file
    for name in ("layer.weight", "square", "half"):
        got = load_tensor(f"{path}:{name}")
        np.testing.assert_array_equal(got, tensors[name])
        assert got.dtype == (np.float64 if name == "square" else np.float32)


@pytest.mark.parametrize(("dtype", "number"), [("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn),
                                               ("F8_E5M2", ml_dtypes.float8_e5m2)])
def test_formats_numpy_lacks(tmp_path, dtype, number):
    array = np.float32([[1.5, -3], [0.125, 8]]).astype(number)
    spec = raw(tmp_path / "w.safetensors", dtype, array)
    if dtype == "BF16":
        np.testing.assert_array_equal(load_tensor(spec), array.astype(np.float32))
    else:
        with pytest.raises(InputError, match="FP8 with no scale beside it"):
            load_tensor(spec)


def test_layouts(file):
    path, tensors = file
    w = tensors["layer.weight"]
    np.testing.assert_array_equal(load_weight(f"{path}:layer.weight", k=4, n=6), w.T)
    np.testing.assert_array_equal(load_weight(f"{path}:layer.weight", k=6, n=4), w)
    np.testing.assert_array_equal(load_weight(f"{path}:square", 3, 3), tensors["square"].T)
    inputs = {"w": load_weight(f"{path}:layer.weight", 4, 6)}
    operands = contract_for("gemm", "msd-int8").operands(Gemm(m=2, k=4, n=6), inputs)
    np.testing.assert_allclose(operands["w"] * operands["scale"], w.T, atol=np.abs(w).max() / 250)


@pytest.mark.parametrize(("name", "error", "message"), [
    ("layer.weigth", UnknownNameError, r"unknown tensor of model.safetensors 'layer.weigth'; did you mean 'layer"),
    ("ids", InputError, "tensor 'ids': has dtype I64, and no layout that is read has these tensors"),
    ("bias", ArrayError, r"tensor 'bias' has 1 dimensions \(shape \[6\]\)"),
    ("empty", InputError, r"tensor 'empty': is empty"),
    ("nan", ArrayError, "tensor 'nan' has nan at row 0, column 1"),
    ("layer.weight", ArrayError, r"has shape \[6, 4\]; the problem needs \[n, k\] = \[7, 4\] or \[k, n\] = \[4, 7\]"),
])
def test_bad_tensors(file, name, error, message):
    with pytest.raises(error, match=message):
        load_weight(f"{file[0]}:{name}", 4, 7)


def test_bad_files(tmp_path):
    for spec in ("model.safetensors", ":w", "model.safetensors:"):
        with pytest.raises(InputError, match=r"do not name a tensor; write FILE\.safetensors:TENSOR"):
            load_tensor(spec)
    with pytest.raises(InputError, match=r"weights file '.*none\.safetensors' does not exist"):
        load_tensor(f"{tmp_path / 'none.safetensors'}:w")
    path = tmp_path / "bad.safetensors"
    length = (4).to_bytes(8, "little")
    contents = {b"": "its header would have 0 bytes", b"PK\x03\x04" * 9: "its header would have",
                length + b"{{{{": "its header is not JSON", length + b"[1] ": "its header is not a JSON object"}
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"'bad.safetensors' is not a safetensors file: {message}"):
            load_tensor(f"{path}:w")
    raw(path, "F32", np.ones((2, 2), np.float32))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"'w' ends at byte \d+, and the file has \d+; it is cut off"):
        load_tensor(f"{path}:w")
    header = json.dumps({"w": {"dtype": "F32"}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="the entry of 'w' has a shape that is no list"):
        load_tensor(f"{path}:w")


@pytest.mark.parametrize("experts", [False, True])
def test_mxfp8_weights_of_a_checkpoint_lose_nothing(experts):
    """Whatever rule made the scales: with 240 as the largest element of a block the rule of new weights would saturate."""
    rng = np.random.default_rng(3)
    elements = rng.integers(-15, 16, (2, 64, 8)) * 16.0
    elements[:, 0] = 240
    values = (elements * 2.0 ** rng.integers(-9, 9, (2, 2, 8)).repeat(32, axis=1)).astype(np.float32)
    values, text = (values, "grouped_gemm:groups=2,m=1,k=64,n=8") if experts else (values[0], "gemm:m=1,k=64,n=8")
    fitted = fit(StoredWeight("mxfp8", values=values), parse_problem(text), "mxfp8", None, 0, "w")
    assert fitted.said == "mxfp8; as they are"
    scale = np.ldexp(1.0, fitted.inputs["scale"].astype(int) - 127).repeat(32, axis=-2)
    np.testing.assert_array_equal(fitted.inputs["q"].view(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale, values)
    other = fit(StoredWeight("float", values=values + np.float32(0.3)), parse_problem(text), "mxfp8", None, 0, "w")
    assert "quantized to mxfp8" in other.said
