"""Activations that come quantized, and results that are written in FP32: same numbers, less work, and refusals by name."""

from __future__ import annotations

import numpy as np
import pytest

from msdsim import simulate
from msdsim.dataflows.lookup import dataflows_for
from msdsim.errors import MsdsimError
from msdsim.formats.msd import MSD_INT8, decompose
from msdsim.formats.mx import quantize_mx
from msdsim.formats.number import FP8_E4M3FN

#: The ways an INT8 kernel runs: a product a channel, K in parts, A held in L1, groups in GM, groups in UB, experts.
WAYS = {
    "channel": ("toy", "gemm:m=20,k=200,n=96", {}),
    "transposed": ("toy", "gemm:m=20,k=200,n=96,trans_b=1", {}),
    "parts": ("toy", "gemm:m=20,k=256,n=64", {"k_parts": 2}),
    "resident": ("toy", "gemm:m=9,k=64,n=160", {"a_resident": 1}),
    "groups": ("toy", "gemm:m=20,k=256,n=96,group=64", {}),
    "direct": ("ascend950pr", "gemm:m=20,k=256,n=96,group=64", {"direct": 1}),
    "experts": ("toy", "grouped_gemm:rows=5+0+11,k=64,n=96", {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_given_int8_is_what_w8a8_makes_of_it(way):
    """The same bits from the activations that w8a8 quantizes and from what it makes of them, in no more time."""
    hw, problem, tiling = WAYS[way]
    whole = simulate(problem, hw=hw, dataflow="w8a8", check=True, tiling=tiling)
    given = simulate(problem + ",x=int8", hw=hw, dataflow="w8a8", check=True, tiling=tiling)
    assert given.numerics.bit_exact
    np.testing.assert_array_equal(given.arrays["y"], whole.arrays["y"])
    assert given.cycles < whole.cycles
    # A signal that nobody needs is not there: no core waits for all others before it multiplies.
    assert "split_done" not in [signal.name for signal in given.kernel.signals]


#: What is different about a kernel of MX operands: ragged blocks, parts of K, scales of several L1 tiles, experts, nz.
MX_WAYS = {
    "ragged": ("gemm:m=20,k=300,n=70", {"base_m": 16, "base_n": 32, "l1_k": 64, "l0_k": 64, "scale_k": 128}),
    "transposed": ("gemm:m=20,k=300,n=70,trans_b=1", {}),
    "parts": ("gemm:m=20,k=768,n=64", {"k_parts": 3}),
    "nz": ("gemm:m=40,k=512,n=128,layout=nz", {}),
    "experts": ("grouped_gemm:groups=2,m=20,k=128,n=64", {}),
    "uneven": ("grouped_gemm:rows=5+0+17,k=96,n=64", {"base_m": 16}),
}


@pytest.mark.parametrize(("dataflow", "way"), [
    *[("w8a8-mxfp8", way) for way in MX_WAYS], ("w4a4-mxfp4", "ragged"), ("w4a4-mxfp4", "nz"), ("mxfp8", "parts"),
    ("mxfp8", "uneven")])
def test_given_mx_is_what_the_dataflow_makes_of_it(dataflow, way):
    (problem, tiling), x = MX_WAYS[way], dataflow[-5:]
    whole = simulate(problem, hw="ascend950pr", dataflow=dataflow, check=True, tiling=tiling)
    given = simulate(f"{problem},x={x}", hw="ascend950pr", dataflow=dataflow, check=True, tiling=tiling)
    assert whole.numerics.good
    assert given.numerics.good
    np.testing.assert_array_equal(given.arrays["y"], whole.arrays["y"])
    assert given.cycles < whole.cycles
    assert "split_done" not in [signal.name for signal in given.kernel.signals]


def test_mx_arrays_that_are_given():
    rng = np.random.default_rng(5)
    # BF16 numbers, since real activations are rounded to those first.
    x, w = rng.integers(-128, 128, (6, 64)).astype(np.float32) / 64, rng.standard_normal((64, 32)).astype(np.float32)
    (a, a_scale), (q, scale) = quantize_mx(x, FP8_E4M3FN, "rceil"), quantize_mx(w, FP8_E4M3FN, axis=0)
    codes = {name: array.view(np.uint8) for name, array in {"x": a, "x_scale": a_scale, "q": q, "scale": scale}.items()}
    problem = "gemm:m=6,k=64,n=32,x=mxfp8,out=fp32"
    found = simulate(problem, hw="ascend950pr", dataflow="w8a8-mxfp8", check=True, inputs=codes)
    same = simulate(problem, hw="ascend950pr", dataflow="w8a8-mxfp8", check=True, inputs={"x": x, "w": w})
    np.testing.assert_array_equal(found.arrays["y"], same.arrays["y"])
    assert np.abs(found.arrays["y"] - x @ w).max() < 2.5
    for change, message in (({"x_scale": np.full((6, 2), 255, np.uint8)}, "NaN code 255"), ({"x": codes["x"] | 0x7F}, "NaN code"),
                            ({"x_scale": np.ones((6, 2), np.float32)}, "needs uint8 E8M0 codes"),
                            ({"x_scale": np.ones((6, 1), np.uint8)}, "x_scale has shape")):
        with pytest.raises(MsdsimError, match=message):
            simulate(problem, hw="ascend950pr", dataflow="w8a8-mxfp8", check=True, inputs=codes | change)


def test_arrays_that_are_given():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((6, 64)).astype(np.float32)
    parts = decompose(x, MSD_INT8.with_passes(1))
    w = rng.standard_normal((64, 32)).astype(np.float32)
    inputs = {"x": parts.components[0], "x_scale": parts.row_scale, "w": w}
    found = simulate("gemm:m=6,k=64,n=32,x=int8,out=fp32", hw="toy", dataflow="w8a8", check=True, inputs=inputs)
    assert found.numerics.good
    assert np.abs(found.arrays["y"] - x @ w).max() < 0.3


@pytest.mark.parametrize(("problem", "dataflow", "inputs", "message"), [
    ("gemm:m=6,k=64,n=32,x=int8", "msd-int8", {}, "'msd-int8' splits BF16 activations, and x=int8 is given; use w8a8"),
    ("gemm:m=6,k=64,n=32,x=int8", "bf16", {}, "'bf16' multiplies BF16 activations, and x=int8 is given; use w8a8"),
    ("gemm:m=6,k=64,n=32,x=int8,offset=1", "w8a8", {}, "leave out offset=1 or x=int8"),
    ("gemm:m=6,k=64,n=32,x=fp8", "w8a8", {}, "x = 'fp8'"),
    ("gemm:m=6,k=64,n=32,out=fp16", "bf16", {}, "out = 'fp16'"),
    ("gemm:m=6,k=64,n=32,x=mxfp8", "w8a8", {}, "x=mxfp8 is given; use mxfp8 or w8a8-mxfp8"),
    ("gemm:m=6,k=63,n=32,x=mxfp4", "w4a4-mxfp4", {}, "k=63 is odd; pad it to 64"),
    ("gemm:m=6,k=64,n=32,x=mxfp8", "w4a4-mxfp4", {}, "use mxfp8 or w8a8-mxfp8"),
    ("gemm:m=6,k=64,n=32,x=int8", "w8a8", {"x": np.ones((6, 64), np.int8)}, "need their 'x_scale'"),
    ("gemm:m=6,k=64,n=32,x=int8", "w8a8", {"x_scale": np.ones(6, np.float32)}, "needs the quantized activations 'x'"),
    ("gemm:m=6,k=64,n=32", "bf16", {"x_scale": np.ones(6, np.float32)}, "add x=int8 to the problem"),
    ("gemm:m=6,k=64,n=32,x=int8", "w8a8", {"x": np.full((6, 64), 200), "x_scale": np.ones(6)}, "200"),
])
def test_refusals(problem, dataflow, inputs, message):
    with pytest.raises(MsdsimError, match=message):
        simulate(problem, hw="toy", dataflow=dataflow, check=True, inputs=inputs or None)


@pytest.mark.parametrize("dataflow", [name for name in dataflows_for("gemm") if "mx" not in name])
def test_fp32_results(dataflow):
    """What is rounded last is not: inside a bound without that rounding, and BF16 of it is the other result."""
    rounded = simulate("gemm:m=20,k=128,n=96", hw="toy", dataflow=dataflow, check=True)
    found = simulate("gemm:m=20,k=128,n=96,out=fp32", hw="toy", dataflow=dataflow, check=True, tiling=rounded.tiling)
    assert found.numerics.good
    assert {tensor.name: tensor.fmt for tensor in found.kernel.tensors}["y"] == "fp32"
    assert found.numerics.relative_l2 <= rounded.numerics.relative_l2
    bits = found.arrays["y"].view(np.uint32).astype(np.uint64)
    nearest = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(nearest, rounded.arrays["y"])


@pytest.mark.parametrize("dataflow", ["msd-mxfp4", "mxfp8", "convert-mxfp4", "dequant-mxfp4", "w8a8-mxfp8", "w4a4-mxfp4"])
def test_fp32_results_of_mx_kernels(dataflow):
    assert simulate("gemm:m=16,k=64,n=64,out=fp32", hw="ascend950pr", dataflow=dataflow, check=True).numerics.good
