"""Accuracy studies and the claims table: figures that msd.md derives, and verdicts that can turn."""

import numpy as np
import pytest

from msdsim.errors import UnknownNameError
from msdsim.explore.accuracy.claim_series import claim_series
from msdsim.explore.accuracy.claims import ClaimProblems, ClaimRow, bits, claims, int8_claims, mxfp4_claims, worst_over_bound
from msdsim.explore.accuracy.distributions import DISTRIBUTIONS
from msdsim.explore.accuracy.study import ATTENTION_METHODS, GEMM_METHODS, accuracy_study, represented
from msdsim.formats.msd import MSD_INT8, MSD_MXFP4
from msdsim.problems.model import Attention, Gemm, GroupedGemm


def table(rows):
    return {(row.input, row.method, row.passes): row for row in rows}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name):
    x = DISTRIBUTIONS[name].draw(np.random.default_rng(0), (400, 500))
    again = DISTRIBUTIONS[name].draw(np.random.default_rng(0), (400, 500))
    np.testing.assert_array_equal(x, again)
    assert x.dtype == np.float32
    rms = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
    expected = {"uniform": (4 / 3) ** 0.5, "outliers": ((492 + 8 * 900) / 500) ** 0.5}.get(name, 1)
    assert rms == pytest.approx(expected, rel=0.03)
    if name == "outliers":
        assert (np.abs(x).max(axis=0) > 30).sum() == 8


def test_gemm_study_orders_the_methods():
    rows = accuracy_study(Gemm(m=8, k=512, n=32), ["normal", "outliers"])
    found = table(rows)
    wanted = [(name, method, count) for name in ("normal", "outliers")
              for method, passes in GEMM_METHODS for count in passes or (None,)]
    assert list(found) == wanted
    assert all(row.bound_ratio <= 1 for row in rows)
    for name in ("normal", "outliers"):
        by_passes = [found[name, "msd-int8", p].relative_l2_fp32 for p in (1, 2, 3)]
        assert by_passes[0] > 100 * by_passes[1] > 10000 * by_passes[2]
        assert found[name, "msd-int8", 2].relative_l2_fp32 < found[name, "dequant-int8", None].relative_l2_fp32
        assert 1e-3 < found[name, "msd-int8", 2].relative_l2_bf16 < 2.5e-3  # the output's own rounding
        assert found[name, "bf16", None].effective_bits is None
    # The one comparison that inverts with strong outliers.
    assert found["normal", "msd-mxfp4", 2].relative_l2_fp32 < found["normal", "mxfp8", None].relative_l2_fp32
    assert found["outliers", "msd-mxfp4", 2].effective_bits < found["outliers", "mxfp8", None].effective_bits


def test_study_on_given_arrays_and_grouped_weights():
    lines = []
    rows = accuracy_study(Gemm(m=2, k=64, n=4, group=32), inputs={"x": np.ones((2, 64))}, progress=lines.append)
    assert {row.input for row in rows} == {"given arrays"}
    assert not any("mx" in row.method for row in rows)  # mxfp4 has its own blocks
    assert len(lines) == len(rows)
    assert lines[0] == "given arrays: bf16"
    assert "given arrays: msd-int8, 2 passes" in lines
    with pytest.raises(UnknownNameError, match=r"unknown input distribution 'gauss' \(known: uniform, normal"):
        accuracy_study(Gemm(m=2, k=64, n=4), ["gauss"])


def test_grouped_study():
    rows = accuracy_study(GroupedGemm(groups=2, m=2, k=64, n=4), ["normal"], methods=[("msd-int8", (1, 2)), ("mxfp8", ())])
    assert [(row.method, row.passes) for row in rows] == [("msd-int8", 1), ("msd-int8", 2), ("mxfp8", None)]
    assert rows[1].effective_bits > rows[0].effective_bits + 7


def test_attention_study():
    rows = accuracy_study(Attention(batch=1, heads=2, kv_heads=1, head_dim=32, q=1, kv=200), ["normal"])
    found = table(rows)
    assert len(rows) == sum(len(passes) or 1 for _, passes in ATTENTION_METHODS)
    assert found["normal", "msd-int8", 2].relative_l2_fp32 < found["normal", "dequant-int8", None].relative_l2_fp32 / 5
    assert all(row.bound_ratio <= 1 and row.effective_bits is None for row in rows)


@pytest.mark.parametrize(("method", "passes", "distribution", "value"), [
    ("msd-int8", 2, "uniform", 15.98), ("msd-mxfp4", 2, "uniform", 6.58), ("mxfp8", None, "uniform", 5.40),
    ("mxfp8", None, "normal", 5.23), ("mxfp8", None, "student-t", 5.24), ("msd-mxfp4", 2, "normal", 5.85)])
def test_effective_bits_are_the_derived_ones(method, passes, distribution, value):
    assert bits(method, passes, distribution) == pytest.approx(value, abs=0.02)


def test_representation_is_none_where_activations_stay():
    x = np.ones((1, 32), np.float32)
    assert represented(x, "dequant-int8") is None
    assert represented(x, "a8w4").shape == (1, 32)


def test_bounds_are_reached():
    assert 0.999 < worst_over_bound(MSD_INT8) <= 1 + 1e-6
    assert 0.999 < worst_over_bound(MSD_MXFP4) <= 1
    assert worst_over_bound(MSD_MXFP4.with_passes(1)) == 1


def test_claims_table():
    rows = claims(ClaimProblems([Gemm(m=8, k=k, n=32) for k in (256, 512)],
                                [Attention(batch=1, heads=2, kv_heads=1, head_dim=32, q=1, kv=100)]))
    assert list(dict.fromkeys(row.claim for row in rows)) == ["P1", "P2", "P3", "P4", "P5", "P6"]
    verdict = {row.text: row.verdict for row in rows}
    assert verdict["two int8 passes: error at most M/64516, and reached"] == "reproduced"
    assert verdict["two int8 passes: effective bits"] == "holds only for uniform"
    assert verdict["two MXFP4 passes: error at most alpha/64, and reached"] == "reproduced"
    assert verdict["the same bound under the scale rule ocp-floor"] == "not reproduced"
    assert verdict["two MXFP4 passes: effective bits"] == "holds only for uniform"
    assert verdict["single-pass MXFP8: effective bits"] == "holds only for normal, laplace, student-t, outliers"
    assert verdict["two MXFP4 passes are above single-pass MXFP8"] == "holds only for uniform, normal, laplace, student-t"
    assert verdict["matmul: msd-int8 (2 passes) has no more error than dequant-int8"] == "reproduced"
    assert verdict["matmul: msd-mxfp4 (2 passes) has no more error than dequant-mxfp4"] == "not reproduced"
    assert all(row.measured_on and row.paper for row in rows)
    missing = [row for row in rows if row.verdict.startswith("not measured: needs simulated")]
    assert [row.claim for row in missing] == ["P1", "P4", "P5", "P5"]


def test_timing_rows_take_the_place_of_missing_ones():
    row = ClaimRow("P1", "dequantization costs more cycles than the matmul", "slower", "7x", "gemm", "reproduced")
    stall = ClaimRow("P5", "MSD avoids the Vector-Cube pipeline stall (share of the run)", "none", "0%", "gemm", "reproduced")
    small = ClaimProblems([Gemm(m=1, k=32, n=1)], [Attention(batch=1, heads=1, kv_heads=1, head_dim=8, q=1, kv=8)])
    rows = claims(small, {"P1": [row], "P5": [stall]})
    assert [r for r in rows if r.claim == "P1"] == [row]
    first, second = (r for r in rows if r.claim == "P5")
    assert first == stall
    assert second.verdict == "not measured: needs simulated traffic of dequant and msd attention"


def test_a_wrong_figure_turns_the_verdict(monkeypatch):
    """The table measures: with a decomposition of one pass its own verdicts say so."""
    monkeypatch.setattr("msdsim.explore.accuracy.claims.bits", lambda *args: 7.0)
    assert {row.verdict for row in int8_claims() if "bits" in row.text} == {"not reproduced"}
    monkeypatch.setattr("msdsim.explore.accuracy.claims.worst_over_bound", lambda *args: 1.01)
    assert mxfp4_claims()[0].verdict == "not reproduced"


def test_series():
    series = claim_series(m=2, n=8, all_k=(64, 256))
    assert set(series.l2_by_passes) == {"msd-int8", "msd-int4", "msd-mxfp4"}
    assert all(list(points.values()) == sorted(points.values(), reverse=True) for points in series.l2_by_passes.values())
    assert set(series.bits_by_input["mxfp8"]) == set(DISTRIBUTIONS)
    assert list(series.l2_by_k["msd-int8"]) == [64, 256]
