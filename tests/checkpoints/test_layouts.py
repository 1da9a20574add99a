"""Every layout decodes to the values it stands for, bit for bit, and runs through every dataflow that takes it."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest

from msdsim import simulate
from msdsim.checkpoints.values import ScaledCodes, integer_values, mx_values
from msdsim.checkpoints.weights import read_weight
from msdsim.errors import ArrayError, InputError, UnknownNameError
from msdsim.formats.number import FORMATS
from tests.checkpoints import files

MADE = {
    "gptq-v1": files.gptq(),
    "gptq-v2": files.gptq(v2=True),
    "gptq-act-order": files.gptq(act_order=True),
    "gptq-8-bits": files.gptq(bits=8),
    "gptq-3-bits": files.gptq(n=32, bits=3, seed=11),
    "gptq-2-bits": files.gptq(n=32, bits=2, seed=12),
    "auto-round-negative-scales": files.gptq(negative=True),
    "awq": files.awq(),
    "compressed-4": files.compressed(),
    "compressed-4-zeros": files.compressed(zeros=True),
    "compressed-8": files.compressed(bits=8),
    "compressed-3": files.compressed(bits=3, k=60),
    "w8a8": files.bytes8(),
    "w8a8-offset": files.bytes8(offset=True),
    "w4a8-a-byte-each": files.bytes8(groups=4, bits=4),
    "msmodelslim-w4a8": files.output_pairs(),
    "modelopt-int4": files.output_pairs(unsigned=True),
    "quark-int4": files.quark(),
    "quark-uint4": files.quark(dtype="uint4"),
    "fp8-blocks": files.fp8(),
    "fp8-ue8m0": files.fp8(scale_dtype=ml_dtypes.float8_e8m0fnu, name="scale"),
    "fp8-ue8m0-bytes": files.fp8(scale_dtype=np.uint8, name="weight_scale"),
    "fp8-channel": files.fp8(block=(1, 48), scale_dtype=ml_dtypes.bfloat16, name="weight_scale"),
    "fp8-tensor": files.fp8(block=(40, 48), name="weight_scale"),
    "mxfp8": files.fp8(n=24, k=64, block=(1, 32), scale_dtype=np.uint8, name="weight_scale"),
    "mxfp4": files.mxfp4(),
    "mxfp4-weight": files.mxfp4(form="weight"),
    "mxfp4-deepseek-v4": files.mxfp4(form="I8"),
    "nvfp4-modelopt": files.nvfp4(),
    "nvfp4-compressed": files.nvfp4(reciprocal=True),
}
#: Dataflows that take a kind of weight.
TAKEN = {"integer 4": ("bf16", "dequant-int4", "msd-int4", "a8w4", "dequant-int8", "msd-int8", "w8a8"),
         "integer 8": ("bf16", "dequant-int8", "msd-int8", "w8a8"),
         "mxfp4": ("bf16", "dequant-mxfp4"), "float": ("bf16", "dequant-int8", "msd-int4")}


def decoded(stored):
    return np.ascontiguousarray(np.swapaxes(stored.decoded(), -1, -2))


@pytest.mark.parametrize("name", MADE)
def test_values_bit_for_bit(name, tmp_path):
    made = MADE[name]
    np.testing.assert_array_equal(decoded(read_weight(made.write(tmp_path))), made.values)


@pytest.mark.parametrize("name", MADE)
def test_runs_through_what_takes_it(name, tmp_path):
    made = MADE[name]
    stored = read_weight(made.write(tmp_path))
    k, n = stored.shape
    x = np.random.default_rng(3).standard_normal((4, k)).astype(ml_dtypes.bfloat16).astype(np.float32)
    exact = x.astype(float) @ made.values.T
    for dataflow in TAKEN[stored.kind + (f" {4 if stored.bits < 5 else 8}" if stored.kind == "integer" else "")]:
        found = simulate(f"gemm:m=4,k={k},n={n}", "toy", dataflow, weights=stored, inputs={"x": x}, check=True, keep=("y",))
        assert found.numerics.good, (dataflow, found.numerics)
        limit = {"w8a8": 0.02, "a8w4": 0.02}.get(dataflow, 0.005) if stored.kind != "float" or dataflow == "bf16" else 0.2
        assert np.linalg.norm(found.arrays["y"] - exact) <= limit * np.linalg.norm(exact), dataflow
        assert found.weights in json.dumps(found.to_json()["weights"])


@pytest.mark.parametrize(("name", "said", "bits"), [("gptq-3-bits", "INT3", 3), ("gptq-8-bits", "INT8", 8), ("awq", "INT4", 4), ("compressed-8", "INT8", 8),
                                                    ("w8a8", "INT8", 8), ("w4a8-a-byte-each", "INT4", 4), ("msmodelslim-w4a8", "INT4", 4),
                                                    ("quark-int4", "INT4", 4)])
def test_width_of_the_integers(name, said, bits, tmp_path):
    stored = read_weight(MADE[name].write(tmp_path))
    assert stored.bits == bits
    assert f", {said}, " in f"{stored.layout}, "


@pytest.mark.parametrize(("code", "bits"), [(7, 4), (8, 8), (-8, 4), (-9, 8)])
def test_a_code_beyond_4_bits_makes_a_byte_each_8(code, bits, tmp_path):
    made = files.bytes8(groups=4, bits=4)
    made.tensors["weight"][:] = 0
    made.tensors["weight"][3, 5] = code
    assert read_weight(made.write(tmp_path)).bits == bits


def test_what_a_dataflow_cannot_take(tmp_path):
    made = files.bytes8()
    stored = read_weight(made.write(tmp_path))
    with pytest.raises(ArrayError, match=r"stored as INT8 .* this dataflow takes int4"):
        simulate("gemm:m=4,k=64,n=24", "toy", "msd-int4", weights=stored)
    with pytest.raises(ArrayError, match="takes MXFP4 blocks"):
        simulate("gemm:m=4,k=64,n=24", "toy", "dequant-mxfp4", weights=stored)
    with pytest.raises(ArrayError, match="stored as MXFP4"):
        simulate("gemm:m=4,k=64,n=24", "toy", "dequant-int8", weights=read_weight(files.mxfp4().write(tmp_path)))
    with pytest.raises(ArrayError, match="has group=32, and the weights have a scale for each channel"):
        simulate("gemm:m=4,k=64,n=24,group=32", "toy", "dequant-int8", weights=stored)


def test_act_order_says_what_it_costs_and_multiplies_the_same(tmp_path):
    made = files.gptq(act_order=True)
    spec = made.write(tmp_path)
    result = simulate("gemm:m=4,k=64,n=24", "toy", "msd-int4", weights=spec, check=True, keep=("y",))
    assert "that gather reads and writes 1,024 bytes" in result.weights
    plain = simulate("gemm:m=4,k=64,n=24", "toy", "bf16", weights=spec, keep=("y",))
    np.testing.assert_allclose(result.arrays["y"], plain.arrays["y"], atol=0.02 * np.abs(plain.arrays["y"]).max())


def test_experts(tmp_path):
    made = files.mxfp4(form="_blocks", experts=3)
    path = files.save(tmp_path / "m.safetensors", made.tensors)
    stored = read_weight(f"{path}:{files.MODULE}_blocks")
    np.testing.assert_array_equal(decoded(stored), made.values)
    found = simulate("grouped_gemm:rows=2+0+3,k=64,n=24", "toy", "dequant-mxfp4", weights=stored, check=True)
    assert found.numerics.good
    with pytest.raises(ArrayError, match=r"one matrix for each of 3 experts; give the problem as grouped_gemm:groups=3,m=\.\.\.,k=64,n=24"):
        simulate("gemm:m=2,k=64,n=24", "toy", "bf16", weights=stored)
    w = np.random.default_rng(0).standard_normal((3, 64, 24)).astype(np.float32)
    path = files.save(tmp_path / "e.safetensors", {"experts.up": w, "square": w[:, :24]})
    y = simulate("grouped_gemm:groups=3,m=2,k=64,n=24", "toy", "bf16", weights=f"{path}:experts.up", keep=("y",), inputs={"x": np.ones((3, 2, 64), np.float32)})
    np.testing.assert_allclose(y.arrays["y"][:, 0], w.sum(axis=1), atol=0.2)
    with pytest.raises(ArrayError, match="nothing beside it says which"):
        simulate("grouped_gemm:groups=3,m=2,k=24,n=24", "toy", "bf16", weights=f"{path}:square")


def test_experts_by_pattern(tmp_path):
    one = [files.gptq(seed=s) for s in range(11)]
    tensors = {f"layers.0.experts.{e}.up_proj.{rest}": array for e, made in enumerate(one) for rest, array in made.tensors.items()}
    path = files.save(tmp_path / "m.safetensors", tensors)
    stored = read_weight(f"{path}:layers.0.experts.*.up_proj.qweight")
    np.testing.assert_array_equal(decoded(stored), np.stack([made.values for made in one]))
    assert simulate("grouped_gemm:groups=11,m=1,k=64,n=24", "toy", "msd-int4", weights=stored, check=True).numerics.good


WRONG = {
    "fp8 without a scale": (lambda t: t.pop("weight_scale_inv"), files.fp8, "no scale beside it"),
    "packed without scales": (lambda t: t.pop("scales"), files.gptq, "without their 'scales'"),
    "i8 without a scale": (lambda t: t.pop("weight_scale"), files.bytes8, "without a scale beside them"),
    "compressed without a scale": (lambda t: t.pop("weight_scale"), files.compressed, "without their 'weight_scale'"),
    "compressed without a shape": (lambda t: t.pop("weight_shape"), files.compressed, "no weight_shape beside it"),
    "mxfp4 without a scale": (lambda t: t.pop("weight_scale"), files.mxfp4, "without a scale beside it"),
    "nvfp4 without block scales": (lambda t: t.pop("weight_scale"), files.nvfp4, "NVFP4 without its E4M3 weight_scale"),
    "swapped scales": (lambda t: t.update(weight_scale=t["weight_scale"].T), lambda: files.bytes8(groups=4), "fit neither 24 outputs nor 48"),
    "swapped channel scale": (lambda t: t.update(weight_scale=t["weight_scale"].T), files.bytes8, "are neither"),
    "swapped words": (lambda t: t.update(qweight=t["qweight"].T), files.gptq, "is neither GPTQ's"),
    "scales that are nan": (lambda t: t.update(scales=t["scales"] * np.float16("nan")), files.gptq, "has NaN or infinities"),
    "a group that is none": (lambda t: t.update(g_idx=t["g_idx"] + 1), files.gptq, "has group 4, and there are groups 0 to 3"),
    "uneven groups": (lambda t: t.update(g_idx=np.minimum(t["g_idx"], 2)), files.gptq, "gives groups of"),
    "two scales": (lambda t: t.update(weight_scale=t["weight_scale_inv"]), files.fp8, "2 scales beside it"),
    "mx nan": (lambda t: t["weight_scale"].__setitem__(0, 255), files.mxfp4, "NaN code 255"),
    "mxint8": (lambda t: t.update(weight=t["weight"], scale=np.ones((24, 1), np.uint8).view(ml_dtypes.float8_e8m0fnu)),
               lambda: files.mxfp4(form="I8"), "MXINT8"),
    "a width that is none": (lambda t: t.pop("qzeros") is None or t.update(g_idx=t["g_idx"][:60]), files.gptq, "packed integers have 2, 3, 4 or 8"),
    "plain with a scale": (lambda t: t.update(weight=np.ones((24, 64), np.float32)), files.bytes8, "stands beside it"),
    "gptq without zero points": (lambda t: t.pop("qzeros"), files.gptq, "no 'qzeros' beside it"),
    "awq without zero points": (lambda t: t.pop("qzeros"), files.awq, "no 'qzeros' beside it"),
    "quark without zero points": (lambda t: t.pop("weight_zero_point"), files.quark, "no weight_zero_point beside it"),
    "compressed with flat zero points": (lambda t: t.update(weight_zero_point=t["weight_zero_point"].reshape(-1)),
                                         lambda: files.compressed(zeros=True), "is no I32 [n bits/32, groups]"),
    "another scale": (lambda t: t.update(channel_scale=np.ones(64, np.float32)), files.gptq, "'channel_scale' stands beside it"),
    "a factor of mxfp4": (lambda t: t.update(pre_quant_scale=np.ones(64, np.float32)), files.mxfp4, "'pre_quant_scale' stands beside"),
    "zero points of fp8": (lambda t: t.update(weight_zero_point=np.ones((24, 1), np.int8)), files.fp8, "stands beside it"),
    "a codebook": (lambda t: t.update(codebook=np.ones(16, np.float32)), files.awq, "'codebook' stands beside it"),
    "no channel scales": (lambda t: t.update(weight_scale=t["weight_scale"][:, :0]),
                          lambda: files.fp8(block=(1, 48), name="weight_scale"), "is empty"),
    "swapped blocks": (lambda t: t.update(weight_scale_inv=t["weight_scale_inv"].T),
                       lambda: files.fp8(n=64, k=32, block=(16, 16)), "would be those of blocks of 32 x 8"),
    "scales of the last axis": (lambda t: t.update(weight_scale=np.ones((1, 48), np.float32)),
                                lambda: files.fp8(block=(1, 48), name="weight_scale"), "go with the last axis"),
    "mx scales of a channel": (lambda t: t.update(weight_scale=t["weight_scale"][:, :1]),
                               lambda: files.fp8(n=24, k=64, block=(1, 32), scale_dtype=np.uint8, name="weight_scale"), "one for each 32"),
    "hqq": (lambda t: t.update(W_q=t["weight"]), files.bytes8, "HQQ beside a weight of another kind is not read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(name, tmp_path):
    change, make, message = WRONG[name]
    made = make()
    change(made.tensors)
    made.config = None if name not in ("two scales", "fp8 without a scale", "quark without zero points") else made.config
    with pytest.raises(InputError) as found:
        read_weight(made.write(tmp_path))
    assert message in str(found.value)
    assert len(str(found.value)) < 2000


STATED = {
    "zero points": (files.compressed, {"config_groups": {"a": {"weights": {"num_bits": 4, "symmetric": False}}}}, "not symmetric, and there"),
    "an order": (files.compressed, {"config_groups": {"a": {"weights": {"num_bits": 4, "actorder": "group"}}}}, "no g_idx"),
    "another group": (files.compressed, {"config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 32}}}}, "says groups of 32"),
    "another block": (lambda: files.fp8(n=64, k=48, block=(16, 16)), {"weight_block_size": [128, 128]}, "says blocks of 128 x 128"),
    "another kernel": (files.gptq, {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "stated as marlin"),
    "two versions": (files.gptq, {"quant_method": "gptq", "checkpoint_format": "gptq", "format": "gptq_v2"}, "gptq and gptq_v2"),
    "gemv": (files.awq, {"quant_method": "awq", "version": "gemv"}, "AWQ of version gemv is not read"),
}


@pytest.mark.parametrize("name", STATED)
def test_what_the_config_says_and_the_tensors_do_not(name, tmp_path):
    make, config, message = STATED[name]
    made = make()
    made.config = config
    with pytest.raises(InputError, match=message):
        read_weight(made.write(tmp_path))


def test_a_version_by_its_newer_key(tmp_path):
    """GPTQModel writes ``format`` beside or in place of ``checkpoint_format``."""
    made = files.gptq(v2=True)
    made.config = {"quant_method": "gptq", "bits": 4, "format": "gptq_v2"}
    np.testing.assert_array_equal(decoded(read_weight(made.write(tmp_path))), made.values)


def test_nvfp4_with_factors_of_the_activations(tmp_path):
    made = files.nvfp4()
    factor = np.linspace(0.5, 2, made.values.shape[1]).astype(np.float32)
    made.tensors["pre_quant_scale"] = factor
    stored = read_weight(made.write(tmp_path))
    np.testing.assert_array_equal(stored.input_factor, factor)
    np.testing.assert_array_equal(decoded(stored), made.values)


@pytest.mark.parametrize(("stated", "k", "groups", "size"), [(None, 250, 4, 64), (100, 250, 3, 100), (None, 192, 3, 64)])
def test_a_last_group_that_is_not_full(stated, k, groups, size, tmp_path):
    """250 inputs in four groups are groups of 64 and one of 58."""
    made = files.bytes8(k=k, groups=groups, size=size)
    made.config = stated and {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"group_size": stated}}}}
    np.testing.assert_array_equal(decoded(read_weight(made.write(tmp_path))), made.values)


def test_groups_that_nothing_tells(tmp_path):
    with pytest.raises(InputError, match="30 groups of 250 inputs"):
        read_weight(files.bytes8(k=250, groups=30, size=9).write(tmp_path))


def test_the_side_of_a_block(tmp_path):
    """Three blocks of 40 may be 14 to 19 long: the power of two is taken, another one only where the config says so."""
    sixteen, stated = files.fp8(n=40, k=48, block=(16, 16)), files.fp8(n=40, k=54, block=(18, 18))
    sixteen.config = None
    np.testing.assert_array_equal(decoded(read_weight(sixteen.write(tmp_path))), sixteen.values)
    np.testing.assert_array_equal(decoded(read_weight(stated.write(tmp_path))), stated.values)
    (tmp_path / "config.json").unlink()
    odd = files.fp8(n=60, k=100, block=(21, 40))
    odd.config = None
    spec = odd.write(tmp_path)
    with pytest.raises(InputError, match=r"3 scales of 'weight_scale_inv' along 60 outputs: blocks of \d+.* no size|a config.json"):
        read_weight(spec)


@pytest.mark.parametrize("k", [512, 514, 513])
def test_many_codes_of_fp8_are_what_few_are(k):
    """All pairs of codes, NaN among them, looked up two at a time where there are many and one at a time elsewhere."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (1, 300, k)).astype(np.uint8)
    codes[0, :256, 0], codes[0, :256, 1] = np.arange(256), np.arange(256)[::-1]
    scale = rng.random((1, 300, 1)).astype(np.float32)
    many = ScaledCodes(codes.view(ml_dtypes.float8_e4m3fn), scale, (1, k)).values
    few = [ScaledCodes(codes[:, row : row + 1].view(ml_dtypes.float8_e4m3fn), scale[:, row : row + 1], (1, k)).values for row in range(300)]
    np.testing.assert_array_equal(many, np.concatenate(few, axis=1))
    np.testing.assert_array_equal(many, codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale)


def test_blocks_with_the_axes_inside_them(tmp_path):
    """modelopt 0.47.0 writes the scales of 2-D blocks as [n/128, 1, k/128, 1]."""
    made = files.fp8(n=32, k=48, name="weight_scale")
    made.tensors["weight_scale"] = made.tensors["weight_scale"][:, None, :, None]
    np.testing.assert_array_equal(decoded(read_weight(made.write(tmp_path))), made.values)
    made.tensors["weight_scale"] = np.ones((2, 2, 3, 1), np.float32)
    with pytest.raises(InputError, match="have more dimensions than the weight"):
        read_weight(made.write(tmp_path))


def test_two_scales_of_real_numbers_are_no_nvfp4(tmp_path):
    made = files.nvfp4()
    made.tensors["weight_scale"] = np.ones((24, 2), np.float32)
    with pytest.raises(InputError, match="as modelopt's W4A8_AWQ has them, are not read"):
        read_weight(made.write(tmp_path))


def test_symmetric_zero_points_of_two_versions(tmp_path):
    made = files.gptq(config=False)
    made.tensors["qzeros"] = np.full_like(made.tensors["qzeros"], np.uint32(0x88888888).view(np.int32))
    with pytest.raises(InputError, match="GPTQ v2, or one too much of v1"):
        read_weight(made.write(tmp_path))


def test_static_msmodelslim_without_weight_scale(tmp_path):
    made = files.bytes8()
    scale = made.tensors.pop("weight_scale")
    deq = (scale[:, 0] * np.float32(0.5)).astype(np.float32)
    made.tensors |= {"deq_scale": deq.view(np.uint32).astype(np.int64), "input_scale": np.array([0.5], np.float32)}
    stored = read_weight(made.write(tmp_path))
    np.testing.assert_array_equal(decoded(stored), made.values)
    assert "deq_scale / input_scale" in str(stored)


def test_factors_of_the_activations(tmp_path):
    made = files.bytes8()
    factor = np.linspace(0.5, 2, 64).astype(np.float32)
    made.tensors["pre_quant_scale"] = factor
    x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    found = simulate("gemm:m=2,k=64,n=24", "toy", "dequant-int8", weights=made.write(tmp_path), inputs={"x": x}, keep=("y",))
    exact = (x * factor) @ made.values.T
    assert np.linalg.norm(found.arrays["y"] - exact) < 0.01 * np.linalg.norm(exact)
    assert "multiplied by pre_quant_scale" in found.weights


def test_names(tmp_path):
    tensors = {f"model.layers.{i}.mlp.experts.{e}.{p}_proj.weight": np.zeros((1, 1), np.float16) for i in range(20) for e in range(50) for p in ("gate", "up", "down")}
    path = files.save(tmp_path / "many.safetensors", tensors)
    with pytest.raises(UnknownNameError, match=r"did you mean 'model.layers.7.mlp.experts.3.gate_proj.weight'.*3,000 tensors") as found:
        read_weight(f"{path}:model.layers.7.mlp.experts.3.gate_proj.weigth")
    assert len(str(found.value)) < 1000
    with pytest.raises(UnknownNameError, match=r"3,000 tensors, such as"):
        read_weight(f"{path}:nope")
    colon = files.save(tmp_path / "c.safetensors", {"sc:al:ed": np.ones((2, 3), np.float32)})
    assert read_weight(f"{colon}:sc:al:ed").shape == (2, 3)


def test_other_files(tmp_path):
    for name, start, message in (("a.npz", b"PK\x03\x04" + bytes(20), "an .npz belongs to --inputs"), ("a.npy", b"\x93NUMPY" + bytes(20), "give it by --inputs"),
                                 ("a.bin", b"GGUF" + bytes(20), "give it the name .gguf")):
        (tmp_path / name).write_bytes(start)
        with pytest.raises(InputError, match=message):
            read_weight(f"{tmp_path / name}:w")


@pytest.mark.parametrize("turned", [False, True, None])
@pytest.mark.parametrize(("k", "group"), [(256, None), (256, 64), (250, 64), (30, 64)])
@pytest.mark.parametrize("offset", [None, "whole", "broken"])
def test_values_of_integers_are_rounded_once(turned, k, group, offset):
    """However the codes lie in memory, with offsets that FP32 holds and with those that it does not."""
    rng = np.random.default_rng(k)
    q = rng.integers(-8, 8, (k, 48), np.int8)
    q = {False: q, True: np.asfortranarray(q), None: np.repeat(q, 2, axis=1)[:, ::2]}[turned]
    rows = () if group is None else (-(-k // group),)
    scale = rng.standard_normal((*rows, 48)).astype(np.float32) * np.float32(2.0**100)
    plus = {None: None, "whole": rng.integers(-128, 128, scale.shape), "broken": rng.standard_normal(scale.shape)}[offset]
    plus = None if plus is None else plus.astype(np.float32)
    spread = [np.repeat(np.atleast_2d(a), group or k, axis=0)[:k].astype(float) for a in (scale, 0 * scale if plus is None else plus)]
    with np.errstate(over="ignore"):
        want = ((q.astype(float) + spread[1]) * spread[0]).astype(np.float32)
    np.testing.assert_array_equal(integer_values(q, scale, plus, group), want)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("k", [96, 72])
def test_values_of_mx_blocks(turned, k):
    rng = np.random.default_rng(k)
    codes = rng.integers(0, 16, (k, 40), np.uint8)
    codes = np.asfortranarray(codes) if turned else codes
    scale = rng.integers(0, 255, (3, 40), np.uint8)
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    exact = np.where(codes & 8, -1, 1) * table[codes & 7] * 2.0 ** (np.repeat(scale, 32, axis=0)[:k].astype(float) - 127)
    with np.errstate(over="ignore"):
        want = exact.astype(np.float32)
        np.testing.assert_array_equal(mx_values(codes.view(FORMATS["fp4_e2m1"].dtype), scale.view(FORMATS["e8m0"].dtype)), want)
