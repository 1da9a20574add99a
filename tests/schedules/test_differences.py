"""Every field of a schedule is compared, and everything of a request is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdsim.hardware import load_hw
from msdsim.problems import parse_inline
from msdsim.schedules.difference import differences
from msdsim.schedules.schedule import chip_hash, record_schedule, repeat_schedule

PROBLEM = parse_inline("gemm:m=4,k=512,n=256")


@pytest.fixture(scope="module")
def schedule():
    return record_schedule(PROBLEM, "toy", "bf16")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"cycles": 1}, "cycles"), ({"instructions": 1}, "instructions"), ({"memory": "banked"}, "memory"), ({"hw": "ascend910b1"}, "hw"),
        ({"dataflow": "w8a8"}, "dataflow"), ({"warm": True}, "warm"), ({"problem": {"kind": "gemm", "m": 5}}, "problem"),
        ({"overrides": {"clock_mhz": 5}}, "override clock_mhz"), ({"numbers": {"bit_exact": False}}, "numbers"), ({"tiling": {}}, "tiling base_m"), ({"kernel_sha256": "0" * 64}, "kernel text"), ({"chip_sha256": "0" * 64}, "chip numbers"),
    ],
)
def test_each_field(schedule, changes, what):
    found = differences(schedule, schedule.model_copy(update=changes))
    assert found[0].what == what
    assert len(found) == 1 or what == "tiling base_m"


def test_a_new_kind_of_traffic_and_one_that_went_away(schedule):
    more = schedule.model_copy(update={"traffic": {**schedule.traffic, "l3_read_bytes": 5}})
    assert [(item.what, item.before, item.after) for item in differences(schedule, more)] == [("traffic l3_read_bytes", "0", "5")]
    assert [(item.what, item.before, item.after) for item in differences(more, schedule)] == [("traffic l3_read_bytes", "5", "0")]


def test_the_memory_model_is_repeated():
    plain, banked = (record_schedule(PROBLEM, "toy", "bf16", memory=memory) for memory in ("bandwidth", "banked"))
    assert plain.cycles != banked.cycles
    again = repeat_schedule(banked, Path())
    assert (again.memory, again.cycles) == ("banked", banked.cycles)


def test_a_new_category_and_a_new_pipe(schedule):
    """What only one of the two has counts as nothing in the other."""
    busy = schedule.pipes["aic.m"]["busy"]
    without = {key: value for key, value in schedule.pipes["aic.m"].items() if key != "busy"}
    less = schedule.model_copy(update={"pipes": {**schedule.pipes, "aic.m": without}})
    assert [(item.what, item.before, item.after, item.figure) for item in differences(less, schedule)] == [("aic.m busy", "0", f"{busy:,}", (0, busy))]
    assert [(item.what, item.change) for item in differences(schedule, less)] == [("aic.m busy", f"-{busy:,} (-100.00%)")]
    more = schedule.model_copy(update={"pipes": {**schedule.pipes, "aic.new": {"busy": 7}}})
    assert [(item.what, item.figure) for item in differences(schedule, more)] == [("aic.new busy", (0, 7))]
    assert [(item.what, item.figure) for item in differences(more, schedule)] == [("aic.new busy", (7, 0))]


def test_a_share_is_of_what_was_before(schedule):
    before, after = (schedule.model_copy(update={"cycles": cycles}) for cycles in (8000, 10_000))
    assert [item.change for item in differences(before, after)] == ["+2,000 (+25.00%)"]
    assert [item.change for item in differences(after, before)] == ["-2,000 (-20.00%)"]


def test_what_was_given_stays_given():
    """A repeated schedule says which keys of its tiling the user gave; all the others are those that were chosen then."""
    given = record_schedule(PROBLEM, "toy", "bf16", tiling={"base_m": 16})
    again = repeat_schedule(given, Path())
    assert (again.tiling_given, again.tiling) == ({"base_m": 16}, given.tiling)
    assert len(given.tiling) > 1
    assert again == given


def test_a_warm_run_is_repeated_warm():
    warm = record_schedule(PROBLEM, "toy", "bf16", warm=True)
    assert warm.warm
    assert repeat_schedule(warm, Path()) == warm
    assert warm.traffic["hbm_read_bytes"] < record_schedule(PROBLEM, "toy", "bf16").traffic["hbm_read_bytes"]


@pytest.mark.parametrize("change", [{"hbm.bandwidth_gbps": 65}, {"clock_mhz": 1001}, {"l2.ways": 8}, {"cube.head_isolated_cycles": 11}, {"vector.ops.add.min_cycles": 5},
                                    {"paths.gm_ub.latency_cycles": 91}, {"cross_core.signal_latency_cycles": 21}, {"hbm.banked.trp_ns": 11}])
def test_every_table_of_a_chip_is_in_its_hash(change):
    toy = load_hw("toy")
    assert chip_hash(toy.replace(**change)) != chip_hash(toy)
