"""Single transfers and instructions in the simulator against the published tables."""

from __future__ import annotations

import pytest

from msdsim.dataflows import DATAFLOWS
from msdsim.errors import InputError
from msdsim.explore.micro import all_micro_tables, load_micro, measured_cycles, median_error, micro_tables
from msdsim.hardware import load_hw
from msdsim.problems import parse_inline


@pytest.fixture(scope="module")
def tables():
    return all_micro_tables()


def test_median_of_all_rows_is_within_five_percent(tables):
    assert median_error(tables) <= 0.05


def test_outliers_are_the_known_ones(tables):
    """A single KiB into L1 starts faster than the line through the larger sizes."""
    rows = [(table, row) for table in tables if table.target for row in table.rows]
    assert [(table.id, row.size) for table, row in rows if abs(row.error) > 0.15] == [("gm-l1", 1024)]


def test_every_target_table_is_close(tables):
    for table in tables:
        if table.target:
            assert table.median_error <= 0.06, table.id


def test_tables_of_a_chip_are_those_that_name_it():
    found = micro_tables("ascend910b3")
    assert {table.id for table in found} == {t["id"] for t in load_micro() if "ascend910b3" in t["chips"]}
    assert all(table.chip == "ascend910b3" for table in found)
    assert found[0].to_json()["rows"][0].keys() == {"size", "published", "simulated", "error"}


def test_both_engines_measure_the_same():
    table = next(t for t in micro_tables("ascend910b1", engine="reference") if t.id == "l1-l0a")
    assert table.rows == next(t for t in micro_tables("ascend910b1") if t.id == "l1-l0a").rows


def test_unknown_measure_is_an_error():
    import msdsim

    result = msdsim.simulate("micro:mmad", "toy", "micro", timeline=True)
    with pytest.raises(InputError, match="unknown measure 'often'"):
        measured_cycles(result, "often")


@pytest.mark.parametrize("text", ["micro:copy_gm_ub,warm=0", "micro:mmad", "micro:matmul,m=64,k=64,n=64"])
def test_inline_form_reads_back(text):
    problem = parse_inline(text)
    assert str(problem) == text
    assert parse_inline(str(problem)) == problem


@pytest.mark.parametrize(("text", "reason"), [
    ("micro:copy_l1_gm", "has no path"),
    ("micro:copy_gm_ub,bytes=100", "not a multiple"),
    ("micro:vector,instr=fft", "not one of"),
    ("micro:mmad,fmt=int4", "cannot multiply"),
    ("micro:matmul,m=64,k=64,n=64,step_ka=3,step_kb=2", "do not divide"),
    ("micro:matmul,m=6400,k=64,n=64,single_m=64", "cores"),
])
def test_what_cannot_run_says_why(text, reason):
    assert reason in (DATAFLOWS["micro"].refuses(parse_inline(text), load_hw("ascend950pr").chip) or "")


@pytest.mark.parametrize("op", ["copy_gm_ub", "copy_ub_gm", "copy_gm_l1", "copy_l1_gm", "copy_gm_l0a", "copy_gm_l0b", "copy_l0c_gm",
                                "copy_l0c_l1", "copy_l1_l0a", "copy_l1_l0b", "copy_l1_bt", "mmad", "vector"])
@pytest.mark.parametrize("isolated", [0, 1])
def test_every_operation_runs_and_alone_is_slower(op, isolated):
    import msdsim

    cycles = [msdsim.simulate(f"micro:{op},bytes=1024,count=8,isolated={flag}", "ascend910b1", "micro").record.instructions
              for flag in (0, isolated)]
    assert min(cycles) > 0
