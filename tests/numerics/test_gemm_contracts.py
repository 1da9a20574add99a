"""Every GEMM contract: reference = rational arithmetic, error within the bound, layouts, operands, bad input."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rational_oracle import GEMM_ORACLES, fp32_components, fractions, integer_gemm

from msdsim.errors import ArrayError, InputError, ProblemError, UnknownNameError
from msdsim.formats.msd import MSD_SPECS
from msdsim.formats.quantize import quantize_weight
from msdsim.numerics.contracts import CONTRACTS, contract_for
from msdsim.numerics.matmul import mmad_int as matmul_int
from msdsim.numerics.metrics import bound_ratio, compare_bits, relative_l2
from msdsim.problems import Gemm

GEMM_NAMES = [name for name, contract in CONTRACTS.items() if contract.kind == "gemm"]
MX = {"convert-mxfp4", "dequant-mxfp4", "msd-mxfp4", "mxfp8", "w8a8-mxfp8", "w4a4-mxfp4"}
BF16 = ml_dtypes.bfloat16


def test_every_contract_has_an_oracle_and_a_description():
    assert set(GEMM_NAMES) == set(GEMM_ORACLES)
    assert all(CONTRACTS[name].description for name in GEMM_NAMES)


def check(gemm, name, problem, inputs=None, seed=0, oracle=True):
    contract = contract_for("gemm", name)
    operands = contract.operands(problem, inputs, seed)
    y = contract.reference(problem, operands)["y"]
    assert y.dtype == BF16
    assert y.shape == (problem.m, problem.n)
    if oracle:
        assert fractions(y) == GEMM_ORACLES[name](problem, operands)
    y64 = contract.exact(problem, operands)
    bound = contract.bound(problem, operands, y64)
    assert bound.shape == y64.shape
    assert bound_ratio(y, y64, bound) <= 1
    return y, y64, bound


@pytest.mark.parametrize("name", GEMM_NAMES)
@pytest.mark.parametrize("shape", [(3, 70, 4), (1, 1, 1), (2, 129, 3)])
def test_reference_equals_rational_arithmetic(gemm, name, shape):
    check(gemm, name, gemm(*shape))


@pytest.mark.parametrize(("name", "x"), [("mxfp8", "mxfp8"), ("w8a8-mxfp8", "mxfp8"), ("w4a4-mxfp4", "mxfp4")])
def test_activations_given_in_mx_equal_rational_arithmetic(gemm, name, x):
    y, *_ = check(gemm, name, gemm(3, 70, 4, x=x))
    # They are those that the dataflow makes of the same numbers itself.
    assert compare_bits(check(gemm, name, gemm(3, 70, 4))[0], y, "y") is None


@pytest.mark.parametrize("name", [n for n in GEMM_NAMES if n not in MX])
@pytest.mark.parametrize("options", [{"offset": True}, {"group": 32}, {"group": 25, "offset": True}, {"group": 200},
                                     {"group": 32, "offset": True, "trans_b": True}], ids=str)
def test_groups_offsets_and_layouts_equal_rational_arithmetic(gemm, name, options):
    check(gemm, name, gemm(2, 70, 3, **options))


@pytest.mark.parametrize("name", GEMM_NAMES)
def test_transposed_weights_change_no_bit(gemm, name):
    contract, plain, turned = CONTRACTS[name], gemm(4, 96, 5), gemm(4, 96, 5, trans_b=True)
    a, b = contract.operands(plain, None, 3), contract.operands(turned, None, 3)
    assert b["w"].shape == (5, 96)
    assert b["w"].flags.c_contiguous
    assert compare_bits(contract.reference(plain, a)["y"], contract.reference(turned, b)["y"], "y") is None


HARD_X = {
    "ties of the first pass": lambda rng, m, k: (rng.integers(-253, 254, (m, k)) / 2.0),
    "one huge element": lambda rng, m, k: np.where(np.arange(k) == k // 2, 2.0**100, rng.standard_normal((m, k))),
    "subnormals": lambda rng, m, k: rng.integers(-9, 10, (m, k)) * 2.0**-133,
    "all equal": lambda rng, m, k: np.full((m, k), -3.25),
    "powers of two": lambda rng, m, k: 2.0 ** rng.integers(-30, 30, (m, k)),
    "a zero row": lambda rng, m, k: rng.standard_normal((m, k)) * (np.arange(m) != 0)[:, None],
    "cancellation": lambda rng, m, k: np.where(np.arange(k) % 2, 1, -1) * np.ones((m, 1)) * (1 + 2.0**-7),
}


@pytest.mark.parametrize("what", HARD_X)
@pytest.mark.parametrize("name", GEMM_NAMES)
def test_adversarial_activations_stay_within_the_bound(gemm, name, what):
    x = HARD_X[what](np.random.default_rng(11), 3, 65).astype(np.float32)
    problem = gemm(3, 65, 2, offset=name not in MX)
    y, _, _ = check(gemm, name, problem, {"x": x})
    if what == "a zero row":
        assert not y[0].any()


@pytest.mark.parametrize("name", [n for n in GEMM_NAMES if n not in MX and n != "bf16"])
@pytest.mark.parametrize("options", [{}, {"offset": True}, {"group": 32}, {"group": 32, "offset": True}], ids=str)
def test_scales_of_either_sign_have_the_same_bound(gemm, name, options):
    """As Q4_0 and AutoRound store them."""
    contract, problem = contract_for("gemm", name), gemm(4, 128, 8, **options)
    operands = dict(contract.operands(problem, None, 1))

    def bound():
        return contract.bound(problem, operands, contract.exact(problem, operands))

    straight = bound()
    if "offset" not in options and "bias8" not in operands:
        # The same weights, said the other way round.
        operands = operands | {"w": -operands["w"], "scale": -operands["scale"]}
        np.testing.assert_array_equal(bound(), straight)
    operands["scale"] = operands["scale"] * np.where(np.arange(8) % 3, -1, 1).astype(np.float32)
    y, y64 = contract.reference(problem, operands)["y"], contract.exact(problem, operands)
    assert bound_ratio(y, y64, bound()) <= 1


@pytest.mark.parametrize("name", [n for n in GEMM_NAMES if n not in MX and n != "bf16"])
@pytest.mark.parametrize("group", [None, 16])
def test_zeros_with_an_offset_have_the_error_of_the_offset(gemm, name, group):
    """Nothing else rounds: a bound that leaves the offset out is 0 here."""
    contract, problem = contract_for("gemm", name), gemm(3, 48, 4, group=group, offset=True, out="fp32")
    operands = dict(contract.operands(problem, None, 5))
    operands |= {key: np.zeros_like(operands[key]) for key in ("w", "bias8") if key in operands}
    y, y64 = contract.reference(problem, operands)["y"], contract.exact(problem, operands)
    assert np.any(y64 != y)
    assert bound_ratio(y, y64, contract.bound(problem, operands, y64)) <= 1


@settings(max_examples=40, deadline=None)
@given(data=st.data(), m=st.integers(1, 4), k=st.integers(1, 90), n=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_bound_holds_on_random_problems(gemm, data, m, k, n, seed):
    name = data.draw(st.sampled_from(GEMM_NAMES))
    options = {"trans_b": data.draw(st.booleans())}
    if name not in MX:
        options |= {"group": data.draw(st.sampled_from([None, 1, 16, 64])), "offset": data.draw(st.booleans())}
    rng = np.random.default_rng(seed)
    spread = data.draw(st.integers(0, 40))
    x, w = (rng.standard_normal(s) * 2.0 ** rng.integers(-spread, spread + 1, s) for s in ((m, k), (k, n)))
    check(gemm, name, gemm(m, k, n, **options), {"x": x, "w": w}, oracle=False)


@pytest.mark.parametrize(("name", "share"), [("bf16", 0.5), ("msd-int8", 0.5), ("dequant-int8", 0.3)])
def test_bounds_are_not_idle(gemm, name, share):
    """With one product per output the bound is close to what happens."""
    _, y64, bound = check(gemm, name, gemm(64, 1, 64), oracle=False)
    contract = CONTRACTS[name]
    y = contract.reference(gemm(64, 1, 64), contract.operands(gemm(64, 1, 64), None, 0))["y"]
    assert bound_ratio(y, y64, bound) > share


@pytest.mark.parametrize("name", GEMM_NAMES)
def test_the_compiled_method_gives_the_same_bits(gemm, name):
    problem, contract = gemm(20, 100, 30), CONTRACTS[name]
    operands = contract.operands(problem, None, 9)
    fast = contract.compiled()
    assert (fast.name, fast.kind) == (name, "gemm")
    assert compare_bits(contract.reference(problem, operands)["y"], fast.reference(problem, operands)["y"], "y") is None


def test_more_passes_are_more_exact(gemm):
    problem, errors = gemm(8, 512, 16), []
    for passes in (1, 2, 3):
        contract = CONTRACTS["msd-int4"].with_passes(passes)
        operands = contract.operands(problem, None, 0)
        result = contract.reference(problem, operands)
        assert {f"a{i + 1}" for i in range(passes)} <= set(result)
        errors.append(relative_l2(result["y"], contract.exact(problem, operands)))
    assert errors[0] > 5 * errors[1]
    one = CONTRACTS["msd-int8"].with_passes(1)
    assert compare_bits(one.reference(problem, one.operands(problem))["y"],
                        CONTRACTS["w8a8"].reference(problem, CONTRACTS["w8a8"].operands(problem))["y"], "y") is None


VARIANTS = {"int8-vendor": ("msd-int8", (127.499, 254.998, 2), {}), "int4-vendor": ("msd-int4", (7.49, 14.98, 3), {}),
            "int8-floor": ("msd-int8", (128, 128, 2), {"rounding": lambda v: int(v // 1), "headroom": 1.001})}


@pytest.mark.parametrize("name", VARIANTS)
def test_vendor_variants_equal_rational_arithmetic(gemm, name):
    base, (f, g, passes), options = VARIANTS[name]
    contract = CONTRACTS[base].with_spec(MSD_SPECS[name])
    oracle = integer_gemm(f, g, passes, components_of=lambda row, f, g, n: fp32_components(row, f, g, n, **options))
    for problem in (gemm(3, 70, 3), gemm(2, 70, 3, group=32, offset=True)):
        operands = contract.operands(problem, None, 2)
        y, y64 = contract.reference(problem, operands)["y"], contract.exact(problem, operands)
        assert fractions(y) == oracle(problem, operands)
        assert bound_ratio(y, y64, contract.bound(problem, operands, y64)) <= 1


def test_decompositions_that_do_not_fit():
    with pytest.raises(InputError, match="'msd-int8' cannot take the decomposition 'int4-vendor'; give one of int8 rows"):
        CONTRACTS["msd-int8"].with_spec(MSD_SPECS["int4-vendor"])
    for name in ("w8a8", "a8w4"):
        with pytest.raises(InputError, match=f"'{name}' quantizes x once, so it takes no number of passes"):
            CONTRACTS[name].with_passes(2)


def test_one_group_of_k_is_per_channel_for_dequant(gemm):
    contract, problems = CONTRACTS["dequant-int8"], (gemm(3, 64, 4), gemm(3, 64, 4, group=64))
    results = [contract.reference(p, contract.operands(p, None, 1))["y"] for p in problems]
    assert compare_bits(*results, "y") is None


def test_components_of_the_reference(gemm):
    problem = gemm(2, 40, 3)
    for name, dtype in (("msd-int8", np.int8), ("a8w4", np.int8), ("msd-mxfp4", ml_dtypes.float4_e2m1fn)):
        result = CONTRACTS[name].reference(problem, CONTRACTS[name].operands(problem))
        assert result["a1"].dtype == result["a2"].dtype == dtype
        assert result["a1"].shape == (2, 40)
    assert np.abs(CONTRACTS["a8w4"].reference(problem, CONTRACTS["a8w4"].operands(problem))["a1"]).max() <= 8


# ---- operands -------------------------------------------------------------------------------------------------------

def test_same_seed_same_tensors_for_every_dataflow(gemm):
    problem = gemm(3, 50, 4)
    first = CONTRACTS["bf16"].operands(problem, None, 5)
    for name in GEMM_NAMES:
        operands = CONTRACTS[name].operands(problem, None, 5)
        np.testing.assert_array_equal(operands["x"].view(np.uint16), first["x"].view(np.uint16))
        w64 = CONTRACTS[name].exact(gemm(50, 50, 4), {**operands, "x": np.eye(50, dtype=np.float32)})
        assert np.abs(w64 - first["w"].astype(float)).max() < 0.4 * np.abs(w64).max()
    assert not np.array_equal(first["x"], CONTRACTS["bf16"].operands(problem, None, 6)["x"])


def test_storage_dtypes(gemm):
    expected = {"bf16": BF16, "msd-int8": np.int8, "msd-int4": np.int8, "mxfp8": ml_dtypes.float4_e2m1fn,
                "w8a8-mxfp8": ml_dtypes.float8_e4m3fn, "w4a4-mxfp4": ml_dtypes.float4_e2m1fn}
    for name, dtype in expected.items():
        operands = CONTRACTS[name].operands(gemm(2, 40, 3, offset=name in ("msd-int8", "msd-int4")))
        assert operands["x"].dtype == BF16
        assert operands["w"].dtype == dtype
    assert CONTRACTS["mxfp8"].operands(gemm(2, 40, 3))["scale"].dtype == ml_dtypes.float8_e8m0fnu
    assert CONTRACTS["msd-int8"].operands(gemm(2, 40, 3, group=16, offset=True))["offset"].shape == (3, 3)


def test_given_quantized_weights_are_used_as_they_are(gemm):
    weight = quantize_weight(np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32), "int8", offset=True)
    inputs = {"x": np.ones((2, 40)), "q": weight.q, "scale": weight.scale, "offset": weight.offset}
    problem = gemm(2, 40, 3, offset=True)
    operands = CONTRACTS["msd-int8"].operands(problem, inputs)
    for ours, given_name in (("w", "q"), ("scale", "scale"), ("offset", "offset")):
        np.testing.assert_array_equal(operands[ours], inputs[given_name])
    bf16 = CONTRACTS["bf16"].operands(problem, inputs)["w"]
    np.testing.assert_array_equal(bf16, weight.values().astype(np.float32).astype(BF16))


def test_given_mx_codes_are_used_as_they_are(gemm):
    inputs = {"q": np.arange(16, dtype=np.int8).repeat(2)[:, None], "scale": np.uint8([[130]])}
    operands = CONTRACTS["mxfp8"].operands(gemm(1, 32, 1), inputs)
    np.testing.assert_array_equal(operands["w"][:, 0].view(np.uint8), inputs["q"][:, 0])
    np.testing.assert_array_equal(CONTRACTS["bf16"].operands(gemm(1, 32, 1), inputs)["w"][:4, 0], [0, 0, 4, 4])


Q = np.zeros((4, 2), np.int8)
ONES = np.ones(2, np.float32)


@pytest.mark.parametrize(("name", "inputs", "options", "message"), [
    ("bf16", {"x": np.zeros((2, 3))}, {}, r"x has shape \[2, 3\], the problem needs \[2, 4\]"),
    ("bf16", {"x": [[0, 0, 0, 0], [0, 0, np.nan, 0]]}, {}, "x has nan at row 1, column 2"),
    ("bf16", {"x": np.full((2, 4), 3.4e38)}, {}, r"x has 3.4e\+38 at row 0, column 0, above the largest bf16"),
    ("bf16", {"w": np.full((4, 2), 1e39)}, {}, r"w has 1e\+39 at row 0, column 0, above the largest bf16"),
    ("bf16", {"x": np.zeros((2, 4), complex)}, {}, "x has dtype complex128; give real numbers"),
    ("msd-int8", {"w": np.full((4, 2), np.inf)}, {}, "w has inf at row 0, column 0"),
    ("msd-int8", {"x": np.full((2, 4), 2.0**121)}, {}, r"x has 2.65\S* in row 0, above 2\^120"),
    ("msd-int8", {"X": np.zeros((2, 4))}, {}, r"unknown array 'X' in the inputs \(known: x, x_scale, w, q, scale, offset\)"),
    ("msd-int8", {"q": Q}, {}, "'q' need their 'scale'"),
    ("msd-int8", {"scale": ONES}, {}, "'scale' belongs to quantized weights 'q'"),
    ("msd-int8", {"q": Q, "scale": ONES, "w": Q}, {}, "hold both 'w' and 'q'"),
    ("msd-int8", {"q": Q.astype(float), "scale": ONES}, {}, "q has dtype float64; quantized weights are integers"),
    ("msd-int8", {"q": Q.astype(int) + 128, "scale": ONES}, {}, r"q has 128 at row 0, .* outside int8 \[-128, 127\]"),
    ("msd-int4", {"q": Q + 8, "scale": ONES}, {}, r"q has 8 at row 0, column 0, outside int4 \[-8, 7\]"),
    ("mxfp8", {"q": Q + 16, "scale": np.ones((1, 2), np.uint8)}, {}, r"q has 16 .* outside the E2M1 codes \[0, 15\]"),
    ("mxfp8", {"q": Q, "scale": np.full((1, 2), 255, np.uint8)}, {}, "scale has the E8M0 NaN code 255 at row 0"),
    ("mxfp8", {"q": Q, "scale": ONES}, {}, "scale has dtype float32; mxfp4 weights need uint8 E8M0 codes"),
    ("w8a8-mxfp8", {"q": Q + 127, "scale": np.ones((1, 2), np.uint8)}, {}, "q has the fp8_e4m3fn NaN code 127 at row 0"),
    ("w8a8-mxfp8", {"q": Q.astype(int) + 256, "scale": np.ones((1, 2), np.uint8)}, {}, r"outside the E4M3 codes \[0, 255\]"),
    ("msd-int8", {"q": Q, "scale": np.ones((1, 2), np.uint8)}, {}, "scale has dtype uint8; int8 weights need float32"),
    ("msd-int8", {"q": Q, "scale": [1, np.inf]}, {}, r"scale has inf at index 1"),
    ("msd-int8", {"q": Q, "scale": [[1, 1]]}, {}, r"scale has shape \[1, 2\], the problem needs \[2\]"),
    ("msd-int8", {"q": Q, "scale": [1, 1]}, {"group": 3}, r"scale has shape \[2\], the problem needs \[2, 2\]"),
    ("msd-int8", {"q": Q, "scale": ONES, "offset": ONES}, {}, "hold an 'offset'; add offset=1 to the problem"),
    ("msd-int8", {"q": Q, "scale": ONES}, {"offset": True}, "the inputs lack 'offset'; add it or drop offset=1"),
    ("msd-int8", {"q": Q, "scale": ONES, "offset": [0, np.nan]}, {"offset": True}, "offset has nan at index 1"),
])
def test_bad_arrays_are_named(gemm, name, inputs, options, message):
    inputs = {key: np.asarray(value) for key, value in inputs.items()}
    with pytest.raises(ArrayError, match=message):
        CONTRACTS[name].operands(gemm(2, 4, 2, **options), inputs)


def test_exact_at_the_last_safe_k(gemm):
    k = (2**31 - 1) // (127 * 128)
    problem, contract = gemm(1, k, 1), CONTRACTS["msd-int8"]
    inputs = {"x": np.full((1, k), -1), "q": np.full((k, 1), -128, np.int8), "scale": np.ones(1, np.float32)}
    operands = contract.operands(problem, inputs)
    c1 = matmul_int(contract.reference(problem, operands)["a1"], operands["w"])
    assert c1[0, 0] == 127 * 128 * k <= 2**31 - 1 < 127 * 128 * (k + 1)
    assert contract.reference(problem, operands)["y"][0, 0] == np.float32(128 * k).astype(BF16)


def test_problems_that_a_contract_cannot_take(gemm):
    last = (2**31 - 1) // (127 * 128)
    with pytest.raises(ProblemError, match=rf"k={last + 1} can overflow int32 .* the largest safe k is {last}"):
        CONTRACTS["msd-int8"].operands(gemm(1, last + 1, 1))
    CONTRACTS["msd-int8"].operands(gemm(1, last + 1, 1, group=128))
    CONTRACTS["bf16"].operands(gemm(1, last + 1, 1))
    with pytest.raises(ProblemError, match="mxfp4 weights have blocks of 32 along k and no offset"):
        CONTRACTS["mxfp8"].operands(gemm(1, 64, 1, group=32))
    problem, contract = gemm(1, 32, 1), replace(CONTRACTS["mxfp8"], scale_rule="ocp-floor")
    operands = contract.operands(problem)
    with pytest.raises(ProblemError, match="'ocp-floor' saturates and has no such bound"):
        contract.bound(problem, operands, np.zeros((1, 1)))
    with pytest.raises(UnknownNameError, match="unknown contract 'int8'"):
        contract_for("gemm", "int8")


@pytest.mark.parametrize("name", ["bf16", "dequant-int8", "dequant-mxfp4", "msd-mxfp4", "mxfp8"])
def test_k_in_parts_is_the_sum_of_gemms_over_the_parts(name):
    """Every part by itself, sums added in fp32 with parts ascending: 300 in three parts is 128 + 128 + 44."""
    shape, contract = Gemm(m=3, k=300, n=6), contract_for("gemm", name)
    operands = contract.operands(shape, None, 7)
    parted = contract.for_tiling({"k_parts": 3})
    passes = [1] if name != "msd-mxfp4" else [1, 2]
    for count in passes:
        whole = contract if name != "msd-mxfp4" else contract.with_passes(count)
        total = None
        for start, stop in ((0, 128), (128, 256), (256, 300)):
            part = {"x": operands["x"][:, start:stop], "w": operands["w"][start:stop]}
            if "scale" in operands:
                blocks = slice(start // 32, -(-stop // 32))
                part["scale"] = operands["scale"][blocks] if operands["scale"].dtype != np.float32 else operands["scale"]
            y32 = whole.reference(Gemm(m=3, k=stop - start, n=6), part)["y32"]
            total = y32 if total is None else total + y32
        used = parted if name != "msd-mxfp4" else parted.with_passes(count)
        result = used.reference(shape, operands)
        if count == 1:
            assert np.array_equal(result["y32"], total)
        y64 = used.exact(shape, operands)
        assert bound_ratio(result["y"], y64, used.bound(shape, operands, y64)) <= 1
