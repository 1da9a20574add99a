"""Every attention contract: reference = rational arithmetic, the bound, tiles, masks, operands, bad input."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_attention import METHODS, attention
from rational_oracle import fractions

from msdsim.errors import ArrayError, InputError, UnknownNameError
from msdsim.numerics.contracts import CONTRACTS, contract_for
from msdsim.numerics.metrics import bound_ratio, compare_bits, relative_l2
from msdsim.problems.model import Attention

NAMES = [c.name for c in CONTRACTS.values() if c.kind == "attention"]
BF16 = ml_dtypes.bfloat16


def problem(**options):
    return Attention(**{"batch": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "q": 2, "kv": 70, **options})


def run(name, shape, inputs=None, seed=0, kv_tile=32):
    contract = contract_for("attention", name).with_kv_tile(kv_tile)
    operands = contract.operands(shape, inputs, seed)
    y, y64 = contract.reference(shape, operands)["y"], contract.exact(shape, operands)
    assert y.dtype == BF16
    assert y.shape == y64.shape == (shape.batch, shape.heads, shape.q, shape.v_dim or shape.head_dim)
    assert bound_ratio(y, y64, contract.bound(shape, operands, y64)) <= 1
    return operands, y, y64


def test_every_contract_has_an_oracle_and_a_description():
    assert set(NAMES) == set(METHODS)
    assert all(contract_for("attention", name).description for name in NAMES)


OPTIONS = [{}, {"causal": 1, "q": 3, "kv": 40}, {"scales": "token"}, {"head_dim": 33, "kv": 33},
           {"batch": 2, "heads": 4, "kv_heads": 2, "q": 1, "kv": 5, "scales": "token"},
           {"v_dim": 5, "scale_dim": 3, "kv": 40}, {"v_dim": 11, "causal": 1, "scales": "token", "kv": 34},
           {"v_dim": 6, "shared_kv": 1, "scale_dim": 5, "kv": 40}, {"shared_kv": 1, "kv": 34, "scales": "token"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_reference_equals_rational_arithmetic(name, options):
    shape = problem(**options)
    if shape.shared_kv and "mxfp4" in name:
        pytest.skip("blocks of K and V run along different axes")
    operands, y, _ = run(name, shape)
    oracle = attention(METHODS[name], 32)(shape, operands)
    assert fractions(y.reshape(-1, y.shape[-1])) == [row for b in oracle for head in b for row in head]


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(NAMES), heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]), q=st.integers(1, 4),
       extra=st.integers(0, 80), dim=st.integers(1, 40), scales=st.sampled_from(["channel", "token"]),
       causal=st.booleans(), spread=st.integers(0, 4), seed=st.integers(0, 10**6), v_dim=st.integers(1, 40),
       scale_dim=st.integers(1, 100))
def test_bound_holds_on_random_problems(name, heads, q, extra, dim, scales, causal, spread, seed, v_dim, scale_dim):
    shared = v_dim <= dim and "mx" not in name
    shape = problem(heads=heads[0], kv_heads=heads[1], q=q, kv=q + extra, head_dim=dim, scales=scales,
                    causal=int(causal), v_dim=v_dim, scale_dim=scale_dim, shared_kv=int(shared))
    rng = np.random.default_rng(seed)

    def draw(*size):
        return (rng.standard_normal(size) * 2.0 ** rng.integers(-spread, spread + 1, size)).astype(np.float32)

    inputs = {"q": draw(1, heads[0], q, dim), "k": draw(1, heads[1], q + extra, dim)}
    run(name, shape, inputs if shared else {**inputs, "v": draw(1, heads[1], q + extra, v_dim)})


@pytest.mark.parametrize(("name", "spread"), [("msd-mxfp4", 1.0), ("msd-mxfp4", 30.0), ("dequant-int4", 30.0), ("msd-int8", 500.0)])
def test_every_element_has_a_bound(name, spread):
    """Also where a coarse cache, long rows or large logits leave the weights wide open: an average stays in the range of V."""
    shape = problem(head_dim=128, kv=2048, q=1)
    rng = np.random.default_rng(3)
    inputs = {key: (spread * rng.standard_normal((1, 2 if key == "q" else 1, 1 if key == "q" else 2048, 128))).astype(np.float32)
              for key in ("q", "k")} | {"v": rng.standard_normal((1, 1, 2048, 128)).astype(np.float32)}
    contract = contract_for("attention", name)
    operands = contract.operands(shape, inputs)
    y64 = contract.exact(shape, operands)
    bound = contract.bound(shape, operands, y64)
    assert np.isfinite(bound).all()
    assert (bound < 20 * np.abs(inputs["v"]).max()).all()
    assert bound_ratio(contract.reference(shape, operands)["y"], y64, bound) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_one_key_gives_its_value(name):
    """softmax over one token is 1 whatever the logit, so y is that token's V."""
    shape = problem(kv=1, q=1)
    _, y, y64 = run(name, shape)
    np.testing.assert_allclose(y.astype(float), y64, rtol=2**-7 if "mx" not in name else 2**-4)


@pytest.mark.parametrize("name", NAMES)
def test_equal_keys_average_the_values(name):
    shape = problem(q=1, kv=64)
    inputs = {"k": np.ones((1, 1, 64, 8)), "v": np.random.default_rng(1).choice([1.0, -1.0, 3.0], (1, 1, 64, 8))}
    _, y, y64 = run(name, shape, inputs)
    assert np.abs(y.astype(float) - y64).max() < 2.0**-6


def test_masked_keys_do_not_matter():
    shape = problem(causal=1, q=3, kv=50)
    rng = np.random.default_rng(2)
    k, v = (rng.standard_normal((1, 1, 50, 8)).astype(np.float32) for _ in range(2))
    first = run("bf16", shape, {"k": k, "v": v})[1]
    k[:, :, 48:], v[:, :, 48:] = 5, 1e4  # the first row sees keys 0..47, the last all of them
    second = run("bf16", shape, {"k": k, "v": v})[1]
    assert compare_bits(first[:, :, 0], second[:, :, 0], "y") is None
    assert compare_bits(first[:, :, 2], second[:, :, 2], "y") is not None


def test_the_tile_is_part_of_the_contract():
    shape = problem(kv=300)
    results = [run("bf16", shape, kv_tile=tile)[1] for tile in (32, 64, 512)]
    assert any(compare_bits(results[0], other, "y") for other in results[1:])
    with pytest.raises(InputError, match="kv_tile=48 is not a multiple of 32; give one of at least 32"):
        contract_for("attention", "msd-mxfp4").with_kv_tile(48)
    with pytest.raises(InputError, match="kv_tile=0 is not a multiple of 1"):
        contract_for("attention", "bf16").with_kv_tile(0)


def test_passes_and_msd_against_dequant():
    shape, errors = problem(heads=4, head_dim=64, kv=256), {}
    for name, passes in (("dequant-int8", None), ("msd-int8", 1), ("msd-int8", 2)):
        contract = contract_for("attention", name)
        contract = contract if passes is None else contract.with_passes(passes)
        operands = contract.operands(shape)
        errors[name, passes] = relative_l2(contract.reference(shape, operands)["y"], contract.exact(shape, operands))
    assert errors["msd-int8", 2] < errors["dequant-int8", None] < errors["msd-int8", 1]
    with pytest.raises(InputError, match=r"'bf16' decomposes nothing, so it has no number of passes \(got 3\)"):
        CONTRACTS["bf16"].with_passes(3)


def test_given_quantized_cache_and_scales():
    shape = problem(scales="token", kv=6)
    rng = np.random.default_rng(0)
    inputs = {"k": rng.integers(-127, 128, (1, 1, 6, 8)).astype(np.int8), "k_scale": rng.random((1, 1, 6)) + 0.01}
    operands, _, _ = run("msd-int8", shape, inputs)
    np.testing.assert_array_equal(operands["k"], inputs["k"])
    np.testing.assert_array_equal(operands["k_scale"], inputs["k_scale"].astype(np.float32))
    bf16 = contract_for("attention", "bf16").operands(shape, inputs)["k"]
    exact = inputs["k"] * inputs["k_scale"].astype(np.float32).astype(float)[..., None]
    np.testing.assert_array_equal(bf16, exact.astype(np.float32).astype(BF16))
    codes = {"k": rng.integers(0, 16, (1, 1, 6, 8)).astype(np.int8), "k_scale": np.full((1, 1, 6, 1), 120, np.uint8)}
    operands, _, _ = run("msd-mxfp4", shape, codes)
    np.testing.assert_array_equal(operands["k"].view(np.uint8), codes["k"])


K = np.zeros((1, 1, 4, 8), np.int8)


@pytest.mark.parametrize(("name", "inputs", "message"), [
    ("bf16", {"Q": np.zeros(1)}, r"unknown array 'Q' in the inputs \(known: q, k, v, k_scale, v_scale\)"),
    ("bf16", {"q": np.zeros((1, 2, 2, 4))}, r"q has shape \[1, 2, 2, 4\], the problem needs \[1, 2, 2, 8\]"),
    ("bf16", {"k": np.full((1, 1, 4, 8), np.nan)}, r"k has nan at index \(0, 0, 0, 0\)"),
    ("bf16", {"v": np.full((1, 1, 4, 8), 1e39)}, "v has 1e.39 at .* above the largest bf16"),
    ("bf16", {"q": np.zeros((1, 2, 2, 8), complex)}, "q has dtype complex128"),
    ("msd-int8", {"k": K}, "quantized 'k' needs 'k_scale'"),
    ("msd-int8", {"k": K.astype(float), "k_scale": np.ones((1, 8))}, "k_scale belongs to quantized k, but k is"),
    ("msd-int8", {"k": K, "k_scale": np.ones((1, 4))}, r"k_scale has shape \[1, 4\], the problem needs \[1, 8\]"),
    ("msd-int8", {"v": K, "v_scale": np.zeros((1, 8))}, r"v_scale has 0.0 at row 0, column 0; scales are above 0"),
    ("msd-int4", {"v": K + 8, "v_scale": np.ones((1, 8))}, r"v has 8 .* outside int4 \[-8, 7\]"),
    ("msd-int8", {"v": K, "v_scale": np.ones((1, 8), np.uint8)}, "v_scale has dtype uint8; int8 needs float32"),
    ("msd-mxfp4", {"v": K, "v_scale": np.ones((1, 8))}, "v_scale has dtype float64; mxfp4 needs uint8 E8M0 codes"),
    ("msd-mxfp4", {"k": K, "k_scale": np.full((1, 1, 4, 1), 255, np.uint8)}, r"k_scale has 255 .* the E8M0 codes"),
])
def test_bad_arrays_are_named(name, inputs, message):
    with pytest.raises(ArrayError, match=message):
        contract_for("attention", name).operands(problem(kv=4), inputs)


@pytest.mark.parametrize("scales", ["channel", "token"])
@pytest.mark.parametrize("name", [name for name in NAMES if "mx" not in name])
def test_a_shared_cache_is_k_given_twice(name, scales):
    """The same bits as two caches whose V, with its scales, is the first channels of K."""
    options = {"head_dim": 12, "kv": 45, "scales": scales, "scale_dim": 7, "v_dim": 9}
    shared, apart = problem(**options, shared_kv=1), problem(**options)
    operands, y, _ = run(name, shared)
    assert not {"v", "v_scale"} & set(operands)
    inputs = {"q": operands["q"], "k": operands["k"], "v": operands["k"][..., :9]}
    if "k_scale" in operands:
        scale = operands["k_scale"]
        inputs |= {"k_scale": scale, "v_scale": scale[:, :9] if scales == "channel" else scale}
    assert compare_bits(y, run(name, apart, inputs)[1], "y") is None


def test_what_a_shared_cache_cannot_have():
    shape = problem(kv=4, shared_kv=1, v_dim=6)
    with pytest.raises(ArrayError, match="'v' cannot be given with shared_kv=1, where V is the first 6 channels of k"):
        contract_for("attention", "bf16").operands(shape, {"v": np.zeros((1, 1, 4, 6))})
    with pytest.raises(ArrayError, match="shared_kv=1 is not possible with an MXFP4 cache"):
        contract_for("attention", "msd-mxfp4").operands(shape)


def test_unknown_contract_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown attention contract 'mxfp8' \(known: bf16, dequant-int8"):
        contract_for("attention", "mxfp8")
