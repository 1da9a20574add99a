"""Simulated times against the closed forms: never below the floor, and near the latency model where it applies."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.analysis.bottleneck import utilizations
from msdsim.analysis.closed_form import floor_us, gemm_terms, gemm_time_us
from msdsim.hardware import load_hw
from msdsim.problems import Gemm

CHIP = load_hw("ascend910b1")
DECODE = Gemm(m=16, k=8192, n=12288)


def test_terms_by_hand():
    """910B1 at 1850 MHz: 24 AIC, 48 AIV, 1.6 TB/s, K=8192, N=12288, m=16."""
    terms = gemm_terms("dequant-int8", DECODE, CHIP.chip)
    weights = 8192 * 12288
    # cast to FP16 (1 cycle per 128), to FP32, multiply, cast to BF16 (1 per 64 each).
    assert terms["dequant"] == pytest.approx(weights * (1 / 128 + 3 / 64) / 48 / 1850)
    # One row of fractals: K / 16 x N / 16 of them.
    assert terms["cube"] == pytest.approx(512 * 768 / 24 / 1850)
    assert terms["memory"] == pytest.approx((2 * 16 * 8192 + weights + 4 * 12288) / 1.6e6)
    assert gemm_time_us("dequant-int8", DECODE, CHIP.chip) == terms["memory"] == max(terms.values())


@pytest.mark.parametrize(("dataflow", "busiest", "most"), [
    ("bf16", "hbm", 1.1), ("msd-int8", "hbm", 1.15),
    # Vector, HBM and the Cube's reading of the workspace out of L2 are each needed for 62 to 76 of its 85 us.
    ("dequant-int8", "hbm", 1.4),
])
def test_decode_shape_against_the_latency_model(dataflow, busiest, most):
    result = msdsim.simulate(DECODE, CHIP, dataflow)
    assert 1 <= result.time_us / gemm_time_us(dataflow, DECODE, CHIP.chip) < most
    assert result.bottleneck.name == busiest


@pytest.mark.parametrize("dataflow", ["bf16", "dequant-int8", "msd-int8"])
@pytest.mark.parametrize("m", [1, 33, 300, 1024])
def test_floor(dataflow, m):
    problem = Gemm(m=m, k=1024, n=1536)
    result = msdsim.simulate(problem, CHIP, dataflow)
    assert result.time_us >= floor_us(dataflow, problem, CHIP.chip)
    shares = utilizations(result.record)
    assert all(0 <= share <= 1 for share in shares.values()), shares


def test_a_faster_memory_speeds_up_what_memory_bounds():
    faster = CHIP.replace(**{"hbm.bandwidth_gbps": 3200})
    bound, unbound = (msdsim.simulate(DECODE, CHIP, d).time_us / msdsim.simulate(DECODE, faster, d).time_us
                      for d in ("bf16", "dequant-int4"))
    # Not twice as fast: what the cores keep in flight then limits them.
    assert bound > 1.35
    assert unbound < 1.1


def test_a_workspace_that_leaves_l2_costs_hbm_traffic():
    """The ring of dequantized weights stays in L2 while it fits, and goes through HBM when it does not."""
    inside = msdsim.simulate(DECODE, CHIP, "dequant-int8")
    small = CHIP.replace(**{"l2.capacity_bytes": 2 * 2**20})
    outside = msdsim.simulate(DECODE, small, "dequant-int8")
    weights = 8192 * 12288
    read = inside.traffic["hbm_read_bytes"]
    assert weights <= read < 1.02 * weights
    assert inside.traffic["hbm_write_bytes"] == 0
    # Written out and mostly read back: two bytes a weight, each way.
    assert outside.traffic["hbm_write_bytes"] > 1.9 * weights
    assert outside.traffic["hbm_read_bytes"] > 1.9 * weights
