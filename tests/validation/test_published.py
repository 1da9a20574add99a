"""Whole published kernels against the simulator, with the same chip files for all of them."""

from __future__ import annotations

import json

import pytest

from msdsim.api import simulate
from msdsim.errors import InputError
from msdsim.explore.measurements import load_measurements
from msdsim.explore.parity import parity_plot
from msdsim.explore.validate import validate
from msdsim.explore.wording import dataflow_of
from msdsim.hardware import load_hw


@pytest.fixture(scope="module")
def report():
    return validate(long=False)


#: Rows of kernels that there is no problem for.
INEXPRESSIBLE = {"a2-gelu-fp32-8192", "a2-nd2nz-8192", "950-rmsnormquant-4096x8192", "950-tbmm-m32-k512-n128",
                 "950dt-mxfp4-quant-1048576x64"}
#: Rows that are further off than 30%, and what is known about them.
OUTLIERS = {
    "910c-mla-amla": "K and V come one after the other, there they are one load",
    "910b2-catlass34-4096x4096x40000": "a core goes over K in pieces that add up in place, here three cores share it",
    "950-copy-l1-same-address": "twice the time of cores that begin apart, which no serving of a line explains",
    "950-mxfp4-128x8192x4096": "MX tiles that hold scales for all of K",
    "a2-m16-n16-k1024-1core": "20 cycles for each row of 32 B, which nothing here explains",
}


def test_targets(report):
    assert {row.id for row in report.rows if row.error is None} == INEXPRESSIBLE
    assert report.overall.median_error <= 0.07
    assert {row.id for row in report.certain if row.error is not None and abs(row.error) > 0.30} <= set(OUTLIERS)


def test_rows_that_informed_no_constant_are_met_as_well(report):
    assert report.unseen.predicted >= 20
    assert report.unseen.median_error <= 0.09
    assert report.unseen.p90_error <= 0.21
    assert report.overall.p90_error <= 0.19
    known = set(load_hw("ascend910b1").provenance)
    assert {key for row in report.rows for key in row.informs} <= known


@pytest.mark.xfail(strict=True, reason="0.203, 0.1999 before tilings were searched further: the automatic one of the W4A16 row "
                                       "4096 x 4096 is 0.3% faster, whose operator decomposes, and is no dequantization")
def test_nine_in_ten_of_them_within_a_fifth(report):
    assert report.unseen.p90_error <= 0.20


def test_ratios(report):
    assert len(report.ratios) == 5
    for ratio in report.ratios:
        assert abs(ratio.error) <= 0.15, ratio


def test_the_cube_is_as_busy_as_published(report):
    """Where the products take long enough that their start does not matter."""
    found = [part for row in report.rows for part in row.components if part.name == "mac" and part.measured_us > 100]
    assert len(found) >= 8
    assert all(abs(part.error) <= 0.03 for part in found)


def test_what_a_scope_has_beside_the_kernel(report):
    """A kernel what its scalar units set up, a task its launch, more where AIC and AIV start together."""
    launch = load_hw("ascend910b1").chip.launch
    beside = {row.id: row.predicted_us - row.kernel_us for row in report.rows if row.predicted_us is not None}
    assert beside["a2-m1024-n4095-k1024"] == pytest.approx(launch.setup_us)
    assert beside["a2-m128-n30720-k64"] == pytest.approx(2.185)
    assert beside["a2-copy-ub-64x64"] == pytest.approx(launch.head_us)
    assert beside["910b2-fa-d128-s1024"] == pytest.approx(launch.head_us + launch.mix_us)
    assert beside["910b2-6144"] == pytest.approx(launch.repeat_us)
    assert min(beside.values()) > 0


def test_json_and_plot(report, tmp_path):
    data = json.loads(json.dumps(report.to_json()))
    assert data["schema"] == "msdsim.validate/1"
    assert data["overall"]["median_error"] == pytest.approx(report.overall.median_error)
    assert data["overall"]["rows"] + data["ambiguous"]["rows"] == len(data["rows"]) > data["unseen"]["rows"] > 0
    assert sum(family["predicted"] for family in data["families"].values()) == data["overall"]["predicted"]
    parity_plot(report).savefig(tmp_path / "parity.png")
    assert (tmp_path / "parity.png").stat().st_size > 10_000


OWN = """
[[row]]
id = "mine"
chip = "toy"
problem = "gemm:m=16,k=64,n=96"
dataflow = "bf16"
time_us = 1.5
scope = "kernel"
source = "my bench"

[[row]]
id = "words"
chip = "ascend910b1"
problem = "copy 256x512 fp16 GM->UB, 48 AIV, tile [1,512]"
time_us = 15
scope = "task"
source = "my bench"

[[row]]
id = "rate"
chip = "toy"
problem = "gemm:m=16,k=64,n=96"
dataflow = "bf16"
tiling = "base 16x32x16, no double buffering"
tflops = 0.5
source = "my bench"

[[row]]
id = "pair"
chip = "ascend950pr"
problem = "gemm:m=512,k=512,n=768"
dataflow = "mxfp8 x mxfp8"
time_us = 5
time_us_before = 6
source = "my bench"

[[row]]
id = "fp16"
chip = "toy"
problem = "gemm:m=16,k=64,n=96"
dataflow = "fp16"
time_us = 1.5
scope = "kernel"
source = "my bench"

[[row]]
id = "attention-rate"
chip = "toy"
problem = "attention:batch=1,heads=2,kv_heads=2,head_dim=32,q=16,kv=64"
dataflow = "bf16"
tflops = 0.5
source = "my bench"

[[row]]
id = "uneven-rate"
chip = "toy"
problem = "grouped_gemm:rows=5+0+11,k=64,n=96"
dataflow = "bf16"
tflops = 0.5
source = "my bench"

[[row]]
id = "unknown"
chip = "toy"
problem = "gemm:m=16,k=64,n=96"
dataflow = "magic"
time_us = 1
source = "my bench"
"""


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    report = validate(path)
    mine, words, rate, pair, fp16, attention, uneven, unknown = report.rows
    assert mine.error is not None
    assert mine.scope == "kernel"
    assert words.predicted_us == words.kernel_us + 10
    assert rate.measured_us == pytest.approx(2 * 16 * 64 * 96 / 0.5 / 1e6)
    assert "magic" in unknown.reason
    assert uneven.measured_us == rate.measured_us
    assert fp16.predicted_us == mine.predicted_us
    assert attention.measured_us == pytest.approx(4 * 2 * 16 * 64 * 32 / 0.5 / 1e6)
    # All cores have a block, so that the product takes about its share of the Cube's rate and its start.
    assert 2 * 512 * 512 * 768 / 865e6 < pair.predicted_us < 30


GOOD = "[[row]]\nid = 'a'\nchip = 'toy'\nproblem = 'gemm:m=1,k=1,n=1'\nsource = 's'"


@pytest.mark.parametrize(("text", "message"), [
    ("x = 1", "has no rows"),
    ("[[row]]\nid = 'a'\nchip = 'toy'\nproblem = 'gemm:m=1,k=1,n=1'\nsource = 's'\nwhat = 1", "key 'what'"),
    ("[[row]]\nid = 'a'\nchip = 'toy'\nsource = 's'", "key 'problem'"),
    ("[[row]]\nid = 'a'\nchip = 'toy'\nproblem = 'p'\nsource = 's'\nscope = 'all'", "key 'scope'"),
    ("row = [", "is not valid TOML"),
    ("row = [1]", "row 1 is 1; write it as"),
    ("sources = 3\n" + GOOD, "'sources' is 3; give a table"),
    (GOOD.replace("source = 's'", "source = ['s']"), "key 'source'"),
    *[(GOOD + f"\n{key} = {value}", f"row 1 'a': key '{key}'") for key in ("time_us", "tflops", "ratio_only") for value in (0, -1.0, "nan", "inf")],
    (GOOD + "\ncomponents_us = { mac = 0 }", "key 'components_us.mac'"),
    (GOOD + "\nset = { 'cores.aic' = nan }", "key 'set.cores.aic"),
    (GOOD + "\n" + GOOD, "row 2: there is a row 'a' before it"),
    (GOOD + "\nratio_to = 'b'", "row 1 'a': ratio_to = 'b' names no row"),
])
def test_a_mistake_in_a_file_is_named(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_measurements(path)


def test_a_row_known_by_its_id_is_run_as_the_shipped_one(tmp_path):
    path = tmp_path / "raw.toml"
    path.write_text("""
[[row]]
id = "a2-l2-reuse-ub"
chip = "ascend910b1"
problem = "read 1208 MB in all GM->UB"
time_us = 365.7
time_us_without_reuse = 828
scope = "task"
source = "page"
""")
    assert validate(path).rows[0].predicted_us is not None


def test_the_vendors_weight_only_operator():
    """A row that says no tiling is the vendor's operator; short M with groups of 128 it decomposes."""
    row = next(item for item in load_measurements() if item.id == "910b1-w4a16-17408x5120-prof")
    chip = load_hw(row.chip).chip
    assert dataflow_of(row, chip) == "vendor-int4"
    assert dataflow_of(row.model_copy(update={"tiling": {"base_n": 128}}), chip) == "dequant-int4"
    assert dataflow_of(row.model_copy(update={"problem": "gemm:m=1,k=4096,n=4096,group=128"}), chip) == "dequant-int4"
    assert dataflow_of(row.model_copy(update={"chip": "ascend950pr"}), load_hw("ascend950pr").chip) == "dequant-int4"


def test_unit_flags_and_a_second_buffer_of_scales_overlap_tiles():
    shape = "micro:matmul,m=1024,k=256,n=512,single_m=512,single_n=64,fmt=mxfp4,base_m=64,base_n=64,base_k=64,trans_b=1"
    times = []
    for keys in ("", ",unit_flag=1", ",unit_flag=1,scale_ring=2"):
        fast, slow = (simulate(shape + keys, "ascend950pr", engine=engine).cycles for engine in ("fast", "reference"))
        assert fast == slow
        times.append(fast)
    assert times[0] > times[1] > times[2]
