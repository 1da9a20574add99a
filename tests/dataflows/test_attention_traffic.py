"""HBM traffic of an INT8 cache: Md where the integers are read once, 5Md where a dequantized copy goes through HBM."""

from __future__ import annotations

import pytest

import msdsim
from msdsim.analysis.cache_traffic import cache_traffic
from msdsim.hardware import load_hw

#: A head's tokens side by side: among all heads of a token, its 128 bytes are a quarter of a line that other cores read as well.
SHAPE = "attention:batch=4,heads=32,kv_heads=8,head_dim=128,q=1,kv=2048,kv_layout=bnsd"
#: The cache has 8 Mi elements, its BF16 copy 16 MiB: more than this L2, as 32768 tokens of a batch of 4 are on the real chip.
SMALL_L2 = 4 * 2**20


@pytest.fixture(params=["ascend910b1", "ascend950pr"])
def chip(request):
    return load_hw(request.param)


def traffic(chip, dataflow, **tiling):
    return cache_traffic(msdsim.simulate(SHAPE, chip, dataflow, tiling=tiling).record)


def test_msd_reads_the_cache_once(chip):
    found = traffic(chip, "msd-int8")
    assert found.cache_read == pytest.approx(1, abs=0.01)
    assert found.total < 1.1


def test_bf16_cache_is_twice_as_large(chip):
    assert traffic(chip, "bf16").total == pytest.approx(2, abs=0.05)


def test_a_dequantized_copy_larger_than_l2_costs_five(chip):
    found = traffic(chip.replace(l2__capacity_bytes=SMALL_L2), "dequant-int8", fused=0)
    assert found.cache_read == pytest.approx(1, abs=0.01)
    assert found.total == pytest.approx(5, abs=0.35)


def test_a_ring_stays_in_l2_if_it_fits():
    """The ring's depth decides: what is dequantized goes through HBM or not."""
    chip = load_hw("ascend910b1").replace(l2__capacity_bytes=32 * 2**20)
    tiles = {"kv_tile": 256, "l1_kv": 128, "kv_splits": 1}
    assert traffic(chip, "dequant-int8", kv_slots=3, **tiles).workspace_write < 0.01
    assert traffic(chip, "dequant-int8", kv_slots=32, **tiles).total > 2.5


def test_a_dequantized_copy_that_fits_l2_is_not_read_back(chip):
    found = traffic(chip, "dequant-int8", fused=0)
    assert found.workspace_read < 0.01
