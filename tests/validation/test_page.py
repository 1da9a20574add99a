"""The fidelity page has every row of the shipped files, and the tables can be made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdsim.explore.fidelity_tables import micro_markdown, sensitivity_markdown, validation_markdown
from msdsim.explore.measurements import load_measurements
from msdsim.explore.micro import load_micro, micro_tables
from msdsim.explore.sensitivity import UNCERTAIN, sensitivity
from msdsim.explore.validate import validate
from msdsim.hardware import load_hw
from msdsim.hardware.hardware import scaled

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


def test_the_page_has_every_row():
    text = PAGE.read_text(encoding="utf-8")
    for row in load_measurements():
        assert row.long or f"| {row.id} |" in text
    for table in load_micro():
        assert f"| {table['title']}" in text
    for constant in UNCERTAIN:
        assert f"| `{constant}` |" in text


OWN = """
[[row]]
id = "mine"
chip = "toy"
problem = "gemm:m=16,k=64,n=96"
dataflow = "bf16"
time_us = 1.5
scope = "task"
source = "my bench"
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    return path


def test_tables(own):
    report, banked = validate(own), validate(own, memory="banked")
    assert "| mine | toy | task | 1.5 |" in validation_markdown(report, banked)
    assert "GM -> UB" in micro_markdown(micro_tables("ascend910b3"))
    found = sensitivity(own, ("hbm.extra_latency_cycles", "paths.gm_l1.nd2nz.l2_share"), (0.5, 2.0))
    assert found[0].changes[2.0]["mine"] > 0 > found[0].changes[0.5]["mine"]
    assert found[0].largest(2.0)[0] == "mine"
    # The toy chip has no such number.
    assert found[1].changes[2.0]["mine"] == 0
    assert sensitivity_markdown(found).count("\n") == 3


def test_scaled_keeps_shares_and_whole_numbers():
    chip = scaled(load_hw("ascend910b1"), {"hbm.efficiency": 2, "hbm.extra_latency_cycles": 1.3, "launch.head_us": 0.7}).chip
    assert chip.hbm.efficiency == 1
    assert chip.hbm.extra_latency_cycles == 572
    assert chip.launch.head_us == 7
    # 1637 GB/s times an efficiency of more digits would be more than the engines count with.
    assert scaled(load_hw("ascend950pr"), {"hbm.efficiency": 0.98513}).chip.hbm.efficiency == 0.97


def test_uncertain_constants_were_not_measured():
    provenance = load_hw("ascend910b1").provenance
    assert {provenance[key].kind for key in UNCERTAIN} <= {"assumed", "inferred", "simulator"}
