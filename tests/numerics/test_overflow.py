"""Results beyond BF16 and logits beyond FP32: one rule for kernel and reference, counted, and never a NaN in a sentence.

The chips' default mode is Inf/NaN (CANN, set_device_sat_mode: "retain the default Inf/NaN mode" on Atlas A2 and A3), in which a
conversion that overflows gives an infinity.
"""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
import pytest

import msdsim
from msdsim.cli.program import run_program
from msdsim.dataflows.lookup import dataflows_for
from msdsim.errors import ArrayError
from msdsim.formats.quantize import quantize_weight

LARGEST = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
CHIPS = ("ascend910b1", "ascend950pr")
ATTENTION = "attention:batch=1,heads=4,kv_heads=2,head_dim=64,q=1,kv=40"


def _gemm_cases():
    return [(name, chip) for name in dataflows_for("gemm") for chip in CHIPS]


@pytest.mark.parametrize(("dataflow", "chip"), _gemm_cases())
@pytest.mark.parametrize(("scale", "weights"), [(1e30, 1e9), (1e20, 3e17), (1e20, 1)])
def test_one_rule_for_every_dataflow(dataflow, chip, scale, weights):
    """Huge, mixed and large results: kernel and reference agree to the bit, and nothing is claimed of what overflowed."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((8, 96)) * np.logspace(-3, 0, 8)[:, None]).clip(-1, 1).astype(np.float32) * np.float32(scale)
    w = (rng.standard_normal((96, 32)) * weights).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = msdsim.compare("gemm:m=8,k=96,n=32", chip, [dataflow], check=True, inputs={"x": x, "w": w})
    if not found.runs:
        assert "Cube of" in found.skipped[0].reason
        return
    numbers = found.runs[0].numerics
    assert numbers.bit_exact, numbers.first_mismatch
    assert numbers.bound_ratio is None or numbers.bound_ratio <= 1
    finite = np.isfinite(found.runs[0].arrays["y"])
    assert numbers.overflowed == np.count_nonzero(~finite)
    assert np.isfinite(numbers.relative_l2) == finite.any()
    assert (numbers.overflowed == 0) == (weights == 1)


def test_all_outputs_overflow():
    x, w = np.full((1, 2), 1e30, np.float32), np.full((2, 2), 1e9, np.float32)
    for dataflow in ("bf16", "w8a8", "msd-int8", "dequant-int4"):
        result = msdsim.simulate("gemm:m=1,k=2,n=2", dataflow=dataflow, check=True, inputs={"x": x, "w": w})
        assert np.isposinf(result.arrays["y"]).all(), dataflow
        assert (result.numerics.overflowed, result.numerics.bound_ratio) == (2, None)
        assert result.numerics.good
        assert "nan" not in str(result.to_json()["numerics"]).lower()


def test_the_largest_bf16_is_no_overflow():
    """One conversion that stays just inside the range, and one that rounds just out of it."""
    w = np.ones((1, 1), np.float32)
    for factor, count in ((1.0, 0), (1.0 + 2.0**-7, 1)):
        half = np.float32(LARGEST / 2)
        x = np.array([[half, half * np.float32(factor)]], np.float32)
        result = msdsim.simulate("gemm:m=1,k=2,n=1", dataflow="bf16", check=True, inputs={"x": x, "w": np.repeat(w, 2, axis=0)})
        assert result.numerics.overflowed == count
        assert result.numerics.bit_exact


def test_the_command_says_it_and_leaves_with_0(tmp_path, capsys):
    path = str(tmp_path / "x.npz")
    np.savez(path, x=np.full((1, 2), 1e30, np.float32), w=np.full((2, 2), 1e9, np.float32))
    assert run_program(["compare", "gemm:m=1,k=2,n=2", "--inputs", path, "--check"]) == 0
    told = capsys.readouterr()
    assert "overflow" in told.out
    assert "nan" not in told.out.lower()
    assert told.err == ""
    assert run_program(["run", "gemm:m=1,k=2,n=2", "--dataflow", "msd-int8", "--inputs", path, "--check"]) == 0
    assert "2 of 2 outputs overflow BF16" in capsys.readouterr().out


@pytest.mark.parametrize("dataflow", dataflows_for("attention"))
def test_logits_beyond_fp32_are_the_arrays_fault(dataflow):
    chip = "ascend950pr" if "mxfp4" in dataflow else "ascend910b1"
    q, k = np.ones((1, 4, 1, 64), np.float32), np.ones((1, 2, 40, 64), np.float32)
    q[0, 2:], k[0, 1, 7] = 3e38, 3e38
    with pytest.raises(ArrayError, match=r"the logits overflow FP32 at batch 0, head [23], query 0, token \d+: .* scale q or k down"):
        msdsim.simulate(ATTENTION, chip, dataflow, check=True, inputs={"q": q, "k": k, "v": np.ones_like(k)})


def test_a_dataflow_that_cannot_compute_does_not_cost_the_others():
    rng = np.random.default_rng(0)
    q, v = rng.standard_normal((1, 4, 1, 64)).astype(np.float32), rng.standard_normal((1, 2, 40, 64)).astype(np.float32)
    codes = rng.integers(-127, 128, v.shape).astype(np.int8)
    # Channels with scales so large that only a dataflow which multiplies them into Q leaves FP32.
    given = {"q": q * np.float32(1e30), "k": codes, "k_scale": np.full((2, 64), 1e9, np.float32), "v": v}
    found = msdsim.compare(ATTENTION, dataflows=["bf16", "msd-int8"], check=True, inputs=given | {"q": q})
    assert len(found.runs) == 2
    with pytest.raises(ArrayError, match="the logits overflow"):
        msdsim.compare(ATTENTION, dataflows=["bf16", "msd-int8"], check=True, inputs=given)


@pytest.mark.parametrize(("fmt", "steps"), [("int8", 255), ("int4", 15)])
@pytest.mark.filterwarnings("error")
def test_a_column_that_spans_more_than_fp32_holds(fmt, steps):
    w = np.linspace(-3.3e38, 3.3e38, 64, dtype=np.float64).astype(np.float32)[:, None]
    found = quantize_weight(w, fmt, offset=True)
    assert found.scale[0] == pytest.approx(6.6e38 / steps, rel=1e-6)
    # Half a step, and as much where the offset was rounded.
    assert np.abs(found.values().astype(float) - w).max() <= 6.6e38 / steps


def test_groups_without_span_have_codes_of_zero():
    w = np.concatenate([np.full((32, 3), 0.7), np.full((32, 3), -0.3), np.zeros((32, 3))]).astype(np.float32)
    for fmt in ("int8", "int4"):
        found = quantize_weight(w, fmt, group=32, offset=True)
        assert set(np.unique(found.q)) == {0}
        assert found.offset.tolist() == [[1, 1, 1], [-1, -1, -1], [0, 0, 0]]
        assert np.array_equal(found.values().astype(np.float32), w)


def test_cache_offsets_and_scales_with_axes_of_one():
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, 4, 1, 64)).astype(np.float32)
    codes = {name: rng.integers(-127, 128, (1, 2, 40, 64)).astype(np.int8) for name in ("k", "v")}
    flat = {f"{name}_scale": rng.random((2, 64), np.float32) + 0.5 for name in ("k", "v")}
    wide = {name: scale[None, :, None, :] for name, scale in flat.items()}
    one, other = (msdsim.simulate(ATTENTION, dataflow="msd-int8", check=True, inputs={"q": q, **codes, **scales})
                  for scales in (flat, wide))
    assert np.array_equal(one.arrays["y"], other.arrays["y"])
    with pytest.raises(ArrayError, match="offsets of the KV cache are not modelled"):
        msdsim.simulate(ATTENTION, dataflow="msd-int8", check=True, inputs={"q": q, **codes, **flat, "k_offset": flat["k_scale"]})


@pytest.mark.parametrize("place", [60, 100, 200, -60])
def test_a_damaged_npz_is_one_line(tmp_path, capsys, place):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.ones((4, 64), np.float32))
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)
    code = run_program(["run", "gemm:m=4,k=64,n=32", "--hw", "toy", "--inputs", str(path), "--quiet"])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) in ((0, 0), (2, 1))


def test_compression_that_is_not_known(tmp_path, capsys):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.ones((4, 64), np.float32))
    data = path.read_bytes()
    # The method of compression stands in the local header and in the directory.
    data = data.replace(b"PK\x01\x02", b"PK\x01\x02", 1)
    at = data.index(b"PK\x01\x02") + 10
    path.write_bytes(data[:8] + b"\x61" + data[9:at] + b"\x61" + data[at + 1 :])
    assert run_program(["run", "gemm:m=4,k=64,n=32", "--hw", "toy", "--inputs", str(path)]) == 2
    assert "is not an npz file of plain arrays" in capsys.readouterr().err
