"""Cycles, executions and bytes by line of the kernel, each against the totals of the run by another way."""

from __future__ import annotations

import json

import pytest

from msdsim.analysis.lines import line_counts, line_profile
from msdsim.api import simulate
from msdsim.cli.program import run_program
from msdsim.timeline.record import CATEGORIES

CASES = [("gemm:m=40,k=256,n=192", "toy", "bf16"), ("gemm:m=7,k=100,n=80", "toy", "msd-int8"),
         ("gemm:m=16,k=1024,n=1536", "ascend910b1", "dequant-int8"),
         ("attention:batch=2,heads=4,kv_heads=2,head_dim=128,q=1,kv=1000", "ascend910b1", "msd-int8")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[2]}-{case[1]}")
def result(request):
    return simulate(*request.param)


def test_lines_add_up_to_every_pipe(result):
    for pipe, totals in result.stalls.items():
        if pipe.endswith(".s"):
            continue  # dispatch is of no line
        rows = [row for row in line_profile(result.record) if row.kind == pipe]
        for category in CATEGORIES:
            if category != "drained":
                assert sum(row.cycles.get(category, 0) for row in rows) == totals[category], (pipe, category)


def test_every_wait_has_its_culprits(result):
    for row in line_profile(result.record):
        by_category = {}
        for stall in row.stalls:
            by_category[stall.category] = by_category.get(stall.category, 0) + stall.cycles
            assert stall.what
            assert stall.by
        assert by_category == {name: value for name, value in row.cycles.items() if name.startswith("wait_")}


def test_executions_and_bytes_are_those_of_the_engine(result):
    counts = line_counts(result.record.program).values()
    assert sum(count.executions for count in counts) == result.record.instructions
    traffic = result.record.traffic
    assert sum(count.bytes for count in counts) == traffic["l2_read_bytes"] + traffic["l2_write_bytes"]


def test_lines_of_a_result(result):
    lines = result.lines
    assert all(line.text for line in lines)
    assert [line.to_json()["line"] for line in lines] == [line.profile.line for line in lines]
    rates = [line.l2_hit_rate for line in lines if line.l2_hit_rate is not None]
    assert rates
    assert all(0 <= rate <= 1 for rate in rates)
    traffic = result.record.traffic
    assert result.l2_read_hit_rate == max(0, 1 - traffic["hbm_read_bytes"] / traffic["l2_read_bytes"])


def test_lines_on_the_command_line(capsys):
    assert run_program(["run", CASES[0][0], "--hw", "toy", "--lines"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "copy b1" in line]
    assert len(rows) == 1
    assert rows[0].split()[1] == "aic.mte2"
    assert run_program(["run", CASES[0][0], "--hw", "toy", "--lines", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    busy = sum(line["busy"] for line in document["lines"] if line["pipe"] == "aic.mte2")
    assert busy == document["pipes"]["aic.mte2"]["busy"]
